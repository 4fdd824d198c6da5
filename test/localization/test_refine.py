"""From the right place to the right spot, in a world of known points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from landmark_world import CAMERA
from landmark_world import DRIVE
from landmark_world import estimate_at
from landmark_world import FISHEYE
from landmark_world import landmark_map
from landmark_world import MOUNT
from landmark_world import World
import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.camera import camera_pose
from vpr_ros.core.errors import MapError
from vpr_ros.localization import refine
from vpr_ros.localization.estimate import Estimate
from vpr_ros.localization.refine import difference
from vpr_ros.localization.refine import Matches
from vpr_ros.localization.refine import Refiner
from vpr_ros.localization.refine import solve
from vpr_ros.localization.refine import View
from vpr_ros.maps.place_map import PlaceMap

BESIDE = np.array([poses.moved(DRIVE[n], np.array([0.3, 1.1, 0.05])) for n in range(20)])


@pytest.fixture(scope='module')
def place_map() -> PlaceMap:
    return landmark_map(World())


def _refined(place_map: PlaceMap, world: World, number: int, **options: Any) -> Estimate:
    refiner = Refiner(place_map, world, world.camera, world.mount, **options)
    return refiner.refine(estimate_at(DRIVE[number]), refiner.look(world.image(number)))


@pytest.mark.parametrize('flat', [True, False])
def test_a_pose_beside_the_lane_is_found(place_map: PlaceMap, flat: bool) -> None:
    refined = _refined(place_map, World(BESIDE), 8, flat=flat)
    assert poses.distance(refined.pose, BESIDE[8]) < 0.1
    assert poses.angle(refined.pose, BESIDE[8]) < np.radians(0.5)
    assert refined.refined
    assert refined.inliers >= refine.MIN_INLIERS
    np.testing.assert_array_equal(refined.place_pose, DRIVE[8])
    assert (np.linalg.eigvalsh(refined.covariance) > 0).all()
    if flat:
        assert refined.pose[2] == DRIVE[8, 2]


@pytest.mark.parametrize(('camera', 'mount'), [
    (CAMERA.scaled(240, 320), MOUNT),
    (Camera(384, 288, (350.0, 350.0, 191.5, 143.5), 'plumb_bob', (-0.1, 0.02, 0.0, 0.0, 0.0)),
     camera_pose(0.0, 0.2, 1.55, 0.0, 0.09, 0.02)),
    (FISHEYE, MOUNT)], ids=['half the size', 'another lens, higher, pitched', 'fisheye'])
def test_the_query_camera_may_differ_from_that_of_the_map(
        place_map: PlaceMap, camera: Camera, mount: np.ndarray) -> None:
    refined = _refined(place_map, World(BESIDE, camera=camera, mount=mount), 8)
    assert refined.refined
    assert poses.distance(refined.pose, BESIDE[8]) < 0.15


def test_a_map_may_be_made_with_a_fisheye() -> None:
    place_map = landmark_map(World(camera=FISHEYE))
    assert poses.distance(_refined(place_map, World(BESIDE), 8).pose, BESIDE[8]) < 0.1


def test_slopes_are_followed_where_the_ground_is_not_flat(place_map: PlaceMap) -> None:
    tilted = BESIDE.copy()
    tilted[8] = poses.composed(BESIDE[8], np.array([0, 0, 0.3, 0, np.sin(0.02), 0, np.cos(0.02)]))
    refined = _refined(place_map, World(tilted), 8, flat=False)
    assert poses.distance(refined.pose, tilted[8]) < 0.1
    assert poses.angle(refined.pose, tilted[8]) < np.radians(0.5)


def test_the_covariance_is_honest(place_map: PlaceMap) -> None:
    scores = []
    for seed in range(12):
        world = World(BESIDE, noise=1.0, wrong=0.4, seed=seed)
        for number in (5, 10):
            refined = _refined(place_map, world, number)
            error = difference(refined.pose, BESIDE[number])[[0, 1, 5]]
            inner = refined.covariance[np.ix_([0, 1, 5], [0, 1, 5])]
            scores.append(error @ np.linalg.solve(inner, error) / 3)
    assert 0.1 < np.mean(scores) < 2.0


def test_the_jacobian_is_that_of_the_errors() -> None:
    rng = np.random.default_rng(1)
    rays = rng.standard_normal((30, 3)) + np.array([4, 0, 0])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    matches = Matches(np.arange(30), rays, rng.uniform(5, 20, (30, 3)), np.ones(30))
    place, offset = np.array([1.0, 2.0, 0.5]), np.array([0.3, 0.2, 1.0])
    turn = refine.Rotation.from_euler('xyz', [0.1, -0.2, 0.8]).as_matrix()

    def errors(step: np.ndarray) -> Any:
        moved = refine.Rotation.from_rotvec(step[3:]).as_matrix() @ turn
        return refine._linear(matches, refine._across(rays), place + step[:3], moved, offset, 1e-3)
    jacobian = errors(np.zeros(6))[1]
    for axis, step in enumerate(1e-6 * np.eye(6)):
        slope = (errors(step)[0] - errors(-step)[0]) / 2e-6
        np.testing.assert_allclose(jacobian[..., axis], slope, atol=1e-6)


def _view(rays: np.ndarray, world: World) -> View:
    return View(rays, world.descriptors[:len(rays)], 1e-3, np.zeros((len(rays), 2)))


def test_what_is_degenerate_stays_as_it_is(place_map: PlaceMap) -> None:
    world = World(BESIDE)
    refiner = Refiner(place_map, world, world.camera, world.mount)
    whole = refiner.look(world.image(8))
    rng = np.random.default_rng(3)
    behind = rng.standard_normal((200, 3)) - np.array([4, 0, 0])
    one_spot = np.tile(whole.rays[:1], (200, 1))
    for view in (_view(np.empty((0, 3)), world), _view(whole.rays[:1], world),
                 _view(behind / np.linalg.norm(behind, axis=1, keepdims=True), world),
                 _view(one_spot, world), whole._replace(descriptors=-whole.descriptors),
                 whole._replace(descriptors=whole.descriptors[::-1])):
        estimate = estimate_at(DRIVE[8])
        assert refiner.refine(estimate, view) is estimate
    far = estimate_at(poses.planar(500.0, 500.0, 0.0))
    assert refiner.refine(far, whole) is far
    backwards = estimate_at(poses.planar(8.0, 0.0, np.pi))
    assert refiner.refine(backwards, whole) is backwards


def test_points_in_one_direction_leave_the_distance_open() -> None:
    rng = np.random.default_rng(4)
    far = np.stack([np.full(60, 100.0), rng.uniform(-2, 2, 60), rng.uniform(0, 3, 60)], 1)
    rays = far / np.linalg.norm(far, axis=1, keepdims=True)
    matches = Matches(np.arange(60), rays, far, np.ones(60))
    solution = solve(matches, poses.IDENTITY, poses.IDENTITY, refine.FLAT, np.zeros(3), 1e-3)
    assert not refine._is_certain([solution], poses.IDENTITY)


def test_two_spots_that_agree_as_well_are_no_answer(place_map: PlaceMap) -> None:
    world = World(BESIDE)
    refiner = Refiner(place_map, world, world.camera, world.mount)
    whole = refiner.look(world.image(8))
    best = solve(refiner._matches(whole, DRIVE[8]), BESIDE[8], DRIVE[8], refine.FLAT, MOUNT[:3],
                 whole.noise)
    other = replace(best, pose=poses.moved(best.pose, np.array([1.0, 0.0, 0.0])))
    assert refine._is_certain([best], DRIVE[8])
    assert not refine._is_certain([best, other], DRIVE[8])


def test_few_of_many_matches_are_chance(place_map: PlaceMap, monkeypatch: pytest.MonkeyPatch
                                        ) -> None:
    for share, refined in ((refine.MIN_SHARE, True), (0.5, False)):
        monkeypatch.setattr(refine, 'MIN_SHARE', share)
        assert _refined(place_map, World(BESIDE, wrong=0.7), 8).refined == refined


def test_a_map_must_have_landmarks_of_the_same_features(place_map: PlaceMap) -> None:
    world = World()
    with pytest.raises(MapError, match='the map has no landmarks: build it again'):
        Refiner(place_map.select(np.arange(3)), world, CAMERA, MOUNT)
    other = World()
    other.digest = 'ef' * 32  # type: ignore[misc]
    with pytest.raises(MapError, match="'world', not 'efefefefefef': name their network"):
        Refiner(place_map, other, CAMERA, MOUNT)
    with pytest.raises(ValueError, match='not refined: its CameraInfo is not calibrated'):
        Refiner(place_map, world, Camera(640, 480), MOUNT)


def test_images_of_another_shape_than_the_camera_are_not_used(place_map: PlaceMap) -> None:
    world = World(BESIDE)
    refiner = Refiner(place_map, world, world.camera, world.mount)
    assert len(refiner.look(np.full((480, 480, 3), 8, np.uint8)).rays) == 0
