"""The localiser: where it says a picture is, how sure it is, and how it follows the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.core.errors import OutOfOrderError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.estimate import NoPose
from vpr_ros.localization.localizer import CLOCK_JUMP_NS
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.running_mean import DriveState
from vpr_ros.localization.running_mean import MEAN_MAX_AGE_NS
from vpr_ros.localization.running_mean import POSE_MAX_AGE_NS
from vpr_ros.localization.running_mean import RunningMean
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.confidence import ConfidenceModel
from vpr_ros.maps.confidence import DEFAULT_MODELS
from vpr_ros.maps.confidence import log_odds
from vpr_ros.maps.confidence import Mode
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from vpr_ros.localization.estimate import Estimate

NOW = 1_700_000_000_123_456_789
FRAME = 100_000_000
FAR = 100.0
relaxed = settings(deadline=None, max_examples=60)


def test_every_place_of_the_map_finds_itself(encoder: Encoder) -> None:
    views = [_view(seed) for seed in range(40)]
    place_map = _map(encoder, encoder.encode_batch(views), spacing=10.0)
    localizer = Localizer(encoder, place_map, use_filter=False, min_confidence=0.8)
    for place, view in enumerate(views):
        estimate = localizer.localize(view, NOW + place * FRAME)
        assert estimate.trusted
        assert estimate.candidates.places[0] == place
        np.testing.assert_allclose(estimate.pose, place_map.poses[place], atol=1e-6)
        assert estimate.stamp == NOW + place * FRAME


def test_candidates_come_best_first_with_their_poses(encoder: Encoder) -> None:
    place_map = _map(encoder, _random(30, encoder.dimension), spacing=10.0)
    estimate = _first(encoder, place_map, _random(1, encoder.dimension, seed=5)[0], top_k=7)
    candidates = estimate.candidates
    assert len(candidates.places) == 7
    assert (np.diff(candidates.similarity) <= 0).all()
    assert (np.diff(candidates.probability) <= 0).all()
    np.testing.assert_array_equal(candidates.poses, place_map.poses[candidates.places])
    assert 0 < candidates.probability.sum() < 1


def test_a_picture_and_its_descriptor_give_the_same_estimate(encoder: Encoder) -> None:
    place_map = _map(encoder, encoder.encode_batch([_view(seed) for seed in range(9)]))
    by_picture, by_descriptor = Localizer(encoder, place_map), Localizer(encoder, place_map)
    for seed in (3, 4, 5):
        one = by_picture.localize(_view(seed), NOW + seed)
        two = by_descriptor.locate(encoder.encode(_view(seed)), NOW + seed)
        np.testing.assert_array_equal(one.pose, two.pose)
        np.testing.assert_array_equal(one.covariance, two.covariance)
        assert one.confidence == two.confidence


def test_between_two_equally_similar_places_the_pose_is_between_them(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0.2), 1: (2, 1, 0.4)},
                         calibration={'deviation': [0.01, 0.01, 0.01]})
    estimate = _first(encoder, place_map, _axis(encoder, 0) + _axis(encoder, 1))
    np.testing.assert_allclose(estimate.pose, poses.planar(1.0, 0.5, 0.3), atol=1e-4)
    assert estimate.confidence > 0.9
    # one metre off along x, half a metre along y
    assert estimate.covariance[0, 0] == pytest.approx(1, abs=0.05)
    assert estimate.covariance[1, 1] == pytest.approx(0.25, abs=0.05)
    assert estimate.covariance[0, 1] == pytest.approx(0.5, abs=0.05)


def test_the_more_similar_place_draws_the_pose_to_itself(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (2, 0, 0)})
    estimate = _first(encoder, place_map, _axis(encoder, 0) + 0.9 * _axis(encoder, 1))
    assert 0 < estimate.pose[0] < 0.9


def test_two_far_places_that_look_the_same_are_ambiguous(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (FAR, 0, 0)})
    estimate = _first(encoder, place_map, _axis(encoder, 0) + _axis(encoder, 1))
    assert estimate.reason is NoPose.AMBIGUOUS
    assert not estimate.trusted
    assert 0.2 < estimate.confidence < 0.5
    # one of the two, never a place between them
    assert min(abs(estimate.pose[0]), abs(estimate.pose[0] - FAR)) < 1e-6


def test_what_was_never_seen_is_off_the_map(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (FAR, 0, 0)})
    estimate = _first(encoder, place_map, _axis(encoder, 7))
    assert estimate.reason is NoPose.OFF_MAP
    assert estimate.confidence < 0.01


def test_the_asked_for_confidence_decides_what_is_trusted(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (FAR, 0, 0)})
    query = _axis(encoder, 0) + _axis(encoder, 1)
    assert _first(encoder, place_map, query, min_confidence=0.2).trusted
    assert not _first(encoder, place_map, query, min_confidence=0.6).trusted


def test_the_radius_decides_what_counts_as_one_place(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (8, 0, 0)})
    query = _axis(encoder, 0) + _axis(encoder, 1)
    assert _first(encoder, place_map, query, correct_radius=5.0).reason is NoPose.AMBIGUOUS
    assert _first(encoder, place_map, query, correct_radius=9.0,
                  min_confidence=0.9).trusted


def test_the_maps_own_calibration_is_used(encoder: Encoder) -> None:
    where = {0: (0.0, 0.0, 0.0)}
    query = _axis(encoder, 0)
    assert _first(encoder, _crosses(encoder, where), query, min_confidence=0.9).trusted
    doubtful = _crosses(encoder, where, calibration={'largest': 2.0})
    assert _first(encoder, doubtful, query).reason is NoPose.OFF_MAP


@given(similar=strategies.lists(strategies.floats(0.2, 1), min_size=2, max_size=2),
       apart=strategies.floats(0, 20), separation=strategies.floats(0.1, 4))
@relaxed
def test_confidence_is_a_probability_that_grows_with_similarity(
        encoder: Encoder, similar, apart, separation) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (apart, 0, 0)},
                         calibration={'separation': separation})
    others = sum(_axis(encoder, number) for number in range(10, 46)) / 6
    low, high = (
        _first(encoder, place_map, cosine * _axis(encoder, 0) + np.sqrt(1 - cosine ** 2) * others,
               compensate=False).confidence
        for cosine in sorted(similar))
    assert 0 <= low <= high + 1e-6
    assert high <= 1


@given(seed=strategies.integers(0, 10_000), count=strategies.integers(1, 30),
       spacing=strategies.sampled_from([0.0, 1.0, 50.0]), top_k=strategies.integers(1, 40))
@relaxed
def test_covariance_is_positive_definite_and_never_zero(
        encoder: Encoder, seed, count, spacing, top_k) -> None:
    place_map = _map(encoder, _random(count, encoder.dimension, seed), spacing)
    for query in (_random(1, encoder.dimension, seed + 1)[0], place_map.vectors()[0]):
        for carried in (False, True):
            _check(_first(encoder, place_map, query, top_k=top_k, use_filter=carried))


def test_places_farther_apart_on_the_map_leave_more_doubt(encoder: Encoder) -> None:
    fine, coarse = (
        _first(encoder, _crosses(encoder, {0: (0, 0, 0)}, spacing=spacing), _axis(encoder, 0))
        for spacing in (0.5, 6.0))
    assert coarse.covariance[0, 0] > fine.covariance[0, 0]
    assert coarse.covariance[0, 0] == pytest.approx(6.0 ** 2 / 12, rel=0.1)


@pytest.mark.parametrize('alike', [False, True])
@pytest.mark.parametrize('count', [1, 2, 25])
def test_a_map_of_one_or_of_identical_places_gives_numbers(
        encoder: Encoder, count: int, alike: bool) -> None:
    seeds = [0] * count if alike else range(count)
    views = [_view(seed) for seed in seeds]
    localizer = Localizer(encoder, _map(encoder, encoder.encode_batch(views), spacing=10.0))
    for number, view in enumerate([views[0], views[0], _view(98), _view(99)]):
        _check(localizer.localize(view, NOW + number))


@pytest.mark.parametrize('odometry', [False, True])
def test_the_filter_finds_a_drive_whose_single_frames_do_not_tell(
        encoder: Encoder, odometry: bool) -> None:
    places = _random(80, encoder.dimension)
    drive = places + _noise(places.shape, 0.23)
    drive /= np.linalg.norm(drive, axis=1, keepdims=True)
    right = {}
    for carried in (False, True):
        place_map = _map(encoder, places)
        localizer = Localizer(encoder, place_map, use_filter=carried, compensate=False,
                              correct_radius=2.5, max_speed=2.0, min_confidence=0.5)
        found = [localizer.locate(descriptor, NOW + place * 10 * FRAME,
                                  place_map.poses[place] if odometry else None)
                 for place, descriptor in enumerate(drive)]
        for estimate in found:
            _check(estimate)
        right[carried] = np.mean([
            poses.distance(estimate.pose, place_map.poses[place]) <= 2.5 and estimate.trusted
            for place, estimate in enumerate(found)][20:])
    assert right[True] > 0.95
    assert right[False] < 0.8


def test_a_view_that_stays_the_same_is_no_further_evidence(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (FAR, 0, 0)})
    localizer = Localizer(encoder, place_map, compensate=False)
    view = (_axis(encoder, 0) + _axis(encoder, 7)) / np.sqrt(2)
    first = localizer.locate(view, NOW, poses.IDENTITY).confidence
    for number in range(1, 100):
        last = localizer.locate(view, NOW + number * FRAME, poses.IDENTITY).confidence
    assert last == pytest.approx(first, abs=0.01)


def test_a_robot_may_be_beside_the_track_of_the_map(encoder: Encoder) -> None:
    for heading, sideways in ((0.0, 1), (np.pi / 2, 0)):
        place_map = _crosses(encoder, {0: (0, 0, heading)},
                             calibration={'deviation': [0.1, 0.9, 0.05]})
        covariance = _first(encoder, place_map, _axis(encoder, 0)).covariance
        assert covariance[sideways, sideways] == pytest.approx(0.9 ** 2, rel=0.01)
        assert covariance[1 - sideways, 1 - sideways] < 0.1


def test_modes_are_where_the_belief_is(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (2, 0, 0), 2: (FAR, 0, 0)})
    view = 1.1 * _axis(encoder, 0) + 1.05 * _axis(encoder, 1) + _axis(encoder, 2)
    view /= np.linalg.norm(view)
    localizer = Localizer(encoder, place_map, use_filter=False, top_k=4)
    assert len(localizer.modes().places) <= 4  # before the first frame, too
    estimate = localizer.locate(view.astype(np.float32), NOW)
    modes = localizer.modes()
    assert modes.places[:2].tolist() == [0, 2]  # place 1 belongs to the first of them
    assert 2 <= len(modes.places) <= 4  # those that hold next to nothing are none
    assert modes.probability[0] == pytest.approx(estimate.mode_probability)
    assert (np.diff(modes.probability) <= 0).all()
    assert modes.probability.sum() <= 1
    np.testing.assert_allclose(modes.similarity, place_map.vectors(modes.places)
                               @ view, atol=1e-5)
    assert estimate.candidates.places[:3].tolist() == [0, 1, 2]


def test_confidence_is_read_off_the_curve_of_the_map(encoder: Encoder) -> None:
    modest = {'confidence': {Mode.SINGLE: ConfidenceModel(-3.0, 1.0, 0.0, 1.0)}}
    plain, low = (
        _first(encoder, _crosses(encoder, {0: (0, 0, 0)}, calibration=calibration),
               _axis(encoder, 0)) for calibration in ({}, modest))
    default = DEFAULT_MODELS[Mode.SINGLE]
    assert plain.confidence == pytest.approx(
        float(default.confidence(plain.mode_probability, plain.evidence)))
    assert low.mode_probability == pytest.approx(plain.mode_probability)
    odds = np.log(low.confidence / (1 - low.confidence))
    assert odds == pytest.approx(float(log_odds(low.mode_probability)) - 3.0)


@pytest.mark.parametrize(('after', 'kept'), [
    (FRAME, True), (MEAN_MAX_AGE_NS, True), (MEAN_MAX_AGE_NS + 10 ** 9, False), (-FRAME, False)])
def test_the_mean_of_a_drive_outlasts_a_restart_when_young(
        encoder: Encoder, after: int, kept: bool) -> None:
    first, drive = _shifted_drive(encoder)
    assert first.state is None
    for number, descriptor in enumerate(drive):
        first.locate(descriptor, NOW + number * FRAME)
    again, _ = _shifted_drive(encoder)
    again.resume(first.state)
    again.locate(drive[0], first.state.stamp + after)
    fresh, _ = _shifted_drive(encoder)
    fresh.locate(drive[0], NOW)
    same = np.linalg.norm(again.state.mean - first.state.mean)
    assert (same < 0.02) == kept
    assert np.allclose(again.state.mean, fresh.state.mean) != kept


@pytest.mark.parametrize(('after', 'kept'), [(FRAME, True), (POSE_MAX_AGE_NS + 10 ** 9, False)])
def test_the_place_outlasts_a_crash_for_seconds(encoder: Encoder, after: int, kept: bool) -> None:
    """Two places of a long street look the same: only who knows where it was can tell them."""
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (500.0, 0, 0)}, spacing=1.0)
    localizer = Localizer(encoder, place_map, compensate=False)
    alike = (_axis(encoder, 0) + _axis(encoder, 1)) / np.sqrt(2, dtype=np.float32)
    mean = np.zeros(encoder.dimension, np.float32)
    localizer.resume(DriveState(mean, 30.0, NOW, poses.planar(500.0, 0, 0), NOW))
    estimate = localizer.locate(alike, NOW + after)
    share = localizer.belief[1] / localizer.belief.sum()
    assert (share > 0.9) == kept
    assert (abs(estimate.pose[0] - 500) < 5) or not kept
    assert localizer.state.pose_stamp == (NOW + after if estimate.trusted else 0)


def test_the_state_of_another_model_is_refused(encoder: Encoder) -> None:
    localizer, _ = _shifted_drive(encoder)
    for mean, weight in ((np.zeros(3), 30.0), (np.full(encoder.dimension, np.nan), 30.0),
                         (np.zeros(encoder.dimension), float('nan'))):
        with pytest.raises(ValueError, match='not one of this model'):
            localizer.resume(DriveState(mean.astype(np.float32), weight, NOW))


def test_odometry_carries_the_pose_on_between_places(encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0)}, spacing=4.0)
    localizer = Localizer(encoder, place_map, compensate=False)
    before = localizer.locate(_axis(encoder, 0), NOW, poses.planar(7.0, 3.0, 1.0))
    after = localizer.locate(_axis(encoder, 0), NOW + FRAME,
                             poses.moved(poses.planar(7.0, 3.0, 1.0), np.array([0.5, 0.1, 0.05])))
    np.testing.assert_allclose(poses.relative(before.pose, after.pose), [0.5, 0.1, 0.05],
                               atol=1e-6)


def test_what_somebody_expects_decides_between_places_that_look_the_same(
        encoder: Encoder) -> None:
    place_map = _crosses(encoder, {0: (0, 0, 0), 1: (FAR, 0, 0)}, spacing=4.0)
    localizer = Localizer(encoder, place_map, compensate=False)
    view = (_axis(encoder, 0) + _axis(encoder, 1)) / np.sqrt(2)
    assert not localizer.locate(view, NOW).trusted
    for number, expected in enumerate([FAR, 0.0, FAR]):
        localizer.expect(poses.planar(expected + 1, 0.5, 0.1), deviation=2.0)
        estimate = localizer.locate(view, NOW + (1 + number) * FRAME)
        assert estimate.trusted
        assert estimate.pose[0] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize('kind', ['hnsw', 'ivfpq'])
def test_what_an_approximate_index_does_not_find_takes_nothing_from_the_first_place(
        encoder: Encoder, kind: str) -> None:
    places = _random(300, encoder.dimension)
    place_map = _map(encoder, places, kind=kind)
    if kind == 'ivfpq':
        place_map.index.nprobe = 1
        assert (place_map.search(place_map.vectors(np.array([0])), 256)[0] == -1).any()
    estimate = Localizer(encoder, place_map, use_filter=False).locate(places[0], NOW)
    assert estimate.candidates.places[0] == 0
    assert estimate.candidates.probability[0] > 0.3


@pytest.mark.parametrize('back', [0, 1, FRAME, CLOCK_JUMP_NS])
def test_a_frame_not_after_the_last_is_out_of_order(encoder: Encoder, back: int) -> None:
    localizer, drive = _shifted_drive(encoder)
    for number, descriptor in enumerate(drive):
        localizer.locate(descriptor, NOW + number * FRAME)
    last = NOW + (len(drive) - 1) * FRAME
    with pytest.raises(OutOfOrderError, match=rf'{(last - back) / 1e9:.3f} s came after one at'):
        localizer.locate(drive[0], last - back)
    # and it leaves no trace: the next frame is what it would have been
    other, _ = _shifted_drive(encoder)
    for number, descriptor in enumerate(drive):
        other.locate(descriptor, NOW + number * FRAME)
    _same(localizer.locate(drive[3], last + FRAME), other.locate(drive[3], last + FRAME))


def test_an_out_of_order_picture_is_refused_too(encoder: Encoder) -> None:
    localizer, _ = _shifted_drive(encoder)
    localizer.localize(_view(0), NOW)
    with pytest.raises(OutOfOrderError):
        localizer.localize(_view(1), NOW)


def test_a_clock_that_was_set_back_starts_a_new_drive(encoder: Encoder) -> None:
    localizer, drive = _shifted_drive(encoder)
    fresh = localizer.locate(drive[5], NOW)
    for number, descriptor in enumerate(drive):
        driven = localizer.locate(descriptor, NOW + (1 + number) * FRAME)
    again = localizer.locate(drive[5], driven.stamp - CLOCK_JUMP_NS - 1)
    _same(again, fresh)


def test_forget_starts_a_new_drive(encoder: Encoder) -> None:
    localizer, drive = _shifted_drive(encoder)
    fresh = localizer.locate(drive[5], NOW)
    for number, descriptor in enumerate(drive):
        localizer.locate(descriptor, NOW + (1 + number) * FRAME)
    localizer.forget()
    _same(localizer.locate(drive[5], NOW), fresh)


def test_compensation_takes_out_what_shifts_a_whole_drive(encoder: Encoder) -> None:
    wrong = {}
    for compensate in (False, True):
        localizer, drive = _shifted_drive(encoder, compensate=compensate)
        found = [localizer.locate(descriptor, NOW + number * FRAME).candidates
                 for number, descriptor in enumerate([*drive, *drive])][len(drive):]
        wrong[compensate] = sum(candidates.places[0] != place
                                for place, candidates in enumerate(found))
        if compensate:
            assert np.mean([candidates.similarity[0] for candidates in found]) > 0.85
    assert wrong[True] == 0
    assert wrong[False] > 5


def test_the_drives_mean_starts_at_the_maps_and_ends_at_the_drives() -> None:
    rng = np.random.default_rng(0)
    start = np.zeros(8, np.float32)
    mean = RunningMean(start, weight=30.0)
    rows = (rng.normal(size=(2000, 8)) + 3).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mean.feed(rows[0])
    np.testing.assert_allclose(mean.value, rows[0] / 31, rtol=1e-5)
    for row in rows[1:]:
        mean.feed(row)
    np.testing.assert_allclose(mean.value, rows.mean(axis=0), atol=0.05)
    assert not start.any()


@pytest.mark.parametrize('odometry', [False, True])
def test_a_robot_that_stops_keeps_its_place(encoder: Encoder, odometry: bool) -> None:
    places = _random(80, encoder.dimension)
    place_map = _map(encoder, places)
    localizer = Localizer(encoder, place_map, max_speed=2.0, min_confidence=0.5)
    stamps = iter(range(NOW, NOW + 10**13, FRAME))

    def look(place: int, view: np.ndarray) -> Estimate:
        return localizer.locate(view, next(stamps),
                                place_map.poses[place] if odometry else None)

    def drive(first: int, last: int) -> Estimate:
        for place in range(first, last):
            for _ in range(9):  # a second from place to place
                next(stamps)
            estimate = look(place, places[place])
        return estimate

    before = drive(20, 40)
    mean = localizer.state.mean.copy()
    for noise in _noise((1200, encoder.dimension), 0.003):  # two minutes
        view = places[39] + noise
        standing = look(39, view / np.linalg.norm(view))
    np.testing.assert_array_equal(localizer.state.mean, mean)
    after = drive(40, 42)
    for estimate, place in ((before, 39), (standing, 39), (after, 41)):
        # Without odometry, a robot that stands looks like a camera that has frozen.
        assert estimate.trusted or (estimate is standing and not odometry
                                    and estimate.reason is NoPose.NOTHING_NEW)
        assert poses.distance(estimate.pose, place_map.poses[place]) < 2


@pytest.mark.parametrize('step', [0.13, 0.37, 0.5, 0.6, 1.0, 2.3])
def test_odometry_of_any_step_carries_the_belief_as_far_as_the_robot_drives(
        encoder: Encoder, step: float) -> None:
    """With nothing to see, the belief must neither run ahead nor fall back."""
    along = np.arange(200.0)
    place_map = replace(_map(encoder, _random(200, encoder.dimension)),
                        poses=poses.planar(along, 0 * along, 0 * along))
    localizer = Localizer(encoder, place_map, compensate=False)
    localizer.expect(poses.planar(20.0, 0, 0), 1.0)
    view = _random(1, encoder.dimension)[0]
    for number, x in enumerate(np.arange(20.0, 120.0, step)):
        localizer.locate(view, NOW + number * FRAME, poses.planar(x, 0, 0))
    belief = localizer.belief
    near = np.abs(along - x) < 8
    mean = (belief * along)[near].sum() / belief[near].sum()
    assert abs(mean - x) < 0.6


def test_without_the_filter_odometry_moves_nothing(encoder: Encoder) -> None:
    places = _random(80, encoder.dimension)
    place_map = _map(encoder, places)
    localizer = Localizer(encoder, place_map)
    for place in range(20):
        localizer.locate(places[place], NOW + place * FRAME, place_map.poses[place])
    localizer.use_filter = False
    for place in range(20, 40):
        single = localizer.locate(places[place], NOW + place * FRAME, place_map.poses[place] + 0.3)
        assert poses.distance(single.pose, place_map.poses[place]) < 0.5
    localizer.use_filter = True
    back = localizer.locate(places[40], NOW + 40 * FRAME, place_map.poses[40])
    assert poses.distance(back.pose, place_map.poses[40]) < 2


def test_a_confidence_that_is_no_number_trusts_nothing(encoder: Encoder) -> None:
    places = _random(40, encoder.dimension)
    localizer = Localizer(encoder, _map(encoder, places), min_confidence=float('nan'))
    assert not localizer.locate(places[3], NOW).trusted


def _view(seed: int) -> np.ndarray:
    """Return a picture (96,128,3) of soft blotches that no other seed gives."""
    grid = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(grid, (128, 96), interpolation=cv2.INTER_LINEAR)


def _random(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _axis(encoder: Encoder, number: int) -> np.ndarray:
    return np.eye(encoder.dimension, dtype=np.float32)[number]


def _noise(shape: tuple[int, ...], scale: float) -> np.ndarray:
    return (scale * np.random.default_rng(77).normal(size=shape)).astype(np.float32)


def _map(encoder: Encoder, descriptors: np.ndarray, spacing: float = 1.0, kind: str = 'flat'
         ) -> PlaceMap:
    """Return a map of places `spacing` metres apart on a straight road."""
    count = len(descriptors)
    road = poses.planar(spacing * np.arange(count), np.zeros(count), np.zeros(count))
    manifest = Manifest(ModelIdentity.of(encoder), (Session('a'),), spacing=spacing, index=kind)
    return PlaceMap.build(descriptors, np.arange(count), road, np.zeros(count, np.int32),
                          manifest)


def _crosses(encoder: Encoder, where: dict[int, tuple[float, float, float]], *,
             spacing: float = 0.5, calibration: dict | None = None) -> PlaceMap:
    """
    Return a map whose mean is zero, so that similarities are what the axes say.

    Place n looks like the n-th axis and is at `where[n]` (x, y, heading). So do places far away
    with the axes from 10 to 45; and each place has an opposite, far away too.
    """
    numbers = [*where, *range(10, 46)]
    axes = np.stack([_axis(encoder, number) for number in numbers])
    away = [(-FAR * (2 + n), 0, 0) for n in range(2 * len(numbers) - len(where))]
    rows = np.array([*where.values(), *away])
    manifest = Manifest(ModelIdentity.of(encoder), (Session('a'),), spacing=spacing,
                        calibration=Calibration(**(calibration or {})))
    count = len(rows)
    return PlaceMap.build(np.concatenate([axes, -axes]), np.arange(count),
                          poses.planar(*rows.astype(np.float64).T), np.zeros(count, np.int32),
                          manifest)


def _first(encoder: Encoder, place_map: PlaceMap, query: np.ndarray, **options) -> Estimate:
    """Return the estimate of a frame for itself, which looks like `query` (any length)."""
    descriptor = (query / np.linalg.norm(query)).astype(np.float32)
    localizer = Localizer(encoder, place_map, **{'use_filter': False, **options})
    return localizer.locate(descriptor, NOW)


def _shifted_drive(encoder: Encoder, *, compensate: bool = True
                   ) -> tuple[Localizer, np.ndarray]:
    """Return a localiser and the descriptors of its places, all shifted as by a season."""
    places = _random(120, encoder.dimension) + 0.3 * _axis(encoder, 0)
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    # Another place's look as the shift: without compensation it draws all queries to itself.
    drive = places + 1.5 * places[60]
    drive /= np.linalg.norm(drive, axis=1, keepdims=True)
    return Localizer(encoder, _map(encoder, places, 10.0), compensate=compensate), drive


def _check(estimate: Estimate) -> None:
    """Assert what every estimate promises."""
    assert np.isfinite(estimate.pose).all()
    assert np.linalg.norm(estimate.pose[3:]) == pytest.approx(1)
    np.testing.assert_array_equal(estimate.covariance, estimate.covariance.T)
    np.linalg.cholesky(estimate.covariance)
    assert np.diag(estimate.covariance).min() > 1e-3
    assert 0 <= estimate.confidence <= 1
    for values in (estimate.candidates.similarity, estimate.candidates.probability,
                   estimate.candidates.poses):
        assert np.isfinite(values).all()
    assert estimate.trusted == (not estimate.reason)


def _same(one: Estimate, other: Estimate) -> None:
    np.testing.assert_array_equal(one.pose, other.pose)
    np.testing.assert_array_equal(one.candidates.similarity, other.candidates.similarity)
    assert one.confidence == other.confidence
