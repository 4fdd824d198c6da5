"""
Landmarks of a map: features of each place's image, triangulated with those of its neighbours.

The poses of the mapping drive and of the camera on the robot are taken as they are. What landmarks
are is in maps/landmarks.py.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core.errors import SourceError
from vpr_ros.core.poses import composed
from vpr_ros.maps.landmarks import per_place
from vpr_ros.maps.landmarks import quantised

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.io.frames import Source

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

NEIGHBOURS = 6
"""Places before and after one whose images are compared with its own."""

_RATIO = 0.9
"""Greatest distance of a match's descriptors, in that of the second best match."""

_PIXELS = 2.5
"""Greatest reprojection error, in pixels of an image of _REFERENCE pixels focal length."""

_REFERENCE = 350.0
_PARALLAX = math.radians(1.5)
_VIEWS = 3
"""Images, with the place's own, that a landmark is seen by at least."""

_FEW = 20
_CHECK = 'the poses, the CameraInfo or the camera pose are wrong, or images show no detail'
_NEAREST, _FARTHEST = 0.5, 150.0  # m
_CELLS = 8  # along each side of an image, over which landmarks are spread


@dataclass
class _Place:
    """One image: its camera's centre (3,), rays (K,3) in the map's axes, features' descriptors."""

    centre: Floats
    rays: Floats
    keypoints: Floats
    descriptors: NDArray[np.float32]
    matches: dict[int, NDArray[np.int64]]


class Triangulator:
    """
    Triangulates the places of one session, fed in order; few images are in memory at a time.

    `mount` is the pose (7,) of the camera on the robot, in optical axes. Raises ValueError for a
    camera that is not calibrated.
    """

    def __init__(self, features: Extractor, camera: Camera, mount: Floats) -> None:
        self._features, self._camera, self._mount = features, camera, mount
        self._window: deque[_Place] = deque(maxlen=2 * NEIGHBOURS + 1)
        self._fed = 0
        self._error, self._radians = 0.0, 0.0
        self._points: list[Floats] = []
        self._descriptors: list[NDArray[np.int8]] = []
        self._errors: list[Floats] = []

    def add(self, rgb: NDArray[np.uint8], pose: Floats) -> None:
        """Take the image uint8 (H,W,3) of the next place, and its pose (7,)."""
        height, width = rgb.shape[:2]
        found = self._features.extract(rgb)
        camera = self._camera.scaled(height, width)
        rays = camera.rays(found.keypoints)
        self._radians = found.pixel / max(camera.k[:2])
        self._error = _PIXELS * min(1 / _REFERENCE, self._radians)
        known = np.isfinite(rays).all(axis=1) & self._camera.fits(height, width)
        at = composed(pose, self._mount)
        shares = found.keypoints[known] / (width, height)
        turned = rays[known] @ Rotation.from_quat(at[3:]).as_matrix().T
        place = _Place(at[:3], turned, shares, found.descriptors[known], {})
        self._window.append(place)
        last = self._fed
        self._fed += 1
        before = list(self._window)[-NEIGHBOURS - 1:-1]
        for number, other in enumerate(before, last - len(before)):
            one, two = _matches(place, other, self._error)
            place.matches[number] = _table(len(place.rays), one, two)
            other.matches[last] = _table(len(other.rays), two, one)
        if self._fed > NEIGHBOURS:
            self._triangulate(last - NEIGHBOURS)

    def finish(self, name: str) -> tuple[list[Floats], list[NDArray[np.int8]], list[float]]:
        """
        Return for each place its landmarks (L,3), their descriptors int8 (L,D), and the error.

        They are in the map's frame; the error is the median reprojection error in rad, 0
        without landmarks. How many there are, and how well the poses fit, is logged after `name`.
        """
        for number in range(max(0, self._fed - NEIGHBOURS), self._fed):
            self._triangulate(number)
        errors, counts = np.concatenate(self._errors), [len(each) for each in self._points]
        found = (self._points, self._descriptors,
                 [float(np.median(each)) if len(each) else 0.0 for each in self._errors])
        few = sum(count < _FEW for count in counts)
        if not len(errors):
            log.warning('%s: not one landmark: %s', name, _CHECK)
            return found
        typical = float(np.degrees(np.median(errors)))
        log.info('%s: %.0f landmarks a place (median), their reprojection error is %.3f degrees '
                 '(median), %.1f pixels', name, np.median(counts), typical,
                 np.median(errors) / self._radians)
        if few > len(counts) / 2:
            log.warning('%s: %d of %d places have fewer than %d landmarks: %s', name, few,
                        len(counts), _FEW, _CHECK)
        return found

    def _triangulate(self, number: int) -> None:
        first = self._fed - len(self._window)
        place = self._window[number - first]
        others = {n: self._window[n - first] for n in place.matches}
        count = len(place.rays)
        centres = np.zeros((count, len(others) + 1, 3))
        rays = np.zeros((count, len(others) + 1, 3))
        seen = np.zeros((count, len(others) + 1), np.bool_)
        centres[:, 0], rays[:, 0], seen[:, 0] = place.centre, place.rays, True
        for column, (n, other) in enumerate(others.items(), 1):
            match = place.matches[n]
            seen[:, column] = match >= 0
            centres[:, column] = other.centre
            rays[match >= 0, column] = other.rays[match[match >= 0]]
        points, errors, seen = triangulated(centres, rays, seen, self._error)
        views = seen.sum(axis=1)
        chosen = np.flatnonzero((views >= _VIEWS) & seen[:, 0]
                                & (parallax(points, centres, seen) > _PARALLAX))
        chosen = chosen[_spread(place.keypoints[chosen], views[chosen])][
            :per_place(place.descriptors.shape[1])]
        self._points.append(points[chosen])
        self._descriptors.append(quantised(place.descriptors[chosen]))
        self._errors.append(errors[chosen][seen[chosen]])


def triangulator_of(source: Source, features: Extractor) -> Triangulator | None:
    """Return the triangulator of a source; None, with one line in the log, where it has none."""
    try:
        if source.camera is None:
            raise SourceError('it has no CameraInfo')
        if source.camera.problem:
            raise SourceError(source.camera.problem)
        return Triangulator(features, source.camera, source.mount())
    except SourceError as error:
        log.info('%s: no landmarks, which would make poses exact to decimetres: %s', source.name,
                 error)
        return None


def triangulated(centres: Floats, rays: Floats, seen: NDArray[np.bool_], most: float
                 ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """
    Return the points (N,3) nearest to V rays each, the rays' errors (N,V) and which rays fit.

    centres (N,V,3) and unit rays (N,V,3) in one frame, of which `seen` (N,V) count. A ray fits
    when it misses its point by at most `most` rad and the point is ahead of it, neither too near
    nor too far. Those that do not have less and less of a say.
    """
    first, centres = centres[:, 0], centres - centres[:, :1]  # maps may be far from their origin
    off = np.eye(3) - rays[..., :, None] * rays[..., None, :]
    along = np.einsum('nvij,nvj->nvi', off, centres)
    weight = np.ones(seen.shape)
    points = np.zeros((len(rays), 3))
    errors = np.full(seen.shape, np.inf)
    for limit in (16 * most, 8 * most, 4 * most, 2 * most, most, 0.0):
        share = np.where(seen, weight, 0.0)
        matrix = np.einsum('nv,nvij->nij', share, off)
        matrix += (1e-9 * share.sum(axis=1) + 1e-15)[:, None, None] * np.eye(3)
        points = np.linalg.solve(matrix, np.einsum('nv,nvi->ni', share, along)[..., None])[..., 0]
        sight = points[:, None] - centres
        depth = np.einsum('nvi,nvi->nv', sight, rays)
        distance = np.linalg.norm(sight, axis=2)
        aside = np.linalg.norm(np.cross(sight, rays), axis=2)
        errors = np.arctan2(aside, np.maximum(depth, 1e-9))
        fits = (errors < most) & (depth > _NEAREST) & (distance < _FARTHEST)
        # The kernel of Geman and McClure, ever narrower, on angles and not on metres.
        weight = 1 / (np.maximum(distance, _NEAREST) * (1 + (errors / max(limit, most)) ** 2)) ** 2
        if limit <= most:
            weight *= fits
    return points + first, errors, seen & fits


def parallax(points: Floats, centres: Floats, seen: NDArray[np.bool_]) -> Floats:
    """Return the greatest angle (N,) in rad between the first sight of a point and another."""
    sight = points[:, None] - centres
    sight /= np.maximum(np.linalg.norm(sight, axis=2, keepdims=True), 1e-9)
    chord = np.linalg.norm(sight - sight[:, :1], axis=2)
    return np.asarray(2 * np.arcsin(np.clip(np.where(seen, chord, 0).max(axis=1) / 2, 0, 1)))


def _matches(one: _Place, two: _Place, most: float
             ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the features of two images that match, by their looks and poses."""
    if min(len(one.rays), len(two.rays)) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    similarity = one.descriptors @ two.descriptors.T
    baseline = two.centre - one.centre
    length = float(np.linalg.norm(baseline))
    if length < 1e-3:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # The plane of the baseline and a ray has the other ray in it, unless they are along it.
    normal = np.cross(baseline / length, one.rays)
    size = np.linalg.norm(normal, axis=1, keepdims=True)
    offside = np.abs((normal / np.maximum(size, 1e-6)) @ two.rays.T)
    similarity[offside > 2 * most] = -1
    best = similarity.argmax(axis=1)
    rows = np.arange(len(best))
    mutual = similarity.argmax(axis=0)[best] == rows
    top = similarity[rows, best].copy()
    similarity[rows, best] = -1
    second = similarity.max(axis=1)
    good = mutual & (2 - 2 * top < _RATIO ** 2 * (2 - 2 * second)) & (top > 0)
    return rows[good], best[good]


def _table(count: int, rows: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    table = np.full(count, -1, np.int64)
    table[rows] = values
    return table


def _spread(shares: Floats, views: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an order in which every part of the image comes early, first what is seen most."""
    cells = (np.clip(shares, 0, 0.999) * _CELLS).astype(np.int64) @ np.array([1, _CELLS])
    order = np.lexsort((-views, cells))
    rank = np.empty(len(order), np.int64)
    starts = np.searchsorted(cells[order], cells[order])
    rank[order] = np.arange(len(order)) - starts
    return np.lexsort((-views, rank))
