"""How a confidence model is fitted to right and wrong frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from vpr_ros.maps.confidence import ConfidenceModel
from vpr_ros.maps.confidence import log_odds
from vpr_ros.maps.confidence import most_log_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def fit_confidence(probability: Floats, evidence: Floats, right: NDArray[np.bool_],
                   prior: ConfidenceModel, *, frames: Floats | float = 1.0,
                   keep_shape: bool = False, prior_weight: float = 1.0) -> ConfidenceModel:
    """
    Return the model that best tells the right frames (N,) from the wrong ones.

    Logistic regression (Platt 1999) with a Gaussian prior centred on another model, so that a
    drive without errors does not yield certainty. `frames` (N,): how many independent frames each
    row counts for; `prior_weight` scales the prior. With `keep_shape` the two coefficients
    keep the ratio that they have in the prior. None is below zero: confidence stays monotone.
    """
    table = np.stack([np.ones(len(right)), log_odds(probability), np.asarray(evidence)], axis=1)
    start = np.array([prior.offset, prior.probability, prior.evidence])
    counts = np.broadcast_to(np.asarray(frames, np.float64), right.shape)
    most = most_log_odds(probability)
    if keep_shape:
        shape = start[1:]
        table = np.stack([table[:, 0], table[:, 1:] @ shape], axis=1)
        offset, scale = _logistic(table, most, right, counts, np.array([prior.offset, 1.0]),
                                  prior_weight)
        slopes = scale * shape
    else:
        offset, *slopes = _logistic(table, most, right, counts, start, prior_weight)
    return ConfidenceModel(float(offset), float(slopes[0]), float(slopes[1]), prior.weight)


def _logistic(table: Floats, most: Floats, right: NDArray[np.bool_], counts: Floats,
              start: Floats, prior_weight: float) -> Floats:
    """
    Return the coefficients (K,), the offset first, of greatest posterior probability.

    Log-odds are `table` (N,K) times the coefficients, and `most` (N,) at most.
    """
    precision = prior_weight * np.where(np.arange(len(start)) == 0, 0.05, 1.0)

    def loss(answer: Floats) -> tuple[float, Floats]:
        free, off = table @ answer, answer - start
        odds = np.minimum(free, most)
        excess = counts * (free < most) * (1 / (1 + np.exp(-np.clip(odds, -700, 700))) - right)
        return (float(counts @ (np.logaddexp(0, odds) - right * odds)
                      + precision @ np.square(off) / 2),
                table.T @ excess + precision * off)

    bounds = [(None, None), *[(0.0, None)] * (len(start) - 1)]
    found = minimize(loss, start, jac=True, method='L-BFGS-B', bounds=bounds,
                     options={'ftol': 1e-14, 'gtol': 1e-9, 'maxiter': 500})
    return np.asarray(found.x)
