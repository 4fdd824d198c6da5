"""
The direction of travel of a drive, and what is wrong with poses whose axes or headings disagree.

A robot drives along the x axis of its poses, mostly, and on the x,y plane. What is done about a
doubt is decided in io/map_poses.py.
"""

from __future__ import annotations

from enum import Enum
import math
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core import poses as pose_math

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STEP = 1.0
"""Metres after which the direction of travel is taken anew: less is noise of the poses."""

_FEWEST = 10
"""Steps of travel below which nothing is said about a drive."""

_FLAT = 1 / 3
_CONSTANT = 1e-3  # rad
_STUCK = 1e-5
"""Radians by which a measured heading changes at least in a metre."""
_TURNED = 0.5  # rad

_JUMP = 1.0  # m
_HARDEST = 10.0
"""Metres per second squared: no robot brakes or turns harder."""
_SELDOM = 0.5
"""Seconds between poses above which a jump cannot be told from a turn."""
_ALONE = 1.5
"""How many times further off the line between its neighbours a single wrong pose is than these."""

# Whether the world and the body have the optical axes of REP-103: x right, y down, z ahead.
_ARE_OPTICAL = {'robot': (False, False), 'camera': (True, True), 'camera-body': (False, True),
                'camera-world': (True, False)}

_OPTICAL = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])


class Kind(Enum):
    """What a doubt is about: axes, a tilt, or headings that are missing or not of the travel."""

    AXES = 'axes'
    TILT = 'tilt'
    CONSTANT = 'constant'
    HEADING = 'heading'


class Doubt(NamedTuple):
    """What seems wrong with the poses of a drive, in words; `certain` if it cannot be right."""

    kind: Kind
    text: str
    certain: bool = False


def to_robot_axes(poses: Floats, axes: str) -> Floats:
    """Return poses (N,7), in `axes` of defaults.AXES, in those with x ahead, y left, z up."""
    world, body = _ARE_OPTICAL[axes]
    position, turn = poses[:, :3], Rotation.from_quat(poses[:, 3:])
    if world:
        position, turn = _OPTICAL.apply(position), _OPTICAL * turn
    if body:
        turn = turn * _OPTICAL.inv()
    return np.concatenate([position, turn.as_quat()], axis=1)


def with_travel_headings(poses: Floats) -> Floats:
    """
    Return poses (N,7), in order of time, with level orientations along the direction of travel.

    It is the direction on the plane from STEP metres before to STEP metres after. A robot that
    stands or turns on the spot keeps the heading between the last motion and the next; one that
    drives in reverse gets the opposite of its heading. Without motion the poses stay the same.
    """
    kept = _thinned(poses[:, :2])
    if len(kept) < 2:
        return poses
    ahead = kept[np.minimum(np.arange(len(kept)) + 1, len(kept) - 1)]
    behind = kept[np.maximum(np.arange(len(kept)) - 1, 0)]
    x, y = (poses[ahead, :2] - poses[behind, :2]).T
    heading = np.interp(np.arange(len(poses)), kept, np.unwrap(np.arctan2(y, x)))
    result = pose_math.planar(poses[:, 0], poses[:, 1], heading)
    result[:, 2] = poses[:, 2]
    return result


def axes_doubt(poses: Floats) -> Doubt | None:
    """
    Return why poses (N,7), in order of time, seem to be in other axes than x ahead and z up.

    None for those of a robot, and for a drive too short to tell. A climb is no reason by itself.
    """
    if len(poses) < 2:
        return None
    kept = _thinned(poses[:, :3])
    if len(kept) <= _FEWEST:
        return None
    bodies = Rotation.from_quat(poses[kept[:-1], 3:])
    step = np.diff(poses[kept, :3], axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    travel = bodies.inv().apply(step).mean(axis=0)      # in the axes of the body
    up = bodies.as_matrix()[:, 2].mean(axis=0)          # z of the world, in those axes
    size = np.ptp(poses[:, :3], axis=0)
    upright = size[2] > size.max() * _FLAT and size[1] < size[2] * _FLAT
    track = 'the track is ' + ' x '.join(f'{side:.1f}' for side in size) + ' m in x, y, z'
    if upright and travel[2] > 0.5:
        return _camera(f'{track}, and runs along the z axis of its poses', 'camera')
    if upright and abs(up[2]) < 0.5 < travel[0]:
        return _camera(f'{track}, and its poses turn about y', 'camera-world')
    if up[1] < -0.6:
        return _camera('the y axis of the poses points down', 'camera-body')
    if upright and travel[0] < 0.5:
        return _camera(f'{track}: high but not wide', 'camera', certain=False)
    return None


def tilt_doubt(poses: Floats) -> Doubt | None:
    """Return why poses (N,7), in order of time, seem to be of a body whose z axis is not up."""
    if not len(poses):
        return None
    upward = float(Rotation.from_quat(poses[:, 3:]).as_matrix()[:, 2, 2].mean())
    if upward > 0.5:
        return None
    where = 'down' if upward < -0.9 else 'sideways' if abs(upward) < 0.1 else 'anywhere'
    return Doubt(Kind.TILT, f'the z axis of the poses points {where}, not up (another body, or '
                            'quaternions with w first): take the headings from the direction of '
                            'travel with --heading from-track, or keep them with --axes robot')


def heading_doubt(poses: Floats) -> Doubt | None:
    """
    Return why the headings of poses (N,7), in order of time, seem not to be those of the robot.

    They are compared with the direction of travel on the plane, ahead or in reverse. None where
    they agree, and for a drive too short to tell.
    """
    kept = _thinned(poses[:, :2])
    if len(kept) <= _FEWEST:
        return None
    x, y = np.diff(poses[kept, :2], axis=0).T
    course = np.arctan2(y, x)
    constant = pose_math.angle(poses, poses[0]).max() < _CONSTANT
    if constant and abs(np.exp(2j * course).mean()) < 0.9:
        return Doubt(Kind.CONSTANT, 'the orientation of the poses is constant on a track that '
                                    'turns, as that of a GPS')
    heading = pose_math.heading(poses[kept])
    aside = np.exp(1j * (course - [heading[:-1], heading[1:]]))  # of both ends of the step
    mean = aside.mean()
    degrees = float(np.degrees(np.angle(mean)))
    if abs(mean) > 0.8 and abs(degrees) > 30:
        side = 'left' if degrees > 0 else 'right'
        return _headings(
            'the robot drives backwards all the time' if abs(degrees) > 150 else
            f'the robot drives {abs(degrees):.0f} degrees to the {side} of the x axis of its '
            'poses')
    if abs(mean) < 0.8 and abs(np.exp(1j * (course + heading[:-1])).mean()) > 0.9:
        return _headings('the headings of the poses seem to grow clockwise, as those of a compass')
    along = float((abs(aside.real) > np.sqrt(0.5)).mean())
    if abs(mean) < 0.8 and along < 0.6:
        return _headings('the headings of the poses have little to do with the direction of '
                         f'travel: they are within 45 degrees of it for {along:.0%} of the way')
    if metres := _stuck(heading, course):
        return _headings(f'the heading of the poses is constant for {metres:.0f} m on which the '
                         'track turns')
    return None


def without_jumps(stamps: NDArray[np.int64], poses: Floats) -> tuple[Floats, Floats, Floats]:
    """
    Return poses (N,7), at stamps (N,) in ns, without those that jump off the track and back.

    Each of these is put between its neighbours. The two others are the metres (J,) by which they
    had jumped, and (S,) by which the track does and stays there: what no robot can have driven.
    Poses that come less often than at 2 Hz are not judged.
    """
    if len(poses) < 3:
        return poses, np.zeros(0), np.zeros(0)
    before, after = np.diff(stamps / 1e9)[:-1], np.diff(stamps / 1e9)[1:]
    share = (before / (before + after))[:, None]
    between = poses[:-2, :3] + share * (poses[2:, :3] - poses[:-2, :3])
    off = np.linalg.norm(poses[1:-1, :3] - between, axis=1)
    jumps = (off > _JUMP + _HARDEST / 2 * before * after) & (np.maximum(before, after) <= _SELDOM)
    around = np.pad(off, 1)
    alone = jumps & (off > _ALONE * np.maximum(around[:-2], around[2:]))
    kept = poses.copy()
    kept[1:-1, :3][alone] = between[alone]
    beside = np.pad(alone, 1)
    steps = jumps & ~(alone | beside[:-2] | beside[2:])
    # Both ends of a step are off the line between their neighbours, by half of it each.
    return kept, off[alone], 2 * off[steps & ~np.pad(steps, 1)[:-2]]


def _stuck(heading: Floats, course: Floats) -> float:
    """Return for how many metres the headings (S+1,) are constant while the course (S,) turns."""
    constant = np.abs(np.diff(heading)) < _STUCK
    ends = np.flatnonzero(np.diff(np.pad(constant.astype(int), 1)))
    for begin, end in ends.reshape(-1, 2):
        part = max(1, (end - begin) // 4)
        first, last = (np.angle(np.exp(2j * course[of]).mean()) / 2  # the same in reverse
                       for of in (slice(begin, begin + part), slice(end - part, end)))
        if end - begin > _FEWEST and abs(np.remainder(last - first + np.pi / 2, np.pi)
                                         - np.pi / 2) > _TURNED:
            return float(end - begin) * STEP
    return 0.0


def _camera(why: str, axes: str, *, certain: bool = True) -> Doubt:
    return Doubt(Kind.AXES, f'{why}, as in camera axes (x right, y down, z ahead): convert them '
                            f'with --axes {axes}, or keep them with --axes robot', certain)


def _headings(why: str) -> Doubt:
    return Doubt(Kind.HEADING, f'{why}: take the headings from the direction of travel with '
                               '--heading from-track, or keep them with --heading poses')


def _thinned(positions: Floats) -> NDArray[np.int64]:
    """Return the indices of positions (N,2 or 3) that are STEP metres from the last such one."""
    kept = [0]
    last, *rest = positions.tolist()
    for number, position in enumerate(rest, 1):
        if math.dist(position, last) >= STEP - 1e-6:
            kept.append(number)
            last = position
    return np.array(kept)
