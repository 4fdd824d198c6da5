"""The metrics, against cases worked out by hand and scikit-learn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros.core.metrics import average_precision
from vpr_ros.core.metrics import calibration_error
from vpr_ros.core.metrics import first_right
from vpr_ros.core.metrics import nees
from vpr_ros.core.metrics import precision_recall
from vpr_ros.core.metrics import recall
from vpr_ros.core.metrics import recall_at_precision
from vpr_ros.core.metrics import reliability
from vpr_ros.core.metrics import wilson
from vpr_ros.core.metrics import within

relaxed = settings(deadline=None, max_examples=100)
answers = strategies.lists(strategies.tuples(strategies.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]),
                                             strategies.booleans()), min_size=1, max_size=40)


def test_the_rank_is_that_of_the_first_correct_candidate() -> None:
    candidates = np.array([[4, 2, 7], [1, 0, 3], [5, 6, 8]])
    ranks = first_right(candidates, [[7, 2], [1], [0]])
    assert ranks.tolist() == [1, 0, 3]
    assert recall(ranks, (1, 2, 3)) == {1: 1 / 3, 2: 2 / 3, 3: 2 / 3}


def test_recall_without_queries_is_an_error() -> None:
    with pytest.raises(ValueError, match='no query has a correct place'):
        recall(np.zeros(0, np.int64))


def test_the_confidence_interval_of_a_share_is_wilsons() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0.0, 0) == (0.0, 1.0)


def test_precision_and_recall_by_hand() -> None:
    score = np.array([0.9, 0.8, 0.8, 0.3])
    correct = np.array([True, True, False, True])
    thresholds, precision, recalls = precision_recall(score, correct, positives=4)
    assert thresholds.tolist() == [0.9, 0.8, 0.3]
    assert precision == pytest.approx([1, 2 / 3, 3 / 4])
    assert recalls == pytest.approx([1 / 4, 2 / 4, 3 / 4])
    assert average_precision(score, correct) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert recall_at_precision(score, correct, 1.0, positives=4) == 0.25
    assert recall_at_precision(score, correct, 0.75, positives=4) == 0.75
    assert recall_at_precision(score, ~correct, 0.9, positives=4) == 0


@given(answers)
@relaxed
def test_average_precision_agrees_with_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    metrics = pytest.importorskip('sklearn.metrics')
    score, correct = np.array([s for s, _ in pairs]), np.array([c for _, c in pairs])
    if correct.any():
        expected = metrics.average_precision_score(correct, score)
        assert average_precision(score, correct) == pytest.approx(expected, abs=1e-9)
    else:
        assert average_precision(score, correct) == 0


@given(answers)
@relaxed
def test_recall_falls_as_the_required_precision_rises(pairs: list[tuple[float, bool]]) -> None:
    score, correct = np.array([s for s, _ in pairs]), np.array([c for _, c in pairs])
    recalls = [recall_at_precision(score, correct, p, len(correct))
               for p in (0.0, 0.5, 0.99, 1.0)]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[0] == pytest.approx(correct.mean())


def test_the_reliability_diagram_has_ten_bins() -> None:
    confidence = np.array([0.0, 0.05, 0.55, 0.95, 1.0])
    correct = np.array([False, True, True, True, False])
    bins = reliability(confidence, correct)
    assert len(bins) == 10
    assert bins[0] == (2, pytest.approx(0.025), 0.5)
    assert bins[9] == (2, pytest.approx(0.975), 0.5)
    assert bins[3][0] == 0
    expected = (2 * 0.475 + 0.45 + 2 * 0.475) / 5
    assert calibration_error(confidence, correct) == pytest.approx(expected)


def test_the_share_of_errors_within_limits() -> None:
    assert within(np.array([0.5, 1.0, 3.0]), (1, 2, 5)) == {1: 2 / 3, 2: 2 / 3, 5: 1.0}
    assert np.isnan(within(np.zeros(0), (1,))[1])


def test_a_consistent_covariance_has_a_nees_of_one() -> None:
    random = np.random.default_rng(0)
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    errors = random.multivariate_normal([0, 0], covariance, 4000)
    covariances = np.broadcast_to(covariance, (4000, 2, 2))
    assert nees(errors, covariances) == pytest.approx(1.0, abs=0.05)
    assert nees(2 * errors, covariances) == pytest.approx(4.0, abs=0.2)
    assert np.isnan(nees(np.zeros((0, 2)), np.zeros((0, 2, 2))))
