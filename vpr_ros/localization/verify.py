"""
Whether two images show one place: by what is where in them, as evidence of several kinds.

Parts of one image that look like parts of the other must have moved together. How much more often
they do so at the right place than at similar ones was learnt on the street.
"""

from __future__ import annotations

from functools import lru_cache
import math
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.encoding.features import Features
    from vpr_ros.encoding.grid import GridNetwork
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]
    Verify = Callable[[NDArray[np.float32], NDArray[np.int64], Floats],
                      tuple[NDArray[np.int64], Floats]]

CHECKED = 10
"""Places, the most similar ones, that an image is compared with."""

_SAMPLE, _USUAL, _FEWEST = 16, 6, 8
"""Other places: those in memory, those compared with each image, and the least to go by."""

_WIDTH, _MOST = 320, 512
"""Pixels of the width in which features are found, and how many of them count."""

_CELL_TOLERANCE, _FEATURE_TOLERANCE = 0.08, 0.03
_KEPT = 512

_FLOOR = 4.0
"""Parts that agree by chance."""

_SLOPES = np.array([6.1, 5.9, 3.9])
_OFFSETS = np.array([-4.5, -5.3, -3.1])
"""Log-likelihood ratios of the grid, the network and SIFT, by the logarithm of how much more
agrees than usual: logistic regressions on spring, rain and night against winter in towns 61 and
62, of places within 5 m against others that are among the ten most similar ones in either town
(`python -m benchmarks.accuracy.verification`)."""

_BLIND, _LARGEST = 0.1, 100.0
"""The share of images in which a kind sees nothing, and the most that one is believed."""

_TEMPER = 0.55
"""What the product counts for, since kinds go wrong together: the likeliest on those towns."""

_SCALE = (0.7, 1.4)
"""How much larger or smaller one image may show what the other shows."""

_RIGID = 0.01
"""Weight of matches that stay where they are, in that of all: few of them fit any scale."""

_BINS = 20
_WIDTHS = (3.0, 2.0, 1.4, 1.0, 1.0)
"""The robust kernel's widths, one for each iteration, in tolerances."""


class Parts(NamedTuple):
    """
    Parts of an image: where they are (K,2), in shares of its sides, and what they look like (K,D).

    Descriptors float32 are of unit norm. `tolerance` is how far they may miss, in shares.
    """

    positions: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    tolerance: float


def agreement(one: Parts, other: Parts) -> float:
    """
    Return how many parts of two images match and have moved together, weighted by likeness.

    They match where each is the most similar one for the other. The motion is a shift and a scale,
    without a turn: a robot's camera is upright.
    """
    if not (len(one.positions) and len(other.positions)):
        return 0.0
    similarity = one.descriptors @ other.descriptors.T
    best = similarity.argmax(axis=1)
    rows = np.flatnonzero(similarity.argmax(axis=0)[best] == np.arange(len(best)))
    weight = np.maximum(similarity[rows, best[rows]], 0)
    here, there = one.positions[rows], other.positions[best[rows]]
    return _together(here, there, weight, one.tolerance)


def _together(here: NDArray[np.float32], there: NDArray[np.float32], weight: NDArray[np.float32],
              tolerance: float) -> float:
    """Return the weight of the matches (M,2) that one shift and scale explains."""
    cells = np.rint((there - here) * _BINS).astype(np.int64) + _BINS
    side = 2 * _BINS + 1
    votes = np.bincount(cells[:, 1] * side + cells[:, 0], weight, side * side)
    padded = np.pad(votes.reshape(side, side), 1)
    votes = sum(padded[row:row + side, column:column + side]  # type: ignore[assignment]
                for row in range(3) for column in range(3))
    row, column = np.unravel_index(int(votes.argmax()), votes.shape)
    shift = np.array([column - _BINS, row - _BINS]) / _BINS
    scale, centre = 1.0, here.mean(axis=0) if len(here) else np.zeros(2)
    apart, moved = here - centre, there - centre
    for width in _WIDTHS:
        square = ((moved - scale * apart - shift) ** 2).sum(axis=1)
        say = weight / (1 + square / (width * tolerance) ** 2) ** 2
        total = float(say.sum()) + 1e-9
        from_, to = say @ apart / total, say @ moved / total
        still = _RIGID * total
        spread = float(say @ ((apart - from_) ** 2).sum(axis=1)) + still
        along = float(say @ ((apart - from_) * (moved - to)).sum(axis=1)) + still
        scale = min(max(along / spread, _SCALE[0]), _SCALE[1])
        shift = to - scale * from_
    square = ((moved - scale * apart - shift) ** 2).sum(axis=1)
    return float(weight[square < tolerance ** 2].sum())


class PartFinder:
    """
    Finds the parts of an image by several means, the KINDS: independent ones fail independently.

    Cells of a grid of middle size, which know what things are and stand seasons; features of a
    network; and SIFT's, which know small detail and tell apart what is alike by design.
    """

    def __init__(self, grid: GridNetwork, extractors: Sequence[Extractor]) -> None:
        self._grid, self._extractors = grid, extractors
        row, column = np.divmod(np.arange(grid.rows * grid.columns), grid.columns)
        self._cells = np.stack([(column + 0.5) / grid.columns, (row + 0.5) / grid.rows],
                               axis=1).astype(np.float32)

    def find(self, rgb: NDArray[np.uint8]) -> tuple[Parts, ...]:
        """Return the parts of an image uint8 (H,W,3) RGB, of each kind."""
        grid = self._grid.extract(rgb)
        grid -= grid.mean(axis=0)  # what the whole image has in common: season, light
        grid /= np.maximum(np.linalg.norm(grid, axis=1, keepdims=True), 1e-6)
        height, width = max(1, round(rgb.shape[0] * _WIDTH / rgb.shape[1])), _WIDTH
        small = images.resize(rgb, height, width)
        return (Parts(self._cells, grid, _CELL_TOLERANCE),
                *(_best(each.extract(small), height, width) for each in self._extractors))


class Verifier:
    """
    Compares an image with those of the places that are most similar to it.

    `image` reads that of a place, uint8 (H,W,3) RGB; the parts of some are kept in memory.
    """

    def __init__(self, place_map: PlaceMap, finder: PartFinder,
                 image: Callable[[int], NDArray[np.uint8]]) -> None:
        sample = np.random.default_rng(0).permutation(len(place_map))[:_SAMPLE]
        self._sample = np.sort(sample)
        self._vectors = place_map.vectors(self._sample)
        self._find = finder.find
        self._of_place = lru_cache(_KEPT)(lambda place: finder.find(image(place)))

    def check(self, rgb: NDArray[np.uint8], query: NDArray[np.float32],
              places: NDArray[np.int64], ratios: Floats) -> tuple[NDArray[np.int64], Floats]:
        """
        Return the order of places (k,) and their likelihood ratios, with what the image adds.

        `query` (D,) is its descriptor as it was looked up, `ratios` (k,) are those by similarity,
        best first. The first CHECKED are compared, and ordered anew; the others stay behind them.
        A map of few places has none to compare with, and nothing is changed.
        """
        order = np.arange(len(places))
        if len(self._sample) < _FEWEST:
            return order, ratios
        own = self._find(rgb)
        usual = self._sample[np.argsort(self._vectors @ query, kind='stable')[:_USUAL]]
        chosen = places[:CHECKED]
        seen, expected = (np.array([[agreement(*pair) for pair in zip(
            own, self._of_place(int(place)), strict=True)] for place in some])
            for some in (chosen, usual))
        ratios = ratios.copy()
        ratios[:CHECKED] *= evidence(seen, expected)
        order[:CHECKED] = np.argsort(-ratios[:CHECKED], kind='stable')
        return order, ratios[order]


def evidence(seen: Floats, usual: Floats) -> Floats:
    """
    Return p(seen | this place) / p(seen | another place) for the agreement (n,KINDS) with places.

    `usual` (m,KINDS) is that with places that are surely others.
    """
    return product(excess(seen, usual) * _SLOPES + _OFFSETS, _TEMPER)


def excess(seen: Floats, usual: Floats) -> Floats:
    """
    Return the logarithm (n,KINDS) of how much more agrees than usual.

    It is not how much does that counts: of images of little detail not much does.
    """
    return np.asarray(np.log(_FLOOR + seen) - np.log(_FLOOR + usual).mean(axis=0))


def product(logs: Floats, power: float) -> Floats:
    """Return the likelihood ratios (n,) of all kinds together, to a power, from logs (n,KINDS)."""
    ratios = np.exp(np.minimum(logs, math.log(_LARGEST)))
    return np.asarray(np.prod(_BLIND + (1 - _BLIND) * ratios, axis=1) ** power)


def _best(found: Features, height: int, width: int) -> Parts:
    best = np.argsort(-found.scores, kind='stable')[:_MOST]
    shares = (found.keypoints[best] + 0.5) / (width, height)
    return Parts(shares.astype(np.float32), found.descriptors[best], _FEATURE_TOLERANCE)
