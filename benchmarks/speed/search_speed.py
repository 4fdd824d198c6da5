"""
The time to search a map for one frame, against other ways to search vectors.

Peers are a Python loop over SciPy's cosine distance, numpy (one product, argpartition),
scikit-learn's brute force, a bare FAISS flat index, and hnswlib where it is installed. All search
for one query at a time, as a robot does, in turns. Descriptors are synthetic, like those of a long
drive (drive_vectors.py); recall is the share of queries whose best place is that of exact search.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.drive_vectors import drive_vectors
from benchmarks.lib.drive_vectors import later_drive
from benchmarks.lib.synthetic_map import CANDIDATES
import faiss
import numpy as np
from scipy.spatial.distance import cosine
from vpr_ros.maps.index import search as our_search
from vpr_ros.maps.index_choice import fit_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIMILARITY = 0.4
"""Of a frame to its place in another season: the median of six sets of real images."""

PAUSE = 0.01
"""Seconds between turns."""

HEADER = ('method', 'p50 ms', 'p10', 'p90', 'times ours', 'recall@1')

SKLEARN, LOOP = 'scikit-learn brute', 'Python loop over SciPy'
GOALS = {SKLEARN: 20.0, LOOP: 500.0}
RECALL = 0.99


def search_speed(places: int = 100_000, dimension: int = 256, index: str = 'auto',
                 queries: int = 200) -> dict[str, Any]:
    """Time searches in synthetic descriptors; return milliseconds, recalls and ratios."""
    vectors = drive_vectors(places, dimension)
    asked = later_drive(vectors, queries, SIMILARITY)
    begin = time.perf_counter()
    ours, kind, recall = fit_index(vectors, index)
    built = time.perf_counter() - begin
    exact = np.stack([np.argmax(vectors @ query) for query in asked])
    number = iter(range(1 << 30))

    def of(search: Callable[[NDArray[np.float32]], Any]) -> Callable[[], Any]:
        return lambda: search(asked[next(number) % queries])

    peers = _peers(vectors)
    name = f'vpr_ros {kind}'
    methods = {name: lambda query: our_search(ours, query[None], CANDIDATES)[1][0], **peers}
    recalls = {method: float(np.mean([search(query)[0] == best for query, best
                                      in zip(asked, exact, strict=True)]))
               for method, search in methods.items()}
    looped = tables.in_turns({LOOP: of(lambda query: _loop(vectors, query))}, 3)
    result: dict[str, Any] = {'places': places, 'dimension': dimension, 'index': kind,
                              'recall': recall, 'built_s': built, 'header': HEADER, 'rows': {},
                              'verdicts': [], 'figures': []}
    timed = {method: of(search) for method, search in methods.items()}
    for turn, each in tables.in_both_turns(timed, min(queries, 50), PAUSE).items():
        seconds = {**each, LOOP: np.array(looped[LOOP])}
        best = tables.median_ms(seconds[name])
        rows = [(method, tables.median_ms(times), *(1e3 * np.quantile(times, (0.1, 0.9))),
                 tables.median_ms(times) / best, recalls.get(method, 1.0))
                for method, times in seconds.items()]
        what = f'One query in {places} places x {dimension}, {turn}'
        tables.show(f'{what}, {CANDIDATES} candidates', HEADER, rows)
        ratios = {row[0]: row[4] for row in rows}
        result['rows'][turn] = rows
        result['figures'].append(tables.bars(
            what, f'time, as a multiple of: {name}', ratios,
            {row[0]: [value / best for value in row[2:4]] for row in rows}))
        result['verdicts'] += [
            tables.verdict(f'{turn} {ratios[peer]:.0f} times as fast as {peer} (target '
                           f'{target:g})', reached=ratios[peer] >= target)
            for peer, target in GOALS.items() if peer in ratios]
    result['verdicts'].append(tables.verdict(
        f'recall@1 {recalls[name]:.3f} of the exact answer (target {RECALL})',
        reached=recalls[name] >= RECALL))
    return result


def _loop(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the numbers of the most similar vectors, best first, one comparison at a time."""
    similarity = np.zeros(len(vectors))
    for place, vector in enumerate(vectors):
        similarity[place] = 1 - cosine(query, vector)
    return np.argsort(-similarity)[:CANDIDATES]


def _peers(vectors: NDArray[np.float32]) -> dict[str, Callable[[NDArray[np.float32]], Any]]:
    """Return methods that give the numbers of the most similar vectors, best first."""
    wanted = min(CANDIDATES, len(vectors))
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)

    def partitioned(query: NDArray[np.float32]) -> NDArray[np.int64]:
        similarity = vectors @ query
        best = np.argpartition(-similarity, wanted - 1)[:wanted]
        return np.asarray(best[np.argsort(-similarity[best])])

    def on_one_core(query: NDArray[np.float32]) -> Any:
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            return flat.search(query[None], wanted)[1][0]
        finally:
            faiss.omp_set_num_threads(threads)

    methods: dict[str, Callable[[NDArray[np.float32]], Any]] = {
        'numpy argpartition': partitioned,
        'FAISS flat': lambda query: flat.search(query[None], wanted)[1][0],
        'FAISS flat, one core': on_one_core}
    if importlib.util.find_spec('sklearn'):
        from sklearn.neighbors import NearestNeighbors
        brute = NearestNeighbors(n_neighbors=wanted, algorithm='brute', metric='cosine')
        brute.fit(vectors)
        methods[SKLEARN] = lambda query: brute.kneighbors(
            query[None], return_distance=False)[0]
    if importlib.util.find_spec('hnswlib'):
        import hnswlib
        graph = hnswlib.Index('ip', vectors.shape[1])
        graph.init_index(len(vectors), ef_construction=100, M=16)
        graph.add_items(vectors)
        graph.set_ef(max(wanted, 256))
        methods['hnswlib'] = lambda query: graph.knn_query(query[None], wanted)[0][0]
    return methods


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--places', type=int, default=100_000)
    parser.add_argument('--dimension', type=int, default=256)
    parser.add_argument('--index', default='auto')
    parser.add_argument('--queries', type=int, default=200)
    options = parser.parse_args()
    return tables.answer(options, lambda: search_speed(
        options.places, options.dimension, options.index, options.queries))


if __name__ == '__main__':
    sys.exit(main())
