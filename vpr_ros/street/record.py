"""
Record a drive through the street as a rosbag2, as a robot with a camera would.

The drive itself comes from drive.py; how a bag is written is in io/bag.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.camera import camera_pose
from vpr_ros.core.errors import SourceError
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.street import CAMERA_HEIGHT
from vpr_ros.street import camera_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.street import DriveFrame

CAMERA_FRAME = 'camera_optical_frame'

CAMERA_POSE = (0.0, 0.0, CAMERA_HEIGHT, 0.0, 0.0, 0.0)
"""Where the camera is on the robot: x, y, z in m, roll, pitch, yaw in rad, as in a URDF."""

MOUNT = camera_pose(*CAMERA_POSE)
"""The same as a pose (7,) of optical axes in base_link."""

# Standard deviations of the odometry, as the datasheet of a robot would state them.
_POSITION_DRIFT = 0.02
"""Metres per metre travelled."""
_HEADING_DRIFT = 0.005
"""Radians per square root of a metre travelled: a random walk."""
TWIST_VARIANCE = np.diag([0.1, 0.05, 0.01, 0.01, 0.01, 0.02]) ** 2


def record(path: str | Path, frames: Iterable[DriveFrame], *, compressed: bool = False,
           overwrite: bool = False) -> int:
    """
    Write a drive to a rosbag2 and return the number of its frames.

    Topics: /camera/image_raw (Image), or with `compressed` /camera/image_raw/compressed (JPEG);
    /camera/camera_info; /tf_static with the camera's pose on the robot; /odom (Odometry from odom
    to base_link, which drifts); and /ground_truth/pose (PoseStamped of base_link in map). A path
    that ends in .mcap is written as mcap, any other as sqlite3. Raises VprError when the path
    exists already (and `overwrite` is false) or cannot be written, SourceError when there are no
    frames.
    """
    count, travelled, last = 0, 0.0, None
    with BagWriter(path, overwrite=overwrite) as bag:
        for frame in frames:
            if last is None:
                bag.write('/tf_static', messages.transforms(bag.types, [messages.transform(
                    bag.types, frame.stamp, 'base_link', CAMERA_FRAME, MOUNT)]), frame.stamp)
            else:
                travelled += abs(float(frame.velocity[0])) * (frame.stamp - last) / 1e9
            last = frame.stamp
            _write(bag, frame, travelled, compressed=compressed)
            count += 1
        if count == 0:
            raise SourceError(f'{path} is not written: the drive has no frames')
    return count


def _write(bag: BagWriter, frame: DriveFrame, travelled: float, *, compressed: bool) -> None:
    stamp, types = frame.stamp, bag.types
    bag.write('/odom', messages.odometry(
        types, stamp, 'odom', 'base_link', frame.odometry, frame.velocity,
        pose_covariance=_odometry_covariance(travelled), twist_covariance=TWIST_VARIANCE), stamp)
    bag.write('/ground_truth/pose', messages.pose_stamped(types, stamp, 'map', frame.pose), stamp)
    height, width = frame.image.shape[:2]
    bag.write('/camera/camera_info', messages.camera_info(
        types, stamp, CAMERA_FRAME, camera_matrix(width, height), width, height), stamp)
    if compressed:
        bag.write('/camera/image_raw/compressed',
                  messages.compressed_image(types, stamp, CAMERA_FRAME, frame.image), stamp)
    else:
        bag.write('/camera/image_raw',
                  messages.image(types, stamp, CAMERA_FRAME, frame.image), stamp)


def _odometry_covariance(travelled: float) -> NDArray[np.float64]:
    """Return the covariance (6,6) of odometry after `travelled` metres on flat ground."""
    position = 0.01 + _POSITION_DRIFT * travelled
    heading = 0.001 + _HEADING_DRIFT * np.sqrt(travelled)
    return np.diag([position, position, 0.01, 0.01, 0.01, heading]) ** 2
