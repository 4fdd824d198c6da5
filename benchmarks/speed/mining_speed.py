"""
How long mining semi-hard triplets takes, beside pytorch-metric-learning's miner.

For the distances of one batch; their effect on a training is not measured here.
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
NO_TORCH = 'mining_speed: skipped, it needs torch and pytorch-metric-learning (the extra train)'


def mining_speed(rounds: int = 15, batch: int = 512, dimension: int = 256, threads: int = 1
                 ) -> dict[str, Any]:
    """
    Time the mining of one batch in turns with the peer; return milliseconds and a verdict.

    The batch has `batch` descriptors of unit norm, 2, 4 or 16 of each place. The peer returns
    every semi-hard triplet and computes the distances itself, so ours is timed with the distances,
    too. `threads` is for torch; 0 leaves the number to it. Without torch, a line is printed and
    the result is empty.
    """
    if not all(map(find_spec, ('torch', 'pytorch_metric_learning'))):
        print(NO_TORCH)
        return {}
    import torch
    if threads:
        torch.set_num_threads(threads)
    races = {size: _race(size, rounds, batch, dimension) for size in (2, 4, 16)}
    slowest = max(race['median_ms'][MINING] for race in races.values())
    return {'batch': batch, 'dimension': dimension, 'margin': MARGIN,
            'threads': torch.get_num_threads(), 'images_per_place': races,
            'figures': [figure for race in races.values() for figure in race['figures']],
            'verdict': tables.verdict(f'mining in {slowest:.2f} ms at most, under {TARGET_MS} ms',
                                      reached=slowest < TARGET_MS)}


def _race(size: int, rounds: int, batch: int, dimension: int) -> dict[str, Any]:
    """Return the figures of our mining, with the distances and without, against the peer."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.miners import TripletMarginMiner
    import torch
    from vpr_ros.training.losses import semi_hard_triplets
    from vpr_ros.training.losses import squared_distances
    labels = torch.arange(batch) // size
    # As from an untrained network, so that nearly every pair can be mined.
    random = np.random.default_rng(0).normal(size=(batch, dimension))
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
        f'Semi-hard mining: {batch} x {batch} distances, {size} images per place, '
        f'{torch.get_num_threads()} threads', timed, PEER, rounds, pause=tables.PAUSE)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--batch', type=int, default=512, help='images in the batch')
    parser.add_argument('--threads', type=int, default=1, help="0 for torch's own choice")
    options = parser.parse_args()
    return tables.answer(options, lambda: mining_speed(
        options.rounds, options.batch, threads=options.threads))


if __name__ == '__main__':
    sys.exit(main())
