"""
One frame and a batch of 32 on a GPU: CUDA and TensorRT, in each precision of the models.

Absolute figures with the name of the device, since there is no peer on it; without a GPU nothing
is measured.
"""

from __future__ import annotations

from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import numpy as np
import onnxruntime
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding import hardware
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.engine_cache import Request
from vpr_ros.encoding.engines import open_engine
from vpr_ros.encoding.engines import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 32


def gpu(models: list[str] | None = None, rounds: int = 200) -> dict[str, Any]:
    """Time the models on CUDA and TensorRT; return milliseconds, or why there are none."""
    installed = [name for name in ('cuda', 'tensorrt')
                 if PROVIDERS[name] in onnxruntime.get_available_providers()]
    if not installed or hardware.gpu_name() == hardware.UNKNOWN:
        line = 'not run: this machine has no GPU, or no onnxruntime-gpu'
        print(f'  gpu: {line}')
        return {'verdict': line}
    rows = []
    with tempfile.TemporaryDirectory(prefix='vpr_ros-') as folder:
        for path in models or [None]:
            for name in installed:
                try:
                    rows.append(_row(path, name, Path(folder), rounds))
                except ModelError as error:
                    print(f'  {path or "the bundled model"} on {name}: {error}')
    tables.show(f'{hardware.gpu_name()}, TensorRT {hardware.tensorrt_version()}, ONNX Runtime '
                f'{onnxruntime.__version__}, {rounds} rounds',
                ('model', 'provider', 'precision', 'p50 ms, one frame', 'p99 ms',
                 f'frames/s, batches of {BATCH}'), rows)
    return {'device': hardware.gpu_name(), 'rows': rows}


def _row(path: str | None, name: str, folder: Path, rounds: int) -> tuple[object, ...]:
    encoder = Encoder(path, name, engine_cache=folder)
    image = np.random.default_rng(0).integers(0, 256, (encoder.height, encoder.width, 3),
                                              np.uint8)
    batch = np.stack([image] * BATCH)
    session = open_engine(name, Request(encoder.path, encoder.digest, 0, folder, print,
                                        batch=BATCH)).session
    timed: dict[str, Callable[[], object]] = {
        'one': lambda: encoder.encode(image),
        'batch': lambda: session.run(['descriptor'], {'image': batch})}
    seconds = tables.in_turns(timed, rounds)
    precision = encoder.metadata.get('precision', 'fp32')
    return (encoder.path.name, name,
            precision if precision != 'fp32' else encoder.engine.precision,
            tables.median_ms(seconds['one']), 1e3 * float(np.percentile(seconds['one'], 99)),
            BATCH / float(np.median(seconds['batch'])))


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--models', nargs='+', metavar='ONNX', help='several, in turns')
    parser.add_argument('--rounds', type=int, default=200)
    options = parser.parse_args()
    models = options.models or ([options.model] if options.model else None)
    return tables.answer(options, lambda: gpu(models, options.rounds))


if __name__ == '__main__':
    sys.exit(main())
