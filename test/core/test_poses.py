"""Poses: interpolation, averages, covariances, and the TUM and CSV files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import assume
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
from hypothesis.extra.numpy import arrays
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from vpr_ros.core import pose_files
from vpr_ros.core import pose_track
from vpr_ros.core import poses
from vpr_ros.core import uncertainty
from vpr_ros.core.errors import PoseError

SECOND = 1_000_000_000
NOW = 1_700_000_000_123_456_789  # more digits than a double holds

finite = strategies.floats(-1000, 1000)
angles = strategies.floats(-np.pi, np.pi)
quaternions = arrays(np.float64, 4, elements=strategies.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 0.1).map(lambda q: q / np.linalg.norm(q))
some_poses = strategies.builds(lambda p, q: np.concatenate([p, q]),
                               arrays(np.float64, 3, elements=finite), quaternions)
lists_of_poses = strategies.lists(some_poses, min_size=1, max_size=8).map(np.array)
relaxed = settings(deadline=None, max_examples=50)


def test_positions_are_interpolated_linearly_and_orientations_spherically() -> None:
    track = _track([0, SECOND], [[0, 0, 0, 0], [4, 2, 1, np.pi / 2]])
    result, known = pose_track.interpolate(track, np.array([0, SECOND // 4, SECOND]))
    assert known.all()
    np.testing.assert_allclose(result[:, :3], [[0, 0, 0], [1, 0.5, 0.25], [4, 2, 1]])
    np.testing.assert_allclose(poses.heading(result), [0, np.pi / 8, np.pi / 2])
    np.testing.assert_allclose(np.linalg.norm(result[:, 3:], axis=1), 1)


def test_interpolation_takes_the_shorter_rotation() -> None:
    track = _track([0, SECOND], [[0, 0, 0, np.deg2rad(170)], [0, 0, 0, np.deg2rad(-170)]])
    for sign in (1, -1):
        track.poses[1, 3:] *= sign
        result, _ = pose_track.interpolate(track, np.array([SECOND // 2]))
        np.testing.assert_allclose(abs(poses.heading(result)), np.pi)


def test_interpolation_never_extrapolates() -> None:
    track = _track([NOW, NOW + SECOND], [[0, 0, 0, 0], [1, 0, 0, 0]])
    outside = np.array([NOW - 1, NOW + SECOND + 1, 0, 2 * NOW])
    result, known = pose_track.interpolate(track, outside)
    assert not known.any()
    assert np.isnan(result).all()


def test_interpolation_does_not_bridge_a_gap_but_keeps_its_ends() -> None:
    track = _track([0, SECOND, 3 * SECOND], [[0, 0, 0, 0], [1, 0, 0, 0], [3, 0, 0, 0]])
    stamps = np.array([SECOND // 2, SECOND, 2 * SECOND, 3 * SECOND])
    result, known = pose_track.interpolate(track, stamps, max_gap=1.0)
    assert known.tolist() == [True, True, False, True]
    assert np.isnan(result[2]).all()
    assert pose_track.interpolate(track, stamps, max_gap=2.0)[1].all()


def test_interpolation_resolves_single_nanoseconds() -> None:
    track = _track([NOW, NOW + 4], [[0, 0, 0, 0], [4, 0, 0, 0]])
    result, _ = pose_track.interpolate(track, NOW + np.arange(5))
    np.testing.assert_allclose(result[:, 0], [0, 1, 2, 3, 4])


def test_an_empty_track_gives_no_pose() -> None:
    _, known = pose_track.interpolate(_track([], np.empty((0, 4))), np.array([NOW]))
    assert known.tolist() == [False]


def test_a_track_leaves_out_and_counts_unusable_poses() -> None:
    raw = np.tile(poses.IDENTITY, (6, 1))
    raw[:, 0] = np.arange(6)
    raw[1, 2] = np.nan
    raw[2, 3:] = 0
    stamps = np.array([10, 100, 90, 20, 20, 15])
    track = pose_track.track(stamps, raw)
    assert track.stamps.tolist() == [10, 20]
    assert track.poses[:, 0].tolist() == [0, 3]
    assert track.dropped == 4


@pytest.mark.parametrize(('place', 'value', 'message'), [
    (0, np.nan, 'is not finite'), (5, np.inf, 'is not finite'), (6, 0, 'of length zero')])
def test_checked_refuses_unusable_poses(place: int, value: float, message: str) -> None:
    pose = poses.IDENTITY.copy()
    pose[place] = value
    with pytest.raises(PoseError, match=f'the odometry .*{message}'):
        poses.checked(pose, 'the odometry')


def test_checked_normalises_a_copy() -> None:
    raw = np.array([1, 2, 3, 0, 0, 0, 5.0])
    np.testing.assert_array_equal(poses.checked(raw), [1, 2, 3, 0, 0, 0, 1])
    assert raw[6] == 5


@given(x=finite, y=finite, heading=angles)
@relaxed
def test_the_heading_of_a_planar_pose_is_the_given_one(x, y, heading) -> None:
    pose = poses.planar(x, y, heading)
    assert pose.shape == (7,)
    assert pose[:3].tolist() == [x, y, 0]
    assert abs(poses.heading(pose) - heading) < 1e-6


def test_distance_and_angle_broadcast() -> None:
    one = poses.planar(0.0, 0.0, 0.0)
    many = poses.planar(np.array([3.0, 0]), np.array([4.0, 0]), np.array([0, np.pi / 2]))
    np.testing.assert_allclose(poses.distance(one, many), [5, 0])
    np.testing.assert_allclose(poses.angle(one, many), [0, np.pi / 2])


@given(a=some_poses, b=some_poses)
@relaxed
def test_angle_is_symmetric_and_the_same_for_q_and_minus_q(a, b) -> None:
    flipped = np.concatenate([b[:3], -b[3:]])
    np.testing.assert_allclose(poses.angle(a, b), poses.angle(b, a))
    np.testing.assert_allclose(poses.angle(a, b), poses.angle(a, flipped))
    assert 0 <= poses.angle(a, b) <= np.pi


@given(x=finite, y=finite, heading=angles, motion=arrays(
    np.float64, 3, elements=strategies.floats(-3, 3)))
@relaxed
def test_the_relative_motion_to_a_moved_pose_is_the_given_one(x, y, heading, motion) -> None:
    start = poses.planar(x, y, heading)
    end = poses.moved(start, motion)
    np.testing.assert_allclose(poses.relative(start, end), motion, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(end[3:]), 1)


def test_motion_is_forward_left_and_counterclockwise() -> None:
    north = poses.planar(5.0, 5.0, np.pi / 2)
    np.testing.assert_allclose(poses.moved(north, np.array([2.0, 1.0, np.pi / 2])),
                               poses.planar(4.0, 7.0, np.pi), atol=1e-12)


def test_moving_keeps_height_and_slope() -> None:
    slope = np.array([0, 0, 3, 0, np.sin(0.1), 0, np.cos(0.1)])
    moved = poses.moved(slope, np.array([1.0, 0, 0]))
    np.testing.assert_allclose(moved, [1, 0, 3, *slope[3:]])
    turned = poses.moved(slope, np.array([0, 0, 0.5]))
    assert poses.angle(turned, slope) == pytest.approx(0.5)
    # about the map's vertical axis, so that what pointed down still points as far down
    assert _matrix(turned[3:])[2, 0] == pytest.approx(_matrix(slope[3:])[2, 0])


def test_the_pose_at_a_stamp_is_none_where_it_is_unknown() -> None:
    track = _track([0, SECOND], [[0, 0, 0, 0], [2, 0, 0, 0]])
    assert pose_track.at(track, SECOND // 2)[0] == 1
    assert pose_track.at(track, SECOND + 1) is None
    assert pose_track.at(track, SECOND // 2, max_gap=0.5) is None
    assert pose_track.at(None, 0) is None


@given(pose=some_poses, count=strategies.integers(1, 6))
@relaxed
def test_the_mean_of_identical_poses_is_that_pose(pose, count) -> None:
    mean = poses.mean(np.tile(pose, (count, 1)), np.arange(1.0, count + 1))
    np.testing.assert_allclose(mean[:3], pose[:3], atol=1e-9)
    assert abs(mean[3:] @ pose[3:]) > 1 - 1e-9
    assert mean[6] >= 0


@given(sample=lists_of_poses, data=strategies.data())
@relaxed
def test_q_and_minus_q_give_the_same_mean_and_covariance(sample, data) -> None:
    signs = data.draw(arrays(np.float64, len(sample), elements=strategies.sampled_from([-1., 1.])))
    flipped = sample.copy()
    flipped[:, 3:] *= signs[:, None]
    weights = np.arange(1.0, len(sample) + 1)
    moments = np.linalg.eigvalsh((sample[:, 3:] * weights[:, None]).T @ sample[:, 3:])
    assume(moments[3] - moments[2] > 1e-3)  # else two orientations are equally good means
    mean = poses.mean(sample, weights)
    other = poses.mean(flipped, weights)
    np.testing.assert_allclose(other[:3], mean[:3])
    assert abs(other[3:] @ mean[3:]) > 1 - 1e-9
    floor = np.full(6, 0.01)
    turned = poses.angle(sample, mean)
    assume((turned < np.pi - 1e-3).all())  # half a turn has two rotation vectors
    np.testing.assert_allclose(uncertainty.covariance(flipped, weights, mean, floor),
                               uncertainty.covariance(sample, weights, mean, floor), atol=1e-6)


def test_the_mean_follows_the_weights() -> None:
    two = poses.planar(np.array([0.0, 4.0]), np.zeros(2), np.array([0, 0.4]))
    mean = poses.mean(two, np.array([3.0, 1.0]))
    assert mean[0] == pytest.approx(1)
    assert 0.05 < poses.heading(mean) < 0.15
    np.testing.assert_allclose(poses.mean(two, np.array([0.0, 2.0])), two[1], atol=1e-12)


@given(sample=lists_of_poses, centre=some_poses)
@relaxed
def test_covariance_is_symmetric_and_positive_definite(sample, centre) -> None:
    floor = np.array([0.01, 0.01, 0.01, 1e-3, 1e-3, 1e-3])
    covariance = uncertainty.covariance(sample, np.ones(len(sample)), centre, floor)
    np.testing.assert_array_equal(covariance, covariance.T)
    np.linalg.cholesky(covariance)
    assert (np.diag(covariance) >= floor).all()


@given(centre=quaternions, turn=arrays(np.float64, 3, elements=strategies.floats(-1.7, 1.7)))
@relaxed
def test_the_rotation_vector_is_that_of_rodrigues(centre, turn) -> None:
    # q with R(q) = R(turn) R(centre), the rotation vector `turn` about the map's fixed axes
    moved = _quaternion(_rodrigues(turn) @ _matrix(centre))
    covariance = uncertainty.covariance(np.concatenate([np.zeros(3), moved])[None], np.ones(1),
                                        np.concatenate([np.zeros(3), centre]), np.zeros(6))
    np.testing.assert_allclose(covariance[3:, 3:], np.outer(turn, turn), atol=1e-6)


def test_covariance_is_the_weighted_spread() -> None:
    sample = poses.planar(np.array([-1.0, 1.0, 9.0]), np.zeros(3), np.array([-0.1, 0.1, 0]))
    covariance = uncertainty.covariance(sample, np.array([2.0, 2.0, 0.0]), poses.IDENTITY,
                                        np.zeros(6))
    expected = np.zeros((6, 6))
    expected[0, 0], expected[0, 5], expected[5, 0], expected[5, 5] = 1, 0.1, 0.1, 0.01
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_tum_round_trip_keeps_every_nanosecond(tmp_path: Path) -> None:
    stamps = np.array([-SECOND - 1, -1, 0, 7, NOW, NOW + 1])
    rng = np.random.default_rng(2)
    written = poses.checked(rng.normal(size=(len(stamps), 7)))
    pose_files.write_tum(tmp_path / 'drive.tum', stamps, written)
    track = pose_files.read_tum(tmp_path / 'drive.tum')
    assert track.stamps.tolist() == stamps.tolist()
    np.testing.assert_allclose(track.poses, written, atol=1e-8)
    assert (tmp_path / 'drive.tum').read_text().startswith('-1.000000001 ')


def test_tum_comments_blank_lines_and_bad_poses_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / 'drive.tum'
    path.write_text('# time x y z qx qy qz qw\n\n1.5 1 2 3 0 0 0 1\n2 nan 2 3 0 0 0 1\n'
                    '1 1 2 3 0 0 0 1\n3  4 5 6 0 0 0 1\n')
    track = pose_files.read_tum(path)
    assert track.stamps.tolist() == [1_500_000_000, 3 * SECOND]
    assert track.dropped == 2


@pytest.mark.parametrize(('content', 'message'), [
    ('1 2 3\n', 'a line has 2 numbers where 7 are needed'),
    ('1 1 2 3 0 0 0 1 9\n', 'a line has 8 numbers where 7 are needed'),
    ('1 1 2 3 0 0 x 1\n', "could not convert .*'x', in the line 1,2,3,0,0,x,1"),
    ('noon 1 2 3 0 0 0 1\n', 'noon is not a time'),
    ('nan 1 2 3 0 0 0 1\n', 'nan is not a time'),
    ('1e30 1 2 3 0 0 0 1\n', '1e30 is not a time'),
    (b'\xff\xfe\x00', 'is not text in UTF-8')])
def test_a_malformed_tum_file_is_named(tmp_path: Path, content: str | bytes, message: str
                                       ) -> None:
    path = _write(tmp_path / 'drive.tum', content)
    with pytest.raises(PoseError, match=rf'drive\.tum.*{message}'):
        pose_files.read_tum(path)


@pytest.mark.parametrize(('field', 'stamp'), [
    ('1700000000.123456789', NOW), ('1.5', 1_500_000_000), ('-0.5', -500_000_000),
    ('.25', 250_000_000), ('2.', 2 * SECOND), ('1.7e9', 1_700_000_000 * SECOND),
    ('3.0000000019', 3 * SECOND + 1)])
def test_decimal_seconds_become_exact_nanoseconds(field: str, stamp: int) -> None:
    assert pose_files.nanoseconds(field, 'drive.tum') == stamp


def test_csv_round_trip_is_exact(tmp_path: Path) -> None:
    names = ['b, with a comma.jpg', 'a.jpg']
    written = poses.checked(np.random.default_rng(3).normal(size=(2, 7)))
    pose_files.write_csv(tmp_path / 'poses.csv', names, written)
    names_read, result = pose_files.read_csv(tmp_path / 'poses.csv')
    assert names_read == names
    np.testing.assert_allclose(result, written, rtol=1e-15)


def test_csv_writes_extra_columns(tmp_path: Path) -> None:
    path = tmp_path / 'poses.csv'
    pose_files.write_csv(path, ['7'], poses.IDENTITY[None], header='stamp',
                         extra={'confidence': [0.5]})
    assert path.read_text().split() == ['stamp,x,y,z,qx,qy,qz,qw,confidence',
                                        '7,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.5']


@pytest.mark.parametrize('header', [
    'image,x,y,yaw', 'Name,x_m,y_m,yaw_rad', '\ufefffile, x, Y, yaw'])
def test_csv_accepts_planar_poses(tmp_path: Path, header: str) -> None:
    path = _write(tmp_path / 'poses.csv', f'# made by hand\n{header}\na.jpg,1,2,0.5\n')
    names, result = pose_files.read_csv(path)
    assert names == ['a.jpg']
    np.testing.assert_allclose(result, poses.planar(np.array([1.0]), np.array([2.0]),
                                                    np.array([0.5])))


@pytest.mark.parametrize(('content', 'message'), [
    ('', 'is empty: it needs a header line'),
    ('image,lat,lon\na.jpg,1,2\n', 'columns must be .*, not image,lat,lon'),
    ('image,x,y,yaw\na.jpg,1,2\n', 'a line has 2 numbers where 3 are needed: 1,2'),
    ('image,x,y,yaw\na.jpg,1,two,3\n', "'two', in the line 1,two,3"),
    ('image,x,y,yaw\na.jpg,1,2,3\nb.jpg,1,nan,3\n', r'the pose of b\.jpg is not finite'),
    ('image,x,y,z,qx,qy,qz,qw\nb.jpg,1,2,3,0,0,0,0\n', r'b\.jpg has a quaternion of length zero'),
    (b'image,x\xff', 'is not text in UTF-8')])
def test_a_malformed_csv_file_is_named_with_its_line(
        tmp_path: Path, content: str | bytes, message: str) -> None:
    path = _write(tmp_path / 'poses.csv', content)
    with pytest.raises(PoseError, match=rf'poses\.csv.*{message}'):
        pose_files.read_csv(path)


@pytest.mark.parametrize('read', [pose_files.read_tum, pose_files.read_csv])
def test_a_missing_pose_file_is_named(tmp_path: Path, read) -> None:
    with pytest.raises(FileNotFoundError, match='missing does not exist'):
        read(tmp_path / 'missing')


def _track(stamps, rows) -> pose_track.PoseTrack:
    """Return a track of x, y, z, heading rows."""
    x, y, z, heading = np.reshape(rows, (-1, 4)).T
    made = poses.planar(x, y, heading)
    made[:, 2] = z
    return pose_track.track(np.array(stamps, np.int64), made)


def _write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _rodrigues(turn: np.ndarray) -> np.ndarray:
    """Return the rotation matrix (3,3) of a rotation vector."""
    theta = np.linalg.norm(turn)
    x, y, z = turn / max(theta, 1e-300)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(theta) * cross + (1 - np.cos(theta)) * cross @ cross


def _matrix(q: np.ndarray) -> np.ndarray:
    """Return the rotation matrix (3,3) of a unit quaternion x y z w."""
    vector, w = q[:3], q[3]
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) * (w * w - vector @ vector) + 2 * np.outer(vector, vector) + 2 * w * cross


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return the unit quaternion x y z w of a rotation matrix, as an eigenvector (Bar-Itzhack)."""
    m = matrix
    k = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
        [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
        [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]]])
    return np.linalg.eigh(k)[1][:, -1]


@given(strategies.lists(strategies.floats(-2, 2), min_size=36, max_size=36))
def test_a_covariance_without_negative_entries_is_an_upper_bound(values):
    root = np.array(values).reshape(6, 6)
    covariance = root @ root.T + 0.01 * np.eye(6)
    changed = uncertainty.non_negative(covariance)
    assert (changed >= 0).all()
    np.testing.assert_allclose(changed, changed.T)
    assert np.linalg.eigvalsh(changed - covariance).min() > -1e-9
    if (covariance >= 0).all():
        np.testing.assert_array_equal(changed, covariance)


def test_a_flattened_pose_has_no_height_and_no_tilt():
    tilted = np.concatenate([[1, 2, 3], Rotation.from_euler('ZYX', [0.7, 0.1, 0.2]).as_quat()])
    covariance = np.diag([1.0, 2, 3, 4, 5, 6]) + 0.1
    pose, flat = uncertainty.flattened(tilted, covariance)
    np.testing.assert_allclose(pose, poses.planar(1, 2, float(poses.heading(tilted))))
    assert flat[0, 1] == flat[0, 5] == 0.1
    assert flat[2, 2] == flat[3, 3] == flat[4, 4] == uncertainty.FLAT
    assert not flat[2, [0, 1, 3, 4, 5]].any()


def test_the_pose_of_odom_in_map_follows_from_the_robots_pose_in_both():
    in_map = np.concatenate([[5, -2, 1], Rotation.from_euler('xyz', [0.1, 0.2, 2.0]).as_quat()])
    in_odom = np.concatenate([[1, 7, 0], Rotation.from_euler('xyz', [0, 0.1, -1.0]).as_quat()])
    odom = poses.frame_between(in_map, in_odom)
    turn = Rotation.from_quat(odom[3:])
    np.testing.assert_allclose(odom[:3] + turn.apply(in_odom[:3]), in_map[:3], atol=1e-12)
    assert (turn * Rotation.from_quat(in_odom[3:])
            * Rotation.from_quat(in_map[3:]).inv()).magnitude() < 1e-9


@pytest.mark.parametrize(('pose', 'reason'), [
    ([1e308, 0, 0, 0, 0, 0, 1], 'has a coordinate beyond'), ([0] * 7, 'quaternion of length zero'),
    ([0, 0, 0, 0, 0, 0, 1e308], 'has a coordinate beyond'), ([np.inf] * 7, 'is not finite')])
def test_a_pose_that_is_none_is_refused_and_not_usable(pose: list[float], reason: str) -> None:
    with pytest.raises(PoseError, match=reason):
        poses.checked(np.array(pose))
    assert poses.usable(np.array([pose, poses.IDENTITY])).tolist() == [False, True]
