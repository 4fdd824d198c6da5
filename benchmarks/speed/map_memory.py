"""
Whether the memory that building a map takes grows with the map only, and not with the bag.

A long bag of small JPEG images, read in a process of its own. It keeps the descriptor, the pose
and the thumbnail of each frame; the peer is the size of the decoded images.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import long_drive
from benchmarks.lib import tables
import psutil
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.parallel import in_processes
from vpr_ros.io.sources import open_source
from vpr_ros.offline.build_map import build_map

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Iterator

    from vpr_ros.io.frames import Frame

WIDTH, HEIGHT = 320, 240
SAMPLES = 100
SETTLED = 0.1
"""Share of the bag after which buffers have reached their size."""
SLACK = 0.02
"""Memory allowed beyond what the map keeps, as a share of the decoded images."""


def map_memory(model: str | None = None, frames: int = 20_000) -> dict[str, Any]:
    """Build a map of `frames` places from one bag; return the process's memory over time."""
    encoder = Encoder(model)
    path, dimension, digest = encoder.path, encoder.dimension, encoder.digest
    del encoder
    views = long_drive.street_frames(64, WIDTH, HEIGHT)
    with tempfile.TemporaryDirectory() as folder:
        bag = long_drive.write(Path(folder) / 'long', views, frames, compressed=True)
        on_disk = sum(file.stat().st_size for file in bag.iterdir())
        (samples, thumbnails), = in_processes(partial(_built, model=path), [bag], 1,
                                              lambda steps: None)
    # A pose, a stamp and the objects that hold them, beside descriptor and thumbnail.
    kept = frames * (4 * dimension + 7 * 8 + 8 + 250) + thumbnails
    begin = samples[int(SETTLED * len(samples))]
    grown = samples[-1][1] - begin[1]
    share = (frames - begin[0]) / frames
    decoded = frames * WIDTH * HEIGHT * 3
    excess = grown - kept * share
    tables.show(f'Memory: a map of {frames} places from a JPEG bag of {on_disk / 1e6:.0f} MB',
                ('figure', 'MB', 'kB per frame'), [
                    (name, value / 1e6, value / 1e3 / (frames * share)) for name, value in (
                        ('growth after the first tenth', grown), ('kept by the map', kept * share),
                        ('growth beyond that', excess), ('decoded images', decoded * share))])
    line = tables.verdict(
        f'memory grew by {excess / 1e6:.1f} MB beyond what the map keeps, while '
        f'{decoded * share / 1e6:.0f} MB of images were decoded (target {SLACK:.0%} of them)',
        reached=excess <= SLACK * decoded * share)
    points = {'memory of the process': [(at, rss / 1e6) for at, rss in samples],
              'kept by the map': [(at, (begin[1] + kept * (at - begin[0]) / frames) / 1e6)
                                  for at, _ in samples if at >= begin[0]]}
    return {'model': digest, 'frames': frames, 'bag_bytes': on_disk, 'kept_bytes': kept,
            'grown_bytes': grown, 'excess_bytes': excess, 'decoded_bytes': decoded,
            'samples': samples, 'verdict': line, 'figures': [tables.lines(
                'Building a map: memory grows with the map, not with the images',
                'frames read', 'MB', points)]}


def _built(bag: Path, report: Callable[[int], object], *, model: Path
           ) -> tuple[list[tuple[int, int]], int]:
    """Return samples of (frames read, memory in bytes), and the bytes of all thumbnails."""
    samples: list[tuple[int, int]] = []
    with open_source(bag) as source:
        watched = replace(source, frames=_watched(source.frames, source.count, samples))
        place_map = build_map([nullcontext(watched)], Encoder(model), self_calibrate=False)
        return samples, sum(map(len, place_map.thumbnails))


def _watched(frames: Iterable[Frame], count: int, samples: list[tuple[int, int]]
             ) -> Iterator[Frame]:
    process = psutil.Process()
    for number, frame in enumerate(frames, 1):
        yield frame
        if number % max(1, count // SAMPLES) == 0:
            samples.append((number, process.memory_info().rss))


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--frames', type=int, default=20_000)
    options = parser.parse_args()
    return tables.answer(options, lambda: map_memory(options.model, options.frames))


if __name__ == '__main__':
    sys.exit(main())
