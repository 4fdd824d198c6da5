"""
Poses: interpolation, distance, averaging, and reading and writing TUM and CSV files.

A pose is float64 (7,): x y z in metres and a unit quaternion qx qy qz qw, of base_link in the
map's frame (REP-103, REP-105). Stamps are int64 nanoseconds.
"""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core.errors import PoseError
from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

IDENTITY = np.array([0, 0, 0, 0, 0, 0, 1], np.float64)
IDENTITY.setflags(write=False)

_MAX_SECONDS = 9_223_372_036  # in int64 nanoseconds
_NEGLIGIBLE = 1e-9

FLAT = 1e-4
"""Variance (m^2, rad^2) of z, roll and pitch for a robot on flat ground, where they are zero."""
_CSV_COLUMNS = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')


class PoseTrack(NamedTuple):
    """
    The poses of one drive over time.

    stamps int64 (N,) ns, strictly increasing; poses float64 (N,7). `dropped` counts the poses that
    were left out because they were not finite or out of order.
    """

    stamps: NDArray[np.int64]
    poses: Floats
    frame_id: str = 'map'
    child_frame_id: str = 'base_link'
    dropped: int = 0


def checked(poses: Floats, name: str = 'pose') -> Floats:
    """Return poses (...,7) with unit quaternions; raise PoseError when one is unusable."""
    poses = np.array(poses, np.float64)
    norm = np.linalg.norm(poses[..., 3:], axis=-1, keepdims=True)
    if not np.isfinite(poses).all():
        raise PoseError(f'{name} is not finite')
    if not (norm > 1e-6).all():
        raise PoseError(f'{name} has a quaternion of length zero')
    poses[..., 3:] /= norm
    return poses


def track(stamps: Sequence[int] | NDArray[np.int64], poses: Sequence[Floats] | Floats,
          frame_id: str = 'map', child_frame_id: str = 'base_link') -> PoseTrack:
    """Make a PoseTrack; poses that are not finite or go back in time are left out and counted."""
    stamps = np.asarray(stamps, np.int64).reshape(-1)
    raw = np.asarray(poses, np.float64).reshape(-1, 7)
    norm = np.linalg.norm(raw[:, 3:], axis=1)
    good = np.isfinite(raw).all(axis=1) & (norm > 1e-6)
    latest = np.maximum.accumulate(np.where(good, stamps, np.iinfo(np.int64).min))
    good[1:] &= stamps[1:] > latest[:-1]
    return PoseTrack(stamps[good], checked(raw[good]), frame_id, child_frame_id,
                     int((~good).sum()))


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


def interpolate(reference: PoseTrack, stamps: NDArray[np.int64], max_gap: float = 1.0
                ) -> tuple[Floats, NDArray[np.bool_]]:
    """
    Return poses (N,7) at `stamps` (N,) ns, and flags (N,) of those that are known.

    Positions are interpolated linearly, orientations spherically (slerp). Nothing is extrapolated:
    for a stamp outside the track, or in a gap of more than `max_gap` seconds, the pose is NaN and
    the flag False.
    """
    stamps = np.asarray(stamps, np.int64)
    known = np.zeros(stamps.shape, np.bool_)
    poses = np.full((len(stamps), 7), np.nan)
    if len(reference.stamps) == 0:
        return poses, known
    after = np.searchsorted(reference.stamps, stamps)
    exact = reference.stamps[np.minimum(after, len(reference.stamps) - 1)] == stamps
    poses[exact] = reference.poses[after[exact]]
    inside = ~exact & (after > 0) & (after < len(reference.stamps))
    right = after[inside]
    left = right - 1
    gap = (reference.stamps[right] - reference.stamps[left]).astype(np.float64)
    part = ((stamps[inside] - reference.stamps[left]) / gap)[:, None]
    a, b = reference.poses[left], reference.poses[right]
    blend = np.concatenate([a[:, :3] + part * (b[:, :3] - a[:, :3]),
                            _slerp(a[:, 3:], b[:, 3:], part)], axis=1)
    blend[gap > max_gap * 1e9] = np.nan
    poses[inside] = blend
    known[:] = np.isfinite(poses[:, 0])
    return poses, known


def at(reference: PoseTrack | None, stamp: int, max_gap: float = 1.0) -> Floats | None:
    """Return the pose (7,) at one stamp, or None where `interpolate` gives none."""
    if reference is None:
        return None
    pose, known = interpolate(reference, np.array([stamp]), max_gap)
    return pose[0] if known[0] else None


def _slerp(a: Floats, b: Floats, part: Floats) -> Floats:
    """Return quaternions (N,4) at the fraction `part` (N,1) from a to b (Shoemake 1985)."""
    dot = np.sum(a * b, axis=1, keepdims=True)
    b = np.where(dot < 0, -b, b)
    theta = np.arccos(np.clip(np.abs(dot), 0, 1))
    near = theta < 1e-6
    sine = np.where(near, 1.0, np.sin(theta))
    weight_a = np.where(near, 1 - part, np.sin((1 - part) * theta) / sine)
    weight_b = np.where(near, part, np.sin(part * theta) / sine)
    blend = weight_a * a + weight_b * b
    return np.asarray(blend / np.linalg.norm(blend, axis=1, keepdims=True))


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


def frame_between(pose: Floats, other: Floats) -> Floats:
    """
    Return the pose (7,) of frame B in frame A from one body's pose in A and `other` in B.

    From a robot's poses (7,) in map and in odom it gives the pose of odom in map.
    """
    turn = Rotation.from_quat(pose[3:]) * Rotation.from_quat(other[3:]).inv()
    return np.concatenate([pose[:3] - turn.apply(other[:3]), turn.as_quat()])


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


def read_tum(path: str | Path) -> PoseTrack:
    """
    Read a trajectory in the TUM format: lines of `seconds x y z qx qy qz qw`, # comments.

    Raises FileNotFoundError, or PoseError that names the file and the line.
    """
    rows = _rows(Path(path), delimiter=' ')
    return track([nanoseconds(row[0], path) for row in rows],
                 np.array([_numbers(row[1:], 7, path) for row in rows]))


def write_tum(path: str | Path, stamps: NDArray[np.int64], poses: Floats) -> None:
    """Write a trajectory in the TUM format, stamps to the nanosecond."""
    with whole_file(path) as part:
        part.write_text(''.join(
            f'{Decimal(stamp).scaleb(-9):.9f} ' + ' '.join(f'{v:.9f}' for v in pose) + '\n'
            for stamp, pose in zip(stamps.tolist(), poses, strict=True)))


def read_csv(path: str | Path) -> tuple[list[str], Floats]:
    """
    Read the pose of each image from `image,...` rows; return file names and poses (N,7).

    The columns after the name are x,y,z,qx,qy,qz,qw or, for planar poses, x,y,yaw (radians); a
    suffix as in x_m or yaw_rad is ignored. Raises FileNotFoundError, or PoseError that names the
    file and the line.
    """
    path = Path(path)
    rows = _rows(path, delimiter=',')
    if not rows:
        raise PoseError(f'{path} is empty: it needs a header line and one line per image')
    header = [column.strip().lower().split('_')[0] for column in rows[0]]
    if header[1:] == list(_CSV_COLUMNS):
        poses = np.array([_numbers(row[1:], 7, path) for row in rows[1:]]).reshape(-1, 7)
    elif header[1:] == ['x', 'y', 'yaw']:
        x, y, yaw = np.array([_numbers(row[1:], 3, path) for row in rows[1:]]).reshape(-1, 3).T
        poses = planar(x, y, yaw)
    else:
        raise PoseError(f'{path}: columns must be image,x,y,z,qx,qy,qz,qw or image,x,y,yaw, '
                        f'not {",".join(rows[0])}')
    names = [row[0] for row in rows[1:]]
    for name, pose in zip(names, poses, strict=True):
        checked(pose, f'{path}: the pose of {name}')
    return names, checked(poses)


def write_csv(path: str | Path, names: Sequence[str], poses: Floats, *, header: str = 'image',
              extra: dict[str, Sequence[object]] | None = None) -> None:
    """Write a CSV file with rows of a name, its pose (N,7) and the columns in `extra`."""
    extra = extra or {}
    with whole_file(path) as part, part.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([header, *_CSV_COLUMNS, *extra])
        for row in zip(names, poses.tolist(), *extra.values(), strict=True):
            writer.writerow([row[0], *row[1], *row[2:]])


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise PoseError(f'{path} is not a text file') from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
    if delimiter == ' ':
        return [line.split() for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise PoseError(f'{path} is not a CSV file: {error}') from error


def _numbers(fields: Sequence[str], count: int, path: str | Path) -> list[float]:
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise PoseError(f'{path}: {error}, in the line {",".join(fields)}') from error
    if len(values) != count:
        raise PoseError(f'{path}: a line has {len(values)} numbers where {count} are needed: '
                        f'{",".join(fields)}')
    return values


def nanoseconds(field: str, path: str | Path) -> int:
    """
    Return decimal seconds as whole nanoseconds, exactly: a double has too few digits.

    Raises PoseError, which names `path`, for a field that is not a time.
    """
    try:
        seconds = Decimal(field)
        if not abs(seconds) < _MAX_SECONDS:
            raise ValueError(f'{field} does not fit in 64 bits of nanoseconds')
    except (ArithmeticError, ValueError) as error:
        raise PoseError(f'{path}: {field} is not a time in seconds') from error
    return int(seconds.scaleb(9))
