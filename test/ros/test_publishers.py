"""What the node publishes, as a process of its own over DDS."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from node_operator import ACTIVATE
from node_operator import CONFIGURE
from node_operator import frame
from node_operator import LIMIT
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import stamp
from std_srvs.srv import Trigger
from vpr_ros.core import images
from vpr_ros.core.uncertainty import FLAT
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.replay import replay
from vpr_ros.ros import node_process


def test_the_map_is_latched(robot):
    robot.until(lambda: robot.maps)
    with node_process.Recorder() as late:
        assert late.wait(lambda: bool(late.maps), LIMIT)
        for message in (late.maps[-1], robot.maps[0]):
            cloud = messages.read_cloud(message)
            assert message.header.frame_id == 'map'
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
    published = fresh.poses[before[0]:]

    assert [messages.stamp_ns(message.header) for message in published] == [
        estimate.stamp for estimate in trusted]
    assert {message.header.frame_id for message in published} == {'map'}
    np.testing.assert_allclose([messages.pose_of(message) for message in published],
                               [estimate.pose for estimate in trusted], atol=1e-4)
    np.testing.assert_allclose(fresh.confidences[before[1]:],
                               [estimate.confidence for estimate in expected.estimates], atol=1e-4)
    for message, estimate in zip(published, trusted, strict=True):
        np.testing.assert_allclose(message.pose.covariance, estimate.covariance.reshape(-1),
                                   atol=1e-4)
    for message, estimate, mode in zip(fresh.candidates[before[2]:], expected.estimates, modes,
                                       strict=True):
        cloud = messages.read_cloud(message)
        assert message.header.frame_id == 'map'
        assert messages.stamp_ns(message.header) == estimate.stamp
        # Rounding may change the order of places with a negligible probability.
        likely = mode.probability > 1e-3
        assert cloud['place'][likely].tolist() == mode.places[likely].tolist()
        np.testing.assert_allclose(cloud['similarity'][likely], mode.similarity[likely],
                                   atol=1e-4)
        np.testing.assert_allclose(cloud['probability'], mode.probability, atol=1e-4)
        np.testing.assert_allclose(cloud['x'][likely], mode.poses[likely, 0], atol=1e-4)


def test_diagnostics_have_the_state_the_counters_and_the_latencies(fresh):
    for place in range(10):
        fresh.localise(frame(place))
    status = fresh.status()
    assert (status['level'], status['state'], status['provider']) == ('0', 'active', 'cpu')
    assert status['message'].startswith('localised, confidence')
    assert status['places'] == str(COUNT)
    assert float(status['rate (Hz)']) >= 0
    for name in ('received', 'processed', 'dropped', 'failed', 'poses'):
        assert int(status[name]) >= 0
    for stage in ('wait', 'convert', 'encode', 'search', 'publish', 'total'):
        assert 0 <= float(status[f'{stage} p50 (ms)']) <= float(status[f'{stage} p99 (ms)'])


def localise_until(operator, happened):
    """Localise frames along the drive until something happened; return the last place."""
    place = 0

    def localised():
        nonlocal place
        place += 1
        operator.localise(frame(place % COUNT, time=stamp(place)))
        return happened()
    operator.until(localised)
    return place


def test_the_debug_image_is_published_only_while_there_is_a_subscriber(fresh):
    debug_images = []
    subscription = fresh.subscribe(messages.COMPRESSED_IMAGE,
                                   f'{node_process.NODE}/debug_image/compressed',
                                   debug_images.append)
    place = localise_until(fresh, lambda: debug_images)
    canvas = images.decode(bytes(debug_images[0].data))
    assert canvas.shape == (240, 640, 3)  # the image and its match, both 4:3
    assert stamp(0) < messages.stamp_ns(debug_images[0].header) <= stamp(place)
    assert debug_images[0].header.frame_id == 'map'

    fresh.unsubscribe(subscription)
    fresh.localise(frame(0, time=stamp(place + 1)))
    count = len(debug_images)
    fresh.localise(frame(0, time=stamp(place + 2)))
    assert len(debug_images) == count


def test_the_belief_is_published_while_there_is_a_subscriber(fresh):
    beliefs = []
    subscription = fresh.subscribe(messages.CLOUD, f'{node_process.NODE}/belief', beliefs.append)
    localise_until(fresh, lambda: beliefs)
    columns = messages.read_cloud(beliefs[-1])
    assert len(columns['probability']) == COUNT
    assert 0 < columns['probability'].sum() <= 1
    fresh.unsubscribe(subscription)


def test_poses_and_initialpose_are_as_nav2_and_amcl_require(site, unconfigured):
    node, started = unconfigured, []
    subscription = node.subscribe('geometry_msgs/msg/PoseWithCovarianceStamped', '/start_here',
                                  started.append)
    assert node.set_parameters(map=str(site / 'map'), flat=True, non_negative_covariance=True,
                               initialpose_topic='/start_here') == ''
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.connect()
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
