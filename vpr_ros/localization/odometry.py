"""
Odometry as it comes: checked against what a robot can do, and its scale against the map.

Whether it agrees with what is seen decides the belief (belief.py).
"""

from __future__ import annotations

from collections import deque
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_IMPOSSIBLE = 3.0
"""How many times faster than the robot's maximum speed a step must be to be a jump: that
parameter is a guess."""

_SLACK = 1.0
"""Metres that a step may always have: stamps are not exact."""

_CONSTANT = 1e-6
"""Radians by which a measured heading changes at least in any motion."""

_TURNED = 0.5
"""Radians by which a path turns, for its heading to be stuck if it has not changed."""

_APART = 5.0
"""Metres of odometry between two poses that tell its scale."""

_KEPT = 24
"""Such poses that are kept."""

_CHORD = 40.0
"""Metres between two of them, at least: each pose is a metre or two off."""

_FEWEST = 20
"""Pairs of poses that tell the scale."""

_SPREAD = 1.2
"""Ratio of the upper to the lower quartile of what they tell, at most."""

_TOLERATED = 0.08
"""Relative error of the scale that is left as it is: the belief follows it."""


class Odometry:
    """
    The odometry of one drive: the motion from frame to frame, in true metres.

    `scale` is what its metres are multiplied by: near 1, unless the poses found on the map show
    that it counts wrongly. `problem` says why the latest pose cannot be right, '' if it can.
    """

    def __init__(self) -> None:
        self.scale = 1.0
        self.problem = ''
        # Where the heading last changed, or a metre further along, and which way that was.
        self._mark: Floats | None = None
        self._course: float | None = None
        self._last: Floats | None = None
        # Odometry and map, x and y each, where a pose was found.
        self._found: deque[Floats] = deque(maxlen=_KEPT)

    def advance(self, pose: Floats | None, seconds: float, max_speed: float) -> Floats | None:
        """
        Return the motion (3,) since the last frame: metres ahead, to the left, radians turned.

        None without a pose (7,) now and before, and with a `problem`: no robot of that maximum
        speed (m/s) can have moved like that within these seconds, or the heading is stuck.
        """
        last, self._last = self._last, pose
        if last is None or pose is None:
            self.problem = ''
            return None
        motion = poses.relative(last, pose)
        if not math.hypot(*motion[:2]) <= _IMPOSSIBLE * max_speed * seconds + _SLACK:
            self.problem = 'it jumped further than the robot can drive'
            self._mark = None
            self._found.clear()
            return None
        if self._heading_is_stuck(pose, float(motion[2])):
            self.problem = 'its heading is constant while its path turns'
            return None
        self.problem = ''
        return np.asarray(motion * (self.scale, self.scale, 1.0))

    def _heading_is_stuck(self, pose: Floats, turn: float) -> bool:
        """Return whether the heading has not changed at all on a path (7,) that has turned."""
        if self._mark is None or abs(turn) > _CONSTANT:
            self._mark, self._course = pose, None
            return False
        x, y = pose[:2] - self._mark[:2]
        if math.hypot(x, y) < _SLACK:
            return bool(self.problem)
        self._mark, course = pose, math.atan2(y, x)
        if self._course is None:
            self._course = course
        return bool(self.problem) or abs(math.remainder(course - self._course, math.tau)) > _TURNED

    @property
    def given(self) -> bool:
        """Return whether the latest frame has odometry."""
        return self._last is not None

    def found(self, pose: Floats) -> None:
        """Take in where the robot was found on the map, (7,), at the latest odometry."""
        if self._last is None:
            return
        now = np.array([*self._last[:2], *pose[:2]])
        if self._found and math.hypot(*(now - self._found[-1])[:2]) < _APART:
            return
        self._found.append(now)
        pairs = np.array(self._found)
        first, second = np.triu_indices(len(pairs), 1)
        driven, seen = np.hypot(*(pairs[second] - pairs[first]).reshape(-1, 2, 2).T)
        far = (seen >= _CHORD) & (driven >= _APART)
        if far.sum() >= _FEWEST:
            low, scale, high = np.quantile(seen[far] / driven[far], (0.25, 0.5, 0.75))
            known = high <= _SPREAD * low and abs(math.log(scale)) > _TOLERATED
            self.scale = float(scale) if known else 1.0
