"""
Run the node as a separate process, play a bag to it over DDS, and record what it publishes.

For the demo, the benchmarks and the tests; a robot does not need it.
"""

from __future__ import annotations

from contextlib import contextmanager
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import packaged
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.ros.interfaces import rclpy_types

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray

NODE = '/vpr_localizer'

START_LIMIT = 60.0
"""Seconds that the node gets to load its model and map."""


def isolated_environment() -> dict[str, str]:
    """Return the variables that keep the messages of this run apart from other ROS 2 processes."""
    profile = str(packaged('config/fastdds.xml'))
    return {'ROS_DOMAIN_ID': str(1 + os.getpid() % 100),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'FASTRTPS_DEFAULT_PROFILES_FILE': profile, 'FASTDDS_DEFAULT_PROFILES_FILE': profile}


@contextmanager
def process(module: str, *arguments: str, log: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module arguments`; at the end interrupt it, and kill it after 10 s."""
    with Path(log).open('wb') as file:
        running = subprocess.Popen([sys.executable, '-m', module, *arguments], stdout=file,
                                   stderr=subprocess.STDOUT)
        try:
            yield running
        finally:
            running.send_signal(signal.SIGINT)
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def node_arguments(parameters: Mapping[str, object], image_topic: str,
                   odometry_topic: str = '/odom') -> list[str]:
    """Return the command-line arguments of a node that configures and activates itself."""
    assigned = {**parameters, 'autostart': 'true'}
    return ['--ros-args', '-r', f'image:={image_topic}',
            '-r', f'image/compressed:={image_topic}', '-r', f'odom:={odometry_topic}',
            *(part for name, value in assigned.items() for part in ('-p', f'{name}:={value}'))]


class Recorder:
    """
    Records all that the node publishes, message by message. A context manager.

    `diagnostics` holds each status as a dictionary of its values, with `level` and `message`.
    """

    def __init__(self) -> None:
        self.poses: list[Any] = []
        self.confidences: list[float] = []
        self.candidates: list[Any] = []
        self.inliers: list[Any] = []
        self.maps: list[Any] = []
        self.diagnostics: list[dict[str, str]] = []
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node('vpr_recorder', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for kind, topic, take, qos in (
                ('geometry_msgs/msg/PoseWithCovarianceStamped', f'{NODE}/pose',
                 self.poses.append, 100),
                ('std_msgs/msg/Float32', f'{NODE}/confidence',
                 lambda message: self.confidences.append(message.data), 100),
                (messages.CLOUD, f'{NODE}/candidates', self.candidates.append, 100),
                (messages.CLOUD, f'{NODE}/inliers', self.inliers.append, 100),
                (messages.CLOUD, f'{NODE}/map', self.maps.append, latched),
                ('diagnostic_msgs/msg/DiagnosticArray', '/diagnostics', self._on_diagnostics, 10)):
            self.node.create_subscription(rclpy_types(kind), topic, take, qos)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.node.destroy_node()
        self._context.try_shutdown()

    def wait(self, happened: Callable[[], bool], limit: float,
             process: subprocess.Popen[bytes] | None = None) -> bool:
        """
        Take messages until `happened()`; return whether that was within `limit` seconds.

        Raises VprError when `process`, which should send them, has ended.
        """
        end = time.monotonic() + limit
        while not happened():
            if time.monotonic() > end:
                return False
            if process is not None and process.poll() is not None:
                raise VprError(f'the node ended with exit code {process.returncode}')
            self._executor.spin_once(timeout_sec=0.1)
        return True

    def drive(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """
        Return the stamps (N,) of all frames, poses (N,7), and which of them were published (N,).

        A frame without a published pose has the position of its best candidate instead.
        """
        published = {messages.stamp_ns(message.header): messages.pose_of(message)
                     for message in self.poses}
        stamps = np.array([messages.stamp_ns(message.header) for message in self.candidates],
                          np.int64)
        values = [published.get(stamp, place) for stamp, place in zip(stamps.tolist(),
                                                                      self.places(), strict=True)]
        return stamps, np.array(values).reshape(-1, 7), np.isin(stamps, list(published))

    def places(self) -> NDArray[np.float64]:
        """Return the poses (N,7) of the best candidates of all frames, without their headings."""
        values = np.tile(poses.IDENTITY, (len(self.candidates), 1))
        for value, message in zip(values, self.candidates, strict=True):
            cloud = messages.read_cloud(message)
            value[:3] = [cloud[axis][0] for axis in 'xyz']
        return values

    def refined(self) -> dict[int, NDArray[np.float64]]:
        """
        Return the landmarks that agree in refined images, by the stamps of these.

        (I,5): x, y, z in the map's frame, and u, v in the image, in pixels.
        """
        clouds = [(messages.stamp_ns(message.header), messages.read_cloud(message))
                  for message in self.inliers]
        return {stamp: np.stack([cloud[axis] for axis in 'xyzuv'], axis=1).astype(np.float64)
                for stamp, cloud in clouds}

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            self.diagnostics.append({
                'level': str(status.level[0]), 'message': status.message,
                **{pair.key: pair.value for pair in status.values}})


def play_to_node(bag_path: Path, parameters: Mapping[str, object], folder: Path, *,
                 image_topic: str, topics: Sequence[str] = (), rate: float = 1.0,
                 limit: float = 300.0, progress: Callable[[int], object] | None = None
                 ) -> Recorder:
    """
    Play a bag to a node of its own; return the recorder, closed, with all that was published.

    The images on `image_topic` are sent and received reliably; `topics` are played, or all; logs
    go to `folder`; `limit` is in seconds; `progress` gets the number of frames localised so far.
    Raises VprError when the node or the player fails, or when no frame is localised.
    """
    with Bag(bag_path) as bag:
        frames = bag.count(image_topic)
    os.environ.update(isolated_environment())
    node_log, player_log = folder / 'node.log', folder / 'play.log'
    with Recorder() as recorder, process(
            'vpr_ros.ros.run',
            *node_arguments({**parameters, 'image_reliable': 'true'}, image_topic),
            log=node_log) as node:
        if not recorder.wait(lambda: bool(recorder.maps), START_LIMIT, node):
            raise VprError(f'the node did not start: {last_line(node_log)}')
        with process('vpr_ros.cli', 'play', str(bag_path), '--rate', str(rate), '--wait', '1',
                     '--wait-limit', '30', *(['--topics', *topics] if topics else []),
                     log=player_log) as player:
            def played() -> bool:
                if progress is not None:
                    progress(len(recorder.candidates))
                return player.poll() is not None
            recorder.wait(played, limit, node)
            if player.returncode != 0:
                raise VprError(f'the bag was not played: {last_line(player_log)}')
        # The last frames may still be in the node, and diagnostics come once a second.
        recorder.wait(lambda: len(recorder.candidates) >= frames, 2, node)
        if not recorder.candidates:
            raise VprError(f'the node localised no frame: see {node_log}')
        count = len(recorder.diagnostics)
        if not recorder.wait(lambda: len(recorder.diagnostics) > count + 1, 5, node):
            raise VprError(f'the node publishes no diagnostics: see {node_log}')
    return recorder


def last_line(log: Path) -> str:
    """Return the last line of a log, or its path when it is empty."""
    lines = log.read_text(errors='replace').strip().splitlines()
    return lines[-1] if lines else f'{log} is empty'
