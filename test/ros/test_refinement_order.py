"""Which pose of a frame is sent, and when, while another thread refines poses."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

from dataclasses import replace
import queue
import threading
from types import SimpleNamespace

from landmark_world import DRIVE
from landmark_world import estimate_at
from landmark_world import landmark_map
from landmark_world import MOUNT
from landmark_world import World as Landmarks
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.errors import ImageError
from vpr_ros.io import messages
from vpr_ros.localization.refine import Refiner
from vpr_ros.maps.confidence import Mode
from vpr_ros.ros import operations
from vpr_ros.ros import refinement
from vpr_ros.ros.health import Health
from vpr_ros.ros.inputs import OdometryPose
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.operations import Operations
from vpr_ros.ros.refinement import Refinement
from vpr_ros.ros.refinement import TrustedFrame
from vpr_ros.ros.robot_camera import RobotCamera

LIMIT = 60.0


class Stepwise(Landmarks):
    """An extractor that finds the features of an image when it is told to, or fails."""

    def __init__(self):
        super().__init__()
        self.asked, self.answers = queue.Queue(), queue.Queue()

    def extract(self, rgb):
        self.asked.put(rgb)
        answer = self.answers.get(timeout=LIMIT)
        if isinstance(answer, Exception):
            raise answer
        return super().extract(rgb if answer else 0 * rgb)


class Worker:
    """A Refiner in the process of the test, in place of that in another."""

    problem = ''

    def __init__(self, place_map, features):
        self._places, self._features = place_map, features

    def refine(self, rgb, estimate, camera, mount):
        refiner = Refiner(self._places, self._features, camera, mount)
        return refiner.refine(estimate, refiner.look(rgb))

    def close(self):
        self._features.answers.put(True)

    end = close


class StandIn:
    """What a localizer knows of its map and its odometry."""

    odometry_error, odometry_scale = 0.1, 1.0

    def __init__(self, place_map):
        self.place_map = place_map


class Bench:
    """A refinement whose every step is taken by the test: what it sends is in `sent`."""

    def __init__(self, node, place_map, camera=None):
        self.world = Stepwise()
        self.health = Health()
        self.camera = camera or RobotCamera('0.3 -0.1 1.4 0 0.05 0')
        self.camera.lens = self.world.camera if camera is None else self.camera.lens
        self.sent, self.estimates, self.shown = [], [], queue.Queue()
        self.worker = Worker(place_map, self.world)
        self.more, self.broken = threading.Condition(), False
        self.refinement = Refinement(
            node, self.health, self.camera, self.worker, uneven_ground=False,
            send=self._send, show=lambda *shown: self.shown.put(shown))
        self.localizer = StandIn(place_map)
        self.refinement.start()

    def _send(self, frame, estimate):
        if self.broken:
            raise RuntimeError('cannot be sent')
        with self.more:
            self.sent.append((estimate.stamp, estimate.refined))
            self.estimates.append(estimate)
            self.more.notify()

    def refine(self, *arguments, **options):
        """Offer a frame, and wait until it is refined."""
        self.offer(*arguments, **options)
        self.working()
        self.answer()
        self.shown.get(timeout=LIMIT)

    def until_sent(self, *expected):
        with self.more:
            assert self.more.wait_for(lambda: len(self.sent) >= len(expected), LIMIT)
            assert self.sent == list(expected)

    def offer(self, number, stamp=None, odometry=None):
        stamp = number if stamp is None else stamp
        estimate = estimate_at(DRIVE[number], stamp, Mode.ODOMETRY)
        self.refinement.offer(TrustedFrame(
            messages.image(rclpy_types, stamp, 'camera', self.world.image(number)), estimate,
            self.localizer, odometry, 0.0))

    def working(self):
        """Wait until the thread looks at an image."""
        self.world.asked.get(timeout=LIMIT)

    def answer(self, *, found=True, error=None):
        self.world.answers.put(found if error is None else error)


@pytest.fixture(scope='module')
def place_map():
    return landmark_map(Landmarks())


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Give refinement the time that a busy computer may take."""
    monkeypatch.setattr(refinement, 'PATIENCE', LIMIT)


@pytest.fixture
def bench(world, place_map):
    made = Bench(world.node, place_map)
    yield made
    made.refinement.stop()


def test_places_go_out_at_once_and_wait_only_while_poses_are_refined(bench):
    bench.offer(5)
    bench.until_sent((5, False))  # before the thread has looked
    bench.working()
    bench.answer()
    bench.until_sent((5, False), (5, True))
    bench.shown.get(timeout=LIMIT)
    bench.offer(6)
    bench.working()
    bench.offer(7)
    bench.offer(8)
    assert len(bench.sent) == 2
    bench.answer()
    bench.until_sent((5, False), (5, True), (6, True))
    bench.working()
    bench.answer()
    bench.until_sent((5, False), (5, True), (6, True), (8, True))
    assert bench.health.counts['overtaken'] == 1  # 7
    assert bench.health.values()['refined share'] == '1.00'
    assert int(bench.health.values()['inliers']) >= 20
    assert 0 < float(bench.health.values()['reprojection error (degrees)']) < 0.3


@pytest.mark.parametrize('error', [None, ImageError('no features'), RuntimeError('a bug')])
def test_a_frame_that_cannot_be_refined_has_its_places_pose(bench, error):
    def wrong():
        bench.answer(found=False, error=error)
    bench.refine(5)
    sent = [(5, False), (5, True)]
    bench.offer(9)
    bench.working()
    wrong()
    sent.append((9, False))
    bench.until_sent(*sent)
    bench.offer(10)
    sent.append((10, False))
    assert bench.sent == sent  # at once again
    bench.working()
    bench.offer(11)
    sent.append((11, False))
    bench.answer()  # too late: a newer one was sent
    bench.working()
    bench.offer(12)
    bench.offer(13)
    assert bench.sent == sent
    wrong()  # of the frames that have waited, the newest counts
    sent.append((13, False))
    bench.until_sent(*sent)
    counts = bench.health.counts
    assert counts['not refined'] + counts['refinement failed'] == 2


def test_a_pose_that_cannot_be_sent_ends_nothing(world, bench):
    bench.refine(5)
    bench.offer(6)
    bench.working()
    bench.broken = True
    bench.answer()
    world.until(lambda: bench.health.counts['refinement failed'])
    bench.broken = False
    bench.offer(7)
    bench.until_sent((5, False), (5, True), (7, False))  # at once
    bench.working()
    bench.answer()
    bench.until_sent((5, False), (5, True), (7, False), (7, True))


def test_a_slow_refinement_does_not_silence_the_node(bench, monkeypatch):
    bench.refine(5)
    bench.offer(6)
    bench.working()
    monkeypatch.setattr(refinement, 'PATIENCE', -1.0)
    bench.offer(7)
    bench.until_sent((5, False), (5, True), (7, False))
    bench.answer()
    bench.working()
    bench.offer(8)
    bench.until_sent((5, False), (5, True), (7, False), (8, False))
    bench.refinement.start_over()
    bench.answer()  # of the drive before: not sent
    bench.offer(3)
    bench.until_sent((5, False), (5, True), (7, False), (8, False), (3, False))


def wheels(number, frame_id='odom', *, late=0.0):
    """Return the odometry at a frame, or some seconds before, at a frame a second."""
    here = poses.moved(poses.planar(-3.0, 7.0, 2.0), poses.relative(DRIVE[0], DRIVE[number]))
    return OdometryPose(frame_id, poses.moved(here, np.array([-late, 0.0, 0.0])),
                        round(late * 1e9))


def test_with_odometry_each_frame_has_a_pose_at_once(bench):
    bench.refine(5, odometry=wheels(5))
    bench.offer(6, odometry=wheels(6))
    bench.working()
    bench.offer(7, odometry=wheels(7))
    sent = [(5, False), (5, True), (6, False), (7, False)]
    bench.until_sent(*sent)
    for number, estimate in ((6, bench.estimates[2]), (7, bench.estimates[3])):
        assert poses.distance(estimate.pose, DRIVE[number]) < 0.1
        assert estimate.covariance[0, 0] < 0.3 ** 2
        np.testing.assert_array_equal(estimate.place_pose, DRIVE[number])
    assert bench.health.counts['carried'] == 2
    bench.answer()  # later than the pose of 7: not sent, but 8 is carried on from it
    bench.working()
    bench.offer(8, odometry=wheels(8))
    assert bench.estimates[-1].covariance[0, 0] < bench.estimates[3].covariance[0, 0] + 0.05
    bench.offer(9, odometry=wheels(9, 'another frame'))
    assert bench.sent == [*sent, (8, False)]  # and waits, as without odometry
    bench.answer()
    bench.working()
    bench.answer()
    bench.until_sent(*sent, (8, False), (9, True))
    bench.refinement.start_over()
    bench.offer(10, odometry=wheels(10))
    assert bench.estimates[-1].covariance[0, 0] == 1.0


def test_late_odometry_carries_nothing_on(bench):
    bench.refine(5, odometry=wheels(5))
    sent = [(5, False), (5, True)]
    bench.offer(6, odometry=wheels(6, late=0.3))
    assert bench.sent == sent  # it waits
    bench.working()
    bench.answer()
    bench.shown.get(timeout=LIMIT)
    bench.until_sent(*sent, (6, True))
    bench.offer(8, odometry=wheels(8, late=0.005))  # from 5
    bench.until_sent(*sent, (6, True), (8, False))
    assert poses.distance(bench.estimates[-1].pose, DRIVE[8]) < 0.1


def test_nothing_is_carried_on_by_odometry_across_its_loss(bench):
    bench.refine(5, odometry=wheels(5))
    bench.offer(6, odometry=wheels(6))
    bench.working()
    bench.refinement.lose_odometry(7)
    bench.answer()  # of a frame before it
    bench.shown.get(timeout=LIMIT)
    bench.offer(8, odometry=wheels(8))
    sent = [(5, False), (5, True), (6, False), (6, True)]
    assert bench.sent == sent  # 8 waits
    bench.working()
    bench.answer()
    bench.shown.get(timeout=LIMIT)
    bench.offer(9, odometry=wheels(9))
    bench.until_sent(*sent, (8, True), (9, False))
    assert bench.health.counts['carried'] == 2


def test_a_slow_robot_learns_how_far_odometry_is_off(bench):
    for number in range(4):
        odometry = wheels(5 + number)
        step = poses.moved(wheels(5).pose, np.array([0.2 * number, 0.0, 0.0]))
        bench.offer(5 + number, odometry=odometry._replace(pose=step))  # where it drives 1 m
        bench.working()
        bench.answer()
        bench.shown.get(timeout=LIMIT)
    assert bench.refinement._drift.values[0] > 1.0


def test_a_clock_that_is_set_back_starts_over(bench):
    bench.refine(5, 10**12)
    bench.offer(6, 2 * 10**12)
    bench.working()
    bench.offer(7, 7)
    bench.until_sent((10**12, False), (10**12, True), (7, False))
    bench.answer()  # of the drive before: not sent
    bench.working()
    bench.answer()
    bench.until_sent((10**12, False), (10**12, True), (7, False), (7, True))


def test_what_is_missing_is_told_and_may_come_later(world, place_map):
    bench = Bench(world.node, place_map, RobotCamera())
    refiner = bench.refinement

    def offered(number):
        bench.offer(number)
        bench.until_sent(*bench.sent)
        world.until(lambda: refiner._waiting is None and refiner._working is None)
        return refiner.values()['refinement']
    try:
        assert offered(1) == 'off: no CameraInfo'
        bench.camera.lens = Camera(640, 480)
        assert offered(2) == 'off: its CameraInfo is not calibrated (K is zero)'
        bench.camera.lens = replace(bench.world.camera, distortion_model='soap')
        assert 'is not known' in offered(3)
        bench.camera.lens = bench.world.camera
        assert 'tf2_msgs is not installed' in offered(4)
        bench.camera._listens = True
        assert "/tf_static does not say where 'camera' is in 'base_link'" in offered(5)
        transforms = rclpy_types('std_msgs/msg/Header')  # tf2_msgs is not in the wheels
        transforms.transforms = [
            messages.transform(rclpy_types, 0, 'base_link', 'mast', poses.IDENTITY),
            messages.transform(rclpy_types, 0, 'mast', 'camera', MOUNT)]
        bench.camera.on_transforms(transforms)
        bench.offer(6)
        bench.working()
        bench.answer()
        assert bench.shown.get(timeout=LIMIT)[1].stamp == 6
        assert refiner.values() == {'refinement': 'on, camera pose from /tf_static'}
        assert [refined for _, refined in bench.sent] == 6 * [False] + [True]
        bench.worker.problem = 'its process has ended'
        bench.offer(7)
        bench.until_sent(*[(stamp, False) for stamp in range(1, 7)], (6, True), (7, False))
        assert bench.world.asked.empty()
        assert refiner.values() == {'refinement': 'off: its process has ended'}
    finally:
        refiner.stop()


def test_after_its_end_places_go_out_at_once(bench):
    bench.offer(1)
    bench.working()
    bench.answer()
    bench.shown.get(timeout=LIMIT)
    bench.refinement.stop()
    bench.offer(2)
    bench.until_sent((1, False), (1, True), (2, False))


@pytest.fixture
def operated(world, bench):
    """Return what operates a bench whose last refined pose is that of frame 5, while 6 is seen."""
    localizer = SimpleNamespace(place_map=bench.localizer.place_map, encoder=None,
                                expect=lambda *around: None, take_over=lambda old: None)
    publishers = SimpleNamespace(sent=lambda message: False, start_over=lambda: None)
    made = Operations(world.node, localizer, publishers, bench.health, bench.camera, None)
    made._refinement = bench.refinement
    bench.refine(5, odometry=wheels(5))
    bench.offer(6, odometry=wheels(6))
    bench.working()
    return made


def test_odometry_that_is_not_credible_is_lost(bench, operated):
    odometry = operated._odometry
    for number in (7, 8):
        message = rclpy_types('nav_msgs/msg/Odometry')()
        message.header.stamp.nanosec, message.header.frame_id = number, 'odom'
        message.pose.pose = messages.pose_with_covariance(
            rclpy_types, number, 'odom', wheels(number).pose, np.eye(6)).pose.pose
        odometry.put(message)
    bench.answer()
    bench.shown.get(timeout=LIMIT)
    localizer, given = operated.localizer, []
    localizer.encoder = SimpleNamespace(size=(320, 240), space='', encode=lambda rgb: None)
    localizer.odometry_problem, localizer.modes = 'it jumped', lambda: None
    localizer.odometry_scale, localizer.odometry_error = 1.0, 0.1
    localizer.locate = lambda descriptor, stamp, pose: given.append(pose) or estimate_at(
        DRIVE[stamp], stamp, Mode.ODOMETRY)
    operated._publishers.publish_details = lambda *details: None

    def localise(number):
        operated._localize(messages.image(rclpy_types, number, 'camera',
                                          bench.world.image(number)), 0.0)
    count = len(bench.sent)
    localise(7)
    bench.working()
    bench.answer()
    bench.shown.get(timeout=LIMIT)
    localizer.odometry_problem = ''
    localise(8)
    np.testing.assert_allclose(given, [wheels(7).pose, wheels(8).pose])
    assert bench.sent[count:] == [(7, True)]  # 8 waits
    assert bench.health.counts['carried'] == 1


def test_nothing_is_sent_of_frames_before_an_initial_pose(bench, operated):
    count = len(bench.sent)
    operated.on_initial_pose(messages.pose_with_covariance(rclpy_types, 7, 'map', DRIVE[9],
                                                           np.eye(6)))
    bench.answer()
    bench.offer(9, odometry=wheels(9))
    assert bench.sent[count:] == [(9, False)]
    assert bench.estimates[-1].covariance[0, 0] == 1.0  # that of the place


def test_nothing_is_sent_of_frames_before_a_new_map(world, bench, operated, monkeypatch):
    monkeypatch.setattr(operations, 'load_localizer', lambda node, encoder: operated.localizer)
    count = len(bench.sent)
    answer = world.node.executor.create_task(operated.reload_map())
    world.until(answer.done)
    assert answer.result()[0]
    bench.offer(7, odometry=wheels(7))  # by a worker that has not seen the new map
    assert bench.sent[count:] == [(7, False)]
    assert bench.estimates[-1].covariance[0, 0] == 1.0
