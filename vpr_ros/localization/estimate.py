"""What the localizer says of a frame: an Estimate, its candidates, and why there is no pose."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from enum import Enum
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from vpr_ros.maps.confidence import Mode


class NoPose(str, Enum):
    """Why an estimate is not trusted; the values are what logs, CSV files and reports show."""

    AMBIGUOUS = 'ambiguous'
    OFF_MAP = 'off the map'
    NOTHING_NEW = 'nothing new seen'
    AFTER_GAP = 'after a gap'


@dataclass(frozen=True)
class Candidates:
    """
    Places that may be the right one, best first.

    places int64 (k,); similarity float32 (k,) cosine; probability float64 (k,) that this is the
    place, or in `Localizer.modes` that the robot is within `correct_radius` of it; poses float64
    (k,7).
    """

    places: NDArray[np.int64]
    similarity: NDArray[np.float32]
    probability: NDArray[np.float64]
    poses: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """
    Where the robot is, and how sure that is.

    stamp int ns, that of the image; pose float64 (7,) and covariance float64 (6,6) (metres,
    radians; symmetric positive definite) in the map's frame: the best guess, to be used only when
    `trusted`; confidence in [0,1], the probability that the pose is within `correct_radius` of the
    truth; candidates, the places most similar to this one image; mode_probability in [0,1], what
    the belief holds within `correct_radius` of its mode; evidence, the mean log-likelihood ratio
    over recent frames on the way to that mode (belief.py), capped by the latest frame's; mode, how
    it was found: by odometry only while that agrees with what is seen; reason, why the estimate is
    not trusted (None when it is); protection_level, the radius in metres round the pose that holds
    the truth in 999 of 1000 frames (protection.py), infinite where none does.

    Of a refined pose (refine.py): landmarks float64 (I,3), those that agree with it, in the map's
    frame; keypoints float64 (I,2), where they are in the image, in pixels; reprojection_error,
    what they are off by there, a standard deviation in rad. place_pose is what a pose was before
    it was refined, or replaced by one that odometry carries on (carry.py).
    """

    stamp: int
    pose: NDArray[np.float64]
    covariance: NDArray[np.float64]
    confidence: float
    candidates: Candidates
    mode_probability: float
    evidence: float
    mode: Mode
    reason: NoPose | None = None
    place_pose: NDArray[np.float64] | None = None
    protection_level: float = math.inf
    landmarks: NDArray[np.float64] | None = None
    keypoints: NDArray[np.float64] | None = None
    reprojection_error: float = 0.0

    def moved_to(self, pose: NDArray[np.float64], covariance: NDArray[np.float64]) -> Estimate:
        """Return it with a pose (7,) other than its place's, and the covariance (6,6) of that."""
        return replace(self, pose=pose, covariance=covariance, place_pose=self.pose,
                       protection_level=self.protection_level
                       + math.dist(pose[:3], self.pose[:3]))

    @property
    def inliers(self) -> int:
        """Return how many landmarks agree with the pose, 0 where it is that of the place."""
        return 0 if self.landmarks is None else len(self.landmarks)

    @property
    def refined(self) -> bool:
        """Return whether the pose is that of the image itself, and not of its place."""
        return self.inliers > 0

    @property
    def trusted(self) -> bool:
        """Return whether the confidence is at least `min_confidence`."""
        return self.reason is None
