"""
The metrics, each defined once for the evaluation, the training and the benchmarks.

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
"""The n of Recall@n."""

BINS = 10
"""Bins of confidence in the reliability diagram."""


def first_right(candidates: NDArray[np.int64], truth: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """
    Return the rank (Q,) of each query's first correct candidate, from 0; K without a correct one.

    candidates (Q,K), best first; truth[q] are the correct places of query q.
    """
    ranks = np.full(len(candidates), candidates.shape[1], np.int64)
    for query, (row, correct) in enumerate(zip(candidates, truth, strict=True)):
        hits = np.flatnonzero(np.isin(row, np.asarray(correct, np.int64)))
        if len(hits):
            ranks[query] = hits[0]
    return ranks


def recall(ranks: NDArray[np.int64], ns: Sequence[int] = RECALLS) -> dict[int, float]:
    """
    Return Recall@n: the share of queries with a correct candidate among the first n.

    ranks (Q,) as `first_right` gives them, of the queries that have a correct place on the map.
    Raises ValueError without any.
    """
    if not len(ranks):
        raise ValueError('no query has a correct place: recall is undefined')
    return {n: float(np.mean(ranks < n)) for n in ns}


def wilson(share: float, count: int, sigmas: float = 1.96) -> tuple[float, float]:
    """Return Wilson's score interval of a share of `count` trials (1927; 95 % at 1.96 sigmas)."""
    if count < 1:
        return 0.0, 1.0
    square = sigmas ** 2 / count
    centre = (share + square / 2) / (1 + square)
    half_width = sigmas / (1 + square) * math.sqrt(share * (1 - share) / count
                                                   + square / (4 * count))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def paired_difference(before: Flags, after: Flags) -> tuple[float, float]:
    """
    Return the 95 % interval of how much the share of `before` (N,) is above that of `after` (N,).

    Both are of the same N trials: the interval is narrow where they agree on most of them
    (Newcombe, Statistics in Medicine 1998, method 10).
    """
    count = len(before)
    first, second = float(np.mean(before)), float(np.mean(after))
    (low1, high1), (low2, high2) = wilson(first, count), wilson(second, count)
    spread = math.sqrt(first * (1 - first) * second * (1 - second))
    correlation = (float(np.mean(before & after)) - first * second) / spread if spread else 0.0

    def width(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one ** 2 - 2 * correlation * one * other + other ** 2))

    difference = first - second
    return (difference - width(first - low1, high2 - second),
            difference + width(high1 - first, second - low2))


def precision_recall(score: Floats, correct: Flags, positives: int | None = None
                     ) -> tuple[Floats, Floats, Floats]:
    """
    Return (thresholds, precision, recall), each (T,), from the highest threshold down.

    At each threshold the answers with at least that `score` (N,) are given. Precision is the share
    of them that is `correct` (N,); recall is the number of correct ones over `positives`, by
    default all that are correct. Answers of equal score share a threshold.
    """
    order = np.argsort(-np.asarray(score, np.float64), kind='stable')
    ordered, hits = np.asarray(score, np.float64)[order], np.cumsum(correct[order])
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(order) else order
    total = int(correct.sum()) if positives is None else positives
    return (ordered[last], hits[last] / (last + 1.0), hits[last] / max(total, 1))


def average_precision(score: Floats, correct: Flags) -> float:
    """
    Return the area under the precision-recall curve as a step function, without interpolation.

    The sum of precision times the increase in recall (Manning et al. 2008, 8.4), as scikit-learn's
    average_precision_score; 0 when nothing is correct.
    """
    _, precision, recalls = precision_recall(score, correct)
    return float(np.sum(np.diff(recalls, prepend=0.0) * precision))


def recall_at_precision(score: Floats, correct: Flags, precision: float, positives: int) -> float:
    """Return the highest recall at any threshold with at least this precision; 0 without one."""
    _, precisions, recalls = precision_recall(score, correct, positives)
    return float(recalls[precisions >= precision - 1e-12].max(initial=0.0))


def reliability(confidence: Floats, correct: Flags) -> list[tuple[int, float, float]]:
    """
    Return (frames, mean confidence, share that is correct) of each of ten equal bins.

    Both means are nan in an empty bin.
    """
    bins = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    return [(int(inside.sum()), float(confidence[inside].mean()), float(correct[inside].mean()))
            if (inside := bins == number).any() else (0, math.nan, math.nan)
            for number in range(BINS)]


def calibration_error(confidence: Floats, correct: Flags) -> float:
    """Return the expected calibration error (ECE) over ten equal bins (Naeini et al. 2015)."""
    return sum(count * abs(mean - share)
               for count, mean, share in reliability(confidence, correct)
               if count) / max(len(confidence), 1)


def within(errors: Floats, limits: Sequence[float]) -> dict[float, float]:
    """Return the share of errors (N,) at or below each limit; nan without errors."""
    return {limit: float(np.mean(errors <= limit)) if len(errors) else math.nan
            for limit in limits}


def nees(errors: Floats, covariances: Floats) -> float:
    """
    Return the normalised estimation error squared over its expectation: 1 when consistent.

    errors (N,d), covariances (N,d,d); the mean of e' C^-1 e, divided by d (Bar-Shalom et al.
    2001, 5.4.2). Above 1 the covariances are too small. nan without errors.
    """
    if not len(errors):
        return math.nan
    solved = np.linalg.solve(covariances, errors[..., None])[..., 0]
    return float(np.mean(np.sum(errors * solved, axis=1)) / errors.shape[1])
