"""
What the node publishes: an Estimate as the messages that its consumers take.

When a frame is localised, and on which map, is in operations.py.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from vpr_ros.core import images
from vpr_ros.core import uncertainty
from vpr_ros.core.errors import MapError
from vpr_ros.io import messages
from vpr_ros.localization.refined_image import refined_image
from vpr_ros.ros.interfaces import rclpy_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rclpy.lifecycle import LifecycleNode
    from vpr_ros.localization.estimate import Candidates
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.localization.localizer import Localizer
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.ros.inputs import OdometryBuffer
    from vpr_ros.ros.inputs import OdometryPose
    from vpr_ros.ros.pose_output import PoseOutput

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_POSE = 'geometry_msgs/msg/PoseWithCovarianceStamped'
_DEBUG_HEIGHT = 240
_MOST_LANDMARKS = 100_000


class Publishers:
    """
    The publishers of a configured node.

    `flat`: z, roll and pitch are zero, for ground robots; `non_negative`: no entry of the
    covariance is below zero (uncertainty.non_negative), as nav2 of ROS 2 Lyrical requires;
    `outputs`: what else gets each trusted pose, and is closed with the publishers.
    """

    def __init__(self, node: LifecycleNode, *, flat: bool, non_negative: bool,
                 outputs: Sequence[PoseOutput] = ()) -> None:
        self._node = node
        self._flat = flat
        self._non_negative = non_negative
        self._outputs = outputs
        self._publishers: list[Any] = []
        self._pose = self._publisher(_POSE, '~/pose', 10)
        self._confidence = self._publisher('std_msgs/msg/Float32', '~/confidence', 10)
        self._candidates = self._publisher(messages.CLOUD, '~/candidates', 10)
        self._belief = self._publisher(messages.CLOUD, '~/belief', 1)
        self._map = self._publisher(messages.CLOUD, '~/map', _LATCHED)
        self._debug = self._publisher(messages.COMPRESSED_IMAGE, '~/debug_image/compressed', 1)
        self._inliers = self._publisher(messages.CLOUD, '~/inliers', 10)
        self._landmarks = self._publisher(messages.CLOUD, '~/landmarks', _LATCHED)
        self._refined = self._publisher(messages.COMPRESSED_IMAGE, '~/refined_image/compressed', 1)

    def close(self) -> None:
        """Remove the publishers from the node."""
        for output in self._outputs:
            output.close()
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []

    def start(self) -> None:
        """Begin, when the node is activated."""
        for output in self._outputs:
            output.start()

    def stop(self) -> None:
        """Pause, when the node is deactivated."""
        for output in self._outputs:
            output.stop()

    def start_over(self) -> None:
        """Forget the poses so far: a new drive begins."""
        for output in self._outputs:
            output.start_over()

    def values(self) -> dict[str, str]:
        """Return what the diagnostics show of the outputs."""
        return {name: value for output in self._outputs for name, value in output.values().items()}

    def sent(self, message: Any) -> bool:
        """Return whether an `initialpose` is the node's own, which comes back to it."""
        return any(output.sent(messages.stamp_ns(message.header)) for output in self._outputs)

    def odometry_came(self, buffer: OdometryBuffer) -> None:
        """Tell the outputs of new odometry."""
        for output in self._outputs:
            output.odometry_came(buffer)

    def publish_pose(self, estimate: Estimate, localizer: Localizer,
                     odometry: OdometryPose | None) -> None:
        """
        Publish a trusted pose, and hand it to the other outputs.

        `odometry` is that at the estimate's stamp, or the latest before it, if any.
        """
        frame_id = localizer.place_map.manifest.frame_id
        pose, covariance = estimate.pose, estimate.covariance
        if self._flat:
            pose, covariance = uncertainty.flattened(pose, covariance)
        if self._non_negative:
            covariance = uncertainty.non_negative(covariance)
        message = messages.pose_with_covariance(rclpy_types, estimate.stamp, frame_id, pose,
                                                covariance)
        self._pose.publish(message)
        for output in self._outputs:
            output.pose(message, odometry)

    def publish_details(self, estimate: Estimate, modes: Candidates, localizer: Localizer,
                        rgb: NDArray[np.uint8]) -> None:
        """
        Publish everything but the pose: what every frame gets, and what has a subscriber.

        `modes` are those of the belief after the frame, `rgb` (H,W,3) is its image.
        """
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
            self._publish_debug(estimate, localizer, rgb)

    def publish_refined(self, estimate: Estimate, localizer: Localizer, rgb: NDArray[np.uint8],
                        mount: NDArray[np.float64]) -> None:
        """
        Publish the landmarks that a refined pose agrees with, also as an image if that is wanted.

        `rgb` (H,W,3) is the frame's image, taken by a camera at `mount` (7,) on the robot.
        """
        assert estimate.landmarks is not None
        assert estimate.keypoints is not None
        frame_id = localizer.place_map.manifest.frame_id
        columns = (*estimate.landmarks.T, *estimate.keypoints.T)
        self._inliers.publish(messages.cloud(rclpy_types, estimate.stamp, frame_id,
                                             dict(zip('xyzuv', columns, strict=True))))
        if self._refined.get_subscription_count():
            canvas = refined_image(rgb, estimate.keypoints, estimate.landmarks, estimate.pose,
                                   place_map=localizer.place_map, mount=mount,
                                   height=_DEBUG_HEIGHT)
            deviation = np.sqrt(np.diag(estimate.covariance)[:2].max())
            self._refined.publish(messages.compressed_image(
                rclpy_types, estimate.stamp, frame_id, images.captioned(
                    canvas, f'{estimate.inliers} landmarks, {deviation:.2f} m', (0, 255, 0))))

    def publish_landmarks(self, place_map: PlaceMap, *, used: bool) -> None:
        """Publish the landmarks of a map, latched: of many an even selection, none if not used."""
        points = np.empty((0, 3))
        if used and place_map.landmarks is not None:
            points = place_map.landmarks.some(_MOST_LANDMARKS)
        self._landmarks.publish(messages.cloud(
            rclpy_types, self._node.get_clock().now().nanoseconds, place_map.manifest.frame_id,
            dict(zip('xyz', points.T, strict=True))))

    def publish_map(self, place_map: PlaceMap) -> None:
        """Publish the places of a map, latched."""
        x, y, z = place_map.poses[:, :3].T
        self._map.publish(messages.cloud(
            rclpy_types, self._node.get_clock().now().nanoseconds, place_map.manifest.frame_id,
            {'x': x, 'y': y, 'z': z, 'session': place_map.sessions}))

    def _publish_debug(self, estimate: Estimate, localizer: Localizer,
                       rgb: NDArray[np.uint8]) -> None:
        try:
            match = localizer.place_map.thumbnail(int(estimate.candidates.places[0]))
        except MapError as error:  # harmless: localisation does not use thumbnails
            match = None
            self._node.get_logger().warning(f'debug image: {error}', throttle_duration_sec=5.0)
        views = [rgb] if match is None else [rgb, match]
        caption = f'{estimate.confidence:.2f}'
        if estimate.reason is not None:
            caption += f' {estimate.reason.value}'
        canvas = images.captioned(images.side_by_side(views, _DEBUG_HEIGHT), caption,
                                  (0, 255, 0) if estimate.trusted else (255, 64, 0))
        self._debug.publish(messages.compressed_image(
            rclpy_types, estimate.stamp, localizer.place_map.manifest.frame_id, canvas))

    def _publisher(self, kind: str, topic: str, qos: QoSProfile | int) -> Any:
        publisher = self._node.create_lifecycle_publisher(rclpy_types(kind), topic, qos)
        self._publishers.append(publisher)
        return publisher
