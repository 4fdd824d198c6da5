"""
Pace: how far a robot has driven, judged by how much its view has changed.

A view changes with the metres driven in much the same way all along a map, whatever the season:
the map itself shows how. So it tells wheels that spin, or odometry that is stuck, from a robot
that drives. Who is believed is in belief.py.
"""

from __future__ import annotations

from itertools import pairwise
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.localization.motions import SPEEDS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

_LONGEST = 5.0
"""Seconds for which views are compared with the same one."""

_TURNED = 0.2
"""Radians turned from which views are not compared: that changes them without a metre driven."""

_CHANGED = 0.8
"""Cosine similarity to an earlier view below which a view has changed: a robot that stands sees no
such thing. On a map whose places are alike, the similarity of those that are CHANGES apart."""

CHANGES = 3.0
"""Metres in which a view changes at the latest."""

_SAMPLE = 2000
"""Places that tell how views change."""

_STEPS = (1, 2, 3, 4, 6, 8, 10)
"""To how many places further each is compared."""

_EDGES = (0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 9.0, 12.0)
"""Metres: the similarity is described between each two of them."""

_FEWEST = 20
"""Pairs at some distance that say what similarity is usual there."""

_STANDS = 0.3
"""Metres in which a robot may as well stand."""

_STANDING = (0.97, 0.05)
"""Mean and standard deviation of the cosine similarity of two views of a robot that stands."""

_NARROWEST = 0.07
"""Least standard deviation at any other distance."""

_OUTLIERS = 0.04
"""Density of any similarity at any distance: something drives past, or a corner is turned."""

_DOUBTFUL = 20.0
"""How many times less likely than another a distance must be to be doubted: that is at about 2.5
standard deviations."""


class Pace:
    """
    What similarity two views of one drive have, by the metres between them.

    Made from the centred descriptors of a map's places. `changed` is the cosine similarity below
    which a view has changed. On a map that does not show how views change, no distance is doubted.
    """

    def __init__(self, place_map: PlaceMap) -> None:
        distance, similarity = _pairs(place_map)
        curve = [(0.0, *_STANDING)]
        for low, high in pairwise(_EDGES):
            at = (distance >= low) & (distance < high)
            if at.sum() >= _FEWEST:
                curve.append((float(distance[at].mean()), float(similarity[at].mean()),
                              max(_NARROWEST, float(similarity[at].std()))))
        self._known = len(curve) > 1
        if self._known:  # how views change within the first distance, the map does not show
            (_, standing, little), (metres, mean, much) = curve[:2]
            curve.insert(1, (metres / 2, (standing + mean) / 2,
                             max((little + much) / 2, (standing - mean) / 3)))
        self._metres, self._means, self._deviations = np.array(curve).T
        self.changed = max(_CHANGED, float(np.interp(CHANGES, self._metres, self._means)))

    def likelihood(self, similarity: Floats | float, metres: Floats, alike: float = -1.0
                   ) -> Floats:
        """
        Return the density (n,) of a similarity of two views that are `metres` (n,) apart.

        Two places of the map that are themselves `alike` are expected to look so. On a map that
        does not show how views change, it is the same for all.
        """
        if not self._known:
            return np.ones(len(metres))
        mean = self.usual(metres)
        deviation = np.interp(metres, self._metres, self._deviations)
        deviation = np.where(alike > mean, _NARROWEST, deviation)
        mean = np.maximum(mean, alike)
        return np.asarray(np.exp(-0.5 * ((similarity - mean) / deviation) ** 2)
                          / (deviation * np.sqrt(2 * np.pi)) + _OUTLIERS)

    def usual(self, metres: Floats) -> Floats:
        """Return the mean similarity (n,) of two views that are `metres` (n,) apart."""
        return np.asarray(np.interp(metres, self._metres, self._means))

    def doubts(self, similarity: float, metres: float, alike: float = -1.0) -> bool:
        """
        Return whether two views that similar show a robot that stands, not one that drove.

        `alike` is the similarity of the two places on the map.
        """
        standing = self.likelihood(similarity, np.zeros(1))
        return bool(self.likelihood(similarity, np.array([metres]), alike) * _DOUBTFUL < standing)


class Anchor:
    """
    An earlier view of the drive, which later ones are compared with.

    `motion` (3,) is that since then by odometry, as in odometry.py, None where it was missing on
    the way; `seconds` are those that have passed.
    """

    def __init__(self, query: NDArray[np.float32]) -> None:
        self._query = query  # float32 (D,), how it was looked up
        self.seconds = 0.0
        self.motion: Floats | None = np.zeros(3)
        self._doubt = np.ones(1 + len(SPEEDS))

    def advance(self, seconds: float, motion: Floats | None) -> None:
        """Let time pass while odometry says that the robot moves: (3,), as in odometry.py."""
        self.seconds += seconds
        self.motion = None if motion is None or self.motion is None \
            else poses.chained(self.motion, motion)

    def similarity(self, query: NDArray[np.float32]) -> float:
        """Return the cosine similarity of a later view (D,)."""
        return float(query @ self._query)

    def doubt(self, query: NDArray[np.float32], pace: Pace, max_speed: float) -> Floats:
        """
        Return by what factors (M,) a later view (D,) makes the belief's motions less likely.

        Those are as odometry says, and at each of the SPEEDS. A view that is still alike doubts
        that the robot drove far, one that has changed only that it stands. All views that are held
        against this one count as one: only what is new since the last call is returned, which may
        be above 1.
        """
        if self._turned:
            return np.ones(1 + len(SPEEDS))
        driven = 0.0 if self.motion is None else math.hypot(*self.motion[:2])
        metres = np.array([driven, *SPEEDS * max_speed * self.seconds])
        # Traffic, rain or a dirty lens change a view, too: it does not tell slow from fast.
        similarity = np.maximum(self.similarity(query),
                                np.where(metres > _STANDS, pace.usual(metres), -1.0))
        density = pace.likelihood(similarity, metres)
        doubt = np.minimum(1.0, _DOUBTFUL * density / density.max())
        if self.motion is None:
            doubt[0] = 1.0
        change, self._doubt = doubt / self._doubt, doubt
        return np.asarray(change)

    @property
    def old(self) -> bool:
        """Return whether it is no longer worth comparing with."""
        return self.seconds > _LONGEST or self._turned

    @property
    def _turned(self) -> bool:
        return self.motion is not None and abs(self.motion[2]) > _TURNED


def _pairs(place_map: PlaceMap) -> tuple[Floats, Floats]:
    """Return the distances (n,) in metres and the similarities (n,) of places of one session."""
    count = len(place_map)
    start = np.sort(np.random.default_rng(0).permutation(count)[:_SAMPLE])
    vectors = place_map.vectors(start)
    distances, similarities = [np.zeros(0)], [np.zeros(0)]
    for step in _STEPS:
        inside = np.flatnonzero(start + step < count)
        inside = inside[place_map.sessions[start[inside] + step]
                        == place_map.sessions[start[inside]]]
        here, there = start[inside], start[inside] + step
        distances.append(np.linalg.norm(place_map.poses[there, :3] - place_map.poses[here, :3],
                                        axis=1))
        similarities.append(np.einsum('nd,nd->n', vectors[inside], place_map.vectors(there)))
    return np.concatenate(distances), np.concatenate(similarities)
