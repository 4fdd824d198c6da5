"""The covariance of poses, in the order and the units of PoseWithCovariance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.poses import heading
from vpr_ros.core.poses import planar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_NEGLIGIBLE = 1e-9

FLAT = 1e-4
"""Variance (m^2, rad^2) of z, roll and pitch for a robot on flat ground, where they are zero."""


def covariance(poses: Floats, weights: Floats, centre: Floats, floor: Floats) -> Floats:
    """
    Return the weighted covariance matrix (6,6) of poses (N,7) about `centre` (7,).

    In the order of PoseWithCovariance: x y z in metres, then rotations about x, y, z in radians.
    `floor` (6,) are variances that are added to the diagonal, to make it positive definite.
    """
    weights = np.asarray(weights, np.float64) / np.sum(weights)
    error = np.concatenate([poses[:, :3] - centre[:3],
                            _rotation_vector(centre[3:], poses[:, 3:])], axis=1)
    spread = (error * weights[:, None]).T @ error
    spread[np.abs(spread) < _NEGLIGIBLE] = 0  # nav2 rejects any negative entry, even -1e-14
    return np.asarray((spread + spread.T) / 2 + np.diag(floor))


def flattened(pose: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """
    Return a pose (7,) and its covariance (6,6) projected to the ground: z, roll, pitch are zero.

    Their variances are FLAT, since filters take a variance near zero for certainty; their
    covariances are zero.
    """
    flat = planar(pose[0], pose[1], heading(pose))
    kept = np.zeros((6, 6))
    plane = np.ix_((0, 1, 5), (0, 1, 5))
    kept[plane] = covariance[plane]
    kept[(2, 3, 4), (2, 3, 4)] = FLAT
    return flat, kept


def non_negative(covariance: Floats) -> Floats:
    """
    Return an upper bound of a covariance matrix (N,N) that has no negative entry.

    A covariance c < 0 of two values is set to zero and |c| is added to both variances: the
    difference is |c| times a matrix of ones, which is positive semi-definite.
    """
    negative = np.minimum(covariance, 0.0)
    return np.asarray(covariance - negative - np.diag(negative.sum(axis=1)), np.float64)


def _rotation_vector(a: Floats, b: Floats) -> Floats:
    """Return the rotations (N,3), in radians about fixed axes, from a (4,) to b (N,4)."""
    x, y, z, w = a
    # The product of b and the conjugate of a, as one matrix product.
    turn = b @ np.array([[w, z, -y, x], [-z, w, x, y], [y, -x, w, z], [-x, -y, -z, w]])
    turn = np.where(turn[:, 3:] < 0, -turn, turn)
    sine = np.linalg.norm(turn[:, :3], axis=1, keepdims=True)
    scale = np.where(sine < 1e-9, 2.0,
                     2 * np.arctan2(sine, turn[:, 3:]) / np.maximum(sine, 1e-12))
    return np.asarray(turn[:, :3] * scale)
