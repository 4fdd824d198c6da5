"""
Cars and vans, parked or driving: their shapes and colours as faces.

Where they stand or how they move is decided elsewhere.
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
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition

_COLOURS = ((188, 190, 194), (40, 42, 48), (236, 236, 236), (150, 28, 32), (34, 62, 120),
            (96, 100, 106), (58, 88, 70), (202, 170, 80))
_GLASS = (52, 60, 70)
# Outlines from the front bumper over the roof to the rear bumper: forward and up (m), and which
# stretches between neighbours are glass.
_OUTLINES = {
    'car': (((2.12, 0.72), (0.95, 0.95), (0.25, 1.42), (-1.15, 1.44), (-1.75, 1.0), (-2.1, 0.9)),
            (1, 3), 0.88),
    'van': (((2.6, 1.0), (2.1, 1.15), (1.5, 2.05), (-2.4, 2.15), (-2.55, 1.0)), (1,), 1.0),
}
_SILL = 0.26        # m above the ground
_DENSITY = 40       # pixels per m


@dataclass(frozen=True)
class Car:
    """A kind of vehicle, 'car' or 'van', and its colour."""

    kind: str
    colour: tuple[int, int, int]


def random_car(rng: np.random.Generator) -> Car:
    """Return a vehicle as one meets them."""
    kind = 'van' if rng.random() < 0.18 else 'car'
    return Car(kind, _COLOURS[int(rng.integers(0, len(_COLOURS)))])


def car_faces(car: Car, place: NDArray[np.float64], heading: float, condition: Condition) -> Body:
    """Return the vehicle with its middle at `place` (2,), facing `heading` (rad)."""
    outline, glass, half = _OUTLINES[car.kind]
    ahead = np.array([np.cos(heading), np.sin(heading), 0.0])
    left = np.array([-ahead[1], ahead[0], 0.0])
    origin = np.append(place, 0.0)
    nose, tail = outline[0], outline[-1]
    tall = max(z for _, z in outline)

    def across(x: float, z: float, side: float) -> NDArray[np.float64]:
        return origin + x * ahead + z * UP + side * half * left

    shade = 0.25 if condition.night else 0.45
    dark = tuple(int(c * shade) for c in condition.ground[1])
    faces = [polygon(np.array([across(nose[0], 0.02, 1.05), across(nose[0], 0.02, -1.05),
                               across(tail[0], 0.02, -1.05), across(tail[0], 0.02, 1.05)]),
                     (dark[0], dark[1], dark[2]), under=True)]
    for index, (first, second) in enumerate(pairwise(outline)):
        points = np.array([across(*first, 1), across(*first, -1), across(*second, -1),
                           across(*second, 1)])
        normal = cross(ahead * (second[0] - first[0]) + UP * (second[1] - first[1]), left)
        normal = -normal / np.linalg.norm(normal)
        colour = lit(_GLASS if index in glass else car.colour, condition, normal)
        if condition.snow and index not in glass and normal[2] > 0.8:
            colour = (226, 229, 236)
        faces.append(polygon(points, colour))
    for origin_point, right, rear in ((across(nose[0], nose[1], -1), left, False),
                                      (across(tail[0], tail[1], 1), -left, True)):
        faces.append(rectangle(origin_point, right, -UP,
                               (2 * half, (tail if rear else nose)[1] - _SILL),
                               _end(car, rear, condition.name)))
    width = nose[0] - tail[0]
    for start, right in ((across(nose[0], tall, 1), -ahead), (across(tail[0], tall, -1), ahead)):
        mirrored = right @ ahead > 0
        faces.append(Face(start, right, -UP, (width, tall),
                          np.array([(0, 0), (width, 0), (width, tall), (0, tall)]),
                          _profile(car, mirrored, condition.name)))
    return Body(tuple(faces), np.asarray(place), 2.9)


@lru_cache(maxsize=512)
def _profile(car: Car, mirrored: bool, condition_name: str) -> Texture:
    """Return the side of a vehicle with its wheels, front at the left unless mirrored."""
    return Texture(lambda: _draw_profile(car, mirrored, condition_named(condition_name)))


def _draw_profile(car: Car, mirrored: bool, condition: Condition) -> NDArray[np.uint8]:
    outline, _, _ = _OUTLINES[car.kind]
    front, rear = outline[0][0], outline[-1][0]
    tall = max(z for _, z in outline)

    def pixels(points: list[tuple[float, float]]) -> NDArray[np.int32]:
        return np.round([((front - x) * _DENSITY, (tall - z) * _DENSITY)
                         for x, z in points]).astype(np.int32)

    picture = np.zeros((round(tall * _DENSITY), round((front - rear) * _DENSITY), 4), np.uint8)
    light = condition.light(np.array([0.6, 0.5, 0.62])) * 0.9
    body = (*(int(c) for c in np.clip(np.array(car.colour) * light, 0, 255)), 255)
    pane = (*(int(c) for c in np.array(_GLASS) * light), 255)
    cv2.fillPoly(picture, [pixels([(front, _SILL), *outline, (rear, _SILL)])], body, cv2.LINE_AA)
    if car.kind == 'car':
        windows = [[(0.8, 0.97), (0.22, 1.36), (-0.4, 1.38), (-0.4, 0.97)],
                   [(-0.48, 0.97), (-0.48, 1.38), (-1.1, 1.37), (-1.6, 0.99)]]
    else:
        windows = [[(1.85, 1.2), (1.4, 1.9), (0.8, 1.92), (0.8, 1.2)]]
    for window in windows:
        cv2.fillPoly(picture, [pixels(window)], pane, cv2.LINE_AA)
    dark = (*(int(c * 0.7) for c in body[:3]), 255)
    for x in (0.4, -0.44):
        low, high = pixels([(x, 0.4), (x, 0.95)]).tolist()
        cv2.line(picture, low, high, dark, 1)
    for x in (front - 0.85, rear + 0.8):
        centre = tuple(int(value) for value in pixels([(x, 0.32)])[0])
        cv2.circle(picture, centre, round(0.33 * _DENSITY), (24, 24, 26, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, centre, round(0.18 * _DENSITY), (*(int(c) for c in 150 * light), 255),
                   -1, cv2.LINE_AA)
    return picture[:, ::-1] if mirrored else picture


@lru_cache(maxsize=512)
def _end(car: Car, rear: bool, condition_name: str) -> Texture:
    """Return the front or the rear of a vehicle."""
    return Texture(lambda: _draw_end(car, rear, condition_named(condition_name)))


def _draw_end(car: Car, rear: bool, condition: Condition) -> NDArray[np.uint8]:
    picture = np.empty((40, 70, 3), np.uint8)
    light = condition.light(np.array([0.5, 0.5, 0.3])) * 0.95
    picture[:] = np.clip(np.array(car.colour) * light, 0, 255)
    cv2.rectangle(picture, (0, 28), (69, 39), tuple(int(c) for c in 50 * light), -1)
    glow = 1.0 if condition.night or condition.wet else 0.75
    lamp = tuple(int(c * glow) for c in ((230, 24, 20) if rear else (255, 250, 226)))
    for x in (3, 55):
        cv2.rectangle(picture, (x, 8), (x + 11, 17), lamp, -1)
    if not rear:
        cv2.rectangle(picture, (20, 10), (49, 20), tuple(int(c) for c in 40 * light), -1)
    cv2.rectangle(picture, (25, 24), (44, 30), tuple(int(c) for c in 235 * light), -1)
    return picture
