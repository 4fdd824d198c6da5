"""Doubts about axes and headings of poses: raised where they are wrong, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core import travel
from vpr_ros.core.travel import Kind

OPTICAL = Rotation.from_matrix([[0, -1, 0], [0, 0, -1], [1, 0, 0]])  # x right, y down, z ahead


def loop(turns=1.0, count=200, radius=20.0):
    """Return the poses (N,7) of a robot that drives a circle."""
    angle = np.linspace(0, 2 * np.pi * turns, count)
    return poses.planar(radius * np.sin(angle), radius * (1 - np.cos(angle)), angle)


def straight(count=50, heading=0.0):
    """Return the poses (N,7) of a robot that drives along x, a metre a pose."""
    return poses.planar(np.arange(count, dtype=float), np.zeros(count), np.full(count, heading))


def turned(track, *, world=None, body=None):
    """Return the same poses in another world, or of another body."""
    world, body = world or Rotation.identity(), body or Rotation.identity()
    turn = world * Rotation.from_quat(track[:, 3:]) * body.inv()
    return np.concatenate([world.apply(track[:, :3]), turn.as_quat()], axis=1)


def with_heading(track, heading):
    return poses.planar(track[:, 0], track[:, 1], heading)


def raised(track, metres):
    """Return the poses at heights that grow to `metres` and fall again, pitched accordingly."""
    track = track.copy()
    track[:, 2] = metres * np.sin(np.linspace(0, np.pi, len(track)))
    return track


CAMERA = {'camera': {'world': OPTICAL, 'body': OPTICAL}, 'camera-body': {'body': OPTICAL},
          'camera-world': {'world': OPTICAL}}


@pytest.mark.parametrize('track', [loop(), loop(0.3), straight()], ids=['loop', 'bend', 'line'])
@pytest.mark.parametrize('axes', CAMERA)
def test_camera_axes_are_recognised_and_converted(track, axes):
    camera = turned(track, **CAMERA[axes])
    doubt = travel.axes_doubt(camera)
    assert doubt is not None
    assert doubt.certain
    assert f'--axes {axes},' in doubt.text
    robot = travel.to_robot_axes(camera, axes)
    np.testing.assert_allclose(robot[:, :3], track[:, :3], atol=1e-9)
    assert poses.angle(robot, track).max() < 1e-6
    assert travel.axes_doubt(robot) is None


@pytest.mark.parametrize('axes', defaults.AXES)
def test_every_axes_can_be_named(axes):
    assert travel.to_robot_axes(loop(), axes).shape == (200, 7)


def test_positions_alone_in_camera_axes_are_doubted():
    camera = turned(loop(), world=OPTICAL)
    camera[:, 3:] = poses.IDENTITY[3:]
    doubt = travel.axes_doubt(camera)
    assert doubt is not None
    assert not doubt.certain
    assert '--axes camera' in doubt.text


HONEST = {
    'loop': loop(), 'line': straight(), 'two metres': straight(3), 'one pose': straight(1),
    'standing': np.repeat(straight(1), 500, axis=0),
    'noise': straight(500) * [0, 0, 0, 1, 1, 1, 1]
    + np.pad(np.random.default_rng(0).normal(0, 0.1, (500, 3)), ((0, 0), (0, 4))),
    'there and back in reverse': np.concatenate([straight(), straight()[::-1]]),
    'there and back, turned': np.concatenate([straight(), straight(heading=np.pi)[::-1]]),
    'hills': raised(loop(), 5), 'a climb of a drone': raised(loop(3), 40),
    'stairs': raised(straight(40), 15),
    'wobble': with_heading(loop(), poses.heading(loop())
                           + np.random.default_rng(0).normal(0, 0.3, 200)),
    'a yaw of 10 degrees to the camera': with_heading(loop(), poses.heading(loop()) + 0.17),
    'fast, 1 Hz': loop(count=12), 'a corner at 1 Hz': loop(0.5, count=4, radius=7.0),
}


@pytest.mark.parametrize('name', HONEST)
def test_an_honest_drive_raises_no_doubt(name):
    assert travel.axes_doubt(HONEST[name]) is None
    assert travel.heading_doubt(HONEST[name]) is None
    assert travel.tilt_doubt(HONEST[name]) is None


@pytest.mark.parametrize(('turn', 'where'), [
    ([180, 0, 0], 'down'), ([90, 0, 0], 'sideways'), ([0, 90, 0], 'sideways'),
    ([0, -120, 0], 'anywhere')])
def test_a_body_whose_z_axis_is_not_up_is_doubted(turn, where):
    doubt = travel.tilt_doubt(turned(loop(), body=Rotation.from_euler('xyz', turn, degrees=True)))
    assert f'points {where}, not up' in doubt.text


def test_quaternions_with_w_first_are_doubted():
    track = loop()
    track[:, 3:] = track[:, [6, 3, 4, 5]]
    assert 'quaternions with w first' in travel.tilt_doubt(track).text


def test_a_heading_that_sticks_in_mid_drive_is_doubted():
    heading = poses.heading(loop())
    heading[120:] = heading[120]
    assert 'constant for 39 m' in travel.heading_doubt(with_heading(loop(), heading)).text


@pytest.mark.parametrize('name', HONEST)
def test_an_honest_track_has_no_jumps(name):
    stamps = np.arange(len(HONEST[name])) * (10**9 if '1 Hz' in name else 10**8)
    kept, *jumped = travel.without_jumps(stamps, HONEST[name])
    assert jumped[0].size == jumped[1].size == 0
    assert kept is HONEST[name] or (kept == HONEST[name]).all()


def test_single_poses_that_jump_are_put_back_and_lasting_steps_are_told():
    stamps, track = np.arange(50) * 10**8, straight()
    track[20, 1] += 3
    track[30, 0] -= 500
    kept, alone, steps = travel.without_jumps(stamps, track)
    np.testing.assert_allclose(kept, straight(), atol=1e-9)
    np.testing.assert_allclose(alone, [3, 500])
    assert not steps.size
    track = straight()
    track[25:, 1] += 3
    kept, alone, steps = travel.without_jumps(stamps, track)
    np.testing.assert_array_equal(kept, track)
    assert not alone.size
    np.testing.assert_allclose(steps, [3])


@pytest.mark.parametrize(('heading', 'kind', 'text'), [
    (np.zeros(200), Kind.CONSTANT, 'constant on a track that turns'),
    (np.full(200, 0.7), Kind.CONSTANT, 'constant on a track that turns'),
    (poses.heading(loop()) + np.pi / 2, Kind.HEADING, '90 degrees to the right'),
    (poses.heading(loop()) - np.pi / 2, Kind.HEADING, '90 degrees to the left'),
    (poses.heading(loop()) + np.pi, Kind.HEADING, 'backwards all the time'),
    (np.pi / 2 - poses.heading(loop()), Kind.HEADING, 'clockwise'),         # a compass
    (-poses.heading(loop()), Kind.HEADING, 'clockwise'),
    (np.degrees(poses.heading(loop())), Kind.HEADING, 'little to do'),      # degrees
])
def test_wrong_headings_are_doubted(heading, kind, text):
    doubt = travel.heading_doubt(with_heading(loop(), heading))
    assert doubt is not None
    assert doubt.kind is kind
    assert not doubt.certain
    assert text in doubt.text


def test_a_constant_heading_across_a_straight_track_is_doubted():
    doubt = travel.heading_doubt(straight(heading=np.pi / 2))
    assert doubt is not None
    assert '90 degrees to the right' in doubt.text


@pytest.mark.parametrize('track', [loop(), loop(0.3, 4000), straight()])
def test_headings_of_travel_are_those_of_the_robot(track):
    found = travel.with_travel_headings(with_heading(track, 0 * track[:, 0]))
    assert poses.angle(found, track).max() < 0.07
    np.testing.assert_array_equal(found[:, :3], track[:, :3])
    assert travel.heading_doubt(found) is None


def test_a_robot_that_stands_keeps_its_heading_of_travel():
    track = np.concatenate([straight(10), np.repeat(straight(10)[-1:], 50, axis=0)])
    track[:, 3:] = 0.5
    assert abs(poses.heading(travel.with_travel_headings(track))).max() < 1e-9
    standing = track[-50:]
    np.testing.assert_array_equal(travel.with_travel_headings(standing), standing)
