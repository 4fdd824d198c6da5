"""What lies between the callbacks and the worker: the newest frame, and the latest odometry."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
import threading
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.io import messages

if TYPE_CHECKING:
    from numpy.typing import NDArray

WAIT = 0.05
"""Seconds that an image waits for odometry as new as itself, on a robot that has any."""

LAG = 500_000_000
"""Nanoseconds that odometry may be older than the image."""

_KEPT = 200


class FrameSlot:
    """Holds the newest message; one that was not taken in time is overwritten."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._frame: tuple[Any, float] | None = None
        self._closed = False

    def put(self, message: Any) -> bool:
        """Leave a message; return whether it replaced one that nobody had taken."""
        with self._condition:
            replaced = self._frame is not None
            self._frame = (message, time.perf_counter())
            self._condition.notify()
        return replaced

    def take(self) -> tuple[Any, float] | None:
        """Wait for a message and return it with the time it came; None once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._frame is not None or self._closed)
            if self._closed:
                return None
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> bool:
        """Send the one who waits away; return whether a message was left that nobody took."""
        with self._condition:
            self._closed = True
            self._condition.notify()
            return self._frame is not None


class OdometryBuffer:
    """Keeps the last Odometry messages; written by one thread, read by another."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._stamps: deque[int] = deque(maxlen=_KEPT)
        self._poses: deque[NDArray[np.float64]] = deque(maxlen=_KEPT)
        self.frame_id = ''

    def put(self, message: Any) -> None:
        """Keep a nav_msgs/Odometry; a stamp that goes back starts over. Bad poses are left out."""
        stamp = messages.stamp_ns(message.header)
        pose = messages.raw_pose(message)
        with self._condition:
            if self._stamps and stamp < self._stamps[-1]:
                self._stamps.clear()
                self._poses.clear()
            self._stamps.append(stamp)
            self._poses.append(pose)
            self.frame_id = message.header.frame_id
            self._condition.notify()

    def at(self, stamp: int) -> NDArray[np.float64] | None:
        """
        Return the pose (7,) at a stamp in ns, or None when odometry does not reach it.

        Where there is odometry at all, waits a moment for what is on its way; what then is older
        than the image, by half a second at most, is taken as it is: the next step makes up for it.
        """
        with self._condition:
            if not self._stamps:
                return None
            self._condition.wait_for(lambda: self._stamps[-1] >= stamp, WAIT)
            stamps, every = list(self._stamps), list(self._poses)
        # The two around the stamp tell all that the whole track would.
        after = bisect_left(stamps, stamp)
        around = slice(max(0, min(after, len(stamps) - 1) - 1), after + 1)
        track = poses.track(stamps[around], np.array(every[around]))
        if len(track.stamps) and 0 < stamp - track.stamps[-1] < LAG:
            return track.poses[-1]
        return poses.at(track, stamp)
