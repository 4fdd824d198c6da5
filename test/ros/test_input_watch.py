"""Why a node is blind or without odometry, in one line that names the remedy."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from small_drive import pose
from small_drive import stamp
from vpr_ros.io import messages
from vpr_ros.ros import health
from vpr_ros.ros.input_watch import InputWatch
from vpr_ros.ros.input_watch import TRANSPORTS
from vpr_ros.ros.inputs import OdometryBuffer
from vpr_ros.ros.interfaces import rclpy_types

RAW, JPEG, ODOMETRY = messages.RAW_IMAGE, messages.COMPRESSED_IMAGE, 'nav_msgs/msg/Odometry'
CAMERA = '/camera/image_raw'


@pytest.fixture
def watch(world, monkeypatch):
    """Make the watch of a node that listens on one transport, with every wait over at once."""
    monkeypatch.setattr(health, 'STALE_AFTER', -1.0)

    def make(transport, reliable=False):
        topic, kind = TRANSPORTS[transport]
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE if reliable
                         else ReliabilityPolicy.BEST_EFFORT)
        images = world.node.create_subscription(rclpy_types(kind), topic, print, qos)
        odometry = world.node.create_subscription(rclpy_types(ODOMETRY), 'odom', print, qos)
        return InputWatch(world.node, health.Health(), transport, images, odometry)
    return make


def publish(world, kind, topic, reliability=ReliabilityPolicy.RELIABLE):
    made = world.peer.create_publisher(rclpy_types(kind), topic,
                                       QoSProfile(depth=1, reliability=reliability))
    world.until(lambda: any(p.topic_type == kind
                            for p in world.node.get_publishers_info_by_topic(topic)))
    return made


@pytest.mark.parametrize(('transport', 'kind', 'topic', 'line'), [
    ('raw', None, '', 'nothing publishes /camera/image_raw: start the camera, or check topic, '
     'namespace and ROS_DOMAIN_ID'),
    ('raw', JPEG, f'{CAMERA}/compressed', 'nothing publishes /camera/image_raw; '
     '/camera/image_raw/compressed has 1 publisher: set image_transport:=compressed, remap '
     'image/compressed:=/camera/image_raw/compressed'),
    ('compressed', RAW, CAMERA, 'nothing publishes /image/compressed; /camera/image_raw '
     'has 1 publisher: set image_transport:=raw'),
    ('raw', RAW, '/front/color', 'nothing publishes /camera/image_raw; there are images on '
     '/front/color: remap image:=/front/color, or in the launch file image_topic'),
    ('raw', JPEG, CAMERA, '/camera/image_raw carries sensor_msgs/msg/CompressedImage, not '
     'sensor_msgs/msg/Image: set image_transport:=compressed, remap '
     'image/compressed:=/camera/image_raw'),
    ('compressed', RAW, '/image/compressed', '/image/compressed carries sensor_msgs/msg/Image, '
     'not sensor_msgs/msg/CompressedImage: set image_transport:=raw, remap '
     'image:=/image/compressed'),
    ('raw', ODOMETRY, CAMERA, '/camera/image_raw carries nav_msgs/msg/Odometry, not '
     'sensor_msgs/msg/Image: choose the topic of a camera'),
    ('raw', RAW, CAMERA, '/camera/image_raw has 1 publisher of the right type, but nothing '
     'arrives: check that the camera sends (ros2 topic hz /camera/image_raw), and docs/dds.md'),
])
def test_why_there_are_no_images(world, watch, transport, kind, topic, line):
    if kind:
        publish(world, kind, topic)
    watched = watch(transport)
    assert watched.check() == (health.STALE, f'no images: {line}')
    values = watched.values()
    assert values['image topic'] == (CAMERA if transport == 'raw' else '/image/compressed')
    assert values['image type'] == TRANSPORTS[transport][1]
    assert values['image transport'] == transport
    assert values['image publishers'] == str(int(topic == values['image topic']))


def test_a_reliable_subscriber_gets_nothing_from_a_best_effort_camera(world, watch):
    publish(world, RAW, CAMERA, ReliabilityPolicy.BEST_EFFORT)
    assert watch('raw', reliable=True).check()[1].endswith(
        'a reliable subscriber gets nothing: set image_reliable:=false')
    assert 'nothing arrives' in watch('raw').check()[1]


def test_a_reason_is_logged_once_and_again_when_it_is_another(world, watch, capfd):
    watched = watch('raw')
    for _ in range(3):
        watched.check()
    watched._health.counts['received'] += 1
    for _ in range(3):
        assert 'the publisher of /camera/image_raw is gone: start' in watched.check()[1]
    for number in range(3):
        watched._health.failed(f'too small: {number}')
        assert watched.check()[1] == f'no image can be used: too small: {number}'
    lines = [line for line in capfd.readouterr().err.splitlines() if 'no image' in line]
    assert [line.split(']: ')[1].split(':')[0] for line in lines] == [
        'no images', 'no images', 'no image can be used']


def test_a_camera_clock_that_is_ahead_is_told_once(world, watch, capfd):
    watched = watch('raw')
    for watched._health.image_age in (None, 0.2, 86400.0, -0.5, -3600.0, -3601.0):
        watched.check()
    lines = [line for line in capfd.readouterr().err.splitlines() if 'images are stamped' in line]
    assert len(lines) == 1
    assert 'stamped 3600.0 s ahead of the time of this node' in lines[0]
    assert watched._health.values()['image age (s)'] == '-3601.00'


def odometry(seconds, where=None):
    return messages.odometry(rclpy_types, stamp(0) + round(seconds * 1e9), 'odom', 'base_link',
                             pose(0) if where is None else where, np.zeros(2))


@pytest.mark.parametrize(('begin', 'end', 'x', 'why'), [
    (-2.0, 0.1, 0.0, ''),
    (-2.0, -0.2, 0.0, ''),  # the latest
    (1e6, 1e6 + 2, 0.0, 'other clock: its stamps are 1000000.0 s ahead of those of the images'),
    (-1e6, -1e6 + 2, 0.0, 'other clock: its stamps are 999998.0 s behind those of the images'),
    (-4.0, -2.0, 0.0, 'late, or of another clock: its stamps are 2.0 s behind the images'),
    (3.0, 5.0, 0.0, 'out of the buffer: the image is 3.0 s older than the 2.0 s of odometry that '
     'are kept'),
    (-1.0, 1.0, np.nan, 'none near the image: a gap, or poses that are not finite'),
])
def test_why_odometry_is_not_used(monkeypatch, begin, end, x, why):
    monkeypatch.setattr('vpr_ros.ros.inputs.ODOMETRY_WAIT', 0.0)
    buffer = OdometryBuffer()
    assert buffer.why_not(stamp(0)) == health.NO_ODOMETRY
    assert buffer.age(stamp(0)) is None
    for seconds in np.linspace(begin, end, 21):
        buffer.put(odometry(seconds, pose(x)))
    found = buffer.at(stamp(0))
    used = found is not None
    assert used == (why == '')
    assert not used or found.age == pytest.approx(max(-end * 1e9, 0), abs=1e3)
    assert used or buffer.why_not(stamp(0)) == why
    assert buffer.age(stamp(0)) == pytest.approx(-end * 1e9, abs=1e3)


def test_odometry_that_stopped_is_told_from_another_clock(monkeypatch):
    monkeypatch.setattr('vpr_ros.ros.inputs._ARRIVING', -1.0)
    buffer = OdometryBuffer()
    buffer.put(odometry(-30.0))
    assert buffer.why_not(stamp(0)) == 'stopped: the last is 30.0 s older than the image'


@pytest.mark.parametrize(('kind', 'topic', 'why'), [
    (None, '', 'nothing publishes /odom'), (RAW, '/odom', f'/odom carries {RAW}, not {ODOMETRY}'),
    (ODOMETRY, '/odom', '/odom has 1 publisher, which sends nothing'),
    (ODOMETRY, '/wheels', 'nothing publishes /odom; there is odometry on /wheels: remap '
     'odom:=/wheels, or in the launch file odom_topic')])
def test_diagnostics_say_whether_odometry_is_used(world, watch, capfd, kind, topic, why):
    if kind:
        publish(world, kind, topic)
    watched = watch('raw')
    state = watched._health
    assert watched.values()['odometry'] == 'no frame yet'
    for _ in range(5):
        state.odometry(health.NO_ODOMETRY, None)
        watched.check()
    assert watched.values()['odometry'] == f'not used: none received: {why}'
    lines = [line for line in capfd.readouterr().err.splitlines() if 'odometry is not' in line]
    assert len(lines) == 1
    assert why in lines[0]
    state.odometry('', 12_000_000)
    assert watched.values()['odometry'] == 'used'
    values = state.values()
    assert (values['with odometry'], values['without odometry']) == ('1', '5')
    assert values['odometry age (ms)'] == '12'
