"""
Examples that confidence models are fitted to: the frames of drives, localised on maps.

What is fitted to them is in calibrate.py and self_calibrate.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.confidence import Mode
from vpr_ros.offline.confidence_fit import fit_confidence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.maps.calibration import Calibration
    from vpr_ros.maps.confidence import ConfidenceModel
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

FEWEST = 30
"""The fewest places of a map, or frames of a drive, to which anything is fitted."""

_STRETCHES = 3
"""Parts of a drive, each of which is also driven on the map without it."""

_FOLDS = 5
"""Parts of a drive for the cross-validation."""

_FRAME_WEIGHT = 0.1
"""What a frame counts for in the fit: neighbouring ones go right or wrong together."""

_SETTLING = 10
"""Frames at the start of a drive, before the belief has settled: they would blur the model."""


@dataclass(frozen=True)
class KnownDrive:
    """
    A drive with known poses.

    descriptors float32 (N,D) of unit norm; stamps int64 (N,) ns; truth float64 (N,7), the true
    poses, NaN where unknown; odometry float64 (N,7), NaN where there is none. Every estimate of a
    drive that is not `mapped` is wrong.
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
        """Return whether most frames have odometry."""
        return bool(np.isfinite(self.odometry[:, 0]).mean() > 0.5)

    def part(self, frames: slice) -> KnownDrive:
        """Return a stretch of the drive."""
        return replace(self, descriptors=self.descriptors[frames], stamps=self.stamps[frames],
                       truth=self.truth[frames], odometry=self.odometry[frames])

    def stretches(self, count: int) -> Iterator[KnownDrive]:
        """Yield the drive in `count` stretches of equal length."""
        for number in range(count):
            yield self.part(slice(len(self) * number // count,
                                  len(self) * (number + 1) // count))


@dataclass(frozen=True)
class Examples:
    """
    What a confidence model is fitted to: N localised frames with known poses.

    `probability` (N,) and `evidence` (N,) are those of the belief's mode; `right` (N,), whether
    the estimate was right; `mapped` (N,), whether the frame is on the map; `fold` (N,), the part
    of the cross-validation. `residual` (N,2) is the error of the estimate, metres ahead and aside,
    `spread` (N,2) the variances that the belief alone gave for it.
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
        How many independent frames each row (N,) counts for.

        All frames off the map together count as much as all on it: that is also the prior of the
        belief.
        """
        off = ~self.mapped
        if not off.any() or off.all():
            return np.full(len(off), _FRAME_WEIGHT)
        return _FRAME_WEIGHT * np.where(off, (~off).sum() / off.sum(), 1.0)

    def fit(self, prior: ConfidenceModel, *, keep_shape: bool = False,
            prior_weight: float = 1.0) -> ConfidenceModel:
        """Return the model that separates right frames from wrong ones (see fit_confidence)."""
        return fit_confidence(self.probability, self.evidence, self.right, prior,
                              frames=self.counts, keep_shape=keep_shape,
                              prior_weight=prior_weight)

    def held_out(self, prior: ConfidenceModel) -> Floats:
        """Return each frame's confidence (N,) from a model fitted without its fold."""
        confidence = np.zeros(len(self.probability))
        for fold in np.unique(self.fold):
            test = self.fold == fold
            model = fit_confidence(self.probability[~test], self.evidence[~test],
                                   self.right[~test], prior, frames=self.counts[~test])
            confidence[test] = model.confidence(self.probability[test], self.evidence[test])
        return confidence

    def confidence(self, model: ConfidenceModel) -> Floats:
        """Return how confident a model is of each frame (N,)."""
        return model.confidence(self.probability, self.evidence)


def gather(runs: Sequence[tuple[PlaceMap, KnownDrive]], encoder: Encoder,
           calibration: Calibration, mode: Mode, correct_radius: float, max_speed: float, *,
           unmapped: bool = True) -> Examples:
    """
    Localise drives on their maps by a calibration, and return the frames as examples.

    With `unmapped`, each stretch of a drive is also driven on the map without the places around
    it, for examples of frames off the map.
    """
    options = {'correct_radius': correct_radius, 'max_speed': max_speed, 'min_confidence': 0.0,
               'use_filter': mode is not Mode.SINGLE, 'top_k': 1}
    parts: list[list[NDArray[np.generic]]] = []
    for place_map, drive in runs:
        localizer = _localizer(place_map, encoder, calibration, options)
        parts.append(_localised(localizer, drive, mode, mapped=drive.mapped))
        for stretch in drive.stretches(_STRETCHES if drive.mapped and unmapped else 0):
            rest = _without(place_map, stretch)
            if rest is not None:
                localizer = _localizer(rest, encoder, calibration, options)
                parts.append(_localised(localizer, stretch, mode, mapped=False))
    return Examples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _localised(localizer: Localizer, drive: KnownDrive, mode: Mode, *, mapped: bool
               ) -> list[NDArray[np.generic]]:
    """Return the columns of Examples for one drive, without frames that have no true pose."""
    rows = []
    folds = np.arange(len(drive)) * (_FOLDS if mapped else 1) // max(len(drive), 1)
    settling = 0 if mode is Mode.SINGLE else min(_SETTLING, len(drive) // 2)
    for number, (descriptor, stamp, true, odometry) in enumerate(zip(
            drive.descriptors, drive.stamps, drive.truth, drive.odometry, strict=True)):
        used = odometry if mode is Mode.ODOMETRY and np.isfinite(odometry).all() else None
        estimate = localizer.locate(descriptor, int(stamp), used)
        if number < settling or not np.isfinite(true[0]):
            continue
        error = float(poses.distance(estimate.pose, true))
        residual, spread = _residual(estimate, true, localizer.calibration.deviation)
        rows.append((estimate.mode_probability, estimate.evidence,
                     mapped and error <= localizer.correct_radius, mapped, folds[number],
                     residual, spread))
    return [np.array(column) for column in zip(*rows, strict=True)]


def _residual(estimate: Estimate, true: Floats, deviation: tuple[float, float, float]
              ) -> tuple[Floats, Floats]:
    """Return the error (2,) of an estimate, metres ahead and aside, and its variance (2,)."""
    yaw = float(poses.heading(estimate.pose))
    axes = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    # The deviation is what is to be fitted: only the belief's own part of the covariance counts.
    variance = np.diag(axes @ estimate.covariance[:2, :2] @ axes.T) - np.square(deviation[:2])
    return axes @ (true[:2] - estimate.pose[:2]), variance


def _localizer(place_map: PlaceMap, encoder: Encoder, calibration: Calibration,
               options: dict[str, float]) -> Localizer:
    return Localizer(encoder, place_map.calibrated(calibration),
                     **options)  # type: ignore[arg-type]


def _without(place_map: PlaceMap, stretch: KnownDrive) -> PlaceMap | None:
    """Return the map without the places near a drive; None when too few places are left."""
    true = stretch.truth[np.isfinite(stretch.truth[:, 0])]
    if not len(true):
        return None
    rest = np.flatnonzero([poses.distance(true, pose).min() > defaults.EXCLUSION_RADIUS
                           for pose in place_map.poses])
    return place_map.select(rest) if len(rest) >= FEWEST else None
