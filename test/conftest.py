"""
The surroundings of every test: a ROS 2 domain, log folder and home of the run's own.

And the one model that tests of many modules share; other fixtures live beside their tests.
"""

from __future__ import annotations

from importlib.util import find_spec
import os
from pathlib import Path
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vpr_ros.encoding.encoder import Encoder


@pytest.fixture(scope='session')
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a small ONNX model of the contract, which needs no training."""
    from thumbnail_model import write_thumbnail_model
    return write_thumbnail_model(tmp_path_factory.mktemp('model') / 'thumbnail.onnx')


@pytest.fixture(scope='session')
def encoder(model_path: Path) -> Encoder:
    """Return an encoder of that model."""
    from vpr_ros.encoding.encoder import Encoder
    return Encoder(model_path, provider='cpu', threads=1)


def pytest_configure() -> None:
    """
    Set the environment that rclpy reads when it starts, for the tests and their processes.

    A ROS_DOMAIN_ID that is set already may be that of a robot, so it is not kept. (The ROS 2
    wheels restart Python once to set their library path, from a .pth file: before pytest.)
    """
    # A script's background job is started deaf to it, and so would be the commands that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scratch = _scratch()
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'  # its name for the same; later ones warn of it
    os.environ['ROS_LOG_DIR'] = str(scratch)
    os.environ.setdefault('HOME', str(scratch))
    os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_unconfigure() -> None:
    """Remove what the run's ROS 2 logged."""
    shutil.rmtree(_scratch(), ignore_errors=True)


def pytest_report_header() -> str:
    """Say which ROS 2 the tests run against."""
    if find_spec('rclpy') is None:
        return 'ROS 2: none, the tests of the node are skipped'
    wheels = find_spec('ros_wheels_bootstrapper') is not None
    source = 'the wheels' if wheels else os.environ.get('ROS_DISTRO', 'unknown')
    return f'ROS 2: {source}, domain {os.environ["ROS_DOMAIN_ID"]}'


def _scratch() -> Path:
    return Path(tempfile.gettempdir()) / f'vpr_ros-test-{os.getpid()}'
