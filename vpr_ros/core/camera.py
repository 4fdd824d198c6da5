"""Cameras: the size of the image and the lens, and how much of one camera's view another has."""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from vpr_ros.core import fields

_FISHEYE = ('equidistant', 'fisheye')
_LARGEST = 1_000_000  # of any number of a camera
_PINHOLE = ('plumb_bob', 'rational_polynomial')


@dataclass(frozen=True)
class Camera:
    """
    A camera, as far as it is known: `width` and `height` in pixels, or at least their ratio.

    `k` is (fx, fy, cx, cy) in pixels, empty where there is no CameraInfo or it is not calibrated;
    `d` are the coefficients of `distortion_model`, a name of sensor_msgs/CameraInfo.
    """

    width: int
    height: int
    k: tuple[float, ...] = ()
    distortion_model: str = ''
    d: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, raw: Any) -> Camera:
        """Return a camera from `as_dict`; raise KeyError or ValueError if none."""
        raw = fields.mapping(raw, 'a camera', cls.__annotations__)
        k = fields.numbers(raw.get('k', ()), 'k', 4, _LARGEST)
        width, height = (fields.integer(raw[name], name, 1, _LARGEST)
                         for name in ('width', 'height'))
        if len(k) not in (0, 4) or not all(abs(focal) > 0 for focal in k[:2]):
            raise ValueError(f'k of a camera is {k}')
        return cls(width, height, k,
                   fields.text(raw.get('distortion_model', ''), 'distortion_model'),
                   fields.numbers(raw.get('d', ()), 'd', 14, _LARGEST))

    def as_dict(self) -> dict[str, Any]:
        """Return the camera as plain values."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self).items()}

    def fits(self, height: int, width: int) -> bool:
        """Return whether images of a size can be this camera's, perhaps scaled: by their ratio."""
        return abs(math.log(self.width * height / (self.height * width))) < 0.03

    def view(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """
        Return where its view begins and ends, to the right and downwards; None without `k`.

        In the lens's own measure, in which equal steps are equal numbers of pixels: tangents of
        the angles for a pinhole, the angles in rad for a fisheye.
        """
        if not self.k:
            return None
        fx, fy, cx, cy = self.k
        left, right, top, bottom = -cx / fx, (self.width - cx) / fx, -cy / fy, (
            self.height - cy) / fy
        if self.distortion_model in _PINHOLE and len(self.d) in (4, 5, 8, 12, 14):
            edges = np.array([[[left, 0]], [[right, 0]], [[0, top]], [[0, bottom]]])
            rays = cv2.undistortPoints(edges, np.eye(3), np.array(self.d))
            (left, right), (top, bottom) = rays[:2, 0, 0].tolist(), rays[2:, 0, 1].tolist()
        return (left, right), (top, bottom)

    def __str__(self) -> str:
        """Return its size, and its field of view if that is known."""
        view = self.view()
        if view is None:
            return f'{self.width}x{self.height}'
        angles = np.array(view) if self.distortion_model in _FISHEYE else np.arctan(view)
        wide, high = np.degrees(angles[:, 1] - angles[:, 0])
        return f'{self.width}x{self.height}, {wide:.0f}x{high:.0f} degrees'


def overlap(one: Camera, other: Camera) -> float:
    """
    Return the share of two cameras' views that both have, of all that either has, 0 to 1.

    The smaller one of those horizontally and vertically. Where the lens of one is not known, they
    are taken for equally wide: of images of different ratio, one is then cropped from the other.
    """
    a, b = one.view(), other.view()
    if a is None or b is None:
        ratio = one.width * other.height / (one.height * other.width)
        return min(ratio, 1 / ratio)
    return min(max(0.0, min(x[1], y[1]) - max(x[0], y[0])) / (max(x[1], y[1]) - min(x[0], y[0]))
               for x, y in zip(a, b, strict=True))
