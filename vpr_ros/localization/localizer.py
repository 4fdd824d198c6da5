"""
Localizer: an image and its stamp in, an Estimate out.

The robot, the offline replay and the evaluation run this one class. It knows of no messages, no
node and no files.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.errors import OutOfOrderError
from vpr_ros.localization.belief import Belief
from vpr_ros.localization.drive import Drive
from vpr_ros.localization.drive import View
from vpr_ros.localization.estimate import Candidates
from vpr_ros.localization.estimate import Estimate
from vpr_ros.localization.estimate import NoPose
from vpr_ros.localization.likelihood import Likelihood
from vpr_ros.localization.likelihood import Separation
from vpr_ros.localization.likelihood import values_at
from vpr_ros.localization.mean_pose import mean_pose
from vpr_ros.localization.modes import strongest_modes
from vpr_ros.localization.odometry import Odometry
from vpr_ros.localization.pace import Anchor
from vpr_ros.localization.pace import Pace
from vpr_ros.localization.protection import protection_level
from vpr_ros.localization.running_mean import MEAN_MAX_AGE_NS
from vpr_ros.localization.running_mean import POSE_MAX_AGE_NS
from vpr_ros.localization.running_mean import RunningMean
from vpr_ros.maps.confidence import Mode
from vpr_ros.maps.place_map import centre

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.running_mean import DriveState
    from vpr_ros.localization.verify import Verify
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]
    Descriptor = NDArray[np.float32]

CLOCK_JUMP_NS = 1_000_000_000
"""A stamp that goes back by more is a clock that was set (a bag that loops)."""

_SEARCHED = 256
"""Places whose similarity is weighed one by one; the others count as not similar."""

SHORTFALL = 2 / 3
"""How far evidence may exceed the agreement of the latest frame, in units of `separation`."""

_TURN = 0.1
"""Radians of turning that the belief follows at once."""

_BELIEVED = 0.5
"""Share of the probability that believes in odometry, from which it is used."""


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
        self.encoder = encoder.projected(place_map.projection)
        self.place_map = place_map
        self.top_k = top_k
        self.min_confidence = min_confidence
        self.correct_radius = correct_radius
        self.compensate = compensate
        self.use_filter = use_filter
        self.max_speed = max_speed
        self.odometry_error = odometry_error
        self.calibration = place_map.manifest.calibration
        self.verify: Verify | None = None  # what compares the next frame's image (verify.py)
        self._likelihood = Likelihood(place_map)
        self._map_mean = place_map.mean
        self._belief = Belief(place_map.poses, place_map.manifest.spacing)
        self._drive = Drive(RunningMean(self._map_mean))
        self._resumable: DriveState | None = None
        self._query = np.zeros_like(self._map_mean)
        self._pace = Pace(place_map)

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
        try:
            return self._locate(descriptor, stamp, seconds, odometry)
        except Exception:
            self.forget()  # rather than go on with a belief that is half moved
            raise

    def _locate(self, descriptor: Descriptor, stamp: int, seconds: float, odometry: Floats | None
                ) -> Estimate:
        drive = self._drive
        if odometry is not None and not np.isfinite(odometry).all():
            odometry = None

        # Query: the descriptor less what all views of this drive have in common.
        query = centre(descriptor, drive.mean.value if self.compensate else self._map_mean)
        view = drive.look(descriptor, query, seconds)
        if self.compensate and view is View.NEW:
            drive.mean.feed(descriptor)
            query = centre(descriptor, drive.mean.value)

        # Predict: the belief moves as the robot did.
        if self.use_filter:
            mode = self._predict(seconds, odometry, view, query)
            if view is View.NEW:
                self._return(query)
            else:
                drive.returns.lasts()
            novelty = drive.update_novelty(query) if view is View.NEW else 0.0
        else:
            mode, novelty = Mode.SINGLE, 1.0
            self._belief.forget()
            drive.odometry, drive.separation = Odometry(), Separation()
            drive.changed = view is View.NEW
            drive.forget_views()
            drive.pass_time(seconds, view, 0.0)
        model = self.calibration.confidence[mode]

        # Likelihood: how much more likely this view is at a similar place than elsewhere.
        similarity, places = self._search(query)
        scores = self._likelihood.scores(query, similarity)
        ratios = self.calibration.ratios(
            scores, drive.separation.value(self.calibration.separation))
        if self.verify is not None:
            order, ratios = self.verify(query, places, ratios)
            similarity, places, scores = similarity[order], places[order], scores[order]

        # Update: the belief takes in what is new in this frame.
        if novelty > 0:
            self._belief.update(places, ratios, self.calibration.outliers,
                                weight=novelty * model.weight, novelty=novelty)

        # Estimate: the pose of the belief's mode, and how sure that is.
        near, probability = self._mode(self.belief)
        held = min(1.0, float(probability.sum()))
        if novelty > 0:
            agreement = values_at(near, places, ratios, self.calibration.outliers).max()
            drive.compare(math.log(agreement), novelty)
            score = probability @ values_at(near, places, scores, scores.min()) / held
            drive.separation.learn(float(score), novelty * held)
        evidence = self._evidence(near, probability)
        sight = drive.sight(self.correct_radius, self.max_speed, mode)

        def sure(probability: Floats | float) -> Floats:
            return sight * model.confidence(probability, evidence)
        confidence = float(sure(held))
        pose, covariance = mean_pose(self.place_map.poses[near], probability, self._belief.spacing,
                                     self.calibration.deviation)
        if mode is Mode.ODOMETRY:
            pose = poses.moved(pose, drive.pending_motion)
        reason = self._reason(confidence, self._belief.nowhere, sight)
        if reason is None:
            drive.pose, drive.pose_stamp = pose, stamp
            if drive.odometry.found(pose):
                self._belief.pardon_odometry()
            if view is View.NEW:
                drive.returns.found(query, pose)
        best = places[:self.top_k]
        return Estimate(
            stamp=stamp, pose=pose, covariance=covariance, confidence=confidence,
            candidates=Candidates(places=best, similarity=similarity[:self.top_k],
                                  probability=self.belief[best],
                                  poses=self.place_map.poses[best]),
            mode_probability=held, evidence=evidence, mode=mode, reason=reason,
            protection_level=protection_level(pose, self.place_map.poses[near], probability, sure,
                                              self.calibration.deviation))

    @property
    def belief(self) -> Floats:
        """Return the probability (N,) of each place of the map."""
        return self._belief.places

    @property
    def odometry_problem(self) -> str:
        """Return why there is odometry that is not followed, '' if there is not."""
        if self._drive.odometry.problem:
            return self._drive.odometry.problem
        if self._drive.odometry.given and self._drive.returned:
            return 'it has moved on while the view is one of before: do the wheels spin?'
        if self._drive.odometry.given and self._belief.nowhere < 0.5 \
                and self._belief.odometry_share < _BELIEVED:
            return 'it does not agree with what the camera sees'
        return ''

    @property
    def odometry_scale(self) -> float:
        """Return what the metres of odometry are multiplied by: 1 unless clearly wrong."""
        return self._drive.odometry.scale

    def modes(self) -> Candidates:
        """
        Return where the belief is after the latest frame: its modes, at most `top_k`.

        Places that hold more of it than any other within `correct_radius`, each with all that is
        held there as its probability; without those that hold next to nothing. The similarity is
        to the latest image.
        """
        places, held = strongest_modes(self.belief, self.place_map.poses[:, :3],
                                       self.correct_radius, self.top_k)
        similarity = self.place_map.vectors(places) @ self._query
        return Candidates(places=places, similarity=similarity, probability=held,
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
        self._drive.changed = True
        self._drive.confirm()
        self._drive.forget_views()

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

        The drive's running mean and its clock are kept, unless the maps have different
        projections; the belief starts over.
        """
        if old.encoder.space == self.encoder.space:
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

    def _predict(self, seconds: float, odometry: Floats | None, view: View, query: Descriptor
                 ) -> Mode:
        """
        Move the belief as the robot moved, and return whether that is by odometry.

        Motion shorter than a spacing accumulates first: probability that moves in many small steps
        would spread by the map's grid in each of them. While the view does not change, only
        odometry moves it.
        """
        drive, belief = self._drive, self._belief
        step = drive.odometry.advance(odometry, seconds, self.max_speed,
                                      seen=view is View.NEW)
        belief.set_odometry(available=step is not None)
        if drive.anchor is None:
            drive.anchor = Anchor(query)
        drive.anchor.advance(seconds, step)
        driven = 0.0
        if step is None:
            drive.pending_motion = np.zeros(3)
        else:
            before = math.hypot(*drive.pending_motion[:2])
            drive.pending_motion = motion = poses.chained(drive.pending_motion, step)
            driven = math.hypot(*motion[:2]) - before  # may be below zero: noise adds up to none
            if math.hypot(*motion[:2]) >= belief.spacing or abs(motion[2]) >= _TURN:
                belief.follow(motion, self.odometry_error)
                drive.pending_motion = np.zeros(3)
        drive.pass_time(seconds, view, self.correct_radius / self.max_speed)
        changed = drive.anchor.similarity(query) < self._pace.changed
        drive.changed |= changed
        if view is not View.UNCHANGED \
                and drive.pending_seconds * self.max_speed >= belief.spacing:
            # An image that is sent again says nothing of the time in between.
            repeated = view is View.REPEATED
            belief.wait(drive.pending_seconds, self.max_speed, None if repeated else
                        drive.anchor.doubt(query, self._pace, self.max_speed))
            drive.pending_seconds = 0.0
            if changed or drive.anchor.old:
                drive.anchor = Anchor(query)
        if belief.odometry_share >= _BELIEVED:
            drive.drive_on(driven, np.zeros(3) if step is None else step)
            return Mode.ODOMETRY
        driven = self.max_speed * belief.mean_speed * seconds
        drive.drive_on(driven, np.array([driven, 0.0, 0.0]))
        return Mode.SEQUENCE

    def _return(self, query: Descriptor) -> None:
        """Put the belief back where a view (D,) was seen that has come back, if the map agrees."""
        returns, belief = self._drive.returns, self._belief
        seen = returns.back_at(query, self._pace, self.correct_radius)
        if seen is None:
            return
        # Places that look alike on the map show nothing.
        near, probability = self._mode(self.belief)
        here = probability @ self.place_map.poses[near, :3] / probability.sum()
        ahead, behind = (self.place_map.vectors(belief.within(at, belief.spacing))
                         for at in (here, seen.pose[:3]))
        alike = float((ahead @ behind.T).max(initial=-1.0))
        if self._pace.doubts(float(query @ seen.query), returns.metres(seen), alike):
            returns.go_back(seen)
            belief.expect(seen.pose, 0.0)
            self._drive.pending_motion = np.zeros(3)
            self._drive.seconds_since_return = 0.0

    def _search(self, query: Descriptor) -> tuple[Descriptor, NDArray[np.int64]]:
        """Return the similarities (k,) and numbers (k,) of the places most similar to a query."""
        self._query = query
        found, places = self.place_map.search(query[None], max(self.top_k, _SEARCHED))
        count = int((found[0] > -1).sum())  # an approximate index fills up with place 0
        return found[0, :count], places[0, :count]

    def _reason(self, confidence: float, nowhere: float, sight: float) -> NoPose | None:
        """Return why an estimate is not trusted, by what is left of its sight (drive.py)."""
        if confidence >= self.min_confidence:
            return None
        if sight < self.min_confidence:
            return NoPose.AFTER_GAP if self._drive.after_gap else NoPose.NOTHING_NEW
        return NoPose.OFF_MAP if nowhere > 0.5 else NoPose.AMBIGUOUS

    def _mode(self, belief: Floats) -> tuple[NDArray[np.int64], Floats]:
        """
        Return the places (m,) within `correct_radius` of the mode, and their belief (m,).

        `belief` (N,) is that of all places.
        """
        near = self._belief.within(self.place_map.poses[belief.argmax(), :3], self.correct_radius)
        probability, positions = belief[near], self.place_map.poses[near, :3]
        # The likeliest place may be at an end of its mode: the place at the mean of all is not.
        off = positions - probability @ positions / probability.sum()
        middle = int(near[np.einsum('ij,ij->i', off, off).argmin()])
        near = self._belief.within(self.place_map.poses[middle, :3], self.correct_radius)
        return near, belief[near]

    def _evidence(self, near: NDArray[np.int64], probability: Floats) -> float:
        """Return the evidence for the belief's mode: places (m,) and their probability (m,)."""
        latest = self._drive.agreement
        if not self.use_filter:
            return latest
        # React at once when the robot was kidnapped, but let one frame be a little worse.
        lately = probability @ self._belief.evidence_of(near) / probability.sum()
        return min(latest + SHORTFALL * self.calibration.separation, float(lately))
