"""Poses from transforms and from fixes of a GPS."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.core import geodesy
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.core.geodesy import Datum
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.io.map_poses import bag_poses
from vpr_ros.io.map_poses import PoseOptions

SECOND = 1_000_000_000
TYPES = BagWriter.types


def tf(parent, child, times, pose):
    """Return TFMessages, and their times in s, of one transform; `pose` is a function of those."""
    return [(time, TYPES('tf2_msgs/msg/TFMessage')(transforms=[messages.transform(
        TYPES, int(time * SECOND), parent, child, np.asarray(pose(time), float))]))
        for time in times]


def write(path, **topics):
    with BagWriter(path) as bag:
        for topic, stamped in topics.items():
            for time, message in stamped:
                bag.write(f'/{topic}', message, int(time * SECOND))
    return path


def at(x, y=0.0, heading=0.0):
    return poses.planar(x, y, heading)


def read(path, **options):
    with Bag(path) as bag:
        return bag_poses(bag, options=PoseOptions(**options))


FAST, SLOW = np.arange(1, 5, 0.1), np.arange(0.5, 6, 1.0)


def test_poses_from_tf_are_those_of_the_robot_in_the_map(tmp_path):
    # map -> odom drifts and turns it by a quarter; the base is mounted above its footprint
    path = write(
        tmp_path / 'bag',
        tf=sorted([*tf('odom', 'base_footprint', FAST, lambda t: at(t)),
                   *tf('/map', 'odom', SLOW, lambda t: at(10, 0.1 * t, np.pi / 2)),
                   *tf('base_link', 'wheel', FAST, lambda t: at(0, 0, t))], key=lambda m: m[0]),
        tf_static=tf('base_footprint', 'base_link', [0], lambda t: [0.2, 0, 0.5, 0, 0, 0, 1]))
    track = read(path)
    assert (track.frame_id, track.child_frame_id) == ('map', 'base_link')
    np.testing.assert_array_equal(track.stamps, (FAST * SECOND).astype(np.int64))
    expected = at(10 + 0 * FAST, 1.1 * FAST + 0.2, np.full(len(FAST), np.pi / 2))
    expected[:, 2] = 0.5
    np.testing.assert_allclose(track.poses, expected, atol=1e-6)
    wheel = read(path, frames=('odom', 'wheel'))
    np.testing.assert_allclose(poses.heading(wheel.poses), (FAST + np.pi) % (2 * np.pi) - np.pi,
                               atol=1e-6)


def test_without_a_map_the_poses_are_in_odom(tmp_path):
    track = read(write(tmp_path / 'bag', tf=tf('odom', 'base_link', FAST, lambda t: at(t))))
    assert track.frame_id == 'odom'


@pytest.mark.parametrize('frames', [None, ('map', 'camera')])
def test_transforms_that_do_not_connect_are_named(tmp_path, frames):
    path = write(tmp_path / 'bag', tf=tf('world', 'robot', FAST, lambda t: at(t)))
    with pytest.raises(SourceError, match='there are world->robot: name two frames with '
                                          '--tf-frames') as caught:
        read(path, frames=frames)
    assert f'to {frames[1] if frames else "base_link"}' in str(caught.value)
    assert read(path, frames=('world', 'robot')).frame_id == 'world'


def test_a_tree_with_a_loop_ends(tmp_path):
    path = write(tmp_path / 'bag', tf=[*tf('a', 'base_link', [1], lambda t: at(t)),
                                       *tf('base_link', 'a', [1], lambda t: at(t))])
    with pytest.raises(SourceError, match='no chain'):
        read(path)


def test_frames_are_compared_without_their_leading_slash(tmp_path):
    stamped = [(float(n), messages.pose_stamped(TYPES, n * SECOND, frame, at(n)))
               for n, frame in enumerate(('map', '/map', 'map'), 1)]
    assert read(write(tmp_path / 'bag', pose=stamped)).frame_id == 'map'


def fixes(degrees, *, altitude=500.0, status=0):
    return [(float(n), TYPES('sensor_msgs/msg/NavSatFix')(
        header=messages.header(TYPES, n * SECOND, 'gps'),
        status=TYPES('sensor_msgs/msg/NavSatStatus')(status=status, service=1), latitude=north,
        longitude=east, altitude=altitude, position_covariance=np.zeros(9),
        position_covariance_type=0)) for n, (north, east) in enumerate(degrees, 1)]


NORTHWARD = [(48.0 + n * 1e-5, 11.0) for n in range(20)]  # 1.11 m a second


def test_fixes_become_metres_from_the_first_with_headings_of_travel(tmp_path, caplog):
    caplog.set_level('INFO', 'vpr_ros')
    track = read(write(tmp_path / 'bag', fix=fixes(NORTHWARD)))
    assert track.datum == Datum(48.0, 11.0, 500.0)
    np.testing.assert_allclose(track.poses[:, :3], [[0, 1.112 * n, 0] for n in range(20)],
                               atol=0.01)
    np.testing.assert_allclose(poses.heading(track.poses), np.pi / 2, atol=1e-6)
    assert 'base_link in map, in metres from latitude 48.0000000' in caplog.text
    assert 'WARNING' not in caplog.text


def test_a_fix_that_jumps_turns_no_heading(tmp_path, caplog):
    jumping = fixes([*NORTHWARD[:10], (48.0 + 1e-4, 11.00005), *NORTHWARD[11:]])
    stamped = [(1 + n / 10, message) for n, (_, message) in enumerate(jumping)]
    for time, message in stamped:
        message.header = messages.header(TYPES, round(time * SECOND), 'gps')
    track = read(write(tmp_path / 'bag', fix=stamped))
    np.testing.assert_allclose(track.poses[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(poses.heading(track.poses), np.pi / 2, atol=1e-6)
    assert '1 poses jump off the track and back, by up to 3.7 m' in caplog.text


def test_fixes_may_have_the_datum_of_a_map_and_no_altitude(tmp_path):
    datum = Datum(48.0, 11.001, 480.0)
    path = write(tmp_path / 'bag', fix=fixes(NORTHWARD, altitude=np.nan))
    track = read(path, datum=datum)
    assert track.datum == datum
    np.testing.assert_allclose(track.poses[0, :3], geodesy.local(
        np.array(48.0), np.array(11.0), np.array(480.0), datum), atol=1e-6)


def test_messages_without_a_fix_are_left_out(tmp_path, caplog):
    lost = fixes(NORTHWARD[:3], status=-1)
    path = write(tmp_path / 'bag', fix=[*lost, *fixes(NORTHWARD)[3:], *fixes([(np.nan, 11.0)])])
    assert read(path).dropped == 4
    assert '4 poses left out' in caplog.text
    with pytest.raises(SourceError, match='not one of its 3 messages is a fix'):
        read(write(tmp_path / 'lost', fix=lost))
