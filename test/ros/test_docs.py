"""The reference pages: every parameter, topic, service and diagnostic of the node stands there."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
import inspect
from pathlib import Path
import re
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy
from rclpy.qos import ReliabilityPolicy
from small_drive import render
from small_drive import stamp
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import raw_images
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.ros import health
from vpr_ros.ros.node import LocalizerNode
from vpr_ros.ros.operations import Operations
from vpr_ros.ros.parameters import PARAMETERS
import yaml

DOCS = Path(__file__).resolve().parents[2] / 'docs'
ROW = re.compile(r'^\| `([^`]+)` \| (.*) \|$', re.MULTILINE)


def rows(page, heading):
    """Return the rows of the tables under a heading: the cells after the first, by the first."""
    text = (DOCS / page).read_text()
    section = text.split(f'{heading}\n', 1)[1].split('\n## ', 1)[0]
    return {name: [cell.strip() for cell in rest.split('|')]
            for name, rest in ROW.findall(section)}


def parameter_rows():
    return rows('parameters.md', '# Parameters')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Return the model and the map of a node that can be configured."""
    folder = tmp_path_factory.mktemp('site')
    model = write_thumbnail_model(folder / 'm.onnx')
    return model, write_map(folder / 'map', model)


@pytest.fixture(scope='module', params=['raw', 'compressed'])
def active(request, site):
    """Return an active node that listens to one kind of images."""
    context = Context()
    rclpy.init(args=[], context=context)
    given = {'model': str(site[0]), 'map': str(site[1]), 'provider': 'cpu', 'threads': 1,
             'image_transport': request.param}
    node = LocalizerNode(context=context, parameter_overrides=[
        Parameter(name, value=value) for name, value in given.items()])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    yield node
    node.trigger_shutdown()
    node.destroy_node()
    context.try_shutdown()


def own(names_and_ends, node, beside):
    """Return ends by documented name, without those that every lifecycle node has."""
    prefix = f'{node.get_fully_qualified_name()}/'
    short = {(f'~/{name.removeprefix(prefix)}' if name.startswith(prefix) else name): end
             for name, end in names_and_ends}
    return {name: end for name, end in short.items() if name not in beside}


def type_name(message):
    package, kind = message.__module__.split('.')[:2]
    return f'{package}/{kind}/{message.__name__}'


def quality(profile):
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return (f'{"reliable" if reliable else "best effort"}'
            f'{", transient local" if latched else ""}, depth {profile.depth}')


def test_the_table_of_parameters_is_that_of_the_node():
    assert [(name, yaml.safe_load(cells[0].strip('`')))
            for name, cells in parameter_rows().items()] == [
                (parameter.name, parameter.default) for parameter in PARAMETERS]


def test_the_table_gives_each_parameter_its_range_and_when_it_may_change():
    for parameter in PARAMETERS:
        _, allowed, changed, _ = parameter_rows()[parameter.name]
        expected = ' '.join(f'`{choice}`' for choice in parameter.choices)
        if parameter.bounds:
            expected = f'{parameter.bounds[0]:g} to {parameter.bounds[1]:g}'
        assert allowed == expected, parameter.name
        assert (changed == 'yes') == parameter.live, parameter.name


def test_the_arguments_of_the_launch_file_are_documented():
    # Read as text: launch is not to be had with the ROS 2 wheels.
    text = (DOCS.parent / 'launch' / 'localize.launch.py').read_text()
    assert set(rows('parameters.md', '## Arguments of localize.launch.py')) == set(
        re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", text))


def test_every_topic_out_is_documented_with_its_type_and_quality_of_service(active):
    topics = own([(p.topic_name, p) for p in active.publishers], active,
                 {'/rosout', '/parameter_events', '~/transition_event'})
    table = rows('messages.md', '## Topics out')
    assert set(topics) <= set(table)
    assert {name for name in table if name.startswith(('~', '/'))} == set(topics)
    for name, publisher in topics.items():
        assert table[name][0] == f'`{type_name(publisher.msg_type)}`'
        assert table[name][1] == quality(publisher.qos_profile)


def test_every_topic_in_is_documented_with_its_type_and_quality_of_service(active):
    topics = own([(s.topic_name.lstrip('/'), s) for s in active.subscriptions], active,
                 {'parameter_events'})
    table = rows('messages.md', '## Topics in')
    table = {name.lstrip('/'): cells for name, cells in table.items()}
    absent = {'image' if 'image/compressed' in topics else 'image/compressed'}
    if find_spec('tf2_msgs') is None:
        absent.add('tf_static')
    assert set(topics) == set(table) - absent
    for name, subscription in topics.items():
        assert table[name][0] == f'`{type_name(subscription.msg_type)}`'
        expected = quality(subscription.qos_profile)
        assert table[name][1].startswith(expected) or table[name][1] == 'as above'


def test_every_service_is_documented_with_its_type(active):
    services = own([(s.srv_name if s.srv_name.startswith('/') else active.resolve_service_name(
        s.srv_name), s) for s in active.services], active, set())
    table = rows('messages.md', '## Services')
    assert {name: cells[0] for name, cells in table.items()} == {
        name: f'`{type_name(service.srv_type)}`' for name, service in services.items()
        if service.srv_type.__name__ == 'Trigger'}


def test_every_diagnostic_value_and_stage_is_documented(site):
    table = rows('messages.md', '## Diagnostics')
    localizer = Localizer(Encoder(site[0], 'cpu', 1), PlaceMap.load(site[1]))
    estimate = localizer.localize(render(3), stamp(3))
    state = health.Health()
    state.failed('because')
    state.processed(estimate, {})
    assert set(state.values()) <= set(table)
    state.refined(replace(estimate, landmarks=np.zeros((20, 3))), 0.1)
    assert {'refine', 'refined total'} < set(table)
    assert set(state.values()) - {'refine p50 (ms)', 'refine p99 (ms)'} <= set(table)
    stages = re.findall(r"watch\.stage\('(\w+)'\)", inspect.getsource(Operations._localize))
    assert {'encode', 'search'} < set(stages) < set(table)
    watch = health.Stopwatch(time.perf_counter())
    with watch.stage('encode'):
        pass
    watch.answered()
    assert {'wait', 'total'} < set(watch.seconds) <= {*table, 'beside encode'}
    assert '`beside encode`' in (DOCS / 'messages.md').read_text()


def test_every_diagnostic_value_of_the_inputs_and_outputs_is_documented(active):
    shown = set(active._watch.values()) | set(active.operations.description())
    assert shown | {'transform', 'filter resets'} <= set(rows('messages.md', '## Diagnostics'))


def test_every_encoding_is_documented():
    section = (DOCS / 'messages.md').read_text().split('**Images.**', 1)[1].split(';', 1)[0]
    assert set(re.findall('`([^`]+)`', section)) == set(raw_images.ENCODINGS)


def test_the_arrays_of_a_map_are_documented(site):
    table = rows('file-formats.md', '### places.npz')
    with np.load(site[1] / 'places.npz', allow_pickle=False) as places:
        assert {name: cells[0] for name, cells in table.items()} == {
            'landmarks': 'int64', 'landmark_errors': 'float32',  # only in maps with landmarks
            **{name: str(places[name].dtype) for name in places.files}}


def test_every_key_of_map_yaml_is_documented(site):
    text = (DOCS / 'file-formats.md').read_text().split('### map.yaml', 1)[1].split('### ', 1)[0]
    manifest = yaml.safe_load((site[1] / 'map.yaml').read_text())
    keys = {f'model.{key}' for key in manifest.pop('model')} | set(manifest)
    listed = {name for line in text.splitlines() if line.startswith('| `')
              for name in re.findall('`([^`]+)`', line.split(' | ')[0])}
    assert listed == keys
