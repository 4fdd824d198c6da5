"""A drive is repeatable, its poses are exact, its odometry drifts, all seasons share a town."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from vpr_ros.street import camera_matrix
from vpr_ros.street import CONDITIONS
from vpr_ros.street import drive
from vpr_ros.street import DriveFrame
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

SMALL = DriveOptions(width=96, height=72)


@pytest.fixture(scope='module')
def town() -> Town:
    return Town(7)


def yaws(poses: np.ndarray) -> np.ndarray:
    return np.unwrap(2 * np.arctan2(poses[:, 5], poses[:, 6]))


def poses_of(frames: list[DriveFrame]) -> np.ndarray:
    return np.array([frame.pose for frame in frames])


@pytest.fixture(scope='module')
def lap(town: Town) -> list[DriveFrame]:
    return list(drive(town, seed=3, rate=5.0, speed=10.0,
                      options=DriveOptions(width=32, height=24)))


def test_the_same_arguments_give_the_same_bytes(town: Town) -> None:
    for condition in CONDITIONS:
        first, second = (list(drive(town, condition=condition, seed=5, length=2.0, options=SMALL))
                         for _ in range(2))
        assert len(first) == len(second) >= 2
        for one, two in zip(first, second, strict=True):
            assert one.stamp == two.stamp
            for name in ('image', 'pose', 'odometry', 'velocity'):
                assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


def test_another_seed_gives_another_drive(town: Town) -> None:
    first, second = (next(drive(town, seed=seed, options=SMALL)) for seed in (1, 2))
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.velocity, second.velocity)


@pytest.mark.parametrize(('width', 'height'), [(320, 240), (640, 480), (97, 61)])
def test_frames_have_the_requested_size(town: Town, width: int, height: int) -> None:
    frame = next(drive(town, options=DriveOptions(width=width, height=height)))
    assert frame.image.shape == (height, width, 3)
    assert frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous
    assert frame.image.std() > 15


def test_stamps_follow_the_rate(town: Town) -> None:
    frames = list(drive(town, rate=20.0, length=4.0, options=replace(SMALL, start_stamp=1_000)))
    assert [frame.stamp for frame in frames] \
        == [1_000 + 50_000_000 * index for index in range(len(frames))]


def test_the_true_pose_moves_at_the_given_speed(lap: list[DriveFrame]) -> None:
    poses = poses_of(lap)
    assert np.allclose(np.linalg.norm(poses[:, 3:], axis=1), 1.0)
    assert not poses[:, 2].any()
    steps = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1)
    assert steps.mean() * 5.0 == pytest.approx(10.0, rel=0.05)
    assert steps.min() * 5.0 > 7.5
    assert steps.max() * 5.0 < 12.5


def test_the_heading_is_continuous_and_points_where_the_vehicle_goes(
        lap: list[DriveFrame]) -> None:
    poses = poses_of(lap)
    yaw = yaws(poses)
    assert np.abs(np.diff(yaw)).max() < 0.5
    course = np.unwrap(np.arctan2(np.diff(poses[:, 1]), np.diff(poses[:, 0])))
    between = (yaw[1:] + yaw[:-1]) / 2
    assert np.abs(np.angle(np.exp(1j * (course - between)))).max() < 0.1


def test_a_lap_ends_where_it_began(lap: list[DriveFrame]) -> None:
    poses = poses_of(lap)
    assert np.linalg.norm(poses[-1, :2] - poses[0, :2]) < 3.0
    assert len(lap) * 2.0 == pytest.approx(len(Town(7).route('main')) * 0.25, rel=0.05)


def test_odometry_starts_at_the_identity_and_drifts_a_little(town: Town) -> None:
    for seed in range(3):
        frames = list(drive(town, seed=seed, rate=2.0, speed=10.0, length=200.0,
                            options=DriveOptions(width=16, height=16, traffic=False)))
        odometry = np.array([frame.odometry for frame in frames])
        assert np.allclose(odometry[0], (0, 0, 0, 0, 0, 0, 1))
        travelled, truth = (np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1).sum()
                            for poses in (odometry, poses_of(frames)))
        assert 0.002 < abs(travelled / truth - 1) < 0.03
        turned, true_turn = (yaws(poses)[-1] - yaws(poses)[0]
                             for poses in (odometry, poses_of(frames)))
        assert 0 < abs(turned - true_turn) < 0.25


def test_velocity_is_what_the_odometry_integrates(lap: list[DriveFrame]) -> None:
    odometry = np.array([frame.odometry for frame in lap])
    speeds = np.linalg.norm(np.diff(odometry[:, :2], axis=0), axis=1) * 5.0
    measured = np.array([frame.velocity for frame in lap])
    assert np.abs((measured[1:, 0] + measured[:-1, 0]) / 2 - speeds).mean() < 0.15
    assert measured[:, 1].mean() == pytest.approx(
        np.diff(yaws(odometry)).mean() * 5.0, abs=0.02)


def test_the_lateral_offset_is_to_the_left(town: Town) -> None:
    middle, left = (next(drive(town, seed=1, lateral_offset=offset,
                               options=replace(SMALL, start=40.0))).pose
                    for offset in (0.0, 1.5))
    yaw = yaws(middle[None])[0]
    assert (left - middle)[:2] @ (-np.sin(yaw), np.cos(yaw)) == pytest.approx(1.5, abs=0.02)


def test_length_and_start_select_part_of_the_route(town: Town) -> None:
    route = town.route('other')
    frames = list(drive(town, length=20.0, options=replace(SMALL, route='other', start=50.0)))
    poses = poses_of(frames)
    assert np.linalg.norm(poses[0, :2] - route[200]) < 0.5
    assert np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1).sum() == pytest.approx(20, abs=1)


def test_conditions_change_the_image_but_not_the_place(town: Town) -> None:
    options = DriveOptions(start=25.0, traffic=False)
    frames = {condition: next(drive(town, condition=condition, seed=4, options=options))
              for condition in CONDITIONS}
    for frame in frames.values():
        assert np.array_equal(frame.pose, frames['spring'].pose)
    brightness = {name: frame.image.mean() for name, frame in frames.items()}
    assert brightness['night'] < 0.6 * brightness['spring']
    road = {name: frame.image[180:, 100:220].mean() for name, frame in frames.items()}
    assert road['winter'] > 1.3 * road['spring'] > 1.3 * road['rain'] * 0.9
    colourful = {name: np.ptp(frame.image.astype(int), axis=2).mean()
                 for name, frame in frames.items()}
    assert colourful['rain'] < 0.7 * colourful['spring']


def test_an_unknown_condition_or_route_is_refused_with_the_choices(town: Town) -> None:
    with pytest.raises(ValueError, match='spring, winter, night, rain'):
        drive(town, condition='autumn')
    with pytest.raises(ValueError, match='main, other'):
        drive(town, options=DriveOptions(route='motorway'))
    with pytest.raises(ValueError, match='speed'):
        drive(town, speed=0.0)


def test_the_field_of_view_is_85_degrees() -> None:
    matrix = camera_matrix(640, 480)
    assert matrix.shape == (3, 3)
    assert 2 * np.degrees(np.arctan(320 / matrix[0, 0])) == pytest.approx(85.0)
    assert np.allclose(matrix[:2, 2], (319.5, 239.5))


def test_the_street_knows_how_near_everything_is(town: Town) -> None:
    options = replace(SMALL, start=60.0, width=160, height=120)
    one, two = list(drive(town, length=4.0, rate=4, seed=1,
                          options=replace(options, nearness=True)))[:2]
    plain = next(drive(town, length=1.0, rate=4, seed=1, options=options))
    assert plain.nearness is None
    np.testing.assert_array_equal(plain.image, one.image)
    assert one.nearness is not None
    assert two.nearness is not None
    matrix = camera_matrix(160, 120)
    rows, columns = np.mgrid[2:118, 2:158].reshape(2, -1)
    near = one.nearness[rows, columns]
    rows, columns, near = (each[near > 1 / 60] for each in (rows, columns, near))
    rays = np.column_stack([columns, rows, np.ones(len(rows))]) @ np.linalg.inv(matrix).T
    points = (rays / near[:, None]) @ one.view.rotation() + one.view.position
    seen = (points - two.view.position) @ two.view.rotation().T
    image = seen @ matrix.T
    x, y = np.rint(image[:, :2] / image[:, 2:]).astype(int).T
    inside = (seen[:, 2] > 0.5) & (x >= 0) & (x < 160) & (y >= 0) & (y < 120)
    ratio = two.nearness[y[inside], x[inside]] * seen[inside, 2]
    assert (np.abs(ratio - 1) < 0.04).mean() > 0.8
