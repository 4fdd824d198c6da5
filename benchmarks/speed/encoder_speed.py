"""
What the Encoder adds to the engine that it runs, and how both compare with torch.

One picture at a time, as on the robot. Accuracy is looked at in precision.py and resize.py.
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

PAUSE = 0.02
"""Seconds before each call, as between the frames of a camera."""
GOAL = 1.1


def encoder_speed(model: str | None = None, rounds: int = 100, threads: int = 1,
                  provider: str = 'auto') -> dict[str, Any]:
    """
    Time Encoder.encode, its bare session and torch in turns; return milliseconds and ratios.

    `threads` is for each of them; 0 is what each library takes by itself, but then their pools of
    threads, which wait by spinning, compete for the cores of a small machine.
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
        f'{threads or "as each library likes"}', timed, bare, rounds, pause=PAUSE)
    if peer is None:
        print('  torch not installed: not compared with it')
    # By themselves: after torch, or a large picture, the next call finds a cold cache.
    alike: dict[str, Callable[[], object]] = {
        'bare': timed[bare], 'IO binding': _bound(session, fitting[None], encoder.dimension),
        'encode': timed[f'Encoder.encode, {size}']}
    times = {name: np.array(each) for name, each in
             tables.in_turns(alike, 2 * rounds, PAUSE).items()}
    added, bound = (float(np.median(times[name] / times['bare']))
                    for name in ('encode', 'IO binding'))
    print(f'  the bare session with IO binding: {bound:.3f} x its time without')
    line = tables.verdict(f'Encoder.encode takes at most {GOAL:g} x as long as its engine: '
                          f'{added:.3f} x', reached=added <= GOAL)
    return {**race, 'model': encoder.digest, 'provider': encoder.provider, 'threads': threads,
            'overhead': added, 'io_binding': bound, 'verdict': line}


def _bound(session: onnxruntime.InferenceSession, batch: NDArray[np.uint8], dimension: int
           ) -> Callable[[], object]:
    """Return a call whose input and output lie where the engine was told once."""
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
    parser = tables.parser(__doc__)
    parser.add_argument('--rounds', type=int, default=100)
    parser.add_argument('--threads', type=int, default=1, help="0 for each library's own choice")
    parser.add_argument('--provider', default='auto')
    options = parser.parse_args()
    return tables.answer(options, lambda: encoder_speed(options.model, options.rounds,
                                                        options.threads, options.provider))


if __name__ == '__main__':
    sys.exit(main())
