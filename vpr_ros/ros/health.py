"""
What the node counts and times, and how /diagnostics shows it.

The executor's thread and the worker write, each to counters of its own; the executor's reads.
"""

from __future__ import annotations

from collections import Counter
from collections import deque
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.io import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vpr_ros.localization.estimate import Estimate

OK, WARN, ERROR, STALE = b'\x00', b'\x01', b'\x02', b'\x03'
"""The levels of diagnostic_msgs/DiagnosticStatus."""

STALE_AFTER = 5.0
"""Seconds without a frame after which an active node is stale."""

WAITING = 'waiting for images'
"""The message before the first frame, and before it is late."""

NO_ODOMETRY = 'none received'
"""Why odometry is not used on a robot that has none."""

_WINDOW = 300
"""Frames that the rate and the percentiles are taken over."""


class Health:
    """
    Counters and latencies of one node since it was created.

    `last_failure` says why the last bad frame could not be used, '' before one;
    `last_estimate` is that of the last frame since activation; `odometry_unused` says why the last
    frame was localised without odometry, '' if it was with it, None before one; `image_age` is in
    seconds, from the stamp of the last image to the node's time then, None before one.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.last_failure = ''
        self.last_estimate: Estimate | None = None
        self.odometry_unused: str | None = None
        self.image_age: float | None = None
        self._odometry_age = ''
        self._times: dict[str, deque[float]] = {}
        self._processed: deque[float] = deque(maxlen=_WINDOW)
        self._refined: deque[bool] = deque(maxlen=_WINDOW)
        self._last_refined: Estimate | None = None
        self._active_since = time.monotonic()

    def activated(self) -> None:
        """Forget the frames before this activation, but not the counters."""
        self._active_since = time.monotonic()
        self._processed.clear()
        self.last_estimate = None
        self.odometry_unused = None

    def odometry(self, unused: str, age: int | None) -> None:
        """
        Count a frame localised with odometry, or without it because it is `unused`.

        `age` is in ns, from the newest odometry to the frame; None without any.
        """
        self.counts['without odometry' if unused else 'with odometry'] += 1
        self.odometry_unused = unused
        self._odometry_age = '' if age is None else f'{age / 1e6:.0f}'

    def processed(self, estimate: Estimate, stages: Mapping[str, float]) -> None:
        """Count a localised frame and record the seconds that each stage took."""
        self.counts['processed'] += 1
        self.last_estimate = estimate
        self._processed.append(time.monotonic())
        self.timed(stages)

    def timed(self, stages: Mapping[str, float]) -> None:
        """Record the seconds that stages took; each is always recorded by the same thread."""
        for stage, seconds in stages.items():
            self._times.setdefault(stage, deque(maxlen=_WINDOW)).append(seconds)

    def refined(self, estimate: Estimate, seconds: float) -> None:
        """Count a frame whose pose was refined, or could not be, in that many seconds."""
        self.counts['refined' if estimate.refined else 'not refined'] += 1
        self._refined.append(estimate.refined)
        if estimate.refined:
            self._last_refined = estimate
        self.timed({'refine': seconds})

    def failed(self, why: str) -> None:
        """Count a frame that could not be used."""
        self.counts['failed'] += 1
        self.last_failure = why

    def rate(self) -> float:
        """Return the frames localised per second, over the last 300."""
        times = list(self._processed)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def verdict(self) -> tuple[bytes, str]:
        """Return the level and the message of an active node."""
        now = time.monotonic()
        times = list(self._processed)  # once: another thread may clear it
        since = now - (times[-1] if times else self._active_since)
        if since > STALE_AFTER:
            return STALE, f'no frame localised for more than {STALE_AFTER:g} s'
        if self.last_estimate is None:
            return WARN, WAITING
        if self.last_estimate.reason is not None:
            return WARN, f'lost: {self.last_estimate.reason.value}'
        return OK, f'localised, confidence {self.last_estimate.confidence:.2f}'

    def values(self) -> dict[str, str]:
        """Return counters, rate and latencies as text, in a fixed order."""
        values = {name: str(self.counts[name]) for name in (
            'received', 'processed', 'dropped', 'failed', 'poses', 'with odometry',
            'without odometry')}
        if self._refined or self.counts['refinement failed']:
            values |= self._refinement_values()
        if self.image_age is not None:
            values['image age (s)'] = f'{self.image_age:.2f}'
        if self._odometry_age:
            values['odometry age (ms)'] = self._odometry_age
        if self.last_estimate is not None:
            values['protection level (m)'] = f'{self.last_estimate.protection_level:.1f}'
        values['rate (Hz)'] = f'{self.rate():.1f}'
        for stage, seconds in list(self._times.items()):  # another thread adds stages
            p50, p99 = np.percentile(list(seconds), [50, 99]) * 1e3
            values[f'{stage} p50 (ms)'] = f'{p50:.2f}'
            values[f'{stage} p99 (ms)'] = f'{p99:.2f}'
        if self.last_failure:
            values['last failure'] = self.last_failure
        return values

    def _refinement_values(self) -> dict[str, str]:
        """Return what the diagnostics show of refined poses, once there was a frame to refine."""
        values = {name: str(self.counts[name]) for name in (
            'refined', 'not refined', 'carried', 'overtaken', 'refinement failed')}
        values['refined share'] = f'{np.mean(list(self._refined) or [False]):.2f}'
        if (last := self._last_refined) is not None:
            values |= {'inliers': str(last.inliers), 'reprojection error (degrees)':
                       f'{np.degrees(last.reprojection_error):.3f}'}
        return values


class Stopwatch:
    """
    The seconds that each stage of one frame takes, by name: `with watch.stage('encode'): ...`.

    Made when the worker takes the frame, which the node received at `received`
    (time.perf_counter); the time in between is the stage `wait`. Stages do not nest.
    """

    def __init__(self, received: float) -> None:
        self._received, self._begin, self._name = received, time.perf_counter(), 'wait'
        self.seconds = {'wait': self._begin - received}

    def stage(self, name: str) -> Stopwatch:
        """Return what times the next block, under this name."""
        self._name = name
        return self

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # a stage that failed has no duration
            self.seconds[self._name] = time.perf_counter() - self._begin

    def answered(self) -> None:
        """Note that the pose is out: `total` since it was received, and that without `encode`."""
        total = time.perf_counter() - self._received
        self.seconds |= {'total': total, 'beside encode': total - self.seconds['encode']}


def diagnostics(types: messages.Types, stamp: int, name: str, hardware_id: str, level: bytes,
                message: str, values: Mapping[str, str]) -> Any:
    """Return a diagnostic_msgs/DiagnosticArray with one status."""
    pair = types('diagnostic_msgs/msg/KeyValue')
    status = types('diagnostic_msgs/msg/DiagnosticStatus')(
        level=level, name=name, message=message, hardware_id=hardware_id,
        values=[pair(key=key, value=value) for key, value in values.items()])
    return types('diagnostic_msgs/msg/DiagnosticArray')(
        header=messages.header(types, stamp, ''), status=[status])
