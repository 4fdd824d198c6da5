"""
Benchmarks: each question is a module, measured against a peer in the same run.

Not part of the installed package: run from a checkout, as `python -m benchmarks`.
"""
