"""The node as a process of its own, over DDS: what it publishes, refuses, and lives through."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
import re
import shutil
import signal
import time

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
import pytest

rclpy = pytest.importorskip('rclpy')

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import picture
from small_drive import pose
from small_drive import stamp
from small_drive import STEP
from small_drive import write_bag
from small_drive import write_map
from std_srvs.srv import Trigger
from thumbnail_model import DIMENSION
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import images
from vpr_ros.core.poses import FLAT
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag import BagWriter
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.replay import replay
from vpr_ros.ros import node_process
from vpr_ros.ros.bond import unbond
from vpr_ros.ros.interfaces import rclpy_types

LIMIT = 30.0
"""Seconds after which something that has not happened will not."""

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWN = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN


class Operator(node_process.Recorder):
    """Records what the node says, is its camera, and calls its services."""

    def __init__(self, process, *, compressed=False):
        super().__init__()
        self.process = process
        self._early = 0
        self._clients = {}
        self.camera = self.new_camera(
            messages.COMPRESSED_IMAGE if compressed else messages.RAW_IMAGE)

    def new_camera(self, kind=messages.RAW_IMAGE, topic=IMAGES,
                   reliability=ReliabilityPolicy.RELIABLE):
        return self.node.create_publisher(
            rclpy_types(kind), topic, QoSProfile(depth=100, reliability=reliability))

    def subscribe(self, kind, topic, take):
        return self.node.create_subscription(rclpy_types(kind), topic, take, 10)

    def unsubscribe(self, subscription):
        self.node.destroy_subscription(subscription)

    def until(self, happened):
        """Wait for something that must happen."""
        assert self.wait(happened, LIMIT, self.process), 'waited in vain'

    def heard(self, send=None):
        """
        Send frames of long ago until they are answered, and wait for the last of them.

        Until all have found each other, what is sent best-effort may be lost.
        """
        send, known = send or self.camera.publish, len(self.candidates)

        def sent():
            self._early += 1
            time = stamp(-100_000 + self._early)
            send(frame(0, time=time))
            return time
        self.until(lambda: sent() and len(self.candidates) > known + 2)
        last = sent()
        self.until(lambda: messages.stamp_ns(self.candidates[-1].header) == last)

    def localise(self, message):
        """Send a frame that must come out; return its candidates' columns."""
        sent = messages.stamp_ns(message.header)
        before = len(self.candidates), len(self.confidences)
        self.camera.publish(message)
        self.until(lambda: len(self.candidates) > before[0] and len(self.confidences) > before[1])
        came = self.candidates[-1]
        assert messages.stamp_ns(came.header) == sent
        return messages.read_cloud(came)

    def pose_at(self, time):
        """Wait for the pose with a stamp and return its message."""
        self.until(lambda: self.poses and messages.stamp_ns(self.poses[-1].header) == time)
        return self.poses[-1]

    def call(self, kind, name, **fields):
        """Call a service of the node and return what it answers."""
        # Kept: the answer to a client that the node has only just met can get lost.
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f'{node_process.NODE}/{name}')
        self.until(self._clients[name].service_is_ready)
        future = self._clients[name].call_async(kind.Request(**fields))
        self.until(future.done)
        return future.result()

    def change(self, transition):
        """Ask for a transition; return whether it was made."""
        return self.call(ChangeState, 'change_state',
                         transition=Transition(id=transition)).success

    def state(self):
        return self.call(GetState, 'get_state').current_state.label

    def set(self, **values):
        """Set parameters; return why they were refused, '' if they were not."""
        answer = self.call(SetParameters, 'set_parameters', parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        return ''.join(result.reason for result in answer.results)

    def diagnosis(self, holds=None):
        """Return the first diagnostics that hold, or else some that were made after now."""
        if holds is None:  # the next one may have been on its way already
            count = len(self.diagnostics) + 1
            self.until(lambda: len(self.diagnostics) > count)
        else:
            self.until(lambda: self.diagnostics and holds(self.diagnostics[-1]))
        return self.diagnostics[-1]


def frame(place, *, time=None, noise=1):
    return messages.image(rclpy_types, stamp(place) if time is None else time, 'camera',
                          picture(place, noise))


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Return a folder with m.onnx, other.onnx, maps of both, and a bag."""
    folder = tmp_path_factory.mktemp('site')
    model = write_thumbnail_model(folder / 'm.onnx')
    write_map(folder / 'map', model)
    write_map(folder / 'half', model, range(20))
    write_map(folder / 'other-map', write_thumbnail_model(folder / 'other.onnx', gain=2.0))
    write_bag(folder / 'query', noise=1)
    return folder


def given(site, **parameters):
    return {'map': site / 'map', 'model': site / 'm.onnx', 'provider': 'cpu', 'threads': 1,
            **parameters}


@pytest.fixture(scope='module')
def robot(site):
    """Return an operator of a running node, which the tests that take it share."""
    with node_process.process('vpr_ros.ros.run', *node_process.node_arguments(given(site), IMAGES),
                      log=site / 'robot.log') as process, Operator(process) as operator:
        operator.heard()
        yield operator


@pytest.fixture
def fresh(robot):
    """Return the operator of the shared node, which has forgotten what it saw before."""
    assert robot.call(Trigger, 'relocalize').success
    return robot


@pytest.fixture
def alone(monkeypatch):
    """Set a ROS domain in which the shared node is not."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(100 + int(os.environ['ROS_DOMAIN_ID'])))


@pytest.fixture
def unconfigured(site, alone, tmp_path):
    """Return an operator of a node of its own, which has not been configured."""
    arguments = node_process.node_arguments({**given(site), 'map': "''"}, IMAGES)
    arguments[arguments.index('autostart:=true')] = 'autostart:=false'
    log = tmp_path / 'node.log'
    with node_process.process('vpr_ros.ros.run', *arguments, log=log) as process, \
            Operator(process) as operator:
        operator.log = tmp_path / 'node.log'
        yield operator


# What it publishes

def test_the_map_is_there_for_those_who_come_late(robot):
    robot.until(lambda: robot.maps)
    with node_process.Recorder() as late:
        assert late.wait(lambda: bool(late.maps), LIMIT)
        for one in (late.maps[-1], robot.maps[0]):
            cloud = messages.read_cloud(one)
            assert one.header.frame_id == 'map'
            assert cloud['x'].tolist() == list(range(COUNT))
            assert set(cloud) == {'x', 'y', 'z', 'session'}


def test_poses_are_those_of_the_replay(site, fresh):
    encoder = Encoder(site / 'm.onnx', 'cpu', 1)
    place_map = PlaceMap.load(site / 'map', encoder)
    expected = replay(site / 'query', Localizer(encoder, place_map))
    localizer = Localizer(encoder, place_map)
    with Bag(site / 'query') as bag:
        modes = [(localizer.localize(messages.rgb(message), at), localizer.modes())[1]
                 for at, message in bag.images(IMAGES)]
    before = len(fresh.poses), len(fresh.confidences), len(fresh.candidates)
    for place in range(COUNT):
        fresh.localise(frame(place))
    trusted = [estimate for estimate in expected.estimates if estimate.trusted]
    assert len(trusted) > COUNT / 2
    fresh.until(lambda: len(fresh.poses) >= before[0] + len(trusted))
    came = fresh.poses[before[0]:]

    assert [messages.stamp_ns(message.header) for message in came] == [
        estimate.stamp for estimate in trusted]
    assert {message.header.frame_id for message in came} == {'map'}
    np.testing.assert_allclose([messages.pose_of(message) for message in came],
                               [estimate.pose for estimate in trusted], atol=1e-4)
    np.testing.assert_allclose(fresh.confidences[before[1]:],
                               [estimate.confidence for estimate in expected.estimates], atol=1e-4)
    for message, estimate in zip(came, trusted, strict=True):
        np.testing.assert_allclose(message.pose.covariance, estimate.covariance.reshape(-1),
                                   atol=1e-4)
    for message, estimate, mode in zip(fresh.candidates[before[2]:], expected.estimates, modes,
                                       strict=True):
        cloud = messages.read_cloud(message)
        assert message.header.frame_id == 'map'
        assert messages.stamp_ns(message.header) == estimate.stamp
        # Between places that hold next to nothing, another machine may choose the other.
        sure = mode.probability > 1e-3
        assert cloud['place'][sure].tolist() == mode.places[sure].tolist()
        np.testing.assert_allclose(cloud['similarity'][sure], mode.similarity[sure],
                                   atol=1e-4)
        np.testing.assert_allclose(cloud['probability'], mode.probability, atol=1e-4)
        np.testing.assert_allclose(cloud['x'][sure], mode.poses[sure, 0], atol=1e-4)


def test_diagnostics_say_how_it_does(fresh):
    for place in range(10):
        fresh.localise(frame(place))
    told = fresh.diagnosis()
    assert (told['level'], told['state'], told['provider']) == ('0', 'active', 'cpu')
    assert told['message'].startswith('localised, confidence')
    assert told['places'] == str(COUNT)
    assert float(told['rate (Hz)']) >= 0
    for name in ('received', 'processed', 'dropped', 'failed', 'poses'):
        assert int(told[name]) >= 0
    for stage in ('wait', 'convert', 'encode', 'search', 'publish', 'total'):
        assert 0 <= float(told[f'{stage} p50 (ms)']) <= float(told[f'{stage} p99 (ms)'])


def test_a_picture_for_debugging_comes_only_while_somebody_looks(fresh):
    got = []
    subscription = fresh.subscribe(messages.COMPRESSED_IMAGE,
                                   f'{node_process.NODE}/debug_image/compressed', got.append)
    place = 0

    def looked():  # the node does not know of its subscriber at once
        nonlocal place
        place += 1
        fresh.localise(frame(place % COUNT, time=stamp(place)))
        return bool(got)
    fresh.until(looked)
    canvas = images.decode(bytes(got[0].data))
    assert canvas.shape == (240, 640, 3)  # the picture and its match, both 4:3
    assert stamp(0) < messages.stamp_ns(got[0].header) <= stamp(place)
    assert got[0].header.frame_id == 'map'

    fresh.unsubscribe(subscription)
    fresh.localise(frame(0, time=stamp(place + 1)))
    told = len(got)
    fresh.localise(frame(0, time=stamp(place + 2)))
    assert len(got) == told


def test_a_best_effort_camera_is_heard_too(fresh):
    camera = fresh.new_camera(reliability=ReliabilityPolicy.BEST_EFFORT)
    fresh.heard(camera.publish)


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


# What it lives through

def damaged(place):
    """Return bad frames by what is wrong with them, all after the one at `place`."""
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
    failed = int(fresh.diagnosis()['failed'])
    for number, (why, message) in enumerate(damaged(place).items(), 1):
        fresh.camera.publish(message)
        count = str(failed + number)
        told = fresh.diagnosis(lambda values, count=count: values['failed'] == count)
        assert why in told['last failure']
    assert fresh.localise(frame(place + 1))['place'][0] == place + 1
    assert fresh.process.poll() is None


def test_a_clock_that_jumps_back_starts_a_new_drive(fresh):
    fresh.localise(frame(30))
    assert fresh.localise(frame(3))['place'][0] == 3


def test_relocalize_forgets_the_drive(fresh):
    first = fresh.localise(frame(10))
    assert fresh.call(Trigger, 'relocalize').success
    again = fresh.localise(frame(10))  # the same stamp: refused within one drive
    np.testing.assert_array_equal(again['similarity'], first['similarity'])


# Being operated

def test_the_confidence_asked_for_takes_effect_at_once(fresh):
    try:
        for place in range(10):
            fresh.localise(frame(place))
        fresh.pose_at(stamp(9))
        assert fresh.set(min_confidence=1.0) == ''
        fresh.localise(frame(10))
        assert fresh.set(min_confidence=0.0) == ''
        fresh.localise(frame(11))
        fresh.pose_at(stamp(11))
        assert messages.stamp_ns(fresh.poses[-2].header) == stamp(9)
    finally:
        fresh.set(min_confidence=0.5)


def test_a_pose_given_by_hand_is_taken_in_the_frame_of_the_map_only(site, fresh):
    camera = fresh.new_camera('geometry_msgs/msg/PoseWithCovarianceStamped', '/initialpose')
    fresh.until(lambda: camera.get_subscription_count() > 0)
    for frame_id, x, variance, told in (
            ('odom', 1.0, 1.0, "initialpose is in 'odom'"),
            ('map', np.nan, 1.0, 'initialpose ignored: pose'),
            ('map', 12.0, np.nan, 'initialpose ignored: a deviation'),
            ('map', 12.0, 1.0, 'expected at x 12.0')):
        where = pose(0)
        where[0] = x
        camera.publish(messages.pose_with_covariance(rclpy_types, stamp(0), frame_id, where,
                                                     variance * np.eye(6)))
        fresh.until(lambda told=told: told in (site / 'robot.log').read_text())
    came = fresh.localise(frame(12))
    assert came['probability'][came['place'] == 12] > 0.5


def test_the_number_of_candidates_takes_effect_at_once(fresh):
    try:
        assert fresh.set(top_k=3) == ''
        assert len(fresh.localise(frame(0))['place']) == 3
    finally:
        fresh.set(top_k=10)


@pytest.mark.parametrize(('values', 'why'), [
    ({'provider': 'cuda'}, 'clean up first'), ({'provider': 'abacus'}, 'is not known'),
    ({'top_k': 0}, 'range'), ({'min_confidence': -0.5}, 'range'), ({'threads': 2}, 'clean up'),
])
def test_parameters_that_cannot_be_taken_are_refused(fresh, values, why):
    assert why in fresh.set(**values)


def test_a_new_map_is_taken_when_it_is_good_and_else_the_old_one_stays(site, fresh):
    def reload(path):
        assert fresh.set(map=str(path)) == ''
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
            assert message.startswith('the old map stays: ')
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
    place = 5
    while not answer.done() or place < 8:
        place += 1
        assert place < COUNT, 'waited in vain'
        assert fresh.localise(frame(place))['similarity'][0] == pytest.approx(first, abs=0.2)
    assert answer.result().success


def test_poses_as_nav2_and_amcl_want_them(site, unconfigured):
    node, started = unconfigured, []
    subscription = node.subscribe('geometry_msgs/msg/PoseWithCovarianceStamped', '/start_here',
                                  started.append)
    assert node.set(map=str(site / 'map'), flat=True, non_negative_covariance=True,
                    initialpose_topic='/start_here') == ''
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.heard()
    for turn in (1, 2):
        assert node.call(Trigger, 'relocalize').success
        for place in range(12):
            node.localise(frame(place, time=stamp(100 * turn + place)))
        last = node.pose_at(stamp(100 * turn + 11))
        covariance = last.pose.covariance.reshape(6, 6)
        assert (covariance >= 0).all()
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert covariance[2, 2] == covariance[3, 3] == covariance[4, 4] == FLAT
        assert last.pose.pose.position.z == 0
        node.until(lambda turn=turn: len(started) >= turn)
        assert len(started) == turn
    node.unsubscribe(subscription)


def test_the_belief_is_published_while_somebody_looks(fresh):
    beliefs = []
    subscription = fresh.subscribe(messages.CLOUD, f'{node_process.NODE}/belief', beliefs.append)
    for place in range(COUNT):
        fresh.localise(frame(place))
        if beliefs:
            break
    columns = messages.read_cloud(beliefs[-1])
    assert len(columns['probability']) == COUNT
    assert 0 < columns['probability'].sum() <= 1
    fresh.unsubscribe(subscription)


# The life of a node

def test_a_model_that_fails_is_left_for_configure_to_mend(site, unconfigured):
    node = unconfigured
    model = write_thumbnail_model(site / 'fragile.onnx', fragile=True)
    write_map(site / 'fragile-map', model)
    assert node.set(map=str(site / 'fragile-map'), model=str(model)) == ''
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.heard()
    node.camera.publish(messages.image(rclpy_types, stamp(1), 'camera',
                                       np.full((60, 80, 3), 255, np.uint8)))
    told = node.diagnosis(lambda told: told['level'] == '2')
    assert told['message'].startswith('model failed: ')
    assert node.state() == 'unconfigured'
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.heard()
    assert node.localise(frame(5))['place'][0] == 5
    assert node.diagnosis()['level'] != '2'


@pytest.mark.skipif(importlib.util.find_spec('tf2_ros') is not None, reason='tf2_ros is there')
def test_a_transform_needs_tf2(site, unconfigured):
    assert unconfigured.set(map=str(site / 'map'), publish_tf=True) == ''
    assert not unconfigured.change(CONFIGURE)
    assert 'publish_tf needs tf2_ros' in unconfigured.diagnosis()['message']


def test_nav2s_lifecycle_manager_has_a_bond_with_it(site, unconfigured):
    bondpy = pytest.importorskip('bondpy.bondpy', reason='bondpy is not installed')
    formed, broken = [], []
    assert unconfigured.set(map=str(site / 'map')) == ''
    assert unconfigured.change(CONFIGURE)
    bond = bondpy.Bond(unconfigured.node, 'bond', 'vpr_localizer',
                       on_broken=lambda: broken.append(1), on_formed=lambda: formed.append(1))
    bond.start()
    assert unconfigured.change(ACTIVATE)
    unconfigured.until(lambda: formed)
    assert not broken
    assert unconfigured.change(DEACTIVATE)
    unconfigured.until(lambda: broken)
    unbond(unconfigured.node, bond)
    assert unconfigured.change(ACTIVATE)
    unconfigured.heard()


def test_it_goes_through_its_states_and_back(site, unconfigured):
    node = unconfigured
    assert node.state() == 'unconfigured'
    assert not node.call(Trigger, 'relocalize').success
    assert not node.call(Trigger, 'reload_map').success
    assert node.set(map=str(site / 'map')) == ''
    for _ in range(2):
        assert node.change(CONFIGURE)
        assert node.state() == 'inactive'
        assert node.camera.get_subscription_count() == 0
        for _ in range(2):
            assert node.change(ACTIVATE)
            node.heard()
            assert node.call(Trigger, 'relocalize').success
            assert node.localise(frame(5))['place'][0] == 5
            assert node.change(DEACTIVATE)
            node.until(lambda: node.camera.get_subscription_count() == 0)
        assert node.change(CLEANUP)
        assert node.state() == 'unconfigured'
    assert 'map' not in node.diagnosis()
    assert node.change(SHUTDOWN)
    assert node.state() == 'finalized'


def test_what_cannot_be_configured_is_told_and_can_be_mended(site, unconfigured):
    node = unconfigured
    (site / 'text.onnx').write_text('not a model')
    (site / 'cut.onnx').write_bytes((site / 'm.onnx').read_bytes()[:300])
    good = {'map': str(site / 'map'), 'model': str(site / 'm.onnx')}
    for values, why in (
            ({'map': ''}, "the parameter 'map' is empty"),
            ({'map': str(site / 'nothing')}, 'nothing: no such map directory'),
            ({'map': str(site)}, 'is not a map'),
            ({'map': str(site / 'other-map')}, 'was built with the model other.onnx'),
            ({'model': str(site / 'text.onnx')}, 'text.onnx cannot be loaded'),
            ({'model': str(site / 'cut.onnx')}, 'cut.onnx cannot be loaded'),
            ({'model': str(site / 'none.onnx')}, 'none.onnx: no such model file'),
            ({'provider': 'tensorrt'}, "'tensorrt' does not load here")):
        assert node.set(**{**good, 'provider': 'cpu', **values}) == ''
        assert not node.change(CONFIGURE)
        errors = [line for line in node.log.read_text().splitlines() if '[ERROR]' in line]
        assert why in errors[-1]
        assert node.state() == 'unconfigured'
    told = node.diagnosis()
    assert told['level'] == '2'
    assert "'tensorrt' does not load here" in told['message']
    assert 'Traceback' not in node.log.read_text()

    assert node.set(**good, provider='auto') == ''
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.heard()
    assert node.localise(frame(5))['place'][0] == 5
    told = node.diagnosis()
    assert told['state'] == 'active'
    assert told['level'] != '2'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_while_frames_come(site, alone, tmp_path, number):
    log = tmp_path / 'node.log'
    with node_process.process('vpr_ros.ros.run', *node_process.node_arguments(given(site), IMAGES),
                      log=log) as process, Operator(process) as operator:
        operator.heard()
        operator.localise(frame(0))
        for place in range(1, 20):
            operator.camera.publish(frame(place))
        begin = time.monotonic()
        process.send_signal(number)
        assert process.wait(LIMIT) == 0
        assert time.monotonic() - begin < 5
    assert 'Traceback' not in log.read_text()


def test_a_signal_while_it_starts_ends_it_cleanly_too(site, alone, tmp_path):
    log = tmp_path / 'node.log'
    with node_process.process('vpr_ros.ros.run', *node_process.node_arguments(given(site), IMAGES),
                      log=log) as process:
        status = Path(f'/proc/{process.pid}/status')
        while not 1 << signal.SIGINT - 1 & int(re.search(r'SigBlk:\s*(\w+)',
                                                        status.read_text())[1], 16):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0
    assert 'Traceback' not in log.read_text()


# Transports, other speeds, other names

def test_compressed_pictures_from_a_bag_that_is_played(site, alone, tmp_path):
    bag = write_bag(tmp_path / 'jpeg.mcap', noise=1, compressed=True)
    encoder = Encoder(site / 'm.onnx', 'cpu', 1)
    # Like this no frame depends on the one before, so one that is lost changes none.
    expected = replay(bag, Localizer(encoder, PlaceMap.load(site / 'map', encoder),
                                     compensate=False, use_filter=False))
    parameters = given(site, image_transport='compressed', image_reliable='true',
                       compensate='false', filter='false')
    with node_process.process('vpr_ros.ros.run', *node_process.node_arguments(parameters, IMAGES),
                      log=tmp_path / 'node.log') as process, \
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
            data=b'not a picture'))
        told = operator.diagnosis(lambda values: values['failed'] == '1')
        assert 'damaged' in told['last failure']


def write_slow_model(path):
    """Write the thumbnail model with some heavy products whose result counts for nothing."""
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
        operator.heard()
        before, known = operator.diagnosis(), len(operator.candidates)
        for place in range(burst):
            operator.camera.publish(frame(place))
        operator.until(lambda: messages.stamp_ns(
            operator.candidates[-1].header) == stamp(burst - 1))
        told = operator.diagnosis()
        stamps = [messages.stamp_ns(message.header) for message in operator.candidates[known:]]
    received, processed, dropped, failed = (
        int(told[name]) - int(before[name])
        for name in ('received', 'processed', 'dropped', 'failed'))
    assert received == processed + dropped + failed <= burst
    assert failed == 0
    assert processed == len(stamps) < burst / 2
    assert stamps == sorted(stamps)
    # Each frame waits for the one that is being encoded, and for no other.
    assert float(told['total p99 (ms)']) <= 2 * float(told['encode p99 (ms)']) + 10


def test_two_nodes_side_by_side_keep_to_their_own_names(site, alone, tmp_path):
    def arguments(side):
        return [*node_process.node_arguments(given(site), f'/{side}{IMAGES}'),
                '-r', f'__ns:=/{side}']

    def node(side):
        return node_process.process('vpr_ros.ros.run', *arguments(side),
                                    log=tmp_path / f'{side}.log')

    with node('left') as left, node('right'), Operator(left) as operator:
        got = {'left': [], 'right': []}
        cameras = {side: operator.new_camera(topic=f'/{side}{IMAGES}') for side in got}
        for side, clouds in got.items():
            operator.subscribe(messages.CLOUD, f'/{side}{node_process.NODE}/candidates',
                               clouds.append)
        sent = iter(range(10_000))

        def answered():  # each has to find the camera and the subscriber first
            time = stamp(next(sent))
            for number, camera in enumerate(cameras.values()):
                camera.publish(frame(10 * number, time=time))
            return all(got.values())
        operator.until(answered)
        for number, clouds in enumerate(got.values()):
            assert messages.read_cloud(clouds[0])['place'][0] == 10 * number
        assert not operator.candidates


def test_odometry_is_used_as_in_the_replay(site, alone, tmp_path):
    def odometry(types, place):
        shifted = pose(place) + np.array([500, 3, 0, 0, 0, 0, 0])
        return messages.odometry(types, stamp(place), 'odom', 'base_link', shifted,
                                 np.array([5.0, 0.0]))

    with BagWriter(tmp_path / 'drive') as bag:
        for place in range(COUNT):
            bag.write('/odom', odometry(bag.types, place), stamp(place))
            bag.write(IMAGES, messages.image(bag.types, stamp(place), 'camera',
                                             picture(place, 1)), stamp(place))
    encoder = Encoder(site / 'm.onnx', 'cpu', 1)
    expected, blind = (
        replay(tmp_path / 'drive', Localizer(encoder, PlaceMap.load(site / 'map', encoder)),
               odometry=odometry) for odometry in (True, False))
    assert np.abs(expected.poses - blind.poses).max() > 1e-3

    with node_process.process('vpr_ros.ros.run', *node_process.node_arguments(
            {**given(site), 'min_confidence': '0.0'}, IMAGES),
            log=tmp_path / 'node.log') as process, Operator(process) as operator:
        wheels = operator.new_camera('nav_msgs/msg/Odometry', '/odom')

        def send(message):
            wheels.publish(odometry(rclpy_types, -100))
            operator.camera.publish(message)
        operator.heard(send)
        assert operator.call(Trigger, 'relocalize').success
        known = len(operator.poses)
        for place in range(COUNT):
            wheels.publish(odometry(rclpy_types, place))
            operator.localise(frame(place))
        operator.pose_at(stamp(COUNT - 1))
        came = operator.poses[known:]
    np.testing.assert_allclose([messages.pose_of(message) for message in came], expected.poses,
                               atol=1e-4)
