"""
What a feature network learns from: views of the street, with the points that they share.

A drive through a town is rendered under each condition. Corners that several views by day agree on
are points in space (the renderer knows how far everything is), and where each view shows them is
exact, however dark it is. Imports no torch. The training is in features.py.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING
import zipfile

import cv2
import numpy as np
from tqdm import tqdm
from vpr_ros import street
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import SourceError
from vpr_ros.core.files import whole_file
from vpr_ros.training.street_drives import FIRST_TRAINING_TOWN
from vpr_ros.training.street_drives import SPEED
from vpr_ros.training.street_drives import street_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BY_DAY = ('spring', 'winter', 'rain')
"""Conditions whose views say where corners are."""

_CORNERS = 600
_QUALITY = 0.002
_GAP = 3.0              # pixels between corners
_VOTES, _DRIVES = 4, 2  # corners of other views, and of their drives, that must agree
_FARTHEST = 80.0        # m
_NEAR, _PAIRED = 5.0, 6.5   # m between views that are compared, and that become a pair
_HEADING = np.radians(25)
_TOLERANCE = 0.04       # of a depth


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """
    Which views to render: `drives` of `length` m through each town under each condition.

    Each is up to `lanes` m to the left of its lane's middle, with a view about every `spacing` m,
    of `size` (width, height). `cache` is a folder that keeps them. Raises ValueError for a town
    that is kept for tests, or an unknown condition.
    """

    towns: Sequence[int]
    conditions: Sequence[str] = street.CONDITIONS
    seed: int = 0
    drives: int = 1
    length: float = 100.0
    spacing: float = 1.5
    lanes: tuple[float, float] = (-1.0, 1.5)
    size: tuple[int, int] = (320, 240)
    cache: str | None = None

    def __post_init__(self) -> None:
        if not self.towns or min(self.towns) < FIRST_TRAINING_TOWN:
            raise ValueError(f'towns to train on have seeds of {FIRST_TRAINING_TOWN} or more: '
                             'those below are kept for tests and demos')
        unknown = set(self.conditions) - set(street.CONDITIONS)
        if unknown or not set(self.conditions) & set(BY_DAY):
            raise ValueError(f'conditions {", ".join(self.conditions) or "(none)"}: choose some '
                             f'of {", ".join(street.CONDITIONS)}, one of them by day')


class Views(NamedTuple):
    """
    N views, grey uint8 (N,H,W), and their points.

    `pixels` float32 (P,2) are points of the views, those of view n from starts[n] to starts[n+1].
    Pair q is of the views pairs[q] (2,); its points, from pair_starts[q] to pair_starts[q+1] of
    `pair_pixels` (Q,2,2), are seen in both.
    """

    images: NDArray[np.uint8]
    starts: NDArray[np.int64]
    pixels: NDArray[np.float32]
    pairs: NDArray[np.int64]
    pair_starts: NDArray[np.int64]
    pair_pixels: NDArray[np.float32]


def read_views(options: ViewOptions) -> Views:
    """
    Return the views of all towns, rendered, or from the cache while the street's code is the same.

    Raises SourceError when a file of the cache is damaged.
    """
    towns = []
    for town in tqdm(dict.fromkeys(options.towns), desc='street', unit='town', disable=None):
        if options.cache is None:
            towns.append(_town_views(town, options))
            continue
        key = json.dumps([{**asdict(options), 'towns': town, 'cache': ''}, street_code(),
                          Path(__file__).read_text()], sort_keys=True)
        path = Path(options.cache,
                    f'views{town}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz')
        if not path.is_file():
            with whole_file(path) as part:
                np.savez(part, **_town_views(town, options)._asdict())
        towns.append(_load(path))
    return _joined(towns)


def _load(path: Path) -> Views:
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
            return Views(*(arrays[name] for name in Views._fields))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f'{path} is damaged ({first_line(error)}): delete it to render its '
                          'town again') from error


def _joined(towns: Sequence[Views]) -> Views:
    """Return the views of several towns as one table."""
    def shifted(name: str, sizes: Sequence[int]) -> NDArray[np.int64]:
        first = np.cumsum([0, *sizes])
        return np.concatenate([getattr(each, name) + start
                               for each, start in zip(towns, first, strict=False)])

    def starts(name: str) -> NDArray[np.int64]:
        counts = np.concatenate([np.diff(getattr(each, name)) for each in towns])
        return np.concatenate([[0], np.cumsum(counts)])
    return Views(np.concatenate([each.images for each in towns]), starts('starts'),
                 np.concatenate([each.pixels for each in towns]),
                 shifted('pairs', [len(each.images) for each in towns]), starts('pair_starts'),
                 np.concatenate([each.pair_pixels for each in towns]))


class _View:
    """One view while its town is read: where it is, how near what it shows, its corners (K,3)."""

    def __init__(self, frame: street.DriveFrame, drive: int, condition: str) -> None:
        assert frame.nearness is not None
        self.drive, self.condition = drive, condition
        self.image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        self.position, self.rotation = frame.view.position, frame.view.rotation()
        self.yaw = frame.view.yaw
        height, width = self.image.shape
        self.matrix = street.camera_matrix(width, height)
        box = np.ones((3, 3), np.uint8)
        self.nearest = cv2.dilate(frame.nearness, box)
        self.farthest = cv2.erode(frame.nearness, box)
        self.corners = self._corners(frame.nearness) if condition in BY_DAY else np.empty((0, 3))

    def _corners(self, nearness: NDArray[np.float32]) -> Floats:
        found: Any = cv2.goodFeaturesToTrack(self.image, _CORNERS, _QUALITY, _GAP, blockSize=3)
        if found is None:
            return np.empty((0, 3))
        found = cv2.cornerSubPix(self.image, found, (2, 2), (-1, -1), (
            cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 10, 0.01))[:, 0].astype(np.float64)
        columns, rows = self.whole(found)
        # At an edge of something near, the corner is of that.
        near, far = self.nearest[rows, columns], self.farthest[rows, columns]
        depth = np.where(near > 1.1 * far, near, nearness[rows, columns])
        rays = np.column_stack([found, np.ones(len(found))]) @ np.linalg.inv(self.matrix).T
        known = depth > 1 / _FARTHEST
        return (rays[known] / depth[known, None]) @ self.rotation + self.position

    def whole(self, pixels: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the column (P,) and row (P,) of pixels (P,2)."""
        height, width = self.image.shape
        return (np.rint(pixels[:, 0]).astype(np.int64).clip(0, width - 1),
                np.rint(pixels[:, 1]).astype(np.int64).clip(0, height - 1))

    def see(self, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return where points (P,3) are in the image (P,2), and which of them it shows."""
        seen = (points - self.position) @ self.rotation.T
        ahead = seen[:, 2] > 0.5
        image = np.where(ahead[:, None], seen, 1.0) @ self.matrix.T
        pixels = image[:, :2] / image[:, 2:]
        height, width = self.image.shape
        inside = ahead & (pixels > 1).all(axis=1) & (pixels < (width - 2, height - 2)).all(axis=1)
        columns, rows = self.whole(np.where(inside[:, None], pixels, 0))
        nearness = 1 / np.where(ahead, seen[:, 2], 1)
        return pixels, inside & (nearness < (1 + _TOLERANCE) * self.nearest[rows, columns]) \
            & (nearness > (1 - _TOLERANCE) * self.farthest[rows, columns])


def _town_views(town: int, options: ViewOptions) -> Views:
    """Render the drives of one town, and find what their views share."""
    rng = np.random.default_rng((options.seed, town))
    start = float(rng.uniform(0, 300))
    views: list[_View] = []
    for number in range(options.drives * len(options.conditions)):
        condition = options.conditions[number % len(options.conditions)]
        frames = street.drive(
            street.Town(town), condition=condition, seed=int(rng.integers(2**31)), speed=SPEED,
            rate=SPEED / options.spacing, lateral_offset=float(rng.uniform(*options.lanes)),
            length=options.length, options=street.DriveOptions(
                start=start, width=options.size[0], height=options.size[1], nearness=True))
        views += [_View(frame, number, condition) for frame in frames]
    positions = np.array([view.position[:2] for view in views])
    points = [_points(view, [views[i] for i in _around(views, positions, n, _NEAR)
                             if len(views[i].corners)])
              for n, view in enumerate(views)]
    pairs, pair_pixels = [], []
    for n, view in enumerate(views):
        others = [i for i in _around(views, positions, n, _PAIRED)
                  if views[i].drive != view.drive]
        if not others:
            continue
        for other in rng.choice(others, min(4, len(others)), replace=False).tolist():
            pixels, shown = views[other].see(points[n][1])
            if shown.sum() >= 32:
                pairs.append((n, other))
                pair_pixels.append(np.stack([points[n][0][shown], pixels[shown]], axis=1))
    return Views(np.stack([view.image for view in views]),
                 np.cumsum([0, *(len(pixels) for pixels, _ in points)]),
                 np.concatenate([pixels for pixels, _ in points]).astype(np.float32),
                 np.array(pairs, np.int64).reshape(-1, 2),
                 np.cumsum([0, *(len(pixels) for pixels in pair_pixels)]),
                 np.concatenate([np.empty((0, 2, 2)), *pair_pixels]).astype(np.float32))


def _around(views: Sequence[_View], positions: Floats, number: int, most: float) -> list[int]:
    """Return the views at most so many metres away that look the same way."""
    off = positions - positions[number]
    near = np.flatnonzero(np.einsum('ni,ni->n', off, off) < most ** 2)
    return [i for i in near.tolist() if i != number and abs(
        np.angle(np.exp(1j * (views[i].yaw - views[number].yaw)))) < _HEADING]


def _points(view: _View, others: Sequence[_View]) -> tuple[Floats, Floats]:
    """Return pixels (P,2) and points (P,3) of corners that other views, of two drives, share."""
    height, width = view.image.shape
    sums = np.zeros((6, height, width))     # votes, columns, rows, and points
    drives = np.zeros((height, width))
    for drive in {other.drive for other in others}:
        corners = np.concatenate([each.corners for each in others if each.drive == drive])
        pixels, shown = view.see(corners)
        corners, pixels = corners[shown], pixels[shown]
        columns, rows = view.whole(pixels)
        votes = np.zeros((height, width))
        for plane, values in zip((votes, *sums[1:]), (1.0, *pixels.T, *corners.T), strict=True):
            np.add.at(plane, (rows, columns), values)
        sums[0] += votes
        drives += _around_pixel(votes) > 0
    sums = np.stack([_around_pixel(plane) for plane in sums])
    score = np.where((drives >= _DRIVES) & (sums[0] >= _VOTES), sums[0], 0)
    score += 1e-3 * cv2.GaussianBlur(score, (5, 5), 1.0)    # of equal ones, the middle
    rows, columns = np.nonzero((score > 0) & (score == cv2.dilate(score, np.ones((5, 5)))))
    means = (sums[1:, rows, columns] / sums[0, rows, columns]).T
    return means[:, :2], means[:, 2:]


def _around_pixel(plane: Floats) -> Floats:
    return np.asarray(cv2.boxFilter(plane, -1, (3, 3), normalize=False))
