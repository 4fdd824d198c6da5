"""
Play a bag over rclpy, with /clock, for machines that have no `ros2 bag`.

The messages go out as they were serialised; reading them from disk is bag.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
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
from vpr_ros.io.bag import IMAGE_TYPES
from vpr_ros.ros.interfaces import rclpy_types

_CLOCK = '/clock'
_CLOCK_RATE = 100
"""Hz, of the wall clock: finer than the 40 Hz of `ros2 bag play`, since stamps may lead by it."""

_DEPTH = 10
_MOST_LATCHED = 1000
_LAST_WORDS = 2.0
"""Seconds that reliable subscribers get to acknowledge the last messages."""

_POLL = 0.005


class Played(NamedTuple):
    """What was published: messages by topic, topics left out and why, and whether all of it."""

    counts: dict[str, int]
    skipped: dict[str, str]
    complete: bool


def play(path: str | Path, *, rate: float = 1.0, topics: Sequence[str] | None = None,
         loop: bool = False, clock: bool = True,
         wait_for_subscribers: int | Mapping[str, int] = 0, wait_limit: float | None = None,
         image_reliability: Literal['reliable', 'best_effort'] = 'reliable',
         stop: Event | None = None,
         on_progress: Callable[[int, int], None] | None = None) -> Played:
    """
    Publish a bag's messages at the pace they were recorded at, times `rate`.

    `wait_for_subscribers` holds the first message back until each topic has so many subscribers;
    a number goes for the image topics. `wait_limit` is in seconds. With `loop` it starts again at
    the end, until `stop` is set or Ctrl-C, which end every playing early and cleanly. Topics
    whose interfaces are not installed here are left out. `on_progress` gets the messages
    published so far and those of the whole bag.

    Raises SourceError for a bag that cannot be read or played, VprError when nobody subscribed
    within `wait_limit`.
    """
    if not (isfinite(rate) and rate > 0):
        raise ValueError(f'rate must be a positive number, not {rate}')
    stop = stop or Event()
    context = Context()
    # Left to itself, rclpy would take Ctrl-C and close the context in the middle of a publish.
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        node = rclpy.create_node('vpr_player', context=context, start_parameter_services=False)
        with Bag(path) as bag:
            types, skipped = _playable(bag, topics, clock)
            publishers = {topic: node.create_publisher(
                rclpy_types(kind), topic, _qos(bag, topic, kind, image_reliability))
                for topic, kind in types.items()}
            counts = dict.fromkeys(publishers, 0)
            complete = False
            try:
                _wait(publishers, _wanted(wait_for_subscribers, types), wait_limit, stop)
                complete = _publish(bag, node, publishers, types, counts, rate=rate, loop=loop,
                                    clock=clock, stop=stop, on_progress=on_progress)
                _drain(publishers.values())
            except KeyboardInterrupt:
                pass
            return Played(counts, skipped, complete)
    finally:
        if node is not None:
            node.destroy_node()
        context.try_shutdown()


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
        return QoSProfile(depth=min(max(1, bag.count(topic)), _MOST_LATCHED),
                          reliability=ReliabilityPolicy.RELIABLE,
                          durability=DurabilityPolicy.TRANSIENT_LOCAL)
    # A reliable publisher serves reliable and best-effort subscribers, the other only the latter.
    best_effort = kind in IMAGE_TYPES and image_reliability == 'best_effort'
    return QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT if best_effort
                      else ReliabilityPolicy.RELIABLE)


def _wanted(subscribers: int | Mapping[str, int], types: Mapping[str, str]) -> dict[str, int]:
    if isinstance(subscribers, int):
        return {topic: subscribers for topic, kind in types.items() if kind in IMAGE_TYPES}
    for topic in subscribers:
        if topic not in types:
            raise ValueError(f'{topic} is not played: nobody can be waited for there')
    return dict(subscribers)


def _wait(publishers: Mapping[str, Publisher], wanted: Mapping[str, int], limit: float | None,
          stop: Event) -> None:
    """Wait until every topic has the subscribers that are wanted."""
    end = inf if limit is None else time.monotonic() + limit
    for topic, count in wanted.items():
        while publishers[topic].get_subscription_count() < count and not stop.is_set():
            if time.monotonic() >= end:
                raise VprError(f'{topic} has {publishers[topic].get_subscription_count()} of '
                               f'{count} subscribers after {limit:g} s: is the node running, with '
                               'this topic and in this ROS_DOMAIN_ID?')
            # rclpy has no event for a matched subscriber that Humble knows too.
            stop.wait(_POLL)


def _publish(bag: Bag, node: Node, publishers: Mapping[str, Publisher],
             types: Mapping[str, str], counts: dict[str, int], *, rate: float, loop: bool,
             clock: bool, stop: Event, on_progress: Callable[[int, int], None] | None) -> bool:
    """
    Publish until the end of the bag, or with `loop` until `stop`; return whether it got there.

    Counts into `counts`, which stays right when an exception ends it.
    """
    total = sum(bag.count(topic) for topic in publishers)
    ticker = None
    if clock:
        ticker = node.create_publisher(rclpy_types('rosgraph_msgs/msg/Clock'), _CLOCK,
                                       _DEPTH)
    while True:
        records = ((stamp, topic, data) for topic, kind, stamp, data in bag.raw(publishers)
                   if kind == types[topic])
        first, begin = None, time.monotonic()
        for stamp, topic, data in with_ticks(records, round(1e9 * rate / _CLOCK_RATE)):
            if first is None:
                first = stamp
            due = begin + (stamp - first) / (1e9 * rate)
            if stop.wait(max(0.0, due - time.monotonic())):
                return False
            if topic is not None:
                publishers[topic].publish(data)
                counts[topic] += 1
                if on_progress is not None:
                    on_progress(sum(counts.values()), total)
            elif ticker is not None:
                ticker.publish(messages.clock(rclpy_types, stamp))
        if not loop:
            return True


def with_ticks(records: Iterable[tuple[int, str, bytes]], period: int
               ) -> Iterator[tuple[int, str | None, bytes]]:
    """
    Yield (time in ns, topic, message), and (time, None, b'') every `period` ns between them.

    The ticks begin at the time of the first message, before it.
    """
    tick = None
    for stamp, topic, data in records:
        tick = stamp if tick is None else tick
        while tick <= stamp:
            yield tick, None, b''
            tick += period
        yield stamp, topic, data


def _drain(publishers: Iterable[Publisher]) -> None:
    """Let reliable subscribers take the last messages before the publishers go."""
    end = time.monotonic() + _LAST_WORDS
    for publisher in publishers:
        publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))
