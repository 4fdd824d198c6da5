"""
Play a bag to the real node over DDS, in processes of their own, and keep its answers.

The frames that are sent come from street_map.py and sets.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

IMAGE_TOPIC = '/camera/image_raw'
NO_ROS = 'skipped: ROS 2 is not installed'


def has_ros() -> bool:
    """Return whether the node can run here."""
    return find_spec('rclpy') is not None


@dataclass(frozen=True)
class NodeRun:
    """
    The answers of the node to a bag.

    `stamps` int64 (N,) are those of the frames that it localised; `positions` float64 (N,3) of
    their best candidates; `published` the poses (7,) it sent, by stamp; `latest` its diagnostics
    after the last frame; `sent` the number of frames in the bag.
    """

    stamps: NDArray[np.int64]
    positions: NDArray[np.float64]
    published: dict[int, NDArray[np.float64]]
    latest: dict[str, str]
    sent: int


def play_to_node(bag_path: Path, parameters: Mapping[str, Any], folder: Path, *, rate: float = 1.0
                 ) -> NodeRun:
    """
    Play a whole bag to a node with these parameters; logs go to `folder`.

    The QoS of images is reliable. Raises VprError when the node does not start, or ends.
    """
    from vpr_ros.ros import node_process
    with Bag(bag_path) as bag:
        sent, seconds = bag.count(IMAGE_TOPIC), bag.duration / rate
    recorder = node_process.play_to_node(bag_path, parameters, folder, image_topic=IMAGE_TOPIC,
                                         rate=rate, limit=seconds + 60)
    clouds = [messages.read_cloud(message) for message in recorder.candidates]
    return NodeRun(
        np.array([messages.stamp_ns(message.header) for message in recorder.candidates], np.int64),
        np.array([[cloud[axis][0] for axis in 'xyz'] for cloud in clouds]).reshape(-1, 3),
        {messages.stamp_ns(message.header): messages.pose_of(message)
         for message in recorder.poses},
        recorder.diagnostics[-1], sent)
