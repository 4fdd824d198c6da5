"""
Rosbag2 recordings, read with the rosbags package, without ROS; bag_writer.py writes them.

Sqlite3 and mcap, plain or compressed. Messages are converted in messages.py and published in
ros/play.py.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
import logging
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.interfaces import QosDurability
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from vpr_ros.core import pose_track
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.io.bag_reader import BagReader
from vpr_ros.io.pose_messages import camera_mount
from vpr_ros.io.pose_messages import fix_track
from vpr_ros.io.pose_messages import stamped_track
from vpr_ros.io.pose_messages import transform_track
from vpr_ros.io.topics import FIX
from vpr_ros.io.topics import image_rank
from vpr_ros.io.topics import IMAGE_TYPES
from vpr_ros.io.topics import is_command
from vpr_ros.io.topics import NO_VIEW
from vpr_ros.io.topics import ODOMETRY
from vpr_ros.io.topics import POSE_TYPES
from vpr_ros.io.topics import TRANSFORMS
from vpr_ros.io.unpacking import TOO_MUCH

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterator
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader
    from rosbags.typesys.store import Typestore
    from vpr_ros.core.camera import Camera
    from vpr_ros.core.geodesy import Datum

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

_RAREST_POSES = 10e9  # ns between two messages of a topic, on average: goals come less often

_SUFFIXES = ('.mcap', '.db3')

_INTACT = ('not supported', 'files are missing', TOO_MUCH)
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
        Return the image topic to read: `topic`, or by default the one most like a camera's view.

        Colour and grey images come before infrared ones, and those before depth; then raw images
        before compressed ones; then the first by name. Raises SourceError, which lists the image
        topics, when `topic` does not exist, has no messages or has no images.
        """
        candidates = [name for name in self._topics_of(IMAGE_TYPES)
                      if not name.endswith('/compressedDepth')]
        if topic is None and candidates:
            ranks = {name: image_rank(name, next(self._messages(name), (0, None))[1])
                     for name in candidates}
            candidates.sort(key=ranks.__getitem__)
            if ranks[candidates[0]] == NO_VIEW:
                log.warning('%s: %s looks like depth, a mask or a video, not like the view of a '
                            'camera', self.path, candidates[0])
        return self._select(topic, candidates, 'images')

    def pose_topic(self, topic: str | None = None) -> str:
        """
        Return the pose topic to read: `topic`, or by default the best one.

        PoseWithCovarianceStamped is preferred to PoseStamped, that to Odometry, that to transforms
        and those to fixes of a GPS; but topics of goals, or that cover less than half of the bag's
        duration, come last. Raises SourceError, which lists the topics, when there is none.
        """
        candidates = [name for name in self._topics_of(POSE_TYPES) if name != '/tf_static']
        if topic is None and len(candidates) > 1:
            candidates.sort(key=lambda name: is_command(name) or not self._is_track(name))
            first, *others = (self.topics[name] for name in candidates)
            if first == TRANSFORMS and FIX in others:
                raise SourceError(f'{self.path} has poses in transforms and in fixes of a GPS: '
                                  f'choose the topic, {" or ".join(candidates)}')
        return self._select(topic, candidates, 'poses')

    def _is_track(self, topic: str) -> bool:
        """Return whether the messages of a topic span half of the bag, and come often enough."""
        connections, half = self._connections(topic), self._reader.duration // 2
        with _damage(self.path):
            _, first, _ = next(self._reader.messages(connections))
            late = next(self._reader.messages(connections, start=first + half), None)
        return late is not None and self.count(topic) * _RAREST_POSES >= 2 * half

    def odometry_topic(self, topic: str | None = None) -> str | None:
        """
        Return the odometry topic to read: `topic`, or by default the first; None without one.

        Raises SourceError when `topic` has no odometry.
        """
        candidates = self._topics_of((ODOMETRY,))
        if topic is None and not candidates:
            return None
        return self._select(topic, candidates, 'odometry')

    def odometry(self, topic: str | None = None) -> pose_track.PoseTrack | None:
        """
        Read the odometry on `topic`, by default on the first odometry topic; None without one.

        Raises SourceError when `topic` has no odometry, or none that is usable.
        """
        topic = self.odometry_topic(topic)
        return None if topic is None else self.poses(topic)

    def images(self, topic: str) -> Iterator[tuple[int, Any]]:
        """
        Yield (stamp in ns, Image or CompressedImage) in the order of recording.

        The stamp is that of the header or, where that is zero, the time of recording. Convert the
        message with `messages.rgb`.
        """
        for time, message in self._messages(topic):
            yield messages.stamp_ns(message.header) or time, message

    def images_and_cameras(self, topic: str) -> Iterator[tuple[int, Any, Camera | None]]:
        """Yield what `images` does, and the camera by the latest CameraInfo; None before one."""
        camera, rectified = None, messages.is_rectified(topic)
        for name, time, message in self._merged([topic, *self._camera_topics(topic)]):
            if name == topic:
                yield messages.stamp_ns(message.header) or time, message, camera
            else:
                camera = messages.camera_of(message, rectified=rectified)

    def camera(self, image_topic: str) -> Camera | None:
        """Return the camera of an image topic, from its first CameraInfo; None without one."""
        for topic in self._camera_topics(image_topic):
            _, message = next(self._messages(topic))
            return messages.camera_of(message, rectified=messages.is_rectified(image_topic))
        return None

    def _camera_topics(self, image_topic: str) -> list[str]:
        """Return the topic with the CameraInfo of an image topic, if there is one."""
        topic = messages.camera_info_topic(image_topic)
        known = self.topics.get(topic) == messages.CAMERA_INFO and self.count(topic)
        return [topic] if known else []

    def mount(self, image_topic: str, robot: str) -> Floats:
        """
        Return the pose (7,) of an image topic's camera, in optical axes, in the frame `robot`.

        By /tf_static, from the frame_id of its images. Raises SourceError where that has none, or
        one that cannot be of optical axes.
        """
        _, first = next(self._messages(image_topic))
        fixed = self._messages('/tf_static') if '/tf_static' in self._by_topic else ()
        return camera_mount(fixed, robot, first.header.frame_id, 'give --camera-pose')

    def poses(self, topic: str, *, frames: tuple[str, str] | None = None,
              datum: Datum | None = None) -> pose_track.PoseTrack:
        """
        Read all poses on a topic, sorted by stamp; unusable ones are left out and counted.

        Of transforms, those of one of two `frames` in the other, as in transform_track; of fixes
        of a GPS, metres from `datum`, by default from the first. Raises SourceError when none is
        usable, or when they are in more than one frame.
        """
        name, kind = f'{self.path}, {topic}', self._connections(topic)[0].msgtype
        if kind == TRANSFORMS:
            fixed = self._messages('/tf_static') if '/tf_static' in self._by_topic else ()
            track = transform_track(self._messages(topic), fixed, frames, name)
        elif kind == FIX:
            track = fix_track(self._messages(topic), datum, name)
        else:
            track = stamped_track(self._messages(topic), name)
        if len(track.stamps) == 0:
            raise SourceError(f'{self.path}: not one of the {self.count(topic)} poses on {topic} '
                              'is usable (finite, with a quaternion)')
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
        for _, time, message in self._merged([topic]):
            yield time, message

    def _merged(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, time of recording in ns, message) of some topics, in time order."""
        connections = [connection for name in topics for connection in self._connections(name)]
        with _damage(self.path):
            for connection, time, data in self._reader.messages(connections):
                yield (connection.topic, time,
                       typestore().deserialize_cdr(data, connection.msgtype))

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
            chosen, *others = candidates
            log.info('%s: %s from %s%s', self.path, content, chosen,
                     f', not from {", ".join(others)}' if others else '')
            return chosen
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
