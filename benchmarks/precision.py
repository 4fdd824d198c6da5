"""What fewer bits gain: one network as fp32, fp16 and int8, through the Encoder, in turns.

Random weights: they cost what others do. What fewer bits lose is in the report of `vpr export`.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks import tables
import numpy as np
from vpr_ros.encoder import Encoder
from vpr_ros.errors import VprError

if TYPE_CHECKING:
    from collections.abc import Callable

HEIGHT, WIDTH = 240, 320
CLUSTERS, DIMENSION = 64, 512
PAUSE = 0.02
"""Seconds before each call, as between the frames of a camera."""
GOAL = 2.0
FAST = ('avx512_vnni', 'avx_vnni', 'amx_int8')
"""Flags of processors that multiply 8 bits in one step; on others int8 gains little."""


def precision(backbone: str = 'resnet18', rounds: int = 60, threads: int = 1) -> dict[str, Any]:
    """Time Encoder.encode of each precision in turns; return milliseconds, sizes and ratios.

    Raises VprError where torch, which makes the networks, is not installed.
    """
    if find_spec('torch') is None or find_spec('onnxscript') is None:
        raise VprError('torch and onnxscript are needed to make the networks: pip install '
                       "'vpr_ros[train]'")
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix='vpr_ros-') as folder:
        paths = _write(backbone, Path(folder))
        sizes = {name: path.stat().st_size for name, path in paths.items()}
        encoders = {name: Encoder(path, 'cpu', threads=threads) for name, path in paths.items()}
    timed: dict[str, Callable[[], object]] = {
        name: lambda encoder=encoder: encoder.encode(picture)
        for name, encoder in encoders.items()}
    seconds = tables.in_turns(timed, rounds, PAUSE)
    medians = {name: tables.median_ms(times) for name, times in seconds.items()}
    gains = {name: medians['fp32'] / value for name, value in medians.items()}
    tables.show(
        f'{backbone} + NetVLAD-{CLUSTERS} to {DIMENSION}, {WIDTH}x{HEIGHT}, {rounds} rounds in '
        f'turns, threads: {threads or "as the library likes"}',
        ('precision', 'MB', 'median ms', 'p99 ms', 'times as fast as fp32'),
        [(name, sizes[name] / 1e6, medians[name], 1e3 * float(np.percentile(seconds[name], 99)),
          gains[name]) for name in medians])
    result = {'backbone': backbone, 'rounds': rounds, 'threads': threads, 'bytes': sizes,
              'median_ms': medians, 'gain': gains}
    flags = _processor_flags()
    if flags & set(FAST):
        result['verdict'] = tables.verdict(
            f'int8 is at least {GOAL:g} x as fast as fp32 on a processor with '
            f'{", ".join(sorted(flags & set(FAST)))}: {gains["int8"]:.2f} x',
            reached=gains['int8'] >= GOAL)
    else:
        print(f'  no goal here: this processor has none of {", ".join(FAST)}')
    return result


def _write(backbone: str, folder: Path) -> dict[str, Path]:
    """Write the network in each precision and return the files; accuracy is not looked at."""
    import onnx
    import torch
    from vpr_ros.training.export import PRECISIONS
    from vpr_ros.training.export import to_precision
    from vpr_ros.training.model import PlaceNetwork
    torch.manual_seed(0)
    network = PlaceNetwork(backbone, clusters=CLUSTERS, dimension=DIMENSION).eval()
    pictures = np.random.default_rng(1).integers(0, 256, (8, HEIGHT, WIDTH, 3), np.uint8)
    paths = {}
    for name in PRECISIONS:
        paths[name] = folder / f'{name}.onnx'
        onnx.save(to_precision(network, name, height=HEIGHT, width=WIDTH, pictures=pictures),
                  paths[name])
    return paths


def _processor_flags() -> set[str]:
    path = Path('/proc/cpuinfo')
    lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
    return {flag for line in lines if line.startswith('flags') for flag in line.split()}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--backbone', default='resnet18')
    parser.add_argument('--rounds', type=int, default=60)
    parser.add_argument('--threads', type=int, default=1, help="0 for the library's own choice")
    parser.add_argument('--json', metavar='OUT', help='also write the figures to this file')
    options = parser.parse_args()
    return tables.answer(
        options, lambda: precision(options.backbone, options.rounds, options.threads))


if __name__ == '__main__':
    sys.exit(main())
