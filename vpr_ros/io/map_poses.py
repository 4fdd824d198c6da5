"""How the poses of a source are read: options, and what becomes of poses that seem wrong."""

from __future__ import annotations

from dataclasses import dataclass
import logging
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import travel
from vpr_ros.core.errors import PoseError
from vpr_ros.core.travel import Kind
from vpr_ros.io.topics import FIX
from vpr_ros.io.topics import TRANSFORMS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.core.geodesy import Datum
    from vpr_ros.core.pose_track import PoseTrack
    from vpr_ros.io.bag import Bag

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoseOptions:
    """
    How the poses of a drive are read.

    axes: one of defaults.AXES, or '' for those of a robot, which are checked. heading: one of
    defaults.HEADINGS, or '' for those of the poses, which are checked. max_gap: seconds between
    two poses up to which those of the frames between are interpolated. frames: the outer and the
    inner one, for poses from transforms; None for the usual ones. datum: the origin for fixes of a
    GPS; None for the first fix.
    """

    axes: str = ''
    heading: str = ''
    max_gap: float = defaults.MAX_POSE_GAP
    frames: tuple[str, str] | None = None
    datum: Datum | None = None

    def __post_init__(self) -> None:
        for value, choices in ((self.axes, defaults.AXES), (self.heading, defaults.HEADINGS)):
            if value not in ('', *choices):
                raise ValueError(f"'{value}' is not one of {', '.join(choices)}")

    def apply(self, stamps: NDArray[np.int64], poses: Floats, name: str) -> Floats:
        """
        Return poses (N,7), at stamps (N,) in ns, in a robot's axes and with its headings.

        What seems wrong is logged, after `name`; what cannot be right raises PoseError. A single
        pose that jumps is put between its neighbours, a constant orientation on a track that turns
        replaced by the direction of travel.
        """
        poses = _without_jumps(stamps, poses, name)
        if self.axes:
            poses = travel.to_robot_axes(poses, self.axes)
        else:
            _judge(travel.axes_doubt(poses), name)
        if self.heading == 'from-track':
            return travel.with_travel_headings(poses)
        if not self.axes:
            _judge(travel.tilt_doubt(poses), name)
        doubt = None if self.heading else travel.heading_doubt(poses)
        if doubt is not None and doubt.kind is Kind.CONSTANT:
            log.warning('%s: %s: its headings are taken from the direction of travel (--heading '
                        'from-track; --heading poses keeps them)', name, doubt.text)
            return travel.with_travel_headings(poses)
        _judge(doubt, name)
        return poses


def _without_jumps(stamps: NDArray[np.int64], poses: Floats, name: str) -> Floats:
    poses, alone, lasting = travel.without_jumps(stamps, poses)
    if len(alone):
        log.warning('%s: %d poses jump off the track and back, by up to %.1f m: they are put '
                    'between those before and after', name, len(alone), alone.max())
    if len(lasting):
        log.warning('%s: the track jumps %d times, by up to %.1f m, faster than a robot drives: '
                    'places around there are as far off', name, len(lasting), lasting.max())
    return poses


def _judge(doubt: travel.Doubt | None, name: str) -> None:
    if doubt is None:
        return
    if doubt.certain:
        raise PoseError(f'{name}: {doubt.text}')
    log.warning('%s: %s', name, doubt.text)


CHECKED = PoseOptions()


def bag_poses(bag: Bag, topic: str | None = None, options: PoseOptions = CHECKED
              ) -> PoseTrack:
    """
    Return the poses of a bag on `topic`, by default on the best one, read as `options` say.

    Raises SourceError when there are none, PoseError when they cannot be right.
    """
    topic = bag.pose_topic(topic)
    track = bag.poses(topic, frames=options.frames, datum=options.datum)
    if bag.topics[topic] in (TRANSFORMS, FIX):
        log.info('%s: poses of %s in %s%s', bag.path, track.child_frame_id, track.frame_id,
                 '' if track.datum is None else
                 ', in metres from latitude {:.7f}, longitude {:.7f}, altitude {:.2f} m, with the '
                 'headings of travel'.format(*track.datum))
    if track.dropped:
        log.warning('%s: %d poses left out (not finite, or back in time)', bag.path, track.dropped)
    poses = options.apply(track.stamps, track.poses, f'{bag.path}, {topic}')
    if bag.topics[topic] == FIX:  # again, now without jumps
        poses = travel.with_travel_headings(poses)
    return track._replace(poses=poses)
