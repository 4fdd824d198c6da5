"""The node as a process for demo, benchmarks and tests: it ends, and its end is reported."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from small_drive import pose
from small_drive import stamp
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.ros import node_process
from vpr_ros.ros.interfaces import rclpy_types

LIMIT = 60.0


def test_a_process_ends_with_its_block(tmp_path):
    with node_process.process('vpr_ros.ros.run', log=tmp_path / 'log') as running:
        assert running.poll() is None
    assert running.poll() is not None


def test_a_process_ends_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), \
            node_process.process('vpr_ros.ros.run', log=tmp_path / 'log') as running:
        raise ZeroDivisionError
    assert running.poll() is not None


def test_the_end_of_the_node_ends_the_waiting(tmp_path):
    log = tmp_path / 'log'
    with node_process.process('vpr_ros.cli', 'inspect', 'nothing', log=log) as running, \
            node_process.Recorder() as recorder, \
            pytest.raises(VprError, match='ended with exit code 1'):
        recorder.wait(lambda: False, LIMIT, running)
    assert (tmp_path / 'log').read_text() == 'vpr: error: nothing does not exist\n'


def test_waiting_has_a_limit():
    with node_process.Recorder() as recorder:
        assert not recorder.wait(lambda: False, 0.2)
        assert recorder.wait(lambda: True, 0.0)


def test_arguments_name_the_topics_and_the_parameters():
    arguments = node_process.node_arguments({'map': '/maps/site', 'top_k': 5}, '/front/image')
    assert arguments[0] == '--ros-args'
    for remap in ('image:=/front/image', 'image/compressed:=/front/image'):
        assert arguments[arguments.index(remap) - 1] == '-r'
    for parameter in ('map:=/maps/site', 'top_k:=5', 'autostart:=true'):
        assert arguments[arguments.index(parameter) - 1] == '-p'


def test_a_frame_without_a_pose_has_that_of_its_best_candidate():
    with node_process.Recorder() as recorder:
        for place in range(3):
            recorder.candidates.append(messages.cloud(rclpy_types, stamp(place), 'map', {
                'x': [place + 10.0, 99.0], 'y': [0.0, 0.0], 'z': [0.0, 0.0]}))
        recorder.poses.append(messages.pose_with_covariance(
            rclpy_types, stamp(1), 'map', pose(11.5), np.eye(6)))
        stamps, poses, published = recorder.drive()
    assert stamps.tolist() == [stamp(place) for place in range(3)]
    assert published.tolist() == [False, True, False]
    assert poses[:, 0].tolist() == [10.0, 11.5, 12.0]
