"""
Model files before they are loaded: their SHA-256, that they have no external data, their layers.

Parses only the parts of the ONNX format that are needed for that, without the onnx package.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple
from typing import TYPE_CHECKING

from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import sha256

if TYPE_CHECKING:
    from collections.abc import Container
    from collections.abc import Iterable
    from collections.abc import Iterator

# onnx.proto: the nested message in each numbered field, for those that lead to tensors.
_NESTED: dict[str, dict[int, str]] = {
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
"""The field of a node with the name of its operator."""
_GRAPH, _NODE, _NODE_OUTPUT, _GRAPH_OUTPUT, _NAME = 7, 1, 2, 12, 1
"""Fields of a model, its graph, a node, the graph again, and of one of its outputs."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
"""The fields of a tensor with the name of an external file, and with the flag that it is used."""
_ENGINE = b'EPContext'
"""The operator that runs a compiled engine, which may be in an external file."""
_NEWER = ('Unsupported model IR version', 'ONNX Runtime only *guarantees* support',
          'Could not find an implementation', 'No Op registered')
"""What ONNX Runtime says of a model that was made for a later version of it."""
_MAX_DEPTH = 32
"""Levels of nested messages that are followed."""
_MOST_FIELDS = 1 << 20
"""Fields that are looked at: a minute's worth of them would fit into a file, too."""
_ORT_FORMAT = b'ORTM'
"""What ONNX Runtime takes for a file of its own format, whatever its name: at the fifth byte."""


class _Field(NamedTuple):
    """A field of a protocol-buffer message: an integer, or the bytes from `start` to `end`."""

    number: int
    value: int
    start: int
    end: int


def check_model_file(path: str | Path) -> str:
    """
    Return the SHA-256 of a model file, which identifies the model.

    Raises FileNotFoundError, or ModelError for a file that is not ONNX or that keeps weights or an
    engine in other files, since the SHA-256 would not cover these.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such model file')
    with path.open('rb') as file:
        if not path.stat().st_size:
            raise damaged(path, 'it is empty')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] == _ORT_FORMAT:
                raise damaged(path, 'it is in the ORT format')
            try:
                external = _has_external_data(_Fields(data), 'Model', 0, len(data), _MAX_DEPTH)
            except (IndexError, ValueError) as error:
                raise damaged(path, 'its protocol buffer is invalid') from error
    if external:
        raise ModelError(f'{path} keeps weights or engines in other files, which its SHA-256 does '
                         'not cover: save it as one file (onnx.save_model, with '
                         'save_as_external_data=False)')
    return sha256(path)


def layers(model: bytes, operators: Container[str]) -> list[str]:
    """Return the names of what the nodes with these operators give, in the graph's order."""
    fields, names = _Fields(model), []
    for graph in fields.of(0, len(model)):
        if graph.number != _GRAPH:
            continue
        for node in fields.of(graph.start, graph.end):
            if node.number != _NODE:
                continue
            parts = list(fields.of(node.start, node.end))
            operator = next((model[part.start:part.end].decode() for part in parts
                             if part.number == _OPERATOR), '')
            if operator in operators:
                names += [model[part.start:part.end].decode() for part in parts
                          if part.number == _NODE_OUTPUT and part.end > part.start]
    return names


def with_outputs(model: bytes, names: Iterable[str]) -> bytes:
    """Return a model with these layers as further outputs: parsers join what is appended."""
    return model + b''.join(
        _message(_GRAPH, _message(_GRAPH_OUTPUT, _message(_NAME, name.encode())))
        for name in names)


def _message(number: int, content: bytes) -> bytes:
    """Return a field of a message with a string, or a message, in it."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def damaged(path: str | Path, reason: str) -> ModelError:
    """Return the error for a file that cannot be loaded."""
    return ModelError(f'{path} cannot be loaded: it is not an ONNX model, or it is damaged '
                      f'({reason})')


def unreadable(path: str | Path, reason: str, runtime: str) -> ModelError:
    """Return the error for a file that ONNX Runtime, of the version `runtime`, does not load."""
    for words in _NEWER:
        if words in reason:
            told = reason[max(reason.index(words), reason.find('Opset ')):][:100]
            return ModelError(f'{path} needs a newer onnxruntime than {runtime} ({told}): upgrade '
                              'it, or export the model again with `vpr export`')
    return damaged(path, reason)


def _has_external_data(fields: _Fields, message: str, start: int, end: int, depth: int) -> bool:
    """Return whether a message, or one nested in it, refers to another file."""
    if not depth:
        raise ValueError('nested too deep')
    for field in fields.of(start, end):
        if _is_external(fields.data, message, field):
            return True
        nested = _NESTED.get(message, {}).get(field.number)
        if nested is not None and _has_external_data(fields, nested, field.start, field.end,
                                                     depth - 1):
            return True
    return False


def _is_external(data: mmap.mmap | bytes, message: str, field: _Field) -> bool:
    """Return whether a field says that a tensor or an engine is in another file."""
    if message == 'Tensor':
        return (field.number == _EXTERNAL_DATA
                or (field.number == _DATA_LOCATION and field.value != 0))
    return (message == 'Node' and field.number == _OPERATOR
            and data[field.start:field.end] == _ENGINE)


class _Fields:
    """
    The fields of protocol-buffer messages, read so that no other parser finds others in them.

    Parsers differ in what they make of integers that are longer than they need be: C++ cuts a tag
    to 32 bits. No writer makes any, so these are refused, and so are groups.
    """

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self.data = data
        self._left = _MOST_FIELDS

    def of(self, position: int, end: int) -> Iterator[_Field]:
        """Yield the fields of a message; raise ValueError where they are not valid."""
        while position < end:
            self._left -= 1
            key, position = self._varint(position, end, 1 << 32)
            number, wire_type = key >> 3, key & 7
            value = 0
            if wire_type == 0:
                start = position
                value, position = self._varint(position, end, 1 << 64)
            elif wire_type == 2:
                size, start = self._varint(position, end, 1 << 31)
                position = start + size
            elif wire_type in (1, 5):
                start, position = position, position + (8 if wire_type == 1 else 4)
            else:
                raise ValueError(f'unknown wire type {wire_type}')
            if not number or position > end or not self._left:
                raise ValueError('a field extends beyond its message, or there are too many')
            yield _Field(number, value, start, position)

    def _varint(self, position: int, end: int, limit: int) -> tuple[int, int]:
        """Return an integer of seven bits per byte, below `limit`, and the position after it."""
        value = shift = 0
        while position < end and shift < 70:
            byte = self.data[position]
            value |= (byte & 0x7F) << shift
            position += 1
            shift += 7
            if byte < 0x80:
                if value >= limit or (not byte and shift > 7):
                    raise ValueError('an integer is too large, or longer than it need be')
                return value, position
        raise ValueError('an integer does not end')
