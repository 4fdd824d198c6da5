"""
The launch files and what they load, without launch and robot_localization.

They are read as text and as YAML: names, shapes and consistency. test/launch runs them.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
import re

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
STATE = 15
"""x y z, roll pitch yaw, their rates, and ax ay az: robot_localization's order."""

FILTER_PARAMETERS = {
    # Parameters of ekf_node in robot_localization 3 (Humble to Kilted),
    'frequency', 'sensor_timeout', 'two_d_mode', 'transform_time_offset', 'transform_timeout',
    'print_diagnostics', 'debug', 'debug_out_file', 'permit_corrected_publication', 'publish_tf',
    'publish_acceleration', 'map_frame', 'odom_frame', 'base_link_frame', 'world_frame',
    'base_link_frame_output', 'smooth_lagged_data', 'history_length', 'predict_to_current_time',
    'reset_on_time_jump', 'use_control', 'stamped_control', 'control_timeout', 'control_config',
    'acceleration_limits', 'deceleration_limits', 'acceleration_gains', 'deceleration_gains',
    'dynamic_process_noise_covariance', 'process_noise_covariance', 'initial_state',
    'initial_estimate_covariance', 'disabled_at_startup',
    # and those of one input: a topic, and the same name with a suffix.
    'odom0', 'odom0_config', 'odom0_queue_size', 'odom0_differential', 'odom0_relative',
    'odom0_pose_rejection_threshold', 'odom0_twist_rejection_threshold',
    'pose0', 'pose0_config', 'pose0_queue_size', 'pose0_differential', 'pose0_relative',
    'pose0_rejection_threshold'}


@pytest.fixture(scope='module')
def ekf():
    """Return the parameters in config/ekf.yaml."""
    document = yaml.safe_load((ROOT / 'config' / 'ekf.yaml').read_text())
    assert list(document) == ['/**']  # any node name, any namespace
    return document['/**']['ros__parameters']


def arguments(path):
    """Return the names of the arguments that a launch file declares itself."""
    return re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", path.read_text())


def test_the_filter_has_every_parameter_in_the_file(ekf):
    assert set(ekf) <= FILTER_PARAMETERS


def test_the_filter_fuses_absolute_and_late_poses(ekf):
    assert (ekf['pose0_differential'], ekf['pose0_relative']) == (False, False)
    assert ekf['smooth_lagged_data']
    assert ekf['history_length'] >= 1
    assert ekf['pose0_rejection_threshold'] >= 3
    assert ekf['world_frame'] == ekf['map_frame'] != ekf['odom_frame']


def test_position_and_heading_come_from_the_poses_and_velocities_from_the_wheels(ekf):
    names = ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'vx', 'vy', 'vz', 'vroll', 'vpitch', 'vyaw',
             'ax', 'ay', 'az']
    used = {kind: {name for name, on in zip(names, ekf[f'{kind}_config'], strict=True) if on}
            for kind in ('pose0', 'odom0')}
    assert used == {'pose0': {'x', 'y', 'yaw'}, 'odom0': {'vx', 'vy', 'vyaw'}}


def test_the_initial_covariance_is_too_large_to_reject_the_first_pose(ekf):
    flat = ekf['initial_estimate_covariance']
    # PyYAML and rcl read 1e6 as a string: it has to be written 1.0e+6.
    assert {type(value) for value in flat} == {float}
    covariance = np.reshape(flat, (STATE, STATE))
    np.testing.assert_array_equal(covariance, covariance.T)
    assert (np.diag(covariance) > 0).all()
    first = np.array([700, -700, np.pi])  # the worst case: a corner of the map, facing backwards
    measured = [0, 1, 5]
    distance = np.sqrt(first @ np.linalg.solve(covariance[np.ix_(measured, measured)], first))
    assert distance < ekf['pose0_rejection_threshold']


def test_the_filter_subscribes_to_the_topic_of_the_node(ekf):
    topics = (ROOT / 'docs' / 'messages.md').read_text()
    assert ekf['pose0'] == 'vpr_localizer/pose'
    assert '| `~/pose` | `geometry_msgs/msg/PoseWithCovarianceStamped` |' in topics


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_is_short_and_describes_each_argument(path):
    source = path.read_text()
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [getattr(call.func, 'id', getattr(call.func, 'attr', '')) for call in calls]
    assert not {'eval', 'exec', 'system', 'run'} & set(named)
    assert len(source.splitlines()) <= 70
    for call, name in zip(calls, named, strict=True):
        if name == 'DeclareLaunchArgument':
            assert 'description' in {keyword.arg for keyword in call.keywords}, ast.unparse(call)


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_the_arguments_of_a_launch_file_are_documented(path):
    pages = (ROOT / 'docs' / 'parameters.md').read_text()
    section = pages.split(f'## Arguments of {path.name}\n', 1)[1].split('\n## ', 1)[0]
    assert set(re.findall(r'^\| `(\w+)` \|', section, re.MULTILINE)) == set(arguments(path))


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_the_files_that_a_launch_file_loads_exist(path):
    folders = r"'(config|launch)' / '([\w.]+)'"
    loaded = re.findall(folders, path.read_text())
    assert loaded
    for folder, name in loaded:
        assert (ROOT / folder / name).is_file(), f'{folder}/{name}'


@pytest.mark.parametrize(('file', 'topic'), [
    ('vpr.rviz', r'Value: /(\w[\w/]+)'), ('foxglove.json', r'"/(\w[\w/]+)')])
def test_rviz_and_foxglove_show_topics_of_the_node(file, topic):
    topics = re.findall(topic, (ROOT / 'config' / file).read_text())
    documented = (ROOT / 'docs' / 'messages.md').read_text()
    assert topics
    for topic in topics:
        name = topic.replace('vpr_localizer/', '~/').replace('diagnostics', '/diagnostics')
        assert f'| `{name}` |' in documented, topic


def test_every_panel_of_the_foxglove_layout_is_described():
    layout = json.loads((ROOT / 'config' / 'foxglove.json').read_text())

    def panels(part):
        return {part} if isinstance(part, str) else panels(part['first']) | panels(part['second'])
    assert panels(layout['layout']) == set(layout['configById'])
