"""Images of one place agree in what is where, those of another do not; and what that is worth."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.localization.verify import agreement
from vpr_ros.localization.verify import CHECKED
from vpr_ros.localization.verify import evidence
from vpr_ros.localization.verify import PartFinder
from vpr_ros.localization.verify import Parts
from vpr_ros.localization.verify import Verifier
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

KINDS, COUNT, PLACES = 3, 60, 24


def _parts(seed: int, *, count: int = COUNT) -> Parts:
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((count, 32)).astype(np.float32)
    return Parts(rng.uniform(0.1, 0.9, (count, 2)).astype(np.float32),
                 looks / np.linalg.norm(looks, axis=1, keepdims=True), 0.03)


def test_parts_that_moved_together_agree() -> None:
    one = _parts(0)
    moved = one._replace(positions=1.2 * (one.positions - 0.5) + np.float32([0.55, 0.4]))
    assert agreement(one, one) == pytest.approx(COUNT, rel=1e-4)
    assert agreement(one, moved) == pytest.approx(COUNT, rel=0.02)

    # Half of them are elsewhere.
    rng = np.random.default_rng(1)
    moved.positions[::2] = rng.uniform(0, 1, (COUNT // 2, 2))
    assert COUNT / 2 - 1 < agreement(one, moved) < COUNT / 2 + 6


def test_parts_that_are_elsewhere_or_look_different_do_not_agree() -> None:
    one = _parts(0)
    shuffled = one._replace(positions=_parts(5).positions)
    assert agreement(one, shuffled) < 8
    assert agreement(one, _parts(3)) < 4
    assert agreement(one, _parts(3, count=0)) == 0 == agreement(_parts(3, count=0), one)


def test_evidence_is_relative_to_other_places_and_bounded() -> None:
    usual = np.full((6, KINDS), 20.0)
    ratios = evidence(np.outer([0, 20, 30, 60, 100, 1e6], np.ones(KINDS)), usual)
    assert (np.diff(ratios) >= 0).all()
    assert ratios[1] < 0.05  # no better than elsewhere
    assert ratios[4] > 100
    assert ratios[-1] == pytest.approx(100 ** 1.65, rel=0.2)
    assert ratios[0] > 0.1 ** 1.65 * 0.99
    blind = evidence(np.array([[0.0, 100.0, 100.0]]), usual)  # in a kind that sees nothing
    assert blind[0] > 3
    poor = np.full((6, KINDS), 3.0)  # images of little detail
    assert evidence(np.full((1, KINDS), 30.0), poor)[0] > evidence(
        np.full((1, KINDS), 30.0), usual)[0]


class _Finder(PartFinder):
    """Parts of an image that holds the number of a place in its first pixel."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def find(self, rgb: np.ndarray) -> tuple[Parts, ...]:
        self.seen.append(int(rgb[0, 0, 0]))
        return tuple(_parts(10 * self.seen[-1] + kind) for kind in range(KINDS))


def _map(places: int) -> PlaceMap:
    manifest = Manifest(ModelIdentity('ab' * 32, 'model.onnx', 32, 48, 64), (Session('w', 'x'),))
    poses = np.zeros((places, 7))
    poses[:, 0], poses[:, 6] = np.arange(places), 1
    return PlaceMap.build(np.eye(places, 32, dtype=np.float32), np.arange(places), poses,
                          np.zeros(places, np.int32), manifest)


def _image(place: int) -> np.ndarray:
    return np.full((24, 32, 3), place, np.uint8)


def test_the_place_that_agrees_comes_first() -> None:
    finder = _Finder()
    verifier = Verifier(_map(PLACES), finder, _image)
    places, ratios = np.arange(3, 3 + CHECKED + 2), np.linspace(9, 1, CHECKED + 2)
    query = np.zeros(32, np.float32)
    order, changed = verifier.check(_image(8), query, places, ratios)
    assert places[order[0]] == 8
    assert changed[0] > 100 * ratios[5]
    assert (changed[1:CHECKED] < 0.1 * ratios[0]).all()
    np.testing.assert_array_equal(order[CHECKED:], [CHECKED, CHECKED + 1])  # not compared
    np.testing.assert_array_equal(changed[CHECKED:], ratios[CHECKED:])

    once = len(finder.seen)  # the parts of places are kept
    order, changed = verifier.check(_image(200), query, places, ratios)
    assert len(finder.seen) == once + 1
    assert (changed[:CHECKED] < 0.1 * ratios[:CHECKED]).all()


def test_on_a_map_of_few_places_nothing_changes() -> None:
    ratios = np.array([3.0, 2.0, 1.0])
    order, same = Verifier(_map(3), _Finder(), _image).check(
        _image(2), np.zeros(32, np.float32), np.arange(3), ratios)
    np.testing.assert_array_equal(order, np.arange(3))
    np.testing.assert_array_equal(same, ratios)
