"""
Evaluation: what came of queries whose truth is known, in the form that all who judge take.

How it comes about is in evaluate.py, what is counted in metrics.py, how it looks in report.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluation:
    """
    Q queries, in the order they were taken, against a map of N places; K candidates each.

    `names` of the queries, for people. Estimates: `stamps` int64 (Q,) ns, `estimated` float64
    (Q,7), `covariance` float64 (Q,6,6), `confidence` float64 (Q,), `reasons`, why there is no pose
    ('' where there is one). Single frames: `candidates` int64 (Q,K), the places most similar, best
    first, and their `similarity` float32 (Q,K). Truth: `truth` float64 (Q,7), NaN where it is not
    known; `true_place` int64 (Q,), the place that shows the truth best, -1 where none does, so
    that the query should be rejected; `rank` int64 (Q,), of the first candidate that is right, K
    where none is; `right` bool (Q,), whether the estimate is. Map: `places` float64
    (N,7), `place_names`. `seconds` (Q,) by stage ('decode', 'encode', 'locate'), `took` in all.
    `about`: what was compared, by whom, with which settings, in words. `metric` says whether poses
    are in metres. Pictures are read when asked for: uint8 (H,W,3) RGB, or None where there is none
    any more.
    """

    names: tuple[str, ...]
    stamps: NDArray[np.int64]
    estimated: Floats
    covariance: Floats
    confidence: Floats
    reasons: tuple[str, ...]
    candidates: NDArray[np.int64]
    similarity: NDArray[np.float32]
    truth: Floats
    true_place: NDArray[np.int64]
    rank: NDArray[np.int64]
    right: NDArray[np.bool_]
    places: Floats
    place_names: tuple[str, ...]
    query_picture: Callable[[int], Picture | None]
    place_picture: Callable[[int], Picture | None]
    tolerance: str
    min_confidence: float
    filtered: bool
    metric: bool = True
    seconds: Mapping[str, Floats] = field(default_factory=dict)
    took: float = 0.0
    about: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mapped(self) -> NDArray[np.bool_]:
        """Whether each query (Q,) has a right place on the map."""
        return self.true_place >= 0
