"""
Arrays of .npy and .npz files, read only if they are what they must be: no size is trusted.

numpy's own reader makes whatever dtype and size a file names, of as many bytes as it unpacks to.
"""

from __future__ import annotations

import io
from itertools import pairwise
import math
import os
from pathlib import Path
from typing import Any
from typing import BinaryIO
from typing import TYPE_CHECKING
import weakref
import zipfile

import numpy as np
from vpr_ros.core.errors import MapError

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Mapping
    from typing import IO

    from numpy.typing import NDArray

    Layout = tuple[type[np.generic] | str, tuple[int | None, ...]]
    Rows = tuple[type[np.generic] | str, tuple[int, int]]

CHUNK_ROWS = 1 << 14
"""Rows that are worked on at a time where all of them would take too much memory."""

_HEADER = 1024  # bytes: above those of any array of a few axes
_MEMBER = 4096  # bytes around an array in a zip file


def check_npy_header(file: BinaryIO | IO[bytes], layout: Layout) -> tuple[int, ...]:
    """
    Read the header of an array in numpy's format, up to its first value, and return its shape.

    Raises ValueError unless it is of the dtype and shape `layout`, in C order; None in a shape
    stands for any length.
    """
    dtype, shape = layout
    lead = file.read(10)
    size = int.from_bytes(lead[8:], 'little')
    if lead[:8] != b'\x93NUMPY\x01\x00' or not 0 < size <= _HEADER:
        raise ValueError('it is no array in the format 1.0 of numpy')
    try:
        found = np.lib.format.read_array_header_1_0(io.BytesIO(lead[8:] + file.read(size)))
    except Exception as error:  # of the tokenizer and of the parser of Python
        raise ValueError('its header is damaged') from error
    if (found[1:] != (False, np.dtype(dtype).newbyteorder('<')) or len(found[0]) != len(shape)
            or any(want not in (None, have) for have, want in zip(found[0], shape, strict=True))):
        raise ValueError(f'it holds {found[2]} {found[0]}, not {np.dtype(dtype)} {shape}')
    return tuple(found[0])


def read_array(path: Path, layout: Layout) -> NDArray[Any]:
    """
    Return the array of an .npy file, of at most `most_bytes` of it.

    Raises ValueError, which names the file, unless it has that dtype and shape and is finite.
    """
    try:
        with path.open('rb') as file:
            array = _read(file, layout)
        _check_finite(array)
    except ValueError as error:
        raise ValueError(f'{path.name}: {error}') from error
    return array


def most_bytes(layouts: Mapping[str, Layout]) -> int:
    """Return a bound for the size of an .npz file of arrays of known lengths, or an .npy file."""
    return sum(_size(dtype, shape) + _MEMBER for dtype, shape in layouts.values())


def read_arrays(path: Path, layouts: Mapping[str, Layout], optional: Collection[str] = (),
                unset: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """
    Return the arrays of an .npz file by name; those of `optional` may be missing.

    The file is no larger than the caller allows, such as `most_bytes`; no array is larger than the
    file. Others than in `layouts` are left alone. Raises ValueError, which names the array, unless
    each has its dtype and shape and is finite, or all NaN if it is in `unset`; zipfile's errors
    for a damaged file.
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        for name, layout in layouts.items():
            member = members.get(f'{name}.npy')
            if member is None and name in optional:
                continue
            try:
                arrays[name] = array = _read_member(archive, member, layout)
                if not (name in unset and np.isnan(array).all()):
                    _check_finite(array)
            except ValueError as error:
                raise ValueError(f"'{name}' in {path.name}: {error}") from error
    return arrays


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo | None, layout: Layout
                 ) -> NDArray[Any]:
    if member is None:
        raise ValueError('it is missing')
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError('it is compressed')
    with archive.open(member) as file:
        return _read(file, layout)


def _read(file: BinaryIO | IO[bytes], layout: Layout) -> NDArray[Any]:
    shape = check_npy_header(file, layout)
    size = _size(layout[0], shape)
    data = file.read(size + 1)
    if len(data) != size:
        raise ValueError('its size is not that of its header')
    return np.frombuffer(bytearray(data), np.dtype(layout[0]).newbyteorder('<')).reshape(shape)


def _check_finite(array: NDArray[Any]) -> None:
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
        raise ValueError('it holds values that are not finite')


class RowFile:
    """
    The rows of an array (N,D) in numpy's format on disk, read when asked for: by numbers, a slice.

    Not a mapping of the file into memory: when that is cut, the process dies. Here it is a
    MapError. Raises ValueError when the file does not hold what `layout` says.
    """

    def __init__(self, path: Path, layout: Rows) -> None:
        self.dtype, self.shape = np.dtype(layout[0]).newbyteorder('<'), layout[1]
        with path.open('rb') as file:
            check_npy_header(file, layout)
            self._begin = file.tell()
            if file.seek(0, os.SEEK_END) != self._begin + _size(*layout):
                raise ValueError(f'{path.name} is not of the size in its header')
        self._path, self._layout = path, layout
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[type[RowFile], tuple[Path, Rows]]:
        """Open the file again in another process."""
        return RowFile, (self._path, self._layout)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: NDArray[np.int64] | slice) -> NDArray[Any]:
        numbers = np.arange(self.shape[0])[which] if isinstance(which, slice) else which
        size = self.dtype.itemsize * self.shape[1]
        # Neighbours in the file are read at once.
        breaks = np.flatnonzero((np.diff(numbers) != 1) | (numbers[1:] % CHUNK_ROWS == 0)) + 1
        bounds = [0, *breaks.tolist(), len(numbers)]
        starts = (self._begin + numbers[bounds[:-1]] * size).tolist() if len(numbers) else []
        data = b''.join([os.pread(self._file, size * (end - begin), start)
                         for start, (begin, end) in zip(starts, pairwise(bounds), strict=False)])
        if len(data) != size * len(numbers):
            raise MapError(f'{self._path} was cut off while it was in use: load the map again')
        return np.frombuffer(data, self.dtype).reshape(-1, self.shape[1])


def save_rows(rows: NDArray[Any] | RowFile, path: Path, layout: Rows) -> None:
    """
    Write rows (N,D) to a file of numpy's format, from which a RowFile reads them.

    In parts: they may be more than the memory.
    """
    dtype = np.dtype(layout[0]).newbyteorder('<')
    with path.open('wb') as file:
        np.lib.format.write_array_header_1_0(file, {
            'descr': dtype.str, 'fortran_order': False, 'shape': layout[1]})
        for start in range(0, layout[1][0], CHUNK_ROWS):
            file.write(np.ascontiguousarray(rows[start:start + CHUNK_ROWS], dtype).tobytes())


def row_file_bytes(layout: Rows) -> int:
    """Return a bound for the size of a file of such rows."""
    return _size(*layout) + _HEADER


def _size(dtype: type[np.generic] | str, shape: tuple[int | None, ...]) -> int:
    return math.prod(length or 0 for length in shape) * np.dtype(dtype).itemsize
