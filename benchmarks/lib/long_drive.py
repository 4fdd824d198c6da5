"""
Bags of a long drive for the benchmarks of throughput.

The bags repeat a few frames of the street. Each frame has a new place, so that maps keep all of
them. Nothing is measured here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.lib import street_map
from benchmarks.lib.node_run import IMAGE_TOPIC
import numpy as np
from vpr_ros.core.poses import planar
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

POSE_TOPIC = '/ground_truth/pose'
STEP = 100_000_000
"""Nanoseconds from frame to frame, in which the robot drives one metre."""


def street_frames(count: int, width: int = 640, height: int = 480) -> list[NDArray[np.uint8]]:
    """Return `count` different images of the street, uint8 (height,width,3) RGB."""
    rate = 10.0
    frames = street_map.spring_drive((count + 2) * street_map.SPEED / rate, rate, width, height)
    return [frame.image for frame, _ in zip(frames, range(count), strict=False)]


def write(path: Path, views: list[NDArray[np.uint8]], count: int, *, compressed: bool) -> Path:
    """
    Write a bag of `count` frames that repeat the views; return its path.

    Images are raw, or JPEG of quality 90.
    """
    track = planar(np.arange(count, dtype=np.float64), np.zeros(count), np.zeros(count))
    convert = messages.compressed_image if compressed else messages.image
    repeated = [convert(BagWriter.types, 0, 'camera', view) for view in views]
    with BagWriter(path) as bag:
        for number in range(count):
            stamp = (number + 1) * STEP
            bag.write(POSE_TOPIC,
                      messages.pose_stamped(bag.types, stamp, 'map', track[number]), stamp)
            message = repeated[number % len(repeated)]
            message.header = messages.header(bag.types, stamp, 'camera')
            bag.write(IMAGE_TOPIC, message, stamp)
    return path
