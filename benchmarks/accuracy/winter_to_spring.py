"""
Learn from winter only, localise in spring: on the street, and on a railway.

What training, augmentation, aggregation and the size of the descriptor each contribute, all else
being equal: a table of experiments, each one a change to a file in experiments/.
"""

from __future__ import annotations

import csv
from pathlib import Path
import sys
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from vpr_ros.core.errors import VprError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXPERIMENTS = Path(__file__).parents[2] / 'experiments'
UNTRAINED = ('training.epochs=1', 'training.batches=1', 'training.learning_rate=0')
ROWS: dict[str, tuple[str, ...]] = {
    'netvlad, untrained': UNTRAINED,
    'netvlad, no augmentation': ('augmentation=none',),
    'netvlad': (),
    'netvlad, 256': ('network.dimension=256',),
    'netvlad, 128': ('network.dimension=128',),
    'netvlad, 64': ('network.dimension=64',),
    'netvlad, whole': ('network.dimension=0',),
    'gem, untrained': ('network.aggregation=gem', 'network.dimension=0', *UNTRAINED),
    'gem': ('network.aggregation=gem', 'network.dimension=0'),
    'avg': ('network.aggregation=avg', 'network.dimension=0'),
    'max': ('network.aggregation=max', 'network.dimension=0'),
    'spp': ('network.aggregation=spp', 'network.dimension=512'),
}


def winter_to_spring(data: str | None, weights: str = 'imagenet', rows: Sequence[str] = (),
                     changes: Sequence[str] = ()) -> dict[str, Any]:
    """Train every row for both; print and return Recall@1/5 on data that was not trained on."""
    from vpr_ros.training.experiment import read_experiment
    result: dict[str, Any] = {}
    for name, questions in _questions(data).items():
        table = []
        for question, path, settings in questions:
            for row in rows or ROWS:
                experiment = read_experiment(
                    path, [f'network.weights={weights}', *settings, *ROWS[row], *changes])
                begin = time.perf_counter()
                recall = _last_recall(experiment)
                table.append((question, row, experiment.network.dimension or 'all',
                              recall[1], recall[5], experiment.training.seed,
                              round(time.perf_counter() - begin)))
                tables.show(f'{name}, tolerance {experiment.relations.tolerance:g} m',
                            ('question', 'network', 'D', 'R@1', 'R@5', 'seed', 'seconds'), table)
        result[name] = table
    return result


def _questions(data: str | None) -> dict[str, list[tuple[str, Path, list[str]]]]:
    """Return the questions for each kind of place: name, experiment file and changed settings."""
    street = EXPERIMENTS / 'winter.yaml'
    questions = {'streets': [('winter map, spring queries', street, [])]}
    if data:
        folder = next(Path(data).glob('nordland*'), None)
        if folder is None:
            raise VprError(f'{data} holds no set named nordland*')
        winter, summer = folder / 'queries', folder / 'database'
        learn = f'data.winter.sources=[{winter}]'
        questions['nordland'] = [
            (question, EXPERIMENTS / 'nordland.yaml',
             [learn, f'validation.both.sources=[{places}, {queries}]'])
            for question, places, queries in (
                ('summer map, winter queries', summer, winter),
                ('winter map, summer queries', winter, summer))]
    return questions


def _last_recall(experiment: Any) -> dict[int, float]:
    """Train, and return the recall after the last epoch, so that no epoch is selected by it."""
    from vpr_ros.training.train import train
    with tempfile.TemporaryDirectory() as folder:
        train(experiment, Path(folder) / 'run', trainer_options={'enable_progress_bar': False})
        with (Path(folder) / 'run' / 'logs' / 'csv' / 'metrics.csv').open() as file:
            rows = [row for row in csv.DictReader(file) if row['recall@1']]
    return {n: float(rows[-1][f'recall@{n}']) for n in (1, 5)}


if __name__ == '__main__':
    parser = tables.parser(__doc__)
    add_data_option(parser)
    parser.add_argument('--weights', default='imagenet', help='initial weights of the backbone')
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=[], metavar='ROW',
                        help=f'only these: {"; ".join(ROWS)}')
    parser.add_argument('--set', action='append', default=[], dest='changes',
                        metavar='NAME=VALUE', help='change every experiment')
    options = parser.parse_args()
    sys.exit(tables.answer(options, lambda: winter_to_spring(
        options.data, options.weights, options.rows, options.changes)))
