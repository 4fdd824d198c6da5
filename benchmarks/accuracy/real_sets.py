"""
Recall on real pictures, beside thumbnails that need no model; a map of every set there is.

Set against the truth that each set lists, whose tolerance is in the set's own README.
"""

from __future__ import annotations

import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib import thumbnails
from benchmarks.lib.sets import find_sets
from benchmarks.lib.sets import NO_DATA
import numpy as np
from vpr_ros.core import images
from vpr_ros.core.metrics import first_right
from vpr_ros.core.metrics import recall
from vpr_ros.core.metrics import RECALLS
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.sources import open_source
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.evaluate_images import evaluate_set
from vpr_ros.offline.summary import summary

if TYPE_CHECKING:
    from benchmarks.lib.sets import PictureSet


def real_sets(data: str, model: str | None = None) -> dict[str, Any]:
    """Map every set in `data` and measure what can be measured; return the figures by set."""
    encoder = Encoder(model)
    results = {one.name: _measure(one, encoder) for one in find_sets(data)}
    rows = []
    for name, result in results.items():
        ours, peer = (result.get(who, {}) for who in ('recall', 'thumbnail_recall'))
        nothing = float('nan')
        first, peers = ours.get('1', nothing), peer.get('1', nothing)
        rows.append((name, result['places'], result.get('evaluated', 0),
                     *(ours.get(str(n), nothing) for n in RECALLS),
                     *(peer.get(str(n), nothing) for n in RECALLS),
                     first / peers if peers else nothing, result['seconds']))
    tables.show(f'Real pictures: {encoder.path.name} {encoder.digest[:12]} on {encoder.provider}, '
                'beside patch-normalised thumbnails (64x32)',
                ('set', 'places', 'queries', *(f'R@{n}' for n in RECALLS),
                 *(f'thumb R@{n}' for n in RECALLS), 'R@1 ratio', 'seconds'), rows)
    print("  queries count where the set lists a right answer, with that list's tolerance")
    first = {f'{name}: {who}': result[key]['1'] for name, result in results.items()
             for who, key in ((encoder.path.stem, 'recall'), ('thumbnails', 'thumbnail_recall'))
             if key in result}
    return {'model': encoder.digest, 'sets': results, 'figures': [tables.bars(
        'Real pictures: single frames found', 'Recall@1', first)] if first else []}


def _measure(one: PictureSet, encoder: Encoder) -> dict[str, Any]:
    if not one.has_queries:
        return _map_only(one, encoder)
    result = summary(evaluate_set(one.database, one.queries, one.ground_truth, encoder,
                                  cache=False))
    answers = one.answers()
    queries = [path for path in images.list_folder(one.queries) if path.name in answers]
    found = thumbnails.search(images.list_folder(one.database), queries, max(RECALLS))
    ranks = first_right(np.array(found), [sorted(answers[path.name]) for path in queries])
    kept = {name: result[name] for name in ('places', 'evaluated', 'unmapped', 'compensate',
                                            'recall', 'seconds')}
    return {**kept, 'thumbnail_recall': {str(n): share for n, share in recall(ranks).items()}}


def _map_only(one: PictureSet, encoder: Encoder) -> dict[str, Any]:
    """Build, write and read a map: all that can be done with a set that has no queries."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'map'
        build_map([open_source(one.path)], encoder, spacing=0.0).save(path)
        places = len(PlaceMap.load(path, encoder))
    return {'places': places, 'seconds': round(time.perf_counter() - begin, 3)}


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--data', default=os.environ.get('VPR_DATA'), metavar='DIR',
                        help='folder of picture sets')
    options = parser.parse_args()
    if not options.data:
        print(NO_DATA)
        return 0
    return tables.answer(options, lambda: real_sets(options.data, options.model))


if __name__ == '__main__':
    sys.exit(main())
