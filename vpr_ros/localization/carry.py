"""A refined pose that odometry carries on, until the image of a later frame is refined."""

from __future__ import annotations

from collections import deque
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.localization.refine import on_ground
from vpr_ros.localization.refine import RADIUS
from vpr_ros.maps.confidence import Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.localization.estimate import Estimate

    Floats = NDArray[np.float64]

FARTHEST = 10.0
"""Metres over which a pose is carried: it may be one of the few that are wrong."""

_OLDEST_NS = 5_000_000_000
_TURNING = math.radians(0.5)
"""Error of a heading by odometry, in rad per metre, besides that in proportion to turns."""


_RECENT = 20
_SHORTEST = 0.5


class Drift:
    """
    The error of odometry in metres per metre, as successive refined poses show it.

    While there are few of them, that which is `expected` counts.
    """

    def __init__(self, expected: float) -> None:
        self._squares = deque([expected ** 2], _RECENT)

    def compare(self, before: Estimate, after: Estimate, motion: Floats) -> bool:
        """
        Take in two refined estimates, and the planar motion (3,) between them by odometry.

        Returns whether they are far enough apart to tell anything.
        """
        driven = math.hypot(*motion[:2])
        if driven < _SHORTEST:
            return False
        off = poses.moved(before.pose, motion)[:2] - after.pose[:2]
        self._squares.append(float(off @ off) / 2 / driven ** 2)
        return True

    @property
    def value(self) -> float:
        """Return the standard deviation along each axis, in metres per metre."""
        return math.sqrt(sum(self._squares) / len(self._squares))


def carried(refined: Estimate, estimate: Estimate, motion: Floats, drift: float, *,
            flat: bool = True) -> Estimate | None:
    """
    Return an estimate with the pose of an earlier, `refined` one after a planar motion (3,).

    Its covariance grows by `drift` metres per metre. None where odometry is not to be
    believed, the motion is long, or the place's own pose is far off or the more certain one.
    """
    driven, age = math.hypot(*motion[:2]), estimate.stamp - refined.stamp
    if estimate.mode is not Mode.ODOMETRY or driven > FARTHEST or not 0 <= age <= _OLDEST_NS:
        return None
    pose = poses.moved(refined.pose, motion)
    across = pose[:2] - refined.pose[:2]
    by_heading = np.eye(3)
    by_heading[:2, 2] = -across[1], across[0]
    plane = np.ix_((0, 1, 5), (0, 1, 5))
    covariance = refined.covariance.copy()
    covariance[plane] = by_heading @ covariance[plane] @ by_heading.T + np.diag([
        drift * driven, drift * driven, drift * abs(motion[2]) + _TURNING * driven]) ** 2
    if math.hypot(*(pose - estimate.pose)[:2]) > RADIUS + 1 \
            or np.trace(covariance[:2, :2]) >= np.trace(estimate.covariance[:2, :2]):
        return None
    pose, covariance = on_ground(pose, covariance, estimate.pose, flat=flat)
    return estimate.moved_to(pose, covariance)
