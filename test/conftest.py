"""
The environment of every test: a ROS 2 domain, log folder and home of this test run.

Also the model that tests of many modules share; other fixtures are beside their tests.
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
    """Return the path of a small ONNX model that needs no training."""
    from thumbnail_model import write_thumbnail_model
    return write_thumbnail_model(tmp_path_factory.mktemp('model') / 'thumbnail.onnx')


@pytest.fixture(scope='session')
def encoder(model_path: Path) -> Encoder:
    """Return an encoder with that model."""
    from vpr_ros.encoding.encoder import Encoder
    return Encoder(model_path, provider='cpu', threads=1)


def pytest_configure() -> None:
    """
    Set the environment that rclpy reads at start, for the tests and their subprocesses.

    A ROS_DOMAIN_ID that is already set may be that of a robot, so it is replaced. (The ROS 2
    wheels restart Python once, from a .pth file, to set their library path: before pytest.)
    """
    # A shell starts background jobs with SIGINT ignored, and their subprocesses inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scratch = _scratch()
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'  # Humble's name for it, deprecated later
    os.environ['ROS_LOG_DIR'] = str(scratch)
    os.environ.setdefault('HOME', str(scratch))
    os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_unconfigure() -> None:
    """Remove the ROS 2 logs of this run."""
    shutil.rmtree(_scratch(), ignore_errors=True)


def pytest_report_header() -> str:
    """Return the line that names the ROS 2 under test."""
    if find_spec('rclpy') is None:
        return 'ROS 2: none, the tests of the node are skipped'
    wheels = find_spec('ros_wheels_bootstrapper') is not None
    source = 'wheels from PyPI' if wheels else os.environ.get('ROS_DISTRO', 'unknown')
    return f'ROS 2: {source}, domain {os.environ["ROS_DOMAIN_ID"]}'


def _scratch() -> Path:
    return Path(tempfile.gettempdir()) / f'vpr_ros-test-{os.getpid()}'
