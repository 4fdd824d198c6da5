"""What the callbacks leave for the worker: the newest frame and the latest odometry."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
import threading
import time
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import pose_track
from vpr_ros.io import messages
from vpr_ros.ros.health import NO_ODOMETRY

if TYPE_CHECKING:
    from numpy.typing import NDArray

ODOMETRY_WAIT = 0.05
"""Seconds that a frame waits for odometry as new as itself, on a robot that has any."""

MAX_ODOMETRY_AGE_NS = 500_000_000
"""Age up to which odometry older than the frame is used for it."""

_LATE_NS = 10_000_000
"""Age up to which a pose by odometry is taken for that of the frame: 8 cm at 8 m/s."""

_BUFFER_SIZE = 200

_OTHER_CLOCK_NS = 10_000_000_000
"""Difference between odometry and a frame that no delay explains."""

_ARRIVING = 2.0
"""Seconds since the last message after which odometry has stopped."""


class FrameSlot:
    """Holds the newest message; one that was not taken in time is replaced."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._frame: tuple[Any, float] | None = None
        self._closed = False

    def put(self, message: Any) -> bool:
        """Put a message in; return whether it replaced one that was not taken."""
        with self._condition:
            replaced = self._frame is not None
            self._frame = (message, time.perf_counter())
            self._condition.notify()
        return replaced

    def take(self) -> tuple[Any, float] | None:
        """
        Wait for a message and return it with the time (time.perf_counter) when it was put in.

        Returns None once the slot is closed.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._frame is not None or self._closed)
            if self._closed:
                return None
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> bool:
        """End the waiting in `take`; return whether a message was left untaken."""
        with self._condition:
            self._closed = True
            self._condition.notify()
            return self._frame is not None


class OdometryPose(NamedTuple):
    """A pose (7,) by odometry, in its frame, and the ns by which it is older than was asked."""

    frame_id: str
    pose: NDArray[np.float64]
    age: int = 0

    @property
    def late(self) -> bool:
        """Whether it is not that of the frame: the robot has moved since."""
        return self.age > _LATE_NS


class OdometryBuffer:
    """The poses of the last nav_msgs/Odometry messages; one thread writes, another reads."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._stamps: deque[int] = deque(maxlen=_BUFFER_SIZE)
        self._poses: deque[NDArray[np.float64]] = deque(maxlen=_BUFFER_SIZE)
        self._arrived = 0.0
        self.frame_id = ''

    def put(self, message: Any) -> None:
        """Add a nav_msgs/Odometry; a stamp that goes back clears the buffer first."""
        stamp = messages.stamp_ns(message.header)
        pose = messages.raw_pose(message)
        with self._condition:
            if self._stamps and stamp < self._stamps[-1]:
                self._stamps.clear()
                self._poses.clear()
            self._stamps.append(stamp)
            self._poses.append(pose)
            self._arrived = time.monotonic()
            self.frame_id = message.header.frame_id
            self._condition.notify()

    def at(self, stamp: int) -> OdometryPose | None:
        """
        Return the pose at a stamp in ns, or None when odometry does not reach it.

        On a robot with odometry, waits up to ODOMETRY_WAIT for a pose as new as the stamp. Without
        one, the latest is returned, up to MAX_ODOMETRY_AGE_NS old, with its age: the motion since
        then will be part of the next frame's. Poses that are not finite are left out.
        """
        with self._condition:
            if not self._stamps:
                return None
            self._condition.wait_for(lambda: self._stamps[-1] >= stamp, ODOMETRY_WAIT)
            stamps, recent, frame_id = list(self._stamps), list(self._poses), self.frame_id
        # The two messages around the stamp are enough to interpolate.
        after = bisect_left(stamps, stamp)
        around = slice(max(0, min(after, len(stamps) - 1) - 1), after + 1)
        track = pose_track.track(stamps[around], np.array(recent[around]))
        if len(track.stamps) and 0 < stamp - track.stamps[-1] < MAX_ODOMETRY_AGE_NS:
            return OdometryPose(frame_id, track.poses[-1], stamp - int(track.stamps[-1]))
        pose = pose_track.at(track, stamp)
        return None if pose is None else OdometryPose(frame_id, pose)

    def age(self, stamp: int) -> int | None:
        """Return the ns from the newest odometry to a stamp, negative after it; None without."""
        with self._condition:
            return stamp - self._stamps[-1] if self._stamps else None

    def why_not(self, stamp: int) -> str:
        """Return why there is no pose `at` a stamp: the kind, and after a colon the numbers."""
        with self._condition:
            if not self._stamps:
                return NO_ODOMETRY
            oldest, newest = self._stamps[0], self._stamps[-1]
            stopped = time.monotonic() - self._arrived > _ARRIVING
        off = max(stamp - newest, oldest - stamp)
        side = 'behind' if stamp > newest else 'ahead of'
        if stopped and stamp > newest:
            return f'stopped: the last is {off / 1e9:.1f} s older than the image'
        if off > _OTHER_CLOCK_NS:
            return f'other clock: its stamps are {off / 1e9:.1f} s {side} those of the images'
        if stamp > newest:
            return f'late, or of another clock: its stamps are {off / 1e9:.1f} s {side} the images'
        if off > 0:
            return (f'out of the buffer: the image is {off / 1e9:.1f} s older than the '
                    f'{(newest - oldest) / 1e9:.1f} s of odometry that are kept')
        return 'none near the image: a gap, or poses that are not finite'
