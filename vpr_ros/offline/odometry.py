"""The odometry of a recorded drive: optional, so that a bad one is a warning and no error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import pose_track
from vpr_ros.core.errors import SourceError

if TYPE_CHECKING:
    from collections import Counter

    from numpy.typing import NDArray
    from vpr_ros.core.pose_track import PoseTrack
    from vpr_ros.io.bag import Bag

log = logging.getLogger(__name__)

_FEW = 0.01
"""Share of a drive's frames in which odometry may contradict what is seen."""


def read_odometry(bag: Bag, topic: str | None = None) -> PoseTrack | None:
    """
    Read the odometry of a bag on `topic`, by default on its first odometry topic.

    None without such a topic, and, after a warning, when nothing on it is usable: the drive is
    then localised as one without odometry. Raises SourceError when `topic` has no odometry.
    """
    topic = bag.odometry_topic(topic)
    try:
        return bag.odometry(topic)
    except SourceError as error:
        log.warning('%s: going on without odometry (--no-odometry does so without this warning)',
                    error)
        return None


def warn_if_unused(bag: Bag, track: PoseTrack | None, stamps: NDArray[np.int64]) -> None:
    """Warn when there is odometry, but for none of the frames, whose `stamps` (N,) are in ns."""
    if track is None or not len(stamps) or pose_track.interpolate(track, stamps)[1].any():
        return
    first, last = track.stamps[[0, -1]] / 1e9
    log.warning(
        '%s: the odometry covers none of the frames, and is not used: its stamps are from %.3f s '
        'to %.3f s, those of the images from %.3f s to %.3f s. Are they of one clock? '
        '(--no-odometry goes on without it and without this warning)',
        bag.path, first, last, stamps.min() / 1e9, stamps.max() / 1e9)


def warn_if_not_credible(bag: Bag, problems: Counter[str], scale: float) -> None:
    """
    Warn of odometry that was not followed, or whose metres had to be put right.

    `problems` counts the frames by `Localizer.odometry_problem`, '' among them; `scale` is its
    `odometry_scale`.
    """
    for problem, count in problems.items():
        if problem and count > _FEW * problems.total():
            log.warning('%s: the odometry was not followed at %d of %d frames: %s', bag.path,
                        count, problems.total(), problem)
    if scale != 1:
        log.warning('%s: the odometry counts wrongly: its metres were multiplied by %.2f',
                    bag.path, scale)
