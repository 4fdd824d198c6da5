"""
Faces: textured convex pieces of planes in space, and the bodies made of them.

Plain geometry (m, map frame). What is built of faces lives in scene.py and cars.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition
    from vpr_ros.street.textures import Texture

    Material = Texture | tuple[int, int, int]
    """What a face is covered with: a texture or one colour."""

CORNERS = 5     # a face is a convex polygon with no more corners than this
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Face:
    """
    A convex piece of a plane: point (a, b) of its texture lies at origin + a*right + b*down.

    `right` and `down` are unit vectors (3,), a and b in m; the texture covers `size` (width,
    height). `corners` (K,2) are its outline in (a, b).
    """

    origin: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    size: tuple[float, float]
    corners: NDArray[np.float64]
    material: Material
    two_sided: bool = False
    painted_first: bool = False    # before the other faces of its body
    eaves: float = float('nan')    # b below which the face is opaque down to the ground, or NaN


@dataclass(frozen=True)
class Sprite:
    """An upright texture that always turns to the camera."""

    position: NDArray[np.float64]    # (3,) of the middle of its lower edge
    width: float
    height: float
    texture: Texture


@dataclass(frozen=True)
class Body:
    """Faces that are drawn together; bodies are painted from the far ones to the near ones."""

    faces: tuple[Face, ...]
    centre: NDArray[np.float64]   # (2,)
    radius: float                 # m around the centre within which all faces lie


def rectangle(origin: NDArray[np.float64], right: NDArray[np.float64],
              down: NDArray[np.float64], size: tuple[float, float],
              material: Material, *, two_sided: bool = False) -> Face:
    """Return a rectangular face."""
    w, h = size
    return Face(origin, right, down, size, np.array([(0, 0), (w, 0), (w, h), (0, h)], float),
                material, two_sided)


def polygon(points: NDArray[np.float64], colour: tuple[int, int, int], *,
            painted_first: bool = False) -> Face:
    """Return a face of one colour with the corners `points` (K,3), clockwise from outside."""
    right = (points[1] - points[0]) / np.linalg.norm(points[1] - points[0])
    normal = cross(points[2] - points[0], right)
    normal /= np.linalg.norm(normal)
    down = cross(right, normal)
    offsets = points - points[0]
    return Face(points[0], right, down, (1.0, 1.0),
                np.column_stack([offsets @ right, offsets @ down]), colour,
                painted_first=painted_first)


def cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cross product of two vectors (3,), ten times as fast as numpy's own."""
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def lit(colour: tuple[int, int, int], condition: Condition,
        normal: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return the colour under the light that falls on a surface with this unit normal."""
    red, green, blue = np.clip(np.asarray(colour) * condition.light(normal), 0, 255)
    return int(red), int(green), int(blue)
