"""
Images that show nothing: a lens cap, darkness, over-exposure, a wall that fills the view.

A network gives them a descriptor as it does any image, and places look alike to it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.polynomial.polynomial import polyvander2d
from vpr_ros.core.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_STRUCTURE = 1.0
"""
Grey levels of structure, as `structure` measures it, that an image needs. Camera noise of 5 levels
with a smooth vignette has less; of 11,000 photographs, by night, in fog and snow, the emptiest has
1.8 (benchmarks/accuracy/blank_images.py).
"""

MIN_TEXTURE = 10.0
"""Grey levels of fine texture that make up for structure: asphalt below a camera that looks down.
Camera noise is half of that."""

_COLUMNS, _ROWS = 16, 12


def _smooth_shapes() -> NDArray[np.float32]:
    """Return an orthonormal basis (cells,M) of the brightness that lens and light alone make."""
    y, x = np.mgrid[-1:1:_ROWS * 1j, -1:1:_COLUMNS * 1j]
    return np.linalg.qr(polyvander2d(x.ravel(), y.ravel(), [6, 4]))[0].astype(np.float32)


_SMOOTH = _smooth_shapes()


def structure(rgb: NDArray[np.uint8]) -> tuple[float, float]:
    """
    Return the structure and the mean of an image, uint8 (H,W,3), in grey levels.

    The structure is the standard deviation over 16x12 cells of what is left of their brightness
    without its smooth part, a polynomial: averages over cells hardly keep any noise, and the
    polynomial takes a vignette or a glow.
    """
    cells = cv2.resize(rgb, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(cells, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
    rest = grey - _SMOOTH @ (grey @ _SMOOTH)
    return float(rest.std()), float(grey.mean())


def texture(rgb: NDArray[np.uint8]) -> float:
    """Return the standard deviation, in grey levels, of noise as rough as an image is."""
    rough = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    return float(rough.std()) / math.sqrt(20)  # 4^2 + 4: the squared weights of the Laplacian


def check_content(rgb: NDArray[np.uint8]) -> None:
    """Raise ImageError when an image, uint8 (H,W,3) of the model's input size, shows nothing."""
    found, mean = structure(rgb)
    if found >= MIN_STRUCTURE or texture(rgb) >= MIN_TEXTURE:
        return
    if mean < 16:
        what, remedy = 'all black', 'lens cap, exposure and light'
    elif mean > 239:
        what, remedy = 'over-exposed', 'exposure and gain'
    else:
        what, remedy = 'featureless', 'whether the lens is covered, dirty or out of focus'
    raise ImageError(f'the image shows nothing: {what} (mean grey level {mean:.0f}); check '
                     f'{remedy}')
