"""The base of the package: poses, images, files, errors, defaults and metrics."""
