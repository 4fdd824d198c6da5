"""What the node knows of the robot's camera: its lens, and where on the robot it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from typing import TYPE_CHECKING

from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from vpr_ros.core.camera import camera_pose
from vpr_ros.core.errors import SourceError
from vpr_ros.io.pose_messages import camera_mount
from vpr_ros.io.pose_messages import frame_name
from vpr_ros.ros.interfaces import rclpy_types

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rclpy.node import Node
    from vpr_ros.core.camera import Camera

_TRANSFORMS = 'tf2_msgs/msg/TFMessage'

_FARTHEST = 1000.0
"""Metres and radians of a camera's pose on a robot."""


def mount_of(text: str) -> NDArray[np.float64] | None:
    """
    Return the pose (7,) of a camera, in optical axes, that the parameter `camera_pose` names.

    None for an empty one. Raises ValueError for one that is not six numbers.
    """
    if not text.strip():
        return None
    try:
        x, y, z, roll, pitch, yaw = (float(part) for part in text.replace(',', ' ').split())
        if not max(map(abs, (x, y, z, roll, pitch, yaw))) < _FARTHEST:  # nor NaN
            raise ValueError
    except ValueError:
        raise ValueError(f"camera_pose must be six numbers 'x y z roll pitch yaw' in m and rad, "
                         f"not '{text}'") from None
    return camera_pose(x, y, z, roll, pitch, yaw)


class RobotCamera:
    """
    The camera of the robot, as CameraInfo, /tf_static or the parameter `camera_pose` tell it.

    The executor's thread writes, another reads.
    """

    def __init__(self, given: str = '') -> None:
        self.lens: Camera | None = None
        self._given = mount_of(given)
        self._listens = False
        self._fixed: dict[tuple[str, str], Any] = {}

    @property
    def source(self) -> str:
        """Return what says where the camera is."""
        return '/tf_static' if self._given is None else 'camera_pose'

    def listen(self, node: Node) -> list[Any]:
        """Return the subscription of /tf_static, on which each part of a robot may publish."""
        if self._given is not None:
            return []
        try:
            kind = rclpy_types(_TRANSFORMS)
        except ModuleNotFoundError:
            return []
        self._listens = True
        return [node.create_subscription(kind, '/tf_static', self.on_transforms, QoSProfile(
            depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL))]

    def on_transforms(self, message: Any) -> None:
        """Keep the transforms of a TFMessage."""
        # A new dictionary: the other thread may be reading the old one.
        self._fixed = self._fixed | {
            (frame_name(each.header.frame_id), frame_name(each.child_frame_id)): each
            for each in message.transforms}

    def known(self, robot: str, frame_id: str) -> tuple[Camera, NDArray[np.float64]]:
        """
        Return the lens and the pose (7,), in optical axes, of the camera in the frame `robot`.

        `frame_id` is that of its images. Raises SourceError, which says what is missing.
        """
        lens = self.lens
        if lens is None:
            raise SourceError('no CameraInfo')
        if lens.problem:
            raise SourceError(lens.problem)
        if self._given is not None:
            return lens, self._given
        if not self._listens:
            raise SourceError('tf2_msgs is not installed, so /tf_static cannot be read: set the '
                              'parameter camera_pose')
        fixed = SimpleNamespace(transforms=list(self._fixed.values()))
        return lens, camera_mount([(0, fixed)], robot, frame_id, 'set the parameter camera_pose')
