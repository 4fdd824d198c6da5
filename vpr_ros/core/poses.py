"""
Poses: distance, motion and averages. Tracks are in pose_track.py, files in pose_files.py.

A pose is float64 (7,): x y z in metres and a unit quaternion qx qy qz qw, of base_link in the
map's frame (REP-103, REP-105).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core.errors import PoseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FARTHEST = 1e8
"""Largest coordinate of a pose, in metres: twice that around the Earth."""

IDENTITY = np.array([0, 0, 0, 0, 0, 0, 1], np.float64)
IDENTITY.setflags(write=False)


def looking_back(poses: Floats) -> Floats:
    """Return poses (...,7) that look the opposite way: turned by pi about their own z axis."""
    x, y, z, w = np.moveaxis(np.asarray(poses)[..., 3:], -1, 0)
    return np.concatenate([np.asarray(poses)[..., :3], np.stack([y, -x, w, -z], axis=-1)], axis=-1)


def checked(poses: Floats, name: str = 'pose') -> Floats:
    """Return poses (...,7) with unit quaternions; raise PoseError when one is unusable."""
    poses = np.array(poses, np.float64)
    if not (np.abs(poses) <= FARTHEST).all():
        raise PoseError(f'{name} has a coordinate beyond {FARTHEST:g} m'
                        if np.isfinite(poses).all() else f'{name} is not finite')
    norm = np.linalg.norm(poses[..., 3:], axis=-1, keepdims=True)
    if not (norm > 1e-6).all():
        raise PoseError(f'{name} has a quaternion of length zero')
    poses[..., 3:] /= norm
    return poses


def usable(poses: Floats) -> NDArray[np.bool_]:
    """Tell which of some poses (...,7) `checked` would return."""
    near = np.asarray((np.abs(poses) <= FARTHEST).all(axis=-1))
    turns = np.where(near[..., None], poses[..., 3:], 0)
    return np.asarray(near & (np.linalg.norm(turns, axis=-1) > 1e-6))


def planar(x: Floats, y: Floats, heading: Floats) -> Floats:
    """Return poses (...,7) on the ground plane from x, y in metres and heading in radians."""
    half = np.asarray(heading, np.float64) / 2
    zero = np.zeros_like(half)
    return np.stack(np.broadcast_arrays(x, y, zero, zero, zero, np.sin(half), np.cos(half)),
                    axis=-1).astype(np.float64)


def heading(poses: Floats) -> Floats:
    """Return the yaw angle about z of poses (...,7) in radians, in [-pi, pi]."""
    x, y, z, w = np.moveaxis(np.asarray(poses)[..., 3:], -1, 0)
    return np.asarray(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def upward(pose: Floats) -> float:
    """Return how far up the z axis of a pose (7,) points: the cosine of its angle to z."""
    x, y = pose[3:5]
    return float(1 - 2 * (x * x + y * y))


def distance(a: Floats, b: Floats) -> Floats:
    """Return the distance in metres between the positions of poses (...,7), broadcast."""
    return np.asarray(np.linalg.norm(np.asarray(a)[..., :3] - np.asarray(b)[..., :3], axis=-1))


def angle(a: Floats, b: Floats) -> Floats:
    """Return the angle in radians, in [0, pi], between the orientations of poses (...,7)."""
    dot = np.abs(np.sum(np.asarray(a)[..., 3:] * np.asarray(b)[..., 3:], axis=-1))
    return np.asarray(2 * np.arccos(np.minimum(dot, 1.0)))


def relative(start: Floats, end: Floats) -> Floats:
    """Return the planar motion (3,) between two poses (7,): metres forward and left, radians."""
    yaw = heading(start)
    x, y = end[:2] - start[:2]
    turn = (heading(end) - yaw + np.pi) % (2 * np.pi) - np.pi
    return np.array([np.cos(yaw) * x + np.sin(yaw) * y, np.cos(yaw) * y - np.sin(yaw) * x, turn])


def chained(first: Floats, second: Floats) -> Floats:
    """Return the composition (3,) of two planar motions: metres forward and left, radians."""
    cosine, sine = np.cos(first[2]), np.sin(first[2])
    return np.asarray(first + np.array([cosine * second[0] - sine * second[1],
                                        sine * second[0] + cosine * second[1], second[2]]))


def moved(pose: Floats, motion: Floats) -> Floats:
    """Return a pose (7,) after a planar motion (3,): metres forward and left, radians."""
    yaw = heading(pose)
    half = motion[2] / 2
    x, y, z, w = pose[3:]
    sine, cosine = np.sin(half), np.cos(half)
    return np.array([
        pose[0] + np.cos(yaw) * motion[0] - np.sin(yaw) * motion[1],
        pose[1] + np.sin(yaw) * motion[0] + np.cos(yaw) * motion[1], pose[2],
        cosine * x - sine * y, cosine * y + sine * x, cosine * z + sine * w,
        cosine * w - sine * z])


def mean(poses: Floats, weights: Floats) -> Floats:
    """
    Return the weighted average (7,) of poses (N,7); weights (N,) >= 0 with a positive sum.

    The quaternion maximises the weighted sum of squared dot products, so that q and -q are
    equivalent (Markley et al. 2007, 'Averaging Quaternions', eq. 12).
    """
    weights = np.asarray(weights, np.float64)
    position = weights @ poses[:, :3] / weights.sum()
    quaternions = poses[:, 3:]
    _, vectors = np.linalg.eigh((quaternions * weights[:, None]).T @ quaternions)
    quaternion = vectors[:, -1]
    if quaternion[3] < 0:
        quaternion = -quaternion
    return np.concatenate([position, quaternion])


def composed(pose: Floats, other: Floats) -> Floats:
    """Return the pose (7,) of what has the pose `other` in a body, from the body's own pose."""
    turn = Rotation.from_quat(pose[3:])
    return np.concatenate([pose[:3] + turn.apply(other[:3]),
                           (turn * Rotation.from_quat(other[3:])).as_quat()])


def frame_between(pose: Floats, other: Floats) -> Floats:
    """
    Return the pose (7,) of frame B in frame A from one body's pose in A and `other` in B.

    From a robot's poses (7,) in map and in odom it gives the pose of odom in map.
    """
    turn = Rotation.from_quat(pose[3:]) * Rotation.from_quat(other[3:]).inv()
    return np.concatenate([pose[:3] - turn.apply(other[:3]), turn.as_quat()])
