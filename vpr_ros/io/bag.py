"""
Rosbag2 recordings, read with the rosbags package, without ROS; bag_writer.py writes them.

Sqlite3 and mcap, plain or compressed. Messages are converted in messages.py and published in
ros/play.py.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.interfaces import QosDurability
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from vpr_ros.core import pose_track
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.io.bag_reader import BagReader

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterator
    from types import TracebackType

    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader
    from rosbags.typesys.store import Typestore
    from vpr_ros.core.camera import Camera

IMAGE_TYPES = (messages.RAW_IMAGE, messages.COMPRESSED_IMAGE)

ODOMETRY = 'nav_msgs/msg/Odometry'

# In order of preference: poses of a localiser or a survey are better than odometry, which drifts.
POSE_TYPES = ('geometry_msgs/msg/PoseWithCovarianceStamped', 'geometry_msgs/msg/PoseStamped',
              ODOMETRY)

_SUFFIXES = ('.mcap', '.db3')

_INTACT = ('not supported', 'files are missing')
"""What rosbags says of a bag that is not damaged."""


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """
    Return the message definitions of ROS 2 Humble, even for bags that contain their own.

    Sqlite3 bags up to Humble contain none. The messages that are read here have not changed since,
    and an invalid definition of some other message in a bag does no harm this way.
    """
    return get_typestore(Stores.ROS2_HUMBLE)


def rosbags_types(name: str) -> Any:
    """
    Return rosbags' class for a message type, such as 'sensor_msgs/msg/Image'.

    Raises KeyError for a type that ROS 2 Humble does not have.
    """
    return typestore().types[name]


class Bag:
    """
    A rosbag2 recording, open for reading: a directory, or a single .mcap or .db3 file.

    A context manager. Every method raises SourceError, which names the bag, when it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = _open(self.path)
        self._by_topic: dict[str, list[Connection]] = {}
        formats = {connection.ext.serialization_format  # type: ignore[union-attr]
                   for connection in self._reader.connections}
        if formats and 'cdr' not in formats:
            self.close()
            raise SourceError(f'{self.path} has no messages of ROS 2: they are in '
                              f'{", ".join(sorted(formats))}')
        for connection in self._reader.connections:
            self._by_topic.setdefault(connection.topic, []).append(connection)
        self.message_count = self._reader.message_count
        """Number of messages on all topics."""
        self.duration = max(0, self._reader.duration - 1) / 1e9
        """Seconds from the first message to the last."""
        if self.message_count == 0:
            self.close()
            raise SourceError(f'{self.path} is an empty bag: nothing was recorded')

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files of the bag."""
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Return the message type of each topic, in alphabetical order of the topics."""
        return {topic: self._by_topic[topic][0].msgtype for topic in sorted(self._by_topic)}

    def count(self, topic: str) -> int:
        """Return the number of messages on a topic."""
        return sum(connection.msgcount for connection in self._connections(topic))

    def is_latched(self, topic: str) -> bool:
        """Return whether a topic was latched: published with transient-local durability."""
        profiles = [profile for connection in self._connections(topic)
                    if isinstance(connection.ext, ConnectionExtRosbag2)
                    for profile in connection.ext.offered_qos_profiles]
        if not profiles:
            return topic == '/tf_static'
        return all(profile.durability is QosDurability.TRANSIENT_LOCAL for profile in profiles)

    def image_topic(self, topic: str | None = None) -> str:
        """
        Return the image topic to read: `topic`, or by default the first by name.

        Raises SourceError, which lists the image topics, when `topic` does not exist, has no
        messages or has no images.
        """
        candidates = [name for name in self._topics_of(IMAGE_TYPES)
                      if not name.endswith('/compressedDepth')]
        return self._select(topic, candidates, 'images')

    def pose_topic(self, topic: str | None = None) -> str:
        """
        Return the pose topic to read: `topic`, or by default the best one.

        PoseWithCovarianceStamped is preferred to PoseStamped, and that to Odometry, but topics
        with few messages come last. Raises SourceError, which lists the topics, when there is
        none.
        """
        candidates = self._topics_of(POSE_TYPES)
        # Goals and initial poses are not a trajectory: such topics have far fewer messages.
        largest = max(map(self.count, candidates), default=0)
        candidates.sort(key=lambda name: self.count(name) < largest / 20)
        return self._select(topic, candidates, 'poses')

    def odometry(self, topic: str | None = None) -> pose_track.PoseTrack | None:
        """
        Read the odometry on `topic`, by default on the first odometry topic; None without one.

        Raises SourceError when `topic` has no odometry.
        """
        candidates = self._topics_of((ODOMETRY,))
        if topic is None and not candidates:
            return None
        return self.poses(self._select(topic, candidates, 'odometry'))

    def images(self, topic: str) -> Iterator[tuple[int, Any]]:
        """
        Yield (stamp in ns, Image or CompressedImage) in the order of recording.

        The stamp is that of the header or, where that is zero, the time of recording. Convert the
        message with `messages.rgb`.
        """
        for time, message in self._messages(topic):
            yield messages.stamp_ns(message.header) or time, message

    def camera(self, image_topic: str) -> Camera | None:
        """Return the camera of an image topic, from its first CameraInfo; None without one."""
        topic = messages.camera_info_topic(image_topic)
        if self.topics.get(topic) != messages.CAMERA_INFO or not self.count(topic):
            return None
        _, message = next(self._messages(topic))
        return messages.camera_of(message)

    def poses(self, topic: str) -> pose_track.PoseTrack:
        """
        Read all poses on a topic, sorted by stamp; unusable ones are left out and counted.

        Raises SourceError when none is usable, or when they are in more than one frame.
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
        track = pose_track.track(np.array(stamps, np.int64)[order],
                                 np.array(values).reshape(-1, 7)[order],
                                 frame_id or 'map', child_frame_id or 'base_link')
        if len(track.stamps) == 0:
            raise SourceError(f'{self.path}: not one of the {len(stamps)} poses on {topic} is '
                              'usable (finite, with a quaternion)')
        return track

    def raw(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """
        Yield (topic, type, time of recording in ns, serialised message), in time order.

        Of all topics by default; raises SourceError for a topic that the bag does not have.
        """
        names = self._by_topic if topics is None else topics
        connections = [connection for name in names for connection in self._connections(name)]
        if not connections:
            return
        with _damage(self.path):
            for connection, time, data in self._reader.messages(connections):
                yield connection.topic, connection.msgtype, time, bytes(data)

    def _messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        with _damage(self.path):
            for connection, time, data in self._reader.messages(self._connections(topic)):
                yield time, typestore().deserialize_cdr(data, connection.msgtype)

    def _connections(self, topic: str) -> list[Connection]:
        if topic not in self._by_topic:
            raise SourceError(f"{self.path} has no topic '{topic}'; it has {_listed(self.topics)}")
        return self._by_topic[topic]

    def _topics_of(self, types: tuple[str, ...]) -> list[str]:
        """Return the topics that have messages of these types, in the order of the types."""
        return [topic for kind in types for topic, topic_type in self.topics.items()
                if topic_type == kind and self.count(topic)]

    def _select(self, topic: str | None, candidates: list[str], content: str) -> str:
        if not candidates:
            raise SourceError(f'{self.path} has no {content}; its topics are '
                              f'{_listed(self.topics)}')
        if topic is None:
            return candidates[0]
        if topic not in candidates:
            raise SourceError(f"{self.path} has no {content} on '{topic}'; choose "
                              f'{" or ".join(candidates)}')
        return topic


def _open(path: Path) -> Reader:
    """Open a bag for reading; raise SourceError saying what is wrong with the path."""
    if not path.exists():
        raise SourceError(f'{path} does not exist')
    if path.suffix == '.bag' and path.is_file():
        raise SourceError(f'{path} is a bag of ROS 1: convert it with '
                          f'rosbags-convert --src {path} --dst {path.with_suffix("")}')
    if path.is_dir() and not (path / 'metadata.yaml').is_file():
        if not any(file.suffix in _SUFFIXES for file in path.iterdir()):
            raise SourceError(f'{path} is no bag (it has no metadata.yaml, .mcap or .db3 file) '
                              'and no folder of images in a layout that is read: see docs/maps.md')
        raise SourceError(f'{path} has no metadata.yaml: its recording was cut off (ros2 bag '
                          'reindex repairs it)')
    if path.is_file() and path.suffix not in _SUFFIXES:
        raise SourceError(f'{path} is not a bag: give a rosbag2 directory, or a .mcap or .db3 '
                          'file')
    with _damage(path):
        reader = BagReader(path)
        reader.open()
    return reader


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn any error of the bag reader into a SourceError."""
    try:
        yield
    except VprError:
        raise
    except OSError as error:
        raise SourceError(f'{path} cannot be read: {error.strerror or error}') from error
    except Exception as error:
        # A damaged bag raises errors of sqlite, zstd, lz4 and struct, IndexError, AssertionError.
        reason = ' '.join(str(error).split()) or type(error).__name__
        intact = any(words in reason for words in _INTACT)
        raise SourceError(f'{path} {"cannot be read" if intact else "is damaged or cut off"}: '
                          f'{reason.removesuffix("; please report issue.")}') from error


def _listed(topics: dict[str, str]) -> str:
    return ', '.join(f'{topic} ({kind})' for topic, kind in topics.items()) or 'none'
