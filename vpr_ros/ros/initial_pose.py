"""The pose that AMCL and the like start from: one message to each reader, also to a late one."""

from __future__ import annotations

import threading
from typing import Any
from typing import TYPE_CHECKING

from vpr_ros.io import messages
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.pose_output import PoseOutput

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from vpr_ros.ros.inputs import OdometryPose

OWN_TOPIC = 'initialpose'
"""The topic that the node itself listens to."""

_PERIOD = 0.2
"""Seconds between two looks at whether a reader has gone."""


class InitialPose(PoseOutput):
    """
    Publishes a trusted pose on a topic whenever there are more readers than have been told.

    A message to nobody is lost, and a reader that was started again has forgotten it.
    """

    def __init__(self, node: LifecycleNode, topic: str) -> None:
        self._node = node
        self._publisher = node.create_lifecycle_publisher(
            rclpy_types('geometry_msgs/msg/PoseWithCovarianceStamped'), topic, 1)
        # The node's own subscription is no reader, if it is the same topic.
        self._own = int(node.resolve_topic_name(OWN_TOPIC) == self._publisher.topic_name)
        self._lock = threading.Lock()
        self._told = 0
        self._stamp = -1
        self._timer: Any = None

    def start(self) -> None:
        """Tell each reader the next trusted pose."""
        self._timer = self._node.create_timer(_PERIOD, self._forget_who_has_gone)
        self.start_over()

    def stop(self) -> None:
        """Pause."""
        self._node.destroy_timer(self._timer)

    def start_over(self) -> None:
        """Tell each reader again."""
        with self._lock:
            self._told = 0

    def close(self) -> None:
        """Remove the publisher from the node."""
        self._node.destroy_publisher(self._publisher)

    def sent(self, stamp: int) -> bool:
        """Return whether the pose with a stamp (ns) is the one that was sent last."""
        return stamp == self._stamp

    def pose(self, message: Any, odometry: OdometryPose | None) -> None:
        """Publish a trusted pose, if it is news to a reader."""
        with self._lock:
            readers = self._readers()
            if readers > self._told:
                self._stamp = messages.stamp_ns(message.header)
                self._publisher.publish(message)
            self._told = readers

    def _forget_who_has_gone(self) -> None:
        with self._lock:
            self._told = min(self._told, self._readers())

    def _readers(self) -> int:
        return max(0, int(self._publisher.get_subscription_count()) - self._own)
