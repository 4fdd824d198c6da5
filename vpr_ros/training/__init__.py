"""
Learning of models: the only room that imports torch, and that nothing on the robot imports.

The network, its data-dependent start, and its export to the ONNX file that the robot runs.
"""
