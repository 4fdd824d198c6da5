"""
From the rendered scene to the camera's frame: haze, wet roads, headlights, drops and noise.

Works on images and depths alone; it knows no town.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street.render import SKY_DEPTH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition


class Sensor:
    """The weather in front of the lens and the sensor behind it, for one drive."""

    def __init__(self, condition: Condition, seed: int, size: tuple[int, int]) -> None:
        self._condition = condition
        self._rng = np.random.default_rng((14, seed))
        self._size = size
        width, height = size
        self.gain = condition.exposure * float(self._rng.uniform(0.88, 1.14))
        tint = self._rng.normal(1.0, 0.02, 3)
        self._tint = tint / tint.mean()
        bank = self._rng.normal(0.0, condition.noise, (height + 64, width + 64, 3))
        self._noise = np.round(bank).astype(np.int16)
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        self._vignette = (1 - 0.16 * (x ** 2 + y ** 2)).astype(np.float32)
        self._beam = np.exp(-(x / 0.75) ** 2).astype(np.float32)
        self._haze = np.broadcast_to(np.asarray(condition.sky_horizon, np.uint8),
                                     (height, width, 3)).copy()
        self._auto = 1.0
        self._streaks = _streaks(size, self._rng) if condition.wet else np.zeros((1, 1), np.uint8)
        count = 14 if condition.wet else 0
        self._drops = [(float(self._rng.uniform(0, 1)), float(self._rng.uniform(0, 1)),
                        float(self._rng.uniform(0.012, 0.035))) for _ in range(count)]

    def expose(self, image: NDArray[np.uint8], depth: NDArray[np.float32],
               ground: NDArray[np.bool_], horizon: float) -> NDArray[np.uint8]:
        """
        Return the frame uint8 (H,W,3) that the camera makes of a rendered `image`.

        `depth` (H,W) is in m, `ground` (H,W) marks where the ground is seen, `horizon` is a row.
        """
        condition = self._condition
        if condition.wet:
            image = self._mirror(image, ground, horizon)
        clear = cv2.exp(depth * np.float32(-1.0 / condition.haze_range))
        clear[depth >= SKY_DEPTH] = 1.0
        image = np.asarray(cv2.blendLinear(image, self._haze, clear, 1 - clear), np.uint8)
        gain = self._vignette * np.float32(self.gain * self._meter(image))
        if condition.night:
            gain = gain * (1 + 1.6 * self._beam * cv2.exp(depth * np.float32(-1 / 16.0)))
        frame = image * gain[..., None]
        frame *= self._tint.astype(np.float32)
        if condition.wet:
            frame = self._rain(frame)
        frame = cv2.GaussianBlur(frame, (3, 3), 0.55 if not condition.wet else 0.8)
        top, left = (int(value) for value in self._rng.integers(0, 64, 2))
        width, height = self._size
        frame += self._noise[top:top + height, left:left + width]
        return np.clip(frame, 0, 255).astype(np.uint8)

    def _meter(self, image: NDArray[np.uint8]) -> float:
        """Follow the brightness slowly, as an automatic exposure does."""
        mean = float(image[::8, ::8].mean())
        wanted = 62.0 if self._condition.night else 128.0
        self._auto += 0.12 * (np.clip((wanted / max(mean, 1.0)) ** 0.4, 0.75, 1.35) - self._auto)
        return self._auto

    def _mirror(self, image: NDArray[np.uint8], ground: NDArray[np.bool_],
                horizon: float) -> NDArray[np.uint8]:
        height = image.shape[0]
        # A row below the horizon reflects the row as far above it.
        rows = np.clip(2 * horizon - np.arange(height), 0, height - 1).astype(int)
        flipped = cv2.blur(image[rows], (3, 15))
        share = np.where(ground, np.float32(0.36), np.float32(0.0))
        return np.asarray(cv2.blendLinear(flipped, image, share, 1 - share), np.uint8)

    def _rain(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        width, height = self._size
        top, left = self._rng.integers(0, (height, width)).tolist()
        frame += self._streaks[top:top + height, left:left + width, None]
        for across, down, radius in self._drops:
            x, y, r = int(across * width), int(down * height), max(2, int(radius * width))
            x0, y0, x1, y1 = max(x - r, 0), max(y - r, 0), min(x + r, width), min(y + r, height)
            if x1 - x0 > 2 and y1 - y0 > 2:
                patch = frame[y0:y1, x0:x1]
                patch[:] = 0.35 * patch + 0.65 * cv2.blur(patch, (r, r))[::-1]
        return frame


def _streaks(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return falling rain uint8 (2H,2W), of which each frame shows a different part."""
    width, height = size
    layer = np.zeros((2 * height, 2 * width), np.uint8)
    xs, ys = rng.integers(0, 2 * width, 280), rng.integers(0, 2 * height, 280)
    lengths = rng.integers(height // 30 + 1, height // 9 + 2, 280)
    for x, y, length in zip(xs.tolist(), ys.tolist(), lengths.tolist(), strict=True):
        cv2.line(layer, (x, y), (x + length // 8, y + length), (26,), 1, cv2.LINE_AA)
    return layer
