"""
Drives that are not as they should be: frames too often or frozen, wheels that spin, odometry.

On a synthetic street whose views change smoothly with the place, as a camera's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.localization.estimate import NoPose
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.odometry import Odometry
from vpr_ros.maps.confidence import Mode
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.estimate import Estimate

NOW = 1_700_000_000_000_000_000
LENGTH = 260.0
LEG = 60.0
SETTLED = 30
"""Frames after which a drive whose start is given is localised."""

FROM, TO = 60, 110
"""Frames of the usual drive between which something is wrong."""


@dataclass
class Drive:
    """Positions along the street (N,), times in s (N,), descriptors (N,D), odometry (N,7)."""

    along: np.ndarray
    times: np.ndarray
    descriptors: np.ndarray
    odometry: np.ndarray

    def part(self, frames) -> Drive:
        return Drive(self.along[frames], self.times[frames], self.descriptors[frames],
                     self.odometry[frames])


def where(along: np.ndarray) -> np.ndarray:
    """Return the poses (N,7) on a street that turns left and right by turns, every LEG metres."""
    steps = np.arange(0.0, LENGTH + 50, 0.1)
    yaw = np.pi / 2 * np.clip((steps % (2 * LEG) - LEG) / 5, 0, 1) \
        - np.pi / 2 * np.clip((steps % (2 * LEG) - 2 * LEG + 5) / 5, 0, 1)
    x, y = np.cumsum(np.cos(yaw)) * 0.1, np.cumsum(np.sin(yaw)) * 0.1
    return poses.planar(*(np.interp(along, steps, axis) for axis in (x, y, yaw)))


@cache
def _waves(dimension: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    # So distributed, the similarity of two views falls as exp(-distance / 3 m).
    return rng.standard_cauchy(dimension) / 3, rng.uniform(0, 2 * np.pi, dimension)


def views(along: np.ndarray, dimension: int, seed: int) -> np.ndarray:
    """Return the descriptors (N,D) of views along the street, by a drive of its own."""
    rng = np.random.default_rng(seed)
    frequencies, phases = _waves(dimension)
    seen = np.cos(along[:, None] * frequencies + phases)
    season = np.cos(along[:, None] * frequencies[::-1] + rng.uniform(0, 6, dimension))
    noisy = seen + 0.3 * season + rng.normal(0, 0.05, seen.shape) + 1.0
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


def drive(encoder: Encoder, speed: float = 6.0, rate: float = 10.0, length: float = 130.0,
          start: float = 5.0) -> Drive:
    times = np.arange(0, length / speed, 1 / rate)
    along = start + speed * times
    return Drive(along, times, views(along, encoder.dimension, 2), where(along))


@pytest.fixture(scope='module')
def street(encoder: Encoder) -> PlaceMap:
    return _map_of(encoder, views)


def _map_of(encoder: Encoder, seen: Callable[[np.ndarray, int, int], np.ndarray]) -> PlaceMap:
    along = np.arange(0.0, LENGTH)
    manifest = Manifest(ModelIdentity.of(encoder), (Session('street', 'winter'),), spacing=1.0)
    return PlaceMap.build(seen(along, encoder.dimension, 1), NOW + np.arange(len(along)) * 10**8,
                          where(along), np.zeros(len(along), np.int32), manifest)


@dataclass
class Answers:
    """The estimates of a drive, and which of them are trusted and wrong (N,)."""

    estimates: list[Estimate]
    problems: list[str]
    trusted: np.ndarray
    wrong: np.ndarray
    localizer: Localizer


def localized(encoder: Encoder, street: PlaceMap, driven: Drive, *, odometry: bool,
              **options: float) -> Answers:
    localizer = Localizer(encoder, street, **options)
    true = where(driven.along)
    localizer.expect(true[0], 3.0)
    estimates, problems = [], []
    for descriptor, time, wheels in zip(driven.descriptors, driven.times, driven.odometry,
                                        strict=True):
        given = odometry and np.isfinite(wheels).all()
        estimates.append(localizer.locate(descriptor, NOW + round(time * 1e9),
                                          wheels if given else None))
        problems.append(localizer.odometry_problem)
    trusted = np.array([estimate.trusted for estimate in estimates])
    off = np.array([poses.distance(estimate.pose, pose)
                    for estimate, pose in zip(estimates, true, strict=True)])
    return Answers(estimates, problems, trusted, trusted & (off > 5), localizer)


@pytest.mark.parametrize('odometry', [True, False])
def test_the_usual_drive_is_localized(encoder: Encoder, street: PlaceMap, odometry: bool) -> None:
    answers = localized(encoder, street, drive(encoder), odometry=odometry)
    assert answers.trusted[SETTLED:].mean() > 0.97
    assert not answers.wrong.any()
    assert not any(answers.problems)
    modes = {estimate.mode for estimate in answers.estimates}
    assert modes == {Mode.ODOMETRY if odometry else Mode.SEQUENCE}


@pytest.mark.parametrize(('speed', 'rate', 'max_speed', 'length'), [
    (1.0, 30.0, 1.5, 12.0), (8.0, 100.0, 15.0, 40.0), (1.0, 30.0, 15.0, 12.0)])
@pytest.mark.parametrize('odometry', [True, False])
def test_a_fast_camera_loses_no_time(encoder: Encoder, street: PlaceMap, speed: float, rate: float,
                                     max_speed: float, length: float, odometry: bool) -> None:
    often = drive(encoder, speed, rate, length)
    seldom = often.part(np.s_[::round(rate / 10)])
    many, few = (localized(encoder, street, one, odometry=odometry, max_speed=max_speed)
                 for one in (often, seldom))
    assert many.trusted.mean() >= 0.95 * few.trusted.mean()
    assert not many.wrong.any()


@pytest.mark.parametrize('odometry', [True, False])
def test_frames_that_come_three_times_count_once(encoder: Encoder, street: PlaceMap,
                                                 odometry: bool) -> None:
    once = drive(encoder)
    thrice = once.part(np.repeat(np.arange(len(once.times)), 3))
    thrice.times = thrice.times + np.tile([0.0, 0.033, 0.066], len(once.times))
    answers = localized(encoder, street, thrice, odometry=odometry)
    usual = localized(encoder, street, once, odometry=odometry)
    assert answers.trusted.mean() >= 0.95 * usual.trusted.mean()
    assert not answers.wrong.any()


def _frozen(driven: Drive, rng: np.random.Generator) -> None:
    driven.descriptors[FROM:TO] = driven.descriptors[FROM]


def _covered(driven: Drive, rng: np.random.Generator) -> None:
    cover = rng.normal(0, 1, driven.descriptors.shape[1])
    driven.descriptors[FROM:TO] = cover / np.linalg.norm(cover)


def _covered_with_noise(driven: Drive, rng: np.random.Generator) -> None:
    _covered(driven, rng)
    noisy = driven.descriptors[FROM:TO] + rng.normal(0, 0.004, driven.descriptors[FROM:TO].shape)
    driven.descriptors[FROM:TO] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)


def _spinning(driven: Drive, rng: np.random.Generator) -> None:
    """Let the robot stand while its wheels turn; what it sees differs by noise."""
    count = TO - FROM
    driven.along[FROM:] = np.concatenate([np.full(count, driven.along[FROM]),
                                          driven.along[FROM:-count]])
    dimension = driven.descriptors.shape[1]
    driven.descriptors[:] = views(driven.along, dimension, 2)


@pytest.mark.parametrize('spoil', [_frozen, _covered, _covered_with_noise, _spinning])
@pytest.mark.parametrize('odometry', [True, False])
def test_where_nothing_new_is_seen_it_falls_silent(
        encoder: Encoder, street: PlaceMap, spoil: Callable[..., None], odometry: bool) -> None:
    driven = drive(encoder)
    spoil(driven, np.random.default_rng(0))
    answers = localized(encoder, street, driven, odometry=odometry)
    assert answers.trusted[FROM - 1]
    assert answers.wrong.sum() <= 5
    silent = FROM + (30 if not odometry else 9)  # 3 s, 5 m
    assert not answers.trusted[silent:TO].any()
    assert answers.trusted[-10:].all() or not odometry
    reasons = {estimate.reason for estimate in answers.estimates[silent:TO]}
    assert NoPose.NOTHING_NEW in reasons


@pytest.mark.parametrize('odometry', [True, False])
def test_traffic_does_not_hide_that_a_robot_stands(encoder: Encoder, street: PlaceMap,
                                                   odometry: bool) -> None:
    driven = drive(encoder)
    wheels = driven.descriptors.copy()
    _spinning(driven, np.random.default_rng(0))
    # What passes for .4 s looks like the place where the robot would be by its wheels.
    passes = [frame for frame in range(FROM + 10, TO) if (frame - FROM) % 14 >= 10]
    driven.descriptors[passes] = wheels[passes]
    answers = localized(encoder, street, driven, odometry=odometry)
    assert answers.trusted[FROM - 1]
    assert answers.wrong[FROM:TO].sum() <= 5
    reasons = {estimate.reason for estimate in answers.estimates[FROM:TO]}
    assert NoPose.NOTHING_NEW in reasons
    assert any('wheels spin' in problem for problem in answers.problems) == odometry
    assert answers.trusted[-10:].all() or not odometry
    assert not answers.wrong[TO:].any()


@pytest.mark.parametrize('period', [6.0, 12.0])
def test_a_stretch_that_repeats_does_not_hold_the_robot_back(encoder: Encoder, period: float
                                                             ) -> None:
    def seen(along: np.ndarray, dimension: int, seed: int) -> np.ndarray:
        again = np.where((along > 60) & (along < 100), 60 + (along - 60) % period, along)
        mixed = 0.9 * views(again, dimension, seed) + 0.1 * views(along, dimension, seed)
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    driven = drive(encoder, speed=1.5, rate=5.0)
    driven.descriptors = seen(driven.along, encoder.dimension, 2)
    answers = localized(encoder, _map_of(encoder, seen), driven, odometry=True)
    assert answers.trusted[SETTLED:].mean() > 0.97
    assert not answers.wrong.any()


def test_a_robot_that_turns_round_may_see_a_view_again(encoder: Encoder, street: PlaceMap) -> None:
    driven = drive(encoder)
    driven.along[FROM:] = 2 * driven.along[FROM] - driven.along[FROM:]  # it drives backwards
    driven.descriptors = views(driven.along, encoder.dimension, 2)
    driven.odometry = where(driven.along)
    answers = localized(encoder, street, driven, odometry=True)
    assert answers.trusted[FROM:FROM + 50].mean() > 0.9
    assert not answers.wrong.any()


@pytest.mark.parametrize('noise', [0.0, 0.05, 0.1])
def test_a_robot_that_stands_by_its_odometry_keeps_its_pose(
        encoder: Encoder, street: PlaceMap, noise: float) -> None:
    rng = np.random.default_rng(0)
    driven = drive(encoder)
    _spinning(driven, rng)
    driven.odometry = where(driven.along)
    driven.odometry[:, :2] += rng.normal(0, noise, (len(driven.along), 2))
    answers = localized(encoder, street, driven, odometry=True)
    assert answers.trusted[FROM:].all()
    assert not answers.wrong.any()
    assert not any(answers.problems)


def _scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda odometry: odometry * ([factor] * 3 + [1] * 4)


def _set(frames: slice, columns: slice, values: object) -> Callable[[np.ndarray], np.ndarray]:
    def change(odometry: np.ndarray) -> np.ndarray:
        odometry[frames, columns] = values
        return odometry
    return change


LIES = {
    'stands': _set(np.s_[FROM:], np.s_[:], where(np.array([5 + FROM * 0.6]))),
    'constant': _set(np.s_[:], np.s_[:], poses.planar(3.0, 4.0, 0.5)),
    'no heading': _set(np.s_[:], np.s_[3:], [0, 0, 0, 1]),
    'upside down': _set(np.s_[:], np.s_[3:], [1, 0, 0, 0]),
    'another unit': _scaled(1000.0),
    'axes': lambda odometry: odometry[:, [1, 0, 2, 3, 4, 5, 6]],
}


@pytest.mark.parametrize('lie', LIES)
def test_odometry_that_lies_is_not_believed(encoder: Encoder, street: PlaceMap, lie: str) -> None:
    driven = drive(encoder)
    without = localized(encoder, street, driven, odometry=False)
    driven.odometry = LIES[lie](driven.odometry.copy())
    answers = localized(encoder, street, driven, odometry=True)
    assert answers.trusted.sum() >= 0.9 * without.trusted.sum()
    assert not answers.wrong.any()
    assert np.mean([bool(problem) for problem in answers.problems[TO:]]) > 0.8


def test_odometry_that_freezes_at_speed_is_noticed(encoder: Encoder, street: PlaceMap
                                                   ) -> None:
    driven = drive(encoder)
    driven.odometry[FROM:TO] = driven.odometry[FROM]
    answers = localized(encoder, street, driven, odometry=True)
    assert all('brake' in problem for problem in answers.problems[FROM + 6:TO])
    off = [poses.distance(estimate.pose, pose) for estimate, pose
           in zip(answers.estimates, where(driven.along), strict=True)]
    assert max(off[FROM:]) < 3  # .5 s pass before a stop is told from a late pose
    assert answers.trusted[FROM:].mean() > 0.9
    assert answers.estimates[-1].mode is Mode.ODOMETRY


def _held(count: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda odometry: odometry[np.arange(len(odometry)) // count * count]


def _only_every(count: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(odometry: np.ndarray) -> np.ndarray:
        odometry[np.arange(len(odometry)) % count > 0] = np.nan
        return odometry
    return change


SELDOM = {
    'repeated twice': _held(2), 'repeated 3 times': _held(3), 'repeated 5 times': _held(5),
    'in every second frame': _only_every(2), 'in every third frame': _only_every(3),
    'missing now and then': _set(np.s_[7::7], np.s_[:], np.nan),
    'an outlier now and then': _set(np.s_[7::7], np.s_[:1], 1e4),
}


@pytest.mark.parametrize('kind', SELDOM)
def test_odometry_may_come_less_often_than_frames(encoder: Encoder, street: PlaceMap, kind: str
                                                  ) -> None:
    driven = drive(encoder)
    driven.odometry = SELDOM[kind](driven.odometry)
    answers = localized(encoder, street, driven, odometry=True)
    assert answers.trusted[SETTLED:].mean() > 0.97
    assert not answers.wrong.any()
    # Before its second pose it seems to stand; two poses a second cut the corners.
    followed = [estimate.mode is Mode.ODOMETRY for estimate in answers.estimates[5:]]
    assert np.mean(followed) > 0.3 if kind == 'repeated 5 times' else all(followed)


@pytest.mark.parametrize('value', [np.nan, 1e4])
def test_wrong_odometry_that_comes_back_is_not_believed_anew(encoder: Encoder, street: PlaceMap,
                                                             value: float) -> None:
    driven = drive(encoder)
    driven.odometry = driven.odometry[:, [1, 0, 2, 3, 4, 5, 6]]
    driven.odometry[::20, :2] = value
    answers = localized(encoder, street, driven, odometry=True)
    assert not answers.wrong.any()
    assert Mode.ODOMETRY not in {estimate.mode for estimate in answers.estimates[TO:]}


def test_a_stop_of_a_camera_without_noise_leaves_the_robot_where_it_is(
        encoder: Encoder, street: PlaceMap) -> None:
    whole = drive(encoder)
    frames = np.r_[0:100, np.full(100, 99), 100:len(whole.times)]  # ten seconds of one image
    driven = Drive(whole.along[frames], np.arange(len(frames)) * 0.1, whole.descriptors[frames],
                   whole.odometry[frames])
    answers = localized(encoder, street, driven, odometry=False)
    off = [poses.distance(estimate.pose, true) for estimate, true in zip(
        answers.estimates, where(driven.along), strict=True)]
    assert max(off[120:200]) < 5
    assert not answers.wrong.any()
    assert answers.trusted[210:].mean() > 0.9


def test_odometry_is_not_blamed_where_the_map_ends(encoder: Encoder, street: PlaceMap) -> None:
    off = drive(encoder)
    off.descriptors[FROM:] = views(1e4 + off.along[FROM:], encoder.dimension, 2)
    answers = localized(encoder, street, off, odometry=True)
    assert answers.estimates[-1].reason is NoPose.OFF_MAP
    assert answers.problems[-1] == ''


def test_odometry_is_not_blamed_without_a_filter(encoder: Encoder, street: PlaceMap) -> None:
    answers = localized(encoder, street, drive(encoder, length=10.0), odometry=True,
                        use_filter=False)
    assert not any(answers.problems)


def test_a_slow_robot_without_odometry_is_localized(encoder: Encoder, street: PlaceMap) -> None:
    slow = drive(encoder, 0.2, 5.0, 12.0)
    answers = localized(encoder, street, slow, odometry=False, max_speed=0.5)
    assert answers.trusted[-200:].mean() > 0.7
    assert not answers.wrong.any()


def test_a_robot_that_drives_back_has_no_stuck_heading() -> None:
    odometry = Odometry()
    for x in [*range(20), *range(20, 0, -1)]:
        odometry.advance(poses.planar(float(x), 0.0, 0.3), 1.0, 15.0, seen=True)
        assert odometry.problem == ''


@pytest.mark.parametrize('factor', [0.6, 1.2, 1.5])
def test_odometry_of_another_scale_is_put_right(encoder: Encoder, street: PlaceMap, factor: float
                                                ) -> None:
    driven = drive(encoder)
    driven.odometry = _scaled(factor)(driven.odometry)
    answers = localized(encoder, street, driven, odometry=True)
    assert answers.localizer.odometry_scale == pytest.approx(1 / factor, rel=0.08)
    assert answers.trusted[SETTLED:].mean() > 0.95
    assert not answers.wrong.any()
    assert answers.estimates[-1].mode is Mode.ODOMETRY


def test_a_scale_that_is_far_off_is_put_right_early(encoder: Encoder, street: PlaceMap) -> None:
    driven = drive(encoder, length=50.0)
    driven.odometry = _scaled(1.5)(driven.odometry)
    answers = localized(encoder, street, driven, odometry=True)
    assert answers.localizer.odometry_scale == pytest.approx(1 / 1.5, rel=0.08)


@pytest.mark.parametrize('metres', [5e3, 5e5, 1e200])
@pytest.mark.parametrize('lasts', [True, False])
def test_a_jump_of_odometry_is_not_followed(encoder: Encoder, street: PlaceMap, metres: float,
                                            lasts: bool) -> None:
    driven = drive(encoder)
    driven.odometry[FROM:None if lasts else FROM + 1, 0] += metres
    answers = localized(encoder, street, driven, odometry=True)
    assert 'jumped' in answers.problems[FROM]
    assert answers.trusted[SETTLED:].mean() > 0.97
    assert not answers.wrong.any()
    assert answers.estimates[-1].mode is Mode.ODOMETRY or metres > 1e100


def test_a_stamp_that_is_ahead_gives_no_wrong_pose(encoder: Encoder, street: PlaceMap) -> None:
    driven = drive(encoder)
    ahead = np.r_[0:FROM + 1, FROM + 10:len(driven.times)]  # those between are out of order
    driven = driven.part(ahead)
    driven.times[FROM] += 0.9
    driven = driven.part(np.r_[0:FROM + 1, FROM + 2:len(driven.times)])
    answers = localized(encoder, street, driven, odometry=False)
    assert answers.estimates[FROM].reason is NoPose.AFTER_GAP
    assert answers.trusted[FROM + 1:].all()
    assert not answers.wrong.any()


def test_after_an_error_the_drive_starts_over(encoder: Encoder, street: PlaceMap, monkeypatch
                                              ) -> None:
    driven = drive(encoder)
    localizer = Localizer(encoder, street)
    localizer.expect(where(driven.along[:1])[0], 3.0)
    for number in range(FROM):
        localizer.locate(driven.descriptors[number], NOW + number * 10**8, driven.odometry[number])

    with monkeypatch.context() as patch, pytest.raises(AttributeError):
        patch.setattr(localizer, 'place_map', None)
        localizer.locate(driven.descriptors[FROM], NOW + FROM * 10**8, driven.odometry[FROM])
    assert np.ptp(localizer.belief) == 0
    assert localizer.state is None


def test_a_robot_that_was_carried_keeps_the_scale_of_its_odometry(encoder: Encoder,
                                                                  street: PlaceMap) -> None:
    driven = drive(encoder)
    driven.along[FROM:] += 100
    driven.descriptors = views(driven.along, encoder.dimension, 2)
    answers = localized(encoder, street, driven, odometry=True)
    assert answers.localizer.odometry_scale == 1
    assert answers.wrong.sum() <= 3
    assert answers.trusted[-10:].all()


@pytest.mark.parametrize('odometry', [True, False])
def test_views_that_traffic_hides_do_not_speed_the_robot_up(encoder: Encoder, street: PlaceMap,
                                                            odometry: bool) -> None:
    driven = drive(encoder)
    rng = np.random.default_rng(0)
    others = rng.normal(0, 1, driven.descriptors.shape)
    others *= 0.7 / np.linalg.norm(others, axis=1, keepdims=True)
    hidden = driven.descriptors + others
    driven.descriptors = (hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
                          ).astype(np.float32)
    answers = localized(encoder, street, driven, odometry=odometry)
    assert answers.trusted[SETTLED:].mean() > 0.9
    ahead = [poses.relative(pose, estimate.pose)[0] for estimate, pose
             in zip(answers.estimates, where(driven.along), strict=True)]
    assert abs(np.median(ahead)) < 0.5
    assert not any(answers.problems)
