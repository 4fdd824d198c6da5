"""
What config/ekf.yaml makes of wheels and poses: errors with it, and without its main settings.

The filter here has the equations of robot_localization's ekf_node, for the ground: x, y, yaw and
their speeds. It takes its settings from config/ekf.yaml. It is not that node, and shows what the
settings do, not what the node costs.
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
from vpr_ros.localization.localizer import Localizer
from vpr_ros.street.record import TWIST_VARIANCE
import yaml

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE = 5.0
PLANE = [0, 1, 5]
"""x, y and yaw among the six axes of a pose, and of a twist."""
NOISE = np.diag([0.05, 0.05, 0.06, 0.025, 0.025, 0.02])
"""What robot_localization adds per second, unless process_noise_covariance says otherwise."""
WRONG = 50.0
"""Metres that a pose which was made wrong is off."""
CARRIED = (5.0, 10.0, 50.0)


@dataclass(frozen=True)
class Settings:
    """What of config/ekf.yaml is tried: sigmas, variances (6,), and frames that poses are late."""

    threshold: float
    initial: NDArray[np.float64]
    late: int = 0


@dataclass(frozen=True)
class Drive:
    """
    A drive of N frames: truth (N,3) and poses (N,3) as x y yaw, covariances (N,3,3), speeds.

    `given` (N,) says which frames have a pose; `speeds` (N,3) are forward, sideways and yaw rate.
    """

    truth: NDArray[np.float64]
    poses: NDArray[np.float64]
    covariances: NDArray[np.float64]
    given: NDArray[np.bool_]
    speeds: NDArray[np.float64]


class Filter:
    """An extended Kalman filter over x, y, yaw and their speeds in the robot's frame."""

    def __init__(self, initial: NDArray[np.float64]) -> None:
        self.state = np.zeros(6)
        self.covariance = np.diag(initial)
        self._begun = False

    def predict(self, seconds: float) -> None:
        """Go on at the present speeds."""
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
        """Take a measurement of some axes; return whether it was near enough to be taken."""
        if not self._begun:  # the first one is believed as it is, and says nothing of the others
            self.state[axes] = values
            self.covariance[axes, axes] = covariance
            self._begun = True
            return True
        off = values - self.state[axes]
        if axes.start == 0:
            off[2] = _wrapped(off[2])
        sum_ = self.covariance[axes, axes] + covariance
        if off @ np.linalg.solve(sum_, off) >= threshold ** 2:
            return False
        gain = np.linalg.solve(sum_, self.covariance[axes]).T
        self.state = self.state + gain @ off
        self.state[2] = _wrapped(self.state[2])
        rest = np.eye(6)
        rest[:, axes] -= gain
        self.covariance = rest @ self.covariance @ rest.T + gain @ covariance @ gain.T
        return True


def ekf_fusion(model: str | None = None, length: float = 600.0) -> dict[str, Any]:
    """Drive `length` m of a street in spring on a winter map; return errors by setting."""
    given = yaml.safe_load(packaged('config/ekf.yaml').read_text())['/**']['ros__parameters']
    initial = np.diag(np.reshape(given['initial_estimate_covariance'], (15, 15)))
    settings = Settings(given['pose0_rejection_threshold'], initial[[0, 1, 5, 6, 7, 11]])
    drive = _drive(model, length)
    if not drive.given.any():
        raise VprError(f'not one frame of {length:g} m has a pose: drive farther')
    first = int(np.argmax(drive.given))
    wheels = replace(drive, given=np.arange(len(drive.given)) == first)
    spoilt = _spoilt(drive)
    alone = np.linalg.norm((drive.poses - drive.truth)[drive.given, :2], axis=1)
    rows: list[tuple[object, ...]] = [
        ('the poses alone', *_spread(alone), '', ''),
        ('wheels alone, from the first pose', *_errors(wheels, settings)),
        ('both, config/ekf.yaml', *_errors(drive, settings)),
        ('with the default initial covariance, 1e-9',
         *_errors(drive, replace(settings, initial=np.full(6, 1e-9)))),
        ('poses 0.2 s late, smooth_lagged_data off', *_errors(drive, replace(settings, late=1))),
        (f'one pose in 20 wrong by some {WRONG:g} m', *_errors(spoilt, settings)),
        ('the same, without a rejection threshold',
         *_errors(spoilt, replace(settings, threshold=np.inf))),
        (f'the first pose wrong by {WRONG:g} m', *_errors(_misled(drive), settings))]
    header = ('what comes in', 'median m', '95 % m', 'worst m', 'rejected', 'NEES')
    tables.show(f'Wheels and poses, {len(drive.given)} frames at {RATE:g} Hz, '
                f'{drive.given.sum()} with a pose', header, rows)
    carried = [(metres, *_back(drive, settings, metres)) for metres in CARRIED]
    tables.show('The robot is carried: until it is within 2 m again',
                ('metres', 'seconds', 'poses rejected'), carried)
    return {'header': header, 'rows': rows, 'carried': carried, 'frames': len(drive.given)}


def _drive(model: str | None, length: float) -> Drive:
    encoder = Encoder(model)
    localizer = Localizer(encoder, street_map.winter_map(encoder, length))
    frames, estimates = [], []
    for frame in street_map.spring_drive(length, RATE):
        estimates.append(localizer.localize(frame.image, frame.stamp, frame.odometry))
        frames.append(frame)
    return Drive(
        _plane(np.array([frame.pose for frame in frames])),
        _plane(np.array([estimate.pose for estimate in estimates])),
        np.array([estimate.covariance[np.ix_(PLANE, PLANE)] for estimate in estimates]),
        np.array([estimate.trusted for estimate in estimates]),
        np.array([[frame.velocity[0], 0.0, frame.velocity[1]] for frame in frames]))


def _run(drive: Drive, settings: Settings, carried: float = 0.0
         ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """
    Return errors (N,) in m, NEES (N,), and which poses (N,) were rejected.

    With `carried`, the robot stands so many metres further in x from the middle of the drive on.
    """
    filter_ = Filter(settings.initial)
    count = len(drive.given)
    errors, nees, rejected = np.zeros(count), np.zeros(count), np.zeros(count, bool)
    for n in range(count):
        moved = np.array([carried if n >= count // 2 else 0.0, 0.0, 0.0])
        if n:
            filter_.predict(1 / RATE)
        filter_.correct(drive.speeds[n], TWIST_VARIANCE[np.ix_(PLANE, PLANE)], slice(3, 6))
        seen = n - settings.late
        if seen >= 0 and drive.given[seen]:
            rejected[n] = not filter_.correct(drive.poses[seen] + moved, drive.covariances[seen],
                                              slice(0, 3), settings.threshold)
        off = filter_.state[:3] - drive.truth[n] - moved
        off[2] = _wrapped(off[2])
        errors[n] = np.hypot(*off[:2])
        nees[n] = off @ np.linalg.solve(filter_.covariance[:3, :3], off) / 3
    return errors, nees, rejected


def _errors(drive: Drive, settings: Settings) -> tuple[object, ...]:
    errors, nees, rejected = _run(drive, settings)
    known = slice(int(np.argmax(drive.given)) + settings.late, None)
    return *_spread(errors[known]), int(rejected.sum()), float(nees[known].mean())


def _back(drive: Drive, settings: Settings, carried: float) -> tuple[float, int]:
    errors, _, rejected = _run(drive, settings, carried)
    middle = len(errors) // 2
    near = np.flatnonzero(errors[middle:] < 2)
    return float(near[0]) / RATE if len(near) else np.nan, int(rejected.sum())


def _spoilt(drive: Drive) -> Drive:
    rng = np.random.default_rng(0)
    spoilt = drive.poses.copy()
    wrong = rng.random(len(spoilt)) < 0.05
    wrong[np.argmax(drive.given)] = False  # which is another question
    spoilt[wrong, :2] += rng.normal(0, WRONG, (int(wrong.sum()), 2))
    return replace(drive, poses=spoilt)


def _misled(drive: Drive) -> Drive:
    misled = drive.poses.copy()
    misled[np.argmax(drive.given), 0] += WRONG
    return replace(drive, poses=misled)


def _spread(errors: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(np.median(errors)), float(np.quantile(errors, 0.95)), float(errors.max())


def _plane(given: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([given[:, :2], poses.heading(given)])


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
