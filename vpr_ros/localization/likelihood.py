"""How likely a view is at a place of the map, by how similar it is to all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]
    Descriptor = NDArray[np.float32]

_SAMPLE = 512
"""Places that tell what similarity is usual for a frame."""

_EXPECTED = 10.0
"""Wholly new frames that what is usual counts for, against those of the drive."""

_LEAST, _MOST = 2 / 3, 1.25
"""What separation a drive is taken to have at least and at most, as a share of the usual one: only
near that is known how much it varies from frame to frame."""

_REMEMBERED = 100.0
"""Wholly new frames after which the drive forgets: light, season and surroundings change."""


class Likelihood:
    """Compares views of a drive, as they are looked up (D,), with the places of a map."""

    def __init__(self, place_map: PlaceMap) -> None:
        sample = np.random.default_rng(0).permutation(len(place_map))[:_SAMPLE]
        self._sample = place_map.vectors(np.sort(sample))

    def scores(self, query: Descriptor, similarity: Descriptor) -> Floats:
        """
        Return how far similarities (k,) are above the usual, in standard deviations.

        What is usual, and its deviation, is that of the query to a sample of all places.
        """
        # Not BLAS: it would wait for cores that the network keeps busy.
        usual = np.einsum('nd,d->n', self._sample, query)
        return np.asarray((similarity.astype(np.float64) - usual.mean())
                          / max(float(usual.std()), 1e-3))


@dataclass
class Separation:
    """
    How many standard deviations the right place stands above the others, on one drive.

    Some drives are harder than others, by season, light and lens. It is estimated where the belief
    is, as expectation maximisation does. `total` is the sum of the scores there, `weight` for how
    many wholly new frames they count.
    """

    total: float = 0.0
    weight: float = 0.0

    def value(self, usual: float) -> float:
        """Return it, where `usual` is what is expected of a drive that is not known yet."""
        value = (_EXPECTED * usual + self.total) / (_EXPECTED + self.weight)
        return min(max(value, _LEAST * usual), _MOST * usual)

    def learn(self, score: float, weight: float) -> None:
        """Take in the mean score where the belief is; `weight`, in [0,1], is how sure and new."""
        keep = 1 - weight / _REMEMBERED
        self.total = keep * self.total + weight * max(score, 0.0)
        self.weight = keep * self.weight + weight


def values_at(wanted: NDArray[np.int64], places: NDArray[np.integer[Any]],
              values: NDArray[np.floating[Any]], other: float) -> Floats:
    """
    Return what values (k,) of some places (k,) are at others (m,), which are in order.

    It is `other` at those that are not among them.
    """
    at = np.minimum(np.searchsorted(wanted, places), len(wanted) - 1)
    known = wanted[at] == places
    found = np.full(len(wanted), other)
    found[at[known]] = values[known]
    return found
