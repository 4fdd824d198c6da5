"""
Float16 in an ONNX graph: computation in chosen nodes, or only the storage of weights.

export.py chooses the nodes, and checks whether the descriptors stay good enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
from vpr_ros.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection

STORED_AS_HALF = 1024
"""Smallest number of values in a weight for which storage as float16 is worth a node."""
KEPT_FLOAT = frozenset({'Cast', 'Constant', 'ConstantOfShape', 'Range', 'Resize'})
"""Operators that stay as they are: their attributes fix their types, or they need float32."""


def to_half(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """
    Compute the nodes called `names` in float16, with casts where values enter and leave them.

    All other nodes keep their float32 values. A general converter casts between those, too, and an
    L2 norm overflows in float16. Changes `model` and returns it. Raises ModelError when a weight
    is out of range for float16.
    """
    graph = model.graph
    floats = {value for value, kind in _types(model).items() if kind == TensorProto.FLOAT}
    half = {node.name for node in graph.node if node.name in names
            and node.op_type not in KEPT_FLOAT and floats.issuperset(node.output)}
    entering, leaving = _boundary(graph, half)
    entering &= floats
    for weight in list(graph.initializer):
        if weight.name in entering:
            graph.initializer.append(_half(weight, 'half'))
            entering.remove(weight.name)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _half_node(node, floats, entering, leaving) if node.name in half else [node]
    _replace_nodes(graph, nodes)
    return model


def store_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """
    Store large float32 weights as float16, each with a cast back to float32.

    This halves the file, and every computation stays in float32. Vectors are scales and biases,
    and stay float32. Changes `model` and returns it. Raises ModelError when a weight is out of
    range for float16.
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


def _boundary(graph: onnx.GraphProto, names: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the values that enter and that leave the nodes called `names`."""
    made: set[str] = set()
    read: set[str] = set()
    read_outside = {output.name for output in graph.output}
    for node in graph.node:
        if node.name in names:
            made.update(node.output)
            read.update(node.input)
        else:
            read_outside.update(node.input)
    return read - made, made & read_outside


def _half_node(node: onnx.NodeProto, floats: Collection[str], entering: set[str],
               leaving: Collection[str]) -> list[onnx.NodeProto]:
    """Turn a node's float32 values into float16; return it with the casts around it."""
    casts_in = [_cast(value, f'{value}.half', TensorProto.FLOAT16)
                for value in dict.fromkeys(node.input) if value in entering]
    casts_out = [_cast(f'{value}.half', value, TensorProto.FLOAT)
                 for value in node.output if value in leaving]
    entering.difference_update(node.input)  # later nodes use the same cast
    node.input[:] = [f'{value}.half' if value in floats else value for value in node.input]
    node.output[:] = [f'{value}.half' for value in node.output]
    return [*casts_in, node, *casts_out]


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every value in the graph, where it is known."""
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
    """Set the nodes of a graph, and drop the weights that none of them uses."""
    used = {value for node in nodes for value in node.input}
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    weights = [onnx.TensorProto.FromString(weight.SerializeToString())
               for weight in graph.initializer if weight.name in used]
    # The inferred types and shapes are those of the old graph; readers infer them anew.
    for field in ('node', 'initializer', 'value_info'):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
