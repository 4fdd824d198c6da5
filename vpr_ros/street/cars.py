"""
Cars and vans, parked or driving: their shapes and colours as faces.

Where they are parked is decided in scene.py, and how they move, in drive.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street.conditions import condition_named
from vpr_ros.street.faces import Body
from vpr_ros.street.faces import cross
from vpr_ros.street.faces import Face
from vpr_ros.street.faces import lit
from vpr_ros.street.faces import polygon
from vpr_ros.street.faces import rectangle
from vpr_ros.street.faces import UP
from vpr_ros.street.textures import Texture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition

_COLOURS = ((188, 190, 194), (40, 42, 48), (236, 236, 236), (150, 28, 32), (34, 62, 120),
            (96, 100, 106), (58, 88, 70), (202, 170, 80))
_GLASS = (52, 60, 70)
# Outlines from the front bumper over the roof to the rear bumper, forward and up (m); which
# stretches between neighbours are glass; and half the width (m).
_OUTLINES = {
    'car': (((2.12, 0.72), (0.95, 0.95), (0.25, 1.42), (-1.15, 1.44), (-1.75, 1.0), (-2.1, 0.9)),
            (1, 3), 0.88),
    'van': (((2.6, 1.0), (2.1, 1.15), (1.5, 2.05), (-2.4, 2.15), (-2.55, 1.0)), (1,), 1.0),
}
_WINDOWS = {     # of the sides, in the same coordinates
    'car': (((0.8, 0.97), (0.22, 1.36), (-0.4, 1.38), (-0.4, 0.97)),
            ((-0.48, 0.97), (-0.48, 1.38), (-1.1, 1.37), (-1.6, 0.99))),
    'van': (((1.85, 1.2), (1.4, 1.9), (0.8, 1.92), (0.8, 1.2)),),
}
_SILL = 0.26        # m above the ground
_DENSITY = 40       # pixels per m


@dataclass(frozen=True)
class Car:
    """A kind of vehicle, 'car' or 'van', and its colour."""

    kind: str
    colour: tuple[int, int, int]


def random_car(rng: np.random.Generator) -> Car:
    """Return a random vehicle; about one in six is a van."""
    kind = 'van' if rng.random() < 0.18 else 'car'
    return Car(kind, _COLOURS[int(rng.integers(0, len(_COLOURS)))])


def car_faces(car: Car, position: NDArray[np.float64], heading: float, condition: Condition
              ) -> Body:
    """Return the vehicle with its middle at `position` (2,), facing `heading` (rad)."""
    axes = _Axes(position, heading, _OUTLINES[car.kind][2])
    faces = (_ground_shadow(car, axes, condition), *_hull(car, axes, condition),
             *_ends(car, axes, condition), *_sides(car, axes, condition))
    return Body(faces, np.asarray(position), 2.9)


class _Axes:
    """The axes of a vehicle in the map frame, and points in its own coordinates."""

    def __init__(self, position: NDArray[np.float64], heading: float, half_width: float) -> None:
        self.ahead = np.array([np.cos(heading), np.sin(heading), 0.0])
        self.left = np.array([-self.ahead[1], self.ahead[0], 0.0])
        self._origin = np.append(position, 0.0)
        self._half_width = half_width

    def point(self, forward: float, up: float, side: float) -> NDArray[np.float64]:
        """Return (3,) in the map frame; `forward` and `up` in m, `side` in half widths, left +."""
        return self._origin + forward * self.ahead + up * UP + side * self._half_width * self.left


def _ground_shadow(car: Car, axes: _Axes, condition: Condition) -> Face:
    outline = _OUTLINES[car.kind][0]
    nose, tail = outline[0][0], outline[-1][0]
    shade = 0.25 if condition.night else 0.45
    red, green, blue = (int(c * shade) for c in condition.ground[1])
    return polygon(np.array([axes.point(nose, 0.02, 1.05), axes.point(nose, 0.02, -1.05),
                             axes.point(tail, 0.02, -1.05), axes.point(tail, 0.02, 1.05)]),
                   (red, green, blue), painted_first=True)


def _hull(car: Car, axes: _Axes, condition: Condition) -> Iterator[Face]:
    """Yield the faces from the bonnet over the windscreen and the roof to the boot."""
    outline, glass, _ = _OUTLINES[car.kind]
    for index, (first, second) in enumerate(pairwise(outline)):
        points = np.array([axes.point(*first, 1), axes.point(*first, -1), axes.point(*second, -1),
                           axes.point(*second, 1)])
        normal = cross(axes.ahead * (second[0] - first[0]) + UP * (second[1] - first[1]),
                       axes.left)
        normal = -normal / np.linalg.norm(normal)
        colour = lit(_GLASS if index in glass else car.colour, condition, normal)
        if condition.snow and index not in glass and normal[2] > 0.8:
            colour = (226, 229, 236)
        yield polygon(points, colour)


def _ends(car: Car, axes: _Axes, condition: Condition) -> Iterator[Face]:
    """Yield the front and the rear."""
    outline, _, half = _OUTLINES[car.kind]
    for (forward, up), side, right, rear in ((outline[0], -1, axes.left, False),
                                             (outline[-1], 1, -axes.left, True)):
        yield rectangle(axes.point(forward, up, side), right, -UP, (2 * half, up - _SILL),
                        _end(car, rear, condition.name))


def _sides(car: Car, axes: _Axes, condition: Condition) -> Iterator[Face]:
    """Yield the left and the right side, as cut-outs of their profile."""
    outline, _, _ = _OUTLINES[car.kind]
    nose, tail = outline[0][0], outline[-1][0]
    length, height = nose - tail, max(up for _, up in outline)
    for start, side, right, mirrored in ((nose, 1, -axes.ahead, False),
                                         (tail, -1, axes.ahead, True)):
        yield Face(axes.point(start, height, side), right, -UP, (length, height),
                   np.array([(0, 0), (length, 0), (length, height), (0, height)]),
                   _profile(car, mirrored, condition.name))


@lru_cache(maxsize=512)
def _profile(car: Car, mirrored: bool, condition_name: str) -> Texture:
    """Return the side of a vehicle with its wheels, front at the left unless mirrored."""
    return Texture(lambda: _draw_profile(car, mirrored, condition_named(condition_name)))


def _draw_profile(car: Car, mirrored: bool, condition: Condition) -> NDArray[np.uint8]:
    outline, _, _ = _OUTLINES[car.kind]
    front, rear = outline[0][0], outline[-1][0]
    tall = max(up for _, up in outline)

    def pixels(points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
        return np.round([((front - forward) * _DENSITY, (tall - up) * _DENSITY)
                         for forward, up in points]).astype(np.int32)

    canvas = np.zeros((round(tall * _DENSITY), round((front - rear) * _DENSITY), 4), np.uint8)
    light = condition.light(np.array([0.6, 0.5, 0.62])) * 0.9
    body = _rgba(np.clip(np.array(car.colour) * light, 0, 255))
    pane = _rgba(np.array(_GLASS) * light)
    cv2.fillPoly(canvas, [pixels([(front, _SILL), *outline, (rear, _SILL)])], body, cv2.LINE_AA)
    for window in _WINDOWS[car.kind]:
        cv2.fillPoly(canvas, [pixels(window)], pane, cv2.LINE_AA)
    gap = _rgba(0.7 * np.array(body[:3]))
    for door in (0.4, -0.44):
        low, high = pixels([(door, 0.4), (door, 0.95)]).tolist()
        cv2.line(canvas, low, high, gap, 1)
    for axle in (front - 0.85, rear + 0.8):
        centre = tuple(pixels([(axle, 0.32)])[0].tolist())
        cv2.circle(canvas, centre, round(0.33 * _DENSITY), (24, 24, 26, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, centre, round(0.18 * _DENSITY), _rgba(150 * light), -1, cv2.LINE_AA)
    return canvas[:, ::-1] if mirrored else canvas


def _rgba(colour: NDArray[np.float64]) -> tuple[int, int, int, int]:
    red, green, blue = colour.tolist()
    return int(red), int(green), int(blue), 255


@lru_cache(maxsize=512)
def _end(car: Car, rear: bool, condition_name: str) -> Texture:
    """Return the front or the rear of a vehicle."""
    return Texture(lambda: _draw_end(car, rear, condition_named(condition_name)))


def _draw_end(car: Car, rear: bool, condition: Condition) -> NDArray[np.uint8]:
    canvas = np.empty((40, 70, 3), np.uint8)
    light = condition.light(np.array([0.5, 0.5, 0.3])) * 0.95
    canvas[:] = np.clip(np.array(car.colour) * light, 0, 255)
    cv2.rectangle(canvas, (0, 28), (69, 39), tuple(int(c) for c in 50 * light), -1)
    glow = 1.0 if condition.night or condition.wet else 0.75
    lamp = tuple(int(c * glow) for c in ((230, 24, 20) if rear else (255, 250, 226)))
    for x in (3, 55):
        cv2.rectangle(canvas, (x, 8), (x + 11, 17), lamp, -1)
    if not rear:
        cv2.rectangle(canvas, (20, 10), (49, 20), tuple(int(c) for c in 40 * light), -1)
    cv2.rectangle(canvas, (25, 24), (44, 30), tuple(int(c) for c in 235 * light), -1)
    return canvas
