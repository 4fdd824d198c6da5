"""
Kinds of index over descriptors: vectors in, an object that finds the most similar of them out.

Which kind fits a map, and how exact it is, is in index_choice.py.
"""

from __future__ import annotations

import math
from typing import Any
from typing import TYPE_CHECKING

import faiss
import numpy as np
from vpr_ros.core import defaults
from vpr_ros.maps.reranked import is_large
from vpr_ros.maps.reranked import Reranked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


_MOST_LISTS = 1024
_QUANTISED = ('pq', 'opq', 'ivfpq', 'rerank')
PQ_CENTROIDS = 256
_LEARNED_FROM = 128  # vectors for each centroid; more hardly change it


def search(index: Any, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """
    Return similarities float32 (Q,k) and numbers int64 (Q,k) of the most similar, best first.

    A single query is answered by one core, unless there are many vectors to look through: to wait
    for a second core, which the network may keep busy, takes many times as long as the search.
    """
    large = index.large if isinstance(index, Reranked) else is_large(index)
    threads = faiss.omp_get_max_threads()
    if len(queries) == 1 and not large:
        faiss.omp_set_num_threads(1)
    try:
        return index.search(queries, k)  # type: ignore[no-any-return]
    finally:
        faiss.omp_set_num_threads(threads)


def make_index(vectors: Floats, kind: str) -> Any:
    """
    Return a trained index (inner product) of `kind` that holds `vectors` (N,D).

    A new kind needs its name in defaults.INDEX_KINDS, its recipe in `_recipe`, and what is to be
    set once it holds vectors here. Raises ValueError for an unknown kind, or one that needs more
    places to learn from.
    """
    count, dimension = vectors.shape
    lists = _list_count(kind, count)
    index: Any = faiss.index_factory(dimension, _recipe(kind, count, dimension),
                                     faiss.METRIC_INNER_PRODUCT)
    _train(index, vectors, kind)
    index.add(vectors)
    if kind == 'hnsw':
        index.hnsw.efSearch = 64
    elif kind == 'ivfpq':
        index.nprobe = max(8, lists // 8)
        index.make_direct_map()
    elif kind == 'rerank':
        faiss.extract_index_ivf(index).nprobe = max(1, lists // 8)
        return Reranked(index, vectors.astype(np.float16))
    return index


def _recipe(kind: str, count: int, dimension: int) -> str:
    """Return FAISS's description of an index; raise ValueError as make_index does."""
    if kind not in defaults.INDEX_KINDS:
        raise ValueError(f"index '{kind}' is not known; use one of "
                         f'{", ".join(defaults.INDEX_KINDS)}')
    # FAISS reads beyond its memory when it learns an OPQ rotation from fewer vectors than D.
    fewest = max(PQ_CENTROIDS, dimension) if kind == 'opq' else PQ_CENTROIDS
    if kind in _QUANTISED and count < fewest:
        raise ValueError(f"index '{kind}' needs at least {fewest} places to learn from, "
                         f"not {count}: use 'flat'")
    parts = max((m for m in range(1, dimension // 8 + 1) if dimension % m == 0), default=1)
    lists = _list_count(kind, count)
    # np: no polysemous training, which takes seconds a part and serves a search not used here.
    # RR: a random rotation gives all parts of a vector the same share of what tells places apart.
    return {
        'flat': 'Flat', 'fp16': 'SQfp16', 'sq8': 'SQ8', 'pq': f'PQ{parts}np', 'hnsw': 'HNSW32',
        'opq': f'OPQ{parts},PQ{parts}np',
        'ivfpq': f'IVF{lists},PQ{parts}np',
        'rerank': f'RR{dimension},IVF{lists},PQ{dimension // 2 or 1}x4fs'}[kind]


def _list_count(kind: str, count: int) -> int:
    """Return into how many lists the kinds with inverted lists divide so many vectors."""
    lists = max(1, math.isqrt(count))
    return min(_MOST_LISTS, 1 << (lists.bit_length() - 1)) if kind == 'rerank' else lists


def _train(index: Any, vectors: Floats, kind: str) -> None:
    """Let an index learn its codes, if it has any, from vectors (N,D), or a sample of many."""
    if kind in _QUANTISED:
        quantiser: Any = index if kind in ('pq', 'ivfpq') else faiss.downcast_index(index.index)
        clusterings = [quantiser.pq.cp, *([quantiser.cp] if kind in ('ivfpq', 'rerank') else [])]
        for clustering in clusterings:
            # A small map is no mistake: FAISS would print a warning for each of its k-means.
            clustering.min_points_per_centroid = 1
    most = _LEARNED_FROM * max(_list_count(kind, len(vectors)), PQ_CENTROIDS)
    if kind == 'rerank' and len(vectors) > most:
        vectors = vectors[np.sort(np.random.default_rng(0).permutation(len(vectors))[:most])]
    index.train(vectors)
