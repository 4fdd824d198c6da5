"""Poses are refined while the node runs: over DDS, and in which order they are sent."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import itertools

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from node_operator import ACTIVATE
from node_operator import DEACTIVATE
from node_operator import node_process_on
from node_operator import Operator
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import Sift
from vpr_ros.io import messages
from vpr_ros.io.sources import open_source
from vpr_ros.offline.build_map import build_map
from vpr_ros.ros import node_process
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.street import CAMERA_HEIGHT
from vpr_ros.street import camera_matrix
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town
from vpr_ros.street.record import CAMERA_FRAME
from vpr_ros.street.record import record

WIDTH, HEIGHT = 256, 192
OPTIONS = DriveOptions(start=60.0, width=WIDTH, height=HEIGHT, traffic=False)
PARAMETERS = {'camera_pose': f'0 0 {CAMERA_HEIGHT} 0 0 0', 'min_confidence': 0.0,
              'filter': 'false', 'image_reliable': 'true'}
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def street(length, rate, offset):
    return drive(Town(71), seed=round(rate), speed=8.0, rate=rate, lateral_offset=offset,
                 length=length, options=OPTIONS)


@pytest.fixture(scope='module')
def street_site(tmp_path_factory):
    """Return a folder with m.onnx and a map of a street with landmarks, and without."""
    folder = tmp_path_factory.mktemp('street')
    record(folder / 'map.mcap', street(11, 8, 0.0))
    encoder = Encoder(write_thumbnail_model(folder / 'm.onnx'), 'cpu', 1)
    place_map = build_map([open_source(folder / 'map.mcap')], encoder, self_calibrate=False,
                          features=Sift())
    place_map.save(folder / 'map')
    place_map.select(np.arange(len(place_map))).save(folder / 'plain')
    return folder


class Driver(Operator):
    """An operator whose camera drives through the street, a metre beside the mapping drive."""

    def __init__(self, process):
        super().__init__(process)
        self.info = self.new_camera(messages.CAMERA_INFO, '/camera/camera_info')
        self.round = 0

    def send_info(self, focal=1.0):
        matrix = focal * camera_matrix(WIDTH, HEIGHT)
        self.info.publish(messages.camera_info(rclpy_types, 1, CAMERA_FRAME, matrix, WIDTH,
                                               HEIGHT))

    def send_round(self, frames):
        """Send frames as a drive after the ones before; return them by their new stamps."""
        self.round += 1
        sent = {}
        for frame in frames:
            stamp = frame.stamp + self.round * 10**12
            sent[stamp] = frame
            self.camera.publish(messages.image(rclpy_types, stamp, CAMERA_FRAME, frame.image))
            self.until(lambda stamp=stamp: self.candidates and messages.stamp_ns(
                self.candidates[-1].header) >= stamp)
        return sent

    def until_refined(self, frames):
        """Send frames, one after the other, until one is refined; return all by their stamps."""
        sent, count, turn = {}, len(self.inliers), itertools.cycle(frames)

        def refined():
            self.send_info()  # the first ones may be lost
            sent.update(self.send_round([next(turn)]))
            return self.wait(lambda: len(self.inliers) > count, 3.0, self.process)
        self.until(refined)
        return sent


@pytest.fixture(scope='module')
def beside():
    return list(street(10, 3, 1.0))


@pytest.fixture(scope='module')
def driver(street_site):
    with node_process_on(street_site, street_site / 'robot.log', **PARAMETERS) as process, \
            Driver(process) as operator:
        operator.until(lambda: operator.maps)
        yield operator


def test_a_pose_becomes_that_of_the_camera(driver, beside):
    shown, landmarks = [], []
    watching = [
        driver.subscribe(messages.COMPRESSED_IMAGE,
                         f'{node_process.NODE}/refined_image/compressed', shown.append),
        driver.node.create_subscription(rclpy_types(messages.CLOUD),
                                        f'{node_process.NODE}/landmarks', landmarks.append,
                                        LATCHED)]
    truth, exact = {}, {}

    def seen():
        truth.update(driver.until_refined(beside))
        # A slow answer comes after the pose of a later frame: its own is not sent then.
        exact.update({stamp: message for message in driver.poses
                      if (stamp := messages.stamp_ns(message.header)) in driver.refined()
                      and message.pose.covariance[0] < 0.2 ** 2})
        return shown and landmarks and exact
    driver.until(seen)
    refined = driver.refined()
    cloud = messages.read_cloud(landmarks[0])
    known = np.stack([cloud[axis] for axis in 'xyz'], axis=1)
    assert len(known) > 300
    for columns in refined.values():
        agreeing = columns[:, :3]
        assert ((columns[:, 3:] >= -0.5) & (columns[:, 3:] < (WIDTH, HEIGHT))).all()
        assert len(agreeing) >= 20
        assert np.abs(known[None] - agreeing[:, None]).sum(axis=2).min(axis=1).max() < 1e-3
    for stamp, message in exact.items():
        assert poses.distance(messages.pose_of(message), truth[stamp].pose) < 0.3
    image = messages.rgb(shown[-1])
    assert image.shape[0] == 240
    assert image.shape[1] > 2 * 300  # beside its place
    status = driver.status(lambda values: int(values.get('refined', 0)) >= len(refined))
    assert status['refinement'] == 'on, camera pose from camera_pose'
    assert 0 < float(status['refined share']) <= 1
    assert int(status['inliers']) >= 20
    assert 0 < float(status['reprojection error (degrees)']) < 0.5
    assert float(status['refine p50 (ms)']) > 0
    for subscription in watching:
        driver.unsubscribe(subscription)


def test_a_camera_that_is_not_calibrated_has_the_poses_of_places(driver, beside):
    driver.until_refined(beside)

    def stopped():
        driver.send_info(focal=0.0)
        driver.send_round(beside[:1])
        return driver.diagnostics[-1]['refinement'].startswith('off')
    driver.until(stopped)
    assert driver.diagnostics[-1]['refinement'] == (
        'off: its CameraInfo is not calibrated (K is zero)')
    count = len(driver.inliers)
    sent = driver.send_round(beside)
    published = []

    def all_published():
        published[:] = [message for message in driver.poses
                        if messages.stamp_ns(message.header) in sent]
        return len(published) == len(sent)
    driver.until(all_published)
    assert all(message.pose.covariance[0] > 0.1 for message in published)
    assert len(driver.inliers) == count


def test_a_map_without_landmarks_has_the_poses_of_places(street_site, driver, beside):
    clouds = []
    driver.node.create_subscription(rclpy_types(messages.CLOUD),
                                    f'{node_process.NODE}/landmarks', clouds.append, LATCHED)
    driver.until(lambda: clouds and clouds[-1].width)
    assert driver.change(DEACTIVATE)
    assert driver.status()['refinement'] == 'off: the node is not active'
    assert driver.change(ACTIVATE)
    assert driver.set_parameters(map=str(street_site / 'plain')) == ''
    assert driver.call(Trigger, 'reload_map').success
    assert driver.status()['refinement'] == 'off: the map has no landmarks'
    driver.until(lambda: not clouds[-1].width)
    count = len(driver.inliers)
    sent = driver.send_round(beside)
    driver.until(lambda: set(sent) <= {messages.stamp_ns(message.header)
                                       for message in driver.poses})
    assert len(driver.inliers) == count
