"""Sets a filter that has lost the robot to where the node sees it: a kidnapped robot."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from vpr_ros.io import messages
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.pose_output import PoseOutput

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from vpr_ros.ros.inputs import OdometryPose

_SURE = 3.0
"""Seconds that every pose has to be far from the filter's."""

_GAP = 1.0
"""Seconds without a trusted pose, or between it and the filter's, that end this certainty."""


class FilterReset(PoseOutput):
    """
    Publishes a trusted pose on `set_pose` when `odometry/filtered` is far from the poses.

    Far is more than `distance` metres, for _SURE seconds without a gap. robot_localization rejects
    poses until its own variance has grown to their distance; `set_pose` puts it there.
    """

    def __init__(self, node: LifecycleNode, distance: float) -> None:
        self._node = node
        self._distance = distance
        self._publisher = node.create_lifecycle_publisher(
            rclpy_types('geometry_msgs/msg/PoseWithCovarianceStamped'), 'set_pose', 1)
        self._subscription: Any = None
        self._filtered: Any = None
        self._since = self._last = 0
        self._resets = 0

    def start(self) -> None:
        """Listen to the filter."""
        self._subscription = self._node.create_subscription(
            rclpy_types('nav_msgs/msg/Odometry'), 'odometry/filtered', self.on_filtered,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))

    def stop(self) -> None:
        """Listen no longer."""
        self._node.destroy_subscription(self._subscription)
        self.start_over()

    def start_over(self) -> None:
        """Wait for the full time again."""
        self._filtered = None
        self._since = self._last = 0

    def close(self) -> None:
        """Remove the publisher from the node."""
        self._node.destroy_publisher(self._publisher)

    def values(self) -> dict[str, str]:
        """Return how often the filter was reset."""
        return {'filter resets': str(self._resets)}

    def on_filtered(self, message: Any) -> None:
        """Keep the filter's latest nav_msgs/Odometry."""
        self._filtered = message

    def pose(self, message: Any, odometry: OdometryPose | None) -> None:
        """Compare a trusted pose with the filter's, and reset the filter if it is time to."""
        stamp, filtered = messages.stamp_ns(message.header), self._filtered
        apart = self._apart(message, filtered)
        steady = 0 <= stamp - self._last <= _GAP * 1e9  # a refined pose may follow its place's
        self._last = stamp
        if apart <= self._distance or not steady:
            self._since = stamp
        elif stamp - self._since >= _SURE * 1e9:
            self._since = stamp
            self._resets += 1
            self._publisher.publish(message)
            self._node.get_logger().warning(
                f'the filter was {apart:.0f} m from the poses for {_SURE:g} s: reset by set_pose')

    def _apart(self, message: Any, filtered: Any) -> float:
        """Return the metres between a pose and the filter's at about its time; 0 without one."""
        if filtered is None:
            return 0.0
        if filtered.header.frame_id != message.header.frame_id:
            self._node.get_logger().warning(
                f"odometry/filtered is in the frame '{filtered.header.frame_id}', not in "
                f"'{message.header.frame_id}': the filter is not reset", once=True)
            return 0.0
        if abs(messages.stamp_ns(filtered.header)
               - messages.stamp_ns(message.header)) > _GAP * 1e9:
            return 0.0
        # On the ground: filters in two dimensions have no height.
        between = messages.raw_pose(message)[:2] - messages.raw_pose(filtered)[:2]
        return float(np.hypot(*between))
