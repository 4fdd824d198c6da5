"""What the Encoder adds to ONNX Runtime, and how both compare with torch.

One picture at a time, as on the robot. Accuracy is not looked at here.
"""

from __future__ import annotations

from importlib.util import find_spec
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks import tables
import numpy as np
import onnxruntime
from vpr_ros.encoder import bundled_model
from vpr_ros.encoder import Encoder
from vpr_ros.engines import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PAUSE = 0.02
"""Seconds before each call, as between the frames of a camera."""


def encoder_speed(model: str | None = None, rounds: int = 100, threads: int = 1
                  ) -> dict[str, Any]:
    """Time Encoder.encode, the bare session and torch in turns; return milliseconds and ratios.

    `threads` is for each of them; 0 is what each library takes by itself, but then their pools of
    threads, which wait by spinning, compete for the cores of a small machine.
    """
    encoder = Encoder(model or bundled_model(), threads=threads)
    rng = np.random.default_rng(0)
    fitting = rng.integers(0, 256, (encoder.height, encoder.width, 3), np.uint8)
    vga = rng.integers(0, 256, (480, 640, 3), np.uint8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(encoder.path), options,
                                           providers=[PROVIDERS[encoder.provider]])
    size = f'{encoder.width}x{encoder.height}'
    bare = f'bare session.run, {size}'
    timed: dict[str, Callable[[], object]] = {
        bare: lambda: session.run(['descriptor'], {'image': fitting[None]}),
        f'Encoder.encode, {size}': lambda: encoder.encode(fitting),
        'Encoder.encode, 640x480': lambda: encoder.encode(vga),
    }
    peer = _torch(fitting, encoder.dimension, threads)
    if peer is not None:
        timed[f'torch eager, same network, {size}'] = peer
    seconds = tables.in_turns(timed, rounds, PAUSE)
    medians = {name: tables.median_ms(times) for name, times in seconds.items()}
    tables.show(
        f'Encoder: {encoder.path.name} on {encoder.provider}, {rounds} rounds in turns, '
        f'threads: {threads or "as each library likes"}',
        ('what', 'median ms', 'p99 ms', f'ratio to {bare}'),
        [(name, medians[name], 1e3 * float(np.percentile(times, 99)), medians[name] / medians[bare]
          ) for name, times in seconds.items()])
    if peer is None:
        print('  torch not installed: not compared with it')
    return {'model': encoder.digest, 'provider': encoder.provider, 'threads': threads,
            'rounds': rounds, 'median_ms': medians,
            'ratio': {name: value / medians[bare] for name, value in medians.items()}}


def _torch(picture: NDArray[np.uint8], dimension: int, threads: int
           ) -> Callable[[], object] | None:
    """Return a call of the network in torch, with random weights: they cost what others do."""
    if find_spec('torch') is None or find_spec('torchvision') is None:
        return None
    import torch
    from vpr_ros.training.model import PlaceNetwork
    if threads:
        torch.set_num_threads(threads)
    network = PlaceNetwork(dimension=dimension).eval()
    batch = torch.from_numpy(picture[None])

    def call() -> object:
        with torch.inference_mode():
            return network(batch)
    return call


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=100)
    parser.add_argument('--threads', type=int, default=1, help="0 for each library's own choice")
    options = parser.parse_args()
    return tables.answer(
        options, lambda: encoder_speed(options.model, options.rounds, options.threads))


if __name__ == '__main__':
    sys.exit(main())
