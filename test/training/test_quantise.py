"""Float16 and 8 bits in chosen nodes of a graph, and in no others."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
import onnxruntime
import pytest
from vpr_ros.core.errors import ModelError
from vpr_ros.training.half_precision import store_as_half
from vpr_ros.training.half_precision import to_half
from vpr_ros.training.quantise import fit_weights
from vpr_ros.training.quantise import STEPS
from vpr_ros.training.quantise import to_int8

SIZE = 12
IMAGES = np.random.default_rng(1).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
INSIDE = ('first', 'relu', 'second')


def convolutional(scale: float = 1.0, groups: int = 1) -> onnx.ModelProto:
    """Return uint8 images -> two convolutions -> 1000 times their output, squared and summed."""
    random = np.random.default_rng(0)
    weights = {'one': random.normal(size=(8, 3, 3, 3)) * scale,
               'two': random.standard_cauchy(size=(16, 8 // groups, 3, 3)), 'bias': np.ones(16),
               'large': np.array(1000.0), 'mean': np.array(127.5), 'std': np.array(127.5)}
    nodes = [
        helper.make_node('Cast', ['image'], ['float'], 'cast', to=TensorProto.FLOAT),
        helper.make_node('Sub', ['float', 'mean'], ['centred'], 'sub'),
        helper.make_node('Div', ['centred', 'std'], ['scaled'], 'div'),
        helper.make_node('Transpose', ['scaled'], ['planes'], 'transpose', perm=[0, 3, 1, 2]),
        helper.make_node('Conv', ['planes', 'one'], ['a'], 'first'),
        helper.make_node('Relu', ['a'], ['b'], 'relu'),
        helper.make_node('Conv', ['b', 'two', 'bias'], ['c'], 'second', group=groups),
        helper.make_node('Mul', ['c', 'large'], ['d'], 'mul'),
        helper.make_node('Mul', ['d', 'd'], ['squares'], 'square'),
        helper.make_node('GlobalAveragePool', ['squares'], ['descriptor'], 'pool')]
    graph = helper.make_graph(
        nodes, 'test',
        [helper.make_tensor_value_info('image', TensorProto.UINT8, ['N', SIZE, SIZE, 3])],
        [helper.make_tensor_value_info('descriptor', TensorProto.FLOAT, ['N', 16, 1, 1])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name)
         for name, value in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)


def run(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model)
    settings = onnxruntime.SessionOptions()
    # As engines.py does where the processor needs it.
    settings.add_session_config_entry('session.x64quantprecision', '1')
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings,
                                           providers=['CPUExecutionProvider'])
    return session.run(None, {'image': IMAGES})[0][:, :, 0, 0]


def relative_error(model: onnx.ModelProto, like: onnx.ModelProto) -> float:
    expected = run(like)
    return float(np.abs(run(model) - expected).mean() / np.abs(expected).mean())


def test_half_nodes_are_half_and_others_are_not():
    half = to_half(convolutional(), INSIDE)
    # 1000 times a value, squared, is far beyond float16: it would be infinite
    assert relative_error(half, convolutional()) < 5e-3
    types = {weight.name: weight.data_type for weight in half.graph.initializer}
    assert types['one.half'] == types['two.half'] == TensorProto.FLOAT16
    assert types['large'] == TensorProto.FLOAT
    assert 'two' not in types
    casts = [node for node in half.graph.node if node.op_type == 'Cast']
    assert len(casts) == 3  # of the pixels, into the first convolution, out of the second


def test_stored_as_half_computes_in_float():
    stored = store_as_half(convolutional())
    types = {weight.name: weight.data_type for weight in stored.graph.initializer}
    assert types['two.stored'] == TensorProto.FLOAT16
    assert types['one'] == TensorProto.FLOAT  # too small to be worth it
    assert relative_error(stored, convolutional()) < 2e-3


def test_weights_beyond_half_are_refused():
    with pytest.raises(ModelError, match='one has values beyond float16'):
        to_half(convolutional(scale=1e6), INSIDE)


@pytest.mark.parametrize('groups', [1, 2])
def test_fitted_weights_lie_on_a_grid_and_keep_the_mean(groups):
    fitted = convolutional(groups=groups)
    fit_weights(fitted, INSIDE, IMAGES)
    weights = {w.name: numpy_helper.to_array(w) for w in fitted.graph.initializer}
    for channel in weights['two']:
        step = np.abs(channel).max() / STEPS
        np.testing.assert_allclose(channel / step, np.round(channel / step), atol=1e-3)

    def mean_of_second(model: onnx.ModelProto) -> np.ndarray:
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        probe.graph.output.append(
            helper.make_tensor_value_info('c', TensorProto.FLOAT, None))
        session = onnxruntime.InferenceSession(probe.SerializeToString(),
                                               providers=['CPUExecutionProvider'])
        return session.run(['c'], {'image': IMAGES})[0].mean(axis=(0, 2, 3))
    unfitted = convolutional(groups=groups)
    # The border of the image is seen by fewer taps, so the mean is not kept exactly.
    bare = convolutional(groups=groups)
    for weight in bare.graph.initializer:
        if weight.name in ('one', 'two'):
            weight.CopyFrom(numpy_helper.from_array(weights[weight.name], weight.name))
    expected = mean_of_second(unfitted)
    off = np.abs(mean_of_second(fitted) - expected).mean()
    assert off < 0.5 * np.abs(mean_of_second(bare) - expected).mean()


def test_fitted_kernels_keep_their_sums():
    fitted = convolutional()
    weights = {w.name: w for w in fitted.graph.initializer}
    smooth = np.random.default_rng(0).uniform(-1, 1, (16, 8, 3, 3)).astype(np.float32)
    weights['two'].CopyFrom(numpy_helper.from_array(smooth, 'two'))
    fit_weights(fitted, INSIDE, IMAGES)
    now = numpy_helper.to_array({w.name: w for w in fitted.graph.initializer}['two'])
    step = np.abs(now).max(axis=(1, 2, 3)) / STEPS
    missed = np.abs((now - smooth).sum(axis=(2, 3))) / step[:, None]
    assert missed.max() < 0.51
    assert np.abs((np.round(smooth / step[:, None, None, None]) * step[:, None, None, None]
                   - smooth).sum(axis=(2, 3)) / step[:, None]).max() > 1  # rounding alone


def test_a_kernel_of_zeros_keeps_its_bias():
    model = convolutional()
    weights = {w.name: w for w in model.graph.initializer}
    empty = numpy_helper.to_array(weights['two']).copy()
    empty[3] = 0
    weights['two'].CopyFrom(numpy_helper.from_array(empty, 'two'))
    bias = np.full(16, 0.3, np.float32)
    weights['bias'].CopyFrom(numpy_helper.from_array(bias, 'bias'))
    quantised = {w.name: numpy_helper.to_array(w)
                 for w in to_int8(model, INSIDE, IMAGES).graph.initializer}
    bias, scale = quantised['bias_quantized'], quantised['bias_quantized_scale']
    assert bias[3] * scale[3] == pytest.approx(0.3, abs=1e-3)


def test_eight_bits_are_in_the_chosen_nodes_only():
    model = to_int8(convolutional(), INSIDE, IMAGES)
    assert relative_error(model, convolutional()) < 0.05
    weights = {w.name: w for w in model.graph.initializer}
    quantised = [numpy_helper.to_array(w) for w in weights.values()
                 if w.data_type == TensorProto.INT8 and len(w.dims) == 4]
    assert [values.shape for values in quantised] == [(8, 3, 3, 3), (16, 8, 3, 3)]
    assert [np.abs(values.astype(int)).max() for values in quantised] == [STEPS, STEPS]
    mul = next(node for node in model.graph.node if node.name == 'square')
    assert list(mul.input) == ['d', 'd']
