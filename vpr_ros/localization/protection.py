"""The protection level: how far from an estimate the truth may be, but for one frame in 1000."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHARE = 0.999
"""How often the truth is within the protection level."""

_SIGMAS = 3.3
"""Standard deviations within which a robot is from its place, with that probability."""


def protection_level(pose: Floats, places: Floats, probability: Floats,
                     confidence: Callable[[Floats], Floats],
                     deviation: tuple[float, float, float]) -> float:
    """
    Return the radius in metres round a pose (7,) that holds the truth with a probability of SHARE.

    `confidence` is the probability of being right within a radius, given what the belief holds
    there; this is the radius at which it is SHARE. It reaches to as many of the mode's places
    (m,7), by their probability (m,), as that takes, and by how far a robot is from its place
    (`Calibration.deviation`) beyond. Infinite where all of them are not enough: when the robot may
    be elsewhere or off the map, or has seen nothing new for long.
    """
    distance = poses.distance(places, pose)
    order = np.argsort(distance, kind='stable')
    enough = np.flatnonzero(confidence(np.cumsum(probability[order])) >= SHARE)
    if not len(enough):
        return math.inf
    return float(distance[order[enough[0]]]) + _SIGMAS * math.hypot(*deviation[:2])
