"""
The town: streets, houses, trees, lamps and the routes through them, from a seed.

Geometry and identity only, the same under every condition. How things look is drawn elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.street.route import lane_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

COLUMNS = 5
ROWS = 3
SPACING = (74.0, 96.0)   # m between parallel streets
LANE = 1.75              # m from the centre line to the middle of a lane
CARRIAGEWAY = 6.0        # m from the centre line to the kerb: a lane and a parking strip
PAVEMENT_EDGE = 8.5      # m from the centre line to the lots
CORNER_LOT = 22.5        # m that the lots of a street along y leave to those along x

# Closed tours over 3 x 3 crossings: an L, with turns both ways and crossings driven straight on.
_L_TOUR = ((0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 1))
_OTHER = ((3, 0), (4, 0), (4, 1), (4, 2), (3, 2))


@dataclass(frozen=True)
class Design:
    """A kind of house, of which the town repeats many."""

    name: str
    widths: tuple[float, ...]
    storeys: int
    roof: str            # 'ridge' along the street, 'gable' to the street, 'flat'
    wall: str            # 'brick', 'plaster', 'boards', 'concrete', 'timber'
    colours: tuple[tuple[int, int, int], ...]
    windows: str         # 'sash', 'cross', 'wide', 'shutter'
    ground_floor: str    # 'door', 'shop', 'gate'
    window_pitch: float  # m per window axis


DESIGNS = {design.name: design for design in (
    Design('terrace', (6.5, 7.5), 2, 'ridge', 'brick',
           ((150, 82, 62), (164, 98, 74), (132, 74, 62)), 'sash', 'door', 2.5),
    Design('townhouse', (7.5, 9.0), 3, 'flat', 'plaster',
           ((216, 196, 152), (196, 208, 204), (222, 178, 150), (212, 212, 204)),
           'cross', 'door', 2.4),
    Design('villa', (9.0, 10.5), 2, 'gable', 'plaster',
           ((228, 222, 206), (214, 204, 170), (190, 204, 188)), 'shutter', 'door', 3.1),
    Design('cottage', (7.5, 8.5), 1, 'gable', 'boards',
           ((158, 64, 52), (202, 180, 110), (110, 140, 156), (196, 200, 196)),
           'cross', 'door', 2.6),
    Design('flats', (15.0, 18.0), 4, 'flat', 'concrete',
           ((186, 182, 174), (170, 160, 146)), 'wide', 'door', 3.6),
    Design('shop', (8.0, 10.0), 3, 'ridge', 'plaster',
           ((206, 182, 160), (186, 170, 180), (220, 210, 186)), 'sash', 'shop', 2.4),
    Design('brickshop', (8.0, 9.5), 2, 'flat', 'brick',
           ((142, 84, 66), (120, 92, 82)), 'sash', 'shop', 2.5),
    Design('framed', (8.0, 9.0), 2, 'gable', 'timber',
           ((226, 216, 196), (214, 196, 160)), 'cross', 'door', 2.5),
    Design('works', (16.0, 20.0), 2, 'ridge', 'brick',
           ((128, 88, 76), (112, 106, 100)), 'wide', 'gate', 4.4),
    Design('church', (13.0,), 3, 'gable', 'plaster', ((206, 198, 182),), 'sash', 'gate', 4.0),
)}

# One side of a street: designs by weight, gap between houses and depth of the front garden (m),
# metres between street trees (0: none), and the boundary of the garden.
_THEMES = (
    ('terraces', (('terrace', 9), ('brickshop', 1)), 0.0, 0.0, 0.0, 'none'),
    ('leafy terraces', (('terrace', 6), ('townhouse', 2)), 0.0, 2.0, 13.0, 'wall'),
    ('townhouses', (('townhouse', 7), ('shop', 2)), 0.0, 0.0, 17.0, 'none'),
    ('villas', (('villa', 6), ('framed', 2)), 4.5, 3.0, 0.0, 'hedge'),
    ('cottages', (('cottage', 7), ('framed', 1)), 3.5, 2.5, 0.0, 'fence'),
    ('shops', (('shop', 6), ('brickshop', 4), ('townhouse', 2)), 0.0, 0.0, 0.0, 'none'),
    ('flats', (('flats', 5), ('townhouse', 1)), 5.0, 2.5, 15.0, 'hedge'),
    ('works', (('works', 3), ('terrace', 3)), 2.0, 0.0, 0.0, 'none'),
    ('park', (), 0.0, 0.0, 12.0, 'fence'),
)


@dataclass(frozen=True)
class Street:
    """A straight street between two crossings (map frame, m)."""

    start: NDArray[np.float64]    # (2,)
    end: NDArray[np.float64]      # (2,)
    crossings: tuple[bool, bool]  # whether its ends have zebra crossings


@dataclass(frozen=True)
class House:
    """A house: `corner` is the left end of its front on the ground, seen from the street."""

    number: int
    design: Design
    corner: NDArray[np.float64]   # (2,)
    along: NDArray[np.float64]    # (2,) unit vector along the front, to the right
    width: float
    depth: float
    height: float                 # m to the eaves
    rise: float                   # m from the eaves to the ridge
    colour: tuple[int, int, int]

    def point(self, right: float, back: float) -> NDArray[np.float64]:
        """Return the ground point (2,) that far right of the corner and behind the front."""
        return self.corner + right * self.along + back * np.array([-self.along[1], self.along[0]])

    def footprint(self) -> NDArray[np.float64]:
        """Return the four corners (4,2) of the house on the ground."""
        return np.array([self.point(0, 0), self.point(self.width, 0),
                         self.point(self.width, self.depth), self.point(0, self.depth)])


@dataclass(frozen=True)
class Standing:
    """A thing that stands on a spot: a tree, a lamp, a sign or a place to park."""

    kind: str
    number: int
    place: NDArray[np.float64]    # (2,)
    heading: float                # rad
    size: float                   # m: height of a tree or a lamp


@dataclass(frozen=True)
class Boundary:
    """A hedge, fence or wall between two ground points (2,)."""

    kind: str
    number: int
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    height: float


class Town:
    """A town grown from `seed`: two towns of one seed are the same, to the last window."""

    def __init__(self, seed: int) -> None:
        self.seed = int(seed)
        rng = np.random.default_rng((self.seed, 1))
        nodes = _crossings(rng)
        self._routes = {
            'main': lane_path(np.array([nodes[node] for node in _tour(rng)]), LANE, closed=True),
            'other': lane_path(np.array([nodes[node] for node in _OTHER]), LANE, closed=False)}
        for path in self._routes.values():
            path.setflags(write=False)
        self.streets: tuple[Street, ...] = ()
        self.houses: tuple[House, ...] = ()
        self.standing: tuple[Standing, ...] = ()
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

    def _build(self, nodes: dict[tuple[int, int], NDArray[np.float64]],
               rng: np.random.Generator) -> None:
        streets: list[Street] = []
        houses: list[House] = []
        standing: list[Standing] = []
        boundaries: list[Boundary] = []
        sides = list(_sides())
        # Every theme appears before one repeats, so that a tour passes through all of them.
        themes = [theme for _ in range(len(sides) // len(_THEMES) + 1)
                  for theme in rng.permutation(len(_THEMES))]
        church = int(rng.integers(0, len(sides)))
        for index, (first, second, left) in enumerate(sides):
            start, end = nodes[first], nodes[second]
            if left:
                streets.append(Street(start, end, (bool(rng.random() < 0.5),
                                                   bool(rng.random() < 0.5))))
            side = _Side(start, end, left, first, second)
            theme = _THEMES[themes[index]]
            houses += side.houses(theme, rng, len(houses), church=index == church)
            boundaries += side.boundaries(theme, rng, len(boundaries))
            standing += side.standing(theme, rng, len(standing))
        self.streets = tuple(streets)
        self.houses = tuple(houses)
        self.standing = tuple(standing)
        self.boundaries = tuple(boundaries)


def _crossings(rng: np.random.Generator) -> dict[tuple[int, int], NDArray[np.float64]]:
    xs = np.concatenate([[0.0], np.cumsum(rng.uniform(*SPACING, COLUMNS - 1))])
    ys = np.concatenate([[0.0], np.cumsum(rng.uniform(*SPACING, ROWS - 1))])
    angle = rng.uniform(-math.pi, math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return {(i, j): turn @ (np.array([xs[i], ys[j]]) + rng.uniform(-3.0, 3.0, 2))
            for i in range(COLUMNS) for j in range(ROWS)}


def _tour(rng: np.random.Generator) -> list[tuple[int, int]]:
    mirror_x, mirror_y, backwards = rng.random(3) < 0.5
    tour = [(2 - i if mirror_x else i, 2 - j if mirror_y else j) for i, j in _L_TOUR]
    return tour[::-1] if backwards else tour


def _sides() -> Iterator[tuple[tuple[int, int], tuple[int, int], bool]]:
    """Yield (crossing, next crossing, left side?) for both sides of every street."""
    for j in range(ROWS):
        for i in range(COLUMNS):
            for second in ((i + 1, j), (i, j + 1)):
                if second[0] < COLUMNS and second[1] < ROWS:
                    yield (i, j), second, True
                    yield (i, j), second, False


class _Side:
    """One side of one street: hands out its lots."""

    def __init__(self, start: NDArray[np.float64], end: NDArray[np.float64], left: bool,
                 first: tuple[int, int], second: tuple[int, int]) -> None:
        length = float(np.linalg.norm(end - start))
        direction = (end - start) / length
        outward = np.array([-direction[1], direction[0]]) * (1.0 if left else -1.0)
        along_x = first[1] == second[1]
        margins = [_margin(node, along_x, left, forward)
                   for node, forward in ((first, False), (second, True))]
        self.start = start
        self.direction = direction
        self.outward = outward
        self.left = left
        self.length = length
        self.low, self.high = margins[0], length - margins[1]

    def at(self, along: float, out: float) -> NDArray[np.float64]:
        return self.start + along * self.direction + out * self.outward

    def houses(self, theme: tuple, rng: np.random.Generator, number: int, *,
               church: bool) -> list[House]:
        _, designs, gap, setback, _, _ = theme
        built: list[House] = []
        row: list[tuple[Design, float, float]] = []
        weights = np.array([weight for _, weight in designs], float)
        room = self.high - self.low
        if church:
            row.append((DESIGNS['church'], 13.0, 6.0))
            room -= 19.0
        while designs:
            design = DESIGNS[designs[int(rng.choice(len(designs), p=weights / weights.sum()))][0]]
            width = float(rng.choice(design.widths))
            if width > room:
                break
            space = gap * float(rng.uniform(0.7, 1.5))
            row.append((design, width, space))
            room -= width + space
        rng.shuffle(row)  # type: ignore[arg-type]
        favourite = int(rng.integers(0, 4))
        stretch = max(room, 0.0) / max(len(row), 1)
        cursor = self.low
        for design, width, space in row:
            width += stretch * 0.6
            pick = favourite if rng.random() < 0.6 else int(rng.integers(0, 4))
            storeys = design.storeys + (design.name in ('townhouse', 'flats', 'shop')
                                        and rng.random() < 0.3)
            depth = min(9.0, 6.5 + 0.3 * width)
            height = 3.0 * storeys + 0.7 + (3.5 if design.name == 'church' else 0.0)
            rise = {'flat': 0.0, 'ridge': 0.45 * depth, 'gable': 0.42 * width}[design.roof]
            ends = self.at(cursor, PAVEMENT_EDGE + setback), \
                self.at(cursor + width, PAVEMENT_EDGE + setback)
            left_end, right_end = ends if self.left else ends[::-1]
            built.append(House(number + len(built), design, left_end,
                               (right_end - left_end) / width, width, depth, height, rise,
                               design.colours[pick % len(design.colours)]))
            cursor += width + space + stretch * 0.4
        return built

    def boundaries(self, theme: tuple, rng: np.random.Generator, number: int) -> list[Boundary]:
        kind = theme[5]
        if kind == 'none':
            return []
        built: list[Boundary] = []
        height = {'hedge': 1.1, 'fence': 0.9, 'wall': 0.7}[kind] * float(rng.uniform(0.9, 1.3))
        cursor = self.low
        while cursor < self.high - 3.0:
            width = min(float(rng.uniform(5.0, 9.0)), self.high - cursor)
            built.append(Boundary(kind, number + len(built), self.at(cursor, PAVEMENT_EDGE + 0.1),
                                  self.at(cursor + width, PAVEMENT_EDGE + 0.1), height))
            cursor += width + float(rng.choice([0.0, 1.2, 3.2], p=[0.3, 0.5, 0.2]))
        return built

    def standing(self, theme: tuple, rng: np.random.Generator, number: int) -> list[Standing]:
        heading = math.atan2(self.direction[1], self.direction[0])
        if self.left:
            heading += math.pi
        built: list[Standing] = []

        def put(kind: str, along: float, out: float, size: float) -> None:
            built.append(Standing(kind, number + len(built), self.at(along, out), heading, size))

        name, _, _, setback, tree_gap, _ = theme
        low, high = max(self.low, 11.0), min(self.high, self.length - 11.0)
        if tree_gap:
            for along in np.arange(low + rng.uniform(0, 4), high, tree_gap):
                put('tree', along + rng.uniform(-1, 1), 7.2, rng.uniform(5.0, 8.5))
        if setback >= 2.0:
            for along in np.arange(low, high, 11.0):
                if rng.random() < 0.45:
                    put('tree', along + rng.uniform(-3, 3), 9.6, rng.uniform(3.0, 5.5))
        for _ in range(26 if name == 'park' else 4):
            put('tree', rng.uniform(self.low, self.high),
                rng.uniform(10.0, 34.0) if name == 'park' else rng.uniform(20.0, 26.0),
                rng.uniform(6.0, 11.0))
        for along in np.arange(low + (3.0 if self.left else 16.0), high, 27.0):
            put('lamp', along, 6.6, 6.2)
        for along in (self.low if self.low > 0 else 11.0, ):
            if rng.random() < 0.7:
                put('sign', max(along, 10.0) + rng.uniform(0, 2), 6.5, 2.6)
        for along in np.arange(rng.uniform(5, 20), high, 31.0):
            if along > low and rng.random() < 0.35:
                put('board', along, 8.1, 3.0)
        if rng.random() < 0.8:
            for along in np.arange(max(self.low, 15.0), min(self.high, self.length - 15.0), 6.2):
                put('parking', along + 2.5, 5.05, 0.0)
        return built


def _margin(node: tuple[int, int], along_x: bool, left: bool, forward: bool) -> float:
    """Return the metres from a crossing to the first lot on one side of one of its streets."""
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
