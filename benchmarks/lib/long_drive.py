"""
Bags of a camera's drive for the benchmarks of throughput, and the network alone, their peer.

The bags show pictures of the street in turns. Every frame is a new place, so that none is left
out. Nothing is measured here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.lib import street_map
import numpy as np
from vpr_ros.core.poses import planar
from vpr_ros.io import messages
from vpr_ros.io.bag import BagWriter
from vpr_ros.io.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder

IMAGES, POSES = '/camera/image_raw', '/ground_truth/pose'
STEP = 100_000_000
"""Nanoseconds from frame to frame; the robot drives a metre meanwhile."""


def pictures(count: int, width: int = 640, height: int = 480) -> list[NDArray[np.uint8]]:
    """Return `count` different pictures of the street, uint8 (height,width,3) RGB."""
    rate = 10.0
    frames = street_map.spring_drive((count + 2) * street_map.SPEED / rate, rate, width, height)
    return [frame.image for frame, _ in zip(frames, range(count), strict=False)]


def write(path: Path, views: list[NDArray[np.uint8]], count: int, *, compressed: bool) -> Path:
    """
    Write a bag of `count` frames that show the views in turns; return its path.

    Raw, or as JPEG of quality 90.
    """
    where = planar(np.arange(count, dtype=np.float64), np.zeros(count), np.zeros(count))
    picture = messages.compressed_image if compressed else messages.image
    shown = [picture(BagWriter.types, 0, 'camera', view) for view in views]
    with BagWriter(path) as bag:
        for number in range(count):
            stamp = (number + 1) * STEP
            bag.write(POSES, messages.pose_stamped(bag.types, stamp, 'map', where[number]), stamp)
            message = shown[number % len(shown)]
            message.header = messages.header(bag.types, stamp, 'camera')
            bag.write(IMAGES, message, stamp)
    return path


def encode_all(encoder: Encoder, call: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Call a method of an encoder with each of the items, as many at once as suits it."""
    for _, future in prefetch(call, items, depth=encoder.concurrency, threads=encoder.concurrency):
        future.result()
