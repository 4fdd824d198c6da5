"""
Run the benchmarks one after another, with settings that take some minutes in all.

Each writes a JSON file and a plot. Each is also a command of its own with more options: see
README.md.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from benchmarks.accuracy.compression import compression
from benchmarks.accuracy.confidence import confidence
from benchmarks.accuracy.confidence import TOWNS
from benchmarks.accuracy.evaluation import evaluation
from benchmarks.accuracy.fdr import fdr
from benchmarks.accuracy.fdr import TOWNS as FDR_TOWNS
from benchmarks.accuracy.real_drives import real_drives
from benchmarks.accuracy.real_sets import real_sets
from benchmarks.accuracy.refined_poses import refined_poses
from benchmarks.accuracy.resize import resize
from benchmarks.accuracy.smoothing import smoothing
from benchmarks.accuracy.smoothing import TOWNS as SMOOTHED
from benchmarks.accuracy.street_recall import street_recall
from benchmarks.accuracy.street_recall import TOWNS as TEST_TOWNS
from benchmarks.lib import plots
from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import NO_DATA
from benchmarks.node.ekf_fusion import ekf_fusion
from benchmarks.node.node_operation import node_operation
from benchmarks.node.node_rate import node_rate
from benchmarks.node.real_node import real_node
from benchmarks.node.replay_vs_node import replay_vs_node
from benchmarks.speed.belief_speed import belief_speed
from benchmarks.speed.encoder_speed import encoder_speed
from benchmarks.speed.gpu import gpu
from benchmarks.speed.map_load import map_load
from benchmarks.speed.map_memory import map_memory
from benchmarks.speed.map_scaling import map_scaling
from benchmarks.speed.map_speed import map_speed
from benchmarks.speed.mining_speed import mining_speed
from benchmarks.speed.replay_speed import replay_speed
from benchmarks.speed.scaling import scaling
from benchmarks.speed.search_speed import search_speed
from benchmarks.speed.street_speed import street_speed
from vpr_ros.core.errors import how_to_install
from vpr_ros.core.errors import VprError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence
    from typing import Any

RESULTS = Path(__file__).with_name('results')
PLOTS = find_spec('matplotlib') is not None


def benchmarks() -> dict[str, Callable[[argparse.Namespace], Mapping[str, Any]]]:
    """
    Return each benchmark by name, as a call with the options.

    A plain table: its complexity is only its number of rows.
    """
    return {
        'encoder_speed': lambda o: encoder_speed(o.model, 20 if o.quick else 100),
        'resize': lambda o: resize(o.data, o.model),
        'gpu': lambda o: gpu([o.model] if o.model else None),
        'map_load': lambda o: map_load(10_000 if o.quick else 100_000),
        'map_speed': lambda o: map_speed(o.model, *((32, 1) if o.quick else (256, 7))),
        'map_memory': lambda o: map_memory(o.model, 400 if o.quick else 20_000),
        'replay_speed': lambda o: replay_speed(o.model, *((32, 1) if o.quick else (256, 7))),
        'scaling': lambda o: scaling(o.model, 1 if o.quick else 9),
        'search_speed': lambda o: search_speed(10_000 if o.quick else 100_000),
        'belief_speed': lambda o: belief_speed(o.model, (1_000,) if o.quick else
                                               (1_000, 10_000, 100_000)),
        'map_scaling': lambda o: map_scaling((1_000, 20_000) if o.quick else
                                             (1_000, 10_000, 100_000, 1_000_000)),
        'mining_speed': lambda o: mining_speed(5 if o.quick else 15),
        'street_speed': lambda o: street_speed(20 if o.quick else 100),
        'confidence': lambda o: confidence(o.model, TOWNS[:1] if o.quick else TOWNS),
        'smoothing': lambda o: smoothing(o.data, o.model, SMOOTHED[:1] if o.quick else SMOOTHED),
        'fdr': lambda o: fdr(o.data, o.model, FDR_TOWNS[:1] if o.quick else FDR_TOWNS),
        'replay_vs_node': lambda o: replay_vs_node(o.model, 30.0 if o.quick else 150.0),
        'node_rate': lambda o: node_rate(o.model, 5.0 if o.quick else 30.0),
        'node_operation': lambda o: node_operation(o.model),
        'street_recall': lambda o: street_recall([o.model] if o.model else [],
                                                 (21,) if o.quick else TEST_TOWNS),
        'refined_poses': lambda o: (
            refined_poses(o.model, None, (90,), ((320, 240),), 30.0) if o.quick
            else refined_poses(o.model)),
        'ekf_fusion': lambda o: ekf_fusion(o.model, 150.0 if o.quick else 600.0),
        'real_sets': lambda o: real_sets(o.data, o.model),
        'real_drives': lambda o: real_drives(o.data, o.model),
        'real_node': lambda o: real_node(o.data, model=o.model),
        'evaluation': lambda o: evaluation(o.data, o.model),
        'compression': lambda o: compression(
            o.data, o.model, str(o.results / 'compression.png') if PLOTS else None),
    }


def main() -> int:
    """Run the benchmarks that are named, or all; return 1 when one of them failed."""
    calls = benchmarks()
    options = _options(list(calls))
    if not options.data:
        print(NO_DATA)
    if not PLOTS:
        print(f"no plots: this needs {how_to_install('matplotlib')}")
    options.results.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in [*options.names, *options.only] or calls:
        if options.data or not needs_data(name):
            try:
                _run(name, calls[name], options)
            except (VprError, OSError, ValueError) as error:
                failed = 1
                print(f'{name}: error: {" ".join(str(error).split())}', file=sys.stderr)
    return failed


def needs_data(name: str) -> bool:
    """Return whether a benchmark runs on real images only."""
    return name.startswith('real_') or name in ('compression', 'evaluation')


def _options(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks',
                                     description=__doc__.strip().splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=f'one or several of {", ".join(names)}; default: all')
    parser.add_argument('--only', action='append', default=[], metavar='NAME',
                        help='the same, one at a time')
    parser.add_argument('--results', type=Path, default=RESULTS, metavar='DIR',
                        help='where the JSON files and the plots are written')
    parser.add_argument('--model', metavar='ONNX', help='default: the bundled model')
    add_data_option(parser)
    parser.add_argument('--quick', action='store_true',
                        help='only check that they run: the figures mean nothing')
    options = parser.parse_args()
    for name in [*options.names, *options.only]:
        if name not in names:
            parser.error(f"there is no '{name}': choose from {', '.join(names)}")
    return options


def _run(name: str, measure: Callable[[argparse.Namespace], Mapping[str, Any]],
         options: argparse.Namespace) -> None:
    """Run a benchmark and write its files, unless it printed that it cannot run here."""
    machine = tables.surroundings()
    result = measure(options)
    if not result:
        return
    tables.save(str(options.results / f'{name}.json'),
                {**result, 'quick': options.quick, 'machine': machine})
    if PLOTS and result.get('figures'):
        plots.draw(options.results / f'{name}.png', result['figures'], machine)


if __name__ == '__main__':
    sys.exit(main())
