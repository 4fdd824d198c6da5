"""What else gets a trusted pose: map -> odom, a reader of initialpose, and a filter."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from vpr_ros.core import poses
from vpr_ros.io import messages
from vpr_ros.ros.filter_reset import FilterReset
from vpr_ros.ros.initial_pose import InitialPose
from vpr_ros.ros.inputs import OdometryBuffer
from vpr_ros.ros.inputs import OdometryPose
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.transform import HeldTransform

POSE = 'geometry_msgs/msg/PoseWithCovarianceStamped'
BEGIN = 1_700_000_000_000_000_000


def trusted(seconds, where):
    return messages.pose_with_covariance(rclpy_types, BEGIN + round(seconds * 1e9), 'map', where,
                                         np.eye(6))


class Buffer:
    """The lookup of tf2: at the latest time that each of the two transforms has."""

    def __init__(self):
        self.links = {'odom': [], 'base_link': []}

    def add(self, child, stamp, where):
        self.links[child].append((stamp, where))

    def robot(self):
        """Return base_link in map (7,), None while a link of the chain is missing."""
        if not all(self.links.values()):
            return None
        at = min(link[-1][0] for link in self.links.values())
        first, second = (self._at(link, at) for link in self.links.values())
        if first is None or second is None:
            return None
        return poses.moved(first, [*second[:2], float(poses.heading(second))])

    @staticmethod
    def _at(link, at):
        after = bisect_right(link, at, key=lambda sample: sample[0])
        if after == 0:
            return None
        before, where = link[after - 1]
        if after < len(link) and before < at:
            share = (at - before) / (link[after][0] - before)
            where = where + share * (link[after][1] - where)
        return where


def test_the_position_drifts_only_as_odometry_does_without_images(simulated):
    speed, scale, silent, end = 8.0, 1.03, 4.0, 12.0
    buffer, frozen, errors, errors_before = Buffer(), Buffer(), [], []

    def send(message):
        t, q = message.transform.translation, message.transform.rotation
        buffer.add('odom', messages.stamp_ns(message.header),
                   np.array([t.x, t.y, t.z, q.x, q.y, q.z, q.w]))
    held = HeldTransform(simulated.node, send, tolerance=0.1, timeout=10.0)
    held.start()
    assert held.values()['transform'].startswith('none')
    for step in range(1, round((end + 4) / 0.05)):
        now = step * 0.05
        truth = poses.planar(100 + speed * now, 50.0, 0.0)
        odometry = poses.planar(scale * speed * now, 0.0, 0.0)
        stamp = BEGIN + round(now * 1e9)
        simulated.set_time(stamp)
        for tree in (buffer, frozen):
            tree.add('base_link', stamp, odometry)
        if step % 4 == 0 and now <= silent:
            late = now - 0.1  # the latency of a pose
            at = poses.planar(100 + speed * late, 50.0, 0.0)
            wheels = poses.planar(scale * speed * late, 0.0, 0.0)
            held.pose(trusted(late, at), OdometryPose('odom', wheels))
            frozen.add('odom', BEGIN + round(late * 1e9), poses.frame_between(at, wheels))
        if silent < now <= end:
            errors.append(poses.distance(buffer.robot(), truth))
            errors_before.append(poses.distance(frozen.robot(), truth))
            assert held.values()['transform'].startswith('sent')
    drift = (scale - 1) * speed * (end - silent + 0.3)
    assert max(errors) <= drift + 0.01
    assert max(errors_before) > 60  # sent with a pose only
    stamps = [stamp for stamp, _ in buffer.links['odom']]
    assert len(set(stamps)) == len(stamps)
    assert stamps[-1] - BEGIN == pytest.approx((silent + 10.0 + 0.1) * 1e9, abs=0.1e9)
    assert held.values()['transform'] == 'stopped: no trusted pose with odometry for 10 s'
    held.stop()


def test_a_clock_that_stands_or_jumps_back_sends_no_transform_twice(simulated):
    sent = []
    held = HeldTransform(simulated.node, sent.append, tolerance=0.0, timeout=10.0)
    held.start()
    simulated.set_time(BEGIN + 20 * 10**9)
    held.pose(trusted(20, poses.IDENTITY), None)
    assert not sent
    for _ in range(2):
        held.pose(trusted(20, poses.IDENTITY), OdometryPose('odom', poses.IDENTITY.copy()))
    assert len(sent) == 1
    simulated.set_time(BEGIN)
    simulated.set_time(BEGIN + 10**8)  # after a jump a timer waits for its period
    simulated.until(lambda: held.values()['transform'].startswith('stopped'))
    held.pose(trusted(0, poses.IDENTITY), OdometryPose('odom', poses.IDENTITY.copy()))
    held.start_over()
    held._repeat()
    assert len(sent) == 2
    assert held.values()['transform'].startswith('none')
    held.stop()


def test_a_pose_waits_for_the_odometry_at_its_stamp(simulated):
    sent, buffer = [], OdometryBuffer()
    held = HeldTransform(simulated.node, sent.append, tolerance=0.0, timeout=10.0)

    def odometry(seconds):
        stamp = BEGIN + round(seconds * 1e9)
        buffer.put(messages.odometry(rclpy_types, stamp, 'odom', 'base_link',
                                     poses.planar(8 * seconds, 0, 0), (8.0, 0.0)))
        held.odometry_came(buffer)

    odometry(0.0)
    for seconds in (0.1, 0.2, 0.3):  # 8 m/s, and 100 m east of where odometry began
        stamp = BEGIN + round(seconds * 1e9)
        simulated.set_time(stamp)
        at = poses.planar(100 + 8 * seconds, 0, 0)
        held.pose(trusted(seconds, at), buffer.at(stamp))
    assert not sent  # the odometry of .1 s before would be off by .8 m
    odometry(0.25)
    assert len(sent) == 1
    assert sent[0].transform.translation.x == pytest.approx(100)
    simulated.set_time(BEGIN + 5 * 10**8)
    odometry(0.5)
    assert len(sent) == 2
    assert sent[1].transform.translation.x == pytest.approx(100)
    held.pose(trusted(0.6, poses.planar(104.8, 0, 0)), buffer.at(BEGIN + 6 * 10**8))
    held.start_over()
    odometry(0.7)
    assert len(sent) == 2


def test_each_reader_of_initialpose_is_told_also_a_late_one(world):
    output = InitialPose(world.node, '/initialpose')
    own = world.node.create_subscription(rclpy_types(POSE), 'initialpose', lambda message: None, 1)
    output._publisher.on_activate(None)
    output.start()
    sent, number = [], 0

    def reader():
        return world.peer.create_subscription(rclpy_types(POSE), '/initialpose', sent.append, 1)

    def connected(count):
        world.until(lambda: output._publisher.get_subscription_count() == count)

    def new_pose():
        nonlocal number
        number += 1
        output.pose(trusted(number, poses.IDENTITY), None)

    connected(1)
    new_pose()
    assert output._told == 0  # nobody but the node itself
    first = reader()
    connected(2)
    for _ in range(3):
        new_pose()
    world.until(lambda: sent)
    assert [messages.stamp_ns(message.header) - BEGIN for message in sent] == [2 * 10**9]
    assert output.sent(messages.stamp_ns(sent[0].header))

    world.peer.destroy_subscription(first)
    connected(1)
    world.until(lambda: output._told == 0)
    second = reader()
    connected(2)
    for _ in range(2):
        new_pose()
    world.until(lambda: len(sent) > 1)
    output.start_over()
    new_pose()
    world.until(lambda: len(sent) > 2)
    assert [messages.stamp_ns(message.header) - BEGIN for message in sent] == [
        2 * 10**9, 5 * 10**9, 7 * 10**9]
    world.peer.destroy_subscription(second)
    world.node.destroy_subscription(own)
    output.stop()
    output.close()


@pytest.mark.parametrize(('away', 'frame_id', 'gap', 'resets'), [
    (90.0, 'map', 0.2, 1), (5.0, 'map', 0.2, 0), (90.0, 'odom', 0.2, 0), (90.0, 'map', 1.5, 0)])
def test_a_filter_is_reset_only_when_all_poses_are_far_from_it(world, away, frame_id, gap, resets):
    output = FilterReset(world.node, 20.0)
    output._publisher.on_activate(None)
    for number in range(round(4.5 / gap)):
        seconds = number * gap
        here = poses.planar(2 * seconds, 0.0, 0.0)
        there = poses.planar(2 * seconds + away, 0.0, 0.0)
        output.on_filtered(messages.odometry(
            rclpy_types, BEGIN + round(seconds * 1e9), frame_id, 'base_link', there, np.zeros(2)))
        output.pose(trusted(seconds, here), None)
    assert output.values() == {'filter resets': str(resets)}
    output.close()


def test_a_filter_gets_set_pose_over_dds(world):
    output, told = FilterReset(world.node, 20.0), []
    output._publisher.on_activate(None)
    output.start()
    world.peer.create_subscription(rclpy_types(POSE), 'set_pose', told.append, 1)
    filtered = world.peer.create_publisher(rclpy_types('nav_msgs/msg/Odometry'),
                                           'odometry/filtered', 10)
    world.until(lambda: filtered.get_subscription_count()
                and output._publisher.get_subscription_count())
    for number in range(9):
        stamp = BEGIN + number * 5 * 10**8
        filtered.publish(messages.odometry(rclpy_types, stamp, 'map', 'base_link',
                                           poses.planar(90 + number, 0.0, 0.0), np.zeros(2)))
        world.until(lambda stamp=stamp: output._filtered is not None and messages.stamp_ns(
            output._filtered.header) == stamp)
        output.pose(trusted(number * 0.5, poses.planar(number, 0.0, 0.0)), None)
    world.until(lambda: told)
    assert [message.pose.pose.position.x for message in told] == [6.0]
    output.stop()
    output.close()
