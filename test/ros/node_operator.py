"""
An operator of a node that runs as a process of its own: camera, subscriber and service client.

For the tests of the node; the fixtures that start it are in conftest.py.
"""

from __future__ import annotations

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from small_drive import IMAGES
from small_drive import render
from small_drive import stamp
from vpr_ros.io import messages
from vpr_ros.ros import node_process
from vpr_ros.ros.interfaces import rclpy_types

LIMIT = 60.0
"""Seconds after which an event that has not happened counts as missing."""

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWN = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN


class Operator(node_process.Recorder):
    """Records what the node publishes, is its camera, and calls its services."""

    def __init__(self, process, *, compressed=False):
        super().__init__()
        self.process = process
        self._early = 0
        self._clients = {}
        self.camera = self.new_camera(
            messages.COMPRESSED_IMAGE if compressed else messages.RAW_IMAGE)

    def new_camera(self, kind=messages.RAW_IMAGE, topic=IMAGES,
                   reliability=ReliabilityPolicy.RELIABLE):
        return self.node.create_publisher(
            rclpy_types(kind), topic, QoSProfile(depth=100, reliability=reliability))

    def subscribe(self, kind, topic, callback):
        return self.node.create_subscription(rclpy_types(kind), topic, callback, 10)

    def unsubscribe(self, subscription):
        self.node.destroy_subscription(subscription)

    def until(self, happened):
        """Wait for an event that must happen."""
        assert self.wait(happened, LIMIT, self.process), 'waited in vain'

    def connect(self, send=None):
        """
        Send frames with early stamps until they are answered, and wait for the last answer.

        Before discovery is complete, best-effort messages may be lost.
        """
        send, known = send or self.camera.publish, len(self.candidates)

        def sent():
            self._early += 1
            time = stamp(-100_000 + self._early)
            send(frame(0, time=time))
            return time
        self.until(lambda: sent() and len(self.candidates) > known + 2)
        last = sent()
        self.until(lambda: messages.stamp_ns(self.candidates[-1].header) == last)

    def localise(self, message):
        """Send a frame that must be localised; return the columns of its candidates."""
        sent = messages.stamp_ns(message.header)
        known, before = len(self.candidates), len(self.confidences)
        self.camera.publish(message)

        def answer():
            # An earlier frame may still be answered after this one was sent.
            return next((cloud for cloud in self.candidates[known:]
                         if messages.stamp_ns(cloud.header) == sent), None)

        self.until(lambda: answer() is not None and len(self.confidences) > before)
        return messages.read_cloud(answer())

    def pose_at(self, time):
        """Wait for the pose with a stamp and return its message."""
        self.until(lambda: self.poses and messages.stamp_ns(self.poses[-1].header) == time)
        return self.poses[-1]

    def call(self, kind, name, **fields):
        """Call a service of the node and return its response."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f'{node_process.NODE}/{name}')
            self._wait_until_known()
        self.until(self._clients[name].service_is_ready)
        future = self._clients[name].call_async(kind.Request(**fields))
        self.until(future.done)
        return future.result()

    def _wait_until_known(self):
        """
        Wait until the node answers a client made after all others: it then knows those, too.

        The response to a client that the node has not discovered yet is lost. A question about
        the state may be asked again; a transition may not.
        """
        probe = self.node.create_client(GetState, f'{node_process.NODE}/get_state')
        self.until(probe.service_is_ready)
        asked = []

        def answered():
            asked.append(probe.call_async(GetState.Request()))
            return self.wait(lambda: any(future.done() for future in asked), 1.0, self.process)

        self.until(answered)
        self.node.destroy_client(probe)

    def change(self, transition):
        """Ask for a transition; return whether it was made."""
        return self.call(ChangeState, 'change_state',
                         transition=Transition(id=transition)).success

    def state(self):
        return self.call(GetState, 'get_state').current_state.label

    def set_parameters(self, **values):
        """Set parameters; return why they were refused, '' if they were not."""
        answer = self.call(SetParameters, 'set_parameters', parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        return ''.join(result.reason for result in answer.results)

    def status(self, holds=None):
        """Return the first diagnostics that `holds` accepts, or some that were made after now."""
        if holds is None:  # the next one may have been on its way already
            count = len(self.diagnostics) + 1
            self.until(lambda: len(self.diagnostics) > count)
        else:
            self.until(lambda: self.diagnostics and holds(self.diagnostics[-1]))
        return self.diagnostics[-1]


def frame(place, *, time=None, noise=1):
    """Return the Image of a place of the small drive."""
    return messages.image(rclpy_types, stamp(place) if time is None else time, 'camera',
                          render(place, noise))


def node_parameters(site, **parameters):
    """Return the parameters of a node on the map of the fixture `site`, and some more."""
    return {'map': site / 'map', 'model': site / 'm.onnx', 'provider': 'cpu', 'threads': 1,
            **parameters}


def node_process_on(site, log, **parameters):
    """Run a node on the map of the fixture `site`, as a context manager."""
    return node_process.process('vpr_ros.ros.run', *node_process.node_arguments(
        node_parameters(site, **parameters), IMAGES), log=log)
