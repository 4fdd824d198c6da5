"""What every room may use: poses, images, files, errors, defaults and metrics."""
