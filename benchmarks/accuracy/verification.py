"""
What it is worth that two images agree: the log-likelihood ratios of localization/verify.py.

Winter maps of towns, asked in spring, rain and at night beside the lane, and from another town. Of
each query the ten most similar places are compared: those within 5 m are right. Printed are
logistic regressions of each kind of parts, what their product counts for, how well each separates,
and Recall@1 by similarity and by both.
"""

from __future__ import annotations

import sys
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from tqdm import tqdm
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import open_features
from vpr_ros.encoding.features import SIFT
from vpr_ros.encoding.grid import GridNetwork
from vpr_ros.localization import verify
from vpr_ros.maps.place_map import centre
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.localization.verify import PartFinder
    from vpr_ros.localization.verify import Parts
    from vpr_ros.street import DriveFrame

    Floats = NDArray[np.float64]

TOWNS = (61, 62)
KINDS = ('grid', 'network', 'SIFT')
CONDITIONS = (('spring', 2, 1.0), ('rain', 4, 0.8), ('night', 3, 1.0))
RADIUS = 5.0
LENGTH = 240.0
USUAL = 6


class Seen(NamedTuple):
    """N frames: descriptors (N,D), poses (N,7), and the parts of each."""

    descriptors: NDArray[np.float32]
    poses: Floats
    parts: list[tuple[Parts, ...]]


class Compared(NamedTuple):
    """P pairs of one query: how much more agrees (P,3), right or not (P,), by similarity (P,)."""

    more: Floats
    right: NDArray[np.bool_]
    similarity: Floats


def verification(model: str | None = None, towns: Sequence[int] = TOWNS, length: float = LENGTH
                 ) -> dict[str, Any]:
    """Compare the queries of towns with the places of towns; return the figures."""
    encoder = Encoder(model, throughput=True)
    finder = verify.PartFinder(GridNetwork(encoder.path, threads=1),
                               [open_features(threads=1), open_features(SIFT)])
    options = DriveOptions(start=60.0)
    maps = {seed: _seen(encoder, finder, drive(
        Town(seed), condition='winter', seed=1, speed=8.0, rate=8.0, length=length,
        options=options)) for seed in tqdm(towns, desc='maps', disable=None)}
    found: dict[str, list[Compared]] = {}
    for seed in tqdm(towns, desc='drives', disable=None):
        for condition, number, offset in CONDITIONS:
            asked = _seen(encoder, finder, drive(
                Town(seed), condition=condition, seed=number, speed=6.0, rate=1.0,
                lateral_offset=offset, length=length - 10, options=options))
            for other, places in maps.items():
                found.setdefault(condition if other == seed else 'off the map', []).extend(
                    _compared(places, asked, on_map=other == seed))
    return _figures(found)


def _seen(encoder: Encoder, finder: PartFinder, frames: Iterable[DriveFrame]) -> Seen:
    kept = [(encoder.encode(frame.image), frame.pose, finder.find(frame.image))
            for frame in frames]
    return Seen(np.array([each[0] for each in kept]), np.array([each[1] for each in kept]),
                [each[2] for each in kept])


def _compared(places: Seen, asked: Seen, *, on_map: bool) -> list[Compared]:
    """Compare each query with the places most similar to it."""
    similarity = centre(asked.descriptors, asked.descriptors.mean(axis=0)) @ centre(
        places.descriptors, places.descriptors.mean(axis=0)).T
    order = np.argsort(-similarity, axis=1)
    least = np.linspace(len(places.poses) // 2, len(places.poses) - 1, USUAL).astype(np.int64)
    pairs = []
    for query, row in enumerate(order):
        seen, usual = (np.array([[verify.agreement(*pair) for pair in zip(
            asked.parts[query], places.parts[place], strict=True)] for place in some])
            for some in (row[:verify.CHECKED], row[least]))
        right = poses.distance(places.poses[row[:verify.CHECKED]], asked.poses[query]) <= RADIUS
        standard = (similarity[query] - similarity[query].mean()) / similarity[query].std()
        pairs.append(Compared(verify.excess(seen, usual), right & on_map,
                              standard[row[:verify.CHECKED]]))
    return pairs


def _figures(found: dict[str, list[Compared]]) -> dict[str, Any]:
    every = [each for some in found.values() for each in some]
    more, right = (np.concatenate(column) for column in (
        [each.more for each in every], [each.right for each in every]))
    weight = np.where(right, 0.5 / right.sum(), 0.5 / (~right).sum())
    lines = np.array([_logistic(more[:, kind], right, weight) for kind in range(len(KINDS))])
    product = np.log(verify.product(more * lines[:, 0] + lines[:, 1], 1.0))
    temper = float(min(np.arange(0.1, 1.5, 0.05), key=lambda power: _loss(
        power * product, right, weight)))
    tables.show('Log-likelihood ratios by how much more agrees (logarithm)',
                ('kind', 'slope', 'offset', 'AUC'),
                [(kind, *line, _auc(more[:, number], right))
                 for number, (kind, line) in enumerate(zip(KINDS, lines, strict=True))])
    print(f'their product counts to the power of {temper:.2f}, AUC {_auc(product, right):.4f}')
    rows = []
    for name, some in found.items():
        if name != 'off the map':
            asked = [each for each in some if each.right.any()]
            both = [3 * each.similarity + np.log(verify.product(
                each.more * lines[:, 0] + lines[:, 1], temper)) for each in asked]
            rows.append((name, len(asked), float(np.mean([each.right[0] for each in asked])),
                         float(np.mean([each.right[total.argmax()]
                                        for each, total in zip(asked, both, strict=True)]))))
    tables.show('Recall@1 of queries with a right place among the ten',
                ('condition', 'queries', 'similarity', 'both'), rows)
    return {'lines': lines.tolist(), 'temper': temper, 'recall': rows}


def _logistic(values: Floats, right: NDArray[np.bool_], weight: Floats) -> tuple[float, float]:
    """Return the slope and the offset of a logistic regression."""
    fit = minimize(lambda line: _loss(line[0] * values + line[1], right, weight),
                   np.array([5.0, -4.0]), method='Nelder-Mead')
    return float(fit.x[0]), float(fit.x[1])


def _loss(logits: Floats, right: NDArray[np.bool_], weight: Floats) -> float:
    return float(-(weight * np.log(np.maximum(expit(np.where(right, 1, -1) * logits), 1e-12))
                   ).sum())


def _auc(values: Floats, right: NDArray[np.bool_]) -> float:
    """Return how probably a right place has more than a wrong one."""
    apart = values[right][:, None] - values[~right]
    return float((apart > 0).mean() + (apart == 0).mean() / 2)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--towns', type=int, nargs='+', default=TOWNS, help='seeds of the towns')
    parser.add_argument('--length', type=float, default=LENGTH, metavar='M', help='of the maps')
    options = parser.parse_args()
    return tables.answer(options, lambda: verification(options.model, options.towns,
                                                       options.length))


if __name__ == '__main__':
    sys.exit(main())
