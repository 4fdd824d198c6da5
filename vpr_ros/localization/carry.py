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
_PLANE = np.ix_((0, 1, 5), (0, 1, 5))
_TURNING = math.radians(0.5)
"""Error of a heading by odometry, in rad per metre, that is expected at first."""

_TURN_SCALE = 0.02
"""Error of a turn by odometry, in that turn."""

_RECENT = 20
_SHORTEST = 0.5

_EXPECTED = 1.0
"""Square metres for which what is expected counts, beside those that were driven: soon little."""

_LEAST = np.array([0.005, math.radians(0.02)]) ** 2


class Drift:
    """
    The errors of odometry in metres and in rad per metre, as successive refined poses show them.

    While there are few of them, the metres that are `expected` count. What the refined poses are
    off by themselves, by their covariances, is not odometry's.
    """

    def __init__(self, expected: float) -> None:
        self._expected = np.array([expected, _TURNING]) ** 2
        self._excess: deque[Floats] = deque(maxlen=_RECENT)  # squares, and what is driven
        self.values = self._estimated()

    def compare(self, before: Estimate, after: Estimate, motion: Floats) -> bool:
        """
        Take in two refined estimates, and the planar motion (3,) between them by odometry.

        Returns whether they are far enough apart to tell anything.
        """
        driven = math.hypot(*motion[:2])
        if driven < _SHORTEST:
            return False
        there = poses.moved(before.pose, motion)
        off = there[:2] - after.pose[:2]
        turn = math.remainder(float(poses.heading(there) - poses.heading(after.pose)),
                              2 * math.pi)
        own = _moved_covariance(before, there) + after.covariance[_PLANE]
        self._excess.append(np.array([(float(off @ off) - own[0, 0] - own[1, 1]) / 2,
                                      turn ** 2 - own[2, 2], driven ** 2]))
        self.values = self._estimated()
        return True

    def _estimated(self) -> tuple[float, float]:
        """Return the standard deviations, in metres along each axis and rad, per metre."""
        excess = sum(self._excess, np.zeros(3))
        square = (_EXPECTED * self._expected + excess[:2]) / (_EXPECTED + excess[2])
        metres, radians = np.sqrt(np.maximum(square, _LEAST))
        return float(metres), float(radians)


def carried(refined: Estimate, estimate: Estimate, motion: Floats, drift: tuple[float, float],
            *, flat: bool = True) -> Estimate | None:
    """
    Return an estimate with the pose of an earlier, `refined` one after a planar motion (3,).

    Its covariance grows by `drift`, in metres and in rad per metre. None where odometry is not to
    be believed, the motion is long, or the place's own pose is far off or the more certain one.
    """
    driven, age = math.hypot(*motion[:2]), estimate.stamp - refined.stamp
    if estimate.mode is not Mode.ODOMETRY or driven > FARTHEST or not 0 <= age <= _OLDEST_NS:
        return None
    pose = poses.moved(refined.pose, motion)
    covariance = refined.covariance.copy()
    metres, radians = drift[0] * driven, drift[1] * driven
    covariance[_PLANE] = _moved_covariance(refined, pose) + np.diag(
        [metres ** 2, metres ** 2, radians ** 2 + (_TURN_SCALE * motion[2]) ** 2])
    if math.hypot(*(pose - estimate.pose)[:2]) > RADIUS + 1 \
            or np.trace(covariance[:2, :2]) >= np.trace(estimate.covariance[:2, :2]):
        return None
    pose, covariance = on_ground(pose, covariance, estimate.pose, flat=flat)
    return estimate.moved_to(pose, covariance)


def _moved_covariance(refined: Estimate, pose: Floats) -> Floats:
    """Return the covariance (3,3) in the plane of a refined pose that is moved to another."""
    across = pose[:2] - refined.pose[:2]
    by_heading = np.eye(3)
    by_heading[:2, 2] = -across[1], across[0]
    moved: Floats = by_heading @ refined.covariance[_PLANE] @ by_heading.T
    return moved
