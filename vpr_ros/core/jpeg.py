"""
JPEG data, decoded so that damage is noticed; images.py decodes every other format.

libjpeg goes on after damage and fills the rest of the image with grey. OpenCV lets it, and lets it
print a line for each frame. simplejpeg, which runs the same libjpeg-turbo, makes it an error.
"""

from __future__ import annotations

from functools import cache
import logging
import re
import struct
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.errors import first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

try:  # rosdep has no key for it
    import simplejpeg
except ImportError:
    simplejpeg = None

_SCAN = b'\xff\xda'
_START, _END = b'\xff\xd8', b'\xff\xd9'

_PADDING = re.compile(r'\b[1-4] extraneous bytes before marker 0xd9')
"""What libjpeg says of the few bytes that some USB cameras append to a whole image."""

_STANDARD = bytes.fromhex('0002010303020403050504040000017d')
"""The code lengths that nearly all encoders have for the details of brightness."""
_MOST_SEGMENTS = 1 << 12  # before the image
_MOST_WORK = 10 ** 9  # pixels that all scans go over: a progressive JPEG may have thousands
_LOST = bytes(64)
"""No image is such a row of zeros in these codes, but libjpeg may take it for one."""

log = logging.getLogger(__name__)


class Header(NamedTuple):
    """What a JPEG's header declares; `rotated` if it has Exif data, which may tell to turn it."""

    height: int
    width: int
    channels: int
    rotated: bool


def read_header(view: memoryview) -> Header | None:
    """Return the header of JPEG data, None for other data; ValueError if it is damaged."""
    if bytes(view[:2]) != _START:
        return None
    at, rotated = 2, False
    for _ in range(_MOST_SEGMENTS):
        if at + 10 > len(view) or view[at] != 0xFF:
            break
        marker, length = view[at + 1], int.from_bytes(view[at + 2:at + 4], 'big')
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width, channels = struct.unpack_from('>HHB', view, at + 5)
            data = bytes(view)
            _check_zeros(data, at)
            if channels > 4 or data.count(_SCAN, at) * height * width > _MOST_WORK:
                raise ValueError('more channels or scans than any camera makes')
            return Header(height, width, channels, rotated)
        rotated |= bytes(view[at + 4:at + 8]) == b'Exif'
        at += 1 if marker == 0xFF else 2 + length  # a fill byte, or a segment
    raise ValueError('the header of the JPEG has no end')


def _check_zeros(data: bytes, start: int) -> None:
    """Raise ValueError for bytes that became zeros, from `start`, of the frame, to its end."""
    end = data.find(_END, start)
    if data.find(_STANDARD, start) >= 0 and data.find(_LOST, start, end) >= 0:
        raise ValueError(f'{len(_LOST)} zero bytes in a row')


def decode_rgb(data: NDArray[np.uint8], header: Header, *, half: bool) -> NDArray[np.uint8] | None:
    """
    Decode JPEG data to uint8 (H,W,3) RGB, with `half` at half its height and width.

    Returns None where OpenCV must decode it: simplejpeg is not installed, or cannot turn an image
    by its Exif data or read its colour space. Raises ValueError, which says what is wrong, for
    damaged data, in either case if simplejpeg is installed.
    """
    if simplejpeg is None:
        _warn_of_missing()
        return None
    if header.channels not in (1, 3):
        return None
    size = {'min_height': (header.height + 1) // 2, 'min_width': (header.width + 1) // 2}
    if header.rotated:  # only looked through, at an eighth of its size
        _decode(data, 'GRAY', min_height=1, min_width=1)
        return None
    return _decode(data, 'RGB', **(size if half else {}))


def _decode(data: NDArray[np.uint8], colours: str, **size: int) -> NDArray[np.uint8]:
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours, **size), np.uint8)
    except ValueError as error:
        if _PADDING.search(str(error)):
            return np.asarray(simplejpeg.decode_jpeg(data, colours, strict=False, **size),
                              np.uint8)
        raise ValueError(first_line(error).removeprefix('Corrupt JPEG data: ')) from error


@cache
def _warn_of_missing() -> None:
    log.warning('damaged JPEG images are not noticed: pip install simplejpeg')
