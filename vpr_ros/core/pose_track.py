"""Poses over time: a track of stamped poses, and the pose between two of them."""

from __future__ import annotations

from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core.poses import checked
from vpr_ros.core.poses import usable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.core.geodesy import Datum

    Floats = NDArray[np.float64]


class PoseTrack(NamedTuple):
    """
    The poses of one drive over time.

    stamps int64 (N,) ns, strictly increasing; poses float64 (N,7). `dropped` counts the poses that
    were left out because they were not usable or out of order; `datum` is the origin of frame_id,
    if it is known.
    """

    stamps: NDArray[np.int64]
    poses: Floats
    frame_id: str = 'map'
    child_frame_id: str = 'base_link'
    dropped: int = 0
    datum: Datum | None = None


def track(stamps: Sequence[int] | NDArray[np.int64], poses: Sequence[Floats] | Floats,
          frame_id: str = 'map', child_frame_id: str = 'base_link') -> PoseTrack:
    """Make a PoseTrack; poses that are not usable or go back in time are left out and counted."""
    stamps = np.asarray(stamps, np.int64).reshape(-1)
    raw = np.asarray(poses, np.float64).reshape(-1, 7)
    good = usable(raw)
    latest = np.maximum.accumulate(np.where(good, stamps, np.iinfo(np.int64).min))
    good[1:] &= stamps[1:] > latest[:-1]
    return PoseTrack(stamps[good], checked(raw[good]), frame_id, child_frame_id,
                     int((~good).sum()))


def interpolate(reference: PoseTrack, stamps: NDArray[np.int64],
                max_gap: float = defaults.MAX_POSE_GAP) -> tuple[Floats, NDArray[np.bool_]]:
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


def why_unknown(reference: PoseTrack, stamps: NDArray[np.int64], max_gap: float) -> str:
    """Return why `interpolate` gives no pose at the stamps (N,) ns, of which there is one."""
    after = np.searchsorted(reference.stamps, stamps)
    inside = (after > 0) & (after < len(reference.stamps))
    reasons = []
    if not inside.all():
        reasons.append(f'{int((~inside).sum())} are before the first pose or after the last')
    if inside.any():
        gap = np.diff(reference.stamps)[after[inside] - 1].max() / 1e9
        reasons.append(f'the poses around {int(inside.sum())} are up to {gap:.3f} s apart, more '
                       f'than {max_gap:g} (--max-pose-gap)')
    return '; '.join(reasons)


def at(reference: PoseTrack | None, stamp: int, max_gap: float = 1.0) -> Floats | None:
    """
    Return the pose (7,) at one stamp, or None where `interpolate` gives none.

    The default of `max_gap` is for odometry, which comes often.
    """
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
