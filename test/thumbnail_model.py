"""
A model for tests that needs no training: its descriptor is a normalised grey thumbnail.

The image is averaged over a grid of cells, its mean is subtracted and the result scaled to unit
norm. Images of one place are similar, of different places not: enough to test all but a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH, CELL = 48, 64, 8
DIMENSION = (HEIGHT // CELL) * (WIDTH // CELL)
AGGREGATE = 4 * DIMENSION
CHANNELS = 8


def write_thumbnail_model(path: Path, *, gain: float = 1.0, input_name: str = 'image',
                          input_type: int = TensorProto.UINT8, fragile: bool = False,
                          aggregate: bool = False, grid: bool = False) -> Path:
    """
    Write the model to `path` and return the path; each `gain` gives another digest.

    A `fragile` model fails to run on an image that contains the value 255. One with an `aggregate`
    gives that output: a thumbnail of twice the height and width. One with a `grid` has a layer,
    and no output, of a few channels for each cell.
    """
    constants = {'gain': np.array(gain, np.float32), 'tiny': np.array(1e-6, np.float32),
                 'flat': np.array([0, -1], np.int64), 'one': np.array([1], np.int64)}
    nodes = [
        helper.make_node('Cast', [input_name], ['float'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['float'], ['grey'], axes=[3], keepdims=0),
        helper.make_node('Unsqueeze', ['grey', 'one'], ['plane']),
        helper.make_node('AveragePool', ['plane'], ['cells'], kernel_shape=[CELL, CELL],
                         strides=[CELL, CELL]),
        helper.make_node('Reshape', ['cells', 'flat'], ['row']),
        helper.make_node('ReduceMean', ['row'], ['mean'], axes=[1], keepdims=1),
        helper.make_node('Sub', ['row', 'mean'], ['rest']),
        helper.make_node('Mul', ['rest', 'gain'], ['scaled']),
        helper.make_node('Add', ['scaled', 'tiny'], ['shifted']),
        helper.make_node('LpNormalization', ['shifted'], ['descriptor'], axis=1, p=2)]
    if fragile:  # gathers the largest value from a table that ends at 254
        constants |= {'table': np.zeros(255, np.float32)}
        nodes[-1:] = [
            helper.make_node('ReduceMax', ['float'], ['peak'], axes=[1, 2, 3], keepdims=0),
            helper.make_node('Cast', ['peak'], ['number'], to=TensorProto.INT64),
            helper.make_node('Gather', ['table', 'number'], ['zero']),
            helper.make_node('Unsqueeze', ['zero', 'one'], ['zeros']),
            helper.make_node('Add', ['shifted', 'zeros'], ['same']),
            helper.make_node('LpNormalization', ['same'], ['descriptor'], axis=1, p=2)]
    if grid:
        constants['kernel'] = np.random.default_rng(0).standard_normal(
            (CHANNELS, 1, CELL, CELL)).astype(np.float32)
        nodes.insert(3, helper.make_node('Conv', ['plane', 'kernel'], ['grid'],
                                         strides=[CELL, CELL]))
    outputs = {'descriptor': DIMENSION}
    if aggregate:
        outputs['aggregate'] = AGGREGATE
        nodes += [
            helper.make_node('AveragePool', ['plane'], ['fine'], kernel_shape=[CELL // 2] * 2,
                             strides=[CELL // 2] * 2),
            helper.make_node('Reshape', ['fine', 'flat'], ['fine_row']),
            helper.make_node('Sub', ['fine_row', 'mean'], ['fine_rest']),
            helper.make_node('Add', ['fine_rest', 'tiny'], ['fine_shifted']),
            helper.make_node('LpNormalization', ['fine_shifted'], ['aggregate'], axis=1, p=2)]
    graph = helper.make_graph(
        nodes, 'thumbnail',
        [helper.make_tensor_value_info(input_name, input_type, ['N', HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ['N', size])
         for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, {'input_height': str(HEIGHT), 'input_width': str(WIDTH),
                                   'aggregation': 'thumbnail'})
    onnx.save(model, str(path))
    return path
