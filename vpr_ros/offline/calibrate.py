"""
Fit a map's confidence to drives whose truth is known.

The models that are fitted are in calibration.py; how a map does without drives, in
self_calibrate.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.metrics import BINS
from vpr_ros.core.metrics import calibration_error
from vpr_ros.core.metrics import reliability
from vpr_ros.io.bag import Bag
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.calibration import ConfidenceModel
from vpr_ros.maps.calibration import DEFAULT_MODELS
from vpr_ros.maps.calibration import fit_confidence
from vpr_ros.maps.calibration import Mode
from vpr_ros.offline.descriptors import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

FEWEST = 30
"""Places of a map, or frames of a drive, below which nothing is fitted."""

_SPELT = {Mode.ODOMETRY: 'with odometry', Mode.SEQUENCE: 'without odometry',
          Mode.SINGLE: 'single frames'}

_PARTS = 3
_FOLDS = 5

_INDEPENDENT = 0.1
"""What a frame counts for in the fit: neighbouring ones go right or wrong together."""

_SETTLING = 10
"""Frames at the start of a drive, when the belief cannot know yet: they would blur the model."""


@dataclass(frozen=True)
class KnownDrive:
    """
    A drive whose truth is known.

    descriptors float32 (N,D) of unit norm; stamps int64 (N,) ns; truth float64 (N,7), NaN where
    it is not known; odometry float64 (N,7), NaN where there is none. Of a drive that is not
    `mapped` every pose is wrong.
    """

    name: str
    descriptors: NDArray[np.float32]
    stamps: NDArray[np.int64]
    truth: Floats
    odometry: Floats
    mapped: bool = True

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def has_odometry(self) -> bool:
        """Whether most frames have odometry."""
        return bool(np.isfinite(self.odometry[:, 0]).mean() > 0.5)

    def part(self, chosen: slice) -> KnownDrive:
        """Return a stretch of the drive."""
        return replace(self, descriptors=self.descriptors[chosen], stamps=self.stamps[chosen],
                       truth=self.truth[chosen], odometry=self.odometry[chosen])


@dataclass(frozen=True)
class Examples:
    """
    What came of drives, frame by frame (N,): belief, whether right, on the map, which fold.

    `residual` (N,2) is how far off the pose was, metres ahead and aside, and `spread` (N,2) the
    variances that the belief alone gave for it.
    """

    probability: Floats
    evidence: Floats
    right: NDArray[np.bool_]
    mapped: NDArray[np.bool_]
    fold: NDArray[np.int64]
    residual: Floats
    spread: Floats

    @property
    def counts(self) -> Floats:
        """
        How many independent frames each row counts for.

        Those off the map count as much in all as those on it: to begin with, the belief takes the
        one to be as likely as the other, too.
        """
        off = ~self.mapped
        if not off.any() or off.all():
            return np.full(len(off), _INDEPENDENT)
        return _INDEPENDENT * np.where(off, (~off).sum() / off.sum(), 1.0)

    def fit(self, prior: ConfidenceModel, *, keep_shape: bool = False,
            prior_weight: float = 1.0) -> ConfidenceModel:
        """Return the model that tells right frames from wrong ones (see fit_confidence)."""
        return fit_confidence(self.probability, self.evidence, self.right, prior,
                              frames=self.counts, keep_shape=keep_shape,
                              prior_weight=prior_weight)

    def held_out(self, prior: ConfidenceModel) -> Floats:
        """Return each frame's confidence (N,) from a model fitted without its stretch of time."""
        confidence = np.zeros(len(self.probability))
        for fold in np.unique(self.fold):
            own = self.fold == fold
            model = fit_confidence(self.probability[~own], self.evidence[~own], self.right[~own],
                                   prior, frames=self.counts[~own])
            confidence[own] = model.confidence(self.probability[own], self.evidence[own])
        return confidence


@dataclass(frozen=True)
class Fit:
    """
    A calibration, and for each mode that was fitted its examples and held-out confidence (N,).

    `before` (N,) is what the calibration that was there says, and `examples_before` are its own:
    with another likelihood other beliefs, and poses, come of the same drives.
    """

    calibration: Calibration
    examples: dict[Mode, Examples]
    held_out: dict[Mode, Floats]
    before: dict[Mode, Floats]
    examples_before: dict[Mode, Examples]

    def errors(self, mode: Mode) -> tuple[float, float]:
        """Return the expected calibration error on mapped frames before, and held out after."""
        own, old = self.examples[mode], self.examples_before[mode]
        return (calibration_error(self.before[mode][old.mapped], old.right[old.mapped]),
                calibration_error(self.held_out[mode][own.mapped], own.right[own.mapped]))

    def false_accepts(self, mode: Mode, threshold: float) -> tuple[float, float]:
        """Return the shares of unmapped frames that got a pose before, and held out after."""
        off = ~self.examples[mode].mapped
        if not off.any():
            return float('nan'), float('nan')
        return (float((self.before[mode][off] >= threshold).mean()),
                float((self.held_out[mode][off] >= threshold).mean()))


def read_drive(path: str | Path, encoder: Encoder, *, truth_topic: str | None = None,
               image_topic: str | None = None, odometry_topic: str | None = None) -> KnownDrive:
    """
    Encode the frames of a bag that have a true pose on `truth_topic` (the best one without).

    Raises SourceError when fewer than 30 have one.
    """
    descriptors: list[NDArray[np.float32]] = []
    stamps: list[int] = []
    odometry: list[Floats] = []
    with Bag(path) as bag:
        topic = bag.image_topic(image_topic)
        truth = bag.poses(bag.pose_topic(truth_topic))
        track = bag.odometry(odometry_topic)
        for stamp, descriptor in tqdm(encoded(bag.images(topic), encoder), desc=str(path),
                                      total=bag.count(topic), unit='frame', disable=None):
            if stamps and stamp <= stamps[-1]:
                continue
            try:
                descriptors.append(descriptor.result())
            except ImageError:
                continue
            stamps.append(stamp)
            where = poses.at(track, stamp)
            odometry.append(np.full(7, np.nan) if where is None else where)
    times = np.array(stamps, np.int64)
    true, known = poses.interpolate(truth, times)
    if known.sum() < FEWEST:
        raise SourceError(f'{path}: {known.sum()} frames have a true pose, at least {FEWEST} are '
                          'needed: name the topic with --truth-topic')
    return KnownDrive(str(path), np.array(descriptors, np.float32), times, true,
                      np.array(odometry))


def calibrate(place_map: PlaceMap, encoder: Encoder, drives: Sequence[KnownDrive], *,
              correct_radius: float = defaults.CORRECT_RADIUS,
              max_speed: float = defaults.MAX_SPEED) -> Fit:
    """
    Fit the calibration of a map to drives through it: its models, and its deviation.

    Each drive is also held against the map without the stretch it drives through: every pose that
    this gives is wrong. The models are drawn to the defaults, which hold for the default
    likelihood and weights, not to what was there.
    """
    runs = [(place_map, drive) for drive in drives]
    modes = [mode for mode in Mode
             if mode is not Mode.ODOMETRY or any(drive.has_odometry for drive in drives)]
    current = place_map.manifest.calibration
    default = Calibration()
    found = {mode: gather(runs, encoder, default, mode, correct_radius, max_speed)
             for mode in tqdm(modes, desc='calibrate', unit='mode', disable=None)}
    before = {mode: own if _same_belief(current, default, mode) else gather(
        runs, encoder, current, mode, correct_radius, max_speed) for mode, own in found.items()}
    frames = sum(int(np.isfinite(drive.truth[:, 0]).sum()) for drive in drives)
    calibration = replace(
        default, confidence={mode: own.fit(DEFAULT_MODELS[mode]) for mode, own in found.items()},
        deviation=_deviation(found[modes[0]], len(drives)),
        fitted_on=', '.join(drive.name for drive in drives) + f': {frames} frames')
    return Fit(calibration, found,
               {mode: own.held_out(DEFAULT_MODELS[mode]) for mode, own in found.items()},
               {mode: current.confidence[mode].confidence(own.probability, own.evidence)
                for mode, own in before.items()}, before)


def report(fit: Fit) -> Iterator[str]:
    """Yield lines on what a fit is worth: held out, so of stretches it was not fitted to."""
    for mode, own in fit.examples.items():
        before, after = fit.errors(mode)
        false_before, false_after = fit.false_accepts(mode, defaults.MIN_CONFIDENCE)
        yield (f'{_SPELT[mode]}: calibration error {before:.3f} before, {after:.3f} now; off the '
               f'map, {false_before:.1%} of frames got a pose at {defaults.MIN_CONFIDENCE:g} '
               f'before, {false_after:.1%} now')
        yield '  confidence    frames    mean   right'
        for number, (count, sure, right) in enumerate(
                reliability(fit.held_out[mode][own.mapped], own.right[own.mapped])):
            if count:
                yield (f'  {number / BINS:.1f} to {(number + 1) / BINS:.1f}  {count:>8}  '
                       f'{sure:6.3f}  {right:6.3f}')


def gather(runs: Sequence[tuple[PlaceMap, KnownDrive]], encoder: Encoder,
           calibration: Calibration, mode: Mode, correct_radius: float, max_speed: float, *,
           without: bool = True) -> Examples:
    """Return what comes of drives through their maps, and through the maps `without` them."""
    options = {'correct_radius': correct_radius, 'max_speed': max_speed, 'min_confidence': 0.0,
               'use_filter': mode is not Mode.SINGLE, 'top_k': 1}
    parts: list[list[NDArray[np.generic]]] = []
    for place_map, drive in runs:
        localizer = _localizer(place_map, encoder, calibration, options)
        parts.append(_drive(localizer, drive, mode, mapped=drive.mapped))
        for part in range(_PARTS if drive.mapped and without else 0):
            begin, end = (len(drive) * (part + more) // _PARTS for more in (0, 1))
            stretch = drive.part(slice(begin, end))
            rest = _without(place_map, stretch)
            if rest is not None:
                parts.append(_drive(_localizer(rest, encoder, calibration, options), stretch, mode,
                                    mapped=False))
    return Examples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _drive(localizer: Localizer, drive: KnownDrive, mode: Mode, *, mapped: bool
           ) -> list[NDArray[np.generic]]:
    """Return the columns of Examples for one drive; frames without a truth are left out."""
    rows = []
    folds = np.arange(len(drive)) * (_FOLDS if mapped else 1) // max(len(drive), 1)
    settling = 0 if mode is Mode.SINGLE else min(_SETTLING, len(drive) // 2)
    for number, (descriptor, stamp, true, odometry, fold) in enumerate(zip(
            drive.descriptors, drive.stamps, drive.truth, drive.odometry, folds, strict=True)):
        step = odometry if mode is Mode.ODOMETRY and np.isfinite(odometry).all() else None
        estimate = localizer.locate(descriptor, int(stamp), step)
        if not np.isfinite(true[0]) or number < settling:
            continue
        off = float(poses.distance(estimate.pose, true))
        yaw = float(poses.heading(estimate.pose))
        axes = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        spread = np.diag(axes @ estimate.covariance[:2, :2] @ axes.T) \
            - np.square(localizer.calibration.deviation[:2])
        rows.append((estimate.mode_probability, estimate.evidence,
                     mapped and off <= localizer.correct_radius, mapped, fold,
                     axes @ (true[:2] - estimate.pose[:2]), spread))
    return [np.array(column) for column in zip(*rows, strict=True)]


def _localizer(place_map: PlaceMap, encoder: Encoder, calibration: Calibration,
               options: dict[str, float]) -> Localizer:
    return Localizer(encoder, place_map.calibrated(calibration),
                     **options)  # type: ignore[arg-type]


def _without(place_map: PlaceMap, stretch: KnownDrive) -> PlaceMap | None:
    """Return the map less what lies within 25 m of a drive; None when too little is left."""
    true = stretch.truth[np.isfinite(stretch.truth[:, 0])]
    if not len(true):
        return None
    near = np.array([poses.distance(true, pose).min() <= defaults.EXCLUSION_RADIUS
                     for pose in place_map.poses])
    return place_map.select(np.flatnonzero(~near)) if (~near).sum() >= FEWEST else None


def _same_belief(one: Calibration, other: Calibration, mode: Mode) -> bool:
    """Return whether two calibrations make the same belief of a drive."""
    likelihoods = [(c.separation, c.outliers, c.largest, c.confidence[mode].weight)
                   for c in (one, other)]
    return likelihoods[0] == likelihoods[1]


def _deviation(examples: Examples, drives: int) -> tuple[float, float, float]:
    """
    Return how far (m ahead, m aside, rad; 1 sigma) a robot is from the right place.

    Within a drive it keeps to its line, so that a drive tells one distance: the default counts as
    one drive more.
    """
    default, right = Calibration().deviation, examples.right
    if right.sum() < FEWEST:
        return default
    excess = (np.square(examples.residual[right]) - examples.spread[right]).mean(axis=0)
    ahead, aside = np.sqrt((drives * np.maximum(excess, 0.0) + np.square(default[:2]))
                           / (drives + 1))
    return float(ahead), float(aside), default[2]
