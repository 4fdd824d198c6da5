"""The frames that the node takes and refuses, and the requests of its operator, over DDS."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import itertools
import shutil
import time

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
import pytest

rclpy = pytest.importorskip('rclpy')

from node_operator import frame
from node_operator import LIMIT
from node_operator import node_process_on
from node_operator import Operator
from rclpy.qos import ReliabilityPolicy
from small_drive import CAMERA_INFO
from small_drive import camera_info
from small_drive import COUNT
from small_drive import FOCAL
from small_drive import IMAGES
from small_drive import pose
from small_drive import render
from small_drive import stamp
from small_drive import STEP
from small_drive import write_bag
from small_drive import write_map
from std_srvs.srv import Trigger
from thumbnail_model import DIMENSION
from thumbnail_model import write_thumbnail_model
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.replay import replay
from vpr_ros.ros import node_process
from vpr_ros.ros.interfaces import rclpy_types

# Frames

def test_images_of_a_best_effort_camera_are_received(fresh):
    camera = fresh.new_camera(reliability=ReliabilityPolicy.BEST_EFFORT)
    fresh.connect(camera.publish)


def test_rows_may_have_padding(fresh):
    message = frame(9)
    height, width = message.height, message.width
    rows = np.frombuffer(message.data, np.uint8).reshape(height, 3 * width)
    padded = np.pad(rows, ((0, 0), (0, 17)), constant_values=255)
    message.step = padded.shape[1]
    message.data = padded.tobytes()
    plain = fresh.localise(frame(9))
    assert fresh.call(Trigger, 'relocalize').success
    for name, column in fresh.localise(message).items():
        np.testing.assert_array_equal(column, plain[name])


def bad_frames(place):
    """Return bad frames by the reason that is expected, all after the one at `place`."""
    def bad(**fields):
        message = frame(place, time=stamp(place) + STEP // 2)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return {
        "encoding 'smell8' is not supported": bad(encoding='smell8'),
        'image is 0x0': bad(height=0, width=0, step=0, data=b''),
        'image is 1x1': bad(height=1, width=1, step=3, data=b'abc'),
        'needs 60 rows': bad(data=b'short'),
        'got rows of 10 and': bad(step=10),
        'more than 50 megapixels': bad(height=10_000, width=10_000, step=30_000, data=b'abc'),
        "encoding '' is not supported": bad(encoding=''),
        'came after one': bad(header=messages.header(rclpy_types, stamp(place) - 1, 'camera')),
    }


def test_bad_frames_are_counted_and_the_next_one_is_localised(fresh):
    place = 20
    fresh.localise(frame(place))
    failed = int(fresh.status()['failed'])
    for number, (why, message) in enumerate(bad_frames(place).items(), 1):
        fresh.camera.publish(message)
        count = str(failed + number)
        status = fresh.status(lambda values, count=count: values['failed'] == count)
        assert why in status['last failure']
    assert fresh.localise(frame(place + 1))['place'][0] == place + 1
    assert fresh.process.poll() is None


def test_a_clock_that_jumps_back_starts_a_new_drive(fresh):
    fresh.localise(frame(30))
    assert fresh.localise(frame(3))['place'][0] == 3


def test_compressed_images_of_a_played_bag_are_localised(site, alone, tmp_path):
    bag = write_bag(tmp_path / 'jpeg.mcap', noise=1, compressed=True)
    encoder = Encoder(site / 'm.onnx', 'cpu', 1)
    # Then no frame depends on the one before, and a lost frame changes no other.
    expected = replay(bag, Localizer(encoder, PlaceMap.load(site / 'map', encoder),
                                     compensate=False, use_filter=False))
    with node_process_on(site, tmp_path / 'node.log', image_transport='compressed',
                         image_reliable='true', compensate='false', filter='false') as process, \
            Operator(process, compressed=True) as operator:
        operator.until(lambda: operator.maps)
        with node_process.process('vpr_ros.cli', 'play', str(bag), '--rate', '5', '--wait', '1',
                                  '--topics', IMAGES, log=tmp_path / 'play.log'):
            operator.until(lambda: operator.candidates and messages.stamp_ns(
                operator.candidates[-1].header) == stamp(COUNT - 1))
        stamps, poses, published = operator.drive()
        places = (stamps - stamp(0)) // STEP
        assert published.any()
        np.testing.assert_array_equal(published, expected.trusted[places])
        np.testing.assert_allclose(poses[published], expected.poses[places[published]], atol=1e-4)

        operator.camera.publish(rclpy_types(messages.COMPRESSED_IMAGE)(
            header=messages.header(rclpy_types, stamp(COUNT), 'camera'), format='jpeg',
            data=b'not an image'))
        status = operator.status(lambda values: values['failed'] == '1')
        assert 'damaged' in status['last failure']


def write_slow_model(path):
    """Write the thumbnail model with heavy matrix products that do not change its result."""
    model = onnx.load(write_thumbnail_model(path))
    graph, side = model.graph, 700
    random = np.random.default_rng(0).normal(0, 0.03, (side, side)).astype(np.float32)
    graph.initializer.extend([
        numpy_helper.from_array(random, 'weight'),
        numpy_helper.from_array(np.ones((DIMENSION, side), np.float32), 'widen'),
        numpy_helper.from_array(np.zeros((side, DIMENSION), np.float32), 'nothing'),
        numpy_helper.from_array(np.ones((side, 1), np.float32), 'tall')])
    last = graph.node.pop()
    nodes = [helper.make_node('ReduceMean', ['shifted'], ['one0'], axes=[0], keepdims=1),
             helper.make_node('MatMul', ['one0', 'widen'], ['row0']),
             helper.make_node('Mul', ['row0', 'tall'], ['square0'])]
    nodes += [helper.make_node('MatMul', [f'square{n}', 'weight'], [f'square{n + 1}'])
              for n in range(10)]
    nodes += [helper.make_node('MatMul', ['square10', 'nothing'], ['none']),
              helper.make_node('ReduceMax', ['none'], ['zero'], axes=[0], keepdims=1),
              helper.make_node('Add', ['shifted', 'zero'], ['same'])]
    last.input[0] = 'same'
    graph.node.extend([*nodes, last])
    onnx.save(model, str(path))
    return path


def test_a_slow_encoder_drops_frames_and_never_queues_them(alone, tmp_path):
    model = write_slow_model(tmp_path / 'slow.onnx')
    parameters = {'map': write_map(tmp_path / 'map', model, range(3)), 'model': model,
                  'provider': 'cpu', 'threads': 1, 'image_reliable': 'true'}
    burst = 60
    with node_process.process('vpr_ros.ros.run', *node_process.node_arguments(parameters, IMAGES),
                      log=tmp_path / 'node.log') as process, Operator(process) as operator:
        operator.connect()
        before, known = operator.status(), len(operator.candidates)
        for place in range(burst):
            operator.camera.publish(frame(place))
        operator.until(lambda: messages.stamp_ns(
            operator.candidates[-1].header) == stamp(burst - 1))
        status = operator.status()
        stamps = [messages.stamp_ns(message.header) for message in operator.candidates[known:]]
    received, processed, dropped, failed = (
        int(status[name]) - int(before[name])
        for name in ('received', 'processed', 'dropped', 'failed'))
    assert received == processed + dropped + failed <= burst
    assert failed == 0
    assert processed == len(stamps) < burst / 2
    assert stamps == sorted(stamps)
    # Each frame waits for the one that is being encoded, and for no other.
    assert float(status['total p99 (ms)']) <= 2 * float(status['encode p99 (ms)']) + 10


def test_odometry_is_used_as_in_the_replay(site, alone, tmp_path):
    def odometry(types, place):
        shifted = pose(place) + np.array([500, 3, 0, 0, 0, 0, 0])
        return messages.odometry(types, stamp(place), 'odom', 'base_link', shifted,
                                 np.array([5.0, 0.0]))

    with BagWriter(tmp_path / 'drive') as bag:
        for place in range(COUNT):
            bag.write('/odom', odometry(bag.types, place), stamp(place))
            bag.write(IMAGES, messages.image(bag.types, stamp(place), 'camera',
                                             render(place, 1)), stamp(place))
    encoder = Encoder(site / 'm.onnx', 'cpu', 1)
    expected, without = (
        replay(tmp_path / 'drive', Localizer(encoder, PlaceMap.load(site / 'map', encoder)),
               odometry=odometry) for odometry in (True, False))
    assert np.abs(expected.poses - without.poses).max() > 1e-3

    with node_process_on(site, tmp_path / 'node.log', min_confidence='0.0') as process, \
            Operator(process) as operator:
        wheels = operator.new_camera('nav_msgs/msg/Odometry', '/odom')

        def send(message):
            wheels.publish(odometry(rclpy_types, -100))
            operator.camera.publish(message)
        operator.connect(send)
        assert operator.call(Trigger, 'relocalize').success
        known = len(operator.poses)
        for place in range(COUNT):
            wheels.publish(odometry(rclpy_types, place))
            operator.localise(frame(place))
        operator.pose_at(stamp(COUNT - 1))
        published = operator.poses[known:]
    np.testing.assert_allclose([messages.pose_of(message) for message in published],
                               expected.poses, atol=1e-4)


def test_diagnostics_say_why_odometry_is_not_credible(fresh):
    wheels = fresh.new_camera('nav_msgs/msg/Odometry', '/odom')
    fresh.until(wheels.get_subscription_count)
    for place in range(6):
        # There and back, further than any robot drives between two frames.
        wheels.publish(messages.odometry(rclpy_types, stamp(place), 'odom', 'base_link',
                                         pose(500 * (place % 2)), np.zeros(2)))
        fresh.localise(frame(place))
    fresh.status(lambda values: values['odometry'].startswith(
        'not used: not credible: it jumped further'))
    assert fresh.localise(frame(6))['place'][0] == 6
    assert fresh.process.poll() is None


# The operator's requests

def test_relocalize_forgets_the_drive(fresh):
    first = fresh.localise(frame(10))
    assert fresh.call(Trigger, 'relocalize').success
    again = fresh.localise(frame(10))  # the same stamp: refused within one drive
    np.testing.assert_array_equal(again['similarity'], first['similarity'])


def test_min_confidence_takes_effect_at_once(fresh):
    try:
        for place in range(10):
            fresh.localise(frame(place))
        fresh.pose_at(stamp(9))
        assert fresh.set_parameters(min_confidence=1.0) == ''
        fresh.localise(frame(10))
        assert fresh.set_parameters(min_confidence=0.0) == ''
        fresh.localise(frame(11))
        fresh.pose_at(stamp(11))
        assert messages.stamp_ns(fresh.poses[-2].header) == stamp(9)
    finally:
        fresh.set_parameters(min_confidence=0.5)


def test_initialpose_is_accepted_only_in_the_frame_of_the_map(site, fresh):
    camera = fresh.new_camera('geometry_msgs/msg/PoseWithCovarianceStamped', '/initialpose')
    fresh.until(lambda: camera.get_subscription_count() > 0)
    for frame_id, x, variance, line in (
            ('odom', 1.0, 1.0, "initialpose ignored: its frame is 'odom'"),
            ('map', np.nan, 1.0, 'initialpose ignored: pose'),
            ('map', 12.0, np.nan, 'initialpose ignored: a deviation'),
            ('map', 12.0, -1.0, 'initialpose ignored: a deviation is the root'),
            ('map', 12.0, 1.0, 'initialpose accepted: x 12.0')):
        where = pose(0)
        where[0] = x
        camera.publish(messages.pose_with_covariance(rclpy_types, stamp(0), frame_id, where,
                                                     variance * np.eye(6)))
        fresh.until(lambda line=line: line in (site / 'robot.log').read_text())
    candidates = fresh.localise(frame(12))
    assert candidates['probability'][candidates['place'] == 12] > 0.5


def test_top_k_takes_effect_at_once(fresh):
    try:
        assert fresh.set_parameters(top_k=3) == ''
        assert len(fresh.localise(frame(0))['place']) == 3
    finally:
        fresh.set_parameters(top_k=10)


@pytest.mark.parametrize(('values', 'why'), [
    ({'provider': 'cuda'}, 'clean up first'), ({'provider': 'abacus'}, 'is not known'),
    ({'top_k': 0}, 'range'), ({'min_confidence': -0.5}, 'range'), ({'threads': 2}, 'clean up'),
])
def test_parameters_that_cannot_be_taken_are_refused(fresh, values, why):
    assert why in fresh.set_parameters(**values)


def test_another_lens_than_the_maps_is_an_error_until_it_is_exchanged(fresh):
    told = fresh.node.create_publisher(rclpy_types(messages.CAMERA_INFO), CAMERA_INFO, 1)
    stamps = itertools.count(stamp(5), STEP)

    def seen_with(focal):
        told.publish(camera_info(rclpy_types, focal))
        fresh.camera.publish(frame(7, time=next(stamps)))
        return fresh.diagnostics[-1]

    fresh.until(lambda: seen_with(FOCAL / 0.6)['level'] == '2')
    status = fresh.diagnostics[-1]
    assert "another lens or crop than the map's" in status['message']
    assert status['last failure'] == status['camera'] == status['message']
    fresh.until(lambda: seen_with(FOCAL)['camera'] == 'like that of the map')
    fresh.until(lambda: seen_with(FOCAL)['level'] != '2')
    fresh.localise(frame(8, time=next(stamps)))  # all frames before it have been answered now
    fresh.node.destroy_publisher(told)


def test_a_new_map_replaces_the_old_one_only_if_it_can_be_used(site, fresh):
    def reload(path):
        assert fresh.set_parameters(map=str(path)) == ''
        answer = fresh.call(Trigger, 'reload_map')
        return answer.success, answer.message

    broken = site / 'broken'
    shutil.copytree(site / 'map', broken)
    (broken / 'index.faiss').write_bytes(b'not an index')
    maps = len(fresh.maps)
    try:
        for path, why in ((site / 'nothing', 'no such map directory'), ('', "'map' is empty"),
                          (site / 'other-map', 'vpr build-map'), (broken, 'index.faiss')):
            success, message = reload(path)
            assert not success
            assert message.startswith('the old map stays in use: ')
            assert why in message
        assert fresh.localise(frame(30))['place'][0] == 30
        assert len(fresh.maps) == maps

        assert reload(site / 'half') == (True, '20 places')
        fresh.until(lambda: len(fresh.maps) > maps)
        assert fresh.maps[-1].width == 20
        assert fresh.localise(frame(12))['place'][0] == 12
    finally:
        assert reload(site / 'map') == (True, f'{COUNT} places')


def test_frames_go_on_being_localised_while_a_map_is_loaded(site, fresh):
    client = fresh.node.create_client(Trigger, f'{node_process.NODE}/reload_map')
    fresh.until(client.service_is_ready)
    first = fresh.localise(frame(5))['similarity'][0]
    answer = client.call_async(Trigger.Request())
    place, end = 5, time.monotonic() + LIMIT
    while not answer.done() or place < 8:
        place += 1
        assert time.monotonic() < end, 'waited in vain'
        latest = fresh.localise(frame(min(place, COUNT - 1), time=stamp(place)))
        assert latest['similarity'][0] == pytest.approx(first, abs=0.2)
    assert answer.result().success
