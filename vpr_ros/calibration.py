"""From similarity to likelihood: how much a similarity speaks for a place against the others.

Nothing here knows of frames or of time.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """What is known of the similarities of same and of other places.

    A frame's similarities are first standardised by its own similarities to a sample of the map's
    places, so that dusk, which lowers them all, changes nothing. `separation`: how many standard
    deviations the same place stands above the others. `outliers`: the share of frames in which it
    does not (something is in the way). `fitted_on` says what these come from; '' means that they
    are defaults, which is all that this version has.
    """

    separation: float = 2.0
    outliers: float = 0.1
    largest: float = 1000.0
    fitted_on: str = ''

    def __post_init__(self) -> None:
        if not (0 <= self.separation < math.inf and 0 < self.outliers <= 1
                and 1 <= self.largest < math.inf):
            raise ValueError(f'no likelihood has separation {self.separation}, outliers '
                             f'{self.outliers}, largest {self.largest}')

    def ratios(self, scores: NDArray[np.floating[Any]] | float) -> NDArray[np.float64]:
        """Return p(score | same place) / p(score | other place) for standardised scores.

        Both are normal with unit variance, `separation` apart: their ratio is exponential in the
        score. It is kept between `outliers` and `largest`: no one frame rules a place out or in.
        """
        exponent = self.separation * (np.asarray(scores, np.float64) - self.separation / 2)
        ratio = np.exp(np.minimum(exponent, math.log(self.largest)))
        return np.asarray(self.outliers + (1 - self.outliers) * ratio)

    def as_dict(self) -> dict[str, Any]:
        """Return what map.yaml keeps of it."""
        return asdict(self)
