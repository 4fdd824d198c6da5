"""
Textures, drawn when first needed and kept at every scale; noise and bare walls to draw with.

What is drawn on them lives in facades.py and sprites.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PIXELS_PER_METRE = 24
_LEVELS = 6


class Texture:
    """
    An image, uint8 (H,W,3) RGB or (H,W,4) RGBA, and its reductions by powers of two.

    Width and height are reduced independently, since a wall along the street is foreshortened in
    one direction only.
    """

    def __init__(self, draw: Callable[[], NDArray[np.uint8]]) -> None:
        self._draw = draw
        self._levels: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def at(self, across: float, down: float) -> NDArray[np.uint8]:
        """Return the reduction that best fits a view of `across` by `down` screen pixels."""
        full = self._level(0, 0)
        height, width = full.shape[:2]
        return self._level(_steps(width, across), _steps(height, down))

    def _level(self, x: int, y: int) -> NDArray[np.uint8]:
        if (x, y) not in self._levels:
            if x == y == 0:
                image = np.ascontiguousarray(self._draw())
            else:
                full = self._level(0, 0)
                size = (max(full.shape[1] >> x, 1), max(full.shape[0] >> y, 1))
                image = np.asarray(cv2.resize(full, size, interpolation=cv2.INTER_AREA),
                                   np.uint8)
                if size == (1, 1):  # OpenCV 4.5.4, that of Ubuntu 22.04, cannot warp one pixel
                    image = np.tile(image.reshape(1, 1, -1), (2, 2, 1))
            self._levels[x, y] = image
        return self._levels[x, y]


def _steps(texels: int, pixels: float) -> int:
    return min(max(int(math.log2(texels / max(pixels, 1.0)) + 0.35), 0), _LEVELS)


def grain(shape: tuple[int, int], cell: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return smooth noise float32 (H,W) in -1 to 1 whose blobs are about `cell` pixels wide."""
    height, width = shape
    coarse = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR),
                      np.float32)


def wall(kind: str, width: int, height: int, colour: tuple[int, int, int],
         rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a bare wall uint8 (height,width,3) of 'brick', 'plaster', 'boards', ..."""
    canvas = np.full((height, width, 3), colour, np.float32)
    canvas += 5.0 * grain((height, width), 24, rng)[..., None]
    if kind in ('brick', 'works'):
        course = 6
        rows = np.arange(height) // course
        cells = rng.normal(0, 11, (height // course + 1, width // 12 + 2)).astype(np.float32)
        columns = (np.arange(width)[None, :] + (rows[:, None] % 2) * 6) // 12
        canvas += cells[rows[:, None], columns][..., None]
        canvas[::course] += 14
    elif kind == 'boards':
        canvas[::7] -= 26
        canvas[1::7] += 10
    elif kind == 'concrete':
        canvas[::72] -= 22
        canvas[:, ::86] -= 16
        canvas += 4.0 * grain((height, width), 8, rng)[..., None]
    elif kind == 'timber':
        beams = canvas.copy()
        for x in np.linspace(2, width - 5, max(3, width // 34)).astype(int):
            cv2.rectangle(beams, (int(x) - 3, 0), (int(x) + 3, height), (84, 58, 44), -1)
        for y in range(6, height, 70):
            cv2.rectangle(beams, (0, y - 4), (width, y + 3), (78, 54, 40), -1)
            cv2.line(beams, (0, y), (width // 4, y + 66), (84, 58, 44), 6)
            cv2.line(beams, (width, y), (width - width // 4, y + 66), (84, 58, 44), 6)
        canvas = beams
    else:
        canvas += 4.0 * grain((height, width), 6, rng)[..., None]
    # Walls darken towards the ground, by splashes and damp.
    foot = np.clip((np.arange(height) - height + 30) / 30.0, 0, 1)[:, None, None]
    canvas *= 1 - 0.14 * foot
    return np.clip(canvas, 0, 255).astype(np.uint8)
