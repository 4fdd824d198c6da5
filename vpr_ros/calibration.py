"""From similarity to probability: what the map itself tells of how alike two places can look.

Nothing here knows of frames or of time; the localiser asks, the map builder fits.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros import poses

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.place_map import PlaceMap

_FEW = 20
_EULER = 0.5772156649


@dataclass(frozen=True)
class Calibration:
    """How similar the best wrong place of a map is: the location and scale of a Gumbel law.

    The best of many similarities follows an extreme-value distribution (Gumbel 1958). `fitted_on`
    says what the two numbers come from; an empty one means that they are only a default.
    """

    location: float = 0.4
    scale: float = 0.08
    fitted_on: str = ''

    def novelty(self, similarity: NDArray[np.float32] | float) -> NDArray[np.float64]:
        """Return the probability, in [0,1], that no wrong place reaches `similarity`."""
        return np.exp(-np.exp(-(np.asarray(similarity, np.float64) - self.location) / self.scale))

    def weights(self, similarity: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what candidates (k,), best first, weigh against each other: the best has 1."""
        return np.exp((similarity.astype(np.float64) - float(similarity[0])) / self.scale)

    def as_dict(self) -> dict[str, Any]:
        """Return what map.yaml keeps of it."""
        return asdict(self)


def fit(place_map: PlaceMap, correct_radius: float, sample: int = 1000, seed: int = 0
        ) -> Calibration:
    """Fit to a map: for a sample of its places, the best similarity farther than the radius off.

    Places between one and four radii away look alike because they are near, and count as neither.
    A map with fewer than 20 places that have another one so far off keeps the default.
    """
    count = len(place_map)
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:sample])
    vectors = place_map.vectors()
    best = np.full(len(chosen), -np.inf)
    for row, place in enumerate(chosen):
        far = poses.distance(place_map.poses, place_map.poses[place]) > 4 * correct_radius
        if far.any():
            best[row] = (vectors[far] @ vectors[place]).max()
    best = best[np.isfinite(best)]
    if len(best) < _FEW:
        return Calibration()
    scale = max(float(best.std()) * np.sqrt(6) / np.pi, 0.01)  # the law's moments
    return Calibration(round(float(best.mean() - _EULER * scale), 4), round(float(scale), 4),
                       f'{len(best)} places of this map')
