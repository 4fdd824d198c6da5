"""Which topics of a bag are taken when none is named, and what is said about it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from vpr_ros.core.errors import SourceError
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag_writer import BagWriter

START = 1_700_000_000_000_000_000
STEP = 100_000_000
TYPES = BagWriter.types
ZERO = np.array([0, 0, 0, 0, 0, 0, 1.0])


def image(encoding, time=START):
    message = messages.image(TYPES, time, 'camera', np.zeros((8, 8, 3), np.uint8))
    message.encoding = encoding
    return message


def compressed(form):
    message = messages.compressed_image(TYPES, START, 'camera', np.zeros((8, 8, 3), np.uint8))
    message.format = form
    return message


def stamped(time):
    return messages.pose_stamped(TYPES, time, 'map', ZERO)


def with_covariance(time):
    return messages.pose_with_covariance(TYPES, time, 'map', ZERO, np.eye(6))


def odometry(time):
    return messages.odometry(TYPES, time, 'odom', 'base_link', ZERO, np.zeros(2))


def fix(time):
    return TYPES('sensor_msgs/msg/NavSatFix')(
        header=messages.header(TYPES, time, 'gps'),
        status=TYPES('sensor_msgs/msg/NavSatStatus')(status=0, service=1), latitude=48.0,
        longitude=11.0, altitude=0.0, position_covariance=np.zeros(9), position_covariance_type=0)


def transforms(time):
    return TYPES('tf2_msgs/msg/TFMessage')(transforms=[
        messages.transform(TYPES, time, 'map', 'base_link', ZERO)])


def write(path, topics):
    """Write a bag of (topic, function of a stamp or a message, numbers of the steps)."""
    with BagWriter(path) as bag:
        for topic, message, steps in topics:
            for step in steps:
                time = START + step * STEP
                bag.write(topic, message(time) if callable(message) else message, time)
    return path


@pytest.mark.parametrize(('images', 'best'), [
    # RealSense, ZED and others, as their drivers name them
    ({'/camera/aligned_depth_to_color/image_raw': '16UC1', '/camera/color/image_raw': 'rgb8',
      '/camera/infra1/image_rect_raw': 'mono8'}, '/camera/color/image_raw'),
    ({'/zed/confidence/confidence_map': '32FC1', '/zed/depth/depth_registered': '32FC1',
      '/zed/disparity': '32FC1', '/zed/left/image_rect_color': 'bgra8'},
     '/zed/left/image_rect_color'),
    ({'/a/image': '16UC1', '/b/image': 'mono8'}, '/b/image'),
    ({'/a/image': 'mono16', '/b/image': 'bayer_rggb8'}, '/b/image'),
    ({'/a/depth/image': 'bgr8', '/b/image': 'bgr8'}, '/b/image'),
    ({'/a/image': 'smell8', '/b/image': 'yuv422'}, '/b/image'),
    ({'/camera/infra1/image': 'mono8', '/camera/depth/image': '16UC1'}, '/camera/infra1/image'),
    ({'/a/depth': '16UC1', '/z/compressed': 'jpeg'}, '/z/compressed'),
    ({'/a/compressed': 'jpeg', '/z/image': 'rgb8'}, '/z/image'),
    ({'/a/compressed': '16UC1; png compressed ', '/z/compressed': 'rgb8; jpeg compressed bgr8'},
     '/z/compressed'),
    ({'/a/compressed': 'h264', '/z/compressed': 'png'}, '/z/compressed'),
    ({'/front/image': 'rgb8', '/rear/image': 'rgb8'}, '/front/image'),
])
def test_a_camera_comes_before_depth(tmp_path, images, best):
    bag = write(tmp_path / 'bag', [
        (topic, compressed(kind) if 'compressed' in topic else image(kind), [0])
        for topic, kind in images.items()])
    with Bag(bag) as opened:
        assert opened.image_topic() == best


def test_the_choice_is_said_with_the_others(tmp_path, caplog):
    caplog.set_level(logging.INFO, 'vpr_ros')
    path = write(tmp_path / 'bag', [('/depth', image('16UC1'), [0]), ('/rgb', image('rgb8'), [0]),
                                    ('/odom', odometry, [0]), ('/pose', stamped, [0])])
    with Bag(path) as bag:
        bag.image_topic()
        bag.pose_topic()
        bag.odometry()
    assert [record.message.partition(': ')[2] for record in caplog.records] == [
        'images from /rgb, not from /depth', 'poses from /pose, not from /odom',
        'odometry from /odom']


def test_depth_alone_is_taken_with_a_warning(tmp_path, caplog):
    with Bag(write(tmp_path / 'bag', [('/depth', image('16UC1'), [0])])) as bag:
        assert bag.image_topic() == '/depth'
    assert '/depth looks like depth' in caplog.text


@pytest.mark.parametrize(('topics', 'best'), [
    ([('/odom', odometry, range(0, 100)), ('/amcl_pose', with_covariance, range(0, 100, 40))],
     '/amcl_pose'),
    ([('/a_pose', stamped, range(0, 100)), ('/z_pose', with_covariance, range(0, 100))],
     '/z_pose'),
    ([('/odom', odometry, range(0, 100)), ('/pose', stamped, range(20, 90, 5))], '/pose'),
    ([('/odom', odometry, range(0, 100)), ('/late_pose', stamped, range(80, 100))], '/odom'),
    ([('/odom', odometry, range(0, 100)), ('/initialpose', with_covariance, [1])], '/odom'),
    ([('/odom', odometry, range(0, 3000, 10)), ('/where_to', stamped, [3, 1500, 2900])], '/odom'),
    ([('/odom', odometry, range(0, 100)), ('/goal_pose', stamped, range(0, 100))], '/odom'),
    ([('/odom', odometry, range(0, 100)), ('/vpr_localizer/pose', with_covariance, range(0, 100))],
     '/odom'),
    ([('/tf', transforms, range(0, 100)), ('/odom', odometry, range(0, 100))], '/odom'),
    ([('/tf', transforms, range(0, 100)), ('/goal_pose', stamped, [3])], '/tf'),
    ([('/fix', fix, range(0, 100, 10)), ('/tf_static', transforms, [0])], '/fix'),
])
def test_the_best_poses_are_those_of_a_localiser_over_the_drive(tmp_path, topics, best):
    with Bag(write(tmp_path / 'bag', topics)) as bag:
        assert bag.pose_topic() == best


def test_transforms_beside_fixes_are_a_choice_of_the_user(tmp_path):
    path = write(tmp_path / 'bag', [('/tf', transforms, [0, 1]), ('/fix', fix, [0, 1])])
    with Bag(path) as bag:
        with pytest.raises(SourceError, match='choose the topic, /tf or /fix'):
            bag.pose_topic()
        assert bag.pose_topic('/fix') == '/fix'
