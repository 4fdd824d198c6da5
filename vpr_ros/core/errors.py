"""
The errors of the core: one class per cause, one line per message.

A message names the file and the way out. The command line prints it and exits 1; the node counts
and logs it.
"""

from __future__ import annotations


class VprError(Exception):
    """Base of every error that a user can cause and mend."""


class ImageError(VprError):
    """A picture that cannot be decoded, or whose size or encoding is out of bounds."""


class PoseError(VprError):
    """A pose or a pose file that is not usable: not finite, no quaternion, wrong columns."""


class SourceError(VprError):
    """A bag or a folder of pictures that cannot serve as a source of frames."""


class ModelError(VprError):
    """A file that is not a model of this project's contract."""


class TrainingError(VprError):
    """An experiment that is not one, or a training that cannot go on."""


class MapError(VprError):
    """A map that is missing, incomplete, changed after it was written, or of another format."""


class ModelMismatchError(MapError):
    """A map that was built with another model than the one it is asked to serve."""


class OutOfOrderError(VprError):
    """A frame whose stamp is not after the one before it."""


def first_line(error: Exception) -> str:
    """Return the first line of what a library's error says, or its class when it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]
