"""Score a drive: how many of its poses are right, against the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import pose_track
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DriveScore:
    """
    The score of a drive, over the frames whose true pose is known.

    `frames` are those; `published`, `right` and `wrong` count the poses that were published,
    `best_right` the estimates that are right, published or not. errors (N,) in metres and truth
    (N,7) are of every frame, NaN where the true pose is not known; median_error is that of the
    published poses.
    """

    frames: int
    published: int
    right: int
    wrong: int
    best_right: int
    median_error: float
    errors: Floats
    truth: Floats


def score_drive(stamps: NDArray[np.int64], estimated: Floats, trusted: NDArray[np.bool_],
                truth: pose_track.PoseTrack, correct_radius: float) -> DriveScore:
    """
    Compare a drive's estimated poses (N,7), of which those `trusted` (N,) count as published.

    stamps (N,) in ns; a pose is right within `correct_radius` metres of the truth. Raises
    SourceError when the truth covers none of the stamps.
    """
    true, known = pose_track.interpolate(truth, stamps)
    if not known.any():
        raise SourceError('the ground truth covers none of the frames')
    errors = poses.distance(estimated, true)
    right = errors <= correct_radius
    published = known & trusted
    return DriveScore(
        frames=int(known.sum()), published=int(published.sum()),
        right=int((published & right).sum()), wrong=int((published & ~right).sum()),
        best_right=int((known & right).sum()),
        median_error=float(np.median(errors[published])) if published.any() else float('nan'),
        errors=errors, truth=true)
