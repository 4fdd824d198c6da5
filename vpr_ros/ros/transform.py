"""
The transform map -> odom (REP-105), which stays valid between trusted poses.

Consumers look transforms up at the latest time that all of a chain have. A transform sent only
with a pose would hold that time, and with it the robot, at the pose: so it is repeated.
"""

from __future__ import annotations

from collections import deque
import threading
from typing import Any
from typing import TYPE_CHECKING

from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.pose_output import PoseOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from rclpy.node import Node
    from vpr_ros.ros.inputs import OdometryBuffer
    from vpr_ros.ros.inputs import OdometryPose

_PERIOD = 0.05
"""Seconds between two transforms."""

_OTHER_CLOCK = 5.0
"""Seconds between the stamp of a pose and the present that no latency explains."""

_MOST_WAITING = 64
"""Poses that wait for odometry, at most: those of half a second at 100 Hz."""

_CLOCK_JUMP = 1.0
"""Seconds that the clock may go back before a transform counts as one of another time."""


def transform_broadcaster(node: Node) -> Callable[[Any], object]:
    """
    Return what sends a TransformStamped through tf2.

    Raises VprError when tf2_ros is missing.
    """
    try:
        from tf2_ros import TransformBroadcaster
    except ModuleNotFoundError as error:
        raise VprError('publish_tf needs tf2_ros, which is not installed: '
                       'apt install ros-$ROS_DISTRO-tf2-ros-py') from error
    send: Callable[[Any], object] = TransformBroadcaster(node).sendTransform
    return send


class HeldTransform(PoseOutput):
    """
    Sends map -> odom of the last trusted pose with odometry, at a steady rate.

    `send` takes a TransformStamped. Its stamp is the node's time plus `tolerance` seconds, so that
    consumers find it until the next. It ends `timeout` seconds after the pose: by then odometry
    may have drifted off. A pose whose odometry comes later waits for it: with an older one the
    robot would jump by what it drove since.
    """

    def __init__(self, node: Node, send: Callable[[Any], object], *, tolerance: float,
                 timeout: float) -> None:
        self._node = node
        self._send = send
        self._tolerance = round(tolerance * 1e9)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._held: tuple[str, str, NDArray[np.float64]] | None = None
        self._waiting: deque[Any] = deque(maxlen=_MOST_WAITING)
        self._updated = self._sent = 0
        self._state = 'none: no trusted pose with odometry yet'
        self._timer: Any = None

    def start(self) -> None:
        """Begin to repeat the transform."""
        self._timer = self._node.create_timer(_PERIOD, self._repeat)

    def stop(self) -> None:
        """Pause, with the same transform at the next start."""
        self._node.destroy_timer(self._timer)

    def start_over(self) -> None:
        """Send nothing until the next trusted pose."""
        with self._lock:
            self._held = None
            self._waiting.clear()
            self._state = 'none: no trusted pose with odometry yet'

    def close(self) -> None:
        """Send nothing any more."""
        self.start_over()

    def values(self) -> dict[str, str]:
        """Return whether the transform is sent."""
        return {'transform': self._state}

    def pose(self, message: Any, odometry: OdometryPose | None) -> None:
        """Take the transform that puts odometry's pose where the trusted pose is, and send it."""
        if odometry is None:
            return
        if odometry.late:
            with self._lock:
                self._waiting.append(message)
            return
        with self._lock:
            self._waiting.clear()
        self._take(message, odometry)

    def odometry_came(self, buffer: OdometryBuffer) -> None:
        """Take the newest of the waiting poses that odometry has reached by now."""
        with self._lock:
            reached = None
            while self._waiting and (buffer.age(messages.stamp_ns(self._waiting[0].header))
                                     or 0) <= 0:
                reached = self._waiting.popleft()
        odometry = reached and buffer.at(messages.stamp_ns(reached.header))
        if odometry is not None and not odometry.late:
            self._take(reached, odometry)

    def _take(self, message: Any, odometry: OdometryPose) -> None:
        with self._lock:
            self._held = (message.header.frame_id, odometry.frame_id,
                          poses.frame_between(messages.raw_pose(message), odometry.pose))
            self._updated = self._now()
            lag = (self._updated - messages.stamp_ns(message.header)) / 1e9
        if abs(lag) > _OTHER_CLOCK:
            self._node.get_logger().warning(
                f'publish_tf: images are stamped {abs(lag):.1f} s '
                f'{"before" if lag > 0 else "after"} the time of this node, at which map -> odom '
                'is sent: set use_sim_time, or synchronise the clocks',
                once=True)
        self._repeat()

    def _repeat(self) -> None:
        with self._lock:
            if self._held is None:
                return
            now = self._now()
            age = (now - self._updated) / 1e9
            if not -_CLOCK_JUMP <= age <= self._timeout:
                self._held = None
                why = ('the clock was set back' if age < 0 else
                       f'no trusted pose with odometry for {self._timeout:g} s')
                self._state = f'stopped: {why}'
                self._node.get_logger().warning(f'map -> odom is no longer sent: {why}')
                return
            self._state = f'sent, {max(age, 0):.1f} s after the last trusted pose'
            stamp = now + self._tolerance
            if stamp != self._sent:  # tf2 warns of a stamp that it has: the clock may stand
                self._sent = stamp
                self._send(messages.transform(rclpy_types, stamp, *self._held))

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
