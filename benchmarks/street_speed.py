"""How fast the street is rendered, in every condition.

The measure is a camera of 30 Hz: a ratio of 1 means that a drive takes as long as in the world.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks import tables
import numpy as np
from vpr_ros.street import CONDITIONS
from vpr_ros.street import drive
from vpr_ros.street import Town

CAMERA_RATE = 30.0
SIZES = ((320, 240), (640, 480))
BLOCK = 10
"""Frames of one drive before the next one has its turn: single frames would find cold caches."""


def street_speed(frames: int = 100, seed: int = 7) -> dict[str, Any]:
    """Time `frames` frames for each condition and size, in turns; return frames per second."""
    town = Town(seed)
    set_up: dict[tuple[str, int, int], float] = {}
    seconds: dict[tuple[str, int, int], list[float]] = {}
    drives = {}
    for width, height in SIZES:
        for condition in CONDITIONS:
            key = condition, width, height
            begin = time.perf_counter()
            drives[key] = drive(town, condition=condition, seed=1, width=width, height=height)
            next(drives[key])
            set_up[key] = time.perf_counter() - begin
            seconds[key] = []
    for _ in range(0, frames, BLOCK):
        for key, running in drives.items():
            for _ in range(BLOCK):
                begin = time.perf_counter()
                next(running)
                seconds[key].append(time.perf_counter() - begin)
    # The mean, not the median: the frames differ, and a drive takes the time of all of them.
    rates = {key: 1 / float(np.mean(times)) for key, times in seconds.items()}
    tables.show(
        f'Street, {len(seconds[key])} frames each, in turns',
        ('condition', 'size', 'frames/s', f'ratio to {CAMERA_RATE:.0f} Hz', 'p50 ms', 'p95 ms',
         'first frame s'),
        [(key[0], f'{key[1]}x{key[2]}', rates[key], rates[key] / CAMERA_RATE,
          *(1e3 * float(value) for value in np.percentile(times, (50, 95))), set_up[key])
         for key, times in seconds.items()])
    width, height = SIZES[0]
    slowest = min(CONDITIONS, key=lambda condition: rates[condition, width, height])
    line = tables.verdict(
        f'at least {rates[slowest, width, height]:.0f} frames/s at {width}x{height} '
        f'({slowest}; target {CAMERA_RATE:.0f})',
        reached=rates[slowest, width, height] >= CAMERA_RATE)
    return {'frames': len(seconds[key]), 'verdict': line, 'frames_per_second': {
        f'{condition} {width}x{height}': rate for (condition, width, height), rate in rates.items()
    }}


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__.splitlines()[0])
    parser.add_argument('--frames', type=int, default=100)
    options = parser.parse_args()
    return tables.answer(options, lambda: street_speed(options.frames))


if __name__ == '__main__':
    sys.exit(main())
