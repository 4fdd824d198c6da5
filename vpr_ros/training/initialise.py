"""
First values of a network, fitted to pictures without a label: before any gradient.

BatchNorm statistics of random filters, NetVLAD's centres, PCA-whitening.
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
RANK_TOLERANCE = 1e-6
"""Variance relative to the largest below which a direction is rounding error of float32."""
SECOND_SHARE = 0.01
"""Assignment to the second nearest centre relative to the nearest, on average, at the start."""


@torch.no_grad()
def calibrate_batch_norm(network: PlaceNetwork, pictures: NDArray[np.uint8]) -> None:
    """
    Set the BatchNorm statistics to those of `pictures` (N,H,W,3), and freeze them.

    Unlearned filters answer all pictures nearly alike, and some far louder than others; each
    channel brought to one mean and variance, what gets through is how pictures differ.
    """
    norms = _batch_norms(network.backbone)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to say: the plain average over all batches
    network.backbone.train()
    for batch in _batches(pictures, 'statistics'):
        network.features(batch)
    network.eval()
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def fit_centres(network: PlaceNetwork, pictures: NDArray[np.uint8], seed: int,
                per_picture: int = 50) -> None:
    """
    Start the NetVLAD of `network` from k-means over local descriptors of `pictures` (N,H,W,3).

    `per_picture` local descriptors are drawn from each. alpha is chosen as in the NetVLAD paper:
    the share of the second nearest centre is SECOND_SHARE of that of the nearest, on average.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for batch in _batches(pictures, 'centres'):
        local = nn.functional.normalize(network.features(batch), dim=1)
        local = local.flatten(2).transpose(1, 2)  # (N,C,H,W) -> (N,HW,C)
        for descriptors in local.numpy():
            count = min(per_picture, len(descriptors))
            drawn.append(descriptors[random.choice(len(descriptors), count, replace=False)])
    start_netvlad(network.aggregation, np.concatenate(drawn), seed)


def start_netvlad(aggregation: NetVLAD, descriptors: NDArray[np.float32], seed: int) -> float:
    """
    Start W, b and c from k-means over local descriptors (M,C) of unit norm; return alpha.

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
def aggregated(network: PlaceNetwork, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the vectors (N,A) of `pictures` (N,H,W,3) before whitening."""
    return np.concatenate([network.aggregate(b).numpy() for b in _batches(pictures, 'vectors')])


def centre_per_drive(vectors: NDArray[np.float32], drives: NDArray[np.integer]
                     ) -> NDArray[np.float32]:
    """
    Subtract from each vector (N,D) the mean of its drive; `drives` (N,) says which it is.

    Weather and light move all vectors of a drive together: taken out here, they don't count as
    variance that tells places apart.
    """
    centred = vectors.copy()
    for drive in np.unique(drives):
        centred[drives == drive] -= vectors[drives == drive].mean(axis=0)
    return centred


def pca_whitening(centred: NDArray[np.float32], dimension: int, *, shrinkage: float = 0.0,
                  ) -> NDArray[np.float32]:
    """
    Return the matrix P (dimension,D) for which P x has unit covariance over `centred` (N,D).

    Jegou and Chum, ECCV 2012. `shrinkage` in [0,1) blends the kept variances with their mean, so
    that weak directions, fitted to few pictures, are not blown up; 0 is plain whitening. Works on
    the (N,N) Gram matrix, so N decides the cost. Raises ValueError when `centred` has no
    `dimension` directions.
    """
    gram = (centred @ centred.T).astype(np.float64) / len(centred)
    variances, vectors = np.linalg.eigh(gram)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    rank = int(np.sum(variances > RANK_TOLERANCE * variances[0]))
    if rank < dimension:
        raise ValueError(f'a whitening to {dimension} needs more pictures: '
                         f'{len(centred)} of them span {rank} directions')
    variances, vectors = variances[:dimension], vectors[:, :dimension]
    # centred = U S V^T, so V^T = S^-1 U^T centred, with S^2 = N variances
    combination = (vectors / np.sqrt(variances * len(centred))).astype(np.float32)
    directions = combination.T @ centred
    scale = np.sqrt((1.0 - shrinkage) * variances + shrinkage * variances.mean())
    return np.asarray(directions / scale[:, None], np.float32)


@torch.no_grad()
def set_whitening(network: PlaceNetwork, matrix: NDArray[np.float32],
                  mean: NDArray[np.float32]) -> None:
    """Make the last layer y = P (x - mean), with P = `matrix` (D,K*C) and `mean` (K*C,)."""
    shape = tuple(network.whitening.weight.shape)
    if matrix.shape != shape:
        raise ValueError(f'the whitening of this network is {shape}; got {matrix.shape}')
    network.whitening.weight.copy_(torch.from_numpy(matrix))
    network.whitening.bias.copy_(torch.from_numpy(np.asarray(-matrix @ mean, np.float32)))


def _batch_norms(backbone: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]


def _batches(pictures: NDArray[np.uint8], title: str) -> Iterator[torch.Tensor]:
    for start in tqdm(range(0, len(pictures), BATCH), desc=title, unit='batch', leave=False):
        yield torch.from_numpy(np.ascontiguousarray(pictures[start:start + BATCH]))
