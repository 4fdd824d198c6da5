"""
Smoothing: what the rest of a drive adds to the filter, in towns and on real sets.

Drives in spring and at night on winter maps, drives through unmapped streets, and a robot that is
kidnapped; and the image sets whose queries are a drive. The maps are self-calibrated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.accuracy.confidence import drives
from benchmarks.accuracy.real_drives import known_drive
from benchmarks.lib import published
from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import find_sets
from benchmarks.lib.town_drives import town_map
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.smooth import Smoother
from vpr_ros.offline.evaluate_images import evaluate_set
from vpr_ros.offline.localize_queries import ONE_DRIVE
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.lib.town_drives import Frames
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

TOWNS = (61, 62, 63, 64)
DRIVES = ('spring', 'night', 'unmapped', 'kidnapped')
THRESHOLDS = (defaults.MIN_CONFIDENCE, 0.99)


def smoothing(data: str | None, model: str | None = None, towns: Sequence[int] = TOWNS
              ) -> dict[str, Any]:
    """Print, filtered and smoothed, how much is published, how much is right, and how near."""
    encoder = Encoder(model)
    found: dict[tuple[str, str, str], list[Floats]] = defaultdict(list)
    for seed in tqdm(towns, desc='towns', disable=None):
        winter, others, queries = drives(encoder, Town(seed))
        main, both = town_map(encoder, [winter]), town_map(encoder, [winter, others])
        for name in DRIVES:
            for odometry in (False, True):
                for kind, rows in _town_run(encoder, both if name == 'kidnapped' else main,
                                            queries[name], odometry, name != 'unmapped').items():
                    found[name, 'odometry' if odometry else '', kind].append(rows)
    for image_set in find_sets(data) if data else ():
        if image_set.has_queries and known_drive(image_set, encoder) is not None:
            for kind in ('filtered', 'smoothed'):
                evaluation = evaluate_set(
                    image_set.database, image_set.queries, image_set.ground_truth, encoder,
                    replace(ONE_DRIVE, smooth=kind == 'smoothed'))
                found[image_set.name, '', kind].append(np.stack([
                    evaluation.estimates.confidence, evaluation.right,
                    np.full(len(evaluation), np.nan), np.full(len(evaluation), np.nan)], axis=1))
    rows = [[*key, *_row(np.concatenate(parts))] for key, parts in found.items()]
    header = [*published.header(THRESHOLDS), 'wrong', 'median error', '90 %', 'protected',
              'median level', 'broken']
    tables.show('filtered and smoothed', ['drive', 'with', 'estimates', *header], rows)
    return {'model': encoder.digest, 'towns': list(towns), 'header': header,
            'rows': {', '.join(filter(None, row[:3])): [
                None if np.isnan(value) else float(value) for value in row[3:]] for row in rows}}


def _town_run(encoder: Encoder, place_map: PlaceMap, frames: Frames, odometry: bool, mapped: bool
              ) -> dict[str, Floats]:
    """Return confidence, whether right, error and protection level (N,4), both ways."""
    smoother = Smoother(encoder, place_map)
    estimates = {'filtered': [smoother.locate(descriptor, int(stamp), wheels if odometry else None)
                              for descriptor, stamp, _, wheels in zip(*frames, strict=True)],
                 'smoothed': smoother.smoothed()}
    found = {}
    for kind, each in estimates.items():
        errors = poses.distance(np.array([one.pose for one in each]), frames.truth)
        if not mapped:
            errors = np.full_like(errors, np.inf)
        found[kind] = np.stack([
            np.array([one.confidence for one in each]), errors <= defaults.CORRECT_RADIUS, errors,
            np.array([one.protection_level for one in each])], axis=1)
    return found


def _row(rows: Floats) -> list[float]:
    confidence, right, error, level = rows.T
    sent, near, protected = confidence >= THRESHOLDS[0], error[right > 0], np.isfinite(level)
    metric = len(near) > 0 and bool(np.isfinite(near).all())
    return [*published.row(confidence, right > 0, THRESHOLDS), int((sent & (right == 0)).sum()),
            *(np.percentile(near, (50, 90)) if metric else (np.nan, np.nan)),
            float(protected.mean()), float(np.median(level[protected])) if protected.any() else
            np.nan, int((error > level)[protected].sum())]


if __name__ == '__main__':
    parser = tables.parser(__doc__)
    add_data_option(parser)
    parser.add_argument('--towns', nargs='+', type=int, default=list(TOWNS), metavar='SEED',
                        help='seeds of the towns')
    options = parser.parse_args()
    sys.exit(tables.answer(options, lambda: smoothing(options.data, options.model,
                                                      options.towns)))
