"""
Recall on real images, beside thumbnails that need no model and published methods.

Ours: descriptors as they are, centred, and with the map's projection. The ground truth is that of
each set, with the tolerance given in the set's README. Of every set a map is made.
"""

from __future__ import annotations

from pathlib import Path
import sys
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib import thumbnails
from benchmarks.lib.peers import PUBLISHED
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import answer
from benchmarks.lib.sets import find_sets
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
from vpr_ros.offline.localize_queries import EvaluationOptions
from vpr_ros.offline.summary import summary

if TYPE_CHECKING:
    from benchmarks.lib.sets import ImageSet


WAYS = {'as they are': EvaluationOptions(use_filter=False, centering='none', projection='model'),
        'centred': EvaluationOptions(use_filter=False, projection='model'),
        'projected': EvaluationOptions(use_filter=False)}
"""How descriptors are compared; the last is how a robot does it by default."""


def real_sets(data: str, model: str | None = None) -> dict[str, Any]:
    """Map every set in `data` and measure what can be measured; return the figures by set."""
    encoder = Encoder(model)
    results = {image_set.name: _measure(image_set, encoder) for image_set in find_sets(data)}
    rows = []
    for name, result in results.items():
        ours, peer = (result.get(key, {}) for key in ('recall', 'thumbnail_recall'))
        unknown = float('nan')
        first, peers = ours.get('1', unknown), peer.get('1', unknown)
        rows.append((name, result['places'], result.get('evaluated', 0),
                     *(ours.get(str(n), unknown) for n in RECALLS),
                     *(peer.get(str(n), unknown) for n in RECALLS),
                     first / peers if peers else unknown, result['seconds']))
    tables.show(f'Real images: {encoder.path.name} {encoder.digest[:12]} on {encoder.provider}, '
                'beside patch-normalised thumbnails (64x32)',
                ('set', 'places', 'queries', *(f'R@{n}' for n in RECALLS),
                 *(f'thumb R@{n}' for n in RECALLS), 'R@1 ratio', 'seconds'), rows)
    print("  counted are the queries with a right answer in the set, within the set's tolerance")
    first = beside_peers(results)
    tables.show('Recall@1 of single frames, beside published methods', ('set', 'method', 'R@1'),
                [(name, method, share) for name, methods in first.items()
                 for method, share in methods.items()])
    return {'model': encoder.digest, 'sets': results, 'figures': [tables.bars(
        'Real images, single frames', 'Recall@1',
        {f'{name}: {method}': share for name, methods in first.items()
         for method, share in methods.items()})] if first else []}


def beside_peers(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the Recall@1 of all methods, by set, the best first."""
    compared = {name: {**{f'vpr_ros, {way}': share for way, share in result['ways'].items()},
                       'thumbnails (SeqSLAM)': result['thumbnail_recall']['1'],
                       **PUBLISHED.get(name, {})}
                for name, result in results.items() if 'ways' in result}
    return {name: dict(sorted(methods.items(), key=lambda item: -item[1]))
            for name, methods in compared.items()}


def _measure(image_set: ImageSet, encoder: Encoder) -> dict[str, Any]:
    if not image_set.has_queries:
        return _map_only(image_set, encoder)
    summaries = {way: summary(evaluate_set(image_set.database, image_set.queries,
                                           image_set.ground_truth, encoder, options, cache=False))
                 for way, options in WAYS.items()}
    result = summaries['projected']
    answers = image_set.answers()
    queries = [path for path in images.list_folder(image_set.queries) if path.name in answers]
    places = thumbnails.search(images.list_folder(image_set.database), queries, max(RECALLS))
    ranks = first_right(np.array(places), [sorted(answers[path.name]) for path in queries])
    figures = {name: result[name] for name in ('places', 'evaluated', 'unmapped', 'compensate',
                                               'recall', 'seconds')}
    figures['ways'] = {way: figure['recall']['1'] for way, figure in summaries.items()}
    return {**figures, 'thumbnail_recall': {str(n): share for n, share in recall(ranks).items()}}


def _map_only(image_set: ImageSet, encoder: Encoder) -> dict[str, Any]:
    """Build, write and read a map, for a set without queries."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'map'
        build_map([open_source(image_set.path)], encoder, spacing=0.0).save(path)
        places = len(PlaceMap.load(path, encoder))
    return {'places': places, 'seconds': round(time.perf_counter() - begin, 3)}


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    add_data_option(parser)
    options = parser.parse_args()
    return answer(options, lambda: real_sets(options.data, options.model))


if __name__ == '__main__':
    sys.exit(main())
