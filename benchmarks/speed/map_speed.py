"""
How close building a map from bags of 640x480 comes to the speed of the network alone.

The peer is `Encoder.encode_batch` on the same images, decoded in memory: one call after another on
all cores. The most that the processor can do is also measured: one call per core, as maps are
built. What prefetching gains is seen beside the same steps one after another.
"""

from __future__ import annotations

from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import long_drive
from benchmarks.lib import tables
from benchmarks.lib.encoding import encode_all
from vpr_ros.core import images
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.sources import open_source
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.descriptors import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

TARGET = 0.9
"""Share of the encoder's throughput, from a JPEG bag."""
VIEWS = 32
PEER = 'encode_batch, images in memory'
MOST = 'the same, one call per core'


def map_speed(model: str | None = None, frames: int = 256, rounds: int = 5, threads: int = 0,
              jobs: int = 2) -> dict[str, Any]:
    """Time the building of maps of `frames` places; return the figures and the verdict."""
    encoder = Encoder(model, threads=threads, throughput=True)
    together = Encoder(model, threads=threads)
    views = long_drive.street_frames(VIEWS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        raw, jpeg = (long_drive.write(folder / name, views, frames, compressed=name == 'jpeg')
                     for name in ('raw', 'jpeg'))

        def built(*paths: Path, jobs: int = 1) -> None:
            build_map([open_source(path) for path in paths], encoder, self_calibrate=False,
                      jobs=jobs).save(folder / 'map', overwrite=True)

        timed: dict[str, Callable[[], object]] = {
            PEER: lambda: _alone(together, views, frames),
            MOST: lambda: encode_all(encoder, encoder.encode_batch,
                                     _batches(views, frames)),
            'map from a JPEG bag': lambda: built(jpeg),
            'map from a raw bag': lambda: built(raw),
            'JPEG bag, one step after another': lambda: _sequentially(together, jpeg)}
        race = tables.race(f'Maps of {frames} places, ms per frame, {encoder.provider}', timed,
                           PEER, rounds, units=frames, target=1 / TARGET)
        result: dict[str, Any] = {
            'model': encoder.digest, 'provider': encoder.provider, 'threads': threads,
            'frames': frames, 'race': race, 'figures': race['figures']}
        share = {name: 1 / ratio for name, ratio in race['ratio'].items()}
        result['share_of_encoder'] = share
        ours = share['map from a JPEG bag']
        result['verdict'] = tables.verdict(
            f"{ours:.0%} of the encoder's throughput from a JPEG bag (target {TARGET:.0%}), "
            f'{ours / share[MOST]:.0%} of that of one call per core', reached=ours >= TARGET)
        if jobs > 1:
            # Long enough that the start of the processes, a second or two each, matters little.
            longer = long_drive.write(folder / 'long', views, 4 * frames, compressed=True)
            sources = [longer] * jobs
            several = tables.race(
                f'Maps of {jobs} JPEG bags of {4 * frames} frames, ms per frame', {
                    'one process': lambda: built(*sources),
                    f'--jobs {jobs}': lambda: built(*sources, jobs=jobs),
                }, 'one process', max(1, rounds // 3), units=4 * frames * jobs)
            result['jobs'] = several
            result['figures'] = race['figures'] + several['figures']
    return result


def _alone(encoder: Encoder, views: Sequence[NDArray[np.uint8]], frames: int) -> None:
    for batch in _batches(views, frames):
        encoder.encode_batch(batch)


def _batches(views: Sequence[NDArray[np.uint8]], frames: int
             ) -> Iterator[list[NDArray[np.uint8]]]:
    for begin in range(0, frames, BATCH):
        yield [views[number % len(views)] for number in range(begin, min(begin + BATCH, frames))]


def _sequentially(encoder: Encoder, path: Path) -> list[bytes]:
    """Do what building a map does, without its files, in one thread."""
    thumbnails = []
    batch = []
    with open_source(path) as source:
        for frame in source.frames:
            batch.append(frame.load(min_size=encoder.size))
            thumbnails.append(images.encode_jpeg(images.to_height(batch[-1], 120), 80))
            if len(batch) == BATCH:
                encoder.encode_batch(batch)
                batch = []
    return thumbnails


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--frames', type=int, default=256)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=0, help='of the network; 0 for all cores')
    parser.add_argument('--jobs', type=int, default=2, help='1 skips this comparison')
    options = parser.parse_args()
    return tables.answer(options, lambda: map_speed(
        options.model, options.frames, options.rounds, options.threads, options.jobs))


if __name__ == '__main__':
    sys.exit(main())
