"""The law of the best wrong place: its shape, its fit to a map, and what it refuses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros import poses
from vpr_ros.calibration import Calibration
from vpr_ros.calibration import fit
from vpr_ros.place_map import Manifest
from vpr_ros.place_map import ModelIdentity
from vpr_ros.place_map import PlaceMap
from vpr_ros.place_map import Session

DIMENSION = 32
similarities = strategies.floats(-1, 1)
laws = strategies.builds(Calibration, strategies.floats(-0.5, 1), strategies.floats(0.01, 0.5))
relaxed = settings(deadline=None, max_examples=100)


@given(law=laws, one=similarities, other=similarities)
@relaxed
def test_novelty_is_a_probability_that_grows_with_similarity(law, one, other) -> None:
    low, high = sorted([one, other])
    assert 0 <= law.novelty(low) <= law.novelty(high) <= 1


@given(law=laws)
@relaxed
def test_novelty_at_the_location_is_that_of_the_gumbel_law(law) -> None:
    assert law.novelty(law.location) == pytest.approx(np.exp(-1))
    median = law.location - law.scale * np.log(np.log(2))
    assert law.novelty(median) == pytest.approx(0.5)


@given(law=laws, some=strategies.lists(similarities, min_size=1, max_size=10))
@relaxed
def test_the_best_candidate_weighs_one_and_no_other_more(law, some) -> None:
    weights = law.weights(np.array(sorted(some, reverse=True), np.float32))
    assert weights[0] == 1
    assert (np.diff(weights) <= 0).all()
    assert (weights >= 0).all()


def test_a_fitted_law_spreads_the_best_wrong_places_evenly() -> None:
    place_map = _street(400)
    law = fit(place_map, correct_radius=1.0)
    vectors = place_map.vectors()
    wrong = vectors @ vectors.T
    wrong[poses.distance(place_map.poses[:, None], place_map.poses[None]) <= 4] = -1
    novelty = np.sort(law.novelty(wrong.max(axis=1)))
    # The distance of Kolmogorov and Smirnov to the uniform law
    assert np.abs(novelty - (np.arange(400) + 0.5) / 400).max() < 0.1
    assert law.fitted_on == '400 places of this map'


def test_neighbours_that_look_alike_do_not_count_as_wrong() -> None:
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(100, DIMENSION))
    places = np.repeat(rows, 4, axis=0) + 0.01 * rng.normal(size=(400, DIMENSION))
    alike = fit(_map(places), correct_radius=1.0)
    assert alike.location < 0.7  # neighbours are 0.99 alike
    assert alike.location == pytest.approx(fit(_map(rows), correct_radius=0.2).location, abs=0.1)


def test_a_fit_to_a_sample_is_repeatable_and_near_that_to_all() -> None:
    place_map = _street(400)
    sampled = fit(place_map, 1.0, sample=100, seed=3)
    assert sampled == fit(place_map, 1.0, sample=100, seed=3)
    assert sampled.fitted_on == '100 places of this map'
    assert sampled.location == pytest.approx(fit(place_map, 1.0).location, abs=0.03)


@pytest.mark.parametrize(('count', 'radius'), [(1, 1.0), (19, 1.0), (400, 100.0)])
def test_a_map_with_too_few_places_far_apart_keeps_the_default(count: int, radius: float) -> None:
    assert fit(_street(count), correct_radius=radius) == Calibration()


def test_a_map_of_places_that_all_look_the_same_still_has_a_law() -> None:
    law = fit(_map(np.ones((50, DIMENSION))), correct_radius=1.0)
    assert law.location == pytest.approx(1, abs=0.02)
    assert law.scale == 0.01


def test_what_the_map_keeps_makes_the_same_law() -> None:
    law = Calibration(0.3, 0.05, 'a test')
    assert Calibration(**law.as_dict()) == law


@pytest.mark.parametrize(('location', 'scale'), [
    (np.nan, 0.1), (np.inf, 0.1), (0.4, 0), (0.4, -0.1), (0.4, np.nan), (0.4, np.inf)])
def test_numbers_that_make_no_law_are_refused(location: float, scale: float) -> None:
    with pytest.raises(ValueError, match='no Gumbel law'):
        Calibration(location, scale)


def _street(count: int) -> PlaceMap:
    return _map(np.random.default_rng(6).normal(size=(count, DIMENSION)))


def _map(rows: np.ndarray) -> PlaceMap:
    """Return a map of places a metre apart that look like rows (N,D), scaled to unit norm."""
    count = len(rows)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    manifest = Manifest(ModelIdentity('ab', 'model.onnx', DIMENSION, 48, 64), (Session('a'),))
    street = poses.planar(np.arange(float(count)), np.zeros(count), np.zeros(count))
    return PlaceMap.build(unit, np.arange(count), street, np.zeros(count, np.int32), manifest)
