"""The likelihood ratio of a similarity: its shape, its bounds, and what it refuses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros.calibration import Calibration

scores = strategies.floats(-1e4, 1e4)
laws = strategies.builds(Calibration, strategies.floats(0, 5), strategies.floats(0.01, 1),
                         strategies.floats(1, 1e6))
relaxed = settings(deadline=None, max_examples=100)


@given(law=laws, one=scores, other=scores)
@relaxed
def test_the_ratio_grows_with_the_score_between_its_bounds(law, one, other) -> None:
    low, high = sorted([one, other])
    assert law.outliers <= law.ratios(low) <= law.ratios(high)
    assert law.ratios(high) <= law.outliers + (1 - law.outliers) * law.largest * (1 + 1e-9)


@given(separation=strategies.floats(0.1, 4), score=strategies.floats(-5, 5))
@relaxed
def test_the_ratio_is_that_of_two_normal_laws(separation, score) -> None:
    same = np.exp(-0.5 * (score - separation) ** 2)
    other = np.exp(-0.5 * score ** 2)
    law = Calibration(separation, outliers=0.25, largest=1e30)
    assert law.ratios(score) == pytest.approx(0.25 + 0.75 * same / other, rel=1e-9)


def test_ratios_are_as_many_as_scores() -> None:
    ratios = Calibration().ratios(np.zeros((3, 2), np.float32))
    assert ratios.shape == (3, 2)
    assert ratios.dtype == np.float64


def test_what_the_map_keeps_makes_the_same_law() -> None:
    law = Calibration(1.5, 0.05, 300.0, 'a test')
    assert Calibration(**law.as_dict()) == law


@pytest.mark.parametrize('numbers', [
    {'separation': np.nan}, {'separation': np.inf}, {'separation': -1}, {'outliers': 0},
    {'outliers': 1.5}, {'outliers': np.nan}, {'largest': 0.5}, {'largest': np.inf}])
def test_numbers_that_make_no_law_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match='no likelihood has'):
        Calibration(**numbers)
