"""Poses are refined while the node runs: over DDS, and in which order they are sent."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from node_operator import node_process_on
from node_operator import Operator
from small_drive import IMAGES
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import Sift
from vpr_ros.io import messages
from vpr_ros.io.sources import open_source
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.ros import node_process
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.street import camera_matrix
from vpr_ros.street import CAMERA_HEIGHT
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town
from vpr_ros.street.record import CAMERA_FRAME
from vpr_ros.street.record import record

WIDTH, HEIGHT = 256, 192
OPTIONS = DriveOptions(start=60.0, width=WIDTH, height=HEIGHT, traffic=False)
CAMERA_POSE = f'0 0 {CAMERA_HEIGHT} 0 0 0'


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
        self.inliers, self.landmarks, self.shown = [], [], []
        self.info = self.new_camera(messages.CAMERA_INFO, '/camera/camera_info')
        self.subscribe(messages.CLOUD, f'{node_process.NODE}/inliers', self.inliers.append)
        self.round = 0

    def send_info(self, focal=1.0):
        matrix = camera_matrix(WIDTH, HEIGHT) * [[focal], [focal], [1]]
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
        """Send frames until one was refined; return the true poses of all by their stamps."""
        sent = {}
        count = len(self.inliers)

        def refined():
            self.send_info()
            sent.update(self.send_round(frames))
            return self.wait(lambda: len(self.inliers) > count, 0.2, self.process)
        self.until(refined)
        return sent


@pytest.fixture(scope='module')
def beside():
    return list(street(10, 3, 1.0))


@pytest.fixture(scope='module')
def driver(street_site):
    with node_process_on(street_site, street_site / 'robot.log', camera_pose=f"'{CAMERA_POSE}'",
                         min_confidence=0.0, filter='false', image_reliable='true'
                         ) as process, Driver(process) as operator:
        operator.until(lambda: operator.maps)
        yield operator


def test_a_pose_becomes_that_of_the_camera(driver, beside):
    truth = driver.until_refined(beside)
    stamps = {messages.stamp_ns(message.header) for message in driver.inliers}
    driver.until(lambda: stamps <= {messages.stamp_ns(pose.header) for pose in driver.poses})
    refined = {messages.stamp_ns(pose.header): pose for pose in driver.poses}
    for stamp in stamps:
        error = poses.distance(messages.pose_of(refined[stamp]), truth[stamp].pose)
        assert error < 0.3
        assert refined[stamp].pose.covariance[0] < 0.1 ** 2
