"""
The town: a grid of streets, what lines them, and the routes through them, from a seed.

Geometry and identity only, the same under every condition. How things look is drawn elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.street.elements import LANE
from vpr_ros.street.elements import PAVEMENT_EDGE
from vpr_ros.street.elements import Street
from vpr_ros.street.lots import StreetSide
from vpr_ros.street.lots import THEMES
from vpr_ros.street.route import lane_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.street.elements import Boundary
    from vpr_ros.street.elements import Fixture
    from vpr_ros.street.elements import House

    Node = tuple[int, int]
    """An intersection: its column and its row."""

COLUMNS = 5
ROWS = 3
SPACING = (74.0, 96.0)   # m between parallel streets
CORNER_LOT = 22.5        # m that the lots of a street along y leave to those along x

# Closed tours over 3 x 3 intersections: an L, with turns both ways and some driven straight on.
_L_TOUR = ((0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 1))
_OTHER = ((3, 0), (4, 0), (4, 1), (4, 2), (3, 2))


class Town:
    """A town grown from `seed`: two towns of one seed are the same, to the last window."""

    def __init__(self, seed: int) -> None:
        self.seed = int(seed)
        rng = np.random.default_rng((self.seed, 1))
        nodes = _intersections(rng)
        self._routes = {
            'main': lane_path(np.array([nodes[node] for node in _tour(rng)]), LANE, closed=True),
            'other': lane_path(np.array([nodes[node] for node in _OTHER]), LANE, closed=False)}
        for path in self._routes.values():
            path.setflags(write=False)
        self.streets: tuple[Street, ...] = ()
        self.houses: tuple[House, ...] = ()
        self.fixtures: tuple[Fixture, ...] = ()
        self.boundaries: tuple[Boundary, ...] = ()
        self._build(nodes, rng)

    def route(self, name: str) -> NDArray[np.float64]:
        """
        Return the middle of the right-hand lane along a route, (M,2) in m, about 0.25 m apart.

        'main' is a closed tour (the last point is one step before the first), 'other' runs through
        streets that 'main' never enters. Raises ValueError naming the routes there are.
        """
        if name not in self._routes:
            raise ValueError(f'unknown route {name!r}: choose one of {", ".join(self._routes)}')
        return self._routes[name]

    def closed(self, name: str) -> bool:
        """Return whether the route ends where it starts."""
        return name == 'main'

    def bounds(self) -> tuple[float, float, float, float]:
        """Return x and y of the lower left, then of the upper right corner of all streets (m)."""
        ends = np.array([[street.start, street.end] for street in self.streets]).reshape(-1, 2)
        low, high = ends.min(axis=0), ends.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def _build(self, nodes: dict[Node, NDArray[np.float64]], rng: np.random.Generator) -> None:
        streets: list[Street] = []
        houses: list[House] = []
        fixtures: list[Fixture] = []
        boundaries: list[Boundary] = []
        sides = list(_sides())
        # Every theme appears before one repeats, so that a tour passes through all of them.
        themes = [theme for _ in range(len(sides) // len(THEMES) + 1)
                  for theme in rng.permutation(len(THEMES))]
        church = int(rng.integers(0, len(sides)))
        for index, (first, second, left) in enumerate(sides):
            start, end = nodes[first], nodes[second]
            if left:
                streets.append(Street(start, end, (bool(rng.random() < 0.5),
                                                   bool(rng.random() < 0.5))))
            along_x = first[1] == second[1]
            side = StreetSide(start, end, left=left, margins=(
                _margin(first, along_x, left, False), _margin(second, along_x, left, True)))
            theme = THEMES[themes[index]]
            houses += side.houses(theme, rng, len(houses), church=index == church)
            boundaries += side.boundaries(theme, rng, len(boundaries))
            fixtures += side.fixtures(theme, rng, len(fixtures))
        self.streets = tuple(streets)
        self.houses = tuple(houses)
        self.fixtures = tuple(fixtures)
        self.boundaries = tuple(boundaries)


def _intersections(rng: np.random.Generator) -> dict[Node, NDArray[np.float64]]:
    xs = np.concatenate([[0.0], np.cumsum(rng.uniform(*SPACING, COLUMNS - 1))])
    ys = np.concatenate([[0.0], np.cumsum(rng.uniform(*SPACING, ROWS - 1))])
    angle = rng.uniform(-math.pi, math.pi)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return {(i, j): rotation @ (np.array([xs[i], ys[j]]) + rng.uniform(-3.0, 3.0, 2))
            for i in range(COLUMNS) for j in range(ROWS)}


def _tour(rng: np.random.Generator) -> list[Node]:
    mirror_x, mirror_y, backwards = rng.random(3) < 0.5
    tour = [(2 - i if mirror_x else i, 2 - j if mirror_y else j) for i, j in _L_TOUR]
    return tour[::-1] if backwards else tour


def _sides() -> Iterator[tuple[Node, Node, bool]]:
    """Yield (intersection, next intersection, left side?) for both sides of every street."""
    for j in range(ROWS):
        for i in range(COLUMNS):
            for second in ((i + 1, j), (i, j + 1)):
                if second[0] < COLUMNS and second[1] < ROWS:
                    yield (i, j), second, True
                    yield (i, j), second, False


def _margin(node: Node, along_x: bool, left: bool, forward: bool) -> float:
    """Return the metres from an intersection to the first lot on one side of its street."""
    i, j = node
    if along_x:
        crossed = (j < ROWS - 1) if left else (j > 0)
        continues = (i < COLUMNS - 1) if forward else (i > 0)
    else:
        crossed = (i > 0) if left else (i < COLUMNS - 1)
        continues = (j < ROWS - 1) if forward else (j > 0)
    if crossed:
        return PAVEMENT_EDGE + 0.5 if along_x else CORNER_LOT
    return 0.5 if continues else -PAVEMENT_EDGE
