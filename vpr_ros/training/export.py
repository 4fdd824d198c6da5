"""From a torch network to the ONNX file that the robot runs, and the proof that both agree.

Big weights are stored as float16 and cast back to float32 when the file is loaded: half the size,
with every computation still in float32.
"""

from __future__ import annotations

import copy
import logging
from typing import NamedTuple
from typing import TYPE_CHECKING
import warnings

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
import onnxruntime
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from vpr_ros.errors import ModelError
from vpr_ros.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.training.model import PlaceNetwork

OPSET = 18
LEAST_COSINE = 0.999
STORED_AS_HALF = 1024
"""Weights with at least this many values are stored as float16; fewer are not worth a node."""


class Parity(NamedTuple):
    """Cosine between torch's and ONNX Runtime's descriptors of the same pictures."""

    worst: float
    mean: float


def export(network: PlaceNetwork, path: str | Path, *, height: int = 240, width: int = 320,
           metadata: Mapping[str, str], pictures: NDArray[np.uint8] | None = None) -> Parity:
    """Write `network` as an ONNX model of the project's contract and return how exact it is.

    The graph takes uint8 (N,height,width,3) RGB named `image` and gives float32 (N,D) named
    `descriptor`. `metadata` should hold backbone, aggregation, training and license; the sizes are
    added. Parity is measured on `pictures` (M,height,width,3), or on noise where there are none.
    Raises ModelError, and leaves no file, when the worst cosine is below LEAST_COSINE; ValueError
    for a size that the network cannot take.
    """
    if min(height, width) < 32:
        raise ValueError(f'an input of {width}x{height} is too small: at least 32x32')
    if pictures is None:
        pictures = _noise(4, height, width)
    if pictures.shape[1:] != (height, width, 3):
        raise ValueError(f'pictures of {pictures.shape[1:]} do not fit an input of '
                         f'{(height, width, 3)}')
    with whole_file(path) as part:
        model = store_as_half(_to_onnx(network, height, width))
        facts = {**metadata, 'input_height': str(height), 'input_width': str(width),
                 'descriptor_dim': str(network.dimension)}
        helper.set_model_props(model, dict(sorted(facts.items())))
        onnx.checker.check_model(model)
        onnx.save(model, part)
        parity = measure_parity(network, part, pictures)
        if not parity.worst >= LEAST_COSINE:  # also when it is NaN
            raise ModelError(f'{path}: not written, its descriptors differ from the network by a '
                             f'cosine of {parity.worst:.5f}; at least {LEAST_COSINE} is needed')
    return parity


def fold_batch_norm(network: PlaceNetwork) -> PlaceNetwork:
    """Return a copy in eval mode whose BatchNorm layers are part of the convolutions."""
    folded = copy.deepcopy(network).eval()
    _fold(folded)
    return folded


def store_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn big float32 weights into float16 ones, each followed by a cast to float32.

    Changes `model` and returns it. Raises ModelError when a weight is beyond float16.
    """
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < STORED_AS_HALF:
            continue
        if not np.abs(values).max() <= np.finfo(np.float16).max:
            raise ModelError(f'weight {weight.name} has values beyond float16 or not finite')
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f'{name}.half'))
        casts.append(helper.make_node('Cast', [f'{name}.half'], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@torch.no_grad()
def measure_parity(network: PlaceNetwork, path: str | Path, pictures: NDArray[np.uint8]) -> Parity:
    """Compare torch with ONNX Runtime on `pictures` (M,H,W,3), one by one and as one batch."""
    network.eval()
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    expected = network(torch.from_numpy(np.ascontiguousarray(pictures))).numpy()
    batch = session.run(['descriptor'], {'image': pictures})[0]
    single = [session.run(['descriptor'], {'image': p[None]})[0][0] for p in pictures]
    cosines = np.concatenate([np.sum(expected * batch, axis=1), np.sum(expected * single, axis=1)])
    return Parity(float(cosines.min()), float(cosines.mean()))


def _to_onnx(network: PlaceNetwork, height: int, width: int) -> onnx.ModelProto:
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    # The exporter warns of its own internals, which a user can do nothing about.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            fold_batch_norm(network), (example,), input_names=['image'],
            output_names=['descriptor'], opset_version=OPSET, dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim('batch')},))
    assert program is not None
    model = program.model_proto
    # Stack traces of the exporter: paths of the machine it ran on, and other bytes on each.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input,
                 *model.graph.output, *model.graph.initializer):
        part.ClearField('metadata_props')
        part.ClearField('doc_string')
    return model


def _fold(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution that stands right before it, here and below."""
    before = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None:
            conv_name, conv = before
            setattr(module, conv_name, fuse_conv_bn_eval(conv, child))
            setattr(module, name, nn.Identity())
        _fold(child)
        before = (name, child) if isinstance(child, nn.Conv2d) else None


def _noise(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
