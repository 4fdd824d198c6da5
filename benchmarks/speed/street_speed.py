"""
How fast the street is rendered, in every condition.

The reference is a camera of 30 Hz: a ratio of 1 means rendering in real time.
"""

from __future__ import annotations

from functools import partial
import sys
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import numpy as np
from vpr_ros.street import CONDITIONS
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Callable

CAMERA_RATE = 30.0
SIZES = ((320, 240), (640, 480))
BLOCK = 10
"""Frames of one drive in a turn: with single frames, each would find cold caches."""


def street_speed(frames: int = 100, seed: int = 7) -> dict[str, Any]:
    """Time `frames` frames for each condition and size, in turns; return frames per second."""
    town = Town(seed)
    set_up: dict[tuple[str, int, int], float] = {}
    timed: dict[tuple[str, int, int], Callable[[], object]] = {}
    for width, height in SIZES:
        for condition in CONDITIONS:
            begin = time.perf_counter()
            frames_of_drive = drive(town, condition=condition, seed=1,
                                    options=DriveOptions(width=width, height=height))
            next(frames_of_drive)
            set_up[condition, width, height] = time.perf_counter() - begin
            timed[condition, width, height] = partial(next, frames_of_drive)
    seconds = tables.in_turns(timed, max(1, frames // BLOCK), block=BLOCK)
    # The mean, not the median: frames differ, and a drive takes the time of all of them.
    rates = {key: 1 / float(np.mean(times)) for key, times in seconds.items()}
    count = len(next(iter(seconds.values())))
    tables.show(
        f'Street, {count} frames each, in turns',
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
    named = {f'{condition} {width}x{height}': rate
             for (condition, width, height), rate in rates.items()}
    return {'frames': count, 'verdict': line, 'frames_per_second': named,
            'figures': [tables.bars('How fast the street is rendered', 'frames per second', named,
                                    target=CAMERA_RATE)]}


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--frames', type=int, default=100)
    options = parser.parse_args()
    return tables.answer(options, lambda: street_speed(options.frames))


if __name__ == '__main__':
    sys.exit(main())
