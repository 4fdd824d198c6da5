"""
Summary: the figures of an Evaluation, as `vpr evaluate --json` writes them.

docs/metrics.md explains every key; the measures themselves are in core/metrics.py.
"""

from __future__ import annotations

import json
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import metrics
from vpr_ros.core.metrics import RECALLS
from vpr_ros.core.poses import angle
from vpr_ros.core.poses import heading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from vpr_ros.offline.evaluation import Evaluation

    Floats = NDArray[np.float64]

PRECISIONS = (0.99, 1.0)
"""Precisions at which the recall is reported."""


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """
    Return the figures of an evaluation, ready for JSON.

    Those that are not defined (without mapped or unmapped queries, metric poses, or a covariance)
    are None.
    """
    figures = {
        **evaluation.about,
        **_setup(evaluation),
        **_recall(evaluation),
        **_answers(evaluation),
        'pose_error': _pose_error(evaluation),
        'nees': _nees(evaluation),
        'protection': _protection(evaluation),
        'refined': _refined(evaluation),
        'latency_ms': _latency(evaluation.stage_seconds),
        'seconds': round(evaluation.total_seconds, 3)}
    # JSON has no NaN.
    plain: dict[str, Any] = json.loads(json.dumps(figures), parse_constant=lambda _: None)
    return plain


def _setup(evaluation: Evaluation) -> dict[str, Any]:
    mapped = int(evaluation.mapped.sum())
    return {'places': len(evaluation.references.poses), 'evaluated': mapped,
            'unmapped': len(evaluation) - mapped, 'tolerance': evaluation.tolerance,
            'filter': evaluation.use_filter, 'min_confidence': evaluation.min_confidence}


def _recall(evaluation: Evaluation) -> dict[str, Any]:
    """Return Recall@N of single frames, and the share of right estimates with the filter."""
    mapped = evaluation.mapped
    count = int(mapped.sum())
    recall = metrics.recall(evaluation.ranks[mapped]) if count else dict.fromkeys(
        RECALLS, math.nan)
    candidates = max(evaluation.estimates.candidates.shape[1], 1)
    counted = [n for n in RECALLS if n <= candidates]
    return {
        'recall': {str(n): recall[n] for n in counted},
        'recall_interval': {str(n): metrics.wilson(recall[n], count) for n in counted},
        **({'filtered': _share(evaluation.right[mapped])} if evaluation.use_filter else {})}


def _answers(evaluation: Evaluation) -> dict[str, Any]:
    """Return how right the published poses are, and how far the confidence says so."""
    mapped, right = evaluation.mapped, evaluation.right
    confidence, published = evaluation.estimates.confidence, evaluation.estimates.published
    return {
        'auc_pr': metrics.average_precision(confidence, right),
        'recall_at_precision': {
            str(precision): metrics.recall_at_precision(confidence, right, precision,
                                                        int(mapped.sum()))
            for precision in PRECISIONS},
        'answered': float(published.mean()),
        'answered_right': _share(right[published]),
        'false_accepts': _share(published[~mapped]),
        'ece': metrics.calibration_error(confidence, right),
        'reliability': metrics.reliability(confidence, right)}


def _pose_error(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return percentiles of the published poses' position errors, in metres."""
    errors = evaluation.errors
    errors = errors[evaluation.estimates.published & np.isfinite(errors)]
    if not len(errors):
        return None
    within = metrics.within(errors, (1, 2, 5, 10))
    return {**_percentiles(errors, 50, 90, 99),
            'within': {str(limit): share for limit, share in within.items()}}


def _refined(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return, of the published poses that were refined, their error in metres before and after."""
    estimates, true = evaluation.estimates, evaluation.true_poses
    chosen = estimates.published & (estimates.inliers > 0) & np.isfinite(true[:, 0])
    if not evaluation.metric or not chosen.any():
        return None
    before = np.linalg.norm((estimates.place_positions - true[:, :3])[chosen], axis=1)
    off = (estimates.poses - true)[chosen]
    yaw = heading(true[chosen])
    ahead = np.cos(yaw) * off[:, 0] + np.sin(yaw) * off[:, 1]
    aside = np.cos(yaw) * off[:, 1] - np.sin(yaw) * off[:, 0]
    turn = np.degrees(angle(estimates.poses[chosen], true[chosen]))
    after = evaluation.errors[chosen]
    return {'share': float(chosen[estimates.published].mean()),
            'inliers': float(np.median(estimates.inliers[chosen])),
            'before': _percentiles(before, 50, 90), 'after': _percentiles(after, 50, 90),
            'ahead': _percentiles(np.abs(ahead), 50, 90),
            'aside': _percentiles(np.abs(aside), 50, 90),
            'degrees': _percentiles(turn, 50, 90),
            'within': float(((after <= 0.25) & (turn <= 2)).mean())}


def _nees(evaluation: Evaluation) -> float | None:
    """Return the NEES of x and y over the right poses that were published with a covariance."""
    estimates, true = evaluation.estimates, evaluation.true_poses
    chosen = (estimates.published & evaluation.right
              & np.isfinite(estimates.covariances[:, 0, 0]) & np.isfinite(true[:, 0]))
    if not evaluation.metric or not chosen.any():
        return None
    return metrics.nees((true - estimates.poses)[chosen, :2],
                        estimates.covariances[chosen, :2, :2])


def _protection(evaluation: Evaluation) -> dict[str, float] | None:
    """
    Return how often there is a protection level, its metres, and how often it is broken.

    A level is broken when the truth is farther away, or the query is on no place of the map.
    """
    levels = evaluation.estimates.protection_levels
    protected = np.isfinite(levels)
    if not evaluation.metric or not protected.any():
        return None
    # An error is unknown where no place is right: no radius holds that truth.
    held = evaluation.errors <= levels
    return {'share': float(protected.mean()), 'broken': float((protected & ~held).mean()),
            **_percentiles(levels[protected], 50, 90)}


def _latency(stage_seconds: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    return {stage: _percentiles(seconds * 1e3, 50, 99)
            for stage, seconds in stage_seconds.items() if len(seconds)}


def _percentiles(values: Floats, *percents: int) -> dict[str, float]:
    return {f'p{percent}': float(np.percentile(values, percent)) for percent in percents}


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if len(flags) else None
