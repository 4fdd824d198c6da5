"""
Fewer bits: half and 8-bit computation in chosen nodes of an ONNX graph, weights stored as half.

Which nodes may lose precision is export.py's to say; whether too much was lost, too.
"""

from __future__ import annotations

from pathlib import Path
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization import quantize_static
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from tqdm import tqdm
from vpr_ros.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterator
    from collections.abc import Mapping

    from numpy.typing import NDArray

CALIBRATION_BATCH = 8
PICTURE_CHANNELS = 3
STEPS = 127
"""Of a weight, to either side of zero."""
NEXT_TO_NOTHING = 1e-6
"""A weight of which no output is changed, not even one of bytes."""
STORED_AS_HALF = 1024
"""Weights with at least this many values are stored as float16; fewer are not worth a node."""
KEPT_FLOAT = frozenset({'Cast', 'Constant', 'ConstantOfShape', 'Range', 'Resize'})
"""Operators whose types are their attributes', or must be float32: they are never made half."""
EIGHT_BIT = ('Conv', 'Relu', 'Clip', 'MaxPool', 'AveragePool', 'GlobalAveragePool', 'Add', 'Mul',
             'Concat', 'HardSigmoid')
"""Operators that ONNX Runtime computes in 8 bits, so that a chain of them stays in 8 bits."""


def to_half(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """
    Let the nodes called `names` compute in float16, with casts where their values come and go.

    All other nodes see float32 as before: a general converter casts between these too, and an L2
    norm that passes through float16 overflows. Changes `model` and returns it. Raises ModelError
    when a weight is beyond float16.
    """
    graph = model.graph
    types = _types(model)
    weights = {weight.name: weight for weight in graph.initializer}
    half = {node.name for node in graph.node if node.name in names
            and node.op_type not in KEPT_FLOAT
            and all(types.get(value) == TensorProto.FLOAT for value in node.output)}
    inside = {value for node in graph.node if node.name in half for value in node.output}
    leaving = inside & ({value for node in graph.node if node.name not in half
                         for value in node.input} | {output.name for output in graph.output})
    nodes = []
    made = set(inside)
    for node in graph.node:
        if node.name not in half:
            nodes.append(node)
            continue
        for i, value in enumerate(node.input):
            if types.get(value) != TensorProto.FLOAT:
                continue
            if value not in made and value in weights:
                graph.initializer.append(_half(weights[value], 'half'))
            elif value not in made:
                nodes.append(_cast(value, f'{value}.half', TensorProto.FLOAT16))
            made.add(value)
            node.input[i] = f'{value}.half'
        values = list(node.output)
        node.output[:] = [f'{value}.half' for value in values]
        nodes.append(node)
        nodes.extend(_cast(f'{value}.half', value, TensorProto.FLOAT)
                     for value in values if value in leaving)
    _replace_nodes(graph, nodes)
    _drop_unused_weights(graph)
    return model


def to_int8(model: onnx.ModelProto, names: Collection[str], pictures: NDArray[np.uint8]
            ) -> onnx.ModelProto:
    """
    Return `model` with those nodes called `names` in 8 bits that can be: static QDQ.

    The ranges of activations are those on `pictures` (M,H,W,3): the mean over batches of their
    extremes, since one odd picture would make the steps coarse for all. Activations are unsigned
    and weights signed, per channel, which is what x86 multiplies fastest. A convolution of bytes
    takes them as they are (stem.py); one of a picture of three channels stays float32, with what
    follows up to the next one: it is slower in 8 bits, ResNet's 7x7 as slow as all others
    together.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    chosen = _worth_eight_bits(copied.graph, names)
    _pool_before_relu(copied.graph, chosen)
    fit_weights(copied, chosen, pictures)
    types = _types(copied)
    casts = {node.output[0]: node.input[0] for node in copied.graph.node
             if node.op_type == 'Cast' and types.get(node.input[0]) == TensorProto.UINT8}
    as_it_is = {'scale': np.array(1, np.float32), 'zero_point': np.array(0, np.uint8)}
    add_pre_process_metadata(copied)  # its BatchNorm is folded, which is what that would do
    with tempfile.TemporaryDirectory(prefix='vpr_ros-') as folder:
        path = Path(folder) / 'int8.onnx'
        quantize_static(copied, path, _Calibration(pictures), quant_format=QuantFormat.QDQ,
                        op_types_to_quantize=list(EIGHT_BIT), nodes_to_quantize=chosen,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        per_channel=True, extra_options={
                            'CalibMovingAverage': True,
                            'TensorQuantOverrides': {name: [as_it_is] for name in casts}})
        quantised = onnx.load(path)
    _keep_bytes(quantised.graph, casts)
    return quantised


def fit_weights(model: onnx.ModelProto, names: Collection[str], pictures: NDArray[np.uint8]
                ) -> None:
    """
    Put the weights of the convolutions called `names` on the grids that 8 bits can hold.

    Each output channel gets the step with the least squared error, which clips its rarest weights.
    Each of its kernels keeps its sum, to half a step where none of it was clipped: what it sees
    changes little from tap to tap. What is still changed in the mean output over `pictures`
    (M,H,W,3) goes into the bias (Nagel et al., ICCV 2019). Changes `model`.
    """
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == 'Conv' and node.name in names
                    and node.input[1] in weights]
    means = _channel_means(model, {node.input[0] for node in convolutions}, pictures)
    for node in convolutions:
        weight = numpy_helper.to_array(weights[node.input[1]])  # (O,I,h,w), I per group
        fitted = _on_grid(weight)
        error = (weight - fitted).sum(axis=(2, 3))  # (O,I)
        group = next((a.i for a in node.attribute if a.name == 'group'), 1)
        # (C,) -> (G,I) -> (O,I): the inputs that each output sees
        seen = means[node.input[0]].reshape(group, -1).repeat(len(weight) // group, axis=0)
        shift = (error * seen).sum(axis=1)
        weights[node.input[1]].CopyFrom(
            numpy_helper.from_array(fitted.astype(np.float32), node.input[1]))
        if len(node.input) > 2:
            shift = shift + numpy_helper.to_array(weights[node.input[2]])
            weights[node.input[2]].CopyFrom(
                numpy_helper.from_array(shift.astype(np.float32), node.input[2]))
        else:
            name = f'{node.name}.bias'
            graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), name))
            node.input.append(name)


def store_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """
    Turn big float32 weights into float16 ones, each followed by a cast to float32.

    Half the size, with every computation still in float32. Vectors are left alone: they are
    scales and biases. Changes `model` and returns it. Raises ModelError when a weight is beyond
    float16.
    """
    casts = []
    for weight in model.graph.initializer:
        if (weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2
                or np.prod(weight.dims) < STORED_AS_HALF):
            continue
        name = weight.name
        weight.CopyFrom(_half(weight, 'stored'))
        casts.append(_cast(weight.name, name, TensorProto.FLOAT))
    _replace_nodes(model.graph, [*casts, *model.graph.node])
    return model


def _keep_bytes(graph: onnx.GraphProto, casts: Mapping[str, str]) -> None:
    """Take bytes from before their cast to float32 where that is only rounded to bytes again."""
    rounded = {node.output[0]: casts[node.input[0]] for node in graph.node
               if node.op_type == 'QuantizeLinear' and node.input[0] in casts}
    nodes = [node for node in graph.node if node.output[0] not in rounded]
    for node in nodes:
        node.input[:] = [rounded.get(value, value) for value in node.input]
    used = {value for node in nodes for value in node.input}
    _replace_nodes(graph, [node for node in nodes
                           if node.output[0] not in casts or node.output[0] in used])
    _drop_unused_weights(graph)


def _pool_before_relu(graph: onnx.GraphProto, chosen: Collection[str]) -> None:
    """
    Let a maximum be taken before the ReLU that feeds it alone, which comes to the same.

    Of those in float32, not `chosen`: ONNX Runtime moves the step to 8 bits from behind the
    maximum to before it, where it has only a slow kernel; it does not move it across a ReLU.
    """
    nodes = list(graph.node)
    for pool in [node for node in nodes if node.op_type == 'MaxPool' and len(node.output) == 1
                 and node.name not in chosen]:
        readers = [node for node in nodes if pool.input[0] in node.input]
        relu = next((node for node in nodes if node.op_type == 'Relu'
                     and node.output[0] == pool.input[0]), None)
        if relu is None or len(readers) > 1:
            continue
        between, after = relu.output[0], pool.output[0]
        pool.input[0], pool.output[0] = relu.input[0], between
        relu.input[0], relu.output[0] = between, after
        nodes.remove(relu)
        nodes.insert(nodes.index(pool) + 1, relu)
    _replace_nodes(graph, nodes)


def _worth_eight_bits(graph: onnx.GraphProto, names: Collection[str]) -> list[str]:
    """
    Return those of the nodes called `names` that are a convolution, or come after one.

    A convolution of the picture does not count.
    """
    of_picture = {weight.name for weight in graph.initializer
                  if len(weight.dims) == 4 and weight.dims[1] == PICTURE_CHANNELS}
    chosen: list[str] = []
    reached: set[str] = set()
    for node in graph.node:
        if node.name not in names or node.op_type not in EIGHT_BIT:
            continue
        convolution = node.op_type == 'Conv' and node.input[1] not in of_picture
        if convolution or (node.op_type != 'Conv' and reached.intersection(node.input)):
            chosen.append(node.name)
            reached.update(node.output)
    return chosen


def _on_grid(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Round (O,I,h,w) to STEPS either side of 0, the best step for each output."""
    taps = weight.reshape(*weight.shape[:2], -1).astype(np.float64)  # (O,I,hw)
    largest = np.maximum(np.abs(taps).max(axis=(1, 2), keepdims=True), 1e-12)
    step = largest / STEPS
    least = np.full(largest.shape, np.inf)
    for share in np.linspace(0.4, 1.0, 31):
        tried = share * largest / STEPS
        rounded = np.clip(np.round(taps / tried), -STEPS, STEPS) * tried
        error = np.square(rounded - taps).sum(axis=(1, 2), keepdims=True)
        step = np.where(error < least, tried, step)
        least = np.minimum(error, least)
    rounded = np.clip(np.round(taps / step), -STEPS, STEPS)
    lost = taps / step - rounded
    short = np.round(lost.sum(axis=2, keepdims=True))  # steps that the sum of a kernel misses
    # Given to the taps whose rounding was the nearest thing to going the other way, if they can.
    gain = np.where(np.abs(rounded) < STEPS, lost * np.sign(short), -np.inf)
    rank = np.argsort(np.argsort(-gain, axis=2), axis=2)
    rounded += np.sign(short) * (rank < np.abs(short))
    fitted = np.clip(rounded, -STEPS, STEPS) * step
    # Of nothing but zeros ONNX Runtime would make the step 1, and round the bias to whole ones.
    fitted[~fitted.any(axis=(1, 2)), 0, 0] = NEXT_TO_NOTHING
    return fitted.reshape(weight.shape)


def _channel_means(model: onnx.ModelProto, values: Collection[str], pictures: NDArray[np.uint8]
                   ) -> dict[str, NDArray[np.float32]]:
    """Return the mean (C,) over `pictures` of each of `values` (N,C,h,w) in the graph."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = sorted(values)
    del probe.graph.output[:]
    axes = numpy_helper.from_array(np.array([0, 2, 3], np.int64), 'mean.axes')
    probe.graph.initializer.append(axes)
    for name in names:
        mean = f'{name}.mean'
        probe.graph.node.append(
            helper.make_node('ReduceMean', [name, axes.name], [mean], name=mean, keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(mean, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(),
                                           providers=['CPUExecutionProvider'])
    sums: list[NDArray[np.float32]] = [np.zeros(1, np.float32)] * len(names)
    for batch in _batches(pictures, 'weights'):
        means = session.run(None, {'image': batch})
        sums = [total + len(batch) * mean for total, mean in zip(sums, means, strict=True)]
    return {name: np.asarray(total / len(pictures), np.float32)
            for name, total in zip(names, sums, strict=True)}


def _batches(pictures: NDArray[np.uint8], title: str) -> Iterator[NDArray[np.uint8]]:
    for start in tqdm(range(0, len(pictures), CALIBRATION_BATCH), desc=title, unit='batch',
                      leave=False, disable=None):
        yield pictures[start:start + CALIBRATION_BATCH]


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Pictures (M,H,W,3) as ONNX Runtime asks for them."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self._batches = _batches(pictures, 'calibration')

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {'image': batch}


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every value in the graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type
             for value in (*graph.input, *graph.output, *graph.value_info)}
    return types | {weight.name: weight.data_type for weight in graph.initializer}


def _half(weight: onnx.TensorProto, suffix: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(weight)
    if not np.abs(values).max(initial=0.0) <= np.finfo(np.float16).max:
        raise ModelError(f'weight {weight.name} has values beyond float16 or not finite')
    return numpy_helper.from_array(values.astype(np.float16), f'{weight.name}.{suffix}')


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node('Cast', [source], [target], name=f'{target}.cast', to=to)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    # Types and shapes in between are of the graph as it was; whoever needs them infers them anew.
    del graph.value_info[:]


def _drop_unused_weights(graph: onnx.GraphProto) -> None:
    used = {value for node in graph.node for value in node.input}
    kept = [onnx.TensorProto.FromString(weight.SerializeToString())
            for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
