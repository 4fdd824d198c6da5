"""The bond that nav2's lifecycle manager keeps with an active node, where bondpy is installed."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

_TIMEOUT = 4.0
"""Seconds without a heartbeat after which the bond counts as broken: nav2's own value."""


def start_bond(node: Node, period: float) -> Any:
    """
    Return a bond with a heartbeat every `period` seconds; None for 0, or without bondpy.

    The manager expects it on the topic `bond`, with the node's name as its id
    (nav2_util::LifecycleNode::createBond).
    """
    if not period:
        return None
    try:
        from bondpy.bondpy import Bond
    except ModuleNotFoundError:
        return None
    bond = Bond(node, 'bond', node.get_name())
    bond.heartbeat_period = period
    bond.heartbeat_timeout = _TIMEOUT
    bond.start()
    return bond


def stop_bond(node: Node, bond: Any) -> None:
    """
    Break the bond, which the manager sees at once, and remove its parts from the node.

    Bond.shutdown is no alternative: it destroys the subscription without removing it from the
    node, whose executor then fails.
    """
    bond.break_bond()
    with bond.lock:
        bond.is_shutdown = True
        bond.condition.notify_all()
        for timer in (bond.connect_timer, bond.heartbeat_timer, bond.disconnect_timer):
            timer.cancel()
        node.destroy_subscription(bond.sub)
        node.destroy_publisher(bond.pub)
