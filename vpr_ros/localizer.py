"""Localizer: a picture and its stamp in, an Estimate out.

The robot, the offline replay and the evaluation run this one class. It knows of no messages, no
node and no files.
"""

from __future__ import annotations

from dataclasses import dataclass
import time
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros import poses
from vpr_ros.calibration import Calibration
from vpr_ros.errors import OutOfOrderError
from vpr_ros.place_map import centre

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoder import Encoder
    from vpr_ros.place_map import PlaceMap

CLOCK_JUMP = 1_000_000_000
"""A stamp that goes back by more, in ns, is a clock that was set (a bag that loops)."""


@dataclass(frozen=True)
class Candidates:
    """The most similar places, best first.

    places int64 (k,); similarity float32 (k,) cosine; probability float64 (k,) that this is the
    place; poses float64 (k,7).
    """

    places: NDArray[np.int64]
    similarity: NDArray[np.float32]
    probability: NDArray[np.float64]
    poses: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Where the camera's robot is, and how sure that is.

    stamp int ns, that of the picture; pose float64 (7,) and covariance float64 (6,6) (metres,
    radians; symmetric positive definite) in the map's frame: the best guess, which is to be used
    only when `trusted`; confidence in [0,1], the probability that the pose is within
    `correct_radius` of the truth; `reason`, why it is not trusted ('' when it is).
    """

    stamp: int
    pose: NDArray[np.float64]
    covariance: NDArray[np.float64]
    confidence: float
    candidates: Candidates
    reason: str = ''

    @property
    def trusted(self) -> bool:
        """Whether the confidence reaches the asked-for precision."""
        return not self.reason


class DriveMean:
    """The running mean of a drive's descriptors, float32 (D,), started from the map's own.

    A season or the light shifts all descriptors of a drive together; the mean follows that shift.
    The prior weighs as much as `prior` frames, and old frames fade with the weight `memory`.
    """

    def __init__(self, start: NDArray[np.float32], prior: float = 30.0, memory: float = 600.0
                 ) -> None:
        self._start = start
        self._prior = prior
        self._memory = memory
        self._last: NDArray[np.float32] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the drive so far."""
        self.value = self._start.copy()
        self._weight = self._prior
        self._last = None

    def feed(self, descriptor: NDArray[np.float32]) -> None:
        """Take one more descriptor (D,) in, unless the view is still the one before it."""
        if self._last is not None and float(descriptor @ self._last) > STANDSTILL:
            return
        self._last = descriptor
        self._weight = min(self._weight + 1, self._memory)
        self.value += (descriptor - self.value) / self._weight


STANDSTILL = 0.999
"""Cosine similarity of two frames above which the robot has not moved."""


class Localizer:
    """Finds pictures on a map. One instance follows one drive; it is not thread-safe.

    `top_k` candidates are looked at; `min_confidence` is the confidence from which an estimate is
    trusted; `correct_radius`, in metres, is what counts as right; `compensate` centres each
    descriptor on the drive's running mean. `stage_seconds` holds the times of the last frame.
    """

    def __init__(self, encoder: Encoder, place_map: PlaceMap, *, top_k: int = 10,
                 min_confidence: float = 0.5, correct_radius: float = 5.0,
                 compensate: bool = True) -> None:
        self.encoder = encoder
        self.place_map = place_map
        self.top_k = top_k
        self.min_confidence = min_confidence
        self.correct_radius = correct_radius
        self.compensate = compensate
        self.stage_seconds: dict[str, float] = {}
        self.calibration = Calibration(**place_map.manifest.calibration)
        self._mean = DriveMean(place_map.mean)
        self._last_stamp: int | None = None

    def forget(self) -> None:
        """Forget the drive so far: the next frame is the first."""
        self._mean.reset()
        self._last_stamp = None

    def localize(self, rgb: NDArray[np.uint8], stamp: int) -> Estimate:
        """Return the estimate for a uint8 (H,W,3) picture taken at `stamp` (ns).

        A stamp more than a second before the last one starts a new drive; one that is otherwise
        not after the last raises OutOfOrderError.
        """
        self._follow_clock(stamp)
        begin = time.perf_counter()
        descriptor = self.encoder.encode(rgb)
        encoded = time.perf_counter()
        estimate = self._locate(descriptor, stamp)
        self.stage_seconds = {'encode': encoded - begin, 'search': time.perf_counter() - encoded}
        return estimate

    def locate(self, descriptor: NDArray[np.float32], stamp: int) -> Estimate:
        """Return the estimate for a descriptor float32 (D,), as `localize` does for a picture."""
        self._follow_clock(stamp)
        return self._locate(descriptor, stamp)

    def _follow_clock(self, stamp: int) -> None:
        if self._last_stamp is not None and stamp <= self._last_stamp:
            if self._last_stamp - stamp <= CLOCK_JUMP:
                raise OutOfOrderError(f'a frame at {stamp / 1e9:.3f} s came after one at '
                                      f'{self._last_stamp / 1e9:.3f} s')
            self.forget()
        self._last_stamp = stamp

    def _locate(self, descriptor: NDArray[np.float32], stamp: int) -> Estimate:
        if self.compensate:
            self._mean.feed(descriptor)
        query = centre(descriptor, self._mean.value)
        similarity, places = self.place_map.search(query[None], self.top_k)
        return self._estimate(similarity[0], places[0], stamp)

    def _estimate(self, similarity: NDArray[np.float32], places: NDArray[np.int64], stamp: int
                  ) -> Estimate:
        """Weigh the candidates (k,): the pose is the mean of those around the best one."""
        candidate_poses = self.place_map.poses[places]
        weights = self.calibration.weights(similarity)
        known = float(self.calibration.novelty(similarity[0]))
        probability = known * weights / weights.sum()
        near = poses.distance(candidate_poses, candidate_poses[0]) <= self.correct_radius
        confidence = float(probability[near].sum())
        pose = poses.mean(candidate_poses[near], weights[near])
        covariance = poses.covariance(candidate_poses[near], weights[near], pose, self._floor)
        reason = ''
        if confidence < self.min_confidence:
            reason = 'off the map' if known < self.min_confidence else 'ambiguous'
        return Estimate(stamp, pose, covariance, confidence,
                        Candidates(places, similarity, probability, candidate_poses), reason)

    @property
    def _floor(self) -> NDArray[np.float64]:
        """Variances (6,) that no estimate goes below: the map's grid, and a heading of 3 deg."""
        position = self.place_map.manifest.spacing ** 2 / 12 + 0.1 ** 2
        return np.array([position] * 3 + [np.deg2rad(3) ** 2] * 3)
