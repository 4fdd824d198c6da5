"""
From a torch network to the ONNX file that the robot runs, and the proof that both agree.

How nodes lose precision is in quantise.py; other people's networks come in through wrap.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
import logging
from pathlib import Path
from typing import TYPE_CHECKING
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
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.training.quantise import store_as_half
from vpr_ros.training.quantise import to_half
from vpr_ros.training.quantise import to_int8
from vpr_ros.training.recall import validate
from vpr_ros.training.stem import take_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.training.experiment import Experiment
    from vpr_ros.training.model import PlaceNetwork
    from vpr_ros.training.recall import ValidationSet

PRECISIONS = ('fp32', 'fp16', 'int8')
OPSET = 18
LEAST_COSINE = 0.999
"""Of fp32 and fp16, on every picture; int8 is held to the recall alone."""
MOST_LOSS = 0.005
"""How far Recall@1 on the validation set may fall: half a point."""
COMPARED = 16
"""Pictures on which the cosine is measured, at most."""
PROJECTED_FROM = 2000
CALIBRATED_ON = 256
"""How many pictures a projection is fitted to, and how many int8 is calibrated on, at most."""
SMALLEST = 32
"""Least width and height of an input, in pixels."""


@dataclass(frozen=True)
class ExportReport:
    """
    What became of a network in the file: its size, and how far it is from torch.

    `worst` and `mean` are cosines over pictures; `recall_before` and `recall_after` are Recall@1
    in [0,1] on the validation set, in torch and in the file, None without such a set.
    """

    precision: str
    size_bytes: int
    worst: float
    mean: float
    recall_before: float | None = None
    recall_after: float | None = None

    def __str__(self) -> str:
        """Say it in two lines, or three with a validation set."""
        lines = [f'{self.precision}, {self.size_bytes / 1e6:.2f} MB',
                 f'cosine to torch: worst {self.worst:.6f}, mean {self.mean:.6f}']
        if self.recall_before is not None and self.recall_after is not None:
            lines.append(f'Recall@1: {self.recall_before:.4f} in torch, {self.recall_after:.4f} '
                         'in the file')
        return '\n'.join(lines)


def export(network: PlaceNetwork, path: str | Path, *, height: int = 240, width: int = 320,
           metadata: Mapping[str, str], precision: str = 'fp32', dynamic_size: bool = False,
           half_weights: bool = True, pictures: NDArray[np.uint8] | None = None,
           validation: ValidationSet | None = None) -> ExportReport:
    """
    Write `network` as an ONNX model of the project's contract and return how exact it is.

    The graph takes uint8 (N,height,width,3) RGB named `image` and gives float32 (N,D) named
    `descriptor`. `precision` is that of the backbone (fp16: of the whitening, too); L2 norms, the
    softmax and the rest of the aggregation are float32 always. `half_weights` stores the weights
    that compute in float32 as float16, at half the size and a cosine of about 0.999998. With
    `dynamic_size` height and width are free, and those given are what the Encoder resizes to.

    `metadata` should hold backbone, aggregation, training and license; the sizes are added.
    Parity is measured on some of `pictures` (M,height,width,3), or on noise where there are none;
    int8 takes the ranges of its activations from all of them, so there they are needed, as is
    `validation`. Raises ModelError, and leaves no file, when the worst cosine is below
    LEAST_COSINE (fp32, fp16) or Recall@1 on the validation set falls by more than MOST_LOSS;
    ValueError for a size that the network cannot take, or what int8 misses.
    """
    _check_request(height, width, precision, pictures, validation)
    network = copy.deepcopy(network).cpu().eval()
    model = to_precision(network, precision, height=height, width=width, pictures=pictures,
                         dynamic_size=dynamic_size, half_weights=half_weights)
    facts = {**metadata, 'input_height': str(height), 'input_width': str(width),
             'descriptor_dim': str(network.dimension), 'precision': precision}
    helper.set_model_props(model, dict(sorted(facts.items())))
    onnx.checker.check_model(model)
    with whole_file(path) as part:
        onnx.save(model, part)
        report = _compare(network, part, precision, _some(pictures, height, width), validation)
        _accept(report, path)
    return report


def to_precision(network: PlaceNetwork, precision: str, *, height: int, width: int,
                 pictures: NDArray[np.uint8] | None = None, dynamic_size: bool = False,
                 half_weights: bool = True) -> onnx.ModelProto:
    """Return the graph of `network` (eval mode, on the CPU), without proof; see `export`."""
    network = fold_batch_norm(network)
    if precision == 'int8' and not dynamic_size:
        take_bytes(network, height, width)
    model, scopes = _to_onnx(network, height, width, dynamic_size)
    backbone = {node for node, scope in scopes.items() if scope == 'backbone'}
    if precision == 'fp16':
        whitening = {node for node, scope in scopes.items() if scope == 'whitening'}
        model = to_half(model, backbone | whitening)
    elif precision == 'int8':
        assert pictures is not None
        model = to_int8(model, backbone, pictures)
    return store_as_half(model) if half_weights else model


def read_pictures(folders: Sequence[str | Path], height: int, width: int, most: int
                  ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """
    Return at most `most` pictures (N,height,width,3) of folders, and which drive (N,) each is.

    Each folder is one drive: one season, one light. They are taken evenly from all. Raises
    SourceError for a folder without pictures, ImageError for a picture that cannot be read.
    """
    files = [(file, drive) for drive, folder in enumerate(folders) for file in list_folder(folder)]
    chosen = np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)
    pictures = np.empty((len(chosen), height, width, 3), np.uint8)
    for slot, i in zip(pictures, tqdm(chosen, desc='pictures', leave=False, disable=None),
                       strict=True):
        slot[:] = resize(read(files[i][0]), height, width)
    return pictures, np.array([files[i][1] for i in chosen], np.int64)


def metadata_of(experiment: Experiment, checkpoint: str | Path, license_name: str = ''
                ) -> dict[str, str]:
    """Return what the model says of itself: backbone, aggregation, training and license."""
    network = experiment.network
    layer = f' to {network.layer}' if network.layer else ''
    clusters = f'-{network.clusters}' if network.aggregation == 'netvlad' else ''
    # Names, not paths: a model travels, and nobody else has this machine's folders.
    start = '/'.join(Path(network.weights).parts[-2:])
    teacher = '/'.join(Path(experiment.teacher.network).parts[-2:])
    return {'backbone': f'{network.backbone}{layer}',
            'aggregation': f'{network.aggregation}{clusters}',
            'training': f'vpr train, {Path(checkpoint).name}, from {start} weights, on '
                        f'{", ".join(experiment.data) or "no data"}; loss {experiment.loss.kind}, '
                        f'teacher {teacher or "none"}, seed {experiment.training.seed}',
            'license': license_name or 'not stated'}


def fold_batch_norm(network: PlaceNetwork) -> PlaceNetwork:
    """Return a copy in eval mode whose BatchNorm layers are part of the convolutions."""
    folded = copy.deepcopy(network).eval()
    _fold(folded)
    return folded


def _check_request(height: int, width: int, precision: str, pictures: NDArray[np.uint8] | None,
                   validation: ValidationSet | None) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}' is not known; use one of "
                         f'{", ".join(PRECISIONS)}')
    if min(height, width) < SMALLEST:
        raise ValueError(f'an input of {width}x{height} is too small: at least '
                         f'{SMALLEST}x{SMALLEST}')
    if pictures is not None and (pictures.shape[1:] != (height, width, 3) or not len(pictures)):
        raise ValueError(f'pictures of {pictures.shape} do not fit an input of '
                         f'{(height, width, 3)}')
    if precision == 'int8' and (pictures is None or validation is None):
        raise ValueError('int8 needs pictures to calibrate on and a validation set: whether a '
                         'network bears it shows only in its recall')


def _some(pictures: NDArray[np.uint8] | None, height: int, width: int) -> NDArray[np.uint8]:
    if pictures is None:
        return np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    return pictures[np.linspace(0, len(pictures) - 1, min(COMPARED, len(pictures))).astype(int)]


def _compare(network: PlaceNetwork, path: Path, precision: str, pictures: NDArray[np.uint8],
             validation: ValidationSet | None) -> ExportReport:
    """Describe the same pictures in torch and from the file, singly and as one batch."""
    try:
        encoder = Encoder(path, provider='cpu')
    except ModelError as error:
        # It names a file that will be gone.
        raise ModelError('not written: what the network becomes is no model, or gives no unit '
                         f'vectors ({first_line(error).removeprefix(str(path)).lstrip(": ")})'
                         ) from error
    height, width = encoder.height, encoder.width

    def in_torch(batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        fitting = np.stack([resize(picture, height, width) for picture in batch])
        with torch.inference_mode():
            described: NDArray[np.float32] = network(torch.from_numpy(fitting)).numpy()
        return described

    expected = in_torch(list(pictures))
    batch = encoder.encode_batch(list(pictures))
    single = np.stack([encoder.encode(picture) for picture in pictures])
    cosines = np.concatenate([np.sum(expected * batch, axis=1), np.sum(expected * single, axis=1)])
    before = after = None
    if validation is not None:
        before = validate(validation, in_torch, (1,))[1]
        after = validate(validation, encoder.encode_batch, (1,))[1]
    return ExportReport(precision, path.stat().st_size, float(cosines.min()),
                        float(cosines.mean()), before, after)


def _accept(report: ExportReport, path: str | Path) -> None:
    if report.precision != 'int8' and not report.worst >= LEAST_COSINE:  # also when it is NaN
        raise ModelError(f'{path}: not written, its descriptors differ from the network by a '
                         f'cosine of {report.worst:.5f}; at least {LEAST_COSINE} is needed')
    if report.recall_before is None or report.recall_after is None:
        return
    # A rounding error of the difference must not decide.
    if not report.recall_before - report.recall_after <= MOST_LOSS + 1e-9:
        raise ModelError(f'{path}: not written, {report.precision} takes Recall@1 from '
                         f'{report.recall_before:.4f} to {report.recall_after:.4f}; at most '
                         f'{100 * MOST_LOSS:g} points may be lost')


def _to_onnx(network: PlaceNetwork, height: int, width: int, dynamic_size: bool
             ) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the graph, and which part of the network each of its nodes, by name, comes from."""
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    free = {0: torch.export.Dim('batch')}
    if dynamic_size:
        free |= {1: torch.export.Dim('height', min=SMALLEST),
                 2: torch.export.Dim('width', min=SMALLEST)}
    # The exporter warns of its own internals, which a user can do nothing about.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(
                network, (example,), input_names=['image'],
                output_names=['descriptor'], opset_version=OPSET, dynamo=True, verbose=False,
                dynamic_shapes=(free,))
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ModelError('the network cannot be exported with an input of '
                         f'{"any size" if dynamic_size else f"{width}x{height}"}: '
                         f'{first_line(cause)}') from error
    assert program is not None
    model = program.model_proto
    scopes = {}
    for node in model.graph.node:
        facts = {entry.key: entry.value for entry in node.metadata_props}
        # A path of module classes and names from the whole network down, joined by '/'.
        path = facts.get('namespace', '').split('/')
        scopes[node.name] = path[1].split(':')[0] if len(path) > 1 else ''
    # Stack traces of the exporter: paths of the machine it ran on, and other bytes on each.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input,
                 *model.graph.output, *model.graph.initializer):
        part.ClearField('metadata_props')
        part.ClearField('doc_string')
    return model, scopes


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
