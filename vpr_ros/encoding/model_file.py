"""
A model's file before it runs: its SHA-256, and whether the file is all there is of the model.

Only as much of ONNX is read as that takes; what the model computes is the engine's to find out.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple
from typing import TYPE_CHECKING

from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where tensors are in an ONNX file (onnx.proto): the message in each numbered field of a message.
_INSIDE: dict[str, dict[int, str]] = {
    'Model': {7: 'Graph', 20: 'Training', 25: 'Function'},
    'Training': {1: 'Graph', 2: 'Graph'},
    'Function': {7: 'Node', 11: 'Attribute'},
    'Graph': {1: 'Node', 5: 'Tensor', 15: 'SparseTensor'},
    'Node': {5: 'Attribute'},
    'Attribute': {5: 'Tensor', 6: 'Graph', 10: 'Tensor', 11: 'Graph', 22: 'SparseTensor',
                  23: 'SparseTensor'},
    'SparseTensor': {1: 'Tensor', 2: 'Tensor'},
}
_OPERATOR = 4
"""The field of a node that names its operator."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
"""The fields of a tensor that name a file, and say that its values are there."""
_ENGINE = b'EPContext'
"""The operator that runs an engine from another file."""
_DEEPEST = 32
"""Graphs within graphs, and what is between them, that are followed."""


class _Field(NamedTuple):
    """A field of a message: a number, or the bytes from `start` to `end`."""

    number: int
    value: int
    start: int
    end: int


def check_model_file(path: str | Path) -> str:
    """
    Return the SHA-256 of a model's file, which is the model's identity.

    Raises FileNotFoundError, or ModelError for what is not ONNX, and for a model that keeps
    weights, or an engine, in other files: these could change, and its SHA-256 would not.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such model file')
    with path.open('rb') as file:
        if not path.stat().st_size:
            raise damaged(path, 'it is empty')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                apart = _lies_apart(data, 'Model', 0, len(data), _DEEPEST)
            except (IndexError, ValueError) as error:
                raise damaged(path, 'its fields do not add up') from error
    if apart:
        raise ModelError(f'{path} keeps weights or engines in other files, which its SHA-256 does '
                         'not cover: save it as one file (onnx.save_model, with '
                         'save_as_external_data=False)')
    return sha256(path)


def damaged(path: str | Path, why: str) -> ModelError:
    """Return the error for a file that cannot be loaded."""
    return ModelError(f'{path} cannot be loaded: it is not an ONNX model, or it is damaged '
                      f'({why})')


def _lies_apart(data: mmap.mmap, message: str, start: int, end: int, depth: int) -> bool:
    """Tell whether a message, or one inside it, is in part in another file."""
    if not depth:
        raise ValueError('nested too deep')
    for field in _fields(data, start, end):
        if message == 'Tensor':
            if field.number == _EXTERNAL_DATA or (field.number == _DATA_LOCATION and field.value):
                return True
        elif message == 'Node' and field.number == _OPERATOR:
            if data[field.start:field.end] == _ENGINE:
                return True
        elif ((inner := _INSIDE[message].get(field.number)) is not None
              and _lies_apart(data, inner, field.start, field.end, depth - 1)):
            return True
    return False


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    """Yield the fields of a message in the wire format of protocol buffers."""
    while at < end:
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        value = 0
        if kind == 0:
            start = at
            value, at = _varint(data, at, end)
        elif kind == 2:
            size, start = _varint(data, at, end)
            at = start + size
        elif kind in (1, 5):
            start, at = at, at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f'no such kind of field: {kind}')
        if not number or at > end:
            raise ValueError('a field goes on beyond its message')
        yield _Field(number, value, start, at)


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at
    raise ValueError('a number does not end')
