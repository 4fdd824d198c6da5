"""
What fewer bits, and other engines, gain and lose: one network in each precision, in turns.

From a frame of 320x240 to a descriptor, beside torch eager in float32. With a checkpoint and real
pictures, Recall@1 on every set too, and how far descriptors are from those in float32, beside what
noise of one grey level does; with random weights, which cost what others do, time alone.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec
from itertools import islice
import os
from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.sets import find_sets
import numpy as np
import onnxruntime
from vpr_ros.core import images
from vpr_ros.core.errors import VprError
from vpr_ros.encoding import hardware
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.engines import PROVIDERS
from vpr_ros.offline.descriptors import describe
from vpr_ros.offline.evaluate import evaluate_set
from vpr_ros.offline.evaluate import summary
from vpr_ros.street import CONDITIONS
from vpr_ros.street import drive
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.training.model import PlaceNetwork

FRAME = (240, 320)
SIZES = ((128, 160), (240, 320))
"""Heights and widths of the network's input: the bundled model's, and the frame's own."""
CLUSTERS, DIMENSION = 64, 512
PAUSE = 0.02
"""Seconds before each turn, as between the frames of a camera."""
GOALS = {'cpu int8': 3.0, 'openvino int8': 8.0}
"""Times as fast as torch, at the frame's own size."""
MOST_LOSS = 0.5
"""Points of Recall@1."""
CALIBRATED_ON = 64
STREET, APART = 16, 8
"""Frames of the street in each condition, and how many lie from one to the next."""
NOISE = 'cpu fp32, noise of one grey level'
"""What a camera does from frame to frame: a loss below what this makes says nothing."""


def precision(checkpoint: str | None = None, data: str | None = None, rounds: int = 40,
              threads: int = 1) -> dict[str, Any]:
    """
    Time each precision on each provider that loads, in turns; return figures and ratios.

    int8 is calibrated on frames of the street, and on the sets in `data` that have no queries.
    Raises VprError where torch, which makes the networks, is not installed.
    """
    if find_spec('torch') is None or find_spec('onnxscript') is None:
        raise VprError('torch and onnxscript are needed to make the networks: pip install '
                       "'vpr_ros[train]'")
    import torch
    torch.set_num_threads(threads or hardware.cores())
    network = _network(checkpoint)
    frame = _calibration(data, *FRAME)[0]
    result: dict[str, Any] = {'checkpoint': checkpoint, 'threads': threads, 'rounds': rounds,
                              'median_ms': {}, 'bytes': {}, 'gain': {}}
    with tempfile.TemporaryDirectory(prefix='vpr_ros-') as folder:
        for height, width in SIZES:
            size = f'{width}x{height}'
            encoders = _encoders(network, _calibration(data, height, width), Path(folder), threads)
            result['bytes'][size] = {name: encoder.path.stat().st_size
                                     for name, encoder in encoders.items()}
            timed: dict[str, Callable[[], object]] = {
                'torch eager': _torch(network, frame, height, width),
                **{name: lambda encoder=encoder: encoder.encode(frame)
                   for name, encoder in encoders.items()}}
            for turn, seconds in tables.in_both_turns(timed, rounds, PAUSE).items():
                what = f'input {size}, {turn}'
                medians = {name: tables.median_ms(times) for name, times in seconds.items()}
                result['median_ms'][what] = medians
                result['gain'][what] = {name: medians['torch eager'] / value
                                        for name, value in medians.items()}
                tables.show(
                    f'A frame of {FRAME[1]}x{FRAME[0]} to a descriptor, {what}, {rounds} rounds '
                    f'in turns, threads: {threads or "as each library likes"}',
                    ('engine and precision', 'median ms', 'p99 ms', 'times as fast as torch'),
                    [(name, value, 1e3 * float(np.percentile(seconds[name], 99)),
                      medians['torch eager'] / value) for name, value in medians.items()])
            if (height, width) == SIZES[0] and checkpoint and data:
                first = next(iter(encoders.values()))
                encoders[NOISE] = _Noisy(first.path, 'cpu', threads)
                result['recall'] = _recall(data, encoders)
                result['distance'] = _distance(data, encoders)
    result['figures'] = [tables.bars(f'A frame to a descriptor, {what}',
                                     'times as fast as PyTorch eager', gain)
                         for what, gain in result['gain'].items()]
    result['verdicts'] = _verdicts({what: gain for what, gain in result['gain'].items()
                                    if size in what}, result.get('recall', {}))
    return result


def _network(checkpoint: str | None) -> PlaceNetwork:
    import torch
    from vpr_ros.training.checkpoint import load_network
    from vpr_ros.training.model import PlaceNetwork
    if checkpoint:
        return load_network(checkpoint)[0].eval()
    torch.manual_seed(0)
    return PlaceNetwork('resnet18', clusters=CLUSTERS, dimension=DIMENSION).eval()


def _calibration(data: str | None, height: int, width: int) -> NDArray[np.uint8]:
    """Return pictures (M,height,width,3): of the street, and of the sets without queries."""
    pictures = [images.resize(frame.image, height, width)
                for number, condition in enumerate(CONDITIONS)
                for frame in islice(drive(Town(100 + number), condition=condition, seed=1),
                                    0, STREET * APART, APART)]
    folders = [one.database for one in find_sets(data) if not one.has_queries] if data else []
    if folders:
        from vpr_ros.training.export import sample_images
        pictures += list(sample_images(folders, height, width, CALIBRATED_ON)[0])
    return np.random.default_rng(0).permutation(np.stack(pictures))


def _encoders(network: PlaceNetwork, pictures: NDArray[np.uint8], folder: Path, threads: int
              ) -> dict[str, Encoder]:
    """Return an encoder for each provider and precision; accuracy is not looked at."""
    import onnx
    from onnx import helper
    from vpr_ros.training.export import ExportOptions
    from vpr_ros.training.export import PRECISIONS
    from vpr_ros.training.export import to_precision
    height, width = pictures.shape[1:3]
    providers = [name for name in ('cpu', 'openvino')
                 if PROVIDERS[name] in onnxruntime.get_available_providers()]
    encoders = {}
    for name in PRECISIONS:
        path = folder / f'{name}-{width}x{height}.onnx'
        model = to_precision(network, ExportOptions(height, width, name), pictures)
        helper.set_model_props(model, {'precision': name})
        onnx.save(model, path)
        for provider in providers:
            encoder = Encoder(path, provider, threads, engine_cache=folder / 'engines')
            beside = encoder.engine.precision
            encoders[f'{provider} {name}'
                     + (f', rest {beside}' if beside not in (name, 'fp32') else '')] = encoder
    return encoders


def _torch(network: PlaceNetwork, frame: NDArray[np.uint8], height: int, width: int
           ) -> Callable[[], object]:
    import torch

    def call() -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(images.resize(frame, height, width)[None])).numpy()
    return call


class _Noisy(Encoder):
    """An encoder whose pictures have noise of one grey level up or down, after the resize."""

    def encode_batch(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return descriptors (N,D) of pictures with noise."""
        rng = np.random.default_rng(0)
        small = [images.resize(picture, self.height, self.width).astype(int)
                 for picture in pictures]
        return super().encode_batch([
            np.clip(picture + rng.integers(-1, 2, picture.shape), 0, 255).astype(np.uint8)
            for picture in small])


def _recall(data: str, encoders: dict[str, Encoder]) -> dict[str, dict[str, float]]:
    """Return Recall@1 in percent by set and encoder; the first encoder is what is lost from."""
    recalls: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for one in find_sets(data):
        if not one.has_queries:
            continue
        for name, encoder in encoders.items():
            found = summary(evaluate_set(one.database, one.queries, one.ground_truth, encoder,
                                         cache=False))
            recalls.setdefault(one.name, {})[name] = 100 * float(found['recall']['1'])
            counts[one.name] = int(found['evaluated'])
    first = next(iter(encoders))
    tables.show(f'Recall@1 in points, input {SIZES[0][1]}x{SIZES[0][0]}, and what is lost to '
                f'{first}',
                ('set', 'queries', first, *(f'{name}: lost' for name in encoders
                                            if name != first)),
                [(one, counts[one], f'{values[first]:.2f}',
                  *(f'{values[first] - value:+.2f}' for name, value in values.items()
                    if name != first)) for one, values in recalls.items()])
    return recalls


def _distance(data: str, encoders: dict[str, Encoder]) -> dict[str, dict[str, float]]:
    """Return how far queries are from those of the first encoder, in percent of their spread."""
    distances: dict[str, dict[str, float]] = {}
    for one in find_sets(data):
        if not one.has_queries:
            continue
        pictures = [partial(images.read, file) for file in images.list_folder(one.queries)]
        exact, *others = (describe(pictures, encoder, one.name)[0]
                          for encoder in encoders.values())
        spread = np.square(exact - exact.mean(axis=0)).sum(axis=1).mean()
        distances[one.name] = {
            name: 100 * float(np.sqrt(np.square(other - exact).sum(axis=1).mean() / spread))
            for name, other in zip([*encoders][1:], others, strict=True)}
    tables.show('Distance of descriptors to the first, in percent of how far those of a drive are '
                'from their mean', ('set', *[*encoders][1:]),
                [(one, *values.values()) for one, values in distances.items()])
    return distances


def _verdicts(gains: dict[str, dict[str, float]], recalls: dict[str, dict[str, float]]
              ) -> list[str]:
    lines = []
    for goal, least in GOALS.items():
        found = [(what, name, gain) for what, each in gains.items()
                 for name, gain in each.items() if name.startswith(goal)]
        for what, name, gain in found:
            if not hardware.int8_saturates():
                lines.append(tables.verdict(
                    f'{name} is at least {least:g} x as fast as torch eager, {what}: '
                    f'{gain:.2f} x', reached=gain >= least))
            else:
                print(f'  no goal for {name}: this processor has no VNNI')
    if recalls:
        lost = {(one, name): next(iter(values.values())) - value
                for one, values in recalls.items() for name, value in values.items()
                if name != NOISE}
        worst = max(lost, key=lambda key: lost[key])
        lines.append(tables.verdict(
            f'nothing loses more than {MOST_LOSS:g} points of Recall@1 on any set: '
            f'{lost[worst]:.2f} ({worst[1]} on {worst[0]})',
            reached=lost[worst] <= MOST_LOSS + 1e-9))
    return lines


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--checkpoint', metavar='CKPT', help='random weights if left out')
    parser.add_argument('--data', default=os.environ.get('VPR_DATA'), metavar='DIR',
                        help='folder of real picture sets')
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--threads', type=int, default=1, help="0 for the library's own choice")
    parser.add_argument('--json', metavar='OUT', help='also write the figures to this file')
    options = parser.parse_args()
    return tables.answer(options, lambda: precision(options.checkpoint, options.data,
                                                    options.rounds, options.threads))


if __name__ == '__main__':
    sys.exit(main())
