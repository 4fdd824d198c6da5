"""Odometry of recorded drives that is missing, unusable or of another clock: said, not fatal."""

from __future__ import annotations

import numpy as np
import pytest
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import pose
from small_drive import POSES
from small_drive import render
from small_drive import stamp
from small_drive import write_map
from vpr_ros.core.errors import SourceError
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.calibrate import read_drive
from vpr_ros.offline.replay import replay

BOOT = 1_699_999_000 * 10**9
"""What a clock that starts at boot is behind (ns)."""


@pytest.fixture(scope='module')
def place_map(tmp_path_factory, encoder):
    return PlaceMap.load(write_map(tmp_path_factory.mktemp('site') / 'map', encoder.path), encoder)


def write_drive(path, change):
    """Write the small drive with /odom, whose messages `change` alters."""
    with BagWriter(path) as bag:
        for place in range(COUNT):
            time = stamp(place)
            bag.write(POSES, messages.pose_stamped(bag.types, time, 'map', pose(place)), time)
            message = messages.odometry(bag.types, time, 'odom', 'base_link', pose(place),
                                        np.zeros(2))
            change(message, bag.types, time)
            bag.write('/odom', message, time)
            bag.write(IMAGES, messages.image(bag.types, time, 'camera', render(place, 1)), time)
    return path


def good(message, types, time):
    pass


def zero_quaternion(message, types, time):
    message.pose.pose.orientation.w = 0.0


def not_finite(message, types, time):
    message.pose.pose.position.x = float('nan')


def two_frames(message, types, time):
    message.header.frame_id = f'odom{time % 3}'


def boot_clock(message, types, time):
    message.header.stamp = messages.time_message(types, time - BOOT)


@pytest.mark.parametrize(('change', 'said'), [
    (zero_quaternion, 'not one of the 40 poses on /odom is usable'),
    (not_finite, 'not one of the 40 poses on /odom is usable'),
    (two_frames, 'in more than one frame'),
    (boot_clock, 'the odometry covers none of the frames'),
])
def test_a_drive_with_useless_odometry_is_one_without(tmp_path, encoder, place_map, caplog,
                                                      change, said):
    bag = write_drive(tmp_path / 'bag', change)
    drive = replay(bag, Localizer(encoder, place_map))
    without = replay(bag, Localizer(encoder, place_map), odometry=False)
    np.testing.assert_array_equal(drive.poses, without.poses)
    assert drive.trusted.sum() == without.trusted.sum() > COUNT / 2
    known = read_drive(bag, encoder, truth_topic=POSES)
    assert not known.has_odometry
    warnings = [record.getMessage() for record in caplog.records if 'odometry' in record.msg]
    assert len(warnings) == 2  # one of replay, one of calibrate
    for warning in warnings:
        assert said in warning
        assert '--no-odometry' in warning
        assert str(bag) in warning


def test_good_odometry_is_used_without_a_warning(tmp_path, encoder, place_map, caplog):
    bag = write_drive(tmp_path / 'bag', good)
    replay(bag, Localizer(encoder, place_map))
    assert read_drive(bag, encoder, truth_topic=POSES).has_odometry
    assert not read_drive(bag, encoder, truth_topic=POSES, use_odometry=False).has_odometry
    assert not [record for record in caplog.records if record.levelname == 'WARNING']


def test_a_topic_that_was_named_must_exist(tmp_path, encoder, place_map):
    bag = write_drive(tmp_path / 'bag', good)
    with pytest.raises(SourceError, match=r"no odometry on '/wheels'; choose /odom"):
        replay(bag, Localizer(encoder, place_map), odometry_topic='/wheels')


def test_odometry_that_jumps_is_not_followed_and_that_is_said(tmp_path, encoder, place_map,
                                                              caplog):
    def jumps(message, types, time):
        message.pose.pose.position.x = 1000.0 * (time // 10**8 % 7)
    write_drive(tmp_path / 'bag', jumps)
    drive = replay(tmp_path / 'bag', Localizer(encoder, place_map))
    assert len(drive.estimates) == COUNT
    assert 'the odometry was not followed' in caplog.text
    assert 'it jumped further than the robot can drive' in caplog.text
