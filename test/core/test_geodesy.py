"""Local metres from latitude and longitude."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.core import geodesy
from vpr_ros.core.geodesy import Datum


@pytest.mark.parametrize(('latitude', 'north', 'east'), [
    # metres in a degree of latitude and of longitude on WGS 84, from published tables
    (0.0, 110_574, 111_320), (45.0, 111_132, 78_847), (-60.0, 111_412, 55_800)])
def test_degrees_become_metres(latitude, north, east):
    step = 1e-3
    positions = geodesy.local(np.array([latitude + step, latitude, latitude]),
                              np.array([11.0, 11.0 + step, 11.0]), np.array([0.0, 0, 7]),
                              Datum(latitude, 11.0, 0.0))
    np.testing.assert_allclose(positions, [[0, north * step, 0], [east * step, 0, 0], [0, 0, 7]],
                               atol=0.02)


def test_another_datum_moves_the_same_places():
    old, new = Datum(48.13, 11.57, 520.0), Datum(48.14, 11.55, 500.0)
    place = [np.array([48.135, 48.131]), np.array([11.56, 11.58]), np.array([530.0, 510.0])]
    np.testing.assert_allclose(geodesy.moved(geodesy.local(*place, old), old, new),
                               geodesy.local(*place, new), atol=1e-6)
