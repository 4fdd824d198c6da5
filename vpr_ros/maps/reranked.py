"""An index of two stages: codes in memory find a few hundred, vectors on disk order them."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import faiss
import numpy as np
from vpr_ros.maps.arrays import RowFile
from vpr_ros.maps.arrays import save_rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

RERANKED = 256
"""Places that `rerank` compares exactly with each query: those whose codes are most similar."""

_ONE_CORE = 32 << 20  # bytes of codes that one core looks through soon enough
_BY_LISTS = 15  # FAISS divides a batch among its threads; this divides a single query's lists, too


class Reranked:
    """
    Codes in memory find the best few hundred; half-precision vectors on disk order them.

    Has what a FAISS index has and PlaceMap uses: `d`, `ntotal`, `search`, `reconstruct_batch`,
    `reconstruct_n`. `codes` is a FAISS index of N vectors, `rows` float16 (N,D) the vectors, in
    memory or in a file (Jegou et al. 2011, 'Searching in one billion vectors: re-rank with source
    coding', with the vectors themselves for the second code).
    """

    def __init__(self, codes: Any, vectors: NDArray[np.float16] | RowFile) -> None:
        self.codes = codes
        self.d, self.ntotal = int(codes.d), int(codes.ntotal)
        self.large = is_large(codes)
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
            # A file that is changed while it is in use may give wrong answers, but only numbers.
            real = np.abs(exact) <= 1.01
            best = order[real][:k]
            similarity[row, :len(best)] = exact[real][:k]
            numbers[row, :len(best)] = some[best]
        return similarity, numbers

    def reconstruct_batch(self, numbers: NDArray[np.int64]) -> Floats:
        """Return the vectors float32 (M,D) with these numbers."""
        return np.asarray(self.rows[numbers], np.float32)

    def reconstruct_n(self, start: int, count: int) -> Floats:
        """Return `count` vectors float32 (count,D) from one on."""
        return np.asarray(self.rows[start:start + count], np.float32)


def is_large(index: Any) -> bool:
    """Tell whether a single query is worth more than one core."""
    return not hasattr(index, 'hnsw') and index.sa_code_size() * index.ntotal > _ONE_CORE


def save_vectors(index: Reranked, path: Path) -> None:
    """Write the vectors of an index to a file from which they can be read by number."""
    save_rows(index.rows, path, (np.float16, index.rows.shape))


def open_vectors(codes: Any, path: Path) -> Reranked:
    """
    Return the index whose vectors are in a file, which stays on disk.

    Raises ValueError when the file does not hold float16 (N,D).
    """
    return Reranked(codes, RowFile(path, (np.float16, (codes.ntotal, codes.d))))
