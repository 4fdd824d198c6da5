"""
Weights to start from: torchvision's, a checkpoint's, or those of an exported or published network.

Parameters that are fitted to images are in initialise.py.
"""

from __future__ import annotations

from pathlib import Path
import pickle
from typing import TYPE_CHECKING
import zipfile

import numpy as np
import torch
from torch import Tensor
import torchvision
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.training.checkpoint import read_checkpoint
from vpr_ros.training.exported import exported_weights
from vpr_ros.training.exported import unfold

if TYPE_CHECKING:
    from torch import nn

NESTED = ('state_dict', 'model_state_dict', 'model')
"""Names under which training programs store the weights within their checkpoints."""


def initial_weights(source: str, backbone: str) -> dict[str, Tensor]:
    """
    Return weights by name: of 'imagenet', a checkpoint, an exported model or a weights file.

    Raises as `imagenet_weights`, `exported_weights` and `read_weights` do.
    """
    if source == 'imagenet':
        return imagenet_weights(backbone)
    if Path(source).suffix == '.onnx':
        return {name.removeprefix('backbone.'): value
                for name, value in exported_weights(source).items()}
    if Path(source).suffix == '.ckpt':
        try:
            return read_checkpoint(source)[0]
        except ModelError:  # not of `vpr train`: other programs call their files so, too
            pass
    return read_weights(source)


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """
    Return torchvision's ImageNet weights of a backbone, downloaded once and then cached.

    Raises ModelError when they are not cached and cannot be downloaded.
    """
    weights = torchvision.models.get_model_weights(name)['IMAGENET1K_V1']
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is the other
        raise ModelError(
            f"torchvision's weights of {name} cannot be downloaded ({first_line(error)}): fetch "
            f'{weights.url} elsewhere and set network.weights to that file, or to random'
            ) from error
    return state


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """
    Read weights by name from a torch state dict, or from the same arrays as .npz.

    A checkpoint of another program is read if it holds its state dict under one of NESTED. No code
    in the file is executed. Raises FileNotFoundError, or ModelError for a file that holds anything
    but arrays by name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such weights file')
    try:
        if path.suffix == '.npz':
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        state = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError,
            zipfile.BadZipFile) as error:
        raise ModelError(f'{path} holds no weights: neither a torch state dict nor an .npz of '
                         'arrays') from error
    if isinstance(state, dict):
        state = next((state[name] for name in NESTED if isinstance(state.get(name), dict)), state)
    if not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise ModelError(f'{path} is not a state dict: a dictionary of tensors by name')
    return state


def load_backbone(backbone: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """
    Load the weights of `backbone` from `weights`; ignore all others.

    Their names are torchvision's, or have a prefix before those ('backbone.model.layer1...'), or
    count the layers of the network instead of naming them ('backbone.4...', as CosPlace does).
    Raises ModelError that names `source` and the weights that it misses or that do not fit.
    """
    weights = unfold(backbone, weights)
    shapes = {name: tuple(value.shape) for name, value in backbone.state_dict().items()
              if not name.endswith('num_batches_tracked')}
    renamed = _names_in(weights, list(shapes), [name for name, _ in backbone.named_children()])
    missing = [name for name, theirs in renamed.items() if theirs not in weights]
    if missing:
        raise ModelError(f'{source} misses {len(missing)} of the {len(shapes)} weights of the '
                         f'backbone: {", ".join(missing[:3])}{" ..." if missing[3:] else ""}')
    for name, shape in shapes.items():
        found = tuple(weights[renamed[name]].shape)
        if found != shape:
            raise ModelError(f'{source} is of another network: its {renamed[name]} is '
                             f'{found}, not {shape}')
    backbone.load_state_dict({name: weights[renamed[name]] for name in shapes}, strict=False)


def _names_in(weights: dict[str, Tensor], names: list[str], layers: list[str]) -> dict[str, str]:
    """Return for each name the name in `weights`, of the naming that finds most of them."""
    counted = {name: '.'.join([str(layers.index(name.split('.')[0])), *name.split('.')[1:]])
               for name in names}
    namings = []
    for naming in ({name: name for name in names}, counted):
        first = naming[names[0]]
        prefixes = [theirs.removesuffix(first) for theirs in weights
                    if theirs == first or theirs.endswith(f'.{first}')]
        namings += [{name: prefix + theirs for name, theirs in naming.items()}
                    for prefix in ('', *prefixes)]
    return max(namings, key=lambda naming: sum(theirs in weights for theirs in naming.values()))
