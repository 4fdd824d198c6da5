"""Fits of a confidence model: they find the truth, stay monotone, and are never certain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros.core.metrics import calibration_error
from vpr_ros.maps.confidence import ConfidenceModel
from vpr_ros.offline.confidence_fit import fit_confidence


@settings(deadline=None, max_examples=100)
@given(seed=strategies.integers(0, 10_000), count=strategies.integers(1, 200))
def test_a_fit_is_monotone_whatever_the_examples(seed, count) -> None:
    random = np.random.default_rng(seed)
    model = fit_confidence(random.uniform(0, 1, count), random.normal(0, 3, count),
                           random.uniform(size=count) < random.uniform(), ConfidenceModel())
    assert model.probability >= 0
    assert model.evidence >= 0
    assert np.isfinite([model.offset, model.probability, model.evidence]).all()


def test_a_fit_finds_the_model_that_the_examples_follow() -> None:
    random = np.random.default_rng(0)
    truth = ConfidenceModel(-2.0, 0.7, 0.9)
    probability, evidence = random.uniform(0, 1, 20_000), random.normal(2, 1, 20_000)
    right = random.uniform(size=20_000) < truth.confidence(probability, evidence)
    model = fit_confidence(probability, evidence, right, ConfidenceModel())
    assert (model.offset, model.probability, model.evidence) == pytest.approx(
        (-2.0, 0.7, 0.9), abs=0.1)
    assert calibration_error(model.confidence(probability, evidence), right) < 0.02


def test_a_fit_that_keeps_its_shape_scales_both_slopes_alike() -> None:
    random = np.random.default_rng(0)
    probability, evidence = random.uniform(0, 1, 500), random.normal(2, 1, 500)
    truth = ConfidenceModel(-2.0, 0.7, 0.9)
    right = random.uniform(size=500) < truth.confidence(probability, evidence)
    model = fit_confidence(probability, evidence, right, ConfidenceModel(0.0, 1.0, 0.5),
                           keep_shape=True)
    assert model.evidence == pytest.approx(model.probability / 2)
    assert calibration_error(model.confidence(probability, evidence), right) < 0.1


def test_a_drive_without_errors_does_not_make_it_certain() -> None:
    probability = np.full(50, 0.9)
    model = fit_confidence(probability, np.zeros(50), np.ones(50, bool), ConfidenceModel(),
                           frames=0.1)
    assert 0.9 < model.confidence(0.9, 0.0) < 0.999
    assert model.confidence(0.01, 0.0) < 0.5
