"""The heartbeat that nav2's lifecycle manager wants of an active node, where bondpy is there."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

_TIMEOUT = 4.0
"""Seconds after which nav2's nodes give their manager up."""


def bonded(node: Node, period: float) -> Any:
    """
    Return a bond with a heartbeat every `period` seconds; None for 0, or without bondpy.

    The manager looks for it on the topic `bond`, under the name of the node
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


def unbond(node: Node, bond: Any) -> None:
    """
    Tell the manager that the bond is over, and free what it has of the node.

    Its own `shutdown` destroys its subscription without a word to the node, whose executor then
    fails.
    """
    bond.break_bond()
    with bond.lock:
        bond.is_shutdown = True
        bond.condition.notify_all()
        for timer in (bond.connect_timer, bond.heartbeat_timer, bond.disconnect_timer):
            timer.cancel()
        node.destroy_subscription(bond.sub)
        node.destroy_publisher(bond.pub)
