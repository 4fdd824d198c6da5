"""An image becomes a descriptor: the model file, the engines that run it, the encoder."""
