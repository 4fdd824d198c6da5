"""The protection level: no wider than needed, and none where the mode is not enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.localization.protection import protection_level

DEVIATION = (0.3, 0.4, 0.05)
BESIDE = 3.3 * 0.5
X = np.arange(4.0)
PLACES = poses.planar(X, 0 * X, 0 * X)


@pytest.mark.parametrize(('held', 'level'), [
    ([0.9995, 0.0003, 0.0001, 0.0001], 0 + BESIDE), ([0.9, 0.0995, 0.0004, 0.0001], 1 + BESIDE),
    ([0.0001, 0.0004, 0.0995, 0.9], 3 + BESIDE), ([0.5, 0.4, 0.05, 0.0], math.inf)])
def test_the_level_reaches_to_the_places_that_hold_999_of_1000(held, level) -> None:
    found = protection_level(PLACES[0], PLACES, np.array(held), np.asarray, DEVIATION)
    assert found == pytest.approx(level)


def test_confidence_decides_and_not_the_belief_alone() -> None:
    held = np.array([0.0, 0.0, 0.0, 1.0])
    doubtful = protection_level(PLACES[0], PLACES, held, lambda p: 0.99 * p, DEVIATION)
    assert doubtful == math.inf
    # Strong evidence: half of the belief is enough to be sure.
    sure = protection_level(PLACES[0], PLACES, np.array([0.6, 0.4, 0.0, 0.0]),
                            lambda p: np.where(p > 0.5, 1.0, 0.0), DEVIATION)
    assert sure == pytest.approx(BESIDE)
