"""
Pictures: decode, convert to RGB, resize. The only resize in the project.

A picture is uint8 (H,W,3) RGB everywhere else. Nothing here knows of messages or networks.
"""

from __future__ import annotations

import os
from pathlib import Path
import struct
from typing import NamedTuple
from typing import TYPE_CHECKING

# OpenCV reads its limit once, when it is loaded, and refuses a larger file undecoded. It may have
# been loaded before this module: so `decode` looks at the headers of PNG and JPEG itself.
MAX_PIXELS = 50_000_000
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from vpr_ros.core.errors import ImageError  # noqa: E402
from vpr_ros.core.errors import SourceError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_SIDE = 8
"""Smallest width and height, in pixels, that can still show a place."""

HALVING_RATIO = 3.5
"""How many times the sides that are wanted an image has at least when it is halved first. From
there on descriptors keep a cosine of .999 (from 2.8 on .9986): benchmarks/accuracy/resize.py."""

# A seventh of the time that a JPEG takes goes into turning BGR round; OpenCV 4.11 can do without.
_IMREAD_RGB = getattr(cv2, 'IMREAD_COLOR_RGB', 0)
_IMREAD_HALF = cv2.IMREAD_REDUCED_GRAYSCALE_2  # the same bit for colour
_JPEG = b'\xff\xd8'

SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'})


class _Layout(NamedTuple):
    """How an encoding lies in memory: channels, bytes a channel, and OpenCV's code to RGB."""

    channels: int
    bytes: int
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
    'mono16': _Layout(1, 2, cv2.COLOR_GRAY2RGB),
    '16UC1': _Layout(1, 2, cv2.COLOR_GRAY2RGB),
    # OpenCV names a Bayer pattern by the second row's second pixel, ROS by the first's first.
    'bayer_rggb8': _Layout(1, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': _Layout(1, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': _Layout(1, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': _Layout(1, 1, cv2.COLOR_BayerGB2RGB),
    'uyvy': _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422': _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'yuyv': _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    'yuv422_yuy2': _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
}

ENCODINGS = tuple(sorted(_LAYOUTS))
"""The raw encodings that `from_raw` converts, by their names in sensor_msgs."""


def check_size(height: int, width: int, name: str = 'image') -> None:
    """Raise ImageError when a picture is too small to show a place or too large to hold."""
    if min(height, width) < MIN_SIDE:
        raise ImageError(f'{name} is {width}x{height}: at least {MIN_SIDE}x{MIN_SIDE} are needed')
    if height * width > MAX_PIXELS:
        raise ImageError(
            f'{name} is {width}x{height}: more than {MAX_PIXELS // 1_000_000} megapixels; '
            'publish a smaller picture')


def from_raw(data: bytes | memoryview | NDArray[np.uint8], height: int, width: int, encoding: str,
             step: int, *, big_endian: bool = False) -> NDArray[np.uint8]:
    """
    Convert raw pixels to uint8 (H,W,3) RGB.

    `data` holds `height` rows of `step` bytes each, of which padding at the end is skipped; it is
    not copied, so the result of 'rgb8' is a view of it. 16-bit pictures keep their high byte.
    Raises ImageError for an unknown encoding, a size out of bounds, or too little data.
    """
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise ImageError(f"encoding '{encoding}' is not supported; use one of "
                         f'{", ".join(ENCODINGS)}')
    check_size(height, width)
    if layout.channels == 2 and width % 2:
        raise ImageError(f'a {encoding} image has pixels in pairs: its width cannot be {width}')
    row = width * layout.channels * layout.bytes
    rows = unpadded(data, height, row, step, f'{width}x{height} {encoding}')
    if layout.bytes == 2:
        rows = rows[:, (0 if big_endian else 1)::2]
    picture = rows.reshape(height, width, layout.channels)
    if layout.to_rgb is None:
        return picture
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), layout.to_rgb), np.uint8)


def unpadded(data: bytes | memoryview | NDArray[np.uint8], height: int, row: int, step: int,
             name: str) -> NDArray[np.uint8]:
    """
    Return raw pixels as uint8 (height,row), a view without what pads each row to `step` bytes.

    Raises ImageError, naming `name`, when there are fewer bytes than that takes.
    """
    pixels = np.frombuffer(data, np.uint8)
    if step < row or len(pixels) < step * height:
        raise ImageError(f'{name} needs {height} rows of at least {row} bytes; got rows of {step} '
                         f'and {len(pixels)} bytes in all')
    return pixels[:step * height].reshape(height, step)[:, :row]


def decode(data: bytes | NDArray[np.uint8], name: str = 'image',
           min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """
    Decode a compressed picture (JPEG, PNG, ...) to uint8 (H,W,3) RGB.

    Where `resize` to `min_size` (height, width) would halve a JPEG, it is decoded at half its
    size, which saves time instead of taking it. Raises ImageError, naming `name`, when it cannot
    be decoded or its size is out of bounds.
    """
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size == 0:
        raise ImageError(f'{name} is empty')
    declared = _declared_size(buffer.data)
    half = False
    if declared is not None:
        check_size(*declared, name)
        half = (min_size is not None and bytes(buffer[:2]) == _JPEG
                and _may_be_halved(*declared, *min_size))
    try:
        picture = cv2.imdecode(
            buffer, (_IMREAD_RGB or cv2.IMREAD_COLOR) | (_IMREAD_HALF if half else 0))
    except cv2.error as error:
        raise ImageError(f'{name} cannot be decoded, or has more than '
                         f'{MAX_PIXELS // 1_000_000} megapixels') from error
    if picture is None:
        raise ImageError(f'{name} is damaged, or not a picture that OpenCV can decode')
    check_size(picture.shape[0] << half, picture.shape[1] << half, name)
    if not _IMREAD_RGB:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return np.asarray(picture, np.uint8)


def _declared_size(view: memoryview) -> tuple[int, int] | None:
    """
    Return the height and width that a PNG or JPEG header gives; None for all other bytes.

    A small file can declare a picture that fills the memory when it is decoded.
    """
    if bytes(view[:8]) == b'\x89PNG\r\n\x1a\n' and len(view) >= 24:
        width, height = struct.unpack_from('>II', view, 16)
        return height, width
    at = 2 if bytes(view[:2]) == _JPEG else len(view)
    while at + 9 <= len(view) and view[at] == 0xFF:
        marker, length = view[at + 1], int.from_bytes(view[at + 2:at + 4], 'big')
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack_from('>HH', view, at + 5)
            return height, width
        at += 1 if marker == 0xFF else 2 + length  # a fill byte, or a segment
    return None


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Compress a uint8 (H,W,3) RGB picture to the bytes of a JPEG file."""
    _, buffer = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
                             [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(buffer)


def read(path: str | Path, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """
    Read a picture file as uint8 (H,W,3) RGB, of the size that `decode` gives.

    Raises ImageError or FileNotFoundError.
    """
    return decode(np.fromfile(path, np.uint8), str(path), min_size)


def list_folder(folder: str | Path) -> list[Path]:
    """
    Return the picture files of a folder (not of those below it), sorted by name.

    Raises SourceError when there is no such folder or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f'{folder} is not a folder')
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SourceError(f'{folder} has no pictures ({", ".join(sorted(SUFFIXES))})')
    return paths


def resize(rgb: NDArray[np.uint8], height: int, width: int,
           out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """
    Scale a uint8 (H,W,3) picture to (height,width,3), by area when it shrinks.

    The aspect ratio is not kept: a network sees the whole field of view. The result is `out` where
    that is given; otherwise a picture of that size already is returned itself.

    A large picture is halved first, which averages whole pixels and takes a fraction of the time:
    for as long as HALVING_RATIO of it is left, since a pixel of the result then differs by little.
    """
    if out is not None and (out.shape, out.dtype) != ((height, width, *rgb.shape[2:]), rgb.dtype):
        # OpenCV would write elsewhere, and what was in `out` before would pass for the result.
        raise ValueError(f'a picture {rgb.shape} of {rgb.dtype} does not scale into {out.shape} '
                         f'of {out.dtype}')
    while _may_be_halved(rgb.shape[0], rgb.shape[1], height, width):
        rgb = np.asarray(cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2),
                                    interpolation=cv2.INTER_AREA), np.uint8)
    if rgb.shape[:2] == (height, width):
        if out is None:
            return rgb
        np.copyto(out, rgb)
        return out
    shrinks = rgb.shape[0] >= height and rgb.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), dst=out, interpolation=method), np.uint8)


def _may_be_halved(height: int, width: int, wanted_height: int, wanted_width: int) -> bool:
    """Return whether a picture is much larger than wanted, and half of it whole pixels."""
    return (min(height / wanted_height, width / wanted_width) >= HALVING_RATIO
            and not (height | width) & 1)


def to_height(rgb: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Scale a picture to `height` pixels, keeping its aspect ratio."""
    return resize(rgb, height, max(1, round(rgb.shape[1] * height / rgb.shape[0])))


def captioned(rgb: NDArray[np.uint8], text: str, colour: tuple[int, int, int]
              ) -> NDArray[np.uint8]:
    """Return a copy of a picture with a line of ASCII text at its top left, in an RGB colour."""
    return np.asarray(cv2.putText(rgb.copy(), text, (6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour,
                                  2, cv2.LINE_AA), np.uint8)


def side_by_side(pictures: Sequence[NDArray[np.uint8]], height: int) -> NDArray[np.uint8]:
    """Join pictures in a row, each scaled to `height` pixels with its own aspect ratio."""
    return np.hstack([to_height(picture, height) for picture in pictures])
