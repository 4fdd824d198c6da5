"""Model files: the SHA-256 covers the whole model, or the file is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
import pytest
from thumbnail_model import write_thumbnail_model
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding import model_file
from vpr_ros.encoding.encoder import bundled_model
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.model_file import check_model_file

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_model_is_identified_by_its_sha256(tmp_path: Path) -> None:
    path = write_thumbnail_model(tmp_path / 'm.onnx')
    assert check_model_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_bundled_model_is_in_one_file() -> None:
    check_model_file(bundled_model())


def test_a_model_with_weights_in_another_file_is_refused_before_it_runs(tmp_path: Path) -> None:
    model = onnx.load(str(write_thumbnail_model(tmp_path / 'm.onnx')))
    path = tmp_path / 'apart.onnx'
    onnx.save_model(model, str(path), save_as_external_data=True, location='apart.weights',
                    size_threshold=0)
    assert (tmp_path / 'apart.weights').stat().st_size
    with pytest.raises(ModelError,
                       match=r'apart\.onnx keeps weights .* save it as one') as refusal:
        Encoder(path)
    assert '\n' not in str(refusal.value)
    onnx.save_model(onnx.load(str(path)), str(path), save_as_external_data=False)
    Encoder(path)  # the remedy


def _external(name: str = 'w') -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField('raw_data')
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value='elsewhere')
    return tensor


def _in_a_constant(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node('Constant', [], ['c'], value=_external()))


def _in_a_branch(graph: onnx.GraphProto) -> None:
    branch = helper.make_graph([], 'branch', [], [], [_external()])
    graph.node.append(helper.make_node('If', ['x'], ['y'], then_branch=branch, else_branch=branch))


def _in_a_sparse_weight(graph: onnx.GraphProto) -> None:
    sparse = graph.sparse_initializer.add()
    sparse.values.CopyFrom(_external())


def _without_saying_so(graph: onnx.GraphProto) -> None:
    weight = _external()
    weight.ClearField('data_location')
    graph.initializer.append(weight)


def _in_an_engine(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node('EPContext', ['image'], ['y'], domain='com.microsoft',
                                       embed_mode=0, ep_cache_context='engine.bin'))


@pytest.mark.parametrize('hide', [_in_a_constant, _in_a_branch, _in_a_sparse_weight,
                                  _without_saying_so, _in_an_engine])
def test_external_data_anywhere_in_the_graph_is_refused(
        tmp_path: Path, hide: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(str(write_thumbnail_model(tmp_path / 'm.onnx')))
    hide(model.graph)
    (tmp_path / 'm.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match='in other files'):
        check_model_file(tmp_path / 'm.onnx')


def test_external_data_in_a_function_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(write_thumbnail_model(tmp_path / 'm.onnx')))
    constant = helper.make_node('Constant', [], ['c'], value=_external())
    model.functions.append(helper.make_function(
        'custom', 'F', [], ['c'], [constant], [helper.make_opsetid('', 17)]))
    (tmp_path / 'm.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match='in other files'):
        check_model_file(tmp_path / 'm.onnx')


@pytest.mark.parametrize('longer', [
    lambda tag: _varint(tag | 1 << 32),                       # C++ keeps 32 bits of it
    lambda tag: bytes([tag | 0x80, 0]), lambda tag: bytes([tag | 0x80, 0x80, 0x80, 0x80, 0]),
    lambda tag: bytes([tag | 0x80, *[0x80] * 8, 0])], ids=['bit 32', '2 bytes', '5', '10'])
@pytest.mark.parametrize('level', ['graph', 'initializer', 'external_data', 'data_location'])
def test_tags_that_parsers_read_in_different_ways_are_refused(
        tmp_path: Path, level: str, longer: Callable[[int], bytes]) -> None:
    def tag(name: str, number: int, kind: int = 2) -> bytes:
        return longer(number << 3 | kind) if name == level else bytes([number << 3 | kind])

    def field(name: str, number: int, content: bytes) -> bytes:
        return tag(name, number) + _varint(len(content)) + content

    location = onnx.StringStringEntryProto(key='location', value='elsewhere').SerializeToString()
    tensor = (onnx.TensorProto(name='w', data_type=1, dims=[4]).SerializeToString()
              + field('external_data', 13, location) + tag('data_location', 14, 0) + b'\1')
    path = write_thumbnail_model(tmp_path / 'm.onnx')
    path.write_bytes(path.read_bytes() + field('graph', 7, field('initializer', 5, tensor)))
    with pytest.raises(ModelError, match=r'in other files|protocol buffer is invalid'):
        check_model_file(path)


@pytest.mark.parametrize('data', [b'\x0b\x0c', b'\x0a\xff\xff\xff\xff\x7f', b'\x00\x00',
                                  b'\x08' + b'\xff' * 9 + b'\x02', b'\x08\x01' * 1001],
                         ids=['group', 'length', 'tag 0', '65 bits', 'too many'])
def test_a_protocol_buffer_that_no_writer_makes_is_refused(
        tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, '_MOST_FIELDS', 1000)
    (tmp_path / 'm.onnx').write_bytes(data)
    with pytest.raises(ModelError, match='its protocol buffer is invalid'):
        check_model_file(tmp_path / 'm.onnx')


def test_a_model_in_the_format_of_onnx_runtime_is_refused(tmp_path: Path) -> None:
    path = write_thumbnail_model(tmp_path / 'm.onnx')
    path.write_bytes(b'\x0a\x06\0\0ORTM' + path.read_bytes())
    with pytest.raises(ModelError, match='it is in the ORT format'):
        check_model_file(path)


def test_a_truncated_file_is_one_kind_of_error_or_a_shorter_model(tmp_path: Path) -> None:
    whole = write_thumbnail_model(tmp_path / 'm.onnx').read_bytes()
    path = tmp_path / 'cut.onnx'
    refused = 0
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        try:
            check_model_file(path)
        except ModelError as error:
            assert 'cut.onnx cannot be loaded: it is not an ONNX model, or it is damaged' in str(
                error)
            refused += 1
    assert refused > 0.9 * len(whole)


def test_graphs_nested_too_deep_are_refused(tmp_path: Path) -> None:
    graph = b''
    for _ in range(100):  # an attribute with a graph, in a node, in a graph
        for tag in (0x32, 0x2a, 0x0a):
            graph = bytes([tag]) + _varint(len(graph)) + graph
    (tmp_path / 'deep.onnx').write_bytes(b'\x3a' + _varint(len(graph)) + graph)
    with pytest.raises(ModelError, match=r'deep\.onnx cannot be loaded'):
        check_model_file(tmp_path / 'deep.onnx')


def _varint(value: int) -> bytes:
    out = b''
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
