"""The pose of a robot that is near some places, and how uncertain that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.core import uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_NEGLIGIBLE = 1e-9


def mean_pose(places: Floats, probability: Floats, spacing: float,
              deviation: tuple[float, float, float]) -> tuple[Floats, Floats]:
    """
    Return the mean (7,) and covariance (6,6) of poses (m,7) by their probability (m,).

    To the spread of the places are added the map's grid, `spacing` metres, and how far robots
    drive beside their old track (`Calibration.deviation`).
    """
    pose = poses.mean(places, probability)
    return pose, (uncertainty.covariance(places, probability, pose, np.zeros(6))
                  + _beside(pose, spacing, deviation))


def _beside(pose: Floats, spacing: float, deviation: tuple[float, float, float]) -> Floats:
    """Return the covariance (6,6) of a robot that is at a place, but not exactly there."""
    ahead, aside, turn = np.square(deviation)
    grid = spacing ** 2 / 12
    yaw = float(poses.heading(pose))
    axes = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    covariance = np.diag([grid + ahead, grid + aside, grid + 0.1 ** 2, turn, turn, turn])
    plane = axes @ np.diag([grid + ahead, aside + 1e-4]) @ axes.T
    plane[0, 1] = plane[1, 0] = plane[0, 1] if abs(plane[0, 1]) > _NEGLIGIBLE else 0.0
    covariance[:2, :2] = plane
    return covariance
