"""Belief: a Bayes filter over the places of a map and one more state, 'nowhere on the map'.

It knows of poses, likelihoods and time; what a picture or a descriptor is, it does not know.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from vpr_ros import poses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NEIGHBOURS = 16
"""Places that mass can move to in one step, the place itself among them."""

ACTIVE = 2048
"""Places that mass moves from, the heaviest; what all the others hold stays where it is."""

MOST_STEPS = 20

# Per second: how a robot gets off the map, back on it, or is carried elsewhere.
TO_NOWHERE = 0.01
FROM_NOWHERE = 0.05
CARRIED = 0.001

PRIOR_NOWHERE = 0.5

# Odometry: its error in metres per metre, and the heading's in radians.
ODOMETRY_ERROR = 0.1
HEADING_ERROR = 0.25

_STRAY = 0.01
"""The weight of 'nowhere' against a place that odometry leads to exactly (3 sigma off weighs so
much): mass that drives off the end of the map does not pile up there."""


class Belief:
    """The probability of each of N places and of being nowhere on the map; they sum to 1.

    `places` is float64 (N,), `nowhere` a float.
    """

    def __init__(self, place_poses: Floats, spacing: float = 0.0) -> None:
        """Take the poses (N,7) of the places, and the metres between neighbours.

        Without a spacing, the median distance to the nearest place is taken. Only where the
        places are matters, not their order.
        """
        self._poses = place_poses
        positions = place_poses[:, :3]
        near = min(NEIGHBOURS, len(positions))
        distances, neighbours = cKDTree(positions).query(positions, k=np.arange(1, near + 1))
        self._distances, self._neighbours = distances, neighbours
        self.spacing = spacing or float(np.median(distances[:, min(1, near - 1)])) or 1.0
        self._reach = max(self.spacing, float(np.median(distances[:, -1])) / 2)
        headings = poses.heading(place_poses)
        offset = positions[neighbours, :2] - positions[:, None, :2]
        cosine, sine = np.cos(headings)[:, None], np.sin(headings)[:, None]
        self._ahead = cosine * offset[..., 0] + sine * offset[..., 1]
        self._aside = cosine * offset[..., 1] - sine * offset[..., 0]
        self._turn = _wrapped(headings[neighbours] - headings[:, None])
        self.forget()

    def forget(self) -> None:
        """Start over: any place is as likely as any other."""
        count = len(self._poses)
        self.nowhere = PRIOR_NOWHERE
        self.places = np.full(count, (1 - self.nowhere) / count)

    def expect(self, pose: Floats, deviation: float) -> None:
        """Start over around a pose (7,) that somebody gave, within some metres (1 sigma).

        Raises ValueError for a deviation that is not finite or is below zero.
        """
        if not (math.isfinite(deviation) and deviation >= 0):
            raise ValueError(f'a deviation must be a finite number of metres, not {deviation}')
        deviation = max(deviation, self.spacing)
        distance = poses.distance(self._poses, pose) / deviation
        turn = poses.angle(self._poses, pose) / (2 * HEADING_ERROR)
        self.nowhere = 0.05
        self.places = np.exp(-0.5 * (distance ** 2 + turn ** 2)) + 1e-9
        self.places *= (1 - self.nowhere) / self.places.sum()

    def predict(self, seconds: float, motion: Floats | None, max_speed: float) -> None:
        """Let time pass while the robot moves.

        With `motion` float64 (3,) (metres ahead, metres to the left, radians turned: odometry's
        increment), mass moves to the places that agree with it; without, to all places that can
        be reached at `max_speed`. A little goes to 'nowhere', comes back, or lands anywhere.
        Raises ValueError for a time below zero.
        """
        if seconds < 0:
            raise ValueError(f'time cannot pass backwards ({seconds} s)')
        length = max_speed * seconds if motion is None else math.hypot(*motion[:2])
        steps = min(MOST_STEPS, max(1, math.ceil(length / self._reach)))
        for _ in range(steps):
            self._move(length / steps, None if motion is None else motion / steps)
        lost, found, carried = -np.expm1(
            -seconds * np.array([TO_NOWHERE, FROM_NOWHERE, CARRIED]))
        anywhere = found * self.nowhere + carried * (1 - lost) * self.places.sum()
        self.nowhere += lost * self.places.sum() - found * self.nowhere
        self.places = self.places * ((1 - lost) * (1 - carried)) + anywhere / len(self.places)
        self._normalise()

    def update(self, places: NDArray[np.int64], ratios: Floats, rest: float) -> None:
        """Take in what was seen: the likelihood ratios (k,) of `places`, `rest` of all others.

        A ratio is p(seen | this place) / p(seen | some other place); 'nowhere' has 1.
        """
        factors = np.full(len(self.places), rest)
        factors[places] = ratios
        self.places = self.places * factors
        self._normalise()

    def _move(self, length: float, motion: Floats | None) -> None:
        """Move the mass of each place to those of its neighbours that one step leads to."""
        active = np.arange(len(self.places))
        if len(active) > ACTIVE:
            active = np.argpartition(self.places, -ACTIVE)[-ACTIVE:]
        if motion is None:
            weights = (self._distances[active] <= length + self.spacing / 2).astype(np.float64)
            stray = 0.0
        else:
            error = self.spacing / 2 + ODOMETRY_ERROR * length
            weights = np.exp(-0.5 * (
                ((self._ahead[active] - motion[0]) ** 2
                 + (self._aside[active] - motion[1]) ** 2) / error ** 2
                + (_wrapped(self._turn[active] - motion[2]) / HEADING_ERROR) ** 2))
            stray = _STRAY
        mass = self.places[active]
        share = mass / (weights.sum(axis=1) + stray)
        self.nowhere += stray * float(share.sum())
        self.places[active] = 0
        self.places += np.bincount(self._neighbours[active].ravel(),
                                   (weights * share[:, None]).ravel(), len(self.places))

    def _normalise(self) -> None:
        total = self.places.sum() + self.nowhere
        self.places /= total
        self.nowhere = float(self.nowhere / total)


def _wrapped(angle: Floats) -> Floats:
    """Return angles in radians within [-pi, pi)."""
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)
