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

_HELD = 0.5
"""Seconds for which the same pose, or none, may only mean that odometry is late."""

_LONGEST_HELD = 2.0
"""Seconds between two poses of odometry, at most, for the motion to go on between them."""

_BRAKES = 20.0
"""Deceleration in m/s^2 that no robot exceeds: twice what tyres can hold."""

_SLOW = 1.5
"""Speed in m/s from which a robot cannot stop at once; simulated ones do."""

_CONSTANT = 1e-6
"""Radians by which a measured heading changes at least in any motion."""

_TURNED = 0.5
"""Radians by which a path turns, for its heading to be stuck if it has not changed."""

_APART = 5.0
"""Metres of odometry between two poses that tell its scale."""

_UNSEEN = 20.0
"""Metres of odometry without a pose after which the robot may be anywhere: somebody carried it."""

_KEPT = 24
"""Such poses that are kept."""

_CHORD = 20.0
"""Metres between two of them, at least."""

_FEWEST = 15
"""Pairs of poses that tell the scale."""

_UNSURE = 4.0
"""Metres by which the distance of two poses may be off where odometry counts wrongly: the belief
lags behind, or is ahead."""

_SPREAD = 1.2
"""Ratio of the upper to the lower quartile of what they tell, at most."""

_TOLERATED = 0.08
"""Relative error of the scale that is left as it is: the belief follows it."""

_JUMPED = 'it jumped further than the robot can drive'
_FROZEN = 'it stopped more quickly than a robot can brake'


class Odometry:
    """
    The odometry of one drive: the motion from frame to frame, in true metres.

    Odometry may come less often than frames. Between two of its poses the robot is thought to move
    on as before: for as long as lay between the last two, and longer where it was too fast to have
    stopped since. `scale` is what its metres are multiplied by: near 1, unless the poses found on
    the map show that it counts wrongly. `given` says whether the latest frame had a pose,
    `problem` why that cannot be right, '' if it can.
    """

    def __init__(self) -> None:
        self.scale = 1.0
        self.problem = ''
        self.given = False
        # The last pose that was another than the one before, the velocity (3,) and the seconds
        # that led to it, and the seconds since; where the robot is thought to be now: None
        # beside a latest pose where that is frozen.
        self._latest: Floats | None = None
        self._velocity = np.zeros(3)
        self._interval = self._since = 0.0
        self._now: Floats | None = None
        # A pose that jumped, and the seconds since: the next one near it confirms it.
        self._jumped: Floats | None = None
        self._since_jump = 0.0
        # Where the heading last changed, or a metre further along, and which way that was.
        self._mark: Floats | None = None
        self._course: float | None = None
        self._stuck = False
        # Odometry and map, x and y each, where a pose was found.
        self._found: deque[Floats] = deque(maxlen=_KEPT)

    def advance(self, pose: Floats | None, seconds: float, max_speed: float, *, seen: bool
                ) -> Floats | None:
        """
        Return the motion (3,) since the last frame: metres ahead, to the left, radians turned.

        None when there was no pose (7,) for too long, or none that can be right: no robot of that
        maximum speed (m/s) can have moved like that, the heading is stuck, or the robot stands
        where it cannot have stopped and `seen` says that its view changes.
        """
        self.given, self.problem = pose is not None, ''
        self._since += seconds
        self._since_jump += seconds
        if pose is not None:
            self._take(pose, max_speed)
        before, self._now = self._now, self._expected(seen)
        if self._now is None and self.problem != _FROZEN:
            self._latest = None
        if self._stuck and self.given:
            self.problem = 'its heading is constant while its path turns'
        unknown = self._interval == 0 and 0 < self._since < _HELD  # whether it stands or is late
        if self._now is None or self._stuck or unknown:
            return None
        if before is None:
            return np.zeros(3)
        return np.asarray(poses.relative(before, self._now) * (self.scale, self.scale, 1.0))

    def _take(self, pose: Floats, max_speed: float) -> None:
        """Take in a pose (7,), if the robot can have driven there."""
        latest, jumped = self._latest, self._jumped
        if _same(pose, latest):
            self._jumped = None
        elif _same(pose, jumped) and self._since_jump < _HELD:
            self.problem = _JUMPED
        elif (latest is None or self._now is None) and jumped is None:
            self._start(pose)
        elif latest is not None and _possible(latest, pose, self._since, max_speed):
            self._move(latest, pose)
        elif jumped is not None and _possible(jumped, pose, self._since_jump, max_speed):
            self._start(jumped)
            self._since = self._since_jump
            self._move(jumped, pose)
        else:
            self.problem = _JUMPED
            self._jumped, self._since_jump = pose, 0.0

    def _start(self, pose: Floats) -> None:
        """Begin at a pose (7,): what was before is of another frame."""
        self._latest = self._now = pose
        self._velocity, self._interval = np.zeros(3), 0.0
        self._since = 0.0
        self._mark, self._stuck = None, False
        self._found.clear()

    def _move(self, start: Floats, pose: Floats) -> None:
        motion = poses.relative(start, pose)
        self._stuck = self._heading_is_stuck(pose, float(motion[2]))
        self._velocity = motion / max(self._since, 1e-9)
        self._interval = min(self._since, _LONGEST_HELD)
        self._latest, self._since, self._jumped = pose, 0.0, None

    def _expected(self, seen: bool) -> Floats | None:
        """Return where the robot is (7,) by the latest pose and what was usual before it."""
        if self._latest is None:
            return None
        fast = math.hypot(*self._velocity[:2]) > max(_BRAKES * self._interval, _SLOW)
        if self._since > max(_HELD, 2 * self._interval):
            if self.given and not self.problem and fast and (seen or self._now is None):
                self.problem = _FROZEN
            return self._latest if self.given and not self.problem else None
        longest = max(_HELD, self._interval) if fast and seen else self._interval
        return poses.moved(self._latest, self._velocity * min(self._since, longest))

    def _heading_is_stuck(self, pose: Floats, turn: float) -> bool:
        """Return whether the heading has not changed at all on a path (7,) that has turned."""
        if self._mark is None or abs(turn) > _CONSTANT:
            self._mark, self._course = pose, None
            return False
        x, y = pose[:2] - self._mark[:2]
        if math.hypot(x, y) < _SLACK:
            return self._stuck
        self._mark, course = pose, math.atan2(y, x)
        if self._course is None:
            self._course = course
        # A robot that drives back does not turn: half a turn counts as none.
        return self._stuck or abs(math.remainder(course - self._course, math.pi)) > _TURNED

    def found(self, pose: Floats) -> bool:
        """
        Take in where the robot was found on the map, (7,), at the latest odometry.

        Return whether that puts its scale right: what was wrong before no longer is.
        """
        if self._now is None:
            return False
        now = np.array([*self._now[:2], *pose[:2]])
        if self._found:
            driven = math.hypot(*(now - self._found[-1])[:2])
            if driven < _APART:
                return False
            if driven > _UNSEEN:
                self._found.clear()
        self._found.append(now)
        pairs = np.array(self._found)
        first, second = np.triu_indices(len(pairs), 1)
        driven, seen = np.hypot(*(pairs[second] - pairs[first]).reshape(-1, 2, 2).T)
        far = (seen >= _CHORD) & (driven >= _APART)
        before = self.scale
        if far.sum() >= _FEWEST:
            low, scale, high = np.quantile(seen[far] / driven[far], (0.25, 0.5, 0.75))
            tolerated = max(_TOLERATED, _UNSURE / np.median(seen[far]))
            known = high <= _SPREAD * low and abs(math.log(scale)) > tolerated
            self.scale = float(scale) if known else 1.0
        return abs(math.log(self.scale / before)) > _TOLERATED


def _same(pose: Floats, other: Floats | None) -> bool:
    return other is not None and np.array_equal(pose, other)


def _possible(start: Floats, end: Floats, seconds: float, max_speed: float) -> bool:
    """Return whether a robot can have driven from one pose (7,) to another in that time."""
    return math.hypot(*(end - start)[:2]) <= _IMPOSSIBLE * max_speed * seconds + _SLACK
