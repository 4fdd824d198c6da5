"""
Weights of an exported network: from an ONNX model of `vpr export` back into training.

The export folds each BatchNorm into the convolution before it. Here such a BatchNorm becomes one
that only adds the folded bias.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper
import torch
from torch import nn
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

SUFFIXES = ('.stored', '.half')
"""What half_precision.py appends to the names of weights."""
PARTS = ('backbone.', 'aggregation.', 'whitening.')


def exported_weights(path: str | Path) -> dict[str, Tensor]:
    """
    Return the weights of an exported network by their names in training, as float32.

    Those of a BatchNorm that was folded are missing: see `unfold`. Raises FileNotFoundError, or
    ModelError for a file that is not such a model, or one in int8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such model')
    try:
        graph = onnx.load(path).graph
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
                  if tensor.name.startswith(PARTS)}
    except Exception as error:  # protobuf's errors have no common class of their own
        raise ModelError(f'{path} is not an ONNX model ({first_line(error)})') from error
    weights = {}
    for name, array in arrays.items():
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
        if np.issubdtype(array.dtype, np.floating):
            weights[name] = torch.from_numpy(array.astype(np.float32))
    if not any(name.startswith('backbone.') and value.ndim == 4
               for name, value in weights.items()):
        raise ModelError(f'{path} has no weights to train: it is not a float model of '
                         '`vpr export`')
    return weights


def unfold(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """
    Return `weights` with those of each BatchNorm of `network` that was folded.

    It is one that the weights do not have, while the convolution before it has a bias in them.
    """
    unfolded = dict(weights)
    for convolution, norm, layer in _norms_after_convolutions(network):
        bias = weights.get(f'{convolution}.bias')
        if bias is None or f'{norm}.weight' in weights:
            continue
        del unfolded[f'{convolution}.bias']
        unfolded |= {f'{norm}.weight': torch.full_like(bias, (1.0 + layer.eps) ** 0.5),
                     f'{norm}.bias': bias, f'{norm}.running_mean': torch.zeros_like(bias),
                     f'{norm}.running_var': torch.ones_like(bias),
                     f'{norm}.num_batches_tracked': torch.tensor(0)}
    return unfolded


def _norms_after_convolutions(module: nn.Module, prefix: str = ''
                              ) -> Iterator[tuple[str, str, nn.BatchNorm2d]]:
    """Yield the names of each convolution without bias and of the BatchNorm right after it."""
    before = ''
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and before:
            yield before, prefix + name, child
        yield from _norms_after_convolutions(child, f'{prefix}{name}.')
        alone = isinstance(child, nn.Conv2d) and child.bias is None
        before = prefix + name if alone else ''
