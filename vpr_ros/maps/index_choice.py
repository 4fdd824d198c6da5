"""Which kind of index fits a map, and how often it finds what an exact one finds."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import faiss
import numpy as np
from vpr_ros.maps.arrays import CHUNK_ROWS
from vpr_ros.maps.index import make_index
from vpr_ros.maps.index import PQ_CENTROIDS
from vpr_ros.maps.reranked import Reranked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

EXACT_BYTES = 32 << 20
"""Descriptors of up to so many bytes in float32 are compared one by one: that takes 1 to 2 ms, as
long as a processor takes to read half of them."""

RECALL = 0.99
"""The least share of queries for which an index chosen by `auto` must find the most similar."""

LIKENESS = (0.3, 0.6)
"""Range of the cosine similarity between test queries and the places they come from: that of
frames of another season, centred (docs/maps.md)."""

_SURPLUS = 0.994  # what is measured on a sample must hold for all

_QUERIES = 1024


def fit_index(vectors: Floats, kind: str, exact_bytes: int = EXACT_BYTES
              ) -> tuple[Any, str, float]:
    """
    Return an index of vectors (N,D), its kind, and its recall@1 of the exact answer.

    'auto' is 'fp16' while the vectors take no more than `exact_bytes`, and above that 'rerank',
    whose search is widened until the recall reaches RECALL; where it does not, 'flat'. Other kinds
    are used as asked for. Raises what make_index raises.
    """
    wanted = kind
    if wanted == 'auto':
        large = vectors.nbytes > exact_bytes and len(vectors) >= PQ_CENTROIDS
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
    for start in range(0, len(vectors), CHUNK_ROWS):
        np.maximum(best, (queries @ vectors[start:start + CHUNK_ROWS].T).max(axis=1), out=best)
    return best


def _recall(index: Any, vectors: Floats, queries: Floats, best: Floats) -> float:
    """Return the share of queries for which the first answer is as similar as the best one."""
    found = index.search(queries, 1)[1][:, 0]
    similarity = (vectors[found] * queries).sum(axis=1)
    return float(((found >= 0) & (similarity >= best - 1e-5)).mean())
