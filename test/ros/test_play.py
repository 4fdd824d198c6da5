"""Playing a bag over DDS: everything arrives as it was recorded, and it ends when it should."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from threading import Event
from threading import Thread
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rosbags.interfaces import Qos
from rosbags.interfaces import QosDurability
from rosbags.interfaces import QosHistory
from rosbags.interfaces import QosLiveliness
from rosbags.interfaces import QosReliability
from rosbags.interfaces import QosTime
from rosbags.rosbag2 import Writer
from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.play import play
from vpr_ros.ros.play import PlayOptions
from vpr_ros.ros.play import with_ticks

START = 1_700_000_000_000_000_000
STEP = 20_000_000
COUNT = 30
IMAGE, ODOM = '/camera/image_raw', '/odom'
LIMIT = 60.0

PLAYER = """
import json, sys
from vpr_ros.ros.play import play, PlayOptions
options = PlayOptions(**json.loads(sys.argv[2]))
def progress(done, total):
    if done == 1:
        print('started', flush=True)
played = play(sys.argv[1], options, on_progress=progress)
print(json.dumps(played._asdict()), flush=True)
"""


def stamp(place):
    return START + place * STEP


def random_image(place):
    return np.random.default_rng(place).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'drive.mcap'
    with BagWriter(path) as bag:
        for place in range(COUNT):
            pose = np.array([place, 0, 0, 0, 0, 0, 1], np.float64)
            bag.write(ODOM, messages.odometry(bag.types, stamp(place), 'odom', 'base_link', pose,
                                              np.array([1.0, 0.0])), stamp(place))
            bag.write(IMAGE, messages.image(bag.types, stamp(place), 'camera',
                                            random_image(place)),
                      stamp(place))
    return path


@pytest.fixture(scope='module', autouse=True)
def domain():
    """Keep these tests to a DDS domain of their own on this machine."""
    before = dict(os.environ)
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def listener(domain):
    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node('listener', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.spin_until = lambda done: spin_until(executor, done)
    yield node
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def spin_until(executor, done):
    """Serve callbacks until `done()`; fail after LIMIT."""
    end = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < end, 'waited in vain'
        executor.spin_once(timeout_sec=0.05)


def player(path, **options):
    return subprocess.Popen([sys.executable, '-c', PLAYER, str(path), json.dumps(options)],
                            stdout=subprocess.PIPE, text=True)


def test_a_subscriber_gets_every_message_as_it_was_recorded(drive, listener):
    received = {IMAGE: [], ODOM: [], '/clock': []}
    kinds = {IMAGE: messages.RAW_IMAGE, ODOM: 'nav_msgs/msg/Odometry',
             '/clock': 'rosgraph_msgs/msg/Clock'}
    for topic, kind in kinds.items():
        listener.create_subscription(rclpy_types(kind), topic, received[topic].append, 100)
    process = player(drive, wait_for_subscribers=dict.fromkeys((IMAGE, ODOM), 1),
                     wait_limit=LIMIT)
    listener.spin_until(lambda: len(received[IMAGE]) == len(received[ODOM]) == COUNT)
    output, _ = process.communicate(timeout=LIMIT)

    assert process.returncode == 0
    assert json.loads(output.splitlines()[-1]) == {
        'counts': {IMAGE: COUNT, ODOM: COUNT}, 'skipped': {}, 'complete': True}
    with Bag(drive) as bag:
        for message, (time_, recorded) in zip(received[IMAGE], bag.images(IMAGE), strict=True):
            assert messages.stamp_ns(message.header) == time_
            assert message.header.frame_id == recorded.header.frame_id
            np.testing.assert_array_equal(messages.rgb(message), messages.rgb(recorded))
        poses = bag.poses(ODOM).poses
    np.testing.assert_array_equal([messages.pose_of(message) for message in received[ODOM]], poses)
    ticks = [message.clock.sec * 10**9 + message.clock.nanosec for message in received['/clock']]
    assert ticks == sorted(ticks)
    assert ticks[-1] <= stamp(COUNT - 1)


def test_ctrl_c_ends_it_cleanly(drive):
    process = player(drive, loop=True)
    assert process.stdout.readline() == 'started\n'
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    played = json.loads(output.splitlines()[-1])
    assert played['complete'] is False
    assert played['counts'][ODOM] >= 1


def test_a_loop_goes_on_until_it_is_stopped(drive):
    stop, total = Event(), 2 * COUNT

    def progress(done, whole):
        assert whole == total
        if done == total + 3:
            stop.set()

    played = play(drive, PlayOptions(loop=True, rate=50), stop=stop, on_progress=progress)
    assert sum(played.counts.values()) == total + 3
    assert not played.complete


@pytest.mark.parametrize('rate', [2.0, 20.0])
def test_it_takes_no_less_time_than_the_recording(drive, rate):
    begin = time.monotonic()
    assert play(drive, PlayOptions(rate=rate, topics=[ODOM])).counts == {ODOM: COUNT}
    assert time.monotonic() - begin >= (COUNT - 1) * STEP / 1e9 / rate


def test_latched_topics_and_image_reliability_keep_their_quality_of_service(tmp_path, listener):
    never = QosTime(0, 0)
    latched = Qos(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
                  never, never, QosLiveliness.AUTOMATIC, never, False)
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = BagWriter.types
    path = tmp_path / 'drive'
    with Writer(path, version=9) as writer:
        info = messages.camera_info(types, START, 'camera', np.eye(3), 64, 48)
        first = writer.add_connection('/info', info.__msgtype__, typestore=store,
                                      offered_qos_profiles=[latched])
        writer.write(first, START, store.serialize_cdr(info, info.__msgtype__))
        image = messages.image(types, START, 'camera', random_image(0))
        second = writer.add_connection(IMAGE, image.__msgtype__, typestore=store)
        # An hour later: nothing but `stop` ends this playing.
        writer.write(second, START + 3600 * 10**9, store.serialize_cdr(image, image.__msgtype__))

    stop, started, got = Event(), Event(), []
    options = PlayOptions(clock=False, image_reliability='best_effort')
    thread = Thread(target=play, args=(path, options), kwargs={
        'stop': stop, 'on_progress': lambda done, total: started.set()})
    thread.start()
    try:
        assert started.wait(LIMIT)
        listener.create_subscription(
            rclpy_types(info.__msgtype__), '/info', got.append,
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL,
                       reliability=ReliabilityPolicy.RELIABLE))
        listener.spin_until(lambda: got and listener.get_publishers_info_by_topic(IMAGE))
        offered = listener.get_publishers_info_by_topic(IMAGE)[0].qos_profile
    finally:
        stop.set()
        thread.join(LIMIT)
    assert not thread.is_alive()
    assert messages.stamp_ns(got[0].header) == START
    assert offered.reliability == ReliabilityPolicy.BEST_EFFORT


def test_it_gives_up_when_nobody_subscribes(drive):
    with pytest.raises(VprError, match=r'0 of 1 subscribers after 0\.1 s'):
        play(drive, PlayOptions(wait_for_subscribers=1, wait_limit=0.1))


def test_what_cannot_be_played_is_refused(drive, tmp_path):
    with pytest.raises(SourceError, match=r"no topic '/x'.*/camera/image_raw"):
        play(drive, PlayOptions(topics=['/x']))
    with pytest.raises(SourceError, match='does not exist'):
        play(tmp_path / 'nothing')
    for rate in (0.0, -1.0, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='rate'):
            play(drive, PlayOptions(rate=rate))
    with pytest.raises(ValueError, match='/odom is not played'):
        play(drive, PlayOptions(topics=[IMAGE], wait_for_subscribers={ODOM: 1}))


def test_topics_of_unknown_types_are_left_out_with_the_reason(tmp_path):
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg('int32 number', 'acme_robot/msg/Thing'))
    thing = store.types['acme_robot/msg/Thing'](number=1)
    clock = messages.clock(BagWriter.types, START)
    number = messages.float32(BagWriter.types, 1.0)
    with Writer(tmp_path / 'bag', version=9) as writer:
        for topic, message in (('/thing', thing), ('/clock', clock), ('/number', number)):
            kind = message.__msgtype__
            writer.write(writer.add_connection(topic, kind, typestore=store), START,
                         store.serialize_cdr(message, kind))
    played = play(tmp_path / 'bag')
    assert played.counts == {'/number': 1}
    assert played.skipped == {'/thing': 'acme_robot/msg/Thing is not installed here',
                              '/clock': 'the player publishes its own'}
    with pytest.raises(SourceError, match=r'nothing to play.*acme_robot'):
        play(tmp_path / 'bag', PlayOptions(topics=['/thing']))


def test_the_clock_ticks_before_and_between_the_messages():
    records = [(100, '/a', b'1'), (105, '/a', b'2'), (131, '/a', b'3')]
    assert [(stamp, topic) for stamp, topic, _ in with_ticks(records, 10)] == [
        (100, None), (100, '/a'), (105, '/a'), (110, None), (120, None), (130, None), (131, '/a')]
