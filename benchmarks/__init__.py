"""
What is measured, each question a module, against a peer in the same run.

Not part of the installed package: run from a checkout, as `python -m benchmarks`.
"""
