"""
Smoother: each frame of a drive is localised by what was seen before it and after it.

For users who have the whole drive. The robot has only its past: localizer.py.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.localization.belief import Belief
from vpr_ros.localization.belief import FROM_NOWHERE
from vpr_ros.localization.belief import TO_NOWHERE
from vpr_ros.localization.belief import WINDOW
from vpr_ros.localization.likelihood import values_at
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.localizer import SHORTFALL
from vpr_ros.localization.mean_pose import mean_pose
from vpr_ros.localization.protection import protection_level
from vpr_ros.maps.confidence import Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.drive import Drive
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

_KEPT = 1024
"""Places whose probability is kept of each frame, the likeliest; all others count as alike."""

_NOWHERE = TO_NOWHERE / (TO_NOWHERE + FROM_NOWHERE)
"""Probability of being off the map on a long drive of which nothing is seen."""


class Smoother(Localizer):
    """
    A Localizer that keeps its drive, to localise each frame by the rest of it as well.

    `locate` says what the robot knew at the time, `smoothed` what is known afterwards. That is the
    two-filter form of the forward-backward algorithm (Kitagawa, Annals of the Institute of
    Statistical Mathematics 1994): what the filter made of the frames up to one, times what it
    makes of those after it, over what it believes if it sees nothing. For the latter the drive is
    driven back, from its last frame to its first, by a robot that looks the opposite way on a map
    whose places do: it goes ahead as the robot did, and all else is the Localizer.

    Confidence is that of the filter's model, for the mean of what both halves say, evidence and
    log-odds: a street that looks like another does so for both. Takes the Localizer's options;
    raises ValueError without `use_filter`.
    """

    def __init__(self, encoder: Encoder, place_map: PlaceMap, **options: Any) -> None:
        super().__init__(encoder, place_map, **options)
        if not self.use_filter:
            raise ValueError('only what the filter localises can be smoothed')
        self._belief: _Belief = _Belief(place_map.poses, place_map.manifest.spacing)
        self._drives: list[tuple[Drive, list[_Frame]]] = [(self._drive, [])]

    def locate(self, descriptor: NDArray[np.float32], stamp: int, odometry: Floats | None = None
               ) -> Estimate:
        """Return the filter's estimate for a descriptor float32 (D,), and keep the frame."""
        estimate = super().locate(descriptor, stamp, odometry)
        self._drives[-1][1].append(
            _Frame(descriptor, odometry, estimate, self._state(estimate.mode)))
        return estimate

    def forget(self) -> None:
        """Forget the drive so far, for what comes: it is still smoothed."""
        super().forget()
        self._drives.append((self._drive, []))

    def smoothed(self) -> list[Estimate]:
        """Return an estimate of each frame that was located, in that order."""
        return [estimate for drive, frames in self._drives
                for estimate in self._smoothed(drive, frames)]

    def _smoothed(self, drive: Drive, frames: list[_Frame]) -> list[Estimate]:
        """Return the estimates of the frames of one drive, from one start to the next."""
        back = self._looking_back(drive)
        estimates = []
        for frame in reversed(frames):
            last, odometry = frames[-1].estimate.stamp, frame.odometry
            back._belief.before_update = None
            there = super(Smoother, back).locate(  # which does not keep it
                frame.descriptor, 2 * last + 1 - frame.estimate.stamp,
                None if odometry is None else poses.looking_back(odometry))
            estimates.append(self._combined(frame, back, there.mode))
        return estimates[::-1]

    def _looking_back(self, drive: Drive) -> Smoother:
        """Return what drives back, beginning with the running mean of a drive at its end."""
        back = copy(self)
        back.place_map = replace(self.place_map, poses=poses.looking_back(self.place_map.poses))
        back._belief = _Belief(back.place_map.poses, self.place_map.manifest.spacing)
        back._drive = drive.on_another_map()
        return back

    def _combined(self, frame: _Frame, back: Smoother, mode: Mode) -> Estimate:
        """Return the estimate for a frame that `back` has just located, too, in a mode."""
        past, future = frame.state, back._state(mode)
        places, nowhere = back._belief.before_update or (back.belief, back._belief.nowhere)
        count = len(self.place_map)
        belief = past.probability(count) * places * (count / (1 - _NOWHERE))
        off_map = past.nowhere * nowhere / _NOWHERE
        total = float(belief.sum()) + off_map
        belief, off_map = belief / total, off_map / total

        near, probability = self._mode(belief)
        mode_probability = min(1.0, float(probability.sum()))
        pose, covariance = mean_pose(self.place_map.poses[near], probability, self._belief.spacing,
                                     self.calibration.deviation)
        estimate = frame.estimate
        # What one half has not seen confirmed lately, the other must bear out by itself.
        sight = max(past.sight, future.sight)
        weighted = probability @ (past.sight * past.evidence(near)
                                  + future.sight * future.evidence(near))
        seen = past.sight * past.seen + future.sight * future.seen
        evidence = min(float(weighted / probability.sum()) / max(1.0, seen),
                       max(past.agreement, future.agreement)
                       + SHORTFALL * self.calibration.separation)
        model = self.calibration.confidence[estimate.mode]

        def sure(held: Floats | float) -> Floats:
            return sight * model.confidence(_halved(held), evidence)
        confidence = float(sure(mode_probability))
        if estimate.mode is Mode.ODOMETRY:  # by what neither has applied, half of each
            pose = poses.moved(pose, (past.pending + future.pending * (-1, -1, 1)) / 2)
        return replace(
            estimate, pose=pose, covariance=covariance, confidence=confidence,
            mode_probability=mode_probability, evidence=evidence,
            candidates=replace(estimate.candidates,
                               probability=belief[estimate.candidates.places]),
            reason=self._reason(confidence, off_map, sight),
            protection_level=protection_level(pose, self.place_map.poses[near], probability, sure,
                                              self.calibration.deviation))

    def _state(self, mode: Mode) -> _State:
        """Return what is known after the latest frame, which was localised in a mode."""
        drive, belief = self._drive, self._belief
        held = belief.places
        places = np.arange(len(held)) if len(held) <= _KEPT else np.sort(
            np.argpartition(held, -_KEPT)[-_KEPT:])
        others = max(0.0, float(held.sum() - held[places].sum()))
        return _State(places.astype(np.int32), held[places].astype(np.float32),
                      others / max(1, len(held) - len(places)), belief.nowhere,
                      belief.evidence_of(places).astype(np.float32), belief.seen, drive.agreement,
                      drive.sight(self.correct_radius, self.max_speed, mode),
                      drive.pending_motion)


@dataclass(frozen=True)
class _State:
    """
    What is kept of one direction after one frame.

    places int32 (k,) in order, the likeliest; held float32 (k,), their probability, and that of
    each of the `others`; nowhere; evidence_held float32 (k,); seen, the share of the evidence's
    window that was filled; agreement, sight and pending float64 (3,) of drive.py.
    """

    places: NDArray[np.int32]
    held: NDArray[np.float32]
    others: float
    nowhere: float
    evidence_held: NDArray[np.float32]
    seen: float
    agreement: float
    sight: float
    pending: Floats

    def probability(self, count: int) -> Floats:
        """Return what each of so many places holds, (N,)."""
        probability = np.full(count, self.others)
        probability[self.places] = self.held
        return probability

    def evidence(self, places: NDArray[np.int64]) -> Floats:
        """Return how much speaks for places (m,), in order: nothing for those not kept."""
        return values_at(places, self.places, self.evidence_held, 0.0)


@dataclass(frozen=True)
class _Frame:
    """A frame of the drive: its descriptor and odometry, and what the filter made of them."""

    descriptor: NDArray[np.float32]
    odometry: Floats | None
    estimate: Estimate
    state: _State


class _Belief(Belief):
    """
    A Belief that keeps what it held before it was told what was seen.

    `before_update` is that, the probability (N,) of the places and that of being nowhere, or None
    if nothing new was seen since it was last set to None; `seen`, in [0,1], is how much of the
    window of its evidence has been filled since it started.
    """

    def __init__(self, place_poses: Floats, spacing: float) -> None:
        super().__init__(place_poses, spacing)
        self.before_update: tuple[Floats, float] | None = None

    def update(self, places: NDArray[np.int64], ratios: Floats, rest: float, *,
               weight: float = 1.0, novelty: float = 1.0) -> None:
        """Take in what was seen."""
        self.before_update = self.places, self.nowhere
        self.seen += (1 - self.seen) * min(1.0, novelty) / WINDOW
        super().update(places, ratios, rest, weight=weight, novelty=novelty)

    def _start(self, probability: Floats, weighted: Floats | None = None) -> None:
        super()._start(probability, weighted)
        self.seen = 0.0


def _halved(probability: Floats | float) -> Floats:
    """Return probabilities of half the log-odds."""
    root, other = np.sqrt(probability), np.sqrt(np.maximum(1 - np.asarray(probability), 0.0))
    return np.asarray(root / (root + other))
