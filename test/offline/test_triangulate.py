"""Landmarks are triangulated where images and poses agree, and only there."""

from __future__ import annotations

from dataclasses import replace
import logging

from landmark_world import CAMERA
from landmark_world import DRIVE
from landmark_world import MOUNT
from landmark_world import World
import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.encoding.features import Sift
from vpr_ros.io.frames import Source
from vpr_ros.maps.landmarks import per_place
from vpr_ros.offline.triangulate import parallax
from vpr_ros.offline.triangulate import triangulated
from vpr_ros.offline.triangulate import Triangulator
from vpr_ros.offline.triangulate import triangulator_of

FAR = np.array([5e5, 4e6, 100.0])  # m from the origin, as in UTM


def _rays(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    sight = points[:, None] - centres
    return np.asarray(sight / np.linalg.norm(sight, axis=2, keepdims=True))


def test_points_are_where_their_rays_meet() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-5, 5, (50, 3)) + (np.array([20, 8, 3]) + FAR)
    line = np.stack([np.arange(6.0), np.zeros(6), np.ones(6)], axis=1) + FAR
    centres = np.broadcast_to(line, (50, 6, 3))
    rays = _rays(points, centres)
    seen = np.ones((50, 6), np.bool_)
    found, errors, fit = triangulated(centres, rays, seen, 0.005)
    np.testing.assert_allclose(found, points, atol=1e-3)
    assert fit.all()
    assert errors.max() < 1e-5
    assert parallax(found, centres, fit).min() > 0.02

    # One image has others, in the same planes with the first one's: nearer or farther.
    other = centres[:, 0] + rng.uniform(0.6, 1.8, (50, 1)) * (points - centres[:, 0])
    rays[:, 2] = _rays(other, centres)[:, 2]
    found, _, fit = triangulated(centres, rays, seen, 0.005)
    assert np.median(np.linalg.norm(found - points, axis=1)) < 1e-3
    assert fit[:, [0, 1, 3, 4, 5]].mean() > 0.9
    assert fit[:, 2].mean() < 0.5


def test_points_behind_or_at_infinity_do_not_fit() -> None:
    centres = np.zeros((2, 3, 3)) + np.arange(3.0)[None, :, None] * [1, 0, 0]
    behind = -_rays(np.array([[5.0, 5.0, 0.0]] * 2), centres)
    parallel = np.zeros((2, 3, 3)) + np.array([0, 1, 0])
    for rays in (behind, parallel):
        found, _, fit = triangulated(centres, rays, np.ones((2, 3), np.bool_), 0.005)
        assert np.isfinite(found).all()
        assert not (fit.sum(axis=1) >= 3).any()


def test_a_drive_gives_landmarks_where_the_points_are() -> None:
    world = World(noise=0.3)
    triangulator = Triangulator(world, CAMERA, MOUNT)
    for number, pose in enumerate(DRIVE):
        triangulator.add(world.image(number), pose)
    points, descriptors, errors = triangulator.finish('world')
    assert len(points) == len(descriptors) == len(DRIVE)
    assert 20 < np.median([len(each) for each in points]) <= per_place(world.dimension)
    off = np.concatenate([np.linalg.norm(each[:, None] - world.points, axis=2).min(axis=1)
                          for each in points])
    assert np.median(off) < 0.1
    assert np.percentile(off, 90) < 0.6  # along the ray, for points far away
    same = (np.concatenate(descriptors) / 127) @ world.descriptors.T
    assert (same.max(axis=1) > 0.99).all()
    assert 0.1 < np.median(errors) * CAMERA.k[0] / world.noise < 2


@pytest.mark.parametrize('places', [1, 2])
def test_too_few_places_give_no_landmark_but_a_warning(
        places: int, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    triangulator = Triangulator(world, CAMERA, MOUNT)
    for number in range(places):
        triangulator.add(world.image(number), DRIVE[number])
    points, descriptors, errors = triangulator.finish('short')
    assert [len(each) for each in points] == [0] * places
    assert [each.shape for each in descriptors] == [(0, world.dimension)] * places
    assert errors == [0.0] * places
    assert 'short: not one landmark: the poses, the CameraInfo' in caplog.text


def test_a_robot_that_turns_on_the_spot_has_no_landmarks() -> None:
    views = poses.planar(np.zeros(10), np.zeros(10), np.radians(15.0) * np.arange(10))
    world = World(views)
    triangulator = Triangulator(world, CAMERA, np.concatenate([np.zeros(3), MOUNT[3:]]))
    for number, pose in enumerate(views):
        triangulator.add(world.image(number), pose)
    assert sum(map(len, triangulator.finish('turning')[0])) == 0


@pytest.mark.parametrize(('camera', 'mount', 'why'), [
    (None, MOUNT, 'it has no CameraInfo'),
    (Camera(640, 480), MOUNT, 'its CameraInfo is not calibrated (K is zero)'),
    (CAMERA, None, 'give --camera-pose')])
def test_a_source_that_gives_no_landmarks_is_told_why(
        camera: Camera | None, mount: np.ndarray | None, why: str,
        caplog: pytest.LogCaptureFixture) -> None:
    source = Source('winter', (), 0, camera=camera)
    if mount is not None:
        source = replace(source, mount=lambda: mount)
    with caplog.at_level(logging.INFO, 'vpr_ros'):
        assert triangulator_of(source, Sift()) is None
    line, = caplog.messages
    assert line == ('winter: no landmarks, which would make poses exact to decimetres: ' + why)
