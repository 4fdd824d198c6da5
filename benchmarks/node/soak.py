"""
The node for hours: memory, file descriptors, threads, shared memory and latency, drawn.

A bag is sent again and again, each frame as soon as the one before it was answered, and with
stamps that go on; at the end of each round the node is told to start over. The table (CSV) and
the plot (PNG) are written after each interval: what runs for a day can be looked at meanwhile.
"""

from __future__ import annotations

from collections import deque
import csv
import os
from pathlib import Path
import struct
import sys
import tempfile
import time
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

from benchmarks.lib import node_run
from benchmarks.lib import plots
from benchmarks.lib import tables
import numpy as np
import psutil
from vpr_ros.core import defaults
from vpr_ros.core import pose_track
from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import whole_file
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.street.record import CAMERA_POSE

if TYPE_CHECKING:
    import subprocess

    from vpr_ros.ros.node_process import Recorder

RESULTS = Path(__file__).parents[1] / 'results'
START = 600.0
"""Seconds that the node gets to start: on a busy machine it may take minutes."""
ANSWER = 5.0
"""Seconds after which a frame counts as unanswered."""
PAUSE_NS = 2_000_000_000
"""Time of the stamps between the rounds."""
WARM = 0.2
"""Share of the run before which growth is not counted: pools and caches fill."""
GROWTH = 5.0
"""Megabytes an hour by which memory may grow."""

COLUMNS = ('minutes', 'frames', 'poses', 'wrong', 'unanswered', 'RSS MB', 'private MB',
           'descriptors', 'threads', 'shm files', 'shm MB', 'p50 ms', 'p99 ms', 'diagnostics')


class Record(NamedTuple):
    """A message of the bag: its topic and type, its stamp in ns, and its bytes (CDR)."""

    topic: str
    kind: str
    stamp: int
    data: bytes

    def at(self, stamp: int) -> bytes:
        """Return the bytes with another stamp in the header, which is their first field."""
        return self.data[:4] + struct.pack('<iI', *divmod(stamp, 1_000_000_000)) + self.data[12:]


class _Drive:
    """The messages of a bag that the node takes, and the true poses."""

    def __init__(self, path: Path) -> None:
        with Bag(path) as bag:
            self.image = bag.image_topic()
            self.odometry = bag.odometry_topic() or '/odom'
            self.truth = bag.poses(bag.pose_topic())
            topics = {self.image, messages.camera_info_topic(self.image), self.odometry}
            self.records = [Record(topic, kind, _stamp(data), bytes(data))
                            for topic, kind, _, data in bag.raw(topics & set(bag.topics))]
        self.first, self.last = self.records[0].stamp, self.records[-1].stamp


def soak(bag_path: Path, parameters: dict[str, Any], hours: float, interval: float, output: Path
         ) -> dict[str, Any]:
    """
    Drive a node with these parameters for so many hours; return the figures.

    `interval` is in minutes; `output` is the CSV file, beside which the plot is written.
    """
    if not node_run.has_ros():
        print(f'soak: {node_run.NO_ROS}')
        return {}
    from vpr_ros.ros import node_process
    os.environ.update(node_process.isolated_environment())
    drive = _Drive(bag_path)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / 'node.log'
        arguments = node_process.node_arguments(
            {**parameters, 'image_reliable': 'true', 'state_file': Path(scratch) / 'state'},
            drive.image, drive.odometry)
        with node_process.Recorder() as recorder, node_process.process(
                'vpr_ros.ros.run', *arguments, log=log) as node:
            if not recorder.wait(lambda: bool(recorder.maps), START, node):
                raise VprError(f'the node did not start: {node_process.last_line(log)}')
            feed = _Feed(recorder, node, drive)
            begin, rows = time.monotonic(), []
            while time.monotonic() < begin + 3600 * hours:
                rows.append(feed.interval(begin, 60 * interval))
                _write(output, rows)
    return _show(rows)


class _Feed:
    """Sends the drive again and again, and measures the node meanwhile."""

    def __init__(self, recorder: Recorder, node: subprocess.Popen[bytes], drive: _Drive) -> None:
        from rclpy.qos import QoSProfile
        from std_srvs.srv import Trigger
        from vpr_ros.ros import node_process
        from vpr_ros.ros.interfaces import rclpy_types
        self._recorder, self._node, self._drive = recorder, node, drive
        self._publishers = {
            topic: recorder.node.create_publisher(rclpy_types(kind), topic, QoSProfile(depth=50))
            for topic, kind in {(record.topic, record.kind) for record in drive.records}}
        self._again = recorder.node.create_client(Trigger, f'{node_process.NODE}/relocalize')
        self._request = Trigger.Request()
        self._shift, self._place = 0, 0
        self._counts = dict.fromkeys(('frames', 'poses', 'wrong', 'unanswered'), 0)
        self._latencies: deque[float] = deque()

    def interval(self, begin: float, seconds: float) -> dict[str, float]:
        """Send frames for so many seconds; return a row of the table."""
        self._counts = dict.fromkeys(self._counts, 0)
        self._latencies.clear()
        self._recorder.diagnostics.clear()
        self._recorder.inliers.clear()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._send_next()
        p50, p99 = (1e3 * float(np.percentile(self._latencies or [np.nan], part))
                    for part in (50, 99))
        return {'minutes': round((time.monotonic() - begin) / 60, 2), **self._counts,
                **_measured(self._node.pid), 'p50 ms': p50, 'p99 ms': p99,
                'diagnostics': len(self._recorder.diagnostics)}

    def _send_next(self) -> None:
        record = self._drive.records[self._place]
        stamp = record.stamp + self._shift
        self._publishers[record.topic].publish(record.at(stamp))
        if record.topic == self._drive.image:
            self._await(stamp)
        self._place += 1
        if self._place == len(self._drive.records):
            self._place = 0
            self._shift += self._drive.last - self._drive.first + PAUSE_NS
            future = self._again.call_async(self._request)
            self._recorder.wait(future.done, ANSWER, self._node)

    def _await(self, stamp: int) -> None:
        """Wait for the answer to the frame of a stamp, and judge the poses that came."""
        recorder, sent = self._recorder, time.perf_counter()
        answered = recorder.wait(
            lambda: bool(recorder.candidates)
            and messages.stamp_ns(recorder.candidates[-1].header) >= stamp, ANSWER, self._node)
        self._counts['frames'] += 1
        if answered:
            self._latencies.append(time.perf_counter() - sent)
        else:
            self._counts['unanswered'] += 1
        for message in recorder.poses:
            true = pose_track.at(self._drive.truth,
                                 messages.stamp_ns(message.header) - self._shift)
            self._counts['poses'] += 1
            self._counts['wrong'] += true is not None and bool(
                poses.distance(messages.pose_of(message), true) > defaults.CORRECT_RADIUS)
        recorder.poses.clear()
        recorder.candidates.clear()
        recorder.confidences.clear()


def _stamp(data: bytes) -> int:
    sec, nanosec = struct.unpack('<iI', bytes(data[4:12]))
    return int(sec) * 1_000_000_000 + int(nanosec)


def _measured(pid: int) -> dict[str, float]:
    """Return what a process and its children hold: memory, descriptors, threads, /dev/shm."""
    total = dict.fromkeys(('RSS MB', 'private MB', 'descriptors', 'threads'), 0.0)
    shared: dict[str, int] = {}
    node = psutil.Process(pid)
    for process in (node, *node.children(recursive=True)):
        memory = process.memory_full_info()
        total['RSS MB'] += memory.rss / 1e6
        total['private MB'] += memory.uss / 1e6
        total['descriptors'] += process.num_fds()
        total['threads'] += process.num_threads()
        shared |= {area.path: area.rss for area in process.memory_maps()
                   if area.path.startswith('/dev/shm/')}
    return {**total, 'shm files': len(shared), 'shm MB': sum(shared.values()) / 1e6}


def _write(output: Path, rows: list[dict[str, float]]) -> None:
    """Write the table, and the plot beside it."""
    with whole_file(output) as part, part.open('w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({name: round(row[name], 3) for name in COLUMNS} for row in rows)

    def lines(title: str, y: str, *names: str) -> dict[str, Any]:
        return tables.lines(title, 'minutes', y, {
            name: [(row['minutes'], row[name]) for row in rows] for name in names})
    plots.draw(output.with_suffix('.png'), [
        lines('Memory of the node and its refining process', 'MB', 'RSS MB', 'private MB',
              'shm MB'),
        lines('Descriptors, threads, files in /dev/shm', 'count', 'descriptors', 'threads',
              'shm files'),
        lines('Latency, sent to answered', 'ms', 'p50 ms', 'p99 ms')], tables.surroundings())


def _show(rows: list[dict[str, float]]) -> dict[str, Any]:
    warm = rows[int(WARM * len(rows)):]
    minutes = np.array([row['minutes'] for row in warm])
    # Not the private part, which grows where another process ends that shared libraries.
    memory = np.array([row['RSS MB'] for row in warm])
    growth = 60 * float(np.polyfit(minutes, memory, 1)[0]) if len(warm) > 2 else 0.0
    sums = {name: int(sum(row[name] for row in rows))
            for name in ('frames', 'poses', 'wrong', 'unanswered')}
    same = {name: (min(row[name] for row in warm), max(row[name] for row in warm))
            for name in ('descriptors', 'threads', 'shm files')}
    tables.show('A long drive', ('figure', 'value'), [
        ('minutes', rows[-1]['minutes']), *sums.items(),
        ('RSS MB, first and last', f'{rows[0]["RSS MB"]:.1f}, {memory[-1]:.1f}'),
        *((name, f'{low:g} to {high:g}') for name, (low, high) in same.items()),
        ('p99 ms, best to worst interval', f'{min(row["p99 ms"] for row in rows):.0f} to '
                                           f'{max(row["p99 ms"] for row in rows):.0f}')])
    lines = [
        tables.verdict(f'memory grows by {growth:.1f} MB an hour after the first fifth '
                       f'(target {GROWTH:g})', reached=growth < GROWTH),
        tables.verdict('descriptors, threads and files in /dev/shm stay the same',
                       reached=all(low == high for low, high in same.values())),
        tables.verdict(f'{sums["wrong"]} wrong poses, {sums["unanswered"]} frames unanswered',
                       reached=not sums['wrong'] and not sums['unanswered'])]
    return {'rows': rows, 'growth MB/h': growth, **sums, 'verdicts': lines}


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--hours', type=float, default=24.0)
    parser.add_argument('--interval', type=float, default=10.0, metavar='MINUTES')
    parser.add_argument('--map', type=Path, default=Path('demo/map'))
    parser.add_argument('--bag', type=Path, default=Path('demo/spring.mcap'))
    parser.add_argument('--camera-pose', default=' '.join(map(str, CAMERA_POSE)),
                        help="the node's parameter: default, that of the street")
    parser.add_argument('--output', type=Path, default=RESULTS / 'soak.csv', metavar='CSV')
    options = parser.parse_args()
    parameters = {'map': options.map, 'model': options.model or "''",
                  'camera_pose': options.camera_pose}
    return tables.answer(options, lambda: soak(options.bag, parameters, options.hours,
                                               options.interval, options.output))


if __name__ == '__main__':
    sys.exit(main())
