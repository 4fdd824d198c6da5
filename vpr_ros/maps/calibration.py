"""
From similarity to likelihood, and from belief to confidence: the numbers, and how to fit them.

Nothing here knows of frames or of time, nor where the examples come from (offline/calibrate.py).
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from enum import Enum
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SIMULATED = 'simulated drives on the map itself'
"""`Calibration.fitted_on` of a map that no real drive has been held against."""

MAX_LOG_ODDS = 15.0
"""Log-odds beyond which a probability counts as no surer: 3 in 10 million."""


class Mode(str, Enum):
    """
    How a frame is localised; each mode has a confidence model of its own.

    ODOMETRY: the filter with odometry; SEQUENCE: the filter alone; SINGLE: each frame by itself.
    """

    ODOMETRY = 'odometry'
    SEQUENCE = 'sequence'
    SINGLE = 'single'


@dataclass(frozen=True)
class ConfidenceModel:
    """
    A monotone map from belief to confidence: logistic regression on two numbers.

    log-odds of being right = offset + probability * log-odds of the belief's mode
    + evidence * mean log-likelihood ratio on the way there (`Belief.evidence`). `weight`, in
    (0,1], is what one wholly new frame counts for in the filter: likelihoods are multiplied as if
    frames were independent, but a street that looks like another does so for many frames. Raises
    ValueError for coefficients that are not finite, or that make confidence fall with either.
    """

    offset: float = 0.0
    probability: float = 1.0
    evidence: float = 0.0
    weight: float = 0.5

    def __post_init__(self) -> None:
        numbers = (self.offset, self.probability, self.evidence, self.weight)
        if not (all(map(math.isfinite, numbers)) and self.probability >= 0 and self.evidence >= 0
                and 0 < self.weight <= 1):
            raise ValueError(
                f'no confidence model has offset {self.offset}, probability {self.probability}, '
                f'evidence {self.evidence}, weight {self.weight}')

    def confidence(self, probability: Floats | float, evidence: Floats | float) -> Floats:
        """Return the probability of being right, in [0,1], of modes in [0,1] and any evidence."""
        odds = (self.offset + self.probability * log_odds(probability)
                + self.evidence * np.asarray(evidence, np.float64))
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -700, 700))))


DEFAULT_MODELS = {Mode.ODOMETRY: ConfidenceModel(-4.9, 0.68, 1.92, 0.3),
                  Mode.SEQUENCE: ConfidenceModel(-4.8, 0.72, 1.54, 0.3),
                  Mode.SINGLE: ConfidenceModel(-0.7, 1.2, 0.0, 1.0)}
"""Fitted to drives in spring, rain and at night on winter maps of ten made-up towns, and off them
(`python -m benchmarks.accuracy.confidence --fit`); rounded."""

# What map.yaml called things in 0.1: read until 0.3.
_RENAMED = {'curves': 'confidence', 'filter': 'sequence', 'mass': 'probability',
            'support': 'evidence'}


@dataclass(frozen=True)
class Calibration:
    """
    What is known of the similarities of same and of other places, and what belief is worth.

    A frame's similarities are first standardised by its own similarities to a sample of the map's
    places, so that dusk, which lowers them all, changes nothing. `separation`: how many standard
    deviations the same place stands above the others. `outliers`: the share of frames in which it
    does not (something is in the way). `largest`: the greatest likelihood ratio of one frame.
    `deviation`: how far (metres ahead, metres aside, radians; 1 sigma) a robot is from the right
    place, for it never drives exactly where it drove before: half a lane aside, unless a drive
    shows better. `confidence`: a model by mode; the default one where a mode is left out.
    `fitted_on` says what all these come from; '' means that they are defaults. Raises ValueError
    for numbers out of bounds.
    """

    separation: float = 3.0
    outliers: float = 0.05
    largest: float = 10_000.0
    deviation: tuple[float, float, float] = (0.2, 0.8, 0.05)
    confidence: Mapping[Mode, ConfidenceModel] = field(default_factory=lambda: DEFAULT_MODELS)
    fitted_on: str = ''

    def __post_init__(self) -> None:
        if not (0 <= self.separation < math.inf and 0 < self.outliers <= 1
                and 1 <= self.largest < math.inf):
            raise ValueError(f'no likelihood has separation {self.separation}, outliers '
                             f'{self.outliers}, largest {self.largest}')
        if len(self.deviation) != 3 or not all(0.001 <= value < math.inf
                                               for value in self.deviation):
            raise ValueError(f'a deviation is three numbers above zero, not {self.deviation}')
        object.__setattr__(self, 'confidence', DEFAULT_MODELS | {
            Mode(mode): model for mode, model in self.confidence.items()})

    @property
    def origin(self) -> str:
        """Return where these numbers come from, as printed in reports."""
        return self.fitted_on or 'none: defaults'

    @property
    def validated(self) -> bool:
        """Whether real drives with known poses were used."""
        return self.fitted_on not in ('', SIMULATED)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Calibration:
        """
        Return the calibration that map.yaml holds; what it leaves out has its default.

        Raises TypeError or ValueError for what is none.
        """
        numbers = _renamed(numbers)
        if 'deviation' in numbers:
            numbers['deviation'] = tuple(numbers['deviation'])
        if 'confidence' in numbers:
            numbers['confidence'] = {Mode(mode): ConfidenceModel(**_renamed(model)) for mode, model
                                     in _renamed(numbers['confidence']).items()}
        return cls(**numbers)

    def as_dict(self) -> dict[str, Any]:
        """Return what map.yaml keeps of it."""
        return {**asdict(self), 'deviation': list(self.deviation),
                'confidence': {mode.value: asdict(model)
                               for mode, model in self.confidence.items()}}

    def ratios(self, scores: NDArray[np.floating[Any]] | float) -> Floats:
        """
        Return p(score | same place) / p(score | other place) for standardised scores.

        Both are normal with unit variance, `separation` apart: their ratio is exponential in the
        score. It is kept between `outliers` and `largest`: no one frame rules a place out or in.
        """
        exponent = self.separation * (np.asarray(scores, np.float64) - self.separation / 2)
        ratio = np.exp(np.minimum(exponent, math.log(self.largest)))
        return np.asarray(self.outliers + (1 - self.outliers) * ratio)


def log_odds(probability: Floats | float) -> Floats:
    """Return log(p / (1 - p)), kept within MAX_LOG_ODDS."""
    p = np.clip(np.asarray(probability, np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.clip(np.log(p) - np.log1p(-p), -MAX_LOG_ODDS, MAX_LOG_ODDS))


def fit_confidence(probability: Floats, evidence: Floats, right: NDArray[np.bool_],
                   prior: ConfidenceModel, *, frames: Floats | float = 1.0,
                   keep_shape: bool = False, prior_weight: float = 1.0) -> ConfidenceModel:
    """
    Return the model that best tells the right frames (N,) from the wrong ones.

    Logistic regression (Platt 1999) with a normal prior about another model, so that a drive on
    which all went well does not make it certain. `frames` (N,): how many independent frames each
    row counts for, `prior_weight` how much the prior does. With `keep_shape` the two coefficients
    keep the ratio that they have in the prior. None is below zero: confidence stays monotone.
    """
    table = np.stack([np.ones(len(right)), log_odds(probability), np.asarray(evidence)], axis=1)
    start = np.array([prior.offset, prior.probability, prior.evidence])
    counts = np.broadcast_to(np.asarray(frames, np.float64), right.shape)
    if keep_shape:
        shape = start[1:]
        table, start = np.stack([table[:, 0], table[:, 1:] @ shape], axis=1), np.array([start[0],
                                                                                        1.0])
        offset, scale = _logistic(table, right, counts, start, prior_weight)
        slopes = scale * shape
    else:
        offset, *slopes = _logistic(table, right, counts, start, prior_weight)
    return ConfidenceModel(float(offset), float(slopes[0]), float(slopes[1]), prior.weight)


def _logistic(table: Floats, right: NDArray[np.bool_], counts: Floats, start: Floats,
              prior_weight: float) -> Floats:
    """Return the coefficients (K,), the offset first, of greatest posterior probability."""
    precision = prior_weight * np.where(np.arange(len(start)) == 0, 0.05, 1.0)

    def loss(answer: Floats) -> tuple[float, Floats]:
        odds, off = table @ answer, answer - start
        excess = counts * (1 / (1 + np.exp(-np.clip(odds, -700, 700))) - right)
        return (float(counts @ (np.logaddexp(0, odds) - right * odds)
                      + precision @ np.square(off) / 2),
                table.T @ excess + precision * off)

    bounds = [(None, None), *[(0.0, None)] * (len(start) - 1)]
    found = minimize(loss, start, jac=True, method='L-BFGS-B', bounds=bounds,
                     options={'ftol': 1e-14, 'gtol': 1e-9, 'maxiter': 500})
    return np.asarray(found.x)


def _renamed(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dictionary of map.yaml with the names of today for its keys."""
    return {_RENAMED.get(name, name): value for name, value in dict(numbers).items()}
