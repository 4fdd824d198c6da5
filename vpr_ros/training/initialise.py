"""
Initialisation of a network from unlabelled images, before the first gradient step.

BatchNorm statistics of random filters, NetVLAD's centres, and the whitening layer, whose matrix is
computed in whitening.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import faiss
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.training.model import NetVLAD
    from vpr_ros.training.model import PlaceNetwork

BATCH = 32
SECOND_SHARE = 0.01
"""Initial soft assignment to the second nearest centre, relative to the nearest, on average."""


@torch.no_grad()
def calibrate_batch_norm(network: PlaceNetwork, images: NDArray[np.uint8]) -> None:
    """
    Set the BatchNorm statistics to those of `images` (N,H,W,3), and freeze them.

    The responses of random filters hardly differ between images, and differ widely in scale
    between channels; normalising each channel leaves how the images differ.
    """
    norms = _batch_norms(network.backbone)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's notation for the plain average over all batches
    network.backbone.train()
    for batch in _torch_batches(images, 'statistics'):
        network.features(batch)
    network.eval()
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def fit_centres(network: PlaceNetwork, images: NDArray[np.uint8], seed: int,
                per_image: int = 50) -> None:
    """
    Start the NetVLAD of `network` from k-means over local descriptors of `images` (N,H,W,3).

    `per_image` local descriptors are drawn from each. alpha is chosen as in the NetVLAD paper:
    on average the second nearest centre gets SECOND_SHARE of the nearest one's assignment.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for batch in _torch_batches(images, 'centres'):
        local = nn.functional.normalize(network.features(batch), dim=1)
        local = local.flatten(2).transpose(1, 2)  # (N,C,H,W) -> (N,HW,C)
        for descriptors in local.numpy():
            count = min(per_image, len(descriptors))
            drawn.append(descriptors[random.choice(len(descriptors), count, replace=False)])
    start_netvlad(network.aggregation, np.concatenate(drawn), seed)


def start_netvlad(aggregation: NetVLAD, descriptors: NDArray[np.float32], seed: int) -> float:
    """
    Initialise W, b and c from k-means over local descriptors (M,C) of unit norm; return alpha.

    Raises ValueError when there are fewer descriptors than centres.
    """
    if len(descriptors) < aggregation.clusters:
        raise ValueError(f'{aggregation.clusters} centres need as many local descriptors or '
                         f'more; got {len(descriptors)}')
    kmeans = faiss.Kmeans(aggregation.channels, aggregation.clusters, niter=25, seed=seed,
                          max_points_per_centroid=1000, min_points_per_centroid=1)
    kmeans.train(np.ascontiguousarray(descriptors, np.float32))
    squared, _ = kmeans.index.search(descriptors, 2)
    gap = float(np.mean(squared[:, 1] - squared[:, 0]))
    alpha = -math.log(SECOND_SHARE) / max(gap, 1e-6)
    aggregation.start(torch.from_numpy(np.array(kmeans.centroids)), alpha)
    return alpha


@torch.no_grad()
def aggregated(network: PlaceNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the vectors (N,A) of `images` (N,H,W,3) before whitening."""
    return np.concatenate([network.aggregate(batch).numpy()
                           for batch in _torch_batches(images, 'vectors')])


@torch.no_grad()
def set_whitening(network: PlaceNetwork, matrix: NDArray[np.float32],
                  mean: NDArray[np.float32]) -> None:
    """Set the last layer to y = P (x - mean), with P = `matrix` (D,K*C) and `mean` (K*C,)."""
    shape = tuple(network.whitening.weight.shape)
    if matrix.shape != shape:
        raise ValueError(f'the whitening of this network is {shape}; got {matrix.shape}')
    network.whitening.weight.copy_(torch.from_numpy(matrix))
    network.whitening.bias.copy_(torch.from_numpy(np.asarray(-matrix @ mean, np.float32)))


def _batch_norms(backbone: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]


def _torch_batches(images: NDArray[np.uint8], title: str) -> Iterator[torch.Tensor]:
    for start in tqdm(range(0, len(images), BATCH), desc=title, unit='batch', leave=False):
        yield torch.from_numpy(np.ascontiguousarray(images[start:start + BATCH]))
