"""How far the right place stands out, and what that is on one drive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.localization.likelihood import Likelihood
from vpr_ros.localization.likelihood import Separation
from vpr_ros.localization.likelihood import values_at
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from vpr_ros.encoding.encoder import Encoder


def test_scores_are_standard_deviations_above_the_usual(encoder: Encoder) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, encoder.dimension))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    place_map = PlaceMap.build(
        vectors, np.arange(60) * 10**8, poses.planar(np.arange(60.0), 0.0, 0.0),
        np.zeros(60, np.int32), Manifest(ModelIdentity.of(encoder), (Session('one', ''),), 1.0))
    query = vectors[7]
    similarity = place_map.vectors(np.arange(60)) @ query
    scores = Likelihood(place_map).scores(query, similarity)
    assert scores.mean() == pytest.approx(0.0, abs=1e-5)
    assert scores.std() == pytest.approx(1.0, abs=1e-5)
    assert scores.argmax() == 7


def test_a_drive_that_nothing_is_known_of_is_a_usual_one() -> None:
    assert Separation().value(3.0) == 3.0


@pytest.mark.parametrize(('score', 'learned'), [(2.5, 2.5), (3.3, 3.3), (0.5, 2.0), (9.0, 3.75)])
def test_the_separation_of_a_drive_is_learned_within_bounds(score: float, learned: float) -> None:
    separation = Separation()
    values = []
    for _ in range(400):
        separation.learn(score, 1.0)
        values.append(separation.value(3.0))
    assert np.all(np.diff(values) * np.sign(score - 3.0) >= -1e-12)
    assert values[-1] == pytest.approx(learned, rel=0.02)
    # What is usual counts as much as ten frames.
    assert values[0] == pytest.approx((10 * 3.0 + score) / 11)


def test_frames_in_which_the_belief_is_not_sure_count_for_little() -> None:
    sure, unsure = Separation(), Separation()
    for _ in range(20):
        sure.learn(2.0, 1.0)
        unsure.learn(2.0, 0.01)
    assert sure.value(3.0) < 2.4
    assert unsure.value(3.0) > 2.97


def test_what_was_long_ago_is_forgotten() -> None:
    separation = Separation()
    for score in [3.6] * 500 + [2.4] * 500:
        separation.learn(score, 1.0)
    assert separation.value(3.0) == pytest.approx(2.45, abs=0.05)


@given(places=strategies.lists(strategies.integers(0, 30), unique=True, min_size=1),
       wanted=strategies.sets(strategies.integers(0, 30), min_size=1))
def test_values_of_places_are_found_or_another(places: list[int], wanted: set[int]) -> None:
    values = np.array(places, np.float64) * 2
    found = values_at(np.array(sorted(wanted)), np.array(places), values, -1.0)
    assert found.tolist() == [2.0 * place if place in places else -1.0
                              for place in sorted(wanted)]
