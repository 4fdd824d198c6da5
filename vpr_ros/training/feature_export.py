"""Export of a trained feature network to the ONNX file that encoding/features.py reads."""

from __future__ import annotations

from pathlib import Path
import pickle
from typing import Any
import zipfile

import numpy as np
import onnx
from onnx import helper
import torch
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import whole_file
from vpr_ros.encoding.features import FeatureNetwork as FeatureFile
from vpr_ros.training.experiment import FEATURES
from vpr_ros.training.export import fold_batch_norm
from vpr_ros.training.export import MIN_INPUT_SIDE
from vpr_ros.training.export import traced
from vpr_ros.training.export import without_traces
from vpr_ros.training.feature_network import Detector
from vpr_ros.training.feature_network import FeatureNetwork
from vpr_ros.training.onnx_file import save

COUNT = 1024
"""Features of an image."""

_EXAMPLE, _ODD = (240, 320), (101, 195)
_SAME_PIXEL = 0.05
_MIN_COSINE, _MIN_SAME = 0.999, 0.98


def read_features(path: str | Path) -> tuple[FeatureNetwork, dict[str, Any]]:
    """
    Return a checkpoint's network, in eval mode, and its experiment as plain values.

    Raises FileNotFoundError, or ModelError for another file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        described = content['experiment']
        if described['kind'] != FEATURES:
            raise KeyError('kind')
        network = FeatureNetwork(int(described['dimension']))
        network.load_state_dict(content['state_dict'])
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, TypeError, IndexError,
            AttributeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ModelError(f'{path} is not a checkpoint of `vpr train` of the kind {FEATURES}'
                         ) from error
    return network.eval(), described


def is_features(path: str | Path) -> bool:
    """Return whether a file is the checkpoint of a feature network."""
    try:
        read_features(path)
    except (ModelError, FileNotFoundError):
        return False
    return True


def export_features(checkpoint: str | Path, path: str | Path, *, count: int = COUNT,
                    license_name: str = '') -> str:
    """
    Write the network of a checkpoint as a file of `count` features an image; return how exact.

    It takes images of any size. Raises ModelError, and leaves no file,
    when the file finds other features than the network does.
    """
    network, described = read_features(checkpoint)
    detector = fold_batch_norm(Detector(network, count)).requires_grad_(False)
    example = torch.zeros(1, *_EXAMPLE, 1, dtype=torch.uint8)
    model = traced(detector, example, ('keypoints', 'scores', 'descriptors'),
                   {1: torch.export.Dim('height', min=MIN_INPUT_SIDE),
                    2: torch.export.Dim('width', min=MIN_INPUT_SIDE)})
    without_traces(model)
    options = described['training']
    helper.set_model_props(model, {
        'descriptor_dim': str(network.dimension), 'license': license_name or 'not stated',
        'training': f'vpr train, {FEATURES}, {options["steps"]} steps of {options["batch"]} '
                    f'pairs, seed {options["seed"]}'})
    onnx.checker.check_model(model)
    with whole_file(path) as part:
        save(model, part)
        report = _compared(detector, part)
        size = part.stat().st_size
    return f'{count} features of {network.dimension}, {size / 1e6:.2f} MB\n{report}'


def _compared(detector: Detector, path: Path) -> str:
    """Return a line on how near a file is to its network, on noise; raise ModelError if not."""
    file = FeatureFile(path, threads=1)
    same, cosines = [], []
    for seed, size in enumerate((_EXAMPLE, _ODD)):
        rng = np.random.default_rng(seed)
        small = rng.integers(0, 255, (size[0] // 4, size[1] // 4), dtype=np.uint8)
        grey = np.kron(small, np.ones((5, 5), np.uint8))[:size[0], :size[1]]
        found = file.extract(np.repeat(grey[..., None], 3, axis=2))
        with torch.inference_mode():
            points, scores, described = (value.numpy() for value in detector(
                torch.from_numpy(np.ascontiguousarray(grey))[None, ..., None]))
        points, described = points[scores > 0], described[scores > 0]
        off = np.linalg.norm(points[:, None] - found.keypoints, axis=2)
        near = off.argmin(axis=1)
        exact = off.min(axis=1) < _SAME_PIXEL
        same.append(exact.mean())
        cosines.append((described * found.descriptors[near]).sum(axis=1)[exact].min(initial=1))
    report = (f'{min(same):.3f} of the keypoints are those of torch, their descriptors have a '
              f'cosine of {min(cosines):.6f} or more')
    if not (min(same) >= _MIN_SAME and min(cosines) >= _MIN_COSINE):
        raise ModelError(f'not written: only {report}')
    return report
