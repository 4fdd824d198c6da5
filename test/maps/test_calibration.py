"""From similarity to likelihood and from belief to confidence: shape, bounds, refusals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.confidence import ConfidenceModel
from vpr_ros.maps.confidence import DEFAULT_MODELS
from vpr_ros.maps.confidence import log_odds
from vpr_ros.maps.confidence import Mode
import yaml

scores = strategies.floats(-1e4, 1e4)
calibrations = strategies.builds(Calibration, strategies.floats(0, 5),
                                 strategies.floats(0.01, 1), strategies.floats(1, 1e6))
relaxed = settings(deadline=None, max_examples=100)


@given(calibration=calibrations, one=scores, other=scores)
@relaxed
def test_the_ratio_grows_with_the_score_between_its_bounds(calibration, one, other) -> None:
    low, high = calibration.ratios(np.sort([one, other]))
    most = calibration.outliers + (1 - calibration.outliers) * calibration.largest
    assert calibration.outliers <= low <= high <= most * (1 + 1e-9)


@given(separation=strategies.floats(0.1, 4), score=strategies.floats(-5, 5))
@relaxed
def test_the_ratio_is_that_of_two_normal_laws(separation, score) -> None:
    same = np.exp(-0.5 * (score - separation) ** 2)
    other = np.exp(-0.5 * score ** 2)
    for calibration, apart in ((Calibration(separation, outliers=0.25, largest=1e30), None),
                               (Calibration(2.0, outliers=0.25, largest=1e30), separation)):
        assert calibration.ratios(np.array([score]), apart) == pytest.approx(
            0.25 + 0.75 * same / other, rel=1e-9)


def test_places_above_the_greatest_ratio_keep_their_order() -> None:
    calibration = Calibration(3.0, outliers=1e-9, largest=1000.0)
    ratios = calibration.ratios(np.array([9.0, 8.0, 6.0]))
    assert ratios == pytest.approx([1000.0, 1000 * np.exp(-3), 1000 * np.exp(-9)], rel=1e-5)


def test_no_scores_have_no_ratios() -> None:
    assert Calibration().ratios(np.zeros(0)).shape == (0,)


def test_what_the_map_keeps_makes_the_same_calibration() -> None:
    calibration = Calibration(1.5, 0.05, 300.0, (0.1, 0.5, 0.02),
                              {Mode.ODOMETRY: ConfidenceModel(-1.0, 0.9, 0.5, 0.2)}, 'a test')
    kept = yaml.safe_load(yaml.safe_dump(calibration.as_dict()))
    assert Calibration.from_dict(kept) == calibration


def test_what_an_older_map_keeps_is_taken() -> None:
    old = {'separation': 3.0, 'outliers': 0.05, 'largest': 10000.0, 'fitted_on': ''}
    assert Calibration.from_dict(old) == Calibration()


def test_names_of_version_0_1_are_read() -> None:
    old = {'curves': {'filter': {'offset': -3.0, 'mass': 0.5, 'support': 2.0, 'weight': 0.4}}}
    assert Calibration.from_dict(old) == Calibration(
        confidence={Mode.SEQUENCE: ConfidenceModel(-3.0, 0.5, 2.0, 0.4)})


def test_by_default_a_drive_needs_both_probability_and_evidence() -> None:
    for mode in (Mode.ODOMETRY, Mode.SEQUENCE):
        model = DEFAULT_MODELS[mode]
        assert model.confidence(0.98, 0.5) < 0.5
        assert model.confidence(0.2, 3.0) < 0.9
        assert model.confidence(0.98, 4.0) > 0.95


def test_by_default_a_single_frame_is_no_surer_than_its_mode() -> None:
    probability = np.linspace(0.01, 0.95, 50)
    assert (DEFAULT_MODELS[Mode.SINGLE].confidence(probability, 9.0) < probability).all()


models = strategies.builds(ConfidenceModel, strategies.floats(-20, 20), strategies.floats(0, 10),
                           strategies.floats(0, 10))


@given(model=models,
       probabilities=strategies.tuples(strategies.floats(0, 1), strategies.floats(0, 1)),
       evidences=strategies.tuples(strategies.floats(-50, 50), strategies.floats(-50, 50)))
@relaxed
def test_confidence_grows_with_belief_and_with_evidence(model, probabilities, evidences) -> None:
    low, high = (float(model.confidence(*pair)) for pair in zip(
        sorted(probabilities), sorted(evidences), strict=True))
    assert 0 <= low <= high <= 1


def test_log_odds_are_bounded() -> None:
    assert log_odds(0.5) == 0
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()


@pytest.mark.parametrize('numbers', [
    {'separation': np.nan}, {'separation': np.inf}, {'separation': -1}, {'outliers': 0},
    {'outliers': 1.5}, {'outliers': np.nan}, {'largest': 0.5}, {'largest': np.inf}])
def test_numbers_that_make_no_law_are_refused(numbers: dict[str, float]) -> None:
    name, = numbers
    with pytest.raises(ValueError, match=f'{name} is .*, not a number from'):
        Calibration(**numbers)


@pytest.mark.parametrize('numbers', [
    {'deviation': (0.1, 0.2)}, {'deviation': (0.1, 0.2, 0.0)}, {'deviation': (0.1, np.nan, 1.0)},
    {'confidence': {'sonar': {}}},
    {'confidence': {'single': {'probability': -1.0}}}])
def test_a_calibration_that_is_none_is_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r'deviation|confidence model|is not a valid Mode'):
        Calibration.from_dict(numbers)
