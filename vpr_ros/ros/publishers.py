"""
What the node publishes: an Estimate as the messages that its consumers want.

When a frame is localised, and on which map, is in node.py.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.ros.interfaces import rclpy_types

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rclpy.lifecycle import LifecycleNode
    from vpr_ros.localization.estimate import Candidates
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.localization.localizer import Localizer
    from vpr_ros.maps.place_map import PlaceMap

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_POSE = 'geometry_msgs/msg/PoseWithCovarianceStamped'
_DEBUG_HEIGHT = 240


class Outputs:
    """
    The publishers of a configured node.

    `flat`: z, roll and pitch are zero, for robots on the ground; `non_negative`: no entry of the
    covariance is below zero (poses.non_negative), as nav2 wants it; `initialpose_topic`: where the
    first trusted pose goes, once, '' for nowhere; `publish_tf`: map -> odom through tf2. Raises
    VprError when that is wanted and tf2_ros is missing.
    """

    def __init__(self, node: LifecycleNode, *, flat: bool, non_negative: bool,
                 initialpose_topic: str, publish_tf: bool) -> None:
        self._node = node
        self._flat = flat
        self._non_negative = non_negative
        self._publishers: list[Any] = []
        self._broadcaster: Any = None
        if publish_tf:
            try:
                from tf2_ros import TransformBroadcaster
            except ModuleNotFoundError as error:
                raise VprError('publish_tf needs tf2_ros, which is not installed: '
                               'apt install ros-$ROS_DISTRO-tf2-ros-py') from error
            self._broadcaster = TransformBroadcaster(node)
        self._pose = self._publisher(_POSE, '~/pose', 10)
        self._confidence = self._publisher('std_msgs/msg/Float32', '~/confidence', 10)
        self._candidates = self._publisher(messages.CLOUD, '~/candidates', 10)
        self._belief = self._publisher(messages.CLOUD, '~/belief', 1)
        self._map = self._publisher(messages.CLOUD, '~/map', _LATCHED)
        self._debug = self._publisher(messages.COMPRESSED_IMAGE, '~/debug_image/compressed', 1)
        self._initial = (self._publisher(_POSE, initialpose_topic, 1) if initialpose_topic
                         else None)
        self._told = False

    def close(self) -> None:
        """Take the publishers off the node."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []

    def tell_again(self) -> None:
        """Publish the next trusted pose on `initialpose_topic`, too."""
        self._told = False

    def publish_pose(self, estimate: Estimate, localizer: Localizer,
                     odometry: tuple[str, NDArray[np.float64]] | None) -> None:
        """Publish the pose of a frame; `odometry` is its frame and its pose (7,) at the stamp."""
        frame_id = localizer.place_map.manifest.frame_id
        pose, covariance = estimate.pose, estimate.covariance
        if self._flat:
            pose, covariance = poses.flattened(pose, covariance)
        if self._non_negative:
            covariance = poses.non_negative(covariance)
        message = messages.pose_with_covariance(rclpy_types, estimate.stamp, frame_id, pose,
                                                covariance)
        self._pose.publish(message)
        if self._initial is not None and not self._told:
            self._initial.publish(message)
            self._told = True
        if self._broadcaster is not None and odometry is not None:
            odom, at = odometry
            self._broadcaster.sendTransform(messages.transform(
                rclpy_types, estimate.stamp, frame_id, odom, poses.frame_between(pose, at)))

    def publish_rest(self, estimate: Estimate, modes: Candidates, localizer: Localizer,
                     picture: NDArray[np.uint8]) -> None:
        """Publish what else came of a frame, with a pose or without: `modes` of the belief."""
        frame_id = localizer.place_map.manifest.frame_id
        self._confidence.publish(messages.float32(rclpy_types, estimate.confidence))
        x, y, z = modes.poses[:, :3].T
        self._candidates.publish(messages.cloud(rclpy_types, estimate.stamp, frame_id, {
            'x': x, 'y': y, 'z': z, 'probability': modes.probability,
            'similarity': modes.similarity, 'place': modes.places}))
        if self._belief.get_subscription_count():
            x, y, z = localizer.place_map.poses[:, :3].T
            self._belief.publish(messages.cloud(rclpy_types, estimate.stamp, frame_id, {
                'x': x, 'y': y, 'z': z, 'probability': localizer.belief}))
        if self._debug.get_subscription_count():
            self._publish_debug(estimate, localizer, picture)

    def publish_map(self, place_map: PlaceMap) -> None:
        """Publish the places, for those who come late too."""
        x, y, z = place_map.poses[:, :3].T
        self._map.publish(messages.cloud(
            rclpy_types, self._node.get_clock().now().nanoseconds, place_map.manifest.frame_id,
            {'x': x, 'y': y, 'z': z, 'session': place_map.sessions}))

    def _publish_debug(self, estimate: Estimate, localizer: Localizer,
                       picture: NDArray[np.uint8]) -> None:
        try:
            match = localizer.place_map.thumbnail(int(estimate.candidates.places[0]))
        except MapError as error:  # of no weight: the place was found by its descriptor
            match = None
            self._node.get_logger().warning(f'debug image: {error}', throttle_duration_sec=5.0)
        pictures = [picture] if match is None else [picture, match]
        caption = f'{estimate.confidence:.2f}'
        if estimate.reason is not None:
            caption += f' {estimate.reason.value}'
        canvas = images.captioned(images.side_by_side(pictures, _DEBUG_HEIGHT),
                                  caption,
                                  (0, 255, 0) if estimate.trusted else (255, 64, 0))
        self._debug.publish(messages.compressed_image(
            rclpy_types, estimate.stamp, localizer.place_map.manifest.frame_id, canvas))

    def _publisher(self, kind: str, topic: str, qos: QoSProfile | int) -> Any:
        publisher = self._node.create_lifecycle_publisher(rclpy_types(kind), topic, qos)
        self._publishers.append(publisher)
        return publisher
