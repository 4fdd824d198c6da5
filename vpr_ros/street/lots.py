"""
One side of a street, filled according to a theme: houses, garden boundaries and fixtures.

What these are is in elements.py; which streets there are, in town.py.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.street.elements import Boundary
from vpr_ros.street.elements import Design
from vpr_ros.street.elements import DESIGNS
from vpr_ros.street.elements import Fixture
from vpr_ros.street.elements import House
from vpr_ros.street.elements import PAVEMENT_EDGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Placement = tuple[str, float, float, float]
    """Kind of a fixture, metres along the street and out from its centre line, and its size."""

_CHURCH_WIDTH, _CHURCH_GAP = 13.0, 6.0


@dataclass(frozen=True)
class Theme:
    """How one side of a street is built; lengths in m."""

    name: str
    designs: tuple[tuple[str, int], ...]    # names of DESIGNS, with their weights
    gap: float                              # between houses
    setback: float                          # depth of the front gardens
    tree_spacing: float                     # between street trees; 0: there are none
    boundary: str                           # of the gardens: 'hedge', 'fence', 'wall', 'none'


THEMES = (
    Theme('terraces', (('terrace', 9), ('brickshop', 1)), 0.0, 0.0, 0.0, 'none'),
    Theme('leafy terraces', (('terrace', 6), ('townhouse', 2)), 0.0, 2.0, 13.0, 'wall'),
    Theme('townhouses', (('townhouse', 7), ('shop', 2)), 0.0, 0.0, 17.0, 'none'),
    Theme('villas', (('villa', 6), ('framed', 2)), 4.5, 3.0, 0.0, 'hedge'),
    Theme('cottages', (('cottage', 7), ('framed', 1)), 3.5, 2.5, 0.0, 'fence'),
    Theme('shops', (('shop', 6), ('brickshop', 4), ('townhouse', 2)), 0.0, 0.0, 0.0, 'none'),
    Theme('flats', (('flats', 5), ('townhouse', 1)), 5.0, 2.5, 15.0, 'hedge'),
    Theme('works', (('works', 3), ('terrace', 3)), 2.0, 0.0, 0.0, 'none'),
    Theme('park', (), 0.0, 0.0, 12.0, 'fence'),
)


class StreetSide:
    """One side of a street from `start` to `end` (2,), with free `margins` (m) at its ends."""

    def __init__(self, start: NDArray[np.float64], end: NDArray[np.float64], *, left: bool,
                 margins: tuple[float, float]) -> None:
        self._start = start
        self._left = left
        self._length = float(np.linalg.norm(end - start))
        self._direction = (end - start) / self._length
        self._outward = np.array([-self._direction[1], self._direction[0]]) \
            * (1.0 if left else -1.0)
        self._low, self._high = margins[0], self._length - margins[1]

    def houses(self, theme: Theme, rng: np.random.Generator, number: int, *,
               church: bool) -> list[House]:
        """Return a row of houses, numbered from `number` on; one is a church if asked for."""
        row, spare = self._row(theme, rng, church=church)
        rng.shuffle(row)  # type: ignore[arg-type]
        favourite = int(rng.integers(0, 4))
        stretch = max(spare, 0.0) / max(len(row), 1)
        houses: list[House] = []
        cursor = self._low
        for design, narrowest, space in row:
            width = narrowest + stretch * 0.6
            pick = favourite if rng.random() < 0.6 else int(rng.integers(0, 4))
            storeys = design.storeys + (design.name in ('townhouse', 'flats', 'shop')
                                        and rng.random() < 0.3)
            depth = min(9.0, 6.5 + 0.3 * width)
            height = 3.0 * storeys + 0.7 + (3.5 if design.name == 'church' else 0.0)
            rise = {'flat': 0.0, 'ridge': 0.45 * depth, 'gable': 0.42 * width}[design.roof]
            ends = self._at(cursor, PAVEMENT_EDGE + theme.setback), \
                self._at(cursor + width, PAVEMENT_EDGE + theme.setback)
            left_end, right_end = ends if self._left else ends[::-1]
            houses.append(House(number + len(houses), design, left_end,
                                (right_end - left_end) / width, width, depth, height, rise,
                                design.colours[pick % len(design.colours)]))
            cursor += width + space + stretch * 0.4
        return houses

    def boundaries(self, theme: Theme, rng: np.random.Generator, number: int) -> list[Boundary]:
        """Return the pieces of the gardens' boundary, numbered from `number` on."""
        kind = theme.boundary
        if kind == 'none':
            return []
        pieces: list[Boundary] = []
        height = {'hedge': 1.1, 'fence': 0.9, 'wall': 0.7}[kind] * float(rng.uniform(0.9, 1.3))
        cursor = self._low
        while cursor < self._high - 3.0:
            width = min(float(rng.uniform(5.0, 9.0)), self._high - cursor)
            pieces.append(Boundary(
                kind, number + len(pieces), self._at(cursor, PAVEMENT_EDGE + 0.1),
                self._at(cursor + width, PAVEMENT_EDGE + 0.1), height))
            cursor += width + float(rng.choice([0.0, 1.2, 3.2], p=[0.3, 0.5, 0.2]))
        return pieces

    def fixtures(self, theme: Theme, rng: np.random.Generator, number: int) -> list[Fixture]:
        """Return trees, lamps, signs, billboards and parking spaces, numbered from `number` on."""
        heading = math.atan2(self._direction[1], self._direction[0])
        if self._left:
            heading += math.pi
        placements = [*self._trees(theme, rng), *self._furniture(rng), *self._parking(rng)]
        return [Fixture(kind, number + index, self._at(along, out), heading, size)
                for index, (kind, along, out, size) in enumerate(placements)]

    def _at(self, along: float, out: float) -> NDArray[np.float64]:
        return self._start + along * self._direction + out * self._outward

    def _row(self, theme: Theme, rng: np.random.Generator, *, church: bool
             ) -> tuple[list[tuple[Design, float, float]], float]:
        """Return designs with width and gap that fit into the lots, and the metres to spare."""
        row: list[tuple[Design, float, float]] = []
        weights = np.array([weight for _, weight in theme.designs], float)
        room = self._high - self._low
        if church:
            row.append((DESIGNS['church'], _CHURCH_WIDTH, _CHURCH_GAP))
            room -= _CHURCH_WIDTH + _CHURCH_GAP
        while theme.designs:
            drawn = int(rng.choice(len(weights), p=weights / weights.sum()))
            design = DESIGNS[theme.designs[drawn][0]]
            width = float(rng.choice(design.widths))
            if width > room:
                break
            space = theme.gap * float(rng.uniform(0.7, 1.5))
            row.append((design, width, space))
            room -= width + space
        return row, room

    def _clear_of_intersections(self) -> tuple[float, float]:
        return max(self._low, 11.0), min(self._high, self._length - 11.0)

    def _trees(self, theme: Theme, rng: np.random.Generator) -> Iterator[Placement]:
        low, high = self._clear_of_intersections()
        if theme.tree_spacing:
            for along in np.arange(low + rng.uniform(0, 4), high, theme.tree_spacing):
                yield 'tree', along + rng.uniform(-1, 1), 7.2, rng.uniform(5.0, 8.5)
        if theme.setback >= 2.0:
            for along in np.arange(low, high, 11.0):
                if rng.random() < 0.45:
                    yield 'tree', along + rng.uniform(-3, 3), 9.6, rng.uniform(3.0, 5.5)
        count, out = (26, (10.0, 34.0)) if theme.name == 'park' else (4, (20.0, 26.0))
        for _ in range(count):
            yield ('tree', rng.uniform(self._low, self._high), rng.uniform(*out),
                   rng.uniform(6.0, 11.0))

    def _furniture(self, rng: np.random.Generator) -> Iterator[Placement]:
        low, high = self._clear_of_intersections()
        for along in np.arange(low + (3.0 if self._left else 16.0), high, 27.0):
            yield 'lamp', along, 6.6, 6.2
        if rng.random() < 0.7:
            along = self._low if self._low > 0 else 11.0
            yield 'sign', max(along, 10.0) + rng.uniform(0, 2), 6.5, 2.6
        for along in np.arange(rng.uniform(5, 20), high, 31.0):
            if along > low and rng.random() < 0.35:
                yield 'billboard', along, 8.1, 3.0

    def _parking(self, rng: np.random.Generator) -> Iterator[Placement]:
        if rng.random() < 0.8:
            for along in np.arange(max(self._low, 15.0), min(self._high, self._length - 15.0),
                                   6.2):
                yield 'parking', along + 2.5, 5.05, 0.0
