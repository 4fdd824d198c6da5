"""Two nodes in the process of a test, for parts of the node that need no process of their own."""

from __future__ import annotations

import time

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from vpr_ros.io import messages
from vpr_ros.ros.interfaces import rclpy_types

LIMIT = 60.0
"""Seconds after which an event that has not happened counts as missing."""


class World:
    """A lifecycle node, perhaps on a /clock, and a peer as in another process; spun in turn."""

    def __init__(self, *arguments, simulated=False):
        self._contexts = Context(), Context()
        for context in self._contexts:
            rclpy.init(args=[*arguments], context=context)
        self.node = LifecycleNode(
            'vpr_localizer', context=self._contexts[0],
            parameter_overrides=[Parameter('use_sim_time', value=simulated)])
        self.peer = rclpy.create_node('peer', context=self._contexts[1],
                                      use_global_arguments=False)
        self._executors = [SingleThreadedExecutor(context=context) for context in self._contexts]
        for executor, node in zip(self._executors, (self.node, self.peer), strict=True):
            executor.add_node(node)
        self.clock = self.peer.create_publisher(rclpy_types('rosgraph_msgs/msg/Clock'), '/clock',
                                                1)

    def until(self, happened):
        end = time.monotonic() + LIMIT
        while not happened():
            assert time.monotonic() < end, 'waited in vain'
            for executor in self._executors:
                executor.spin_once(timeout_sec=0.005)

    def set_time(self, ns):
        """Publish the time, until the node has it and its timers that were due have fired."""
        if not self.clock.get_subscription_count():
            self.until(self.clock.get_subscription_count)
        self.clock.publish(messages.clock(rclpy_types, ns))
        self.until(lambda: self.node.get_clock().now().nanoseconds == ns)
        for _ in range(2):
            self._executors[0].spin_once(timeout_sec=0)

    def end(self):
        for executor, node, context in zip(self._executors, (self.node, self.peer),
                                           self._contexts, strict=True):
            executor.shutdown()
            node.destroy_node()
            context.try_shutdown()
