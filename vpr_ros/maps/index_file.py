"""
The layout of index.faiss, checked before FAISS reads it.

FAISS trusts what a file says: its counts, which kind of index comes next, links between vectors,
even the names of other files. So the file must be, number for number, of the layout that FAISS
writes for the kind of index that map.yaml names; only then is it read. Codes may be any bytes.
The layouts are those of FAISS's index_write.cpp, from 1.7.3 on.
"""

from __future__ import annotations

from pathlib import Path
import struct
from typing import Any
from typing import BinaryIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_LARGEST = 4.0
"""Bound of learned numbers, of which all vectors are made: these have unit norm."""

MOST_SIMILAR = 1.5
"""Bound of the similarity to a query of unit norm; what codes stand for may be a little longer."""

_EXACT = ('flat', 'fp16', 'hnsw', 'rerank')
_TOLERANCE = 1e-3
_PART = 1 << 10  # vectors of a block
_MOST_VALUES = 1 << 23
_SPOT, _SPOTS = 16, 1 << 8  # the same on disk

_FP16, _SQ8 = 4, 0
_BLOCK = 32  # vectors in a block of fast scan
_WAYS = (0, 15)  # of a search by fast scan: FAISS's choice, or a single query's lists divided
_LINKS = 32  # of HNSW32 at each upper level; twice as many at the lowest
_MOST_LEVELS = 32
_MOST_LISTS = 1 << 20
_WIDEST = 4096  # of a search in HNSW


def check_index_file(path: Path, kind: str, count: int, dimension: int) -> None:
    """
    Raise ValueError unless a file holds an index of `kind`, of (count,dimension) vectors.

    Reads its numbers, lists and links, not the vectors or their codes.
    """
    with path.open('rb') as file:
        reader = _Reader(file, path.stat().st_size)
        try:
            _LAYOUTS[kind](reader, count, dimension)
            if reader.left:
                raise ValueError(f'{reader.left} bytes too many')
        except ValueError as error:
            raise ValueError(f"{path.name} is no index of kind '{kind}' with {count} vectors of "
                             f'{dimension} dimensions: {error}') from error


def most_bytes(count: int, dimension: int) -> int:
    """Return a bound for the size of an index of any kind, of (count,dimension) vectors."""
    return (count + dimension + 256) * (8 * dimension + 1024)


def check_norms(index: Any, kind: str) -> None:
    """
    Raise ValueError unless the vectors of an index have unit norm, or are zero (nothing was left).

    Of codes, which lose some of it, the norm is only bounded. Of many vectors, and of those on
    disk, only blocks all over the index are looked at: what a search gives is checked as well.
    """
    most = _SPOTS if kind == 'rerank' else _MOST_VALUES // index.d
    size = min(_SPOT if kind == 'rerank' else _PART, index.ntotal)
    blocks = max(1, -(-min(index.ntotal, most) // size))
    for start in np.linspace(0, index.ntotal - size, blocks).astype(int).tolist():
        vectors = index.reconstruct_n(start, size)
        squares = np.einsum('nd,nd->n', vectors, vectors)
        if kind in _EXACT:
            right = (np.abs(np.sqrt(squares) - 1) <= _TOLERANCE) | (squares <= _TOLERANCE ** 2)
        else:
            right = squares <= MOST_SIMILAR
        if not right.all():
            wrong = int(np.argmin(right))
            raise ValueError(f'vector {start + wrong} has norm {squares[wrong] ** .5:.3g}, not 1')


class _Reader:
    """A file that is read from its start, and never beyond its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.left = size

    def take(self, layout: str) -> tuple[Any, ...]:
        """Return the next values, in the words of `struct`, little-endian and without gaps."""
        return struct.unpack(f'<{layout}', self._read(struct.calcsize(f'<{layout}')))

    def expect(self, layout: str, *values: object) -> None:
        """Raise ValueError unless the next values are these; None is for any."""
        for got, want in zip(self.take(layout), values, strict=True):
            if want is not None and got != want:
                raise ValueError(f'{got} where {want} belongs')

    def skip(self, size: int) -> None:
        """Pass over so many bytes, which must be there."""
        self._count(size)
        self._file.seek(size, 1)

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        """Return the next `count` values."""
        return np.frombuffer(self._read(count * np.dtype(dtype).itemsize), dtype)

    def vector(self, dtype: str, count: int) -> NDArray[Any]:
        """Return a vector, which must have `count` values, behind the number of them."""
        self.expect('Q', count)
        return self.array(dtype, count)

    def codes(self, size: int, unit: int = 1) -> None:
        """Pass over a vector of `size` bytes, of which any will do."""
        self.expect('Q', size // unit)
        self.skip(size)

    def floats(self, count: int) -> None:
        """Pass over a vector of numbers that were learned."""
        if not (np.abs(self.vector('<f4', count)) <= _LARGEST).all():
            raise ValueError('numbers that no training gives')

    def _read(self, size: int) -> bytes:
        self._count(size)
        data = self._file.read(size)
        if len(data) != size:
            raise ValueError('it ends too early')
        return data

    def _count(self, size: int) -> None:
        if size > self.left:
            raise ValueError('it ends too early')
        self.left -= size


def _header(reader: _Reader, name: bytes, count: int, dimension: int) -> None:
    # d, ntotal, two numbers without a meaning, is_trained, the metric: inner product
    reader.expect('4siqqqBi', name, dimension, count, None, None, 1, 0)


def _flat(reader: _Reader, count: int, dimension: int) -> None:
    _header(reader, b'IxFI', count, dimension)
    reader.codes(4 * count * dimension, unit=4)


def _scalar(reader: _Reader, count: int, dimension: int, kind: int, size: int, learned: int
            ) -> None:
    _header(reader, b'IxSQ', count, dimension)
    reader.expect('iifQQ', kind, 0, None, dimension, size)
    reader.floats(learned)
    reader.codes(count * size)


def _fp16(reader: _Reader, count: int, dimension: int) -> None:
    _scalar(reader, count, dimension, _FP16, 2 * dimension, 0)


def _sq8(reader: _Reader, count: int, dimension: int) -> None:
    _scalar(reader, count, dimension, _SQ8, dimension, 2 * dimension)


def _quantiser(reader: _Reader, dimension: int, bits: int) -> int:
    """Pass over a product quantiser; return into how many parts it divides a vector."""
    _, parts, _ = found = reader.take('QQQ')
    if not 1 <= parts <= dimension or dimension % parts or found != (dimension, parts, bits):
        raise ValueError(f'{found} for a product quantiser')
    reader.floats(dimension << bits)
    return int(parts)


def _pq(reader: _Reader, count: int, dimension: int) -> None:
    _header(reader, b'IxPq', count, dimension)
    parts = _quantiser(reader, dimension, 8)
    reader.codes(count * parts)
    reader.expect('iBi', 0, 0, None)  # search without polysemous codes, encode_signs


def _hnsw(reader: _Reader, count: int, dimension: int) -> None:
    _header(reader, b'IHNf', count, dimension)
    levels, = reader.take('Q')
    if not 1 <= levels <= _MOST_LEVELS:
        raise ValueError(f'{levels} levels')
    reader.array('<f8', levels)  # by which vectors are added
    begin = _LINKS * (1 + np.arange(levels + 1))  # of each level's links
    begin[0] = 0
    if (reader.vector('<i4', levels + 1) != begin).any():
        raise ValueError('other numbers of links')
    heights = reader.vector('<i4', count)
    if not ((heights >= 1) & (heights <= levels)).all():
        raise ValueError('a level that is none')
    offsets = reader.vector('<u8', count + 1)
    if offsets[0] or (np.diff(offsets) != begin[heights]).any():
        raise ValueError('links out of place')
    links = reader.vector('<i4', int(offsets[-1]))
    if not ((links >= -1) & (links < count)).all():
        raise ValueError('a link to no vector')
    for level in range(1, heights.max()):
        own = offsets[:-1][heights > level].astype(np.int64) + begin[level]
        to = links[own[:, None] + np.arange(_LINKS)]
        if (heights[to[to >= 0]] <= level).any():
            raise ValueError('a link to a level that a vector has not')
    entry, top, build, width, _ = reader.take('5i')
    if not (0 <= entry < count and heights[entry] == heights.max() == top + 1
            and 1 <= build <= _WIDEST and 1 <= width <= _WIDEST):
        raise ValueError('a start or a width of the search that is none')
    _flat(reader, count, dimension)


def _rotated(reader: _Reader, name: bytes, count: int, dimension: int) -> None:
    """Pass over the rotation before another index."""
    _header(reader, b'IxPT', count, dimension)
    reader.expect('i4sB', 1, name, 0)  # one transformation, without an offset
    reader.floats(dimension ** 2)
    reader.floats(0)
    reader.expect('iiB', dimension, dimension, 1)


def _opq(reader: _Reader, count: int, dimension: int) -> None:
    _rotated(reader, b'LTra', count, dimension)
    _pq(reader, count, dimension)


def _lists_header(reader: _Reader, name: bytes, count: int, dimension: int) -> int:
    """Pass over what all indices of inverted lists begin with; return the number of lists."""
    _header(reader, name, count, dimension)
    lists, probed = reader.take('QQ')
    if not 1 <= probed <= lists <= min(count, _MOST_LISTS):
        raise ValueError(f'{probed} of {lists} lists')
    _header(reader, b'IxFI', lists, dimension)
    reader.floats(lists * dimension)
    return int(lists)


def _ivfpq(reader: _Reader, count: int, dimension: int) -> None:
    lists = _lists_header(reader, b'IwPQ', count, dimension)
    reader.expect('B', 1)  # where each vector is: in which list, and at which place there
    found = reader.vector('<i8', count)
    residual, size = reader.take('BQ')
    if residual > 1 or _quantiser(reader, dimension, 8) != size:
        raise ValueError('codes of another size')
    reader.expect('4sQQ', b'ilar', lists, size)
    sizes = _sizes(reader, lists)
    where = np.full(count, -1, np.int64)
    for number, length in enumerate(sizes):
        reader.skip(length * size)
        ids = reader.array('<i8', length)
        _check_ids(ids, count)
        where[ids] = (number << 32) + np.arange(length)
    if sum(sizes) != count or (where < 0).any() or (where != found).any():
        raise ValueError('vectors that are in no list, in several, or elsewhere')


def _sizes(reader: _Reader, lists: int) -> list[int]:
    """Return the number of vectors in each inverted list; FAISS leaves many empty ones out."""
    kind, = reader.take('4s')
    if kind == b'full':
        return [int(size) for size in reader.vector('<u8', lists)]
    size, = reader.take('Q')
    if kind != b'sprs' or size % 2 or size > 2 * lists:
        raise ValueError('lists of another kind')
    pairs = reader.array('<u8', size).reshape(-1, 2)
    if (pairs[:, 0] >= lists).any() or (np.diff(pairs[:, 0].astype(np.int64)) <= 0).any():
        raise ValueError('lists out of order')
    sizes = [0] * lists
    for number, length in pairs:
        sizes[int(number)] = int(length)
    return sizes


def _rerank(reader: _Reader, count: int, dimension: int) -> None:
    _rotated(reader, b'rrot', count, dimension)
    lists = _lists_header(reader, b'IwPf', count, dimension)
    reader.expect('BQ', 0, 0)  # without the direct map
    residual, size, block, padded, way, queries = reader.take('BQiQiQ')
    parts = _quantiser(reader, dimension, 4)
    if (residual > 1 or size != (parts + 1) // 2 or block != _BLOCK
            or padded != parts + parts % 2 or way not in _WAYS or queries):
        raise ValueError('codes of another size')
    block_size = _BLOCK * padded // 2
    reader.expect('4sQQQQ', b'ilbl', lists, None, _BLOCK, block_size)
    found = []
    for _ in range(lists):
        length, = reader.take('Q')
        found.append(reader.array('<i8', length))
        reader.codes(-(-length // _BLOCK) * block_size)
    ids = np.concatenate(found)
    _check_ids(ids, count)
    if len(ids) != count or np.bincount(ids, minlength=count).max() > 1:
        raise ValueError('vectors that are in no list, or in several')


def _check_ids(ids: NDArray[np.int64], count: int) -> None:
    if not ((ids >= 0) & (ids < count)).all():
        raise ValueError('a list with a vector that is none')


_LAYOUTS: dict[str, Callable[[_Reader, int, int], None]] = {
    'flat': _flat, 'fp16': _fp16, 'sq8': _sq8, 'pq': _pq, 'hnsw': _hnsw, 'opq': _opq,
    'ivfpq': _ivfpq, 'rerank': _rerank}
