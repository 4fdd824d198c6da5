"""
Images: decode and resize. Every image of the project is resized here.

An image is uint8 (H,W,3) RGB from here on. Raw camera encodings are converted in raw_images.py.
"""

from __future__ import annotations

from decimal import Decimal
import os
from pathlib import Path
import re
from typing import TYPE_CHECKING

# OpenCV reads this limit once, on import, and then refuses larger files before it decodes them.
# It may have been imported before this module, so `decode` reads the headers itself.
MAX_PIXELS = 50_000_000
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from vpr_ros.core import jpeg  # noqa: E402
from vpr_ros.core.bit_depth import to_8_bits  # noqa: E402
from vpr_ros.core.errors import ImageError  # noqa: E402
from vpr_ros.core.errors import SourceError  # noqa: E402
from vpr_ros.core.image_size import declared_size  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_SIDE = 8
"""Minimum width and height of an image, in pixels."""

HALVING_RATIO = 3.5
"""An image at least this many times as large as the target, in width and height, is halved first.
At 3.5 the descriptors keep a cosine of .999 (at 2.8 .9986): benchmarks/accuracy/resize.py."""

# Swapping BGR to RGB takes a seventh of the time of a JPEG; since OpenCV 4.11 it is avoidable.
_IMREAD_RGB = getattr(cv2, 'IMREAD_COLOR_RGB', 0)
_IMREAD_HALF = cv2.IMREAD_REDUCED_GRAYSCALE_2  # colour has the same bit

_LINE, _MARK = (90, 200, 255), (60, 255, 60)

SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'})


def check_size(height: int, width: int, name: str = 'image') -> None:
    """Raise ImageError when a side is below MIN_SIDE or the image has more than MAX_PIXELS."""
    if min(height, width) < MIN_SIDE:
        raise ImageError(f'{name} is {width}x{height}: at least {MIN_SIDE}x{MIN_SIDE} is needed')
    if height * width > MAX_PIXELS:
        raise ImageError(
            f'{name} is {width}x{height}: more than {MAX_PIXELS // 1_000_000} megapixels; '
            'publish a smaller image')


def decode(data: bytes | NDArray[np.uint8], name: str = 'image',
           min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """
    Decode a JPEG, PNG, WebP, BMP, PNM or TIFF image to uint8 (H,W,3) RGB.

    16-bit channels are scaled to what they hold, as in `bit_depth.to_8_bits`. A JPEG that `resize`
    to `min_size` (height, width) would halve is decoded at half its size, which is faster. Raises
    ImageError, which starts with `name`, for an image that is damaged, cannot be decoded or whose
    size is not supported.
    """
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size == 0:
        raise ImageError(f'{name} is empty')
    try:
        header = jpeg.read_header(buffer.data)
        check_size(*(header[:2] if header else declared_size(buffer.data)), name)
        half = (header is not None and min_size is not None
                and _may_be_halved(*header[:2], *min_size))
        rgb = header and jpeg.decode_rgb(buffer, header, half=half)
    except ValueError as error:
        raise ImageError(f'{name} is damaged: {error}') from error
    if rgb is not None:
        return rgb
    # Of a TIFF of 16 bits OpenCV 4.14 makes noise with IMREAD_COLOR_RGB.
    kind = ((_IMREAD_RGB or cv2.IMREAD_COLOR) if header else
            cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return _decode_by_opencv(buffer, name, kind, half=half)


def _decode_by_opencv(buffer: NDArray[np.uint8], name: str, kind: int, *, half: bool
                      ) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imdecode(buffer, kind | (_IMREAD_HALF if half else 0))
    except cv2.error as error:
        raise ImageError(f'{name} cannot be decoded, or has more than '
                         f'{MAX_PIXELS // 1_000_000} megapixels') from error
    if pixels is None:
        raise ImageError(f'{name} is damaged, or not an image that OpenCV can decode')
    check_size(pixels.shape[0] << half, pixels.shape[1] << half, name)
    if pixels.dtype == np.uint16:
        pixels = to_8_bits(np.asarray(pixels, np.uint16)).reshape(pixels.shape)
    elif pixels.dtype != np.uint8:
        raise ImageError(f'{name} has pixels of {pixels.dtype}: use 8 or 16 bits')
    if not kind & _IMREAD_RGB:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return np.asarray(pixels, np.uint8)


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Compress a uint8 (H,W,3) RGB image to the bytes of a JPEG file."""
    _, buffer = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
                             [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(buffer)


def read(path: str | Path, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """
    Read an image file as uint8 (H,W,3) RGB; `min_size` as in `decode`.

    Raises ImageError, which names the file, or FileNotFoundError.
    """
    return decode(np.fromfile(path, np.uint8), str(path), min_size)


def by_number(path: Path) -> tuple[list[str | Decimal], Path]:
    """
    Return a key that sorts paths by their numbers: 2.png before 10.png.

    Stamps in seconds, which have nine digits or more before the point, have decimals behind it:
    1700000000.25.png comes before 1700000000.5.png, but 1.5.png before 1.25.png.
    """
    parts = re.split(r'([0-9]{9,}[.][0-9]+|[0-9]+)', str(path))
    return [Decimal(part) if place % 2 else part for place, part in enumerate(parts)], path


def list_folder(folder: str | Path) -> list[Path]:
    """
    Return the image files of a folder, without its subfolders, in the order of `by_number`.

    Raises SourceError when there is no such folder or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f'{folder} is not a folder')
    paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES),
                   key=by_number)
    if not paths:
        raise SourceError(f'{folder} has no images ({", ".join(sorted(SUFFIXES))})')
    return paths


def resize(rgb: NDArray[np.uint8], height: int, width: int,
           out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """
    Resize a uint8 (H,W,3) image to (height,width,3): by area to shrink, else bilinear.

    The aspect ratio is not kept, so that a network sees the whole field of view. The result is
    written to `out` if given; without it an image of the right size is returned as it is. Raises
    ValueError for an `out` of the wrong shape or dtype.

    While an image is HALVING_RATIO times as large as the target it is halved, which averages whole
    pixels in a fraction of the time and hardly changes the result.
    """
    if out is not None and (out.shape, out.dtype) != ((height, width, *rgb.shape[2:]), rgb.dtype):
        # OpenCV would allocate another array, and the old content of `out` would pass for the
        # result.
        raise ValueError(f'an image {rgb.shape} of {rgb.dtype} cannot be resized into {out.shape} '
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


def _may_be_halved(height: int, width: int, target_height: int, target_width: int) -> bool:
    """Return whether an image is much larger than the target and its sides are even."""
    return (min(height / target_height, width / target_width) >= HALVING_RATIO
            and not (height | width) & 1)


def to_height(rgb: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Resize an image to `height` pixels, keeping its aspect ratio."""
    return resize(rgb, height, max(1, round(rgb.shape[1] * height / rgb.shape[0])))


def captioned(rgb: NDArray[np.uint8], text: str, colour: tuple[int, int, int]
              ) -> NDArray[np.uint8]:
    """Return a copy of an image with a line of ASCII text at its top left, in an RGB colour."""
    return np.asarray(cv2.putText(rgb.copy(), text, (6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour,
                                  2, cv2.LINE_AA), np.uint8)


def side_by_side(row: Sequence[NDArray[np.uint8]], height: int) -> NDArray[np.uint8]:
    """Join images (H,W,3) in a row, each resized to `height` pixels with its aspect ratio."""
    return np.hstack([to_height(rgb, height) for rgb in row])


def joined_by_lines(left: NDArray[np.uint8], right: NDArray[np.uint8] | None,
                    from_left: NDArray[np.float64], to_right: NDArray[np.float64], height: int
                    ) -> NDArray[np.uint8]:
    """
    Return two images side by side, `height` pixels high, with lines between I of their pixels.

    `from_left` and `to_right` are (I,2); pixels without another in the right image, or where there
    is no such image, are only marked.
    """
    canvas = side_by_side([left] if right is None else [left, right], height)
    begin = from_left * height / len(left)
    marks = [tuple(map(round, pixel)) for pixel in begin.tolist()]
    if right is not None:
        inside = np.all((to_right >= 0) & (to_right < right.shape[1::-1]), axis=1)  # nor NaN
        end = np.where(inside[:, None], to_right, 0) * height / len(right)
        end[:, 0] += to_height(left, height).shape[1]
        for number in np.flatnonzero(inside):
            there = tuple(map(round, end[number].tolist()))
            cv2.line(canvas, marks[number], there, _LINE, 1, cv2.LINE_AA)
            cv2.circle(canvas, there, 2, _MARK, -1, cv2.LINE_AA)
    for mark in marks:
        cv2.circle(canvas, mark, 2, _MARK, -1, cv2.LINE_AA)
    return canvas
