"""
Rosbag2 recordings, read and written through rosbags, without ROS.

Sqlite3 and mcap, plain or compressed. What the messages say is in messages.py; pixels are not
converted here, and nothing is published (play.py).
"""

from __future__ import annotations

from contextlib import contextmanager
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
import sqlite3
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import Reader
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.rosbag2 import WriterError
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import whole_directory
from vpr_ros.io import messages

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterator
    from types import TracebackType

    from rosbags.interfaces import Connection
    from rosbags.typesys.store import Typestore

IMAGE_TYPES = (messages.RAW_IMAGE, messages.COMPRESSED_IMAGE)

ODOMETRY = 'nav_msgs/msg/Odometry'

# The best first: a localiser's or surveyor's poses are worth more than an odometry that drifts.
POSE_TYPES = ('geometry_msgs/msg/PoseWithCovarianceStamped', 'geometry_msgs/msg/PoseStamped',
              ODOMETRY)


@lru_cache(maxsize=1)
def _typestore() -> Typestore:
    """
    Return the message definitions of ROS 2 Humble, whatever the bag itself carries.

    Bags of Humble and before in sqlite3 carry none. The messages read here have not changed since,
    and a definition in the bag of some message that is of no interest cannot get in the way.
    """
    return get_typestore(Stores.ROS2_HUMBLE)


def rosbags_types(name: str) -> Any:
    """
    Return rosbags' class for a message type, such as 'sensor_msgs/msg/Image'.

    Raises KeyError for a type that is not of ROS 2 Humble.
    """
    return _typestore().types[name]


class Bag:
    """
    A rosbag2 recording that is open for reading: a directory, or one .mcap or .db3 file.

    A context manager. Every method raises SourceError, naming the bag, when it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = _open(self.path)
        self._by_topic: dict[str, list[Connection]] = {}
        for connection in self._reader.connections:
            self._by_topic.setdefault(connection.topic, []).append(connection)
        self.message_count = self._reader.message_count
        """Messages on all topics."""
        self.duration = max(0, self._reader.duration - 1) / 1e9
        """Seconds between the first message and the last."""
        if self.message_count == 0:
            self.close()
            raise SourceError(f'{self.path} is an empty bag: nothing was recorded')

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; the bag cannot be read after that."""
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Each topic's message type, topics in alphabetical order."""
        return {topic: self._by_topic[topic][0].msgtype for topic in sorted(self._by_topic)}

    def count(self, topic: str) -> int:
        """Return how many messages a topic has."""
        return sum(connection.msgcount for connection in self._connections(topic))

    def is_latched(self, topic: str) -> bool:
        """Return whether a topic's publishers offered their last messages to late subscribers."""
        profiles = [profile for connection in self._connections(topic)
                    if isinstance(connection.ext, ConnectionExtRosbag2)
                    for profile in connection.ext.offered_qos_profiles]
        if not profiles:
            return topic == '/tf_static'
        return all(profile.durability is QosDurability.TRANSIENT_LOCAL for profile in profiles)

    def image_topic(self, topic: str | None = None) -> str:
        """
        Return the image topic to read: `topic`, or without one the first by name.

        Raises SourceError, naming the image topics there are, when there is no such topic, it
        has no messages or is not one of images.
        """
        found = [name for name in self._topics_of(IMAGE_TYPES)
                 if not name.endswith('/compressedDepth')]
        return self._chosen(topic, found, 'images')

    def pose_topic(self, topic: str | None = None) -> str:
        """
        Return the pose topic to read: `topic`, or without one the best there is.

        PoseWithCovarianceStamped goes before PoseStamped, and that before Odometry, but a topic
        with few messages after those with many. Raises SourceError, naming the topics there are,
        when there is none.
        """
        found = self._topics_of(POSE_TYPES)
        # A goal or an initial pose is no drive: few messages beside a topic that has many.
        most = max(map(self.count, found), default=0)
        found.sort(key=lambda name: self.count(name) < most / 20)
        return self._chosen(topic, found, 'poses')

    def odometry(self, topic: str | None = None) -> poses.PoseTrack | None:
        """
        Read the odometry on `topic`, or on the first topic of that type; None without any.

        Raises SourceError when `topic` has none.
        """
        found = self._topics_of((ODOMETRY,))
        if topic is None and not found:
            return None
        return self.poses(self._chosen(topic, found, 'odometry'))

    def images(self, topic: str) -> Iterator[tuple[int, Any]]:
        """
        Yield (stamp in ns, Image or CompressedImage) in the order of the recording.

        The stamp is the header's, or where that is zero the time of recording. Pixels are left
        as they are: `messages.rgb` converts them.
        """
        for time, message in self._messages(topic):
            yield messages.stamp_ns(message.header) or time, message

    def poses(self, topic: str) -> poses.PoseTrack:
        """
        Read all poses of a topic, sorted by stamp; unusable ones are left out and counted.

        Raises SourceError when none is usable, or when their frame changes on the way.
        """
        stamps: list[int] = []
        values: list[Any] = []
        frames: set[tuple[str, str]] = set()
        for time, message in self._messages(topic):
            stamps.append(messages.stamp_ns(message.header) or time)
            values.append(messages.raw_pose(message))
            frames.add((message.header.frame_id, getattr(message, 'child_frame_id', '')))
        if len(frames) > 1:
            raise SourceError(f'{self.path}: the poses on {topic} are in more than one frame: '
                              f'{", ".join(sorted("->".join(pair) for pair in frames))}')
        order = np.argsort(np.array(stamps, np.int64), kind='stable')
        frame_id, child_frame_id = frames.pop() if frames else ('', '')
        track = poses.track(np.array(stamps, np.int64)[order],
                            np.array(values).reshape(-1, 7)[order],
                            frame_id or 'map', child_frame_id or 'base_link')
        if len(track.stamps) == 0:
            raise SourceError(f'{self.path}: not one of the {len(stamps)} poses on {topic} is '
                              'usable (finite, with a quaternion)')
        return track

    def raw(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """
        Yield (topic, type, time of recording in ns, serialised message), in time order.

        All topics, or those named; raises SourceError for a topic the bag does not have.
        """
        names = self._by_topic if topics is None else topics
        connections = [one for name in names for one in self._connections(name)]
        if not connections:
            return
        with _damage(self.path):
            for connection, time, data in self._reader.messages(connections):
                yield connection.topic, connection.msgtype, time, bytes(data)

    def _messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        with _damage(self.path):
            for connection, time, data in self._reader.messages(self._connections(topic)):
                yield time, _typestore().deserialize_cdr(data, connection.msgtype)

    def _connections(self, topic: str) -> list[Connection]:
        if topic not in self._by_topic:
            raise SourceError(f"{self.path} has no topic '{topic}'; it has {_listed(self.topics)}")
        return self._by_topic[topic]

    def _topics_of(self, types: tuple[str, ...]) -> list[str]:
        """Return the topics with messages of these types, in the order of the types."""
        return [topic for wanted in types for topic, kind in self.topics.items()
                if kind == wanted and self.count(topic)]

    def _chosen(self, topic: str | None, found: list[str], what: str) -> str:
        if not found:
            raise SourceError(f'{self.path} has no {what}; its topics are {_listed(self.topics)}')
        if topic is None:
            return found[0]
        if topic not in found:
            raise SourceError(f"{self.path} has no {what} on '{topic}'; choose "
                              f'{" or ".join(found)}')
        return topic


class BagWriter:
    """
    A rosbag2 directory that is being written, and is there only once it is complete.

    A context manager; after an exception in it nothing is left behind. A path that ends in .mcap
    is written as mcap, any other as sqlite3. Raises VprError when the path exists already and
    `overwrite` is false, or when it cannot be written.
    """

    types = staticmethod(rosbags_types)
    """The classes of the messages to write, by type name."""

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._stack = ExitStack()
        self._connections: dict[str, Connection] = {}
        self._writer: Writer | None = None

    def __enter__(self) -> BagWriter:
        with ExitStack() as stack, _unwritable(self.path):
            part = stack.enter_context(whole_directory(
                self.path, 'metadata.yaml', overwrite=self._overwrite))
            # rosbags insists on making the directory itself.
            part.rmdir()
            plugin = (StoragePlugin.MCAP if self.path.suffix == '.mcap'
                      else StoragePlugin.SQLITE3)
            # Version 8 is the last one whose quality-of-service settings Humble can read.
            self._writer = stack.enter_context(Writer(part, version=8, storage_plugin=plugin))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._writer = None
        with _unwritable(self.path):
            self._stack.__exit__(kind, error, trace)

    def write(self, topic: str, message: Any, stamp: int) -> None:
        """Write a message of `types` to a topic, with its time of recording in nanoseconds."""
        if self._writer is None:
            raise ValueError('a BagWriter writes only inside its with block')
        kind = message.__msgtype__
        with _unwritable(self.path):
            connection = self._connections.get(topic)
            if connection is None:
                connection = self._writer.add_connection(topic, kind, typestore=_typestore())
                self._connections[topic] = connection
            elif connection.msgtype != kind:
                raise ValueError(f'topic {topic} holds {connection.msgtype}, not {kind}')
            self._writer.write(connection, stamp, _typestore().serialize_cdr(message, kind))


def _open(path: Path) -> Reader:
    """Open a bag for reading; raise SourceError saying what is wrong with the path."""
    if not path.exists():
        raise SourceError(f'{path} does not exist')
    if path.suffix == '.bag' and path.is_file():
        raise SourceError(f'{path} is a bag of ROS 1: convert it with '
                          f'rosbags-convert --src {path} --dst {path.with_suffix("")}')
    if path.is_dir() and not (path / 'metadata.yaml').is_file():
        raise SourceError(f'{path} has no metadata.yaml: it is not a rosbag2, or its recording '
                          'was cut off (ros2 bag reindex mends that)')
    if path.is_file() and path.suffix not in ('.mcap', '.db3'):
        raise SourceError(f'{path} is not a bag: give a rosbag2 directory, or a .mcap or .db3 '
                          'file')
    with _damage(path):
        reader = Reader(path)
        reader.open()
    return reader


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn whatever a damaged bag makes its reader raise into a SourceError."""
    try:
        yield
    except VprError:
        raise
    except Exception as error:
        # sqlite's, zstd's, lz4's and struct's errors, and plain IndexError or AssertionError too.
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise SourceError(f'{path} is damaged or cut off: {reason}') from error


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, WriterError) as error:
        raise VprError(f'{path} cannot be written: {error}') from error


def _listed(topics: dict[str, str]) -> str:
    return ', '.join(f'{topic} ({kind})' for topic, kind in topics.items()) or 'none'
