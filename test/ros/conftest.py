"""
The nodes that the tests of this folder operate, each a process of its own.

What imports rclpy is imported in the fixtures: without ROS 2 the tests are skipped, not broken.
"""

from __future__ import annotations

import os

import pytest
from small_drive import IMAGES
from small_drive import write_bag
from small_drive import write_map


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Return a folder with m.onnx, other.onnx, maps of both, and a bag."""
    from thumbnail_model import write_thumbnail_model
    folder = tmp_path_factory.mktemp('site')
    model = write_thumbnail_model(folder / 'm.onnx')
    write_map(folder / 'map', model)
    write_map(folder / 'half', model, range(20))
    write_map(folder / 'other-map', write_thumbnail_model(folder / 'other.onnx', gain=2.0))
    write_bag(folder / 'query', noise=1)
    return folder


@pytest.fixture(scope='module')
def robot(site):
    """Return an operator of a running node, which the tests of a module share."""
    from node_operator import node_process_on
    from node_operator import Operator
    with node_process_on(site, site / 'robot.log') as process, Operator(process) as operator:
        operator.connect()
        yield operator


@pytest.fixture
def fresh(robot):
    """Return the operator of the shared node, which has forgotten the drive before."""
    from std_srvs.srv import Trigger
    assert robot.call(Trigger, 'relocalize').success
    return robot


@pytest.fixture
def alone(monkeypatch):
    """Set a ROS domain in which the shared node is not."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(100 + int(os.environ['ROS_DOMAIN_ID'])))


@pytest.fixture
def unconfigured(site, alone, tmp_path):
    """Return an operator of a node of its own, which has not been configured."""
    from node_operator import node_parameters
    from node_operator import Operator
    from vpr_ros.ros import node_process
    arguments = node_process.node_arguments(node_parameters(site, map="''"), IMAGES)
    arguments[arguments.index('autostart:=true')] = 'autostart:=false'
    log = tmp_path / 'node.log'
    with node_process.process('vpr_ros.ros.run', *arguments, log=log) as process, \
            Operator(process) as operator:
        operator.log = log
        yield operator


@pytest.fixture
def world():
    """Return two nodes in this process."""
    from world import World
    made = World('--ros-args', '-r', 'image:=/camera/image_raw', '-r', 'odom:=/odom')
    yield made
    made.end()


@pytest.fixture
def simulated():
    """Return two nodes in this process, on a simulated clock."""
    from world import World
    made = World(simulated=True)
    yield made
    made.end()
