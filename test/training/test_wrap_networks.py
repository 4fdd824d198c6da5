"""Networks of every published pattern, as torch exports them, give what they gave in torch."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

import small_networks  # noqa: E402
from vpr_ros.core.errors import ModelError  # noqa: E402
from vpr_ros.core.images import resize  # noqa: E402
from vpr_ros.encoding.encoder import Encoder  # noqa: E402
from vpr_ros.training.input_format import InputFormat  # noqa: E402
from vpr_ros.training.wrap import Reduction  # noqa: E402
from vpr_ros.training.wrap import wrap_model  # noqa: E402

HEIGHT, WIDTH = small_networks.HEIGHT, small_networks.WIDTH
IMAGES = [resize(image, HEIGHT, WIDTH) for image in np.random.default_rng(5).integers(
    0, 256, (3, 6, 8, 3), dtype=np.uint8)]
EXPORTERS = {'dynamo': True, 'torchscript': False}
ONE_BY_ONE = {'transformer', 'transported', 'queried'}
"""They have batch 1 in constants, such as the class token, when they are exported with it."""


def in_torch(network: torch.nn.Module, images: list[np.ndarray], *, uint8: bool) -> np.ndarray:
    """Return the unit descriptors (N,D) of images, one by one."""
    expected = InputFormat()
    batch = expected.arrange(np.stack(images), np.uint8 if uint8 else np.float32)
    with torch.no_grad():
        vectors = np.stack([network(torch.from_numpy(image[None])).numpy().ravel()
                            for image in batch])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def exported(name: str, path, exporter: str, batch: int | None, count: int = 1):
    """Export a network with a fixed or with any batch, from an example of `count` images."""
    kind = torch.uint8 if name == 'bytes' else torch.float32
    return small_networks.export(
        small_networks.make(name), path, torch.zeros(batch or count, 3, HEIGHT, WIDTH,
                                                     dtype=kind),
        dynamo=EXPORTERS[exporter], dynamic=batch is None)


CASES = [(name, 'torchscript', 1) for name in small_networks.NETWORKS] + [
    (name, 'torchscript', None) for name in ('transported', 'queried', 'summed')] + [
    (name, 'dynamo', 1) for name in ('gem', 'mixed', 'pooled', 'transformer')] + [
    (name, 'dynamo', None) for name in ('transported', 'squeezed', 'bytes')]


@pytest.mark.parametrize(('name', 'exporter', 'batch'), CASES)
def test_a_network_gives_what_it_gave_in_torch(tmp_path, name, exporter, batch):
    path = exported(name, tmp_path / 'published.onnx', exporter, batch, count=2)
    report = wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat())
    expected = in_torch(small_networks.make(name), IMAGES, uint8=name == 'bytes')
    encoder = Encoder(tmp_path / 'wrapped.onnx', provider='cpu')
    for given in (encoder.encode_batch(IMAGES), [encoder.encode(image) for image in IMAGES]):
        assert np.sum(expected * given, axis=1).min() > 0.99999
    assert bool(report.single) == (batch == 1 and name in ONE_BY_ONE)


@pytest.fixture(scope='module')
def transformer(tmp_path_factory):
    return exported('transformer', tmp_path_factory.mktemp('networks') / 'published.onnx',
                    'torchscript', None, count=2)


def test_a_network_for_one_image_says_so_in_its_report_and_its_shape(tmp_path):
    path = exported('queried', tmp_path / 'published.onnx', 'torchscript', 1)
    report = wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat())
    assert 'one image at a time, also when maps are built: it was exported for one' in str(report)
    assert onnx.load(tmp_path / 'wrapped.onnx').graph.input[0].type.tensor_type.shape.dim[
        0].dim_value == 1


def test_a_network_for_several_images_is_refused_for_that(tmp_path):
    path = exported('queried', tmp_path / 'published.onnx', 'torchscript', 3)
    with pytest.raises(ModelError, match='exported for exactly 3 images at a time'):
        wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat())
    # Where nothing but reshapes has the batch, it becomes free.
    path = exported('mixed', tmp_path / 'published.onnx', 'dynamo', 3)
    assert not wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat()).single


def test_dynamic_int8_runs_one_image_at_a_time(tmp_path, transformer):
    # In the full range, sums of two products overflow on processors without VNNI.
    quantize_dynamic(transformer, tmp_path / 'int8.onnx', reduce_range=True)
    kinds = {node.op_type for node in onnx.load(tmp_path / 'int8.onnx').graph.node}
    assert 'MatMulInteger' in kinds
    report = wrap_model(tmp_path / 'int8.onnx', tmp_path / 'wrapped.onnx', InputFormat())
    assert report.worst > 0.99999
    assert 'depend on the other images of a batch' in report.single
    assert Encoder(tmp_path / 'wrapped.onnx', provider='cpu').encode_batch(IMAGES).shape[0] == 3


def test_a_network_in_half_precision(tmp_path):
    network = small_networks.make('transformer').half()
    path = small_networks.export(network, tmp_path / 'published.onnx',
                                 torch.zeros(2, 3, HEIGHT, WIDTH).half(), dynamo=True,
                                 dynamic=True)
    assert wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat()).worst > 0.99999


def mean_colour(path, reshaped, allowzero: int):
    """Write images (1,3,4,4) -> mean colour, times weights that are reshaped with that shape."""
    nodes = [helper.make_node('GlobalAveragePool', ['x'], ['mean']),
             helper.make_node('Reshape', ['mean', 'shape'], ['vector'], allowzero=allowzero),
             helper.make_node('Reshape', ['weights', 'shape'], ['row'], allowzero=allowzero),
             helper.make_node('Mul', ['vector', 'row'], ['y'])]
    constants = {'shape': np.array(reshaped, np.int64),
                 'weights': np.array([[[1, 2, 3]]], np.float32)}
    graph = helper.make_graph(
        nodes, 'published', [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8),
              path)
    return path


@pytest.mark.parametrize('shape', [(1, 3), (1, -1)])
@pytest.mark.parametrize('allowzero', [0, 1])
def test_a_shape_that_weights_share_is_freed_for_the_image_only(tmp_path, shape, allowzero):
    path = mean_colour(tmp_path / 'published.onnx', shape, allowzero)
    assert not wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat()).single


def test_a_network_that_is_not_what_it_was_is_refused_with_the_difference(tmp_path):
    nodes = [helper.make_node('RandomUniformLike', ['x'], ['noise'], high=0.1),
             helper.make_node('Add', ['x', 'noise'], ['noisy']),
             helper.make_node('QuantizeLinear', ['noisy', 'step', 'zero'], ['bytes']),
             helper.make_node('DequantizeLinear', ['bytes', 'step', 'zero'], ['rounded']),
             helper.make_node('Flatten', ['rounded'], ['y'])]
    graph = helper.make_graph(
        nodes, 'noisy', [helper.make_tensor_value_info('x', TensorProto.FLOAT, ['n', 3, 4, 4])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, ['n', 48])],
        [numpy_helper.from_array(np.float32(0.03), 'step'),
         numpy_helper.from_array(np.uint8(128), 'zero')])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8),
              tmp_path / 'published.onnx')
    with pytest.raises(ModelError, match=r"are 0\.\d+ from the network's \(cosine 0\.99.*images "
                                         r'[01]\.\d+ apart; 8-bit steps .* --precision int8'):
        wrap_model(tmp_path / 'published.onnx', tmp_path / 'wrapped.onnx', InputFormat())


@pytest.mark.parametrize(('reduction', 'cosine'), [
    (Reduction('fp16'), 0.999), (Reduction('fp16', half_weights=True), 0.999),
    (Reduction(half_weights=True), 0.99999)])
def test_a_lower_precision_is_compared_with_the_network(tmp_path, transformer, reduction, cosine):
    report = wrap_model(transformer, tmp_path / 'wrapped.onnx', InputFormat(),
                        reduction=reduction)
    assert cosine < report.parity.worst <= 1.00001
    assert 'on noise' in str(report)
    kinds = {weight.data_type for weight in onnx.load(tmp_path / 'wrapped.onnx').graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    encoder = Encoder(tmp_path / 'wrapped.onnx', provider='cpu')
    assert encoder.metadata['precision'] == reduction.precision


def test_int8_needs_images_and_convolutions(tmp_path, transformer, validation):
    with pytest.raises(ValueError, match='int8 needs images'):
        wrap_model(transformer, tmp_path / 'wrapped.onnx', InputFormat(),
                   reduction=Reduction('int8'))
    path = exported('gem', tmp_path / 'published.onnx', 'torchscript', 1)
    report = wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat(), reduction=Reduction(
        'int8', images=[validation / 'database'], validation=validation))
    assert report.parity.recall_before == 1.0
    assert report.parity.mean > 0.98
    path = mean_colour(tmp_path / 'published.onnx', (1, 3), 0)
    with pytest.raises(ModelError, match='no convolutions'):
        wrap_model(path, tmp_path / 'wrapped.onnx', InputFormat(), reduction=Reduction(
            'int8', images=[validation / 'database'], validation=validation))
