"""
The errors of the package: one class per cause, one line per message.

A message names the file and the remedy. The command line prints it and exits 1; the node counts
and logs it.
"""

from __future__ import annotations

from vpr_ros.core.fields import printable

_TAIL = 99  # characters at its end, where the remedy is


class VprError(Exception):
    """
    Base class of every error that a user can cause and fix.

    Its text is one printable line of fewer than 300 characters, whatever a file put into it: of a
    longer one the middle is left out.
    """

    longest = 299

    def __init__(self, message: object = '') -> None:
        super().__init__(self._shortened(printable(self._shortened(str(message)))))

    def _shortened(self, text: str) -> str:
        if len(text) <= self.longest:
            return text
        return f'{text[:self.longest - _TAIL - 5]} ... {text[-_TAIL:]}'


class ImageError(VprError):
    """An image that cannot be decoded, or whose size or encoding is not supported."""


class PoseError(VprError):
    """An unusable pose or pose file: not finite, a zero quaternion, or wrong columns."""


class SourceError(VprError):
    """A bag or an image folder that cannot serve as a source of frames."""


class ModelError(VprError):
    """A file that is not a model with the inputs and outputs that this package expects."""


class TrainingError(VprError):
    """An invalid experiment, or a training run that cannot continue."""


class MapError(VprError):
    """A map that is missing, incomplete, modified after it was written, or of another format."""


class ModelMismatchError(MapError):
    """A map that was built with a different model than the one in use: how to build it again."""

    longest = 10_000  # a command with the user's own paths


class SignatureError(VprError):
    """A file that is not signed with a trusted key, or a key that cannot be used."""


class OutOfOrderError(VprError):
    """A frame whose stamp is not later than that of the previous frame."""


# What each extra of setup.py brings, by the name under which Python imports it.
_MODULES = {
    'cpu': ('onnxruntime',),
    'ros': ('rclpy', 'cv_bridge'),
    'viz': ('matplotlib', 'sklearn', 'onnx'),
    'umap': ('umap',),
    'train': ('torch', 'torchvision', 'lightning', 'pytorch_metric_learning', 'omegaconf',
              'tensorboard', 'onnxscript'),
    'completion': ('argcomplete',),
    'sign': ('cryptography',),
}


def how_to_install(module: str | None) -> str:
    """Return a module's name, and how to install what is missing, for the end of a message."""
    name = (module or 'a module').partition('.')[0]
    extra = next((extra for extra, modules in _MODULES.items() if name in modules),
                 'ros' if name.endswith(('_msgs', '_srvs')) else '')
    package = f'.[{extra}]' if extra else '.'
    return (f"'{name}', which is not installed: pip install -e '{package}' in the checkout of "
            'vpr_ros')


def first_line(error: Exception) -> str:
    """Return the first line of a library's error message, or its class name without a message."""
    return (str(error) or type(error).__name__).splitlines()[0]
