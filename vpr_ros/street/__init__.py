"""
The street: a small procedural town with seasons, rendered in software, for demo and tests.

A drive yields frames, exact poses and drifting odometry; record.py writes them to a bag.
"""

from vpr_ros.street.camera import CAMERA_HEIGHT
from vpr_ros.street.camera import camera_matrix
from vpr_ros.street.conditions import CONDITIONS
from vpr_ros.street.drive import drive
from vpr_ros.street.drive import DriveFrame
from vpr_ros.street.drive import DriveOptions
from vpr_ros.street.town import Town

__all__ = ['CAMERA_HEIGHT', 'CONDITIONS', 'DriveFrame', 'DriveOptions', 'Town', 'camera_matrix',
           'drive']
