"""
The same model, slower: for a node whose encoder cannot keep up with the camera.

Its descriptors, and so the poses, are the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from vpr_ros.core.files import whole_file

_INPUT = 'image_repeated'
_OUTPUT = 'descriptor_repeated'


def write_slow_model(model: Path, repeats: int, output: Path) -> Path:
    """
    Write a model that encodes every image `repeats` times and returns the first result.

    The model's batch size must be free. Returns `output`.
    """
    proto = onnx.load(str(model))
    graph = proto.graph
    renamed = {'image': _INPUT, 'descriptor': _OUTPUT}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    nodes = [
        helper.make_node('Concat', ['image'] * repeats, [_INPUT], axis=0),
        *graph.node,
        helper.make_node('Shape', ['image'], ['slow_shape']),
        helper.make_node('Slice', ['slow_shape', 'slow_zero', 'slow_one'], ['slow_count']),
        helper.make_node('Slice', [_OUTPUT, 'slow_zero', 'slow_count', 'slow_zero'],
                         ['descriptor'])]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.array([value], np.int64), f'slow_{name}')
                             for name, value in (('zero', 0), ('one', 1)))
    with whole_file(output) as part:
        onnx.save(proto, str(part))
    return output
