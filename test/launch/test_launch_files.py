"""
The launch files: the installed package starts, localises frames of a played bag, and ends.

Needs a ROS 2 that has launch, which the wheels lack. Where robot_localization is missing, a filter
that republishes every pose stands in for it: the tests are about its inputs.
"""

# flake8: noqa: E402  (what imports launch comes after the check that it is there)

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import shutil
import subprocess
import sys
from threading import Event
import time

import pytest

# Not `launch`: where it is missing, the folder launch/ of this package would be found instead.
launch_ros = pytest.importorskip(
    'launch_ros', reason='no launch_ros, which the ROS 2 wheels lack: localize.launch.py is '
                         'not tested')
colcon_core = pytest.importorskip('colcon_core')

from ament_index_python.packages import get_package_prefix
from ament_index_python.packages import PackageNotFoundError
from launch import LaunchDescription
from launch import LaunchService
from launch.actions import GroupAction
from launch.actions import IncludeLaunchDescription
from launch.actions import OpaqueFunction
from launch.actions import RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import START
from small_drive import STEP
from small_drive import write_bag
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.io import messages
from vpr_ros.ros import node_process
from vpr_ros.ros.play import play
from vpr_ros.ros.play import PlayOptions

FIELDS = {ParameterType.PARAMETER_BOOL: 'bool_value',
          ParameterType.PARAMETER_INTEGER: 'integer_value',
          ParameterType.PARAMETER_STRING: 'string_value'}
ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name('ekf_stand_in.py')
LIMIT = 60.0
"""Seconds after which an event that has not happened counts as missing."""

PLAYING = PlayOptions(rate=5, topics=[IMAGES], wait_for_subscribers=1, wait_limit=LIMIT)


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Build the package, put it before an installed one, and return the folder of launch files."""
    folder = tmp_path_factory.mktemp('workspace')
    colcon = shutil.which('colcon', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    built = subprocess.run(
        [colcon, '--log-base', 'log', 'build', '--paths', str(ROOT), '--build-base', 'build',
         '--install-base', 'install'], cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    prefix = folder / 'install' / 'vpr_ros'
    modules = next(prefix.rglob('vpr_ros/__init__.py')).parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('AMENT_PREFIX_PATH', str(prefix), prepend=os.pathsep)
        patch.setenv('PYTHONPATH', str(modules), prepend=os.pathsep)
        yield prefix / 'share' / 'vpr_ros' / 'launch'


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    """Return a model, a map of a drive built with it, and a bag of a second drive."""
    folder = tmp_path_factory.mktemp('drive')
    model = write_thumbnail_model(folder / 'model.onnx')
    return model, write_map(folder / 'map', model), write_bag(folder / 'again.mcap', noise=1)


@pytest.fixture(scope='module')
def ekf_node(tmp_path_factory):
    """Provide an ekf_node: that of robot_localization, or the stand-in."""
    try:
        get_package_prefix('robot_localization')
    except PackageNotFoundError:
        prefix = tmp_path_factory.mktemp('robot_localization')
    else:
        yield
        return
    marker = prefix / 'share/ament_index/resource_index/packages/robot_localization'
    program = prefix / 'lib/robot_localization/ekf_node'
    for path in (marker, program):
        path.parent.mkdir(parents=True)
    marker.touch()
    program.write_text(f'#!{sys.executable}\n{STAND_IN.read_text()}')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('AMENT_PREFIX_PATH', str(prefix), prepend=os.pathsep)
        yield


def launch(path, arguments, meanwhile, namespace='', codes=None):
    """
    Launch a file and shut down once `meanwhile` is done.

    Returns the exit codes of launch and of the processes, and the result of `meanwhile`. The
    codes of the processes are appended to `codes` as they end.
    """
    codes = [] if codes is None else codes
    running = Event()
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([
        OpaqueFunction(function=lambda context: running.set()),
        RegisterEventHandler(OnProcessExit(
            on_exit=lambda event, context: codes.append(event.returncode))),
        GroupAction([
            PushRosNamespace(namespace),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(path)),
                launch_arguments=[(name, str(value)) for name, value in arguments.items()])])]))

    def watch():
        assert running.wait(LIMIT)  # an earlier shutdown would be lost
        try:
            return meanwhile()
        finally:
            service.shutdown()

    with ThreadPoolExecutor(1) as thread:
        watched = thread.submit(watch)
        ended = service.run()
    return ended, codes, watched.result()


class Asker:
    """Calls the services of a node. A context manager."""

    def __enter__(self):
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node('asker', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        return self

    def __exit__(self, *exception):
        self.node.destroy_node()
        self._context.try_shutdown()

    def until(self, happened):
        """Wait for an event that must happen."""
        end = time.monotonic() + LIMIT
        while not happened():
            assert time.monotonic() < end, 'waited in vain'
            self._executor.spin_once(0.05)

    def ask(self, kind, name, **request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(LIMIT), f'there is no {name}'
        answer = client.call_async(kind.Request(**request))
        self._executor.spin_until_future_complete(answer, LIMIT)
        assert answer.done(), f'{name} does not answer'
        return answer.result()


def test_it_localises_what_is_played_and_ends_cleanly(installed, drive):
    model, place_map, bag = drive

    def meanwhile():
        with node_process.Recorder() as recorder, Asker() as asker:
            assert recorder.wait(lambda: bool(recorder.maps), LIMIT), 'never active'
            state = asker.ask(GetState, '/vpr_localizer/get_state').current_state.label
            play(bag, PLAYING)
            assert recorder.wait(lambda: bool(recorder.poses), LIMIT), 'no pose'
            return state, recorder.poses[0]

    ended, codes, (state, pose) = launch(
        installed / 'localize.launch.py', {'map': place_map, 'model': model}, meanwhile)
    assert state == 'active'
    place = (messages.stamp_ns(pose.header) - START) // STEP
    assert messages.pose_of(pose)[0] == pytest.approx(place, abs=5)
    assert (ended, codes) == (0, [0])


def test_arguments_override_the_file_of_parameters(installed, drive, tmp_path):
    model, place_map, _ = drive
    params_file = tmp_path / 'localize.yaml'
    params_file.write_text('/**:\n  ros__parameters:\n'
                           f'    map: /of/the/file\n    model: {model}\n'
                           '    use_sim_time: true\n    autostart: true\n'
                           '    image_transport: compressed\n    top_k: 3\n')
    node, names = '/robot/vpr_localizer', ['map', 'model', 'use_sim_time', 'autostart', 'top_k']

    def meanwhile():
        with Asker() as asker:
            state = asker.ask(GetState, f'{node}/get_state').current_state.label
            values = asker.ask(GetParameters, f'{node}/get_parameters', names=names).values
            return state, [getattr(value, FIELDS[value.type]) for value in values]

    ended, codes, (state, values) = launch(
        installed / 'localize.launch.py',
        {'map': place_map, 'params_file': params_file, 'autostart': 'false'}, meanwhile,
        namespace='robot')
    assert state == 'unconfigured'
    assert values == [str(place_map), str(model), True, False, 3]
    assert (ended, codes) == (0, [0])


@pytest.mark.parametrize('arguments', [{}, {'map': 'map', 'params_file': 'missing.yaml'}],
                         ids=['no map', 'params_file missing'])
def test_nothing_starts_without_a_map_or_with_a_missing_params_file(installed, arguments):
    assert launch(installed / 'localize.launch.py', arguments, lambda: None) == (1, [], None)


def test_the_topics_in_are_in_the_namespace_of_the_robot(installed, drive):
    model, place_map, _ = drive

    def meanwhile():
        with Asker() as asker:
            asker.ask(GetState, '/robot/vpr_localizer/get_state')
            topics = ('/camera/image_raw', '/odom', '/initialpose')
            asker.until(lambda: all(asker.node.count_subscribers(f'/robot{topic}')
                                    for topic in topics))
            return [asker.node.count_subscribers(f'{robot}{topic}') for robot in ('/robot', '')
                    for topic in topics]

    ended, codes, subscribers = launch(
        installed / 'localize.launch.py',
        {'map': place_map, 'model': model, 'namespace': 'robot'}, meanwhile)
    assert subscribers == [1, 1, 1, 0, 0, 0]
    assert (ended, codes) == (0, [0])


@pytest.mark.parametrize('robot', ['', '/robot'], ids=['one robot', 'in a namespace'])
def test_the_filter_gets_the_poses_in_the_frames_of_the_map(installed, drive, ekf_node, robot):
    model, place_map, bag = drive
    filtered = []

    def meanwhile():
        with Asker() as asker:
            asker.node.create_subscription(
                Odometry, f'{robot}/odometry/map', filtered.append, 10)
            values = asker.ask(GetParameters, f'{robot}/ekf_map/get_parameters',
                               names=['odom0', 'use_sim_time']).values
            asker.until(lambda: asker.node.count_subscribers(f'{robot}/vpr_localizer/pose'))
            play(bag, PLAYING)
            asker.until(lambda: filtered)
            return [getattr(value, FIELDS[value.type]) for value in values]

    ended, codes, values = launch(
        installed / 'localize_with_ekf.launch.py',
        {'map': place_map, 'model': model, 'namespace': robot, 'odom_topic': 'wheels',
         'image_topic': IMAGES}, meanwhile)
    assert values == ['wheels', False]
    assert filtered[0].header.frame_id == 'map'
    assert filtered[0].child_frame_id == 'base_link'
    assert 0 <= filtered[0].pose.pose.position.x <= 40
    assert (ended, codes) == (0, [0, 0])


def test_a_bag_is_played_once_the_node_subscribes(installed, drive):
    model, place_map, bag = drive
    codes = []

    def meanwhile():
        with node_process.Recorder() as recorder:
            assert recorder.wait(lambda: bool(codes), LIMIT), 'still playing'
            # Without waiting, the images of more than a second would be lost: 12 of them.
            return recorder.wait(lambda: any(int(values.get('received', 0)) > COUNT - 10
                                             for values in recorder.diagnostics), LIMIT)

    ended, codes, received = launch(
        installed / 'replay.launch.py',
        {'map': place_map, 'model': model, 'bag': bag, 'rate': 2.5, 'rviz': 'false',
         'use_sim_time': 'false'},  # on the bag's clock, diagnostics would end with the bag
        meanwhile, codes=codes)
    assert received
    assert (ended, codes) == (0, [0, 0])
