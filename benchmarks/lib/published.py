"""Rows of a table on the confidence: how much is published at a threshold, and how much right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.metrics import calibration_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def header(thresholds: Sequence[float]) -> list[str]:
    """Return the names of the columns of `row`."""
    return ['right', *(part for threshold in thresholds
                       for part in (f'>={threshold:g}', 'of it right')), 'ECE']


def row(confidence: NDArray[np.float64], right: NDArray[np.bool_], thresholds: Sequence[float]
        ) -> list[float]:
    """
    Return the share of N frames that is right, and the expected calibration error.

    Between them, for each threshold: the share of frames with at least that confidence, and how
    many of these are right (NaN where there are none). `confidence` and `right` are (N,).
    """
    shares = [float(right.mean())]
    for threshold in thresholds:
        published = confidence >= threshold
        shares += [float(published.mean()),
                   float(right[published].mean()) if published.any() else np.nan]
    return [*shares, calibration_error(confidence, right)]
