"""The node's parameters: the configuration file repeats them, and wrong values are refused."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import inspect
from pathlib import Path
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from small_drive import render
from small_drive import stamp
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.core.errors import SignatureError
from vpr_ros.core.signatures import new_key
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.trust import sign
from vpr_ros.ros.node import LocalizerNode
from vpr_ros.ros.operations import load_localizer
from vpr_ros.ros.parameters import PARAMETERS
from vpr_ros.ros.run import main
import yaml

LIMIT = 60.0
CONFIG = Path(__file__).resolve().parents[2] / 'config' / 'localize.yaml'


@pytest.fixture
def context():
    context = Context()
    rclpy.init(args=[], context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def start(context):
    """Make nodes with parameters; they are destroyed at the end."""
    nodes = []

    def make(**parameters):
        nodes.append(LocalizerNode(context=context, parameter_overrides=[
            Parameter(name, value=value) for name, value in parameters.items()]))
        return nodes[-1]
    yield make
    for node in nodes:
        node.destroy_node()


@pytest.fixture
def site(tmp_path):
    """Return the parameters of a node that can be configured."""
    model = write_thumbnail_model(tmp_path / 'm.onnx')
    return {'model': str(model), 'map': str(write_map(tmp_path / 'map', model)),
            'provider': 'cpu', 'threads': 1}


def refusal(node, **values):
    """Set parameters; return why one was refused, '' if all were taken."""
    results = node.set_parameters([Parameter(name, value=value)
                                   for name, value in values.items()])
    assert all(result.successful == (not result.reason) for result in results)
    return '; '.join(result.reason for result in results if result.reason)


def test_the_configuration_file_has_every_parameter_with_its_default():
    listed = yaml.safe_load(CONFIG.read_text())['/**']['ros__parameters']
    assert list(listed.items()) == [(p.name, p.default) for p in PARAMETERS]
    assert [type(value) for value in listed.values()] == [type(p.default) for p in PARAMETERS]


def test_every_parameter_in_the_configuration_file_has_its_description():
    lines = [line.strip() for line in CONFIG.read_text().splitlines()]
    for parameter in PARAMETERS:
        place = next(i for i, line in enumerate(lines) if line.startswith(f'{parameter.name}:'))
        assert lines[place - 1].startswith('# ')
        for choice in parameter.choices:
            assert choice in lines[place - 1]
        begin = next(i for i in range(place, 0, -1) if not lines[i - 1].startswith('# '))
        comment = ' '.join(line.removeprefix('# ') for line in lines[begin:place])
        assert comment == parameter.description


def test_every_parameter_is_declared_with_its_meaning_and_range(start):
    node = start()
    for parameter in PARAMETERS:
        descriptor = node.describe_parameter(parameter.name)
        assert node.get_parameter(parameter.name).value == parameter.default
        assert descriptor.description == parameter.description
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        assert [(r.from_value, r.to_value) for r in ranges] == (
            [parameter.bounds] if parameter.bounds else [])
        for choice in parameter.choices:
            assert choice in descriptor.additional_constraints


def test_every_option_of_the_localizer_is_a_live_parameter():
    arguments = inspect.signature(Localizer).parameters
    assert [parameter.attribute for parameter in PARAMETERS if parameter.live] == [
        name for name in arguments if name not in ('encoder', 'place_map')]


@pytest.mark.parametrize(('name', 'value', 'reason'), [
    ('top_k', 0, 'range'), ('top_k', 1001, 'range'), ('threads', -1, 'range'),
    ('min_confidence', 1.1, 'range'), ('min_confidence', float('nan'), 'range'),
    ('correct_radius', 0.0, 'range'), ('correct_radius', float('inf'), 'range'),
    ('provider', 'abacus', 'use auto or one of tensorrt'),
    ('provider', 'cuda,abacus', "'abacus' is not known"),
    ('image_transport', 'smoke', 'must be one of raw, compressed'),
])
def test_a_value_out_of_bounds_is_refused(start, name, value, reason):
    node = start()
    before = node.get_parameter(name).value
    assert reason in refusal(node, **{name: value})
    assert node.get_parameter(name).value == before
    with pytest.raises(ParameterException, match=reason):
        start(**{name: value})


@pytest.mark.parametrize(('name', 'value'), [('map', 5), ('top_k', 2.5), ('compensate', 'yes')])
def test_a_value_of_another_type_is_refused(start, name, value):
    node = start()
    assert refusal(node, **{name: value})
    with pytest.raises(ParameterException):
        start(**{name: value})


@pytest.mark.parametrize('assignment', ['top_k:=0', 'map:=2024', 'image_transport:=smoke'])
def test_the_executable_prints_a_refusal_in_one_line(assignment, capsys):
    assert main(['--ros-args', '-p', assignment]) == 1
    printed = capsys.readouterr().err.splitlines()
    assert len([line for line in printed if line.startswith('vpr_localizer: ')]) == 1
    assert assignment.split(':=')[0] in printed[-1]
    assert not any('Traceback' in line for line in printed)


def test_the_executable_prints_its_topics_and_parameters(capsys):
    assert main(['--help']) == 0
    printed = capsys.readouterr().out
    for parameter in PARAMETERS:
        assert f'\n  {parameter.name} ' in printed
        assert parameter.description.split()[0] in printed
    for topic in ('image/compressed', 'odom', 'initialpose', 'odometry/filtered', '/pose'):
        assert topic in printed
    assert max(map(len, printed.splitlines())) < 100


def test_a_parameter_that_is_not_known_is_warned_about(start, capfd):
    start(min_confidance=0.5, use_sim_time=False, map='x')
    start(xyz=1)
    lines = [line.split(']: ')[1] for line in capfd.readouterr().err.splitlines()
             if 'unknown' in line]
    assert lines == ["unknown parameter 'min_confidance' is ignored: did you mean "
                     "'min_confidence'?",
                     "unknown parameter 'xyz' is ignored: localizer --help lists all"]


def test_what_takes_effect_in_configure_is_refused_while_configured(start, site):
    node = start(**site)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    for name, value in (('provider', 'auto'), ('threads', 2), ('model', ''),
                        ('image_transport', 'compressed'), ('image_reliable', True)):
        assert 'clean up first' in refusal(node, **{name: value})
    assert refusal(node, provider='cpu', threads=1) == ''  # no change
    assert refusal(node, map='elsewhere') == ''  # ~/reload_map takes it

    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert refusal(node, provider='auto', threads=2, image_transport='compressed') == ''


def test_the_order_of_transitions_is_kept(start, site):
    node = start(**site)
    success = TransitionCallbackReturn.SUCCESS
    for _ in range(2):
        assert node.trigger_configure() == success
        assert node.trigger_activate() == success
        assert node.trigger_deactivate() == success
        assert node.trigger_activate() == success
        assert node.trigger_deactivate() == success
        assert node.trigger_cleanup() == success
    assert node.trigger_shutdown() == success


def test_the_running_mean_is_preserved_over_a_restart(start, site, tmp_path):
    parameters = {**site, 'state_file': str(tmp_path / 'state')}
    first = start(**parameters)
    for trigger in (first.trigger_configure, first.trigger_activate):
        assert trigger() == TransitionCallbackReturn.SUCCESS
    for place in range(5):
        first.operations.localizer.localize(render(place), stamp(place))
    assert first.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    saved = first.operations.localizer.state

    again = start(**parameters)
    again.trigger_configure()
    again.trigger_activate()
    again.operations.localizer.localize(render(5), stamp(5))
    assert again.operations.localizer.state.weight == saved.weight + 1
    again.trigger_deactivate()


def test_home_is_expanded_in_every_path(start, site, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    node = start(provider='cpu', threads=1, map='~/map', model='~/m.onnx', state_file='~/state',
                 engine_cache='~/engines')
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    node.operations.localizer.localize(render(3), stamp(3))
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert (tmp_path / 'state').is_file()
    assert node.operations.description()['map'] == str(tmp_path / 'map')


def test_a_damaged_state_file_is_ignored(start, site, tmp_path):
    (tmp_path / 'state').write_text('no state')
    node = start(**site, state_file=str(tmp_path / 'state'))
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    node.trigger_deactivate()


def test_a_long_step_of_configure_is_published_in_diagnostics_at_once(start, context):
    node = start()
    listener = rclpy.create_node('listener', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(listener)
    received = []
    listener.create_subscription(DiagnosticArray, '/diagnostics', received.append, 10)
    end = time.monotonic() + LIMIT
    while not node.count_subscribers('/diagnostics'):
        assert time.monotonic() < end
        executor.spin_once(timeout_sec=0.05)
    while not any('building' in message.status[0].message for message in received):
        assert time.monotonic() < end
        node._report_progress('tensorrt: building the engine')  # the node itself does not spin
        executor.spin_once(timeout_sec=0.2)
    listener.destroy_node()
    executor.shutdown()


def test_only_what_its_owner_signed_is_loaded(start, site, tmp_path):
    pytest.importorskip('cryptography')
    new_key(tmp_path / 'key')
    new_key(tmp_path / 'foreign')
    node = start(**site, trusted_keys=str(tmp_path / 'key.pub'))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'is not signed' in node._problem
    sign(site['map'], tmp_path / 'foreign')
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'not among the trusted ones' in node._problem
    assert 'read-only' in refusal(node, trusted_keys='')  # nor by a message
    assert 'read-only' in refusal(node, trusted_keys=str(tmp_path / 'foreign.pub'))
    sign(site['map'], tmp_path / 'key')
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    other = write_map(tmp_path / 'other', site['model'])
    assert refusal(node, map=str(other)) == ''
    with pytest.raises(SignatureError, match='is not signed'):  # what ~/reload_map calls
        load_localizer(node, node.operations.localizer.encoder)


def test_a_node_whose_keys_cannot_be_read_loads_nothing(start, site, tmp_path):
    node = start(**site, trusted_keys=str(tmp_path / 'none.pub'))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'none.pub cannot be read' in node._problem
