"""Play a bag to the real node over DDS, each a process of its own, and keep what it said.

The frames that the benchmarks of the node send are in street_map.py and sets.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
import os
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.errors import VprError
from vpr_ros.ros import messages
from vpr_ros.ros.bag import Bag

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

IMAGES = '/camera/image_raw'
START_LIMIT = 60.0
"""Seconds that the node gets to load its model and map."""

NO_ROS = 'skipped, for there is no ROS 2 here'


def has_ros() -> bool:
    """Return whether the node can run here."""
    return find_spec('rclpy') is not None


@dataclass(frozen=True)
class NodeRun:
    """What the node said of a bag.

    stamps int64 (N,) of the frames it localised; positions float64 (N,3) of their best
    candidates; published, the poses (7,) that it sent, by stamp; latest, its diagnostics after
    the last frame; sent, the frames of the bag.
    """

    stamps: NDArray[np.int64]
    positions: NDArray[np.float64]
    published: dict[int, NDArray[np.float64]]
    latest: dict[str, str]
    sent: int


def play_to_node(bag_path: Path, parameters: Mapping[str, Any], folder: Path, *, rate: float = 1.0
                 ) -> NodeRun:
    """Play the whole of a bag to a node with these parameters; logs go to `folder`.

    Images are sent and taken reliably. Raises VprError when the node does not start, or ends.
    """
    from vpr_ros.ros import live
    os.environ.update(live.isolated_environment())
    with Bag(bag_path) as bag:
        sent, seconds = bag.count(IMAGES), bag.duration / rate
    log = folder / 'node.log'
    with live.Recorder() as recorder, live.process(
            'vpr_ros.ros.node', *live.node_arguments(
                {**parameters, 'image_reliable': 'true'}, IMAGES), log=log) as node:
        if not recorder.wait(lambda: bool(recorder.maps), START_LIMIT, node):
            raise VprError(f'the node did not start: {last_line(log)}')
        with live.process('vpr_ros.cli', 'play', str(bag_path), '--rate', str(rate), '--wait', '1',
                          '--wait-limit', '30', log=folder / 'play.log') as player:
            recorder.wait(lambda: player.poll() is not None, seconds + 60, node)
            if player.returncode != 0:
                raise VprError(f'the bag was not played: {last_line(folder / "play.log")}')
        # Until the last frames are through, and the diagnostics have counted them.
        recorder.wait(lambda: len(recorder.candidates) >= sent, 2, node)
        said = len(recorder.diagnostics)
        recorder.wait(lambda: len(recorder.diagnostics) > said + 1, 5, node)
    clouds = [messages.read_cloud(message) for message in recorder.candidates]
    return NodeRun(
        np.array([messages.stamp_ns(message.header) for message in recorder.candidates], np.int64),
        np.array([[cloud[axis][0] for axis in 'xyz'] for cloud in clouds]).reshape(-1, 3),
        {messages.stamp_ns(message.header): messages.pose_of(message)
         for message in recorder.poses},
        recorder.diagnostics[-1], sent)


def last_line(log: Path) -> str:
    """Return the last line of a log, or where it is when it is empty."""
    lines = log.read_text(errors='replace').strip().splitlines()
    return lines[-1] if lines else f'{log} is empty'
