"""Raw pixels of a camera driver, in the encodings of sensor_msgs/Image, to RGB."""

from __future__ import annotations

from typing import NamedTuple
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.core.bit_depth import in_true_order
from vpr_ros.core.bit_depth import to_8_bits
from vpr_ros.core.errors import ImageError
from vpr_ros.core.images import check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Layout(NamedTuple):
    """The memory layout of an encoding, and OpenCV's conversion code to RGB."""

    channels: int
    channel_bytes: int
    to_rgb: int | None


_LAYOUTS = {
    'rgb8': _Layout(3, 1, None),
    'bgr8': _Layout(3, 1, cv2.COLOR_BGR2RGB),
    '8UC3': _Layout(3, 1, cv2.COLOR_BGR2RGB),
    'rgba8': _Layout(4, 1, cv2.COLOR_RGBA2RGB),
    'bgra8': _Layout(4, 1, cv2.COLOR_BGRA2RGB),
    '8UC4': _Layout(4, 1, cv2.COLOR_BGRA2RGB),
    'mono8': _Layout(1, 1, cv2.COLOR_GRAY2RGB),
    '8UC1': _Layout(1, 1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a Bayer pattern from the second pixel of the second row, ROS from the first
    # pixel of the first row.
    'bayer_rggb8': _Layout(1, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': _Layout(1, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': _Layout(1, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': _Layout(1, 1, cv2.COLOR_BayerGB2RGB),
    'uyvy': _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422': _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'yuyv': _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    'yuv422_yuy2': _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
}
# The same in 16 bits: mono16, bayer_rggb16, 16UC1 and so on.
_LAYOUTS |= {name.replace('8', '16'): layout._replace(channel_bytes=2)
             for name, layout in _LAYOUTS.items() if 'yuv' not in name and 'uyv' not in name}

ENCODINGS = tuple(sorted(_LAYOUTS))
"""The raw encodings that `from_raw` converts, by their sensor_msgs names."""


def from_raw(data: bytes | memoryview | NDArray[np.uint8], height: int, width: int, encoding: str,
             step: int, *, big_endian: bool = False) -> NDArray[np.uint8]:
    """
    Convert raw pixels to uint8 (H,W,3) RGB.

    `data` has `height` rows of `step` bytes; padding at their ends is skipped. It is not copied:
    the result for 'rgb8' is a view of it. 16-bit channels are scaled to what they hold, as in
    `bit_depth.to_8_bits`, and their bytes exchanged where `big_endian` cannot be true. Raises
    ImageError for an unknown encoding, an unsupported size, or too
    few bytes.
    """
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise ImageError(f"encoding '{encoding}' is not supported; use one of "
                         f'{", ".join(ENCODINGS)}')
    check_size(height, width)
    if layout.channels == 2 and width % 2:
        raise ImageError(f'a {encoding} image stores pixels in pairs: its width cannot be {width}')
    row_bytes = width * layout.channels * layout.channel_bytes
    rows = unpadded(data, height, row_bytes, step, f'{width}x{height} {encoding}')
    if layout.channel_bytes == 2:
        deep = np.ascontiguousarray(rows).view('>u2' if big_endian else '<u2').astype(np.uint16)
        rows = to_8_bits(in_true_order(deep.reshape(height, width, layout.channels)))
    pixels = rows.reshape(height, width, layout.channels)
    if layout.to_rgb is None:
        return pixels
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), layout.to_rgb), np.uint8)


def unpadded(data: bytes | memoryview | NDArray[np.uint8], height: int, row_bytes: int, step: int,
             name: str) -> NDArray[np.uint8]:
    """
    Return a view of the pixels, uint8 (height,row_bytes), without the padding to `step` bytes.

    Raises ImageError, which starts with `name`, when there are too few bytes.
    """
    buffer = np.frombuffer(data, np.uint8)
    if step < row_bytes or len(buffer) < step * height:
        raise ImageError(f'{name} needs {height} rows of at least {row_bytes} bytes; got rows of '
                         f'{step} and {len(buffer)} bytes in total')
    return buffer[:step * height].reshape(height, step)[:, :row_bytes]
