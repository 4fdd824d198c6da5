"""
From similarity to likelihood, and from belief to confidence: the numbers, and how to fit them.

Nothing here knows of frames or of time, nor where the examples come from (offline/calibrate.py).
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

WAYS = ('odometry', 'filter', 'single')
"""With the filter and odometry, with the filter alone, each frame for itself."""

_FAR = 15.0
"""Log-odds beyond which a belief is no surer: 3 in 10 million."""


@dataclass(frozen=True)
class Curve:
    """
    A monotone map from belief to confidence: a logistic law of three numbers.

    log-odds of being right = offset + mass * log-odds of the belief's mode
    + support * mean log-likelihood ratio on the way there (`Belief.support`). `weight` is what one
    wholly new frame counts for: likelihoods are multiplied as if frames were independent, but a
    street that looks like another does so for many frames.
    """

    offset: float = 0.0
    mass: float = 1.0
    support: float = 0.0
    weight: float = 0.5

    def __post_init__(self) -> None:
        numbers = (self.offset, self.mass, self.support, self.weight)
        if not (all(map(math.isfinite, numbers)) and self.mass >= 0 and self.support >= 0
                and 0 < self.weight <= 1):
            raise ValueError(f'no curve of confidence has offset {self.offset}, mass {self.mass}, '
                             f'support {self.support}, weight {self.weight}')

    def confidence(self, mass: Floats | float, support: Floats | float) -> Floats:
        """Return the probability, in [0,1], of being right; mass in [0,1], support any number."""
        odds = (self.offset + self.mass * log_odds(mass)
                + self.support * np.asarray(support, np.float64))
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -700, 700))))


DEFAULT_CURVES = {'odometry': Curve(-4.9, 0.68, 1.92, 0.3), 'filter': Curve(-4.8, 0.72, 1.54, 0.3),
                  'single': Curve(-0.7, 1.2, 0.0, 1.0)}
"""What drives in spring, rain and at night gave on winter maps of ten made-up towns, and off them
(`python -m benchmarks.accuracy.confidence --fit`); rounded."""


@dataclass(frozen=True)
class Calibration:
    """
    What is known of the similarities of same and of other places, and what belief is worth.

    A frame's similarities are first standardised by its own similarities to a sample of the map's
    places, so that dusk, which lowers them all, changes nothing. `separation`: how many standard
    deviations the same place stands above the others. `outliers`: the share of frames in which it
    does not (something is in the way). `deviation`: how far (metres ahead, metres aside, radians;
    1 sigma) a robot is from the place that is right, for it never drives just where it drove
    before: half a lane aside, unless a drive shows better. `curves` by way (WAYS), each a Curve
    or what its fields are in map.yaml. `fitted_on` says what all these come from; '' means that
    they are defaults.
    """

    separation: float = 3.0
    outliers: float = 0.05
    largest: float = 10_000.0
    deviation: tuple[float, float, float] = (0.2, 0.8, 0.05)
    curves: Mapping[str, Curve] = field(default_factory=lambda: dict(DEFAULT_CURVES))
    fitted_on: str = ''

    def __post_init__(self) -> None:
        if not (0 <= self.separation < math.inf and 0 < self.outliers <= 1
                and 1 <= self.largest < math.inf):
            raise ValueError(f'no likelihood has separation {self.separation}, outliers '
                             f'{self.outliers}, largest {self.largest}')
        if len(self.deviation) != 3 or not all(0.001 <= value < math.inf
                                               for value in self.deviation):
            raise ValueError(f'a deviation is three numbers above zero, not {self.deviation}')
        object.__setattr__(self, 'deviation', tuple(self.deviation))
        curves = {way: curve if isinstance(curve, Curve) else Curve(**curve)
                  for way, curve in dict(self.curves).items()}
        if not set(curves) <= set(WAYS):
            raise ValueError(f'curves are for {", ".join(WAYS)}, not for {", ".join(curves)}')
        object.__setattr__(self, 'curves', DEFAULT_CURVES | curves)

    def ratios(self, scores: NDArray[np.floating[Any]] | float) -> Floats:
        """
        Return p(score | same place) / p(score | other place) for standardised scores.

        Both are normal with unit variance, `separation` apart: their ratio is exponential in the
        score. It is kept between `outliers` and `largest`: no one frame rules a place out or in.
        """
        exponent = self.separation * (np.asarray(scores, np.float64) - self.separation / 2)
        ratio = np.exp(np.minimum(exponent, math.log(self.largest)))
        return np.asarray(self.outliers + (1 - self.outliers) * ratio)

    def as_dict(self) -> dict[str, Any]:
        """Return what map.yaml keeps of it."""
        return {**asdict(self), 'deviation': list(self.deviation)}


def log_odds(probability: Floats | float) -> Floats:
    """Return log(p / (1 - p)), kept within bounds."""
    p = np.clip(np.asarray(probability, np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.clip(np.log(p) - np.log1p(-p), -_FAR, _FAR))


def fit_curve(mass: Floats, support: Floats, right: NDArray[np.bool_], prior: Curve, *,
              frames: Floats | float = 1.0, keep_shape: bool = False,
              prior_weight: float = 1.0) -> Curve:
    """
    Return the curve that best tells the right (N,) from the wrong, by belief's two numbers.

    Logistic regression (Platt 1999) with a normal prior about another curve, so that a drive on
    which all went well does not make it certain. `frames` (N,): how many independent frames each
    row counts for, `prior_weight` how much the prior does. With `keep_shape` mass and support keep
    the ratio that they have in the prior.
    A slope below zero is taken for zero: confidence stays monotone.
    """
    table = np.stack([np.ones(len(mass)), log_odds(mass), np.asarray(support)], axis=1)
    start = np.array([prior.offset, prior.mass, prior.support])
    counts = np.broadcast_to(np.asarray(frames, np.float64), right.shape)
    if keep_shape:
        index = table[:, 1:] @ start[1:]
        offset, scale = _logistic(np.stack([table[:, 0], index], axis=1), right, counts,
                                  np.array([prior.offset, 1.0]), prior_weight)
        scale = max(0.0, float(scale))
        return Curve(float(offset), scale * prior.mass, scale * prior.support, prior.weight)
    answer = np.zeros(3)
    free = np.ones(3, np.bool_)
    while True:  # each time without the slopes that came out negative
        answer[free] = _logistic(table[:, free], right, counts, start[free], prior_weight)
        negative = free & (answer < 0) & (np.arange(3) > 0)
        if not negative.any():
            offset, slope, lift = map(float, answer)
            return Curve(offset, slope, lift, prior.weight)
        free &= ~negative
        answer[~free] = 0.0


def _logistic(table: Floats, right: NDArray[np.bool_], counts: Floats, start: Floats,
              prior_weight: float) -> Floats:
    """Return the coefficients (K,), the offset first, of greatest posterior probability."""
    precision = prior_weight * np.where(np.arange(len(start)) == 0, 0.05, 1.0)

    def loss(answer: Floats) -> float:
        odds = table @ answer
        return float(counts @ (np.logaddexp(0, odds) - right * odds)
                     + precision @ np.square(answer - start) / 2)

    answer = start.copy()
    for _ in range(50):  # Newton's method
        chance = 1 / (1 + np.exp(-np.clip(table @ answer, -30, 30)))
        slope = table.T @ (counts * (right - chance)) - precision * (answer - start)
        curvature = (table * (counts * chance * (1 - chance))[:, None]).T @ table \
            + np.diag(precision)
        step = np.linalg.solve(curvature, slope)
        while loss(answer + step) > loss(answer) and np.abs(step).max() > 1e-9:
            step /= 2
        answer = answer + step
        if np.abs(step).max() < 1e-8:
            break
    return answer
