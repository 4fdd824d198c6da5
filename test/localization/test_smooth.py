"""Smoothing: what comes after a frame helps as much as what was before it, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.localization.estimate import NoPose
from vpr_ros.localization.localizer import CLOCK_JUMP_NS
from vpr_ros.localization.smooth import Smoother
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.estimate import Estimate

NOW = 1_700_000_000_000_000_000
PLACES, SPEED, RATE = 150, 8.0, 5.0
HARD = 5.0
"""Standard deviations by which the right place stands out."""


@pytest.fixture(scope='module')
def road(encoder: Encoder) -> PlaceMap:
    """Return a map of a road that bends to the left, a place every metre."""
    manifest = Manifest(ModelIdentity.of(encoder), (Session('a'),), spacing=1.0)
    return PlaceMap.build(_views(encoder, np.arange(PLACES)), NOW + np.arange(PLACES),
                          _where(np.arange(PLACES)), np.zeros(PLACES, np.int32), manifest)


def test_the_first_frames_of_a_drive_are_found_by_those_after_them(
        encoder: Encoder, road: PlaceMap) -> None:
    along = np.arange(20, 120, SPEED / RATE)
    filtered, smoothed = _drive(encoder, road, along)
    assert not any(estimate.trusted for estimate in filtered[:5])
    assert all(estimate.trusted for estimate in smoothed)
    assert _errors(smoothed, along).max() < 2
    assert _errors(smoothed, along).mean() < _errors(filtered, along).mean()


@pytest.mark.parametrize('odometry', [False, True])
def test_a_drive_is_smoothed_the_same_in_either_direction(
        encoder: Encoder, road: PlaceMap, odometry: bool) -> None:
    along = np.arange(20, 120, SPEED / RATE)
    _, ahead = _drive(encoder, road, along, odometry=odometry, compensate=False)
    back = PlaceMap.build(_views(encoder, np.arange(PLACES)), NOW + np.arange(PLACES),
                          poses.looking_back(road.poses), road.sessions, road.manifest)
    _, reverse = _drive(encoder, back, along[::-1], odometry=odometry,
                        compensate=False, turned=True)
    there, here = ([estimate.pose[:2] for estimate in run] for run in (ahead, reverse[::-1]))
    np.testing.assert_allclose(there, here, atol=0.5)


def test_a_robot_that_was_moved_is_found_from_the_frame_on(
        encoder: Encoder, road: PlaceMap) -> None:
    along = np.concatenate([np.arange(10, 50, SPEED / RATE), np.arange(100, 140, SPEED / RATE)])
    filtered, smoothed = _drive(encoder, road, along)
    assert _errors(filtered, along).max() > 10
    assert _errors(smoothed, along).max() < 2


def test_what_is_on_no_map_gets_no_pose_afterwards_either(
        encoder: Encoder, road: PlaceMap) -> None:
    _, smoothed = _drive(encoder, road, np.arange(5000, 5100, SPEED / RATE))
    assert {estimate.reason for estimate in smoothed} <= {NoPose.OFF_MAP, NoPose.AMBIGUOUS}


def test_a_camera_that_froze_gives_no_wrong_pose_afterwards(
        encoder: Encoder, road: PlaceMap) -> None:
    along = np.arange(10, 140, SPEED / RATE)
    views = _views(encoder, along, HARD)
    views[35:55] = views[35] + 0.1 * (views[35:55] - views[35])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    smoother = Smoother(encoder, road)
    for number, view in enumerate(views):
        smoother.locate(view, NOW + round(number / RATE * 1e9))
    smoothed = smoother.smoothed()
    trusted = np.array([estimate.trusted for estimate in smoothed])
    assert trusted[2:30].all()
    assert trusted[-20:].mean() > 0.8
    assert _errors(smoothed, along)[trusted].max() < 5


def test_each_drive_is_smoothed_for_itself(encoder: Encoder, road: PlaceMap) -> None:
    smoother = Smoother(encoder, road)
    first, second = np.arange(20, 60, SPEED / RATE), np.arange(90, 130, SPEED / RATE)
    _feed(encoder, smoother, first, NOW + 10 * CLOCK_JUMP_NS)
    _feed(encoder, smoother, second, NOW)  # the clock was set back
    both = smoother.smoothed()
    assert [estimate.stamp for estimate in both[:1] + both[len(first):][:1]] == [
        NOW + 10 * CLOCK_JUMP_NS, NOW]
    assert _errors(both, np.concatenate([first, second])).max() < 2


def test_a_large_map_keeps_only_its_likely_places(
        encoder: Encoder, road: PlaceMap, monkeypatch: pytest.MonkeyPatch) -> None:
    along = np.arange(20, 120, SPEED / RATE)
    _, exact = _drive(encoder, road, along)
    monkeypatch.setattr('vpr_ros.localization.smooth._KEPT', 40)
    _, sparse = _drive(encoder, road, along)
    np.testing.assert_allclose([estimate.pose for estimate in sparse],
                               [estimate.pose for estimate in exact], atol=0.1)
    np.testing.assert_allclose([estimate.confidence for estimate in sparse],
                               [estimate.confidence for estimate in exact], atol=0.05)


def _where(along: np.ndarray) -> np.ndarray:
    """Return the poses (N,7) on an arc of 200 m radius."""
    return poses.planar(200 * np.sin(along / 200), 200 - 200 * np.cos(along / 200), along / 200)


def _views(encoder: Encoder, along: np.ndarray, stands_out: float = 100.0) -> np.ndarray:
    """
    Return descriptors (N,D): random at each metre, and in between a mixture of both.

    Mixed with noise, so that the right place stands out by so many standard deviations.
    """
    rng = np.random.default_rng(3)
    metres = np.floor(along).astype(int)
    looks = {m: np.random.default_rng(m).normal(size=encoder.dimension)
             for m in {*metres, *(metres + 1)}}
    share = (along - metres)[:, None]
    seen = (1 - share) * [looks[m] for m in metres] + share * [looks[m + 1] for m in metres]
    seen = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    grain = rng.normal(size=seen.shape)
    seen += grain / stands_out
    return (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32)


def _feed(encoder: Encoder, smoother: Smoother, along: np.ndarray, start: int, *,
          odometry: bool = False, turned: bool = False) -> list[Estimate]:
    """Return the filter's estimates of a drive."""
    views = _views(encoder, np.sort(along), HARD)[np.argsort(np.argsort(along))]
    wheels = poses.looking_back(_where(along)) if turned else _where(along)
    return [smoother.locate(view, start + round(number / RATE * 1e9), pose if odometry else None)
            for number, (view, pose) in enumerate(zip(views, wheels, strict=True))]


def _drive(encoder: Encoder, place_map: PlaceMap, along: np.ndarray, *,
           odometry: bool = False, turned: bool = False, compensate: bool = True
           ) -> tuple[list[Estimate], list[Estimate]]:
    """Return the filter's and the smoothed estimates of a drive."""
    smoother = Smoother(encoder, place_map, compensate=compensate)
    filtered = _feed(encoder, smoother, along, NOW, odometry=odometry, turned=turned)
    return filtered, smoother.smoothed()


def _errors(estimates: list[Estimate], along: np.ndarray) -> np.ndarray:
    return np.linalg.norm([estimate.pose[:2] for estimate in estimates] - _where(along)[:, :2],
                          axis=1)
