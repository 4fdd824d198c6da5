"""Positions on the WGS 84 ellipsoid as metres east, north and up of a datum."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_EQUATOR = 6_378_137.0            # m
_FLATTENING = 1 / 298.257223563


class Datum(NamedTuple):
    """The origin of a local frame: degrees north and east, metres above the ellipsoid."""

    latitude: float
    longitude: float
    altitude: float

    @classmethod
    def from_dict(cls, raw: Any) -> Datum:
        """Return what map.yaml holds; raise KeyError or ValueError for what is none."""
        raw = fields.mapping(raw, 'datum', cls._fields)
        return cls(fields.number(raw['latitude'], 'latitude', -90, 90),
                   fields.number(raw['longitude'], 'longitude', -360, 360),
                   fields.number(raw['altitude'], 'altitude', -1e5, 1e5))


def local(latitude: Floats, longitude: Floats, altitude: Floats, datum: Datum) -> Floats:
    """Return positions (N,3) in metres east, north, up of a datum; from degrees and metres."""
    offset = (_earth_centred(latitude, longitude, altitude)
              - _earth_centred(*map(np.array, datum)))
    return np.asarray(offset @ _east_north_up(datum))


def moved(positions: Floats, old: Datum, new: Datum) -> Floats:
    """Return local positions (N,3) of one datum as those of another."""
    centred = positions @ _east_north_up(old).T + _earth_centred(*map(np.array, old))
    return np.asarray((centred - _earth_centred(*map(np.array, new))) @ _east_north_up(new))


def _earth_centred(latitude: Floats, longitude: Floats, altitude: Floats) -> Floats:
    """Return earth-centred, earth-fixed positions (...,3) in metres."""
    north, east = np.radians(latitude), np.radians(longitude)
    eccentricity = _FLATTENING * (2 - _FLATTENING)
    radius = _EQUATOR / np.sqrt(1 - eccentricity * np.sin(north) ** 2)
    return np.stack([(radius + altitude) * np.cos(north) * np.cos(east),
                     (radius + altitude) * np.cos(north) * np.sin(east),
                     (radius * (1 - eccentricity) + altitude) * np.sin(north)], axis=-1)


def _east_north_up(datum: Datum) -> Floats:
    """Return the axes of a local frame as the columns (3,3) of a matrix, earth-centred."""
    (s, c), (u, v) = ((np.sin(a), np.cos(a)) for a in np.radians(datum[:2]))
    return np.array([[-u, -s * v, c * v], [v, -s * u, c * u], [0, c, s]])
