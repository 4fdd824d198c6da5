"""
Evaluation: estimates of queries whose true poses are known, beside the truth.

It is made in evaluate_images.py and evaluate_drives.py; summary.py makes figures of it, report.py
a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.localization.estimate import Estimate

    Floats = NDArray[np.float64]
    Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """
    The estimates of Q queries, with K candidates each.

    stamps int64 (Q,) ns; poses float64 (Q,7); covariances float64 (Q,6,6), NaN where they were
    not recorded; confidence float64 (Q,); reasons, why no pose was published ('' where one was);
    candidates int64 (Q,K), the most similar places, best first, and their similarity float32
    (Q,K); inliers int64 (Q,) of refined poses, 0 for others, and the positions (Q,3) before that;
    protection_levels float64 (Q,) in metres (protection.py), infinite where there is none.
    """

    stamps: NDArray[np.int64]
    poses: Floats
    covariances: Floats
    confidence: Floats
    reasons: tuple[str, ...]
    candidates: NDArray[np.int64]
    similarity: NDArray[np.float32]
    inliers: NDArray[np.int64]
    place_positions: Floats
    protection_levels: Floats

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> Estimates:
        """Return the estimates of a Localizer, in arrays."""
        return cls(
            stamps=np.array([e.stamp for e in estimates], np.int64),
            poses=np.array([e.pose for e in estimates]),
            covariances=np.array([e.covariance for e in estimates]),
            confidence=np.array([e.confidence for e in estimates]),
            reasons=tuple(e.reason.value if e.reason else '' for e in estimates),
            candidates=np.array([e.candidates.places for e in estimates]),
            similarity=np.array([e.candidates.similarity for e in estimates]),
            inliers=np.array([e.inliers for e in estimates], np.int64),
            place_positions=np.array([(e.pose if e.place_pose is None else e.place_pose)[:3]
                                      for e in estimates]),
            protection_levels=np.array([e.protection_level for e in estimates]))

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def published(self) -> NDArray[np.bool_]:
        """Return whether a robot would have got a pose for each query (Q,)."""
        return np.array([not reason for reason in self.reasons], np.bool_)

    def take(self, rows: NDArray[np.int64]) -> Estimates:
        """Return the estimates of some queries (R,), by their numbers."""
        return Estimates(
            stamps=self.stamps[rows], poses=self.poses[rows], covariances=self.covariances[rows],
            confidence=self.confidence[rows], reasons=tuple(self.reasons[n] for n in rows),
            candidates=self.candidates[rows], similarity=self.similarity[rows],
            inliers=self.inliers[rows], place_positions=self.place_positions[rows],
            protection_levels=self.protection_levels[rows])


@dataclass(frozen=True, kw_only=True)
class References:
    """
    The N places of a map that queries are compared with.

    poses float64 (N,7); names, for people; `image` reads the image of a place, uint8 (H,W,3) RGB,
    or returns None where there is none.
    """

    poses: Floats
    names: tuple[str, ...]
    image: Callable[[int], Image | None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """
    Q queries, in the order in which they were taken, evaluated on a map of N places.

    query_names are for people; `query_image` reads an image, uint8 (H,W,3) RGB, or returns None
    where there is none.

    Truth: true_poses float64 (Q,7), NaN where unknown; true_places int64 (Q,), the right place
    nearest to the true pose, -1 where the query is not on the map and should be rejected.

    Comparison: ranks int64 (Q,) of the first right candidate, counted from 0, K where none is
    right; right bool (Q,), whether the estimated pose is right, within `tolerance` (in words).

    `min_confidence` is the confidence from which a pose is published; `use_filter`, whether the
    queries were localised as a drive and not each for itself; `metric`, whether poses are in
    metres; `stage_seconds`, the seconds of each query (Q,) by stage ('decode', 'encode',
    'locate'); `total_seconds`, those of the whole evaluation; `about`, what was compared, with
    which settings, in words.
    """

    query_names: tuple[str, ...]
    query_image: Callable[[int], Image | None]
    estimates: Estimates
    references: References
    true_poses: Floats
    true_places: NDArray[np.int64]
    ranks: NDArray[np.int64]
    right: NDArray[np.bool_]
    tolerance: str
    min_confidence: float
    use_filter: bool
    metric: bool = True
    stage_seconds: Mapping[str, Floats] = field(default_factory=dict)
    total_seconds: float = 0.0
    about: Mapping[str, str | bool] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.query_names)

    @property
    def mapped(self) -> NDArray[np.bool_]:
        """Return whether each query (Q,) has a right place on the map."""
        return self.true_places >= 0

    @property
    def errors(self) -> Floats:
        """Return the error in metres (Q,) of each position; NaN where unknown or not metric."""
        if not self.metric:
            return np.full(len(self), np.nan)
        return poses.distance(self.estimates.poses, self.true_poses)

    def take(self, rows: NDArray[np.int64]) -> Evaluation:
        """Return the evaluation of some queries (R,), by their numbers, without their times."""
        query_image = self.query_image
        return replace(
            self, query_names=tuple(self.query_names[n] for n in rows),
            query_image=lambda row: query_image(int(rows[row])),
            estimates=self.estimates.take(rows), true_poses=self.true_poses[rows],
            true_places=self.true_places[rows], ranks=self.ranks[rows], right=self.right[rows],
            stage_seconds={})


def nearest_right_places(places: Floats, true_poses: Floats, right_places: Sequence[Sequence[int]]
                         ) -> NDArray[np.int64]:
    """
    Return, for each true pose (Q,7), the nearest of its right places (Q,); -1 where it has none.

    places are the poses (N,7) of the map's places, right_places[q] the numbers of those right for
    query q.
    """
    nearest = np.full(len(right_places), -1, np.int64)
    for query, (pose, right) in enumerate(zip(true_poses, right_places, strict=True)):
        if len(right):
            numbers = np.asarray(right, np.int64)
            nearest[query] = numbers[poses.distance(places[numbers], pose).argmin()]
    return nearest
