"""
How close `vpr replay` of a 640x480 bag comes to the speed of the network alone.

The peer is `Encoder.encode` on the same images, decoded in memory: one call after another on all
cores. The most that the processor can do is also measured: one call per core, as bags are
replayed. What prefetching gains is seen beside the same steps one after another.
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
from benchmarks.lib.node_run import IMAGE_TOPIC
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.replay import replay

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

TARGET = 0.85
VIEWS = 32
PEER = 'Encoder.encode, images in memory'
MOST = 'the same, one call per core'


def replay_speed(model: str | None = None, frames: int = 256, rounds: int = 5, threads: int = 0
                 ) -> dict[str, Any]:
    """Time replays of `frames` frames on a map of as many places; return the figures."""
    encoder = Encoder(model, threads=threads, throughput=True)
    together = Encoder(model, threads=threads)
    views = long_drive.street_frames(VIEWS)
    with tempfile.TemporaryDirectory() as scratch:
        bags = {name: long_drive.write(Path(scratch) / name, views, frames,
                                       compressed=name == 'JPEG') for name in ('raw', 'JPEG')}
        place_map = build_map([open_source(bags['JPEG'])], encoder, self_calibrate=False)
        timed: dict[str, Callable[[], object]] = {
            PEER: lambda: _alone(together, views, frames),
            MOST: lambda: encode_all(encoder, encoder.encode, _repeated(views, frames)),
            **{f'replay of a {name} bag': lambda bag=bag: replay(bag, Localizer(
                encoder, place_map)) for name, bag in bags.items()},
            **{f'{name} bag, one step after another': lambda bag=bag: _sequentially(
                bag, together, place_map) for name, bag in bags.items()}}
        race = tables.race(
            f'Replay on a map of {len(place_map)} places, ms per frame, {encoder.provider}', timed,
            PEER, rounds, units=frames, target=1 / TARGET)
    share = {name: 1 / ratio for name, ratio in race['ratio'].items()}
    return {'model': encoder.digest, 'provider': encoder.provider, 'threads': threads,
            'frames': frames, 'race': race, 'share_of_encoder': share,
            'figures': race['figures'],
            'verdicts': [tables.verdict(
                f"{share[name]:.0%} of the encoder's throughput: {name} (target {TARGET:.0%}), "
                f'{share[name] / share[MOST]:.0%} of that of one call per core',
                reached=share[name] >= TARGET) for name in timed if name.startswith('replay')]}


def _alone(encoder: Encoder, views: Sequence[NDArray[np.uint8]], frames: int) -> None:
    for image in _repeated(views, frames):
        encoder.encode(image)


def _repeated(views: Sequence[NDArray[np.uint8]], frames: int) -> Iterator[NDArray[np.uint8]]:
    return (views[number % len(views)] for number in range(frames))


def _sequentially(path: Path, encoder: Encoder, place_map: PlaceMap) -> None:
    localizer = Localizer(encoder, place_map)
    with Bag(path) as bag:
        for stamp, message in bag.images(IMAGE_TOPIC):
            localizer.localize(messages.rgb(message, encoder.size), stamp)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--frames', type=int, default=256)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=0, help='of the network; 0 for all cores')
    options = parser.parse_args()
    return tables.answer(options, lambda: replay_speed(
        options.model, options.frames, options.rounds, options.threads))


if __name__ == '__main__':
    sys.exit(main())
