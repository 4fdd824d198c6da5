"""
What a town is made of: streets, houses and their designs, fixtures, garden boundaries.

Data in metres of the map frame. Where they stand is decided in lots.py and town.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANE = 1.75              # m from the centre line to the middle of a lane
CARRIAGEWAY = 6.0        # m from the centre line to the kerb: a lane and a parking strip
PAVEMENT_EDGE = 8.5      # m from the centre line to the lots


@dataclass(frozen=True)
class Design:
    """A kind of house, of which the town has many."""

    name: str
    widths: tuple[float, ...]
    storeys: int
    roof: str            # 'ridge' along the street, 'gable' facing the street, 'flat'
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


@dataclass(frozen=True)
class Street:
    """A straight street between two intersections."""

    start: NDArray[np.float64]          # (2,)
    end: NDArray[np.float64]            # (2,)
    zebra_crossings: tuple[bool, bool]  # whether there is one at its start, and at its end

    @property
    def length(self) -> float:
        """Return the length in m."""
        return float(np.linalg.norm(self.end - self.start))


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

    def ground_point(self, right: float, back: float) -> NDArray[np.float64]:
        """Return the (2,) ground position `right` m of the corner and `back` m behind it."""
        return self.corner + right * self.along + back * np.array([-self.along[1], self.along[0]])

    def footprint(self) -> NDArray[np.float64]:
        """Return the four corners (4,2) of the house on the ground."""
        return np.array([self.ground_point(0, 0), self.ground_point(self.width, 0),
                         self.ground_point(self.width, self.depth),
                         self.ground_point(0, self.depth)])


@dataclass(frozen=True)
class Fixture:
    """A tree, a lamp, a road sign, a billboard or a parking space, at a fixed position."""

    kind: str                     # 'tree', 'lamp', 'sign', 'billboard', 'parking'
    number: int
    position: NDArray[np.float64]  # (2,)
    heading: float                # rad
    size: float                   # m, the height; 0 for a parking space


@dataclass(frozen=True)
class Boundary:
    """A hedge, fence or wall between two ground points (2,)."""

    kind: str
    number: int
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    height: float
