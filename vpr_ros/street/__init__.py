"""
The street: a small procedural town with seasons, rendered in software, for demo and tests.

A drive gives frames, exact poses and drifting odometry. Writing them to a bag lives elsewhere.
"""

from vpr_ros.street.conditions import CONDITIONS
from vpr_ros.street.drive import drive
from vpr_ros.street.drive import DriveFrame
from vpr_ros.street.render import camera_matrix
from vpr_ros.street.town import Town

__all__ = ['CONDITIONS', 'DriveFrame', 'Town', 'camera_matrix', 'drive']
