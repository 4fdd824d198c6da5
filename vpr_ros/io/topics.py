"""Which topic of a bag is read when none is named: what its type, encoding and name say."""

from __future__ import annotations

import re
from typing import Any

from vpr_ros.core import raw_images
from vpr_ros.io import messages

IMAGE_TYPES = (messages.RAW_IMAGE, messages.COMPRESSED_IMAGE)

ODOMETRY = 'nav_msgs/msg/Odometry'
TRANSFORMS = 'tf2_msgs/msg/TFMessage'
FIX = 'sensor_msgs/msg/NavSatFix'

# In order of preference: poses of a localiser or a survey are better than odometry, which drifts.
POSE_TYPES = ('geometry_msgs/msg/PoseWithCovarianceStamped', 'geometry_msgs/msg/PoseStamped',
              ODOMETRY, TRANSFORMS, FIX)

NO_VIEW = 2
"""Rank of images that are not what a camera sees."""

_OTHER_LIGHT = {'infra', 'infrared', 'ir', 'thermal', 'lwir'}
_OTHER = {'depth', 'confidence', 'disparity', 'mask', 'segmentation', 'semantic', 'label',
          'labels', 'normals', 'heatmap', 'debug'}
_COMMANDS = {'goal', 'initialpose', 'initial', 'setpoint', 'target', 'waypoint',
             'vpr'}  # the last is this package's own pose
_DEPTH = ('16UC1', '32FC1')
_VIDEO = ('h264', 'h265', 'hevc', 'av1')


def image_rank(topic: str, message: Any) -> int:
    """
    Return how little a topic looks like a camera's view, by its name and its first message.

    0: colour or grey; 1: infrared or thermal; NO_VIEW: depth, masks, and what cannot be read.
    """
    if message is None:
        return NO_VIEW
    words = _words(topic)
    encoding = getattr(message, 'encoding', None)
    if encoding is None:
        encoding = message.format.partition(';')[0].strip()
        known = encoding.lower() not in _VIDEO and 'compressedDepth' not in message.format
    else:
        known = encoding in raw_images.ENCODINGS
    if words & _OTHER or encoding in _DEPTH or not known:
        return NO_VIEW
    return 1 if words & _OTHER_LIGHT or encoding == 'mono16' else 0


def is_command(topic: str) -> bool:
    """Return whether a topic of poses is not that of a drive: goals, initial poses, estimates."""
    return bool(_words(topic) & _COMMANDS)


def _words(topic: str) -> set[str]:
    return set(re.split('[^a-z]+', topic.lower()))
