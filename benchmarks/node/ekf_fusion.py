"""
Fusing wheels and poses with config/ekf.yaml: errors with it, and without its main settings.

The filter has the equations of robot_localization's ekf_node in the plane: x, y, yaw and their
rates, with the settings of config/ekf.yaml. It shows the effect of the settings; the node itself
does not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import street_map
from benchmarks.lib import tables
import numpy as np
from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import packaged
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import open_features
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.refine import Refiner
from vpr_ros.street.record import MOUNT
from vpr_ros.street.record import TWIST_VARIANCE
import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.street import DriveFrame

RATE = 5.0
PLANE = [0, 1, 5]
"""x, y and yaw among the six axes of a pose, and of a twist."""
NOISE = np.diag([0.05, 0.05, 0.06, 0.025, 0.025, 0.02])
"""Process noise per second: robot_localization's default process_noise_covariance."""
WRONG = 50.0
"""Error in metres of the poses that are falsified."""
KIDNAPPED = (5.0, 10.0, 50.0)
"""Metres by which the robot is moved."""


@dataclass(frozen=True)
class Settings:
    """Settings of the filter: rejection threshold (sigmas), variances (6,), frames of delay."""

    threshold: float
    initial: NDArray[np.float64]
    late: int = 0


@dataclass(frozen=True)
class Drive:
    """
    A drive of N frames: truth (N,3) and poses (N,3) as x y yaw, covariances (N,3,3), speeds.

    `published` (N,) marks the frames with a pose; `speeds` (N,3) are forward, sideways, yaw rate.
    """

    truth: NDArray[np.float64]
    poses: NDArray[np.float64]
    covariances: NDArray[np.float64]
    published: NDArray[np.bool_]
    speeds: NDArray[np.float64]


class Filter:
    """An extended Kalman filter over x, y, yaw and the speeds in the robot's frame."""

    def __init__(self, initial: NDArray[np.float64]) -> None:
        self.state = np.zeros(6)
        self.covariance = np.diag(initial)
        self._begun = False

    def predict(self, seconds: float) -> None:
        """Move on at the current speeds."""
        if not self._begun:
            return
        x, y, yaw, ahead, aside, rate = self.state
        c, s = np.cos(yaw), np.sin(yaw)
        jacobian = np.eye(6)
        jacobian[0, 2:5] = np.array([-s * ahead - c * aside, c, -s]) * seconds
        jacobian[1, 2:5] = np.array([c * ahead - s * aside, s, c]) * seconds
        jacobian[2, 5] = seconds
        self.state = np.array([x + (c * ahead - s * aside) * seconds,
                               y + (s * ahead + c * aside) * seconds,
                               _wrapped(yaw + rate * seconds), ahead, aside, rate])
        self.covariance = jacobian @ self.covariance @ jacobian.T + NOISE * seconds

    def correct(self, values: NDArray[np.float64], covariance: NDArray[np.float64],
                axes: slice, threshold: float = np.inf) -> bool:
        """Fuse a measurement of some axes; return False if the threshold rejects it."""
        if not self._begun:  # the first measurement sets its axes
            self.state[axes] = values
            self.covariance[axes, axes] = covariance
            self._begun = True
            return True
        innovation = values - self.state[axes]
        if axes.start == 0:
            innovation[2] = _wrapped(innovation[2])
        spread = self.covariance[axes, axes] + covariance
        if innovation @ np.linalg.solve(spread, innovation) >= threshold ** 2:
            return False
        gain = np.linalg.solve(spread, self.covariance[axes]).T
        self.state = self.state + gain @ innovation
        self.state[2] = _wrapped(self.state[2])
        rest = np.eye(6)
        rest[:, axes] -= gain
        self.covariance = rest @ self.covariance @ rest.T + gain @ covariance @ gain.T
        return True


def ekf_fusion(model: str | None = None, length: float = 600.0) -> dict[str, Any]:
    """Drive `length` m in spring on a winter map; return the errors for each setting."""
    parameters = yaml.safe_load(packaged('config/ekf.yaml').read_text())['/**']['ros__parameters']
    initial = np.diag(np.reshape(parameters['initial_estimate_covariance'], (15, 15)))
    settings = Settings(parameters['pose0_rejection_threshold'], initial[[0, 1, 5, 6, 7, 11]])
    drive, refined = _drives(model, length)
    if not drive.published.any():
        raise VprError(f'no frame has a pose within {length:g} m: give a larger --length')
    first = int(np.argmax(drive.published))
    wheels = replace(drive, published=np.arange(len(drive.published)) == first)
    outliers = _with_outliers(drive)
    alone, refined_alone = (
        np.linalg.norm((each.poses - each.truth)[each.published, :2], axis=1)
        for each in (drive, refined))
    rows: list[tuple[object, ...]] = [
        ('the poses alone', *_spread(alone), '', ''),
        ('wheels alone, from the first pose', *_errors(wheels, settings)),
        ('both, config/ekf.yaml', *_errors(drive, settings)),
        ('refined poses alone', *_spread(refined_alone), '', ''),
        ('both, refined poses', *_errors(refined, settings)),
        ('with the default initial covariance, 1e-9',
         *_errors(drive, replace(settings, initial=np.full(6, 1e-9)))),
        ('poses 0.2 s late, smooth_lagged_data off', *_errors(drive, replace(settings, late=1))),
        (f'one pose in 20 wrong by about {WRONG:g} m', *_errors(outliers, settings)),
        ('the same, without a rejection threshold',
         *_errors(outliers, replace(settings, threshold=np.inf))),
        (f'the first pose wrong by {WRONG:g} m', *_errors(_misled(drive), settings))]
    header = ('input', 'median m', '95 % m', 'worst m', 'rejected', 'NEES')
    tables.show(f'Wheels and poses, {len(drive.published)} frames at {RATE:g} Hz, '
                f'{drive.published.sum()} with a pose', header, rows)
    kidnapped = [(metres, *_recovery(drive, settings, metres)) for metres in KIDNAPPED]
    tables.show('The robot is kidnapped: time until the error is below 2 m',
                ('metres', 'seconds', 'poses rejected'), kidnapped)
    return {'header': header, 'rows': rows, 'kidnapped': kidnapped, 'frames': len(drive.published)}


def _drives(model: str | None, length: float) -> tuple[Drive, Drive]:
    """Return a drive with the poses of places, and with those that landmarks refine."""
    encoder, features = Encoder(model), open_features()
    place_map = street_map.winter_map(encoder, length, features)
    localizer = Localizer(encoder, place_map)
    refiner = Refiner(place_map, features, street_map.CAMERA, MOUNT)
    frames, estimates, refined = [], [], []
    for frame in street_map.spring_drive(length, RATE):
        estimate = localizer.localize(frame.image, frame.stamp, frame.odometry)
        estimates.append(estimate)
        refined.append(refiner.refine(estimate, refiner.look(frame.image))
                       if estimate.trusted else estimate)
        frames.append(frame)
    share = np.mean([each.refined for each in refined if each.trusted] or [0.0])
    print(f'{share:.0%} of the poses are refined')
    return _drive(frames, estimates), _drive(frames, refined)


def _drive(frames: Sequence[DriveFrame], estimates: Sequence[Estimate]) -> Drive:
    return Drive(
        _plane(np.array([frame.pose for frame in frames])),
        _plane(np.array([estimate.pose for estimate in estimates])),
        np.array([estimate.covariance[np.ix_(PLANE, PLANE)] for estimate in estimates]),
        np.array([estimate.trusted for estimate in estimates]),
        np.array([[frame.velocity[0], 0.0, frame.velocity[1]] for frame in frames]))


def _run(drive: Drive, settings: Settings, kidnapped: float = 0.0
         ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """
    Return errors (N,) in m, NEES (N,), and which poses (N,) were rejected.

    From the middle of the drive on, the robot is `kidnapped` by so many metres in x.
    """
    filter_ = Filter(settings.initial)
    count = len(drive.published)
    errors, nees, rejected = np.zeros(count), np.zeros(count), np.zeros(count, bool)
    for n in range(count):
        moved = np.array([kidnapped if n >= count // 2 else 0.0, 0.0, 0.0])
        if n:
            filter_.predict(1 / RATE)
        filter_.correct(drive.speeds[n], TWIST_VARIANCE[np.ix_(PLANE, PLANE)], slice(3, 6))
        seen = n - settings.late
        if seen >= 0 and drive.published[seen]:
            rejected[n] = not filter_.correct(drive.poses[seen] + moved, drive.covariances[seen],
                                              slice(0, 3), settings.threshold)
        error = filter_.state[:3] - drive.truth[n] - moved
        error[2] = _wrapped(error[2])
        errors[n] = np.hypot(*error[:2])
        nees[n] = error @ np.linalg.solve(filter_.covariance[:3, :3], error) / 3
    return errors, nees, rejected


def _errors(drive: Drive, settings: Settings) -> tuple[object, ...]:
    errors, nees, rejected = _run(drive, settings)
    known = slice(int(np.argmax(drive.published)) + settings.late, None)
    return *_spread(errors[known]), int(rejected.sum()), float(nees[known].mean())


def _recovery(drive: Drive, settings: Settings, kidnapped: float) -> tuple[float, int]:
    errors, _, rejected = _run(drive, settings, kidnapped)
    middle = len(errors) // 2
    near = np.flatnonzero(errors[middle:] < 2)
    return float(near[0]) / RATE if len(near) else np.nan, int(rejected.sum())


def _with_outliers(drive: Drive) -> Drive:
    rng = np.random.default_rng(0)
    falsified = drive.poses.copy()
    wrong = rng.random(len(falsified)) < 0.05
    wrong[np.argmax(drive.published)] = False  # the next row tries that
    falsified[wrong, :2] += rng.normal(0, WRONG, (int(wrong.sum()), 2))
    return replace(drive, poses=falsified)


def _misled(drive: Drive) -> Drive:
    misled = drive.poses.copy()
    misled[np.argmax(drive.published), 0] += WRONG
    return replace(drive, poses=misled)


def _spread(errors: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(np.median(errors)), float(np.quantile(errors, 0.95)), float(errors.max())


def _plane(full: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([full[:, :2], poses.heading(full)])


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--length', type=float, default=600.0, help='metres of the drive')
    options = parser.parse_args()
    return tables.answer(options, lambda: ekf_fusion(options.model, options.length))


if __name__ == '__main__':
    sys.exit(main())
