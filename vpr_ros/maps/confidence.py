"""
From belief to confidence: the model, and the modes of localisation that have one each.

How it is fitted to right and wrong frames is in offline/confidence_fit.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_LOG_ODDS = 15.0
"""Log-odds beyond which a probability counts as no surer: 3 in 10 million."""

_SUREST = (0.5, 1.75)
"""Of confidence: at most so much, plus so many times the log-odds of the belief's mode. Of those
that fit the towns of DEFAULT_MODELS about equally well, one that is not among the strictest."""


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
    + evidence * mean log-likelihood ratio on the way there (`Belief.evidence`), but no more than
    most_log_odds. `weight`, in (0,1], is what one wholly new frame counts for in the filter:
    likelihoods are multiplied as if frames were independent, but a street that looks like another
    does so for many frames. Raises ValueError for coefficients that are not finite, or that make
    confidence fall with either.
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
        """Return the probability of being right, given the mode's probability and its evidence."""
        odds = np.minimum(self.offset + self.probability * log_odds(probability)
                          + self.evidence * np.asarray(evidence, np.float64),
                          most_log_odds(probability))
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -700, 700))))


DEFAULT_MODELS = {Mode.ODOMETRY: ConfidenceModel(-6.1, 0.92, 1.96, 0.3),
                  Mode.SEQUENCE: ConfidenceModel(-5.8, 0.78, 2.23, 0.3),
                  Mode.SINGLE: ConfidenceModel(-1.0, 1.21, 0.0, 1.0)}
"""Fitted to drives in spring, rain and at night in ten synthetic towns, on and off winter maps
(`python -m benchmarks.accuracy.confidence --fit`); rounded."""


def log_odds(probability: Floats | float) -> Floats:
    """Return log(p / (1 - p)), kept within MAX_LOG_ODDS."""
    p = np.clip(np.asarray(probability, np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.clip(np.log(p) - np.log1p(-p), -MAX_LOG_ODDS, MAX_LOG_ODDS))


def most_log_odds(probability: Floats | float) -> Floats:
    """
    Return the greatest log-odds of being right, given the probability of the belief's mode.

    However strong the evidence: it tells a road from a similar one, but not how far along it.
    """
    return np.asarray(_SUREST[0] + _SUREST[1] * log_odds(probability))
