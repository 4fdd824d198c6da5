"""
Landmarks of a map: points in its frame with descriptors, by the place from whose image they are.

They are made in offline/triangulate.py and used in localization/refine.py.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple
from typing import Protocol
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import fields
from vpr_ros.core.errors import MapError
from vpr_ros.core.poses import FARTHEST
from vpr_ros.maps.arrays import row_file_bytes
from vpr_ros.maps.arrays import RowFile
from vpr_ros.maps.arrays import save_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.maps.arrays import Rows

    Floats = NDArray[np.float64]

POINTS, DESCRIPTORS = 'landmark_points.npy', 'landmark_descriptors.npy'
BYTES_PER_PLACE = 16 << 10

_POINT_BYTES = 12
_WIDEST = 1 << 12  # dimensions of a descriptor
_MOST = 1 << 34
_UNIT = 127  # of a descriptor of length 1, in int8


def per_place(dimension: int) -> int:
    """Return the largest number of landmarks of a place, with descriptors of D dimensions."""
    return BYTES_PER_PLACE // (dimension + _POINT_BYTES)


@dataclass(frozen=True)
class LandmarkIdentity:
    """What map.yaml keeps: what found the features ('sift' or a SHA-256), D, M, the origin."""

    features: str
    dimension: int
    count: int
    origin: tuple[float, ...]

    @classmethod
    def from_dict(cls, raw: Any) -> LandmarkIdentity:
        """Return what map.yaml holds; raise KeyError or ValueError for what is none."""
        raw = fields.mapping(raw, 'landmarks', cls.__annotations__)
        origin = fields.numbers(raw['origin'], 'origin', 3, FARTHEST)
        if len(origin) != 3:
            raise ValueError(f'origin has {len(origin)} numbers, not 3')
        return cls(fields.text(raw['features'], 'features', 64),
                   fields.integer(raw['dimension'], 'dimension', 1, _WIDEST),
                   fields.integer(raw['count'], 'count', 0, _MOST), origin)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), 'origin': list(self.origin)}

    def check(self, features: str) -> None:
        """Raise MapError unless the landmarks are of the features with this digest."""
        if self.features != features:
            raise MapError(f"the landmarks of the map are of the features '{self.features[:12]}', "
                           f"not '{features[:12]}': name their network (features), do not refine "
                           'poses, or build the map again')

    @property
    def layouts(self) -> dict[str, Rows]:
        """Return the layout of each file."""
        return {POINTS: (np.float32, (self.count, 3)),
                DESCRIPTORS: (np.int8, (self.count, self.dimension))}

    def file_bytes(self) -> dict[str, int]:
        """Return a bound for the size of each file."""
        return {name: row_file_bytes(layout) for name, layout in self.layouts.items()}


@dataclass(frozen=True)
class Landmarks:
    """
    M landmarks of N places: those of place n have the numbers from starts[n] to starts[n + 1].

    starts int64 (N+1,); points float32 (M,3) in metres from the identity's origin; descriptors
    int8 (M,D), of which 127 is a length of 1. Both may stay on disk. errors float32 (N,) are the
    medians of the reprojection errors that the mapping poses leave at each place, in rad, 0
    without landmarks; None where they were not kept.
    """

    identity: LandmarkIdentity
    starts: NDArray[np.int64]
    points: NDArray[np.float32] | RowFile
    descriptors: NDArray[np.int8] | RowFile
    errors: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, features: str, points: Sequence[Floats], descriptors: Sequence[NDArray[np.int8]],
           errors: Sequence[float] | None = None) -> Landmarks:
        """
        Return the landmarks of N places: points (L,3) in the map's frame, descriptors (L,D).

        errors (N,) are their reprojection errors in rad.
        """
        starts = np.concatenate([[0], np.cumsum([len(each) for each in points])])
        every = np.concatenate(points)
        origin = np.rint(every.mean(axis=0)) if len(every) else np.zeros(3)
        joined = np.concatenate(descriptors)
        identity = LandmarkIdentity(features, joined.shape[1], len(every), tuple(origin.tolist()))
        return cls(identity, starts.astype(np.int64), (every - origin).astype(np.float32), joined,
                   None if errors is None else np.array(errors, np.float32))

    def of_place(self, place: int) -> tuple[Floats, NDArray[np.float32]]:
        """
        Return a place's points float64 (L,3) in the map's frame and descriptors float32 (L,D).

        Those of a map from somebody else that are not finite are left out. Raises MapError when
        the files were cut while they are in use.
        """
        own = slice(int(self.starts[place]), int(self.starts[place + 1]))
        points = self.points[own].astype(np.float64)
        usable = (np.abs(points) < FARTHEST).all(axis=1)
        descriptors = self.descriptors[own][usable].astype(np.float32) / np.float32(_UNIT)
        return points[usable] + self.identity.origin, descriptors

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return how many landmarks each place has (N,)."""
        return np.diff(self.starts)

    def some(self, most: int) -> Floats:
        """Return at most so many points float64 (L,3) in the map's frame, evenly chosen."""
        count = self.identity.count
        points = self.points[np.arange(0, count, max(1, -(-count // most)))].astype(np.float64)
        return points[(np.abs(points) < FARTHEST).all(axis=1)] + self.identity.origin

    def save(self, directory: Path) -> None:
        """Write the files of points and descriptors; `starts` is the map's to keep."""
        layouts = self.identity.layouts
        save_rows(self.points, directory / POINTS, layouts[POINTS])
        save_rows(self.descriptors, directory / DESCRIPTORS, layouts[DESCRIPTORS])

    @classmethod
    def opened(cls, directory: Path, identity: LandmarkIdentity, starts: NDArray[np.int64],
               errors: NDArray[np.float32] | None = None) -> Landmarks:
        """Return the landmarks in a directory; raise ValueError where they are not as they say."""
        counts = np.diff(starts)
        if starts[0] != 0 or starts[-1] != identity.count or (counts < 0).any() \
                or (counts > per_place(identity.dimension)).any():
            raise ValueError('the landmarks of its places are not those of its files')
        points, descriptors = (RowFile(directory / name, layout)
                               for name, layout in identity.layouts.items())
        return cls(identity, starts, points, descriptors, errors)


class Landmarked(Protocol):
    """Places with poses float64 (N,7), and perhaps with landmarks: a PlaceMap, or less."""

    @property
    def poses(self) -> Floats:
        """Return the poses."""

    @property
    def landmarks(self) -> Landmarks | None:
        """Return the landmarks; None without."""


class LandmarkedPlaces(NamedTuple):
    """What refinement needs of a map: it can be sent to another process."""

    poses: Floats
    landmarks: Landmarks | None


def quantised(descriptors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return descriptors float32 (K,D) of unit norm in int8."""
    return np.clip(np.rint(_UNIT * descriptors), -_UNIT, _UNIT).astype(np.int8)
