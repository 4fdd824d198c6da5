"""localize.launch.py: the installed package starts, localises frames of a played bag, and ends.

Needs a ROS 2 that has launch, which the wheels lack.
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

import pytest

# Not `launch`: without it the folder launch/ of this package would pass for one.
launch_ros = pytest.importorskip(
    'launch_ros', reason='no launch_ros, which the ROS 2 wheels lack: localize.launch.py is '
                         'not tried')
colcon_core = pytest.importorskip('colcon_core')

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
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from small_drive import IMAGES
from small_drive import START
from small_drive import STEP
from small_drive import write_bag
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.ros import live
from vpr_ros.ros import messages
from vpr_ros.ros.play import play

FIELDS = {ParameterType.PARAMETER_BOOL: 'bool_value',
          ParameterType.PARAMETER_INTEGER: 'integer_value',
          ParameterType.PARAMETER_STRING: 'string_value'}
ROOT = Path(__file__).resolve().parents[2]
LIMIT = 30.0
"""Seconds after which something that has not happened will not."""


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Build the package, put it before any other that is installed, and return its launch file."""
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
        yield prefix / 'share' / 'vpr_ros' / 'launch' / 'localize.launch.py'


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    """Return a model, a map of a drive that was made with it, and a bag of another such drive."""
    folder = tmp_path_factory.mktemp('drive')
    model = write_thumbnail_model(folder / 'model.onnx')
    return model, write_map(folder / 'map', model), write_bag(folder / 'again.mcap', noise=1)


def launch(path, arguments, meanwhile, namespace=''):
    """Launch a file and shut down once `meanwhile` is done.

    Returns the exit codes of launch and of the processes, and what `meanwhile` returned.
    """
    codes = []
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
        assert running.wait(LIMIT)  # before that, the shutdown would be lost
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
        self._node = rclpy.create_node('asker', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        return self

    def __exit__(self, *exception):
        self._node.destroy_node()
        self._context.try_shutdown()

    def ask(self, kind, name, **request):
        client = self._node.create_client(kind, name)
        assert client.wait_for_service(LIMIT), f'{name} never came'
        answer = client.call_async(kind.Request(**request))
        self._executor.spin_until_future_complete(answer, LIMIT)
        assert answer.done(), f'{name} does not answer'
        return answer.result()


def test_it_localises_what_is_played_and_ends_cleanly(installed, drive):
    model, place_map, bag = drive

    def meanwhile():
        with live.Recorder() as recorder, Asker() as asker:
            assert recorder.wait(lambda: bool(recorder.maps), LIMIT), 'never active'
            state = asker.ask(GetState, '/vpr_localizer/get_state').current_state.label
            play(bag, rate=5, topics=[IMAGES], wait_for_subscribers=1, wait_limit=LIMIT)
            assert recorder.wait(lambda: bool(recorder.poses), LIMIT), 'no pose'
            return state, recorder.poses[0]

    ended, codes, (state, pose) = launch(installed, {'map': place_map, 'model': model}, meanwhile)
    assert state == 'active'
    place = (messages.stamp_ns(pose.header) - START) // STEP
    assert messages.pose_of(pose)[0] == pytest.approx(place, abs=5)
    assert (ended, codes) == (0, [0])


def test_the_file_of_parameters_has_its_say_and_arguments_win_over_it(installed, drive, tmp_path):
    model, place_map, _ = drive
    own = tmp_path / 'own.yaml'
    own.write_text('/**:\n  ros__parameters:\n'
                   f'    map: /of/the/file\n    model: {model}\n    use_sim_time: true\n'
                   '    autostart: true\n    image_transport: compressed\n    top_k: 3\n')
    node, names = '/robot/vpr_localizer', ['map', 'model', 'use_sim_time', 'autostart', 'top_k']

    def meanwhile():
        with Asker() as asker:
            state = asker.ask(GetState, f'{node}/get_state').current_state.label
            values = asker.ask(GetParameters, f'{node}/get_parameters', names=names).values
            return state, [getattr(value, FIELDS[value.type]) for value in values]

    ended, codes, (state, values) = launch(
        installed, {'map': place_map, 'params_file': own, 'autostart': 'false'}, meanwhile,
        namespace='robot')
    assert state == 'unconfigured'
    assert values == [str(place_map), str(model), True, False, 3]
    assert (ended, codes) == (0, [0])


@pytest.mark.parametrize('arguments', [{}, {'map': 'map', 'params_file': 'missing.yaml'}],
                         ids=['no map', 'params_file missing'])
def test_nothing_starts_without_what_it_needs(installed, arguments):
    assert launch(installed, arguments, lambda: None) == (1, [], None)
