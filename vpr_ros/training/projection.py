"""
Shorter descriptors: PCA-whitening that is folded into the network's last layer.

Compression within a map, such as product quantisation, belongs to its index.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from vpr_ros.training.initialise import aggregated
from vpr_ros.training.whitening import centre_per_drive
from vpr_ros.training.whitening import pca_whitening
from vpr_ros.training.whitening import SHRINKAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.training.model import PlaceNetwork


@torch.no_grad()
def fold_projection(network: PlaceNetwork, images: NDArray[np.uint8],
                    drives: NDArray[np.integer], dimension: int, *, shrinkage: float = SHRINKAGE
                    ) -> PlaceNetwork:
    """
    Return a copy of `network`, in eval mode, whose descriptors have `dimension` values.

    The projection P (dimension,D) is fitted to the network's output for `images` (N,H,W,3) before
    the last normalisation, y = W x + b, centred on the mean of each of `drives` (N,). It is folded
    into the last layer: W becomes P W, b becomes P (b - mean of y). A network without whitening
    gets such a layer. Raises ValueError when `dimension` is not below D, or the images are too few
    for it.
    """
    projected = copy.deepcopy(network).cpu().eval()
    if not 0 < dimension < projected.dimension:
        raise ValueError(f'a projection makes descriptors shorter: from {projected.dimension} '
                         f'values to fewer, not to {dimension}')
    vectors = aggregated(projected, images)
    last = projected.whitening
    if isinstance(last, nn.Linear):
        vectors = last(torch.from_numpy(vectors)).numpy()
    mean = vectors.mean(axis=0)
    matrix = pca_whitening(centre_per_drive(vectors, drives), dimension, shrinkage=shrinkage)
    if isinstance(last, nn.Linear):
        offset = last.bias.numpy() - mean
        weight = matrix @ last.weight.numpy()
    else:
        offset = -mean
        weight = matrix
    folded = nn.Linear(weight.shape[1], dimension)
    folded.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
    folded.bias.copy_(torch.from_numpy(np.asarray(matrix @ offset, np.float32)))
    projected.whitening = folded
    projected.dimension = dimension
    return projected.eval()
