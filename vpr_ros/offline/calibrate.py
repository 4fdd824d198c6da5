"""
Calibrate a map: fit its confidence to drives with known poses.

The models that are fitted are in maps/confidence.py; a map is calibrated without such drives in
self_calibrate.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import logging
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import pose_track
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.metrics import BINS
from vpr_ros.core.metrics import calibration_error
from vpr_ros.core.metrics import reliability
from vpr_ros.io.bag import Bag
from vpr_ros.io.frames import LeftOut
from vpr_ros.io.map_poses import bag_poses
from vpr_ros.io.map_poses import CHECKED
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.camera_check import CameraCheck
from vpr_ros.maps.confidence import DEFAULT_MODELS
from vpr_ros.maps.confidence import Mode
from vpr_ros.offline.calibration_examples import Examples
from vpr_ros.offline.calibration_examples import FEWEST
from vpr_ros.offline.calibration_examples import gather
from vpr_ros.offline.calibration_examples import KnownDrive
from vpr_ros.offline.descriptors import encoded
from vpr_ros.offline.odometry import read_odometry
from vpr_ros.offline.odometry import warn_if_unused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.map_poses import PoseOptions
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

_MODE_NAMES = {Mode.ODOMETRY: 'with odometry', Mode.SEQUENCE: 'without odometry',
               Mode.SINGLE: 'single frames'}


@dataclass(frozen=True)
class Fit:
    """
    A fitted calibration, beside the map's previous one.

    For each mode that was fitted: the examples, and their held-out confidence (N,).
    `examples_before` are the examples by the previous calibration, whose likelihood may give other
    beliefs and poses for the same drives, and `before` (N,) is its confidence.
    """

    calibration: Calibration
    examples: dict[Mode, Examples]
    held_out: dict[Mode, Floats]
    before: dict[Mode, Floats]
    examples_before: dict[Mode, Examples]

    def errors(self, mode: Mode) -> tuple[float, float]:
        """Return the expected calibration error on mapped frames before, and held out after."""
        before, after = self.examples_before[mode], self.examples[mode]
        return (calibration_error(self.before[mode][before.mapped], before.right[before.mapped]),
                calibration_error(self.held_out[mode][after.mapped], after.right[after.mapped]))

    def false_accepts(self, mode: Mode, threshold: float) -> tuple[float, float]:
        """Return the shares of unmapped frames with a pose before, and held out after."""
        off = ~self.examples[mode].mapped
        if not off.any():
            return float('nan'), float('nan')
        return (float((self.before[mode][off] >= threshold).mean()),
                float((self.held_out[mode][off] >= threshold).mean()))


def read_drive(path: str | Path, encoder: Encoder, *, truth_topic: str | None = None,
               image_topic: str | None = None, odometry_topic: str | None = None,
               use_odometry: bool = True, poses: PoseOptions = CHECKED,
               cameras: Sequence[Camera] = ()) -> KnownDrive:
    """
    Read a bag as a drive: its frames encoded, with true poses from `truth_topic`.

    Without a name, the best image and pose topics and the first odometry are taken; no odometry
    without `use_odometry`, or, after a warning, where none is usable. `poses` says how the true
    ones are read. Frames of another camera than one of `cameras`, the map's, are left out, as are
    bad ones. Raises SourceError when fewer than 30 frames have a true pose, PoseError when they
    cannot be right.
    """
    descriptors: list[NDArray[np.float32]] = []
    stamps: list[int] = []
    odometry: list[Floats] = []
    left_out = LeftOut()
    with Bag(path) as bag:
        topic = bag.image_topic(image_topic)
        truth = bag_poses(bag, truth_topic, poses)
        track = read_odometry(bag, odometry_topic) if use_odometry else None
        check = CameraCheck(cameras, bag.camera(topic))
        for stamp, seen in tqdm(encoded(bag.images(topic), encoder, check), desc=str(path),
                                total=bag.count(topic), unit='frame', disable=None):
            if stamps and stamp <= stamps[-1]:
                continue
            try:
                descriptors.append(seen.result().descriptor)
            except ImageError as error:
                left_out.add(error)
                continue
            stamps.append(stamp)
            pose = pose_track.at(track, stamp)
            odometry.append(np.full(7, np.nan) if pose is None else pose)
        times = np.array(stamps, np.int64)
        warn_if_unused(bag, track, times)
    if not stamps:
        raise SourceError(f'{path} has no usable frame: {left_out}')
    if check.warning:
        log.warning('%s: %s', path, check.warning)
    if left_out:
        log.warning('%s: %s', path, left_out)
    true, known = pose_track.interpolate(truth, times)
    if known.sum() < FEWEST:
        raise SourceError(f'{path}: {known.sum()} frames have a true pose, at least {FEWEST} are '
                          'needed: name the topic with --truth-topic')
    return KnownDrive(str(path), np.array(descriptors, np.float32), times, true,
                      np.array(odometry))


def calibrate(place_map: PlaceMap, encoder: Encoder, drives: Sequence[KnownDrive], *,
              correct_radius: float = defaults.CORRECT_RADIUS,
              max_speed: float = defaults.MAX_SPEED) -> Fit:
    """
    Fit the calibration of a map to drives through it: its confidence models and deviation.

    Each drive is also driven on the map without the places around it, where every pose is wrong.
    The prior of the models are the defaults, which hold for the default likelihood and weights,
    not the map's previous calibration.
    """
    modes = [mode for mode in Mode
             if mode is not Mode.ODOMETRY or any(drive.has_odometry for drive in drives)]
    previous, default = place_map.manifest.calibration, Calibration()
    runs = [(place_map, drive) for drive in drives]
    examples: dict[Mode, Examples] = {}
    examples_before: dict[Mode, Examples] = {}
    for mode in tqdm(modes, desc='calibrate', unit='mode', disable=None):
        examples[mode] = gather(runs, encoder, default, mode, correct_radius, max_speed)
        examples_before[mode] = examples[mode] if _same_belief(previous, default, mode) else \
            gather(runs, encoder, previous, mode, correct_radius, max_speed)
    fitted = replace(
        default, deviation=_deviation(examples[modes[0]], len(drives)),
        confidence={mode: part.fit(DEFAULT_MODELS[mode]) for mode, part in examples.items()},
        fitted_on=_fitted_on(drives))
    return Fit(
        fitted, examples, examples_before=examples_before,
        held_out={mode: part.held_out(DEFAULT_MODELS[mode]) for mode, part in examples.items()},
        before={mode: part.confidence(previous.confidence[mode])
                for mode, part in examples_before.items()})


def _fitted_on(drives: Sequence[KnownDrive]) -> str:
    frames = sum(int(np.isfinite(drive.truth[:, 0]).sum()) for drive in drives)
    return ', '.join(drive.name for drive in drives) + f': {frames} frames'


def report(fit: Fit) -> Iterator[str]:
    """Yield lines on how good a fit is, on held-out stretches that it was not fitted to."""
    for mode, examples in fit.examples.items():
        before, after = fit.errors(mode)
        false_before, false_after = fit.false_accepts(mode, defaults.MIN_CONFIDENCE)
        yield (f'{_MODE_NAMES[mode]}: calibration error {before:.3f} before, {after:.3f} now; '
               f'unmapped frames with confidence >= {defaults.MIN_CONFIDENCE:g}: '
               f'{false_before:.1%} before, {false_after:.1%} now')
        yield '  confidence    frames    mean   right'
        for number, (count, confidence, right) in enumerate(
                reliability(fit.held_out[mode][examples.mapped], examples.right[examples.mapped])):
            if count:
                yield (f'  {number / BINS:.1f} to {(number + 1) / BINS:.1f}  {count:>8}  '
                       f'{confidence:6.3f}  {right:6.3f}')


def _same_belief(a: Calibration, b: Calibration, mode: Mode) -> bool:
    """Return whether two calibrations give the same belief for a drive: the same likelihood."""
    return (a.separation, a.outliers, a.largest, a.confidence[mode].weight) == (
        b.separation, b.outliers, b.largest, b.confidence[mode].weight)


def _deviation(examples: Examples, drives: int) -> tuple[float, float, float]:
    """
    Return how far (m ahead, m aside, rad; 1 sigma) robots are from the right place.

    A robot stays on one line during a drive, so that a drive counts as one measurement; the
    default counts as one more.
    """
    default, right = Calibration().deviation, examples.right
    if right.sum() < FEWEST:
        return default
    excess = (np.square(examples.residual[right]) - examples.spread[right]).mean(axis=0)
    ahead, aside = np.sqrt((drives * np.maximum(excess, 0.0) + np.square(default[:2]))
                           / (drives + 1))
    return float(ahead), float(aside), default[2]
