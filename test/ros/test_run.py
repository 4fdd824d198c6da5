"""The process around the node: what its callbacks raise does not end it."""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

import threading

import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from vpr_ros.ros import run


@pytest.fixture
def spinning():
    """Return a node, its executor, and the event that ends the spinning."""
    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node('fragile', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor, threading.Event()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def test_a_callback_that_raises_does_not_end_the_node(spinning):
    node, executor, ended = spinning
    calls = []

    def fail():
        calls.append(1)
        if len(calls) == 3:
            ended.set()
        raise ZeroDivisionError
    node.create_timer(0.001, fail)
    run._spin(executor, node, ended)
    assert len(calls) == 3


def test_an_executor_that_always_fails_ends_the_node(spinning, monkeypatch):
    node, executor, ended = spinning
    monkeypatch.setattr(run, '_GIVE_UP', 5)

    def fail():
        raise ZeroDivisionError
    node.create_timer(0.001, fail)
    with pytest.raises(ZeroDivisionError):
        run._spin(executor, node, ended)
