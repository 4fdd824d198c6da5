"""
False discoveries: a threshold that is chosen under one condition, and used under others.

The protocol of SafeVPR (Sier et al., arXiv 2605.28048): on the frames of one drive the lowest
threshold is chosen whose false discovery rate (FDR), the share of wrong poses among those that
are published, is at most the target, with a confidence of 90 %; then it is used on another drive.
A set-up is valid if the FDR is not above the target there, too. Without such a threshold, nothing
is published: an abstention, which is valid. The true-positive rate (TPR) is the share of the
frames with a right pose for which it is published.

Scores are the confidence of the filter, as it is and with such a threshold, and that of single
frames; and, for the most similar place, its similarity, the ratio of its distance to that of the
next other place, and the spatial uncertainty of the candidates (SUE, Zaffar et al. 2024).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.accuracy.confidence import kidnapped
from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import find_sets
from benchmarks.lib.town_drives import town_drive
from benchmarks.lib.town_drives import town_map
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.metrics import average_precision
from vpr_ros.core.metrics import precision_recall
from vpr_ros.core.metrics import wilson
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.offline.evaluate_images import evaluate_set
from vpr_ros.offline.localize_queries import localize_queries
from vpr_ros.offline.localize_queries import ONE_DRIVE
from vpr_ros.offline.localize_queries import SINGLE_FRAMES
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from benchmarks.lib.sets import ImageSet
    from numpy.typing import NDArray
    from vpr_ros.offline.evaluation import Estimates

    Floats = NDArray[np.float64]
    Answers = tuple[Floats, NDArray[np.bool_]]
    """The score of each frame (N,), and whether its answer is right (N,)."""

TARGETS = (0.01, 0.05, 0.10)
TOWNS = (61, 62, 63)
"""Seeds of towns that nothing was fitted to; the default confidence models are, to 31 to 40."""

CONDITIONS = ('spring', 'rain', 'night')
LEAVES = 'leaves the map'
"""A drive that goes on where the map has no street."""

AS_IT_IS = 'confidence >= 1 - target'
"""The confidence of the filter as it is: it needs no drive to choose a threshold on."""

NORDLAND = 'nordland'
SURE = 1.28
"""Standard deviations of a one-sided bound that holds with 90 %."""

CANDIDATES = 10
"""Places whose spread is the spatial uncertainty."""

NEXT = 2.0
"""Radii within which another place is no other answer, but the same one."""


@dataclass(frozen=True)
class Run:
    """A drive of a kind of site: the answers by each score."""

    site: str
    name: str
    answers: dict[str, Answers]


def fdr(data: str | None, model: str | None = None, towns: Sequence[int] = TOWNS,
        every: int = 1) -> dict[str, Any]:
    """Print, for each score and target, FDR, TPR, valid set-ups and abstentions; and the AP."""
    encoder = Encoder(model, throughput=True)
    runs = [run for seed in tqdm(towns, desc='towns', disable=None)
            for run in _town(encoder, Town(seed), every)]
    for image_set in find_sets(data) if data else ():
        if image_set.has_queries:
            runs += _set(image_set, encoder)
    scores = list(runs[0].answers)
    tables.show('average precision', ['site', 'drive', *scores], [
        [run.site, run.name, *(average_precision(*run.answers[score]) for score in scores)]
        for run in runs])
    groups = _groups(runs)
    header = ['calibrated and used', 'score', 'target', 'set-ups', 'valid', 'abstained',
              'mean FDR', 'worst FDR', 'mean TPR']
    rows = [[group, score, target, *_deployed(pairs, score, target)]
            for group, pairs in groups.items() if pairs for target in TARGETS
            for score in [AS_IT_IS, *scores]]
    tables.show('a threshold of one drive, used on another', header, rows)
    return {'model': encoder.digest, 'towns': list(towns), 'header': header, 'rows': rows}


def _groups(runs: Sequence[Run]) -> dict[str, list[tuple[Run, Run]]]:
    """Return the set-ups, where a threshold is chosen and where it is used, by their kind."""
    streets = [run for run in runs if run.site == 'street' and LEAVES not in run.name]
    leaving = [run for run in runs if LEAVES in run.name]
    nordland = [run for run in runs if run.site == NORDLAND]
    real = [run for run in runs if run.site != 'street']
    kinds = {'streets': (streets, streets), 'streets, then leaving the map': (streets, leaving),
             'leaving the map': (leaving, leaving), NORDLAND: (nordland, nordland),
             'streets, then real sets': (streets, real),
             'leaving the map, then real sets': (leaving, real)}
    return {kind: [(one, other) for one in before for other in after if one is not other]
            for kind, (before, after) in kinds.items()}


def _deployed(pairs: Sequence[tuple[Run, Run]], score: str, target: float) -> list[float]:
    """Return set-ups, valid ones, abstentions, mean and worst FDR, and mean TPR of some pairs."""
    rates, found = [], []
    for one, other in pairs:
        level = 1 - target if score == AS_IT_IS else threshold(*one.answers[score], target)
        values, right = other.answers['confidence' if score == AS_IT_IS else score]
        published = values >= level
        rates.append(float((~right[published]).mean()) if published.any() else 0.0)
        found.append(float((published & right).sum() / max(1, right.sum())))
        if level == np.inf:
            found[-1] = np.nan
    abstained = int(np.isnan(found).sum())
    return [len(pairs), sum(rate <= target for rate in rates), abstained,
            float(np.mean(rates)), max(rates), float(np.nan_to_num(found).mean())]


def threshold(score: Floats, right: NDArray[np.bool_], target: float) -> float:
    """
    Return the lowest threshold of a score (N,) whose false discovery rate is at most `target`.

    By the upper bound of that rate (Wilson, 90 %) among the frames above it; infinite without one.
    """
    levels, precision, _ = precision_recall(score, right)
    counts = np.searchsorted(np.sort(-score), -levels, side='right')
    bounds = np.array([wilson(1 - share, int(count), SURE)[1]
                       for share, count in zip(precision, counts, strict=True)])
    good = np.flatnonzero(bounds <= target)
    return float(levels[good[-1]]) if len(good) else np.inf


def _town(encoder: Encoder, town: Town, every: int) -> Iterator[Run]:
    """Yield the drives of a town in each condition, and one that leaves its winter map."""
    place_map = town_map(encoder, [town_drive(encoder, town, condition='winter', seed=1,
                                              speed=8.0, rate=8.0)])
    drives = {name: town_drive(encoder, town, condition=name, seed=2, speed=6.0, rate=5.0 / every,
                               lateral_offset=1.0) for name in CONDITIONS}
    drives[LEAVES] = kidnapped(drives['spring'], town_drive(
        encoder, town, condition='spring', seed=2, speed=6.0, rate=5.0 / every,
        lateral_offset=1.0, options=DriveOptions(route='other')))
    for name, frames in drives.items():
        found = [localize_queries(place_map, encoder, frames.descriptors, frames.stamps.tolist(),
                                  options, defaults.CORRECT_RADIUS, name)[0]
                 for options in (ONE_DRIVE, SINGLE_FRAMES)]
        # Far from every place of the map, no answer is within the radius: all are wrong.
        right = [poses.distance(answer, frames.truth) <= defaults.CORRECT_RADIUS for answer in (
            found[0].poses, found[1].poses, place_map.poses[found[1].candidates[:, 0]])]
        yield Run('street', f'{town.seed} {name}', _answers(
            *found, *right, place_map.poses, defaults.CORRECT_RADIUS))


def _set(image_set: ImageSet, encoder: Encoder) -> list[Run]:
    """Return the queries of a set as a drive; of Nordland, its map on its queries, too."""
    site = NORDLAND if NORDLAND in image_set.name else image_set.name
    folders = image_set.database, image_set.queries
    runs = [_image_run(site, image_set.name, *folders, image_set.ground_truth, encoder)]
    if site == NORDLAND:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'ground_truth.csv'
            with image_set.ground_truth.open(newline='', encoding='utf-8-sig') as file, \
                    path.open('w', newline='') as part:
                rows = csv.writer(part)
                rows.writerow(('query', 'reference'))
                rows.writerows((row['reference'], row['query']) for row in csv.DictReader(file))
            runs.append(_image_run(site, f'{site}, the other way', *folders[::-1], path, encoder))
    return runs


def _image_run(site: str, name: str, database: Path, queries: Path, truth: Path, encoder: Encoder
               ) -> Run:
    filtered, single = (evaluate_set(database, queries, truth, encoder, options)
                        for options in (ONE_DRIVE, SINGLE_FRAMES))
    places = single.references.poses
    spacing = float(np.median(poses.distance(places[1:], places[:-1])))
    return Run(site, name, _answers(filtered.estimates, single.estimates, filtered.right,
                                    single.right, single.ranks == 0, places, NEXT * spacing))


def _answers(filtered: Estimates, single: Estimates, filtered_right: NDArray[np.bool_],
             single_right: NDArray[np.bool_], best_right: NDArray[np.bool_], places: Floats,
             radius: float) -> dict[str, Answers]:
    """Return the answers by each score; places (N,7) are those of the map, `radius` in metres."""
    similarity = single.similarity.astype(np.float64)
    where = places[single.candidates, :2]
    apart = np.linalg.norm(where - where[:, :1], axis=2) > NEXT * radius
    other = np.where(apart, similarity, -1.0).max(axis=1)
    nearest = np.maximum(1 - similarity[:, 0], 1e-9)
    weights = similarity[:, :CANDIDATES, None] - similarity[:, CANDIDATES - 1:CANDIDATES, None]
    weights = (weights + 1e-6) / (weights + 1e-6).sum(axis=1, keepdims=True)
    around = where[:, :CANDIDATES] - (weights * where[:, :CANDIDATES]).sum(axis=1, keepdims=True)
    return {'confidence': (filtered.confidence, filtered_right),
            'confidence, single': (single.confidence, single_right),
            'similarity': (similarity[:, 0], best_right),
            'ratio': (-nearest / np.maximum(1 - other, 1e-9), best_right),
            'SUE': (-(weights * around ** 2).sum(axis=(1, 2)), best_right)}


if __name__ == '__main__':
    parser = tables.parser(__doc__)
    add_data_option(parser)
    parser.add_argument('--towns', nargs='+', type=int, default=list(TOWNS), metavar='SEED',
                        help='seeds of the towns')
    parser.add_argument('--every', type=int, default=1, metavar='N',
                        help='only every Nth frame of the drives through towns')
    options = parser.parse_args()
    sys.exit(tables.answer(options, lambda: fdr(options.data, options.model, options.towns,
                                                options.every)))
