"""
The measures: one definition each, for the evaluation, the training and the benchmarks.

Arrays in, numbers out; docs/metrics.md has the definitions in words. What is measured, and on
what, is in offline/summary.py and training/recall.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

RECALLS = (1, 5, 10, 20)

BINS = 10


def first_right(candidates: NDArray[np.int64], truth: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """
    Return the rank (Q,) of each query's first right candidate, counted from 0.

    candidates (Q,K), best first; truth[q] are the right places of query q. K where none is right.
    """
    ranks = np.full(len(candidates), candidates.shape[1], np.int64)
    for query, (row, right) in enumerate(zip(candidates, truth, strict=True)):
        hits = np.flatnonzero(np.isin(row, np.asarray(right, np.int64)))
        if len(hits):
            ranks[query] = hits[0]
    return ranks


def recall(ranks: NDArray[np.int64], ns: Sequence[int] = RECALLS) -> dict[int, float]:
    """
    Return Recall@n: the share of queries whose first right candidate is among the first n.

    ranks (Q,) of the queries that have a right place on the map, and of no others. Raises
    ValueError when there are none.
    """
    if not len(ranks):
        raise ValueError('no query has a right place: there is no recall')
    return {n: float(np.mean(ranks < n)) for n in ns}


def wilson(share: float, count: int, sigmas: float = 1.96) -> tuple[float, float]:
    """Return the interval in which a share of `count` trials lies (95 % at 1.96; Wilson 1927)."""
    if count < 1:
        return 0.0, 1.0
    square = sigmas ** 2 / count
    middle = (share + square / 2) / (1 + square)
    reach = sigmas / (1 + square) * math.sqrt(share * (1 - share) / count
                                              + square / (4 * count))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def precision_recall(score: Floats, right: Flags, wanted: int | None = None
                     ) -> tuple[Floats, Floats, Floats]:
    """
    Return (thresholds, precision, recall), each (T,), from the highest threshold down.

    At a threshold all answers of at least that `score` (N,) are given: precision is the share of
    them that is `right` (N,), recall how many right ones there are over how many are `wanted`
    (all that are right at any threshold, if left out). Equal scores are given together.
    """
    order = np.argsort(-np.asarray(score, np.float64), kind='stable')
    ordered, hits = np.asarray(score, np.float64)[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(order) else order
    total = int(right.sum()) if wanted is None else wanted
    return (ordered[last], hits[last] / (last + 1.0), hits[last] / max(total, 1))


def average_precision(score: Floats, right: Flags) -> float:
    """
    Return the area under the precision-recall curve, in steps, without interpolation.

    The sum of precision times gain in recall (Manning et al. 2008, 8.4), as scikit-learn's
    average_precision_score has it; 0 when nothing is right.
    """
    _, precision, found = precision_recall(score, right)
    return float(np.sum(np.diff(found, prepend=0.0) * precision))


def recall_at_precision(score: Floats, right: Flags, precision: float, wanted: int) -> float:
    """Return the greatest recall at a threshold where `precision` or more is reached; or 0."""
    _, reached, found = precision_recall(score, right, wanted)
    return float(found[reached >= precision - 1e-12].max(initial=0.0))


def reliability(confidence: Floats, right: Flags) -> list[tuple[int, float, float]]:
    """
    Return (frames, mean confidence, share that is right) of each of ten equal bins.

    Empty bins have nan.
    """
    bins = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    return [(int(own.sum()), float(confidence[own].mean()), float(right[own].mean()))
            if (own := bins == number).any() else (0, math.nan, math.nan)
            for number in range(BINS)]


def calibration_error(confidence: Floats, right: Flags) -> float:
    """Return the expected calibration error over ten equal bins (Naeini et al. 2015)."""
    return sum(count * abs(sure - share) for count, sure, share in reliability(confidence, right)
               if count) / max(len(confidence), 1)


def within(errors: Floats, limits: Sequence[float]) -> dict[float, float]:
    """Return the share of errors (N,) that is no larger than each limit; nan for no errors."""
    return {limit: float(np.mean(errors <= limit)) if len(errors) else math.nan
            for limit in limits}


def nees(errors: Floats, covariances: Floats) -> float:
    """
    Return the normalised estimation error squared, over its expectation: 1 if honest.

    errors (N,d), covariances (N,d,d); the mean of e' C^-1 e, divided by d (Bar-Shalom et al.
    2001, 5.4.2). Above 1 the covariance promises too much. nan for no errors.
    """
    if not len(errors):
        return math.nan
    solved = np.linalg.solve(covariances, errors[..., None])[..., 0]
    return float(np.mean(np.sum(errors * solved, axis=1)) / errors.shape[1])
