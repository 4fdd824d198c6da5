"""
PCA-whitening of descriptors, with each drive centred on its own mean.

Plain numpy: what computes descriptors without torch, such as a benchmark, can use it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANK_TOLERANCE = 1e-6
"""Directions with less variance than this, relative to the largest, are rounding error."""
SHRINKAGE = 0.1
"""How far the variances that a whitening keeps are drawn to their mean: see pca_whitening."""


def centre_per_drive(vectors: NDArray[np.float32], drives: NDArray[np.integer]
                     ) -> NDArray[np.float32]:
    """
    Subtract from each vector (N,D) the mean of its drive; `drives` (N,) are their numbers.

    Weather and light shift all vectors of a drive together. Without that shift, what is left is
    the variance between places.
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
    that weak directions, which few images estimate badly, are not amplified; 0 is plain whitening.
    The cost depends on N, by the (N,N) Gram matrix. Raises ValueError when `centred` spans fewer
    than `dimension` directions.
    """
    gram = (centred @ centred.T).astype(np.float64) / len(centred)
    variances, vectors = np.linalg.eigh(gram)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    rank = int(np.sum(variances > RANK_TOLERANCE * variances[0]))
    if rank < dimension:
        raise ValueError(f'a whitening to {dimension} needs more images: '
                         f'{len(centred)} of them span {rank} directions')
    variances, vectors = variances[:dimension], vectors[:, :dimension]
    # centred = U S V^T, so V^T = S^-1 U^T centred, with S^2 = N variances
    combination = (vectors / np.sqrt(variances * len(centred))).astype(np.float32)
    directions = combination.T @ centred
    scale = np.sqrt((1.0 - shrinkage) * variances + shrinkage * variances.mean())
    return np.asarray(directions / scale[:, None], np.float32)
