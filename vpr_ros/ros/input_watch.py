"""
Why the node is blind, or without odometry: what the ROS graph says of its topics.

Each reason names the topic and the remedy; it is logged once, and shown in /diagnostics.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

from rclpy.qos import ReliabilityPolicy
from vpr_ros.io import messages
from vpr_ros.ros import health

if TYPE_CHECKING:
    from rclpy.node import Node
    from vpr_ros.ros.health import Health

TRANSPORTS = {'raw': ('image', messages.RAW_IMAGE),
              'compressed': ('image/compressed', messages.COMPRESSED_IMAGE)}
"""The topic and the type that the node subscribes to, by `image_transport`."""

_ODOMETRY = 'nav_msgs/msg/Odometry'
_UNUSABLE = 'no image can be used'
_SUFFIX = '/compressed'
_MOST_NAMED = 3
_AHEAD = 1.0
"""Seconds from the time of the node to the stamp of an image that no clock is off by chance."""

_LASTING = 3
"""Checks in a row without odometry after which that is worth a warning."""


class InputWatch:
    """
    Watches the subscriptions of an active node; `check` it once a second.

    `transport` is a key of TRANSPORTS; `images` and `odometry` are the subscriptions.
    """

    def __init__(self, node: Node, state: Health, transport: str, images: Any, odometry: Any
                 ) -> None:
        self._node = node
        self._health = state
        self._transport = transport
        self._images = images
        self._odometry = odometry
        self._begin = state.counts['received']
        self._failed = state.counts['failed']
        self._used = state.counts['with odometry']
        self._unused = state.counts['without odometry']
        self._unused_checks = 0
        self._logged: set[str] = set()

    def check(self) -> tuple[bytes, str]:
        """Return the level and the message of the node, and log what is new of its inputs."""
        self._check_odometry()
        self._check_clock()
        level, message = self._health.verdict()
        if level == health.STALE:
            message = self._why_blind()
            # Why an image fails may have other numbers in it each time.
            self._log_once(_UNUSABLE if message.startswith(_UNUSABLE) else message, message)
        elif message != health.WAITING:
            self._failed = self._health.counts['failed']
            self._logged = {key for key in self._logged if key.startswith(('odometry', 'clock'))}
        return level, message

    def values(self) -> dict[str, str]:
        """Return the topics, how many publishers they have, and whether odometry is used."""
        topic, kind = self._images.topic_name, TRANSPORTS[self._transport][1]
        return {'image topic': topic, 'image type': kind, 'image transport': self._transport,
                'image publishers': str(len(self._publishers(topic))),
                'odometry topic': self._odometry.topic_name,
                'odometry publishers': str(len(self._publishers(self._odometry.topic_name))),
                'odometry': self._odometry_use()}

    # Images

    def _why_blind(self) -> str:
        """Return why no frame was localised lately."""
        counts = self._health.counts
        if counts['failed'] > self._failed:
            return f'{_UNUSABLE}: {self._health.last_failure}'
        topic, kind = self._images.topic_name, TRANSPORTS[self._transport][1]
        publishers = self._publishers(topic)
        matching = [publisher for publisher in publishers if publisher.topic_type == kind]
        if matching:
            reason = self._why_silent(topic, matching)
        elif publishers:
            reason = self._other_type(topic, publishers[0].topic_type, kind)
        else:
            came = counts['received'] > self._begin
            reason = (f'the publisher of {topic} is gone' if came
                      else f'nothing publishes {topic}') + self._elsewhere(topic)
        return f'no images: {reason}'

    def _why_silent(self, topic: str, publishers: list[Any]) -> str:
        has = f'{topic} has {_count(publishers)}'
        reliable = self._images.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        if reliable and all(publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
                            for publisher in publishers):
            return (f'{has} with best-effort QoS, from which a reliable subscriber gets nothing: '
                    'set image_reliable:=false')
        return (f'{has} of the right type, but nothing arrives: check that the camera sends '
                f'(ros2 topic hz {topic}), and docs/dds.md')

    def _other_type(self, topic: str, found: str, kind: str) -> str:
        for transport, (_, other) in TRANSPORTS.items():
            if found == other:
                return f'{topic} carries {found}, not {kind}: {self._switch(transport, topic)}'
        return f'{topic} carries {found}, not {kind}: choose the topic of a camera'

    def _elsewhere(self, topic: str) -> str:
        """Return on which topic there are images instead, and how to get them."""
        other = {'raw': 'compressed', 'compressed': 'raw'}[self._transport]
        name, kind = TRANSPORTS[other]
        twin = topic + _SUFFIX if other == 'compressed' else topic.removesuffix(_SUFFIX)
        for there in (self._node.resolve_topic_name(name), twin):
            found = [publisher for publisher in self._publishers(there)
                     if publisher.topic_type == kind]
            if found:
                return f'; {there} has {_count(found)}: {self._switch(other, there)}'
        name, kind = TRANSPORTS[self._transport]
        cameras = self._topics_of(kind)
        if cameras:
            return (f'; there are images on {", ".join(cameras[:_MOST_NAMED])}: '
                    f'remap {name}:={cameras[0]}, or in the launch file image_topic')
        return ': start the camera, or check topic, namespace and ROS_DOMAIN_ID'

    def _switch(self, transport: str, topic: str) -> str:
        """Return how to get images of another transport on a topic."""
        name = TRANSPORTS[transport][0]
        remap = '' if self._node.resolve_topic_name(name) == topic else f', remap {name}:={topic}'
        return f'set image_transport:={transport}{remap}'

    def _check_clock(self) -> None:
        """Log that the camera is of another clock: of images from the future it must be."""
        age = self._health.image_age
        if age is not None and age < -_AHEAD:
            self._log_once('clock', f'images are stamped {-age:.1f} s ahead of the time of this '
                           'node, and so are the poses: filters and transforms have nothing at '
                           'that time. Synchronise the clocks, or set use_sim_time')

    # Odometry

    def _odometry_use(self) -> str:
        reason = self._health.odometry_unused
        if reason is None:
            return 'no frame yet'
        return f'not used: {self._explained(reason)}' if reason else 'used'

    def _explained(self, reason: str) -> str:
        """Return why odometry is not used; if there is none, with what the graph says."""
        if reason != health.NO_ODOMETRY:
            return reason
        topic, kind = self._odometry.topic_name, _ODOMETRY
        publishers = self._publishers(topic)
        if not publishers:
            others = self._topics_of(kind)
            return f'{reason}: nothing publishes {topic}' + (
                f'; there is odometry on {", ".join(others[:_MOST_NAMED])}: remap '
                f'odom:={others[0]}, or in the launch file odom_topic' if others else '')
        if all(publisher.topic_type != kind for publisher in publishers):
            return f'{reason}: {topic} carries {publishers[0].topic_type}, not {kind}'
        return f'{reason}: {topic} has {_count(publishers)}, which sends nothing'

    def _check_odometry(self) -> None:
        counts = self._health.counts
        used, unused = counts['with odometry'], counts['without odometry']
        if used > self._used:
            self._unused_checks = 0
        elif unused > self._unused:
            self._unused_checks += 1
        self._used, self._unused = used, unused
        reason = self._health.odometry_unused
        if self._unused_checks >= _LASTING and reason:
            self._log_once(
                f'odometry {reason.split(":", 1)[0]}',
                f'odometry is not used: {self._explained(reason)}. Localisation goes on without')

    def _log_once(self, key: str, line: str) -> None:
        if key not in self._logged:
            self._logged.add(key)
            self._node.get_logger().warning(line)

    def _topics_of(self, kind: str) -> list[str]:
        """Return the topics of a type that others than this node publish."""
        own = f'{self._node.get_fully_qualified_name()}/'
        return [topic for topic, kinds in self._node.get_topic_names_and_types()
                if kind in kinds and self._publishers(topic) and not topic.startswith(own)]

    def _publishers(self, topic: str) -> list[Any]:
        return list(self._node.get_publishers_info_by_topic(topic))


def _count(publishers: list[Any]) -> str:
    return f'{len(publishers)} publisher' + ('s' if len(publishers) > 1 else '')
