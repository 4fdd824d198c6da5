"""
The graph of a published network between the nodes that make it a model of this project.

wrap.py checks the result against the network itself, so that a rewrite that is wrong is not used.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import compose
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
from onnx import version_converter
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.training.quantise import EIGHT_BIT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.training.published import Published

OLDEST_OPSET = 13
"""The first opset whose ReduceSum takes its axes as an input, as in the nodes added here."""
NODE_PREFIX = 'wrapped/'
MULTIPLYING = frozenset({'Conv', 'ConvTranspose', 'Gemm', 'MatMul', 'Relu', 'MaxPool', 'Concat',
                         'Transpose', 'Reshape'})
"""Operators that gain by float16 or pass it on, and keep what is far below 1, as in eps."""
SIZES = frozenset({'Shape', 'Size'})
"""Operators whose result depends on the shape of their input only."""


def wrapped_graph(network: Published, dimension: int, batch: int | None) -> onnx.ModelProto:
    """
    Return a model around a network whose descriptors have `dimension` values.

    It takes `batch` images at a time, None for any number: where the network has a fixed batch,
    its reshapes are freed. Whether it then runs, and gives the same, must be tried. Raises
    ModelError for an old opset that cannot be converted.
    """
    model = compose.add_prefix(_modern_opset(network), NODE_PREFIX)
    graph = model.graph
    for number, node in enumerate(graph.node):
        node.name = node.name or f'{NODE_PREFIX}{node.op_type}.{number}'
    del graph.value_info[:]  # inferred for another batch
    if batch is None and network.batch is not None:
        _free_shapes(graph, NODE_PREFIX + network.input_name, network.batch)
    _add_ends(graph, network, dimension, batch)
    return model


def multiplying(graph: onnx.GraphProto) -> set[str]:
    """Return the names of a network's nodes that may compute in float16."""
    constants = set(_constants(graph))
    return {node.name for node in graph.node if node.name.startswith(NODE_PREFIX) and (
        node.op_type in MULTIPLYING
        or (node.op_type == 'Add' and constants.isdisjoint(node.input)))}


def convolutional(graph: onnx.GraphProto) -> set[str]:
    """Return the names of a network's nodes up to its last convolution that may be 8-bit."""
    weights = {weight.name for weight in graph.initializer if len(weight.dims) == 4}
    names = [node.name for node in graph.node if node.op_type in EIGHT_BIT
             and (node.op_type != 'Conv' or node.input[1] in weights)]
    last = max((names.index(node.name) for node in graph.node
                if node.op_type == 'Conv' and node.name in names), default=-1)
    return {name for name in names[:last + 1] if name.startswith(NODE_PREFIX)}


def _modern_opset(network: Published) -> onnx.ModelProto:
    """Return a copy in OLDEST_OPSET or later."""
    version = next((o.version for o in network.model.opset_import
                    if o.domain in ('', 'ai.onnx')), 1)
    if version < OLDEST_OPSET:
        try:
            return version_converter.convert_version(network.model, OLDEST_OPSET)
        except Exception as error:  # the converter raises whatever its C++ side throws
            raise ModelError(f'{network.path} is of opset {version}, and cannot be converted to '
                             f'{OLDEST_OPSET}: export it with a newer one ({first_line(error)})'
                             ) from error
    copied = onnx.ModelProto()
    copied.CopyFrom(network.model)
    return copied


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the weights and constants of a graph, by name."""
    found = {node.output[0]: attribute.t for node in graph.node if node.op_type == 'Constant'
             for attribute in node.attribute if attribute.name == 'value'}
    return found | {weight.name: weight for weight in graph.initializer}


def _free_shapes(graph: onnx.GraphProto, image: str, batch: int) -> None:
    """
    Let Reshape and Expand take any batch, where they give `batch` rows of what the image gave.

    A shape may be that of weights, too, such as of a positional embedding, so each gets its own.
    """
    constants = _constants(graph)
    depends = {image}
    for number, node in enumerate(graph.node):
        if node.op_type in SIZES or depends.isdisjoint(node.input):
            continue
        depends.update(node.output)
        if node.op_type not in ('Reshape', 'Expand') or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape.ndim != 1 or len(shape) < 2 or shape[0] != batch:
            continue
        # Expand keeps more rows than 1. Reshape: what is left over, if nothing else is, or 'as in
        # the input', which its attribute allowzero would forbid.
        shape[0] = 1 if node.op_type == 'Expand' else -1 if -1 not in shape else 0
        name = f'{NODE_PREFIX}shape.{number}'
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name
        del node.attribute[:]


def _add_ends(graph: onnx.GraphProto, network: Published, dimension: int, batch: int | None
              ) -> None:
    """Put the normalisation before the network and the L2 norm after it."""
    expected = network.expected
    constants: dict[str, NDArray[np.generic]] = {
        'mean': expected.pixel_mean, 'std': expected.pixel_std,
        'one': np.array([1], np.int64), 'tiny': np.array(1e-12, np.float32),
        'rows': np.array([-1, dimension], np.int64), 'flip': np.array([2, 1, 0], np.int64)}
    steps: list[tuple[str, list[str], dict[str, Any]]] = [('Cast', [], {'to': TensorProto.FLOAT})]
    if expected.colour == 'bgr':
        steps.append(('Gather', ['flip'], {'axis': 3}))
    if network.kind != TensorProto.UINT8:
        steps += [('Sub', ['mean'], {}), ('Div', ['std'], {})]
    if expected.layout == 'nchw':
        steps.append(('Transpose', [], {'perm': [0, 3, 1, 2]}))
    steps.append(('Cast', [], {'to': network.kind}))
    values = ['image', *(f'input.{i}' for i in range(1, len(steps))),
              NODE_PREFIX + network.input_name]
    before = [helper.make_node(kind, [source, *others], [result], **attributes)
              for (kind, others, attributes), source, result
              in zip(steps, values, values[1:], strict=False)]
    after = [helper.make_node('Cast', [NODE_PREFIX + network.output_name], ['floats'],
                              to=TensorProto.FLOAT),
             helper.make_node('Reshape', ['floats', 'rows'], ['vector']),
             helper.make_node('Mul', ['vector', 'vector'], ['squares']),
             helper.make_node('ReduceSum', ['squares', 'one'], ['square'], keepdims=1),
             helper.make_node('Sqrt', ['square'], ['norm']),
             helper.make_node('Max', ['norm', 'tiny'], ['length']),
             helper.make_node('Div', ['vector', 'length'], ['descriptor'])]
    nodes = [*before, *graph.node, *after]
    used = {value for node in nodes for value in node.input}
    weights = [value for value in graph.input if value.name != NODE_PREFIX + network.input_name]
    for field in ('node', 'input', 'output'):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, key)
                             for key, value in constants.items() if key in used)
    size = (batch or 'batch', network.height, network.width, 3)
    graph.input.extend([helper.make_tensor_value_info('image', TensorProto.UINT8, size), *weights])
    graph.output.append(helper.make_tensor_value_info('descriptor', TensorProto.FLOAT,
                                                      [batch or 'batch', dimension]))
