"""Tracks of poses from the messages of a bag: stamped poses, transforms, fixes of a GPS."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core import geodesy
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.core.pose_track import interpolate
from vpr_ros.core.pose_track import PoseTrack
from vpr_ros.core.pose_track import track
from vpr_ros.core.travel import with_travel_headings
from vpr_ros.io import messages
from vpr_ros.io.frames import some_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Messages = Iterable[tuple[int, Any]]

_PARENTS, _CHILDREN = ('map', 'odom'), ('base_link', 'base_footprint')

_OPTICAL_UPWARD = 0.9
"""How far up the z axis of optical axes may point, as a cosine: a camera may look upwards."""

_TF_GAP = 10.0
"""Seconds over which transforms are interpolated: what tf2 keeps."""


def stamped_track(stamped: Messages, name: str) -> PoseTrack:
    """
    Return the track of PoseStamped, PoseWithCovarianceStamped or Odometry, each with its time.

    Raises SourceError, which starts with `name`, when they are in more than one frame.
    """
    stamps: list[int] = []
    values: list[Any] = []
    frames: set[tuple[str, str]] = set()
    for time, message in stamped:
        stamps.append(messages.stamp_ns(message.header) or time)
        values.append(messages.raw_pose(message))
        frames.add((frame_name(message.header.frame_id),
                    frame_name(getattr(message, 'child_frame_id', ''))))
    if len(frames) > 1:
        raise SourceError(f'{name}: its poses are in more than one frame: '
                          f'{", ".join(sorted("->".join(pair) for pair in frames))}')
    frame_id, child_frame_id = frames.pop() if frames else ('', '')
    return _sorted(stamps, values, frame_id or 'map', child_frame_id or 'base_link')


def fix_track(fixes: Messages, datum: geodesy.Datum | None, name: str) -> PoseTrack:
    """
    Return the track of NavSatFix messages, in metres east, north and up of `datum`.

    The datum is by default the first fix. Messages without a fix count as dropped. Headings are
    those of the direction of travel. Heights are zero where some are missing. Raises SourceError,
    which starts with `name`, when there is no fix.
    """
    stamps: list[int] = []
    places: list[tuple[float, float, float]] = []
    count = 0
    for time, message in fixes:
        count += 1
        if message.status.status >= 0 and np.isfinite([message.latitude, message.longitude]).all():
            stamps.append(messages.stamp_ns(message.header) or time)
            places.append((message.latitude, message.longitude, message.altitude))
    if not places:
        raise SourceError(f'{name}: not one of its {count} messages is a fix')
    latitude, longitude, altitude = np.array(places).T
    if not np.isfinite(altitude).all():
        altitude = np.full_like(altitude, datum.altitude if datum else 0.0)
    if datum is None:
        datum = geodesy.Datum(float(latitude[0]), float(longitude[0]), float(altitude[0]))
    values = np.tile(poses.IDENTITY, (len(stamps), 1))
    values[:, :3] = geodesy.local(latitude, longitude, altitude, datum)
    found = _sorted(stamps, values, 'map', 'base_link')
    return found._replace(poses=with_travel_headings(found.poses), datum=datum,
                          dropped=found.dropped + count - len(stamps))


class _Edge(NamedTuple):
    """The transforms between two frames: stamps (ns) and poses of the child in the parent."""

    stamps: list[int]
    values: list[NDArray[np.float64]]
    fixed: bool


def transform_track(moving: Messages, fixed: Messages, frames: tuple[str, str] | None, name: str
                    ) -> PoseTrack:
    """
    Return the track of one frame in another from the TFMessages of /tf and /tf_static.

    frames: the outer frame and the one in it; by default base_link or base_footprint in map, or in
    odom. It has the stamps of the transform in the chain between them that comes most often; the
    others are interpolated. Raises SourceError, which starts with `name` and lists the transforms,
    when no chain connects them.
    """
    edges: dict[tuple[str, str], _Edge] = {}
    for is_fixed, transforms in ((False, moving), (True, fixed)):
        for time, message in transforms:
            for transform in message.transforms:
                key = frame_name(transform.header.frame_id), frame_name(transform.child_frame_id)
                edge = edges.setdefault(key, _Edge([], [], is_fixed))
                edge.stamps.append(messages.stamp_ns(transform.header) or time)
                edge.values.append(messages.transform_pose(transform))
    pairs = [frames] if frames else [(parent, child) for parent in _PARENTS
                                     for child in _CHILDREN]
    for parent, child in pairs:
        chain = _chain(edges, parent, child)
        if chain and not all(edge.fixed for edge in chain):
            return _composed(chain, parent, child)
    known = some_of([f'{parent}->{child}' for parent, child in edges]) or 'none'
    raise SourceError(f'{name}: no chain of transforms leads from {pairs[0][0]} to {pairs[0][1]}; '
                      f'there are {known}: name two frames with --tf-frames PARENT CHILD')


def fixed_pose(fixed: Messages, parent: str, child: str) -> NDArray[np.float64] | None:
    """Return the pose (7,) of a frame in another by the TFMessages of /tf_static, or None."""
    edges = {(frame_name(each.header.frame_id), frame_name(each.child_frame_id)):
             _Edge([0], [messages.transform_pose(each)], fixed=True)
             for _, message in fixed for each in message.transforms}
    pose = poses.IDENTITY
    chain = _chain(edges, frame_name(parent), frame_name(child))
    for edge in chain:
        if not poses.usable(edge.values[0]):
            return None
        pose = poses.composed(pose, poses.checked(edge.values[0]))
    return pose if chain else None


def camera_mount(fixed: Messages, robot: str, frame_id: str, remedy: str) -> NDArray[np.float64]:
    """
    Return the pose (7,) of a camera, in optical axes, in the frame `robot` by /tf_static.

    `frame_id` is that of its images. Raises SourceError, which ends in a `remedy`, where there is
    none, or one that cannot be of optical axes.
    """
    frame = frame_name(frame_id)
    pose = fixed_pose(fixed, robot, frame)
    if pose is None:
        raise SourceError(f"/tf_static does not say where '{frame}' is in '{robot}': {remedy}")
    if poses.upward(pose) > _OPTICAL_UPWARD:
        raise SourceError(f"the z axis of '{frame}' points up, that of a camera's optical axes "
                          f'ahead: {remedy}')
    return pose


def frame_name(name: str) -> str:
    """Return the name of a frame as tf2 has it: without the leading slash of ROS 1."""
    return name.lstrip('/')


def _chain(edges: dict[tuple[str, str], _Edge], parent: str, child: str) -> list[_Edge]:
    """Return the edges from a frame up to another, the outermost first; none without a way."""
    above: dict[str, list[str]] = {}
    for between, below in edges:
        above.setdefault(below, []).append(between)
    ways: dict[str, list[_Edge]] = {child: []}
    reached = [child]
    for below in reached:  # breadth first: the shortest way, and an end where there are loops
        for between in above.get(below, ()):
            if between not in ways:
                ways[between] = [edges[between, below], *ways[below]]
                reached.append(between)
    return ways.get(parent, [])


def _composed(chain: list[_Edge], parent: str, child: str) -> PoseTrack:
    tracks = [_sorted(edge.stamps, edge.values, '', '') for edge in chain]
    often = max((each for each, edge in zip(tracks, chain, strict=True) if not edge.fixed),
                key=lambda each: len(each.stamps))
    known = np.ones(len(often.stamps), np.bool_)
    position, turn = np.zeros((len(known), 3)), Rotation.identity(len(known))
    for each, edge in zip(tracks, chain, strict=True):
        if edge.fixed:
            hop = np.repeat(each.poses[-1:], len(known), axis=0)
        else:
            hop, there = interpolate(each, often.stamps, _TF_GAP)
            known &= there
            hop[~there] = poses.IDENTITY
        position = position + turn.apply(hop[:, :3])
        turn = turn * Rotation.from_quat(hop[:, 3:])
    composed = np.concatenate([position, turn.as_quat()], axis=1)
    return PoseTrack(often.stamps[known], composed[known], parent, child,
                     sum(each.dropped for each in tracks))


def _sorted(stamps: list[int], values: Any, frame_id: str, child_frame_id: str) -> PoseTrack:
    times = np.array(stamps, np.int64)
    order = np.argsort(times, kind='stable')
    return track(times[order], np.array(values).reshape(-1, 7)[order], frame_id, child_frame_id)
