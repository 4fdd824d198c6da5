"""
Index: kinds of search over descriptors, which of them fits a map, and how exact it is.

Vectors in, an object that finds the most similar of them out. Where they come from and what a
map is, is not known here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import faiss
import numpy as np
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

EXACT_BYTES = 32 << 20
"""Descriptors of up to so many bytes in float32 are compared one by one: that takes 1 to 2 ms, as
long as a processor takes to read half of them."""

RECALL = 0.99
"""The least share of queries for which an index chosen by `auto` must find the most similar."""

RERANKED = 256
"""Places that `rerank` compares exactly with each query: those whose codes are most similar."""

LIKENESS = (0.3, 0.6)
"""Cosine similarities, the least and the most, to the places they come from of the queries that an
index is tried with: those of frames of another season, centred (docs/maps.md)."""

_SURPLUS = 0.994  # what is measured on a sample must hold for all
_QUERIES = 1024
_ONE_CORE = 32 << 20  # bytes of codes that one core looks through soon enough
_BY_LISTS = 15  # FAISS divides a batch among its threads; this divides a single query's lists, too
_ROWS = 1 << 14
_MOST_LISTS = 1024
_QUANTISED = ('pq', 'opq', 'ivfpq', 'rerank')
_PQ_CENTROIDS = 256
_LEARNED_FROM = 128  # vectors for each centroid; more do not move it


class Reranked:
    """
    Codes in memory find the best few hundred; half-precision vectors on disk order them.

    Has what a FAISS index has and PlaceMap uses: `d`, `ntotal`, `search`, `reconstruct_batch`.
    `codes` is a FAISS index of N vectors, `vectors` float16 (N,D), in memory or mapped from a
    file (Jegou et al. 2011, 'Searching in one billion vectors: re-rank with source coding', with
    the vectors themselves for the second code).
    """

    def __init__(self, codes: Any, vectors: NDArray[np.float16]) -> None:
        self.codes = codes
        self.d, self.ntotal = int(codes.d), int(codes.ntotal)
        self.large = _large(codes)
        lists: Any = faiss.downcast_index(faiss.downcast_index(codes.index))
        if self.large and hasattr(lists, 'implem'):
            lists.implem = _BY_LISTS
        self.rows = vectors

    def search(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """
        Return similarities float32 (Q,k) and numbers int64 (Q,k), best first.

        Where fewer are found, the rest is -1 in both, as in FAISS.
        """
        found = self.codes.search(queries, min(max(k, RERANKED), self.ntotal))[1]
        similarity = np.full((len(queries), k), -1, np.float32)
        numbers = np.full((len(queries), k), -1, np.int64)
        found.sort(axis=1)  # the order in which they lie on disk
        for row, query in enumerate(queries):
            some = found[row, np.searchsorted(found[row], 0):]
            few = faiss.IndexScalarQuantizer(self.d, faiss.ScalarQuantizer.QT_fp16,
                                             faiss.METRIC_INNER_PRODUCT)
            # Not by add_sa_codes: the FAISS of a ROS 2 distribution may be older than that.
            faiss.copy_array_to_vector(self.rows[some].view(np.uint8).ravel(), few.codes)
            few.ntotal = len(some)
            (exact,), (order,) = few.search(query[None], max(1, len(some)))
            # Who changes a file that was loaded gets wrong answers, but no others than numbers.
            real = np.abs(exact) <= 1.01
            best = order[real][:k]
            similarity[row, :len(best)] = exact[real][:k]
            numbers[row, :len(best)] = some[best]
        return similarity, numbers

    def reconstruct_batch(self, numbers: NDArray[np.int64]) -> Floats:
        """Return the vectors float32 (M,D) with these numbers."""
        return np.asarray(self.rows[numbers], np.float32)


def search(index: Any, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """
    Return similarities float32 (Q,k) and numbers int64 (Q,k) of the most similar, best first.

    A single query is answered by one core, unless there are many vectors to look through: to wait
    for a second core, which the network may keep busy, takes many times as long as the search.
    """
    large = index.large if isinstance(index, Reranked) else _large(index)
    threads = faiss.omp_get_max_threads()
    if len(queries) == 1 and not large:
        faiss.omp_set_num_threads(1)
    try:
        return index.search(queries, k)  # type: ignore[no-any-return]
    finally:
        faiss.omp_set_num_threads(threads)


def _large(index: Any) -> bool:
    """Tell whether a single query is worth more than one core."""
    return not hasattr(index, 'hnsw') and index.sa_code_size() * index.ntotal > _ONE_CORE


def make_index(vectors: Floats, kind: str) -> Any:
    """
    Return a trained index (inner product) of `kind` that holds `vectors` (N,D).

    Raises ValueError for an unknown kind, or one that needs more places to learn from.
    """
    count, dimension = vectors.shape
    if kind not in defaults.INDEX_KINDS:
        raise ValueError(f"index '{kind}' is not known; use one of "
                         f'{", ".join(defaults.INDEX_KINDS)}')
    # FAISS reads beyond its memory when it learns an OPQ rotation from fewer vectors than D.
    fewest = max(_PQ_CENTROIDS, dimension) if kind == 'opq' else _PQ_CENTROIDS
    if kind in _QUANTISED and count < fewest:
        raise ValueError(f"index '{kind}' needs at least {fewest} places to learn from, "
                         f"not {count}: use 'flat'")
    lists = max(1, math.isqrt(count))
    if kind == 'rerank':
        lists = min(_MOST_LISTS, 1 << (lists.bit_length() - 1))
    parts = max((m for m in range(1, dimension // 8 + 1) if dimension % m == 0), default=1)
    # np: no polysemous training, which takes seconds a part and serves a search not used here.
    # RR: a random rotation gives all parts of a vector the same share of what tells places apart.
    index: Any = faiss.index_factory(dimension, {
        'flat': 'Flat', 'fp16': 'SQfp16', 'sq8': 'SQ8', 'pq': f'PQ{parts}np', 'hnsw': 'HNSW32',
        'opq': f'OPQ{parts},PQ{parts}np',
        'ivfpq': f'IVF{lists},PQ{parts}np',
        'rerank': f'RR{dimension},IVF{lists},PQ{dimension // 2 or 1}x4fs'}[kind],
        faiss.METRIC_INNER_PRODUCT)
    sample = vectors
    if kind in _QUANTISED:
        # A small map is no mistake: FAISS would print a warning for each of its k-means.
        quantiser: Any = index if kind in ('pq', 'ivfpq') else faiss.downcast_index(index.index)
        clusterings = [quantiser.pq.cp, *([quantiser.cp] if 'ivf' in kind or kind == 'rerank'
                                          else [])]
        for clustering in clusterings:
            clustering.min_points_per_centroid = 1
        most = _LEARNED_FROM * max(lists, _PQ_CENTROIDS)
        if kind == 'rerank' and count > most:
            sample = vectors[np.sort(np.random.default_rng(0).permutation(count)[:most])]
    index.train(sample)
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


def fit_index(vectors: Floats, kind: str, exact_bytes: int = EXACT_BYTES
              ) -> tuple[Any, str, float]:
    """
    Return an index of vectors (N,D), its kind, and its recall@1 of the exact answer.

    'auto' is 'fp16' while the vectors take no more than `exact_bytes`, and above that 'rerank',
    whose search is widened until the recall reaches RECALL; where it does not, 'flat'. Other kinds
    are what they are. Raises what make_index raises.
    """
    wanted = kind
    if wanted == 'auto':
        large = vectors.nbytes > exact_bytes and len(vectors) >= _PQ_CENTROIDS
        kind = 'rerank' if large else 'fp16'
    index = make_index(vectors, kind)
    if kind == 'flat':
        return index, kind, 1.0
    queries = other_views(vectors, *LIKENESS, np.random.default_rng(0))
    best = _most_similar(vectors, queries)
    recall = _recall(index, vectors, queries, best)
    if isinstance(index, Reranked):
        lists = faiss.extract_index_ivf(index.codes)
        while recall < _SURPLUS and lists.nprobe < lists.nlist:
            lists.nprobe = min(lists.nprobe + max(1, lists.nlist // 8), lists.nlist)
            recall = _recall(index, vectors, queries, best)
    if wanted == 'auto' and recall < RECALL:
        return make_index(vectors, 'flat'), 'flat', 1.0
    return index, kind, recall


def other_views(vectors: Floats, least: float, most: float, rng: np.random.Generator,
                count: int = _QUERIES) -> Floats:
    """
    Return queries float32 (count,D) as another season would give of some of the vectors (N,D).

    Each is a vector and a disturbance that is random, yet made as the vectors differ among
    themselves; its cosine similarity to the vector is about `least` to `most`. White noise would
    leave the dimensions in which places differ almost as they were, and be too easy.
    """
    chosen = vectors[rng.integers(0, len(vectors), count)]
    others = vectors[rng.permutation(len(vectors))[:4 * vectors.shape[1]]]
    disturbance = rng.standard_normal((count, len(others)), np.float32) @ (others
                                                                           - others.mean(axis=0))
    norms = np.linalg.norm(disturbance, axis=1, keepdims=True)
    disturbance /= np.maximum(norms, 1e-6)
    likeness = rng.uniform(least, most, (count, 1)).astype(np.float32)
    queries = likeness * chosen + np.sqrt(1 - likeness ** 2) * disturbance
    norms = np.linalg.norm(queries, axis=1, keepdims=True)
    return np.asarray(queries / np.maximum(norms, 1e-6), np.float32)


def _most_similar(vectors: Floats, queries: Floats) -> Floats:
    """Return the similarity (Q,) of the vector that is most similar to each query."""
    best = np.full(len(queries), -np.inf, np.float32)
    for start in range(0, len(vectors), _ROWS):
        np.maximum(best, (queries @ vectors[start:start + _ROWS].T).max(axis=1), out=best)
    return best


def _recall(index: Any, vectors: Floats, queries: Floats, best: Floats) -> float:
    """Return the share of queries for which the first answer is as similar as the best one."""
    found = index.search(queries, 1)[1][:, 0]
    similarity = (vectors[found] * queries).sum(axis=1)
    return float(((found >= 0) & (similarity >= best - 1e-5)).mean())


def save_vectors(index: Reranked, path: Path) -> None:
    """
    Write the vectors of an index to a file from which they can be mapped.

    In parts: numpy would take a mapped file for a small thing, and copy it whole.
    """
    with path.open('wb') as file:
        np.lib.format.write_array_header_1_0(file, {
            'descr': '<f2', 'fortran_order': False, 'shape': index.rows.shape})
        for start in range(0, index.ntotal, _ROWS):
            file.write(np.ascontiguousarray(index.rows[start:start + _ROWS], '<f2').tobytes())


def open_vectors(codes: Any, path: Path) -> Reranked:
    """
    Return the index whose vectors are in a file, which stays on disk.

    Raises ValueError when the file does not hold float16 (N,D).
    """
    rows = np.load(path, mmap_mode='r', allow_pickle=False)
    if rows.shape != (codes.ntotal, codes.d) or rows.dtype != np.float16 \
            or not rows.flags.c_contiguous:
        raise ValueError(f'{path.name} holds {rows.dtype} {rows.shape}')
    return Reranked(codes, rows)
