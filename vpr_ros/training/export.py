"""
Export of a torch network to the ONNX file that the robot runs.

Lower precision is in half_precision.py and quantise.py, the comparison of both in parity.py.
Published networks are converted by wrap.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
import logging
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING
from typing import TypeVar
import warnings

import numpy as np
import onnx
from onnx import helper
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import whole_file
from vpr_ros.core.images import list_folder
from vpr_ros.core.images import read
from vpr_ros.core.images import resize
from vpr_ros.training.half_precision import store_as_half
from vpr_ros.training.half_precision import to_half
from vpr_ros.training.onnx_file import save
from vpr_ros.training.parity import accept
from vpr_ros.training.parity import check_int8
from vpr_ros.training.parity import compare
from vpr_ros.training.parity import PRECISIONS
from vpr_ros.training.quantise import to_int8

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.training.experiment import Experiment
    from vpr_ros.training.model import PlaceNetwork
    from vpr_ros.training.parity import ExportReport
    from vpr_ros.training.recall import ValidationSet

AnyModule = TypeVar('AnyModule', bound=nn.Module)

OPSET = 18
PROJECTED_FROM = 2000
CALIBRATED_ON = 256
"""Most images to which a projection is fitted, and on which int8 is calibrated."""
MIN_INPUT_SIDE = 32
"""Least width and height of an input, in pixels."""


@dataclass(frozen=True)
class ExportOptions:
    """
    Input size, precision and storage of an exported model.

    `precision` is that of the backbone, one of PRECISIONS (fp16: of the whitening, too); L2 norms,
    the softmax and the rest of the aggregation are always float32. `half_weights` stores weights
    that compute in float32 as float16: half the size, at a cosine of about 0.999998. With
    `dynamic_size` the graph takes any height and width, and the Encoder resizes to those given.
    Raises ValueError for an unknown precision or a size below MIN_INPUT_SIDE.
    """

    height: int = 240
    width: int = 320
    precision: str = 'fp32'
    dynamic_size: bool = False
    half_weights: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision '{self.precision}' is not known; use one of "
                             f'{", ".join(PRECISIONS)}')
        if min(self.height, self.width) < MIN_INPUT_SIDE:
            raise ValueError(f'an input of {self.width}x{self.height} is too small: at least '
                             f'{MIN_INPUT_SIDE}x{MIN_INPUT_SIDE}')


def export(network: PlaceNetwork, path: str | Path, options: ExportOptions, *,
           metadata: Mapping[str, str], images: NDArray[np.uint8] | None = None,
           validation: ValidationSet | None = None) -> ExportReport:
    """
    Write `network` as an ONNX model of the project's format and return how exact it is.

    The graph takes uint8 (N,height,width,3) RGB named `image` and returns float32 (N,D) named
    `descriptor`; of a network with whitening, also what that projects, as `aggregate`. `metadata`
    should hold backbone, aggregation, training and license; sizes and
    precision are added.

    The cosine between torch and the file is measured on some of `images` (M,height,width,3), or on
    noise without them. int8 takes the ranges of its activations from all of them, hence needs
    them, and `validation`. Raises ModelError, and leaves no file, when parity.py does not accept
    it; ValueError for images of another size, or none for int8.
    """
    _check_images(options, images, validation)
    network = copy.deepcopy(network).cpu().eval()
    model = to_precision(network, options, images)
    facts = {**metadata, 'input_height': str(options.height), 'input_width': str(options.width),
             'descriptor_dim': str(network.dimension), 'precision': options.precision}
    helper.set_model_props(model, dict(sorted(facts.items())))
    onnx.checker.check_model(model)

    def in_torch(batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        fitting = np.stack([resize(image, options.height, options.width) for image in batch])
        with torch.inference_mode():
            descriptors: NDArray[np.float32] = network(torch.from_numpy(fitting)).numpy()
        return descriptors

    with whole_file(path) as part:
        save(model, part)
        report = compare(in_torch, part, options.precision, images=images, validation=validation)
        accept(report, path)
    return report


def to_precision(network: PlaceNetwork, options: ExportOptions,
                 images: NDArray[np.uint8] | None = None) -> onnx.ModelProto:
    """Return the graph of `network` (eval mode, on the CPU) without comparison; see `export`."""
    model, parts = _to_onnx(fold_batch_norm(network), options)
    backbone = {node for node, part in parts.items() if part == 'backbone'}
    if options.precision == 'fp16':
        model = to_half(model, backbone | {node for node, part in parts.items()
                                           if part == 'whitening'})
    elif options.precision == 'int8':
        assert images is not None
        model = to_int8(model, backbone, images)
    return store_as_half(model) if options.half_weights else model


def sample_images(folders: Sequence[str | Path], height: int, width: int, most: int
                  ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """
    Return at most `most` images (N,height,width,3) of folders, and the drive (N,) of each.

    Each folder is one drive, under one season and light. The images are evenly spaced over all
    folders. Raises SourceError for a folder without images, ImageError for an unreadable image.
    """
    files = [(file, drive) for drive, folder in enumerate(folders) for file in list_folder(folder)]
    chosen = np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)
    images = np.empty((len(chosen), height, width, 3), np.uint8)
    for row, i in zip(images, tqdm(chosen, desc='images', leave=False, disable=None),
                      strict=True):
        row[:] = resize(read(files[i][0]), height, width)
    return images, np.array([files[i][1] for i in chosen], np.int64)


def metadata_of(experiment: Experiment, checkpoint: str | Path, license_name: str = ''
                ) -> dict[str, str]:
    """Return the metadata of a model: backbone, aggregation, training and license."""
    network = experiment.network
    layer = f' to {network.layer}' if network.layer else ''
    clusters = f'-{network.clusters}' if network.aggregation == 'netvlad' else ''
    # Names, not paths: a model is published, and its folders are not.
    start = '/'.join(Path(network.weights).parts[-2:])
    teacher = '/'.join(Path(experiment.teacher.network).parts[-2:])
    return {'backbone': f'{network.backbone}{layer}',
            'aggregation': f'{network.aggregation}{clusters}',
            'training': f'vpr train, {Path(checkpoint).name}, from {start} weights, on '
                        f'{", ".join(experiment.data) or "no data"}; loss {experiment.loss.kind}, '
                        f'teacher {teacher or "none"}, seed {experiment.training.seed}',
            'license': license_name or 'not stated'}


def fold_batch_norm(network: AnyModule) -> AnyModule:
    """Return a copy in eval mode whose BatchNorm layers are part of the convolutions."""
    folded = copy.deepcopy(network).eval()
    _fold(folded)
    return folded


def _check_images(options: ExportOptions, images: NDArray[np.uint8] | None,
                  validation: ValidationSet | None) -> None:
    size = (options.height, options.width, 3)
    if images is not None and (images.shape[1:] != size or not len(images)):
        raise ValueError(f'images of {images.shape} do not fit an input of {size}')
    check_int8(options.precision, images, validation)


def traced(network: nn.Module, example: torch.Tensor, outputs: Sequence[str],
           dynamic: Mapping[int, Any]) -> onnx.ModelProto:
    """
    Return the graph of a network that takes one input, `image`, as the exporter writes it.

    `dynamic` names the axes of the input that may have any size. Raises ModelError.
    """
    # The exporter warns about its own internals, which users cannot change.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(
                network, (example,), input_names=['image'], output_names=list(outputs),
                opset_version=OPSET, dynamo=True, verbose=False,
                dynamic_shapes=(dict(dynamic),))
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ModelError('the network cannot be exported with an input of '
                         f'{example.shape[2]}x{example.shape[1]}'
                         f'{" or any other size" if 1 in dynamic else ""}: '
                         f'{first_line(cause)}') from error
    assert program is not None
    return program.model_proto


def without_traces(model: onnx.ModelProto) -> None:
    """
    Take the exporter's stack traces from a graph.

    They hold paths of this machine, and make files differ between machines.
    """
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input,
                 *model.graph.output, *model.graph.initializer):
        part.ClearField('metadata_props')
        part.ClearField('doc_string')


def _to_onnx(network: PlaceNetwork, options: ExportOptions
             ) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the graph, and for each of its nodes, by name, the part of the network it is of."""
    example = torch.zeros(2, options.height, options.width, 3, dtype=torch.uint8)
    dynamic = {0: torch.export.Dim('batch')}
    if options.dynamic_size:
        dynamic |= {1: torch.export.Dim('height', min=MIN_INPUT_SIDE),
                    2: torch.export.Dim('width', min=MIN_INPUT_SIDE)}
    model = traced(network, example, ['descriptor'], dynamic)
    parts = {}
    for node in model.graph.node:
        facts = {entry.key: entry.value for entry in node.metadata_props}
        # A path of module names and classes from the whole network down, joined by '/'.
        path = facts.get('namespace', '').split('/')
        parts[node.name] = path[1].split(':')[0] if len(path) > 1 else ''
    _give_aggregate(model, parts)
    without_traces(model)
    return model, parts


def _give_aggregate(model: onnx.ModelProto, parts: Mapping[str, str]) -> None:
    """Name what the last layer, `whitening`, projects `aggregate`, and make it an output."""
    nodes = model.graph.node
    whitening = next((node for node in nodes if parts[node.name] == 'whitening'
                      and len(node.input) == 3), None)
    if whitening is None:
        return
    before, dimension = whitening.input[0], next(
        tensor.dims[1] for tensor in model.graph.initializer if tensor.name == whitening.input[1])
    for node in nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == before:
                    names[i] = 'aggregate'
    batch = model.graph.output[0].type.tensor_type.shape.dim[0].dim_param
    model.graph.output.append(helper.make_tensor_value_info(
        'aggregate', onnx.TensorProto.FLOAT, [batch, dimension]))


def _fold(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution right before it, recursively."""
    before = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None:
            conv_name, conv = before
            setattr(module, conv_name, fuse_conv_bn_eval(conv, child))
            setattr(module, name, nn.Identity())
        _fold(child)
        before = (name, child) if isinstance(child, nn.Conv2d) else None
