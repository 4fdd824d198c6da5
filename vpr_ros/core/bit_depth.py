"""Images of 16 bits, of which cameras use 10 to 16, to 8 bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE = 10_000
"""Pixels that tell what a 16-bit image holds."""
_EXTREMES = (0.2, 99.8)
"""The percentiles that stand for the darkest and the brightest pixels: some are always broken."""
_MARGIN = 0.25
"""Share of their difference that is left free beyond both where black is not 0: steadier."""
_MIN_SPAN = 32
"""Grey levels of the input from black to white, at least, in median differences of neighbours."""

_ROUGHER = 2.5
"""How many times rougher an image is with its bytes exchanged, at least (3 for one of 8 bits that
was stretched to 10): then these are exchanged."""


def in_true_order(deep: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """
    Return pixels, uint16 (H,W,C), with their bytes exchanged if only so they show an image.

    Drivers set `is_bigendian` wrongly, and noise comes out.
    """
    step = _step(deep)
    rows = deep[::step]
    if _roughness(rows, step) > _ROUGHER * _roughness(rows.byteswap(), step):
        return np.asarray(deep.byteswap())
    return deep


def _roughness(rows: NDArray[np.uint16], step: int) -> float:
    """
    Return the median difference of neighbours as a share of all that some rows (R,W,C) span.

    Of these, that is every `step`th pixel.
    """
    low, high = np.percentile(rows[:, ::step], _EXTREMES)
    return _noise(rows, 1) / max(1.0, float(high - low))


def _step(deep: NDArray[np.uint16]) -> int:
    return max(1, round(math.sqrt(deep.shape[0] * deep.shape[1] / _SAMPLE)))


def _noise(deep: NDArray[np.uint16], step: int) -> float:
    """Return the median difference of neighbours in every `step`th row."""
    # Two pixels apart are two of one colour in a Bayer pattern.
    row = deep[::step, ::2, :3].astype(np.int32)
    return float(np.median(np.abs(np.diff(row, axis=1))))


def to_8_bits(deep: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """
    Scale pixels, uint16 (H,W,C), to 8 bits by what the image holds: 10 to 16 bits, or an offset.

    White is what the brightest pixels have, or all of 10, 12, 14 or 16 bits where they come near
    to it: the result is then that of the camera's 8 bits. Black is 0, or the level of the darkest
    pixels if all are much brighter than 0, as those of a thermal camera. All of it changes
    smoothly with the image, so that a video does not flicker. An image of nothing but noise is
    not stretched to full contrast.
    """
    step = _step(deep)
    colours = deep[..., :3]  # without alpha
    low, high = np.percentile(colours[::step, ::step], _EXTREMES)
    bits = math.log2(max(high, 1.0))
    whole = math.ceil(bits) - 1
    # To the next power of two where more than 70 % of it is used, and to 16 bits from 15 on.
    white = 2.0 ** min(16.0, whole + min(1.0, 2 * (bits - whole)) + max(0.0, bits - 14.0))
    offset = min(1.0, max(0.0, 4 * low / max(high, 1.0) - 2))  # 0 to half of `high`, 1 from 3/4
    margin = _MARGIN * (high - low)
    black = offset * (low - margin)
    white += offset * (high + margin - white)
    span = max(white - black, min(_MIN_SPAN * max(1.0, _noise(deep, step)), 65536.0))
    shifted = cv2.subtract(deep.reshape(len(deep), -1), black) if black else deep
    return np.asarray(cv2.convertScaleAbs(shifted, alpha=256 / span), np.uint8)
