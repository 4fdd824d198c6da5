"""
Training of place-recognition models: the only package that imports torch.

The network, its initialisation, the training loop, and the export to the ONNX file that the robot
runs. Nothing that runs on the robot imports from here.
"""
