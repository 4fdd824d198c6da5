"""From similarity to likelihood and from belief to confidence: shape, bounds, fit, refusals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros.core.metrics import calibration_error
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.calibration import Curve
from vpr_ros.maps.calibration import DEFAULT_CURVES
from vpr_ros.maps.calibration import fit_curve
from vpr_ros.maps.calibration import log_odds
import yaml

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
    law = Calibration(1.5, 0.05, 300.0, (0.1, 0.5, 0.02),
                      {'odometry': Curve(-1.0, 0.9, 0.5, 0.2)}, 'a test')
    assert Calibration(**yaml.safe_load(yaml.safe_dump(law.as_dict()))) == law


def test_what_an_older_map_keeps_is_taken() -> None:
    old = {'separation': 3.0, 'outliers': 0.05, 'largest': 10000.0, 'fitted_on': ''}
    assert Calibration(**old) == Calibration()


def test_by_default_a_drive_needs_both_mass_and_support() -> None:
    for way in ('odometry', 'filter'):
        curve = DEFAULT_CURVES[way]
        assert curve.confidence(0.98, 0.5) < 0.5
        assert curve.confidence(0.2, 3.0) < 0.9
        assert curve.confidence(0.98, 4.0) > 0.95


def test_by_default_a_single_frame_is_no_surer_than_its_mass() -> None:
    mass = np.linspace(0.01, 0.95, 50)
    assert (DEFAULT_CURVES['single'].confidence(mass, 9.0) < mass).all()


curves = strategies.builds(Curve, strategies.floats(-20, 20), strategies.floats(0, 10),
                           strategies.floats(0, 10))


@given(curve=curves, masses=strategies.tuples(strategies.floats(0, 1), strategies.floats(0, 1)),
       supports=strategies.tuples(strategies.floats(-50, 50), strategies.floats(-50, 50)))
@relaxed
def test_confidence_grows_with_belief_and_with_its_support(curve, masses, supports) -> None:
    low, high = (float(curve.confidence(mass, support))
                 for mass, support in zip(sorted(masses), sorted(supports), strict=True))
    assert 0 <= low <= high <= 1


@given(seed=strategies.integers(0, 10_000), count=strategies.integers(1, 200))
@relaxed
def test_a_fit_is_monotone_whatever_the_examples(seed, count) -> None:
    random = np.random.default_rng(seed)
    curve = fit_curve(random.uniform(0, 1, count), random.normal(0, 3, count),
                      random.uniform(size=count) < random.uniform(), Curve())
    assert curve.mass >= 0
    assert curve.support >= 0
    assert np.isfinite([curve.offset, curve.mass, curve.support]).all()


def test_a_fit_finds_the_law_that_the_examples_follow() -> None:
    random = np.random.default_rng(0)
    law = Curve(-2.0, 0.7, 0.9)
    mass, support = random.uniform(0, 1, 20_000), random.normal(2, 1, 20_000)
    right = random.uniform(size=20_000) < law.confidence(mass, support)
    curve = fit_curve(mass, support, right, Curve())
    assert (curve.offset, curve.mass, curve.support) == pytest.approx((-2.0, 0.7, 0.9), abs=0.1)
    assert calibration_error(curve.confidence(mass, support), right) < 0.02


def test_a_fit_that_keeps_its_shape_scales_both_slopes_alike() -> None:
    random = np.random.default_rng(0)
    mass, support = random.uniform(0, 1, 500), random.normal(2, 1, 500)
    right = random.uniform(size=500) < Curve(-2.0, 0.7, 0.9).confidence(mass, support)
    curve = fit_curve(mass, support, right, Curve(0.0, 1.0, 0.5), keep_shape=True)
    assert curve.support == pytest.approx(curve.mass / 2)
    assert calibration_error(curve.confidence(mass, support), right) < 0.1


def test_a_drive_on_which_all_went_well_does_not_make_it_certain() -> None:
    mass = np.full(50, 0.9)
    curve = fit_curve(mass, np.zeros(50), np.ones(50, bool), Curve(), frames=0.1)
    assert 0.9 < curve.confidence(0.9, 0.0) < 0.999
    assert curve.confidence(0.01, 0.0) < 0.5


def test_log_odds_are_bounded() -> None:
    assert log_odds(0.5) == 0
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()


@pytest.mark.parametrize('numbers', [
    {'separation': np.nan}, {'separation': np.inf}, {'separation': -1}, {'outliers': 0},
    {'outliers': 1.5}, {'outliers': np.nan}, {'largest': 0.5}, {'largest': np.inf}])
def test_numbers_that_make_no_law_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match='no likelihood has'):
        Calibration(**numbers)


@pytest.mark.parametrize('numbers', [
    {'deviation': (0.1, 0.2)}, {'deviation': (0.1, 0.2, 0.0)}, {'deviation': (0.1, np.nan, 1.0)},
    {'curves': {'sonar': Curve()}}, {'curves': {'single': {'mass': -1.0}}}])
def test_a_calibration_that_is_none_is_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r'deviation|curve'):
        Calibration(**numbers)
