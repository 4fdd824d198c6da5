"""
What the Encoder adds to the engine that it runs, and how both compare with torch.

One image at a time, as on the robot. Accuracy is measured in precision.py and resize.py.
"""

from __future__ import annotations

from importlib.util import find_spec
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import numpy as np
import onnxruntime
from vpr_ros.core import images
from vpr_ros.encoding.encoder import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

GOAL = 1.1


def encoder_speed(model: str | None = None, rounds: int = 100, threads: int = 1,
                  provider: str = 'auto') -> dict[str, Any]:
    """
    Time Encoder.encode, its bare session and torch in turns; return milliseconds and ratios.

    `threads` is for each of them; 0 leaves the number to each library, but then their thread
    pools, which wait by spinning, compete for the cores of a small machine.
    """
    encoder = Encoder(model, provider, threads)
    rng = np.random.default_rng(0)
    fitting, vga, hd = (rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in (
        (encoder.height, encoder.width), (480, 640), (720, 1280)))
    session = encoder.engine.session
    size = f'{encoder.width}x{encoder.height}'
    bare = f'bare session.run, {size}'
    timed: dict[str, Callable[[], object]] = {
        bare: lambda: session.run(['descriptor'], {'image': fitting[None]}),
        f'Encoder.encode, {size}': lambda: encoder.encode(fitting),
        'Encoder.encode, 640x480': lambda: encoder.encode(vga),
        'Encoder.encode, 1280x720': lambda: encoder.encode(hd),
        'resize alone, 640x480': lambda: images.resize(vga, encoder.height, encoder.width),
        'resize alone, 1280x720': lambda: images.resize(hd, encoder.height, encoder.width),
    }
    peer = _torch(fitting, encoder.dimension, threads)
    if peer is not None:
        timed[f'torch eager, same network, {size}'] = peer
    race = tables.race(
        f'Encoder: {encoder.path.name} on {encoder.provider}, threads: '
        f'{threads or "chosen by each library"}', timed, bare, rounds, pause=tables.PAUSE)
    if peer is None:
        print('  torch is not installed: no comparison with it')
    # In a race of their own: after torch, or a large image, the next call finds a cold cache.
    same_size: dict[str, Callable[[], object]] = {
        'bare': timed[bare], 'IO binding': _bound(session, fitting[None], encoder.dimension),
        'encode': timed[f'Encoder.encode, {size}']}
    times = {name: np.array(each) for name, each in
             tables.in_turns(same_size, 2 * rounds, tables.PAUSE).items()}
    added, bound = (float(np.median(times[name] / times['bare']))
                    for name in ('encode', 'IO binding'))
    print(f'  the bare session with IO binding: {bound:.3f} x its time without')
    line = tables.verdict(f'Encoder.encode takes at most {GOAL:g} x as long as its engine: '
                          f'{added:.3f} x', reached=added <= GOAL)
    return {**race, 'model': encoder.digest, 'provider': encoder.provider, 'threads': threads,
            'overhead': added, 'io_binding': bound, 'verdict': line}


def _bound(session: onnxruntime.InferenceSession, batch: NDArray[np.uint8], dimension: int
           ) -> Callable[[], object]:
    """Return a call with input and output bound in advance."""
    binding = session.io_binding()
    # The values must outlive this function: the binding only points at them.
    held = (onnxruntime.OrtValue.ortvalue_from_numpy(batch),
            onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((1, dimension), np.float32)))
    binding.bind_ortvalue_input('image', held[0])
    binding.bind_ortvalue_output('descriptor', held[1])

    def call() -> object:
        session.run_with_iobinding(binding)
        return held
    return call


def _torch(image: NDArray[np.uint8], dimension: int, threads: int
           ) -> Callable[[], object] | None:
    """Return a call of the network in torch, with random weights: any weights take as long."""
    if find_spec('torch') is None or find_spec('torchvision') is None:
        return None
    import torch
    from vpr_ros.training.model import PlaceNetwork
    if threads:
        torch.set_num_threads(threads)
    network = PlaceNetwork(dimension=dimension).eval()
    batch = torch.from_numpy(image[None])

    def call() -> object:
        with torch.inference_mode():
            return network(batch)
    return call


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--rounds', type=int, default=100)
    parser.add_argument('--threads', type=int, default=1, help="0 for each library's own choice")
    parser.add_argument('--provider', default='auto')
    options = parser.parse_args()
    return tables.answer(options, lambda: encoder_speed(options.model, options.rounds,
                                                        options.threads, options.provider))


if __name__ == '__main__':
    sys.exit(main())
