"""
The node with a camera of 640x480 raw over DDS: frames processed, latency and memory.

Once with the model itself, and once with one that takes longer than the camera's period: then the
node may drop frames, but not fall behind.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
import json
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
from benchmarks.lib.slow_model import write_slow_model
import numpy as np
import psutil
from vpr_ros.core.errors import VprError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.maps.manifest import ModelIdentity

if TYPE_CHECKING:
    import subprocess

    from numpy.typing import NDArray
    from vpr_ros.ros.node_process import Recorder

RATE = 30.0
MAP_LENGTH = 150.0
PLACES = 10_000
BEYOND_P50, BEYOND_P99 = 3.0, 6.0
"""Targets in ms, from callback to pose, without the encoder's own time."""
FRAMES = 30
SHARE_TARGET = 0.95
LATENCY_SLACK = 10.0
"""Milliseconds that the slow node's p99 may exceed twice the encoder's time by."""
FLAT = 1.05
"""Memory that ends at most this factor above its early value is flat."""
SLOWNESS = 2.5
"""Periods of the camera that the slow model takes."""
EARLY = 10.0
"""Seconds after which the early value of the memory is taken."""
WINDOW = 300
"""Frames that the node's percentiles cover."""
START = 30
"""First frames, which are slower and must not enter a percentile."""


def node_rate(model: str | None = None, seconds: float = 60.0, rate: float = RATE
              ) -> dict[str, Any]:
    """Run the node with the camera twice, `seconds` each; return the figures of both runs."""
    if not node_run.has_ros():
        print(f'the node with a camera: {node_run.NO_ROS}')
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        encoder = Encoder(model)
        frames = np.array([frame.image for frame in street_map.spring_drive(
            street_map.SPEED * FRAMES / RATE, RATE, 640, 480)])
        np.save(folder / 'frames.npy', frames)
        place_map = street_map.enlarged(street_map.winter_map(encoder, MAP_LENGTH), PLACES)
        place_map.save(folder / 'map')
        slow = _slow_encoder(encoder, frames[0], rate, folder / 'slow.onnx')
        # Its descriptors are the same, so only the name of the model changes in its map.
        replace(place_map, manifest=replace(
            place_map.manifest, model=ModelIdentity.of(slow))).save(folder / 'slow_map')
        models = encoder.path, slow.path
        del encoder, slow
        kept_up = _run({'map': folder / 'map', 'model': models[0]}, folder, rate, seconds)
        overrun = _run({'map': folder / 'slow_map', 'model': models[1]}, folder, rate, seconds)
    runs = {'model': kept_up, 'slow model': overrun}
    _show(runs)
    lines = _verdicts(kept_up, overrun, rate)
    for name, run in runs.items():
        lines.append(tables.verdict(
            f'{name}: private memory {run["private_early_mb"]:.0f} -> '
            f'{run["private_end_mb"]:.0f} MB (target: growth of at most {FLAT - 1:.0%})',
            reached=run['private_end_mb'] <= FLAT * run['private_early_mb']))
    return {'seconds': seconds, 'runs': runs, 'verdicts': lines, 'figures': [
        tables.bars('Latency of the node, callback to answer', 'p50, up to p99, ms', {
            name: run['total_p50_ms'] for name, run in runs.items()}, {
                name: (run['total_p50_ms'], run['total_p99_ms']) for name, run in runs.items()}),
        tables.lines('Private memory of the node', 'seconds', 'MB', {
            name: [(at, private) for at, _, private in run['memory']]
            for name, run in runs.items()})]}


def _verdicts(kept_up: dict[str, Any], overrun: dict[str, Any], rate: float) -> list[str]:
    """Print and return whether the targets for frames and latency are reached."""
    lines = []
    if kept_up['encode_p50_ms'] < 1e3 / rate:
        lines.append(tables.verdict(
            f'{kept_up["processed_share"]:.1%} of the frames received are processed at '
            f'{rate:.0f} Hz (target {SHARE_TARGET:.0%})',
            reached=kept_up['processed_share'] >= SHARE_TARGET))
    else:
        print(f'  the encoder does not keep up with {rate:.0f} Hz here: no target for the share')
    lines.append(tables.verdict(
        f'without the encoder {kept_up["beside_p50_ms"]:.1f} ms p50, '
        f'{kept_up["beside_p99_ms"]:.1f} ms p99 with {PLACES} places (target {BEYOND_P50:g} and '
        f'{BEYOND_P99:g} ms)', reached=kept_up['beside_p50_ms'] <= BEYOND_P50
        and kept_up['beside_p99_ms'] <= BEYOND_P99))
    bound = 2 * overrun['encode_p50_ms'] + LATENCY_SLACK
    lines.append(tables.verdict(
        f'latency p99 {overrun["total_p99_ms"]:.1f} ms, at worst '
        f'{overrun["total_p99_worst_ms"]:.1f} ms, when the encoder does not keep up (target '
        f'{bound:.1f} ms: twice its p50 and {LATENCY_SLACK:.0f} ms)',
        reached=overrun['total_p99_ms'] <= bound))
    return lines


def _slow_encoder(encoder: Encoder, image: NDArray[np.uint8], rate: float, path: Path
                  ) -> Encoder:
    """Return an encoder whose model takes about SLOWNESS periods of the camera."""
    times = tables.in_turns({'encode': lambda: encoder.encode(image)}, 10)['encode']
    repeats = max(2, round(SLOWNESS / rate / float(np.median(times))))
    return Encoder(write_slow_model(encoder.path, repeats, path))


def _run(parameters: dict[str, Any], folder: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Run one node with a camera of `rate` Hz; return its figures."""
    from vpr_ros.ros import node_process
    os.environ.update(node_process.isolated_environment())
    parameters = {**parameters, 'min_confidence': 0.0}  # the pose of every frame is published
    node_log, camera_log, report = (folder / name for name in ('node.log', 'camera.log', 'sent'))
    with node_process.Recorder() as recorder, node_process.process(
            'vpr_ros.ros.run', *node_process.node_arguments(parameters, node_run.IMAGE_TOPIC),
            log=node_log) as node:
        if not recorder.wait(lambda: bool(recorder.maps), node_process.START_LIMIT, node):
            raise VprError(f'the node did not start: {node_process.last_line(node_log)}')
        watch, idle = _Watch(recorder, node), psutil.Process(node.pid).cpu_times()
        with node_process.process(
                'benchmarks.lib.camera', str(folder / 'frames.npy'), '--topic',
                node_run.IMAGE_TOPIC, '--rate', str(rate), '--seconds', str(seconds),
                '--json', str(report), log=camera_log) as camera:
            recorder.wait(lambda: watch.look() or camera.poll() is not None, seconds + 90, node)
            if camera.returncode != 0:
                raise VprError(f'the camera failed: {node_process.last_line(camera_log)}')
        count = len(recorder.diagnostics)
        recorder.wait(lambda: len(recorder.diagnostics) > count + 1, 5, node)
        used = psutil.Process(node.pid).cpu_times()
        return _figures(recorder.diagnostics, watch, json.loads(report.read_text()), rate,
                        used.user + used.system - idle.user - idle.system)


class _Watch:
    """Records the arrival of the node's answers and, once a second, its memory."""

    def __init__(self, recorder: Recorder, node: subprocess.Popen[bytes]) -> None:
        self.delays: list[float] = []
        self.memory: list[tuple[float, float, float]] = []
        self._recorder = recorder
        self._node = psutil.Process(node.pid)
        self._begin: float | None = None

    def look(self) -> bool:
        """Record once; return False, so that a wait goes on."""
        now = time.time_ns()
        if self._recorder.candidates and self._begin is None:
            self._begin = now / 1e9
        for message in self._recorder.candidates:
            self.delays.append((now - messages.stamp_ns(message.header)) / 1e6)
        # They are not needed any more, and would be kept for the whole run.
        self._recorder.candidates.clear()
        if self._begin is not None and now / 1e9 - self._begin >= len(self.memory):
            with suppress(psutil.NoSuchProcess):
                info = self._node.memory_info()
                # Shared memory is Fast DDS's segment, whose pages fill up with frames.
                self.memory.append((now / 1e9 - self._begin, info.rss / 1e6,
                                    (info.rss - info.shared) / 1e6))
        return False


def _figures(diagnostics: list[dict[str, str]], watch: _Watch, camera: dict[str, float],
             asked: float, seconds: float) -> dict[str, Any]:
    latest = diagnostics[-1]
    received, processed, dropped, failed = (
        int(latest[name]) for name in ('received', 'processed', 'dropped', 'failed'))
    windows = [status for status in diagnostics
               if int(status.get('processed', 0)) > WINDOW + START]
    windows = windows or [latest]
    if not watch.memory or processed == 0:
        raise VprError('no frame was received: do all processes read config/fastdds.xml?')

    def over(stage: str, reduce: Any) -> float:
        return float(reduce([float(status[stage]) for status in windows]))
    early = next((sample for sample in watch.memory
                  if sample[0] >= min(EARLY, camera['seconds'] / 3)), watch.memory[0])
    end = watch.memory[-1]
    return {
        'asked_hz': asked, 'camera_hz': camera['rate'], 'sent': int(camera['sent']),
        'received': received, 'processed': processed, 'dropped': dropped, 'failed': failed,
        'processed_share': processed / received,
        'encode_p50_ms': over('encode p50 (ms)', np.median),
        'beside_p50_ms': over('beside encode p50 (ms)', np.median),
        'beside_p99_ms': over('beside encode p99 (ms)', np.median),
        'cpu_ms': 1e3 * seconds / processed,
        'total_p50_ms': over('total p50 (ms)', np.median),
        'total_p99_ms': over('total p99 (ms)', np.median),
        'total_p99_worst_ms': over('total p99 (ms)', np.max),
        'sent_to_answer_p50_ms': float(np.percentile(watch.delays, 50)),
        'sent_to_answer_p99_ms': float(np.percentile(watch.delays, 99)),
        'rss_early_mb': early[1], 'rss_end_mb': end[1],
        'private_early_mb': early[2], 'private_end_mb': end[2],
        'early_s': early[0], 'end_s': end[0],
        'memory': [[round(value, 1) for value in sample] for sample in watch.memory],
    }


def _show(runs: dict[str, dict[str, Any]]) -> None:
    tables.show(
        'The node, 640x480 raw over DDS: frames',
        ('node', 'camera Hz', 'sent', 'received', 'processed', 'dropped', 'failed',
         'processed / received'),
        [(name, run['camera_hz'], run['sent'], run['received'], run['processed'], run['dropped'],
          run['failed'], run['processed_share']) for name, run in runs.items()])
    tables.show(
        'The node: latency in ms, from callback to publishing (percentiles of its last 300 '
        'frames: median and worst of the run)',
        ('node', 'encode p50', 'rest p50', 'rest p99', 'p50', 'p99', 'worst p99',
         'p99 / encode p50', 'send-answer p50', 'send-answer p99', 'CPU'),
        [(name, run['encode_p50_ms'], run['beside_p50_ms'], run['beside_p99_ms'],
          run['total_p50_ms'], run['total_p99_ms'],
          run['total_p99_worst_ms'], run['total_p99_ms'] / run['encode_p50_ms'],
          run['sent_to_answer_p50_ms'], run['sent_to_answer_p99_ms'], run['cpu_ms'])
         for name, run in runs.items()])
    tables.show(
        'The node: memory in MB, resident (RSS) and without shared memory (private)',
        ('node', 'early s', 'RSS', 'private', 'end s', 'RSS', 'private',
         'private end / early'),
        [(name, run['early_s'], run['rss_early_mb'], run['private_early_mb'], run['end_s'],
          run['rss_end_mb'], run['private_end_mb'],
          run['private_end_mb'] / run['private_early_mb'])
         for name, run in runs.items()])


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--seconds', type=float, default=60.0, help='for each of the two runs')
    parser.add_argument('--rate', type=float, default=RATE, help='of the camera, in Hz')
    options = parser.parse_args()
    return tables.answer(
        options, lambda: node_rate(options.model, options.seconds, options.rate))


if __name__ == '__main__':
    sys.exit(main())
