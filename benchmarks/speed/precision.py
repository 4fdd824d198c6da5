"""
Speed and accuracy of one network in each precision and on each engine.

The time from a frame of 320x240 to a descriptor, in turns, beside torch eager in float32. With a
checkpoint and real images also Recall@1 on every set, and the distance of descriptors to those in
float32, beside the effect of noise of one grey level; with random weights the time only.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import find_sets
import numpy as np
import onnxruntime
from vpr_ros.core import images
from vpr_ros.core.errors import how_to_install
from vpr_ros.core.errors import VprError
from vpr_ros.encoding import hardware
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.engines import PROVIDERS
from vpr_ros.offline.descriptors import describe
from vpr_ros.offline.evaluate_images import evaluate_set
from vpr_ros.offline.summary import summary
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
GOALS = {'cpu int8': 3.0, 'openvino int8': 8.0}
"""Times as fast as torch, with an input of the frame's size."""
MOST_LOSS = 0.5
"""Percentage points of Recall@1."""
CALIBRATED_ON = 64
STREET, APART = 16, 8
"""Frames of the street in each condition, of which every APART-th is taken."""
NOISE = 'cpu fp32, noise of one grey level'
"""As between two frames of a camera: a loss smaller than with this is not significant."""


def precision(checkpoint: str | None = None, data: str | None = None, rounds: int = 40,
              threads: int = 1) -> dict[str, Any]:
    """
    Time each precision on each provider that loads, in turns; return figures and ratios.

    int8 is calibrated on frames of the street, and on the sets in `data` that have no queries.
    Raises VprError where torch, which builds the networks, is not installed.
    """
    for module in ('torch', 'onnxscript'):
        if find_spec(module) is None:
            raise VprError(f'building the networks needs {how_to_install(module)}')
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
            _time(result, size, frame, rounds, {
                'torch eager': _torch(network, frame, height, width),
                **{name: partial(encoder.encode, frame) for name, encoder in encoders.items()}})
            if (height, width) == SIZES[0] and checkpoint and data:
                first = next(iter(encoders.values()))
                encoders[NOISE] = _Noisy(first.path, 'cpu', threads)
                result['recall'] = _recall(data, encoders)
                result['distance'] = _distance(data, encoders)
    result['figures'] = [tables.bars(f'A frame to a descriptor, {name}',
                                     'times as fast as PyTorch eager', gain)
                         for name, gain in result['gain'].items()]
    result['verdicts'] = _verdicts({name: gain for name, gain in result['gain'].items()
                                    if size in name}, result.get('recall', {}))
    return result


def _time(result: dict[str, Any], size: str, frame: NDArray[np.uint8], rounds: int,
          timed: dict[str, Callable[[], object]]) -> None:
    """Time calls in turns, print the table, and add the figures to `result`."""
    for turn, seconds in tables.in_both_turns(timed, rounds, tables.PAUSE).items():
        name = f'input {size}, {turn}'
        medians = {call: tables.median_ms(times) for call, times in seconds.items()}
        gain = {call: medians['torch eager'] / value for call, value in medians.items()}
        result['median_ms'][name], result['gain'][name] = medians, gain
        tables.show(
            f'A frame of {frame.shape[1]}x{frame.shape[0]} to a descriptor, {name}, {rounds} '
            f'rounds in turns, threads: {result["threads"] or "chosen by each library"}',
            ('engine and precision', 'median ms', 'p99 ms', 'times as fast as torch'),
            [(call, value, 1e3 * float(np.percentile(seconds[call], 99)), gain[call])
             for call, value in medians.items()])


def _network(checkpoint: str | None) -> PlaceNetwork:
    import torch
    from vpr_ros.training.checkpoint import load_network
    from vpr_ros.training.model import PlaceNetwork
    if checkpoint:
        return load_network(checkpoint)[0].eval()
    torch.manual_seed(0)
    return PlaceNetwork('resnet18', clusters=CLUSTERS, dimension=DIMENSION).eval()


def _calibration(data: str | None, height: int, width: int) -> NDArray[np.uint8]:
    """Return images (M,height,width,3): of the street, and of the sets without queries."""
    frames = [images.resize(frame.image, height, width)
              for number, condition in enumerate(CONDITIONS)
              for frame in islice(drive(Town(100 + number), condition=condition, seed=1),
                                  0, STREET * APART, APART)]
    folders = [image_set.database for image_set in find_sets(data)
               if not image_set.has_queries] if data else []
    if folders:
        from vpr_ros.training.export import sample_images
        frames += list(sample_images(folders, height, width, CALIBRATED_ON)[0])
    return np.random.default_rng(0).permutation(np.stack(frames))


def _encoders(network: PlaceNetwork, calibration: NDArray[np.uint8], folder: Path, threads: int
              ) -> dict[str, Encoder]:
    """Return an encoder for each provider and precision; their accuracy is not checked."""
    import onnx
    from onnx import helper
    from vpr_ros.training.export import ExportOptions
    from vpr_ros.training.export import PRECISIONS
    from vpr_ros.training.export import to_precision
    height, width = calibration.shape[1:3]
    providers = [name for name in ('cpu', 'openvino')
                 if PROVIDERS[name] in onnxruntime.get_available_providers()]
    encoders = {}
    for name in PRECISIONS:
        path = folder / f'{name}-{width}x{height}.onnx'
        model = to_precision(network, ExportOptions(height, width, name), calibration)
        helper.set_model_props(model, {'precision': name})
        onnx.save(model, path)
        for provider in providers:
            encoder = Encoder(path, provider, threads, engine_cache=folder / 'engines')
            rest = encoder.engine.precision
            encoders[f'{provider} {name}'
                     + (f', rest {rest}' if rest not in (name, 'fp32') else '')] = encoder
    return encoders


def _torch(network: PlaceNetwork, frame: NDArray[np.uint8], height: int, width: int
           ) -> Callable[[], object]:
    import torch

    def call() -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(images.resize(frame, height, width)[None])).numpy()
    return call


class _Noisy(Encoder):
    """An encoder that adds noise of one grey level up or down after the resize."""

    def encode_batch(self, batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return descriptors (N,D) of the batch with noise."""
        rng = np.random.default_rng(0)
        small = [images.resize(rgb, self.height, self.width).astype(int) for rgb in batch]
        return super().encode_batch([
            np.clip(rgb + rng.integers(-1, 2, rgb.shape), 0, 255).astype(np.uint8)
            for rgb in small])


def _recall(data: str, encoders: dict[str, Encoder]) -> dict[str, dict[str, float]]:
    """Return Recall@1 in percent by set and encoder; losses are relative to the first one."""
    recalls: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for image_set in find_sets(data):
        if not image_set.has_queries:
            continue
        for name, encoder in encoders.items():
            found = summary(evaluate_set(image_set.database, image_set.queries,
                                         image_set.ground_truth, encoder, cache=False))
            recalls.setdefault(image_set.name, {})[name] = 100 * float(found['recall']['1'])
            counts[image_set.name] = int(found['evaluated'])
    first = next(iter(encoders))
    tables.show(f'Recall@1 in percent, input {SIZES[0][1]}x{SIZES[0][0]}, and the loss from '
                f'{first}',
                ('set', 'queries', first, *(f'{name}: loss' for name in encoders
                                            if name != first)),
                [(name_of_set, counts[name_of_set], f'{values[first]:.2f}',
                  *(f'{values[first] - value:+.2f}' for name, value in values.items()
                    if name != first)) for name_of_set, values in recalls.items()])
    return recalls


def _distance(data: str, encoders: dict[str, Encoder]) -> dict[str, dict[str, float]]:
    """Return the distance of queries to those of the first encoder, in percent of the spread."""
    distances: dict[str, dict[str, float]] = {}
    for image_set in find_sets(data):
        if not image_set.has_queries:
            continue
        loads = [partial(images.read, file) for file in images.list_folder(image_set.queries)]
        exact, *others = (describe(loads, encoder, image_set.name)[0]
                          for encoder in encoders.values())
        spread = np.square(exact - exact.mean(axis=0)).sum(axis=1).mean()
        distances[image_set.name] = {
            name: 100 * float(np.sqrt(np.square(other - exact).sum(axis=1).mean() / spread))
            for name, other in zip([*encoders][1:], others, strict=True)}
    tables.show('Distance of descriptors to those of the first encoder, in percent of their '
                'standard deviation within a drive', ('set', *[*encoders][1:]),
                [(name, *values.values()) for name, values in distances.items()])
    return distances


def _verdicts(gains: dict[str, dict[str, float]], recalls: dict[str, dict[str, float]]
              ) -> list[str]:
    lines = []
    for goal, least in GOALS.items():
        for name, gain in gains.items():
            for call in (call for call in gain if call.startswith(goal)):
                if hardware.int8_saturates():
                    print(f'  no target for {call}: this processor has no VNNI')
                    continue
                lines.append(tables.verdict(
                    f'{call} is at least {least:g} x as fast as torch eager, {name}: '
                    f'{gain[call]:.2f} x', reached=gain[call] >= least))
    if recalls:
        losses = {(name, call): next(iter(values.values())) - value
                  for name, values in recalls.items() for call, value in values.items()
                  if call != NOISE}
        worst = max(losses, key=lambda key: losses[key])
        lines.append(tables.verdict(
            f'nothing loses more than {MOST_LOSS:g} points of Recall@1 on any set: '
            f'{losses[worst]:.2f} ({worst[1]} on {worst[0]})',
            reached=losses[worst] <= MOST_LOSS + 1e-9))
    return lines


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        formatter_class=tables.HelpFormatter)
    parser.add_argument('--checkpoint', metavar='CKPT', help='default: random weights')
    add_data_option(parser)
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--threads', type=int, default=1, help="0 for the library's own choice")
    parser.add_argument('--json', metavar='OUT', help='also write the figures to this file')
    options = parser.parse_args()
    return tables.answer(options, lambda: precision(options.checkpoint, options.data,
                                                    options.rounds, options.threads))


if __name__ == '__main__':
    sys.exit(main())
