"""An index of two stages: codes in memory find a few hundred, vectors on disk order them."""

from __future__ import annotations

from itertools import pairwise
import os
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING
import weakref

import faiss
import numpy as np
from vpr_ros.core.errors import MapError
from vpr_ros.maps.arrays import check_npy_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

RERANKED = 256
"""Places that `rerank` compares exactly with each query: those whose codes are most similar."""

CHUNK_ROWS = 1 << 14
"""Vectors that are worked on at a time where all of them would take too much memory."""

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
    """
    Write the vectors of an index to a file from which they can be mapped.

    In parts: they may be more than the memory.
    """
    with path.open('wb') as file:
        np.lib.format.write_array_header_1_0(file, {
            'descr': '<f2', 'fortran_order': False, 'shape': index.rows.shape})
        for start in range(0, index.ntotal, CHUNK_ROWS):
            file.write(np.ascontiguousarray(index.rows[start:start + CHUNK_ROWS], '<f2').tobytes())


def vectors_bytes(count: int, dimension: int) -> int:
    """Return a bound for the size of a file of vectors."""
    return 2 * count * dimension + (1 << 10)


def open_vectors(codes: Any, path: Path) -> Reranked:
    """
    Return the index whose vectors are in a file, which stays on disk.

    Raises ValueError when the file does not hold float16 (N,D).
    """
    shape = codes.ntotal, codes.d
    with path.open('rb') as file:
        check_npy_header(file, (np.float16, shape))
        rows = RowFile(path, file.tell(), shape)
        if file.seek(0, os.SEEK_END) != rows.end:
            raise ValueError(f'{path.name} is not of the size in its header')
    return Reranked(codes, rows)


class RowFile:
    """
    Vectors float16 (N,D) in a file, read when they are asked for, by numbers (M,) or a slice.

    Not a mapping of the file into memory: when that is cut, the process dies. Here it is a
    MapError.
    """

    def __init__(self, path: Path, begin: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.end = begin + 2 * shape[0] * shape[1]
        self._path, self._begin = path, begin
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __getitem__(self, which: NDArray[np.int64] | slice) -> NDArray[np.float16]:
        numbers = np.arange(self.shape[0])[which] if isinstance(which, slice) else which
        size = 2 * self.shape[1]
        # Neighbours in the file are read at once.
        breaks = np.flatnonzero((np.diff(numbers) != 1) | (numbers[1:] % CHUNK_ROWS == 0)) + 1
        bounds = [0, *breaks.tolist(), len(numbers)]
        starts = (self._begin + numbers[bounds[:-1]] * size).tolist() if len(numbers) else []
        data = b''.join([os.pread(self._file, size * (end - begin), start)
                         for start, (begin, end) in zip(starts, pairwise(bounds), strict=False)])
        if len(data) != size * len(numbers):
            raise MapError(f'{self._path} was cut off while it was in use: load the map again')
        return np.frombuffer(data, '<f2').reshape(-1, self.shape[1])
