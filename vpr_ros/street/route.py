"""
Paths of a lane: a smooth curve through intersections, and positions along it by distance.

Plane geometry in m; speed and time are in drive.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP = 0.25         # m between the points of a path
_SMOOTHING = 2.0    # m, standard deviation of the smoothing that rounds an arc's ends
_RADIUS = {'right': 6.5, 'left': 10.0}


def lane_path(corners: NDArray[np.float64], lane: float, *, closed: bool) -> NDArray[np.float64]:
    """
    Return the lane `lane` m right of the line through `corners` (K,2), with rounded corners.

    The result is (M,2), points STEP apart (evenly, to within 1 %). The heading is continuous and
    so, after smoothing, is the curvature.
    """
    count = len(corners)
    legs = []
    for index in range(count if closed else count - 1):
        start, end = corners[index], corners[(index + 1) % count]
        direction = (end - start) / np.linalg.norm(end - start)
        legs.append((start + lane * np.array([direction[1], -direction[0]]), direction))
    points = [] if closed else [legs[0][0] + 4.0 * legs[0][1]]
    for index, (origin, direction) in enumerate(legs):
        if index == len(legs) - 1 and not closed:
            points.append(corners[-1] + lane * np.array([direction[1], -direction[0]])
                          - 4.0 * direction)
            break
        points.extend(_turn(origin, direction, *legs[(index + 1) % len(legs)]))
    line = _resample(np.array(points), closed=closed)
    return _resample(_smooth(line, closed=closed), closed=closed)


def _turn(origin: NDArray[np.float64], direction: NDArray[np.float64],
          next_origin: NDArray[np.float64], next_direction: NDArray[np.float64]
          ) -> list[NDArray[np.float64]]:
    """Return the points of the arc that joins two legs, or the one point where they meet."""
    cross = direction[0] * next_direction[1] - direction[1] * next_direction[0]
    angle = float(np.arctan2(cross, direction @ next_direction))
    if abs(angle) < 0.35:
        return [(origin + direction * ((next_origin - origin) @ direction))]
    distance = _cross(next_origin - origin, next_direction) / cross
    meeting = origin + distance * direction
    radius = _RADIUS['left' if angle > 0 else 'right']
    reach = radius * np.tan(abs(angle) / 2)
    left = np.array([-direction[1], direction[0]]) * np.sign(angle)
    centre = meeting - reach * direction + radius * left
    turns = np.linspace(0.0, angle, 24)
    spoke = -radius * left
    return [centre + np.array([np.cos(turn) * spoke[0] - np.sin(turn) * spoke[1],
                               np.sin(turn) * spoke[0] + np.cos(turn) * spoke[1]])
            for turn in turns]


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _resample(points: NDArray[np.float64], *, closed: bool) -> NDArray[np.float64]:
    if closed:
        points = np.vstack([points, points[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    count = round(float(along[-1]) / STEP)
    wanted = np.linspace(0.0, along[-1], count + 1)[:-1 if closed else None]
    return np.column_stack([np.interp(wanted, along, points[:, axis]) for axis in (0, 1)])


def _smooth(points: NDArray[np.float64], *, closed: bool) -> NDArray[np.float64]:
    reach = int(3 * _SMOOTHING / STEP)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP / _SMOOTHING) ** 2)
    weights /= weights.sum()
    if closed:
        padded = np.vstack([points[-reach:], points, points[:reach]])
    else:
        # Odd reflection keeps the ends where they are and their headings straight.
        padded = np.vstack([2 * points[0] - points[reach:0:-1], points,
                            2 * points[-1] - points[-2:-reach - 2:-1]])
    return np.column_stack([np.convolve(padded[:, axis], weights, 'valid') for axis in (0, 1)])


class Path:
    """A path through `points` (M,2): position and heading by the distance along it."""

    def __init__(self, points: NDArray[np.float64], *, closed: bool) -> None:
        self.closed = closed
        ring = np.vstack([points, points[:1]]) if closed else points
        steps = np.diff(ring, axis=0)
        self._points = ring
        self._along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(steps, axis=1))])
        tangent = np.gradient(np.vstack([ring[-2], ring, ring[1]]), axis=0)[1:-1] if closed \
            else np.gradient(ring, axis=0)
        self._heading = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
        self.length = float(self._along[-1])

    def at(self, distance: float, offset: float = 0.0) -> tuple[NDArray[np.float64], float]:
        """
        Return the point (2,), `offset` m to the left of the path, and the heading (rad).

        Beyond the ends of an open path the point stays at the end.
        """
        if self.closed:
            distance %= self.length
        heading = float(np.interp(distance, self._along, self._heading))
        point = np.array([np.interp(distance, self._along, self._points[:, axis])
                          for axis in (0, 1)])
        return point + offset * np.array([-np.sin(heading), np.cos(heading)]), heading
