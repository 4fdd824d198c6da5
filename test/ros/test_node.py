"""The life of the node as a process: its states, what fails in them, and signals."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import importlib.util
from pathlib import Path
import re
import signal

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from node_operator import ACTIVATE
from node_operator import CLEANUP
from node_operator import CONFIGURE
from node_operator import DEACTIVATE
from node_operator import frame
from node_operator import LIMIT
from node_operator import node_parameters
from node_operator import node_process_on
from node_operator import Operator
from node_operator import SHUTDOWN
from small_drive import IMAGES
from small_drive import render
from small_drive import stamp
from small_drive import write_map
from std_srvs.srv import Trigger
from thumbnail_model import write_thumbnail_model
from vpr_ros.io import messages
from vpr_ros.ros import node_process
from vpr_ros.ros.bond import stop_bond
from vpr_ros.ros.interfaces import rclpy_types


def test_a_model_that_crashes_can_be_configured_again(site, unconfigured):
    node = unconfigured
    model = write_thumbnail_model(site / 'fragile.onnx', fragile=True)
    write_map(site / 'fragile-map', model)
    assert node.set_parameters(map=str(site / 'fragile-map'), model=str(model)) == ''
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.connect()
    node.camera.publish(messages.image(rclpy_types, stamp(1), 'camera',
                                       render(1) | np.uint8(255 * (np.arange(80) < 8))[:, None]))
    status = node.status(lambda values: values['level'] == '2')
    assert status['message'].startswith('model failed: ')
    assert node.state() == 'unconfigured'
    assert not node.change(DEACTIVATE)  # by a manager that thinks that it is still active
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.connect()
    assert node.localise(frame(5))['place'][0] == 5
    assert node.status()['level'] != '2'


@pytest.mark.skipif(importlib.util.find_spec('tf2_ros') is not None, reason='tf2_ros is there')
def test_a_transform_needs_tf2(site, unconfigured):
    assert unconfigured.set_parameters(map=str(site / 'map'), publish_tf=True) == ''
    assert not unconfigured.change(CONFIGURE)
    assert 'publish_tf needs tf2_ros' in unconfigured.status()['message']


def test_an_active_node_has_a_bond_with_nav2s_lifecycle_manager(site, unconfigured):
    bondpy = pytest.importorskip('bondpy.bondpy', reason='bondpy is not installed')
    formed, broken = [], []
    assert unconfigured.set_parameters(map=str(site / 'map')) == ''
    assert unconfigured.change(CONFIGURE)
    bond = bondpy.Bond(unconfigured.node, 'bond', 'vpr_localizer',
                       on_broken=lambda: broken.append(1), on_formed=lambda: formed.append(1))
    bond.start()
    assert unconfigured.change(ACTIVATE)
    unconfigured.until(lambda: formed)
    assert not broken
    assert unconfigured.change(DEACTIVATE)
    unconfigured.until(lambda: broken)
    stop_bond(unconfigured.node, bond)
    assert unconfigured.change(ACTIVATE)
    unconfigured.connect()


def test_it_goes_through_its_states_and_back(site, unconfigured):
    node = unconfigured
    assert node.state() == 'unconfigured'
    assert not node.call(Trigger, 'relocalize').success
    assert not node.call(Trigger, 'reload_map').success
    for transition in (ACTIVATE, CLEANUP, DEACTIVATE, 255):
        assert not node.change(transition)
    assert node.set_parameters(map=str(site / 'map')) == ''
    for _ in range(2):
        assert node.change(CONFIGURE)
        assert node.state() == 'inactive'
        assert node.camera.get_subscription_count() == 0
        for _ in range(2):
            assert node.change(ACTIVATE)
            node.connect()
            assert node.call(Trigger, 'relocalize').success
            assert not node.change(ACTIVATE)
            assert node.localise(frame(5))['place'][0] == 5
            assert node.change(DEACTIVATE)
            assert not node.change(DEACTIVATE)
            node.until(lambda: node.camera.get_subscription_count() == 0)
        assert node.change(CLEANUP)
        assert node.state() == 'unconfigured'
    assert 'map' not in node.status()
    assert node.change(SHUTDOWN)
    assert node.state() == 'finalized'
    assert not node.change(CONFIGURE)
    assert 'Traceback' not in node.log.read_text()
    assert 'transition 3 refused: the node is unconfigured' in node.log.read_text()


def test_why_configure_failed_is_reported_and_can_be_corrected(site, unconfigured):
    node = unconfigured
    (site / 'text.onnx').write_text('not a model')
    (site / 'cut.onnx').write_bytes((site / 'm.onnx').read_bytes()[:300])
    good = {'map': str(site / 'map'), 'model': str(site / 'm.onnx')}
    for values, why in (
            ({'map': ''}, "the parameter 'map' is empty"),
            ({'map': str(site / 'nothing')}, 'nothing: no such map directory'),
            ({'map': str(site)}, 'is not a map'),
            ({'map': str(site / 'other-map')}, 'was built with the model other.onnx'),
            ({'model': str(site / 'text.onnx')}, 'text.onnx cannot be loaded'),
            ({'model': str(site / 'cut.onnx')}, 'cut.onnx cannot be loaded'),
            ({'model': str(site / 'none.onnx')}, 'none.onnx: no such model file'),
            ({'provider': 'tensorrt'}, "'tensorrt' does not load here")):
        assert node.set_parameters(**{**good, 'provider': 'cpu', **values}) == ''
        assert not node.change(CONFIGURE)
        errors = [line for line in node.log.read_text().splitlines() if '[ERROR]' in line]
        assert why in errors[-1]
        assert node.state() == 'unconfigured'
    status = node.status()
    assert status['level'] == '2'
    assert "'tensorrt' does not load here" in status['message']
    assert 'Traceback' not in node.log.read_text()

    assert node.set_parameters(**good, provider='auto') == ''
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    node.connect()
    assert node.localise(frame(5))['place'][0] == 5
    status = node.status()
    assert status['state'] == 'active'
    assert status['level'] != '2'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_while_it_receives_frames(site, alone, tmp_path, number):
    log = tmp_path / 'node.log'
    with node_process_on(site, log) as process, Operator(process) as operator:
        operator.connect()
        operator.localise(frame(0))
        for place in range(1, 20):
            operator.camera.publish(frame(place))
        process.send_signal(number)
        assert process.wait(LIMIT) == 0
    assert 'Traceback' not in log.read_text()


def test_a_signal_during_its_start_ends_it_cleanly(site, alone, tmp_path):
    log = tmp_path / 'node.log'
    with node_process_on(site, log) as process:
        status = Path(f'/proc/{process.pid}/status')
        while not 1 << signal.SIGINT - 1 & int(re.search(r'SigBlk:\s*(\w+)',
                                                        status.read_text())[1], 16):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0
    assert 'Traceback' not in log.read_text()


def test_two_nodes_with_namespaces_do_not_mix_their_topics(site, alone, tmp_path):
    def arguments(side):
        return [*node_process.node_arguments(node_parameters(site), f'/{side}{IMAGES}'),
                '-r', f'__ns:=/{side}']

    def node(side):
        return node_process.process('vpr_ros.ros.run', *arguments(side),
                                    log=tmp_path / f'{side}.log')

    with node('left') as left, node('right'), Operator(left) as operator:
        candidates = {'left': [], 'right': []}
        cameras = {side: operator.new_camera(topic=f'/{side}{IMAGES}') for side in candidates}
        for side, clouds in candidates.items():
            operator.subscribe(messages.CLOUD, f'/{side}{node_process.NODE}/candidates',
                               clouds.append)
        sent = iter(range(10_000))

        def answered():  # each has to find the camera and the subscriber first
            time = stamp(next(sent))
            for number, camera in enumerate(cameras.values()):
                camera.publish(frame(10 * number, time=time))
            return all(candidates.values())
        operator.until(answered)
        for number, clouds in enumerate(candidates.values()):
            assert messages.read_cloud(clouds[0])['place'][0] == 10 * number
        assert not operator.candidates
