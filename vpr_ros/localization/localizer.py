"""
Localizer: a picture and its stamp in, an Estimate out.

The robot, the offline replay and the evaluation run this one class. It knows of no messages, no
node and no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.errors import OutOfOrderError
from vpr_ros.localization.belief import Belief
from vpr_ros.localization.running_mean import DriveMean
from vpr_ros.localization.running_mean import DriveState
from vpr_ros.localization.running_mean import RECENT
from vpr_ros.localization.running_mean import YOUNG
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.place_map import centre

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.maps.calibration import Curve
    from vpr_ros.maps.place_map import PlaceMap

CLOCK_JUMP = 1_000_000_000
"""A stamp that goes back by more, in ns, is a clock that was set (a bag that loops)."""

STANDSTILL = 0.99
"""Cosine similarity of two descriptors above which they differ by no more than camera noise."""

_SAMPLE = 512
"""Places that tell what similarity is usual for a frame."""

_WEIGHED = 256
"""Places whose similarity is weighed one by one; the others count as not similar."""

_WORSE = 2 / 3
"""Standard deviations by which the latest frame may fall short of what was lately seen."""

_TURN = 0.1

_NEGLIGIBLE = 1e-9

_FAINT = 1e-3
"""Share of the likeliest place's belief below which a place is no mode."""

_UNKNOWN = np.full(7, np.nan), 0

_FINE = 2.0
"""Spacings that the fastest robot drives before the belief moves without odometry: in shorter
steps the map's grid would not tell one speed from another."""

_STILL = 0.002
"""Metres, or radians, from frame to frame below which odometry says that the robot stands."""


@dataclass(frozen=True)
class Candidates:
    """
    Places that may be the one, best first.

    places int64 (k,); similarity float32 (k,) cosine; probability float64 (k,) that this is the
    place; poses float64 (k,7).
    """

    places: NDArray[np.int64]
    similarity: NDArray[np.float32]
    probability: NDArray[np.float64]
    poses: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """
    Where the camera's robot is, and how sure that is.

    stamp int ns, that of the picture; pose float64 (7,) and covariance float64 (6,6) (metres,
    radians; symmetric positive definite) in the map's frame: the best guess, which is to be used
    only when `trusted`; confidence in [0,1], the probability that the pose is within
    `correct_radius` of the truth, which is read off the belief's `mass` there and the `support`
    for it: the mean log-likelihood ratio on the way there (belief.py), unless the latest frame
    says otherwise; candidates, the places most similar to this one picture; `reason`, why it is
    not trusted ('' when it is).
    """

    stamp: int
    pose: NDArray[np.float64]
    covariance: NDArray[np.float64]
    confidence: float
    candidates: Candidates
    mass: float
    support: float
    reason: str = ''

    @property
    def trusted(self) -> bool:
        """Whether the confidence reaches the asked-for precision."""
        return not self.reason


class Localizer:
    """
    Finds pictures on a map. One instance follows one drive; it is not thread-safe.

    `top_k` candidates are reported; `min_confidence` is the confidence from which an estimate is
    trusted; `correct_radius`, in metres, is what counts as right; `compensate` centres each
    descriptor on the drive's running mean; `filter` carries the belief from frame to frame, where
    without odometry the robot is thought to drive at most at `max_speed` (m/s), and odometry to be
    off by `odometry_error` metres per metre. All of these may be changed between frames.
    """

    def __init__(self, encoder: Encoder, place_map: PlaceMap, *, top_k: int = defaults.TOP_K,
                 min_confidence: float = defaults.MIN_CONFIDENCE,
                 correct_radius: float = defaults.CORRECT_RADIUS,
                 compensate: bool = True, filter: bool = True,  # noqa: A002 (the node's name)
                 max_speed: float = defaults.MAX_SPEED,
                 odometry_error: float = defaults.ODOMETRY_ERROR) -> None:
        self.encoder = encoder
        self.place_map = place_map
        self.top_k = top_k
        self.min_confidence = min_confidence
        self.correct_radius = correct_radius
        self.compensate = compensate
        self.filter = filter
        self.max_speed = max_speed
        self.odometry_error = odometry_error
        self.calibration = Calibration(**place_map.manifest.calibration)
        self._belief = Belief(place_map.poses, place_map.manifest.spacing)
        self._mean = DriveMean(place_map.mean)
        sample = np.random.default_rng(0).permutation(len(place_map))[:_SAMPLE]
        self._sample = place_map.vectors(np.sort(sample))
        self._agreement = 0.0  # the log-likelihood ratio of the latest frame at the belief's mode
        self._query = np.zeros_like(place_map.mean)
        self._resumable: DriveState | None = None
        self._last_stamp: int | None = None
        self._last_pose = _UNKNOWN
        self._last_view: NDArray[np.float32] | None = None
        self._last_query: NDArray[np.float32] | None = None
        self._last_odometry: NDArray[np.float64] | None = None
        self._rest()

    def forget(self) -> None:
        """Forget the drive so far: the next frame is the first."""
        self._mean.reset()
        self._belief.forget()
        self._agreement = 0.0
        self._last_stamp = self._last_view = self._resumable = None
        self._last_pose = _UNKNOWN
        self._rest()

    @property
    def state(self) -> DriveState | None:
        """What to keep over a restart; None before the first frame."""
        if self._last_stamp is None:
            return None
        return DriveState(self._mean.value.copy(), self._mean.weight, self._last_stamp,
                          *self._last_pose)

    @property
    def belief(self) -> NDArray[np.float64]:
        """The probability (N,) of each place of the map."""
        return self._belief.places

    def modes(self) -> Candidates:
        """
        Return where the belief is after the latest frame: its modes, at most `top_k`.

        Places that hold more of it than any other within `correct_radius`, each with all that is
        held there as its probability; without those that hold next to nothing. The similarity is
        to the latest picture.
        """
        belief = self._belief.places
        heavy = np.flatnonzero(belief >= _FAINT * belief.max())
        if len(heavy) > _WEIGHED:
            heavy = heavy[np.argpartition(belief[heavy], -_WEIGHED)[-_WEIGHED:]]
        heavy = heavy[np.argsort(-belief[heavy], kind='stable')]
        positions, mass = self.place_map.poses[heavy, :3], belief[heavy]
        chosen: list[int] = []
        held: list[float] = []
        free = np.ones(len(heavy), np.bool_)
        while free.any() and len(chosen) < self.top_k:
            top = int(free.argmax())
            off = positions - positions[top]
            own = free & (np.einsum('ij,ij->i', off, off) <= self.correct_radius ** 2)
            chosen.append(top)
            held.append(float(mass[own].sum()))
            free &= ~own
        order = np.argsort(-np.array(held), kind='stable')
        places = heavy[np.array(chosen)[order]]
        similarity = self.place_map.vectors(places) @ self._query
        return Candidates(places, similarity, np.array(held)[order],
                          self.place_map.poses[places])

    def take_over(self, old: Localizer) -> None:
        """
        Go on with the drive that another localiser followed, on another map of the same model.

        The drive's running mean and its last stamp are kept, the belief starts over.
        """
        self._mean.value = old._mean.value.copy()
        self._mean.weight = old._mean.weight
        self._last_stamp = old._last_stamp

    def resume(self, state: DriveState) -> None:
        """
        Go on with the running mean of an earlier run, if the first frame shows it is young.

        Only if it is of the last seconds, a node that crashed, it says where the robot is, too:
        later it may have been moved. Raises ValueError for a state of another dimension, or that
        is not finite.
        """
        if state.mean.shape != self._mean.start.shape or state.pose.shape != (7,) \
                or not np.isfinite(state.mean).all() or not state.weight >= 1:
            raise ValueError('the kept state is not one of this model')
        self._resumable = state

    def expect(self, pose: NDArray[np.float64], deviation: float) -> None:
        """Start over around a pose (7,) in the map's frame, within `deviation` metres."""
        self._belief.expect(pose, deviation)
        self._pending = np.zeros(3)

    def localize(self, rgb: NDArray[np.uint8], stamp: int,
                 odometry: NDArray[np.float64] | None = None) -> Estimate:
        """
        Return the estimate for a uint8 (H,W,3) picture taken at `stamp` (ns).

        `odometry` is the pose (7,) at that time in a frame that does not jump (REP-105 odom), or
        None. A stamp more than a second before the last one starts a new drive; one that is
        otherwise not after the last raises OutOfOrderError.
        """
        return self.locate(self.encoder.encode(rgb), stamp, odometry)

    def locate(self, descriptor: NDArray[np.float32], stamp: int,
               odometry: NDArray[np.float64] | None = None) -> Estimate:
        """Return the estimate for a descriptor float32 (D,), as `localize` does for a picture."""
        if odometry is not None and not np.isfinite(odometry).all():
            odometry = None
        seconds = self._follow_clock(stamp)
        step = None
        if odometry is not None and self._last_odometry is not None:
            step = poses.relative(self._last_odometry, odometry)
        self._last_odometry = odometry
        standing = self._stands(descriptor, step)
        if self.compensate and not standing:
            self._mean.feed(descriptor)
        query = self._query = centre(
            descriptor, self._mean.value if self.compensate else self._mean.start)
        similarity, places = self.place_map.search(query[None], max(self.top_k, _WEIGHED))
        similarity, places = similarity[0], places[0]
        if self.filter:
            self._move(0.0 if standing else seconds, step)
            novelty = self._novelty(query)
            way = 'filter' if odometry is None else 'odometry'
        else:
            self._belief.forget()
            self._rest()
            novelty, way = 1.0, 'single'
        curve = self.calibration.curves[way]
        # Not BLAS: it would wait for cores that the network keeps busy.
        usual = np.einsum('nd,d->n', self._sample, query)
        scores = (similarity - usual.mean()) / max(float(usual.std()), 1e-3)
        found = similarity > -1  # an approximate index fills up with place 0
        ratios = np.where(found, self.calibration.ratios(scores), self.calibration.outliers)
        self._belief.update(places[found], ratios[found], self.calibration.outliers,
                            weight=novelty * curve.weight, novelty=novelty)
        near, mass = self._mode()
        self._agreement += novelty * (self._agreed(places, ratios, near) - self._agreement)
        support = self._agreement
        if self.filter:
            # Who was carried off sees so at once: one frame may be a little worse than the others.
            support = min(support + _WORSE * self.calibration.separation,
                          float(mass @ self._belief.support_of(near)) / mass.sum())
        estimate = self._estimate(similarity[:self.top_k], places[:self.top_k], stamp, curve, near,
                                  mass, support)
        if estimate.trusted:
            self._last_pose = estimate.pose, stamp
        return estimate

    def _follow_clock(self, stamp: int) -> float:
        """Return the seconds since the last frame, and start over when the clock was set back."""
        last, seconds = self._last_stamp, 0.0
        if last is not None and stamp <= last:
            if last - stamp <= CLOCK_JUMP:
                raise OutOfOrderError(f'a frame at {stamp / 1e9:.3f} s came after one at '
                                      f'{last / 1e9:.3f} s')
            self.forget()
        elif last is not None:
            seconds = (stamp - last) / 1e9
        if self._resumable is not None:
            pose, age = self._resumable.pose, stamp - self._resumable.posed
            if 0 <= stamp - self._resumable.stamp <= YOUNG:
                self._mean.value = self._resumable.mean.astype(np.float32)
                self._mean.weight = self._resumable.weight
            if 0 <= age <= RECENT and np.isfinite(pose).all():
                self._belief.expect(pose, self.correct_radius + self.max_speed * age / 1e9)
            self._resumable = None
        self._last_stamp = stamp
        return seconds

    def _rest(self) -> None:
        """Drop the motion that was saved up."""
        self._last_query = self._last_odometry = None
        self._pending = np.zeros(3)
        self._pending_seconds = 0.0

    def _stands(self, descriptor: NDArray[np.float32], step: NDArray[np.float64] | None) -> bool:
        """
        Return whether the robot is where it was: then no time passes for the belief.

        By odometry's step (3,), or without it when the view is that of the last frame that moved.
        """
        if step is not None:
            return bool(np.hypot(*step[:2]) < _STILL and abs(step[2]) < _STILL)
        if self._last_view is not None and float(descriptor @ self._last_view) > STANDSTILL:
            return True
        self._last_view = descriptor
        return False

    def _move(self, seconds: float, step: NDArray[np.float64] | None) -> None:
        """
        Let the belief follow the robot; less than a spacing is saved up for later.

        Mass that moves in many small steps would spread by the map's grid in each of them.
        """
        self._pending_seconds += seconds
        motion = None
        if step is not None:
            motion = self._pending = _chained(self._pending, step)
        if motion is None:
            if self._pending_seconds * self.max_speed < _FINE * self._belief.spacing:
                return
        elif np.hypot(*motion[:2]) < self._belief.spacing and abs(motion[2]) < _TURN:
            return
        if self._pending_seconds > 0:
            self._belief.predict(self._pending_seconds, motion, self.max_speed,
                                 self.odometry_error)
        self._pending = np.zeros(3)
        self._pending_seconds = 0.0

    def _novelty(self, query: NDArray[np.float32]) -> float:
        """Return how much of a frame, in [0,1], was not already in the one before it."""
        last, self._last_query = self._last_query, query
        return 1.0 if last is None else 1 - max(0.0, float(query @ last)) ** 2

    def _mode(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the places (m,) within `correct_radius` of the likeliest, and their mass."""
        belief = self._belief.places
        near = self._belief.within(int(belief.argmax()), self.correct_radius)
        return near, belief[near]

    def _agreed(self, places: NDArray[np.int64], ratios: NDArray[np.float64],
                near: NDArray[np.int64]) -> float:
        """Return the greatest log-likelihood ratio that a frame has at one of some places."""
        # `near` is in order: not np.isin, which takes four times as long for so few.
        own = ratios[near[np.minimum(np.searchsorted(near, places), len(near) - 1)] == places]
        return float(np.log(own.max(initial=self.calibration.outliers)))

    def _estimate(self, similarity: NDArray[np.float32], places: NDArray[np.int64], stamp: int,
                  curve: Curve, near: NDArray[np.int64], weights: NDArray[np.float64],
                  support: float) -> Estimate:
        """Return the pose of the belief's mode: the mean of the places `near` the likeliest."""
        belief, all_poses = self._belief.places, self.place_map.poses
        mass = min(1.0, float(weights.sum()))
        confidence = float(curve.confidence(mass, support))
        pose = poses.mean(all_poses[near], weights)
        covariance = poses.covariance(all_poses[near], weights, pose, np.zeros(6)) \
            + self._deviation(pose)
        pose = poses.moved(pose, self._pending)
        reason = ''
        if not confidence >= self.min_confidence:  # nor NaN
            reason = ('off the map' if self._belief.nowhere > 0.5 else 'ambiguous')
        return Estimate(stamp, pose, covariance, confidence,
                        Candidates(places, similarity, belief[places], all_poses[places]),
                        mass, support, reason)

    def _deviation(self, pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Return the covariance (6,6) of a robot that is at a place, but not exactly there.

        The map's grid, and how far robots drive beside their old track (`Calibration.deviation`).
        """
        ahead, aside, turn = np.square(self.calibration.deviation)
        grid = self._belief.spacing ** 2 / 12
        yaw = float(poses.heading(pose))
        axes = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        covariance = np.diag([grid + ahead, grid + aside, grid + 0.1 ** 2, turn, turn, turn])
        plane = axes @ np.diag([grid + ahead, aside + 1e-4]) @ axes.T
        plane[0, 1] = plane[1, 0] = plane[0, 1] if abs(plane[0, 1]) > _NEGLIGIBLE else 0.0
        covariance[:2, :2] = plane
        return covariance


def _chained(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the planar motion (ahead, left, turn) of one after the other."""
    cosine, sine = np.cos(first[2]), np.sin(first[2])
    return first + np.array([cosine * second[0] - sine * second[1],
                             sine * second[0] + cosine * second[1], second[2]])
