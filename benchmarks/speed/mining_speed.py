"""
How long the mining of semi-hard triplets takes, beside pytorch-metric-learning's miner.

Distances of one batch; what the triplets do for a training is not looked at here.
"""

from __future__ import annotations

from importlib.util import find_spec
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET_MS = 5.0
MINING, PEER = 'mining alone', 'pytorch-metric-learning'
MARGIN = 0.1
PAUSE = 0.02
"""Seconds before each call, for the worker threads of the one before to end."""
NO_TORCH = 'mining_speed: left out, it needs torch and pytorch-metric-learning (the extra train)'


def mining_speed(rounds: int = 15, pictures: int = 512, dimension: int = 256, threads: int = 1
                 ) -> dict[str, Any]:
    """
    Time the mining of one batch in turns with the peer; return milliseconds and a verdict.

    `pictures` (B) of unit norm, in places of 2, 4 and 16. The peer returns every semi-hard triplet
    and computes the distances itself, so the product is timed with ours too. `threads` of torch;
    0 is as many as it likes. Where torch is missing, says so and returns nothing.
    """
    if not all(map(find_spec, ('torch', 'pytorch_metric_learning'))):
        print(NO_TORCH)
        return {}
    import torch
    if threads:
        torch.set_num_threads(threads)
    races = {size: _race(size, rounds, pictures, dimension) for size in (2, 4, 16)}
    slowest = max(race['median_ms'][MINING] for race in races.values())
    return {'pictures': pictures, 'dimension': dimension, 'margin': MARGIN,
            'threads': torch.get_num_threads(), 'pictures_per_place': races,
            'figures': [figure for race in races.values() for figure in race['figures']],
            'verdict': tables.verdict(f'mining in {slowest:.2f} ms at most, under {TARGET_MS} ms',
                                      reached=slowest < TARGET_MS)}


def _race(size: int, rounds: int, pictures: int, dimension: int) -> dict[str, Any]:
    """Return the figures of our mining, with the distances and without, against the peer."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.miners import TripletMarginMiner
    import torch
    from vpr_ros.training.losses import semi_hard_triplets
    from vpr_ros.training.losses import squared_distances
    labels = torch.arange(pictures) // size
    # As of a network that has learned nothing, so that nearly every pair can be mined.
    random = np.random.default_rng(0).normal(size=(pictures, dimension))
    x = torch.nn.functional.normalize(torch.from_numpy(random.astype(np.float32)), dim=1)
    positive = labels[:, None] == labels[None]
    negative = ~positive
    distances = squared_distances(x)
    peer = TripletMarginMiner(MARGIN, 'semihard', distance=LpDistance(p=2, power=2))

    timed: dict[str, Callable[[], object]] = {
        MINING: lambda: semi_hard_triplets(distances, positive, negative, MARGIN),
        'mining, with distances': lambda: semi_hard_triplets(
            squared_distances(x), positive, negative, MARGIN),
        PEER: lambda: peer(x, labels),
    }
    return tables.race(
        f'Semi-hard mining: {pictures} x {pictures} distances, {size} pictures a place, '
        f'{torch.get_num_threads()} threads', timed, PEER, rounds, pause=PAUSE)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--pictures', type=int, default=512, help='of the batch')
    parser.add_argument('--threads', type=int, default=1, help="0 for torch's own choice")
    options = parser.parse_args()
    return tables.answer(options, lambda: mining_speed(
        options.rounds, options.pictures, threads=options.threads))


if __name__ == '__main__':
    sys.exit(main())
