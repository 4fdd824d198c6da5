"""
Localizer: an image and its stamp in, an Estimate out.

The robot, the offline replay and the evaluation run this one class. It knows of no messages, no
node and no files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core import uncertainty
from vpr_ros.core.errors import OutOfOrderError
from vpr_ros.localization.belief import Belief
from vpr_ros.localization.drive import Drive
from vpr_ros.localization.estimate import Candidates
from vpr_ros.localization.estimate import Estimate
from vpr_ros.localization.estimate import NoPose
from vpr_ros.localization.running_mean import MEAN_MAX_AGE_NS
from vpr_ros.localization.running_mean import POSE_MAX_AGE_NS
from vpr_ros.localization.running_mean import RunningMean
from vpr_ros.maps.confidence import Mode
from vpr_ros.maps.place_map import centre

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.running_mean import DriveState
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]
    Descriptor = NDArray[np.float32]

CLOCK_JUMP_NS = 1_000_000_000
"""A stamp that goes back by more is a clock that was set (a bag that loops)."""

_SAMPLE = 512
"""Places that tell what similarity is usual for a frame."""

_SEARCHED = 256
"""Places whose similarity is weighed one by one; the others count as not similar."""

_SHORTFALL = 2 / 3
"""How far evidence may exceed the agreement of the latest frame, in units of `separation`."""

_TURN = 0.1
"""Radians of turning that the belief follows at once."""

_NEGLIGIBLE = 1e-9

_FAINT = 1e-3
"""Share of the likeliest place's probability below which a place is no mode."""

_COARSE_STEP = 2.0
"""Spacings that the fastest robot drives before the belief moves without odometry: in shorter
steps the map's grid would not tell one speed from another."""


class Localizer:
    """
    Finds images on a map. One instance follows one drive; it is not thread-safe.

    `top_k` candidates are reported; `min_confidence` is the confidence from which an estimate is
    trusted; `correct_radius`, in metres, is what counts as right; `compensate` centres each
    descriptor on the drive's running mean; `use_filter` carries the belief from frame to frame,
    where without odometry the robot is thought to drive at most at `max_speed` (m/s), and odometry
    to be off by `odometry_error` metres per metre. Each is an attribute of its own, the node's
    parameter of that name, and may be changed between frames. Raises ModelMismatchError when
    another model than the encoder's made the map.
    """

    def __init__(self, encoder: Encoder, place_map: PlaceMap, *, top_k: int = defaults.TOP_K,
                 min_confidence: float = defaults.MIN_CONFIDENCE,
                 correct_radius: float = defaults.CORRECT_RADIUS,
                 compensate: bool = True, use_filter: bool = True,
                 max_speed: float = defaults.MAX_SPEED,
                 odometry_error: float = defaults.ODOMETRY_ERROR) -> None:
        place_map.manifest.check_model(encoder)
        self.encoder = encoder
        self.place_map = place_map
        self.top_k = top_k
        self.min_confidence = min_confidence
        self.correct_radius = correct_radius
        self.compensate = compensate
        self.use_filter = use_filter
        self.max_speed = max_speed
        self.odometry_error = odometry_error
        self.calibration = place_map.manifest.calibration
        sample = np.random.default_rng(0).permutation(len(place_map))[:_SAMPLE]
        self._sample = place_map.vectors(np.sort(sample))
        self._map_mean = place_map.mean
        self._belief = Belief(place_map.poses, place_map.manifest.spacing)
        self._drive = Drive(RunningMean(self._map_mean))
        self._resumable: DriveState | None = None
        self._query = np.zeros_like(self._map_mean)

    def localize(self, rgb: NDArray[np.uint8], stamp: int, odometry: Floats | None = None
                 ) -> Estimate:
        """
        Encode a uint8 (H,W,3) RGB image taken at `stamp` (ns), and locate it.

        `odometry` is the pose (7,) at that time in a frame that does not jump (REP-105 odom), or
        None. A stamp more than a second before the last one starts a new drive; one that is
        otherwise not after the last raises OutOfOrderError.
        """
        return self.locate(self.encoder.encode(rgb), stamp, odometry)

    def locate(self, descriptor: Descriptor, stamp: int, odometry: Floats | None = None
               ) -> Estimate:
        """Return the estimate for a descriptor float32 (D,), as `localize` does for an image."""
        seconds = self._elapsed(stamp)
        drive = self._drive

        # Motion: none while the robot stands, so that equal views do not add up.
        if odometry is not None and not np.isfinite(odometry).all():
            odometry = None
        step = drive.advance_odometry(odometry)
        standing = drive.update_standstill(descriptor, step)

        # Query: the descriptor less what all views of this drive have in common.
        if self.compensate and not standing:
            drive.mean.feed(descriptor)
        query = centre(descriptor, drive.mean.value if self.compensate else self._map_mean)

        # Predict: the belief moves as the robot did.
        if self.use_filter:
            mode = Mode.SEQUENCE if odometry is None else Mode.ODOMETRY
            novelty = drive.update_novelty(query)
            self._predict(0.0 if standing else seconds, step)
        else:
            mode, novelty = Mode.SINGLE, 1.0
            self._belief.forget()
            drive.discard_pending()
        model = self.calibration.confidence[mode]

        # Likelihood: how much more likely this view is at a similar place than elsewhere.
        similarity, places = self._search(query)
        found = similarity > -1  # an approximate index fills up with place 0
        ratios = np.where(found, self._likelihood_ratios(query, similarity),
                          self.calibration.outliers)

        # Update: the belief takes in what is new in this frame.
        self._belief.update(places[found], ratios[found], self.calibration.outliers,
                            weight=novelty * model.weight, novelty=novelty)

        # Estimate: the pose of the belief's mode, and how sure that is.
        near, probability = self._mode()
        drive.agreement += novelty * (self._agreement(places, ratios, near) - drive.agreement)
        evidence = self._evidence(near, probability)
        mode_probability = min(1.0, float(probability.sum()))
        confidence = float(model.confidence(mode_probability, evidence))
        pose, covariance = self._pose(near, probability)
        reason = None
        if not confidence >= self.min_confidence:  # nor NaN
            reason = NoPose.OFF_MAP if self._belief.nowhere > 0.5 else NoPose.AMBIGUOUS
        else:
            drive.pose, drive.pose_stamp = pose, stamp
        best = places[:self.top_k]
        return Estimate(
            stamp=stamp, pose=pose, covariance=covariance, confidence=confidence,
            candidates=Candidates(places=best, similarity=similarity[:self.top_k],
                                  probability=self.belief[best],
                                  poses=self.place_map.poses[best]),
            mode_probability=mode_probability, evidence=evidence, reason=reason)

    @property
    def belief(self) -> Floats:
        """Return the probability (N,) of each place of the map."""
        return self._belief.places

    def modes(self) -> Candidates:
        """
        Return where the belief is after the latest frame: its modes, at most `top_k`.

        Places that hold more of it than any other within `correct_radius`, each with all that is
        held there as its probability; without those that hold next to nothing. The similarity is
        to the latest image.
        """
        belief = self.belief
        likely = np.flatnonzero(belief >= _FAINT * belief.max())
        if len(likely) > _SEARCHED:
            likely = likely[np.argpartition(belief[likely], -_SEARCHED)[-_SEARCHED:]]
        likely = likely[np.argsort(-belief[likely], kind='stable')]
        positions, probability = self.place_map.poses[likely, :3], belief[likely]
        chosen: list[int] = []
        held: list[float] = []
        free = np.ones(len(likely), np.bool_)
        while free.any() and len(chosen) < self.top_k:
            top = int(free.argmax())
            off = positions - positions[top]
            own = free & (np.einsum('ij,ij->i', off, off) <= self.correct_radius ** 2)
            chosen.append(top)
            held.append(float(probability[own].sum()))
            free &= ~own
        order = np.argsort(-np.array(held), kind='stable')
        places = likely[np.array(chosen)[order]]
        similarity = self.place_map.vectors(places) @ self._query
        return Candidates(places=places, similarity=similarity, probability=np.array(held)[order],
                          poses=self.place_map.poses[places])

    def forget(self) -> None:
        """Forget the drive so far: the next frame is the first."""
        self._drive = Drive(RunningMean(self._map_mean))
        self._resumable = None
        self._belief.forget()

    def expect(self, pose: Floats, deviation: float) -> None:
        """Start over around a pose (7,) in the map's frame, within `deviation` metres."""
        self._belief.expect(pose, deviation)
        self._drive.pending_motion = np.zeros(3)

    @property
    def state(self) -> DriveState | None:
        """Return the drive as it is kept over a restart; None before the first frame."""
        return self._drive.state

    def resume(self, state: DriveState) -> None:
        """
        Go on with the drive of an earlier run, if the first frame shows that it is recent.

        Its running mean is taken over up to MEAN_MAX_AGE_NS, where the robot was up to
        POSE_MAX_AGE_NS: later it may have been moved. Raises ValueError for a state of another
        dimension, or that is not finite.
        """
        if state.mean.shape != self._map_mean.shape or state.pose.shape != (7,) \
                or not np.isfinite(state.mean).all() or not state.weight >= 1:
            raise ValueError('the kept state is not one of this model')
        self._resumable = state

    def take_over(self, old: Localizer) -> None:
        """
        Go on with the drive that another localizer followed, on another map of the same model.

        The drive's running mean and its clock are kept, the belief starts over.
        """
        self._drive = old._drive.on_another_map()

    def _elapsed(self, stamp: int) -> float:
        """Return the seconds since the last frame, and start over when the clock was set back."""
        last, seconds = self._drive.stamp, 0.0
        if last is not None and stamp <= last:
            if last - stamp <= CLOCK_JUMP_NS:
                raise OutOfOrderError(f'a frame at {stamp / 1e9:.3f} s came after one at '
                                      f'{last / 1e9:.3f} s')
            self.forget()
        elif last is not None:
            seconds = (stamp - last) / 1e9
        if self._resumable is not None:
            kept, self._resumable = self._resumable, None
            age = stamp - kept.pose_stamp
            if 0 <= stamp - kept.stamp <= MEAN_MAX_AGE_NS:
                self._drive.mean = RunningMean(kept.mean, kept.weight)
            if 0 <= age <= POSE_MAX_AGE_NS and np.isfinite(kept.pose).all():
                self._belief.expect(kept.pose, self.correct_radius + self.max_speed * age / 1e9)
        self._drive.stamp = stamp
        return seconds

    def _predict(self, seconds: float, step: Floats | None) -> None:
        """
        Move the belief as the robot moved; motion shorter than a spacing accumulates first.

        Probability that moves in many small steps would spread by the map's grid in each of them.
        """
        drive, spacing = self._drive, self._belief.spacing
        drive.pending_seconds += seconds
        motion = None
        if step is not None:
            motion = drive.pending_motion = poses.chained(drive.pending_motion, step)
        if motion is None:
            if drive.pending_seconds * self.max_speed < _COARSE_STEP * spacing:
                return
        elif np.hypot(*motion[:2]) < spacing and abs(motion[2]) < _TURN:
            return
        if drive.pending_seconds > 0:
            self._belief.predict(drive.pending_seconds, motion, self.max_speed,
                                 self.odometry_error)
        drive.pending_applied()

    def _search(self, query: Descriptor) -> tuple[Descriptor, NDArray[np.int64]]:
        """Return the similarities (k,) and numbers (k,) of the places most similar to a query."""
        self._query = query
        similarity, places = self.place_map.search(query[None], max(self.top_k, _SEARCHED))
        return similarity[0], places[0]

    def _likelihood_ratios(self, query: Descriptor, similarity: Descriptor) -> Floats:
        """
        Return p(view | this place) / p(view | another place) for similarities (k,).

        They are standardised by how similar the query is to a sample of all places.
        """
        # Not BLAS: it would wait for cores that the network keeps busy.
        usual = np.einsum('nd,d->n', self._sample, query)
        scores = (similarity - usual.mean()) / max(float(usual.std()), 1e-3)
        return self.calibration.ratios(scores)

    def _mode(self) -> tuple[NDArray[np.int64], Floats]:
        """Return the places (m,) within `correct_radius` of the likeliest, and their belief."""
        near = self._belief.within(int(self.belief.argmax()), self.correct_radius)
        return near, self.belief[near]

    def _agreement(self, places: NDArray[np.int64], ratios: Floats, near: NDArray[np.int64]
                   ) -> float:
        """Return the greatest log-likelihood ratio that a frame has at one of some places."""
        # `near` is in order: not np.isin, which takes four times as long for so few.
        own = ratios[near[np.minimum(np.searchsorted(near, places), len(near) - 1)] == places]
        return float(np.log(own.max(initial=self.calibration.outliers)))

    def _evidence(self, near: NDArray[np.int64], probability: Floats) -> float:
        """Return the evidence for the belief's mode: places (m,) and their probability (m,)."""
        latest = self._drive.agreement
        if not self.use_filter:
            return latest
        # React at once when the robot was kidnapped, but let one frame be a little worse.
        lately = probability @ self._belief.evidence_of(near) / probability.sum()
        return min(latest + _SHORTFALL * self.calibration.separation, float(lately))

    def _pose(self, near: NDArray[np.int64], probability: Floats) -> tuple[Floats, Floats]:
        """Return the mean (7,) and covariance (6,6) of places (m,) by their probability (m,)."""
        where = self.place_map.poses[near]
        pose = poses.mean(where, probability)
        covariance = uncertainty.covariance(where, probability, pose, np.zeros(6)) \
            + self._deviation(pose)
        return poses.moved(pose, self._drive.pending_motion), covariance

    def _deviation(self, pose: Floats) -> Floats:
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
