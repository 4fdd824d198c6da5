"""
Play a bag over rclpy, with /clock, for machines that have no `ros2 bag`.

The messages are published as they were serialised; bag.py reads them from disk.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from math import isfinite
from pathlib import Path
from threading import Event
import time
from typing import Literal
from typing import NamedTuple

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.topics import IMAGE_TYPES
from vpr_ros.ros.interfaces import rclpy_types

_CLOCK = '/clock'
_CLOCK_RATE = 100
"""Hz, by the wall clock. `ros2 bag play` has 40; stamps may be ahead of /clock by one period."""

_DEPTH = 10
_MAX_LATCHED_DEPTH = 1000
_DRAIN_LIMIT = 2.0
"""Seconds that reliable subscribers get to acknowledge the last messages."""

_POLL = 0.005


@dataclass(frozen=True)
class PlayOptions:
    """
    How a bag is played.

    `rate`: times the recorded pace; `topics`: those to publish, None for all; `loop`: start again
    at the end; `clock`: publish /clock; `wait_for_subscribers`: subscribers that each topic must
    have before the first message is published, a number being for the image topics;
    `wait_limit`: seconds that this may take, None for no limit. Raises ValueError for a rate that
    is not positive.
    """

    rate: float = 1.0
    topics: Sequence[str] | None = None
    loop: bool = False
    clock: bool = True
    wait_for_subscribers: int | Mapping[str, int] = 0
    wait_limit: float | None = None
    image_reliability: Literal['reliable', 'best_effort'] = 'reliable'

    def __post_init__(self) -> None:
        if not (isfinite(self.rate) and self.rate > 0):
            raise ValueError(f'rate must be a positive number, not {self.rate}')


class Played(NamedTuple):
    """
    What was published.

    `counts`: messages by topic; `skipped`: why a topic was left out; `complete`: whether it got to
    the end of the bag.
    """

    counts: dict[str, int]
    skipped: dict[str, str]
    complete: bool


def play(path: str | Path, options: PlayOptions = PlayOptions(), *, stop: Event | None = None,
         on_progress: Callable[[int, int], None] | None = None) -> Played:
    """
    Publish a bag's messages at the pace they were recorded at, times `options.rate`.

    It ends at the end of the bag, and early when `stop` is set or on Ctrl-C. Topics whose
    interfaces are not installed here are left out. `on_progress` gets the number of messages
    published so far, and of those in the whole bag.

    Raises SourceError for a bag that cannot be read or played, VprError when there are too few
    subscribers after `wait_limit`.
    """
    stop = stop or Event()
    context = Context()
    # rclpy's own handler would close the context on Ctrl-C, in the middle of a publish.
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        node = rclpy.create_node('vpr_player', context=context, start_parameter_services=False)
        with Bag(path) as bag:
            player = _Player(node, bag, options, on_progress)
            complete = False
            try:
                player.wait_for_subscribers(stop)
                complete = player.run(stop)
                player.drain()
            except KeyboardInterrupt:
                pass
            return Played(player.counts, player.skipped, complete)
    finally:
        if node is not None:
            node.destroy_node()
        context.try_shutdown()


class _Player:
    """The publishers of an open bag's topics, and how much each has published."""

    def __init__(self, node: Node, bag: Bag, options: PlayOptions,
                 on_progress: Callable[[int, int], None] | None) -> None:
        self._bag = bag
        self._options = options
        self._on_progress = on_progress
        self._types, self.skipped = _playable(bag, options.topics, options.clock)
        self._publishers: dict[str, Publisher] = {
            topic: node.create_publisher(rclpy_types(kind), topic,
                                         _qos(bag, topic, kind, options.image_reliability))
            for topic, kind in self._types.items()}
        self._clock = node.create_publisher(
            rclpy_types('rosgraph_msgs/msg/Clock'), _CLOCK, _DEPTH) if options.clock else None
        self._total = sum(bag.count(topic) for topic in self._publishers)
        self.counts = dict.fromkeys(self._publishers, 0)

    def wait_for_subscribers(self, stop: Event) -> None:
        """Wait until every topic has the subscribers that the options ask for."""
        limit = self._options.wait_limit
        end = inf if limit is None else time.monotonic() + limit
        required = _required_subscribers(self._options.wait_for_subscribers, self._types)
        for topic, count in required.items():
            publisher = self._publishers[topic]
            while publisher.get_subscription_count() < count and not stop.is_set():
                if time.monotonic() >= end:
                    raise VprError(f'{topic} has {publisher.get_subscription_count()} of {count} '
                                   f'subscribers after {limit:g} s: is the node running, with '
                                   'this topic and in this ROS_DOMAIN_ID?')
                # Humble's rclpy has no event for a matched subscriber.
                stop.wait(_POLL)

    def run(self, stop: Event) -> bool:
        """Publish to the end of the bag, or in a loop; return False if `stop` ended it."""
        while self._run_once(stop):
            if not self._options.loop:
                return True
        return False

    def _run_once(self, stop: Event) -> bool:
        records = ((stamp, topic, data) for topic, kind, stamp, data in
                   self._bag.raw(self._publishers) if kind == self._types[topic])
        pace = 1e9 * self._options.rate
        first, begin = None, time.monotonic()
        for stamp, topic, data in with_ticks(records, round(pace / _CLOCK_RATE)):
            first = stamp if first is None else first
            due = begin + (stamp - first) / pace
            if stop.wait(max(0.0, due - time.monotonic())):
                return False
            if topic is not None:
                self._publish(topic, data)
            elif self._clock is not None:
                self._clock.publish(messages.clock(rclpy_types, stamp))
        return True

    def _publish(self, topic: str, data: bytes) -> None:
        self._publishers[topic].publish(data)
        self.counts[topic] += 1
        if self._on_progress is not None:
            self._on_progress(sum(self.counts.values()), self._total)

    def drain(self) -> None:
        """Let reliable subscribers take the last messages before the publishers are destroyed."""
        end = time.monotonic() + _DRAIN_LIMIT
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))


def _playable(bag: Bag, topics: Sequence[str] | None, clock: bool
              ) -> tuple[dict[str, str], dict[str, str]]:
    """Return the types of the topics to play, and why each of the others is left out."""
    types: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for topic in bag.topics if topics is None else topics:
        bag.count(topic)  # raises for a topic that the bag does not have
        kind = bag.topics[topic]
        if clock and topic == _CLOCK:
            skipped[topic] = 'the player publishes its own'
            continue
        try:
            rclpy_types(kind)
        except (ModuleNotFoundError, AttributeError, ValueError):
            skipped[topic] = f'{kind} is not installed here'
        else:
            types[topic] = kind
    if not types:
        why = '; '.join(f'{topic}: {reason}' for topic, reason in skipped.items())
        raise SourceError(f'{bag.path} has nothing to play ({why})')
    return types, skipped


def _qos(bag: Bag, topic: str, kind: str, image_reliability: str) -> QoSProfile:
    if bag.is_latched(topic):
        return QoSProfile(depth=min(max(1, bag.count(topic)), _MAX_LATCHED_DEPTH),
                          reliability=ReliabilityPolicy.RELIABLE,
                          durability=DurabilityPolicy.TRANSIENT_LOCAL)
    # A reliable publisher also serves best-effort subscribers, a best-effort one only those.
    best_effort = kind in IMAGE_TYPES and image_reliability == 'best_effort'
    return QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT if best_effort
                      else ReliabilityPolicy.RELIABLE)


def _required_subscribers(subscribers: int | Mapping[str, int], types: Mapping[str, str]
                          ) -> dict[str, int]:
    """Return how many subscribers to wait for, by topic."""
    if isinstance(subscribers, int):
        return {topic: subscribers for topic, kind in types.items() if kind in IMAGE_TYPES}
    for topic in subscribers:
        if topic not in types:
            raise ValueError(f'{topic} is not played: it cannot be waited for')
    return dict(subscribers)


def with_ticks(records: Iterable[tuple[int, str, bytes]], period: int
               ) -> Iterator[tuple[int, str | None, bytes]]:
    """
    Yield (time in ns, topic, message), and a tick (time, None, b'') every `period` ns of them.

    The first tick is at the time of the first message, and comes before it.
    """
    tick = None
    for stamp, topic, data in records:
        tick = stamp if tick is None else tick
        while tick <= stamp:
            yield tick, None, b''
            tick += period
        yield stamp, topic, data
