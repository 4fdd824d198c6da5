"""
Operating the node: its start, pause and resume, a swap of its map, a kill.

The map is a street in winter among 10,000 places; a drive along it in spring is sent at 15 Hz as
640x480 raw. What hours of driving do is measured by soak.py.
"""

from __future__ import annotations

import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import node_run
from benchmarks.lib import street_map
from benchmarks.lib import tables
import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages

if TYPE_CHECKING:
    from collections.abc import Callable
    import subprocess

    from numpy.typing import NDArray
    from vpr_ros.ros.node_process import Recorder
    from vpr_ros.street import DriveFrame

RATE = 15.0
LENGTH = 150.0
PLACES = 10_000
ROUNDS = 5
READY, RESUME, LOCALISED = 3.0, 0.2, 3.0
"""Targets in seconds: start to active; deactivate and activate; kill to a right pose."""
LIMIT = 30.0
DRIVEN = 5.0
"""Seconds from the first right pose to the kill."""


def node_operation(model: str | None = None) -> dict[str, Any]:
    """Run and operate the node; return the figures."""
    if not node_run.has_ros():
        print(f'the node in operation: {node_run.NO_ROS}')
        return {}
    from vpr_ros.ros import node_process
    os.environ.update(node_process.isolated_environment())
    encoder = Encoder(model)
    drive = list(street_map.spring_drive(LENGTH, RATE, 640, 480))
    small = street_map.winter_map(encoder, LENGTH)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        street_map.enlarged(small, PLACES).save(folder / 'map')
        street_map.enlarged(small, PLACES).save(folder / 'other_map')
        arguments = node_process.node_arguments(
            {'map': folder / 'map', 'model': encoder.path, 'provider': 'cpu',
             'image_reliable': 'true', 'state_file': folder / 'state'},
            node_run.IMAGE_TOPIC)

        def start() -> Any:
            return node_process.process('vpr_ros.ros.run', *arguments, log=folder / 'node.log')
        del encoder
        ready = [_ready(start) for _ in range(ROUNDS)]
        with node_process.Recorder() as recorder, start() as node:
            feed = _Feed(recorder, node, drive)
            feed.begin()
            resumed = [feed.resumed() for _ in range(ROUNDS)]
            swap = feed.swapped(folder / 'other_map')
        localised = [_killed(start, drive) for _ in range(ROUNDS)]
    return _show(ready, resumed, swap, localised)


def _show(ready: list[float], resumed: list[float], swap: dict[str, Any],
          localised: list[tuple[float, int]]) -> dict[str, Any]:
    seconds = [took for took, _ in localised]
    tables.show(f'The node in operation, {PLACES} places, 640x480 raw at {RATE:g} Hz', (
        'time', 'median s', 'worst s'), [
            ('start of the process to active', float(np.median(ready)), max(ready)),
            ('deactivate, then activate', float(np.median(resumed)), max(resumed)),
            ('after kill -9 and a restart: first frame to a right pose',
             float(np.median(seconds)), max(seconds))])
    tables.show('The map is swapped while frames arrive', tuple(swap), [tuple(swap.values())])
    lines = [
        tables.verdict(f'ready in {max(ready):.2f} s (target {READY:g} s)',
                       reached=max(ready) < READY),
        tables.verdict(f'active again in {max(resumed):.3f} s (target {RESUME:g} s)',
                       reached=max(resumed) < RESUME),
        tables.verdict(f'{swap["unanswered"]} frames unanswered during the swap, {swap["wrong"]} '
                       'wrong poses (target 0)',
                       reached=swap['unanswered'] == swap['wrong'] == 0),
        tables.verdict(f'localised {max(seconds):.1f} s after the first frame after a kill, '
                       f'{sum(wrong for _, wrong in localised)} wrong poses (target '
                       f'{LOCALISED:g} s, 0)', reached=max(seconds) < LOCALISED
                       and not any(wrong for _, wrong in localised))]
    timed = {'start to active': ready, 'deactivate, activate': resumed,
             'kill -9 to a right pose': seconds}
    return {'ready_s': ready, 'resumed_s': resumed, 'swap': swap, 'localised_s': seconds,
            'verdicts': lines, 'figures': [tables.bars(
                'The node in operation', 'median, best to worst of the rounds, s', {
                    name: float(np.median(took)) for name, took in timed.items()}, {
                        name: (min(took), max(took)) for name, took in timed.items()})]}


def _ready(start: Callable[[], Any]) -> float:
    """Return the seconds from the start of the process until it has published its map."""
    from vpr_ros.ros import node_process
    with node_process.Recorder() as recorder:
        begin = time.monotonic()
        with start() as node:
            recorder.wait(lambda: bool(recorder.maps), LIMIT, node)
            return time.monotonic() - begin


def _killed(start: Callable[[], Any], drive: list[DriveFrame]) -> tuple[float, int]:
    """
    Kill the node during the drive and start another one.

    Returns the seconds from its first frame to its first right pose, and the number of wrong
    poses until then.
    """
    from vpr_ros.ros import node_process
    with node_process.Recorder() as recorder:
        with start() as node:
            feed = _Feed(recorder, node, drive)
            feed.begin()
            recorder.wait(lambda: False, DRIVEN)
            node.kill()
            node.wait()
        with start() as node:
            again = _Feed(recorder, node, drive, feed)
            recorder.poses.clear()
            recorder.candidates.clear()
            again.until(lambda: bool(recorder.candidates) and again.right_pose())
            first = messages.stamp_ns(recorder.candidates[0].header)
            right = messages.stamp_ns(recorder.poses[-1].header)
            return (right - first) / 1e9, again.wrong()


class _Feed:
    """
    Sends the drive again and again while the recorder listens.

    `truth` holds the true pose (7,) of each frame by its stamp.
    """

    def __init__(self, recorder: Recorder, node: subprocess.Popen[bytes],
                 drive: list[DriveFrame], before: _Feed | None = None) -> None:
        from rclpy.qos import QoSProfile
        from vpr_ros.ros.interfaces import rclpy_types
        self._recorder = recorder
        self._process = node
        self._clients: dict[str, Any] = {}
        self.truth: dict[int, NDArray[np.float64]] = {} if before is None else before.truth
        if before is not None:
            return
        frames = [messages.image(rclpy_types, 0, 'camera', frame.image) for frame in drive]
        self.sent = 0
        camera = recorder.node.create_publisher(rclpy_types(messages.RAW_IMAGE),
                                                node_run.IMAGE_TOPIC, QoSProfile(depth=5))

        def send() -> None:
            number = self.sent % len(drive)
            self.sent += 1
            now = time.time_ns()
            frames[number].header.stamp = messages.time_message(rclpy_types, now)
            self.truth[now] = drive[number].pose
            camera.publish(frames[number])
        recorder.node.create_timer(1 / RATE, send)

    def until(self, happened: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait until something has happened; raise VprError after `limit` seconds."""
        if not self._recorder.wait(happened, limit, self._process):
            raise VprError(f'the node did not answer as expected within {limit:g} s')

    def begin(self) -> None:
        """Wait for the first right pose."""
        self.until(self.right_pose)

    def right_pose(self) -> bool:
        """Return whether the latest pose is right."""
        return bool(self._recorder.poses) and self._right(self._recorder.poses[-1])

    def wrong(self) -> int:
        """Return the number of recorded poses that are wrong."""
        return sum(not self._right(message) for message in self._recorder.poses)

    def _right(self, message: Any) -> bool:
        return bool(poses.distance(messages.pose_of(message), self.truth[
            messages.stamp_ns(message.header)]) <= defaults.CORRECT_RADIUS)

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """Call a service of the node; return its response."""
        from vpr_ros.ros import node_process
        client = self._clients.get(name)
        if client is None:
            client = self._recorder.node.create_client(kind, f'{node_process.NODE}/{name}')
            self._clients[name] = client
            self.until(client.service_is_ready)
        future = client.call_async(kind.Request(**fields))
        self.until(future.done)
        return future.result()

    def resumed(self) -> float:
        """Deactivate and activate; return the seconds that takes."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState
        from lifecycle_msgs.srv import GetState
        self.call(GetState, 'get_state')
        begin = time.monotonic()
        for change in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            if not self.call(ChangeState, 'change_state',
                             transition=Transition(id=change)).success:
                raise VprError('the node did not change its state')
        return time.monotonic() - begin

    def swapped(self, path: Path) -> dict[str, Any]:
        """Swap the map during the drive; return the counts of frames and poses meanwhile."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter
        from std_srvs.srv import Trigger
        recorder = self._recorder
        self.until(self.right_pose)
        self.call(SetParameters, 'set_parameters', parameters=[
            Parameter('map', value=str(path)).to_parameter_msg()])
        sent = set(self.truth)
        recorder.poses.clear()
        recorder.candidates.clear()
        begin = time.monotonic()
        answer = self.call(Trigger, 'reload_map')
        took = time.monotonic() - begin
        if not answer.success:
            raise VprError(f'the map was not swapped: {answer.message}')
        last = max(self.truth)
        self.until(lambda: bool(recorder.candidates)
                   and messages.stamp_ns(recorder.candidates[-1].header) > last)
        during = {stamp for stamp in self.truth if stamp <= last} - sent
        answered = {messages.stamp_ns(message.header) for message in recorder.candidates}
        return {'seconds': took, 'frames': len(during), 'unanswered': len(during - answered),
                'poses': len(recorder.poses), 'wrong': self.wrong()}


def main() -> int:
    """Run from the command line."""
    options = tables.parser(__doc__).parse_args()
    return tables.answer(options, lambda: node_operation(options.model))


if __name__ == '__main__':
    sys.exit(main())
