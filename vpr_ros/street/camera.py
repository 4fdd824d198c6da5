"""
The pinhole camera on the robot: its matrix, where it looks, and clipping at its near plane.

What it sees is rendered in render.py; how its sensor degrades the image, in sensor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CAMERA_HEIGHT = 1.4         # m above base_link
FIELD_OF_VIEW = 85.0        # degrees, horizontally
NEAR = 0.25                 # m forward from which on things are drawn


def camera_matrix(width: int, height: int) -> NDArray[np.float64]:
    """Return the pinhole matrix (3,3) in pixels; pixel centres have whole coordinates."""
    focal = 0.5 * width / math.tan(math.radians(FIELD_OF_VIEW) / 2)
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2],
                     [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class View:
    """Where the camera is: position (3,) in m, yaw, pitch (nose down) and roll in rad."""

    position: NDArray[np.float64]
    yaw: float
    pitch: float = 0.0
    roll: float = 0.0

    def rotation(self) -> NDArray[np.float64]:
        """Return (3,3) whose rows are the camera's right, down and forward in the map frame."""
        cy, sy = math.cos(self.yaw), math.sin(self.yaw)
        cp, sp = math.cos(self.pitch), math.sin(self.pitch)
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        right = np.array([sy, -cy, 0.0])
        forward = np.array([cy * cp, sy * cp, -sp])
        down = np.cross(forward, right)
        return np.stack([cr * right + sr * down, cr * down - sr * right, forward])


def clip_near(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Return the part (M,3) of a polygon (K,3) that lies beyond the near plane.

    Corners are homogeneous image coordinates, whose third is the depth in m. By Sutherland and
    Hodgman's algorithm.
    """
    clipped = []
    for index in range(len(corners)):
        here, following = corners[index], corners[(index + 1) % len(corners)]
        if here[2] >= NEAR:
            clipped.append(here)
        if (here[2] >= NEAR) != (following[2] >= NEAR):
            share = (NEAR - here[2]) / (following[2] - here[2])
            clipped.append(here + share * (following - here))
    return np.array(clipped).reshape(-1, 3)
