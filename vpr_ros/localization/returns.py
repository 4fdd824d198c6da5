"""
Returns: views of a drive that come back, and show that the robot has not moved.

A robot whose wheels spin in traffic sees one new view after another; but once a car has passed,
the view is that of before.
"""

from __future__ import annotations

from collections import deque
import math
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.localization.pace import CHANGES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.localization.pace import Pace

    Floats = NDArray[np.float64]

_KEPT = 12
"""Views that are remembered."""


class Seen(NamedTuple):
    """A view as it was looked up (D,), where that was by the belief (3,), and the pose (7,)."""

    query: NDArray[np.float32]
    where: Floats
    pose: Floats


class Returns:
    """
    Views at which the robot was found lately: CHANGES metres apart, and those that lasted.

    `where` (3,) is the motion since the first by the belief: metres ahead, to the left, radians.
    """

    def __init__(self) -> None:
        self.where = np.zeros(3)
        self._seen: deque[Seen] = deque(maxlen=_KEPT)
        self._latest: Seen | None = None

    def advance(self, motion: Floats) -> None:
        """Take in how the robot has moved by the belief: (3,), as in odometry.py."""
        self.where = poses.chained(self.where, motion)

    def found(self, query: NDArray[np.float32], pose: Floats) -> None:
        """Take in a new view (D,) at which the robot was found at a pose (7,)."""
        self._latest = Seen(query, self.where, pose)
        if not self._seen or self.metres(self._seen[-1]) >= CHANGES:
            self._keep()

    def lasts(self) -> None:
        """Say that the view has not changed: it may be that of a robot that stands."""
        self._keep()

    def back_at(self, query: NDArray[np.float32], pace: Pace, metres: float) -> Seen | None:
        """
        Return the view that a new one (D,) would be, if the robot had not moved; else None.

        That is one that it cannot be that much like after driving so far by the belief, and at
        least some metres. Whether it may be another place that looks the same, the map knows.
        """
        for seen in self._seen:  # the oldest first: others may be of the robot that stands
            away = self.metres(seen)
            if away >= metres and pace.doubts(float(query @ seen.query), away):
                return seen
        return None

    def go_back(self, seen: Seen) -> None:
        """Take it that the robot is still where it saw that view."""
        while self._seen[-1] is not seen:
            self._seen.pop()
        self.where, self._latest = seen.where, None

    def _keep(self) -> None:
        if self._latest is not None:
            self._seen.append(self._latest)
        self._latest = None

    def metres(self, seen: Seen) -> float:
        """Return how far the robot has driven since it saw a view, in a straight line."""
        return math.hypot(*(self.where - seen.where)[:2])
