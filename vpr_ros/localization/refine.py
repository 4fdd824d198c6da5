"""
From the right place to the right spot: a pose from features of an image and a map's landmarks.

Matches vote for poses around the place's (`vote`); the best ones are refined by robust
Gauss-Newton (`solve`), and kept only if the image confirms them.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import math
from typing import NamedTuple
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from vpr_ros.core.errors import MapError
from vpr_ros.core.poses import heading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.maps.landmarks import Landmarked

    Floats = NDArray[np.float64]

MIN_INLIERS = 20
"""Features of an image that must agree with landmarks for its pose to be refined."""

MIN_SHARE = 0.2
"""Share that those must be of the features that look like landmarks: chance grows with them."""

RADIUS = 4.0
"""Metres round the place's pose in which the pose is looked for."""

_AROUND, _PLACES = 8.0, 8
"""Metres round it in which places are compared, and how many of them."""

_SAME_WAY = math.radians(60)
_RATIO = 0.95
_MATCHES = 500
_PIXELS = 1.0
"""Standard deviation of a feature, in pixels."""

_MIN_CELLS = 8
_APART, _RIVAL = 0.5, 0.6
"""A solution farther away (m) is a rival; with more than that share of the inliers, it counts."""

_LARGEST_ERROR, _LARGEST_TURN = 0.5, math.radians(2)
"""Standard deviations, in m and rad, above which a pose is no better than the place's."""

_STEP = 0.5
"""Metres between the positions that are voted on."""

_BIN = math.radians(1.0)
_TURN = math.radians(15)
"""The width of a bin of headings, and how far from the prior they go."""

_LEVEL = math.radians(2.0)
"""Error of the elevation with which a match still votes, besides that of the position's step."""

_STARTS = 4
"""Positions with the most votes from which a pose is solved for."""

_WIDTHS = tuple(math.radians(angle) for angle in (2.0, 1.0, 0.5, 0.25, 0.0, 0.0, 0.0))
"""The robust kernel's widths, one for each iteration, besides that of the noise."""

_KERNEL, _INLIER = 9.0, 9.0
"""The kernel's square width and the greatest square error of an inlier, in variances."""

_LEAST_NOISE = 0.1
"""Least variance of the inliers' errors, in that which is expected."""

_NEXT, _LAST = [1, 2, 0], [2, 0, 1]
_CELL = 0.1
_FLOOR = np.array([0.01, 0.01, 0.01, 0.0005, 0.0005, 0.0005])
"""Standard deviations that are added to the covariance: what the poses of the map are off by."""

_POINT_ERROR = 0.05
"""Standard deviation of landmarks (m), which adds to the error of near ones."""

FLAT = np.array([np.inf, np.inf, 0.05, math.radians(0.6), math.radians(0.6), np.inf])
"""Standard deviations (6,) of z, roll and pitch about those of the place; the rest is open."""

FREE = np.array([np.inf, np.inf, 0.5, math.radians(3.0), math.radians(3.0), np.inf])
"""The same where the ground is not flat, and the robot's suspension soft."""


class Matches(NamedTuple):
    """
    Features of an image that may be landmarks: M pairs.

    `features` (M,) are numbers of the image's features, `rays` (M,3) their unit vectors in the
    robot's axes, `points` (M,3) the landmarks in the map's frame, `weights` (M,) in 0..1.
    """

    features: NDArray[np.int64]
    rays: Floats
    points: Floats
    weights: Floats


_NO_MATCHES = Matches(np.empty(0, np.int64), np.empty((0, 3)), np.empty((0, 3)), np.empty(0))


@dataclass(frozen=True)
class Solution:
    """
    A pose (7,) of the robot, its covariance (6,6), and how well it explains the matches.

    `inliers` (I,) are numbers of matches, one for each feature; `noise` is the standard deviation
    of their errors in rad, `cells` the number of parts of the view in which they are.
    """

    pose: Floats
    covariance: Floats
    inliers: NDArray[np.int64]
    noise: float
    cells: int


class View(NamedTuple):
    """
    What an image shows: rays (K,3) in the robot's axes, and descriptors float32 (K,D).

    `noise` is the expected error of the rays in rad, `pixels` (K,2) are where they are.
    """

    rays: Floats
    descriptors: NDArray[np.float32]
    noise: float
    pixels: Floats


class Refiner:
    """
    Refines the estimates of a Localizer by an image's features and the landmarks of its map.

    `camera` and `mount`, the pose (7,) of the camera on the robot in optical axes, are those of
    the robot, and may differ from the mapping drive's; both may be changed between frames. `flat`
    ground holds height, roll and pitch near those of the place. Safe to call from several
    threads. Raises MapError for a map without landmarks or with those of other features,
    ValueError for a camera that is not calibrated.
    """

    def __init__(self, place_map: Landmarked, features: Extractor, camera: Camera, mount: Floats,
                 *, flat: bool = True) -> None:
        if place_map.landmarks is None:
            raise MapError('the map has no landmarks: build it again from bags with CameraInfo '
                           'and the camera pose on /tf_static (or --camera-pose)')
        place_map.landmarks.identity.check(features.digest)
        if camera.problem:
            raise ValueError(f'poses are not refined: {camera.problem}')
        self.place_map, self.landmarks = place_map, place_map.landmarks
        self.features, self.camera, self.mount = features, camera, mount
        self.flat = flat
        self._tree = cKDTree(place_map.poses[:, :2])

    def look(self, rgb: NDArray[np.uint8], camera: Camera | None = None) -> View:
        """
        Return what a uint8 (H,W,3) RGB image shows: the slow part, which needs no estimate.

        `camera` is that of this image, by default the refiner's own. Raises ValueError where it is
        not calibrated.
        """
        told = camera or self.camera
        camera = told.scaled(*rgb.shape[:2])
        found = self.features.extract(rgb)
        rays = camera.rays(found.keypoints)
        known = np.isfinite(rays).all(axis=1) & told.fits(*rgb.shape[:2])
        turn = Rotation.from_quat(self.mount[3:]).as_matrix()
        noise = _PIXELS * found.pixel / abs(camera.k[0])
        return View(rays[known] @ turn.T, found.descriptors[known], noise, found.keypoints[known])

    def refine(self, estimate: Estimate, view: View) -> Estimate:
        """
        Return the estimate with the pose of the image itself, or as it is.

        A pose is taken only where it has many inliers over the view, clearly more than any other,
        and they determine it.
        """
        prior, offset = estimate.pose, self.mount[:3]
        matches = self._matches(view, prior)
        if len(matches.features) < MIN_INLIERS:
            return estimate
        deviations = FLAT if self.flat else FREE
        solutions = sorted((solve(matches, start, prior, deviations, offset, view.noise)
                            for start in vote(matches, prior, offset, RADIUS)),
                           key=lambda solution: -len(solution.inliers))
        if not solutions or not _is_certain(solutions, prior):
            return estimate
        best = solutions[0]
        if len(best.inliers) < MIN_SHARE * len(np.unique(matches.features)):
            return estimate
        pose, covariance = best.pose, best.covariance
        if self.flat:
            pose, covariance = on_ground(pose, covariance, prior)
        return replace(estimate.moved_to(pose, covariance), reprojection_error=best.noise,
                       landmarks=matches.points[best.inliers],
                       keypoints=view.pixels[matches.features[best.inliers]])

    def _matches(self, view: View, prior: Floats) -> Matches:
        """Return the features of a view that look like landmarks of the places round a pose."""
        poses = self.place_map.poses
        near = np.array(sorted(self._tree.query_ball_point(prior[:2], _AROUND)), np.int64)
        turns = np.abs(poses[near, 3:] @ prior[3:])
        near = near[turns > math.cos(_SAME_WAY / 2)]
        off = poses[near, :2] - prior[:2]
        near = near[np.argsort(np.einsum('ni,ni->n', off, off), kind='stable')]
        found = [_NO_MATCHES, *(_alike(view, *self.landmarks.of_place(int(place)))
                                for place in near[:_PLACES])]
        features, rays, points, weights = (np.concatenate(parts)
                                           for parts in zip(*found, strict=True))
        best = np.argsort(-weights, kind='stable')[:_MATCHES]
        return Matches(features[best], rays[best], points[best], weights[best])


def _alike(view: View, points: Floats, descriptors: NDArray[np.float32]) -> Matches:
    """Return the mutual best matches of a view and one place's landmarks, clearest first."""
    if len(view.rays) < 2 or not len(points):
        return _NO_MATCHES
    similarity = descriptors @ view.descriptors.T
    rows = np.arange(len(points))
    best = similarity.argmax(axis=1)
    mutual = similarity.argmax(axis=0)[best] == rows
    top = similarity[rows, best]
    similarity[rows, best] = -1
    ratio = np.sqrt(np.maximum(2 - 2 * top, 1e-6)
                    / np.maximum(2 - 2 * similarity.max(axis=1), 1e-6))
    good = mutual & (ratio < _RATIO)
    return Matches(best[good], view.rays[best[good]], points[good],
                   (1 - ratio[good] ** 4).astype(np.float64))


def on_ground(pose: Floats, covariance: Floats, prior: Floats, *, flat: bool = True
              ) -> tuple[Floats, Floats]:
    """
    Return a pose and its covariance with the height, roll and pitch of the ground at a prior.

    What the camera's own are off by moves on its suspension, and is no pose of the robot.
    """
    turn = Rotation.from_euler('z', float(heading(pose) - heading(prior)))
    ground = np.array([*pose[:2], prior[2], *(turn * Rotation.from_quat(prior[3:])).as_quat()])
    deviations = (FLAT if flat else FREE)[2:5]
    kept, plane = np.diag([0, 0, *deviations ** 2, 0]), np.ix_((0, 1, 5), (0, 1, 5))
    kept[plane] = covariance[plane]
    return ground, kept


def _is_certain(solutions: Sequence[Solution], prior: Floats) -> bool:
    """Return whether the first of some solutions, those with most inliers first, is to be used."""
    best = solutions[0]
    rival = max((len(other.inliers) for other in solutions[1:]
                 if np.hypot(*(other.pose - best.pose)[:2]) > _APART), default=0)
    error = np.sqrt(np.abs(np.diag(best.covariance)))
    return bool(len(best.inliers) >= MIN_INLIERS and best.cells >= _MIN_CELLS
                and rival < _RIVAL * len(best.inliers)
                and np.hypot(*(best.pose - prior)[:2]) < RADIUS + 1
                and np.isfinite(best.covariance).all()
                and error[:2].max() < _LARGEST_ERROR and error[5] < _LARGEST_TURN)


def vote(matches: Matches, prior: Floats, offset: Floats, radius: float) -> Floats:
    """
    Return poses (P,7) about a prior (7,) that most matches agree with, the best first.

    The camera is at `offset` (3,) on the robot. Positions are within `radius` metres of the
    prior's, on a grid; height, roll and pitch are the prior's.
    """
    turn = Rotation.from_quat(prior[3:])
    centre = prior[:3] + turn.apply(offset)
    rays, points = turn.apply(matches.rays), matches.points - centre
    steps = np.arange(-radius, radius + _STEP / 2, _STEP)
    grid = np.stack(np.meshgrid(steps, steps, indexing='ij'), axis=-1).reshape(-1, 2)
    grid = grid[np.hypot(*grid.T) <= radius]
    # As complex numbers, turned so that a match in the prior's heading lies at the angle 0.
    aside = np.exp(-1j * np.arctan2(rays[:, 1], rays[:, 0]))
    sight = ((points[:, 0] + 1j * points[:, 1]) * aside).astype(np.complex64) \
        - np.outer(grid @ np.array([1, 1j]), aside).astype(np.complex64)  # (G,M)
    heading, distance = np.angle(sight), np.maximum(np.abs(sight), np.float32(_STEP))
    slope = (rays[:, 2] / np.maximum(np.hypot(rays[:, 0], rays[:, 1]), 1e-6)).astype(np.float32)
    off = np.abs(points[:, 2].astype(np.float32) / distance - slope)
    good = (off < _LEVEL + _STEP / 2 * np.abs(slope) / distance) & (np.abs(heading) < _TURN)
    position, match = np.nonzero(good)
    bins = 2 * round(_TURN / _BIN) + 3  # with an empty one at either end
    number = position * bins + np.rint(heading[good] / _BIN).astype(np.int64) + bins // 2
    votes = np.bincount(number, matches.weights[match], len(grid) * bins)
    votes = (votes + np.roll(votes, 1) + np.roll(votes, -1)).reshape(len(grid), bins)
    best = votes.argmax(axis=1)
    held = votes[np.arange(len(grid)), best]
    chosen: list[int] = []
    for cell in np.argsort(-held, kind='stable'):
        if len(chosen) == _STARTS or held[cell] <= 0:
            break
        if all(np.hypot(*(grid[cell] - grid[other])) > 1.5 * _STEP for other in chosen):
            chosen.append(int(cell))
    poses = np.empty((len(chosen), 7))
    for row, cell in enumerate(chosen):
        turned = Rotation.from_euler('z', (best[cell] - bins // 2) * _BIN) * turn
        poses[row, 3:] = turned.as_quat()
        poses[row, :3] = centre - turned.apply(offset)
        poses[row, :2] += grid[cell]
    return poses


def solve(matches: Matches, start: Floats, prior: Floats, deviations: Floats, offset: Floats,
          noise: float) -> Solution:
    """
    Return the pose that explains most matches, from a start (7,), by robust Gauss-Newton.

    The prior (7,) has the standard deviations (6,), in metres and rad; the camera is at `offset`
    (3,) on the robot; `noise` is the expected error of a ray in rad. The kernel is Geman and
    McClure's, first wide and then of the noise.
    """
    place, turn = start[:3], Rotation.from_quat(start[3:]).as_matrix()
    prior_turn = Rotation.from_quat(prior[3:]).as_matrix()
    information = np.diag(1 / deviations ** 2)
    across = _across(matches.rays)
    for width in _WIDTHS:
        error, jacobian, variance = _linear(matches, across, place, turn, offset, noise)
        weight = matches.weights / variance / (
            1 + (error ** 2).sum(axis=1) / (_KERNEL * variance + width ** 2)) ** 2
        rows, weighted = jacobian.reshape(-1, 6), np.repeat(weight, 2)[:, None]
        off = np.concatenate([place - prior[:3], cv2.Rodrigues(turn @ prior_turn.T)[0][:, 0]])
        hessian = rows.T @ (rows * weighted) + information + 1e-9 * np.eye(6)
        gradient = (error.reshape(-1, 1) * weighted)[:, 0] @ rows + information @ off
        step = np.linalg.solve(hessian, -gradient)
        place, turn = place + step[:3], cv2.Rodrigues(step[3:])[0] @ turn
    error, jacobian, variance = _linear(matches, across, place, turn, offset, noise)
    size = (error ** 2).sum(axis=1) / variance
    close = np.flatnonzero(size < _INLIER)
    order = close[np.argsort(size[close], kind='stable')]
    inliers = order[np.unique(matches.features[order], return_index=True)[1]]
    pose = np.concatenate([place, Rotation.from_matrix(turn).as_quat()])
    if not len(inliers):
        return Solution(pose, np.full((6, 6), np.inf), inliers, np.inf, 0)
    cells = _cells(matches.rays[inliers])
    scale = max(_LEAST_NOISE, float(size[inliers].mean()) / 2)
    rows = jacobian[inliers].reshape(-1, 6)
    hessian = rows.T @ (rows / np.repeat(scale * variance[inliers], 2)[:, None])
    covariance = np.linalg.pinv(hessian * (cells / len(inliers)) + information, hermitian=True)
    return Solution(pose, covariance + np.diag(_FLOOR ** 2), inliers, noise * math.sqrt(scale),
                    cells)


def _linear(matches: Matches, across: Floats, place: Floats, turn: Floats, offset: Floats,
            noise: float) -> tuple[Floats, Floats, Floats]:
    """
    Return the errors (M,2) in rad of the matches at a pose, their Jacobian (M,2,6) and variances.

    Errors are in the plane across each ray, of which `across` (M,2,3) are two unit vectors in the
    robot's axes; the variances (M,) are of one error each. The Jacobian is by the position and by
    a rotation about the map's fixed axes.
    """
    arm = turn @ offset
    sight = matches.points - (place + arm)
    distance = np.maximum(np.sqrt((sight ** 2).sum(axis=1)), 0.1)
    sight /= distance[:, None]
    rows = across @ turn.T
    error = (rows * sight[:, None]).sum(axis=2)
    by_place = (error[..., None] * sight[:, None] - rows) / distance[:, None, None]
    by_turn = _cross(rows, sight[:, None]) - _cross(by_place, arm)
    # The error across the ray is small for what is behind, too.
    error[((matches.rays @ turn.T) * sight).sum(axis=1) < 0] = 1.0
    variance = noise ** 2 + (_POINT_ERROR / distance) ** 2
    return error, np.concatenate([by_place, by_turn], axis=2), variance


def _cross(one: Floats, two: Floats) -> Floats:
    """Return the cross products of vectors (...,3); numpy's own takes three times as long."""
    return np.asarray(one[..., _NEXT] * two[..., _LAST] - one[..., _LAST] * two[..., _NEXT])


def _cells(rays: Floats) -> int:
    """Return in how many parts of the view, _CELL rad wide and high, there are rays (M,3)."""
    angles = np.stack([np.arctan2(rays[:, 1], rays[:, 0]), np.arcsin(np.clip(rays[:, 2], -1, 1))])
    return len(np.unique(np.floor(angles / _CELL), axis=1).T)


def _across(rays: Floats) -> Floats:
    """Return two unit vectors across each ray (M,3), at right angles: (M,2,3)."""
    flat = np.stack([-rays[:, 1], rays[:, 0], np.zeros(len(rays))], axis=1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    one = np.where(length > 1e-6, flat / np.maximum(length, 1e-6), [0.0, 1.0, 0.0])
    return np.stack([one, _cross(rays, one)], axis=1)


def difference(pose: Floats, prior: Floats) -> Floats:
    """Return the error (6,) of a pose (7,): metres, and rad about the map's fixed axes."""
    turn = Rotation.from_quat(pose[3:]) * Rotation.from_quat(prior[3:]).inv()
    return np.concatenate([pose[:3] - prior[:3], turn.as_rotvec()])
