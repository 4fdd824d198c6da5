"""Rosbag2 recordings, written through rosbags, without ROS: whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from contextlib import ExitStack
from pathlib import Path
import sqlite3
from typing import Any
from typing import TYPE_CHECKING

from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.rosbag2 import WriterError
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import whole_directory
from vpr_ros.io.bag import rosbags_types
from vpr_ros.io.bag import typestore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from rosbags.interfaces import Connection


class BagWriter:
    """
    A rosbag2 directory that is being written; it appears at its path once it is complete.

    A context manager; an exception in it leaves nothing behind. A path that ends in .mcap is
    written as mcap, any other as sqlite3. Raises VprError when the path exists and `overwrite` is
    false, or when it cannot be written.
    """

    types = staticmethod(rosbags_types)
    """Returns the class of a message to write, by the name of its type."""

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
            # rosbags refuses a directory that exists.
            part.rmdir()
            plugin = (StoragePlugin.MCAP if self.path.suffix == '.mcap'
                      else StoragePlugin.SQLITE3)
            # Humble cannot read the quality-of-service settings of later versions.
            self._writer = stack.enter_context(Writer(part, version=8, storage_plugin=plugin))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._writer = None
        with _unwritable(self.path):
            self._stack.__exit__(kind, error, trace)

    def write(self, topic: str, message: Any, stamp: int) -> None:
        """Write a message of `types` to a topic; `stamp` is its time of recording in ns."""
        if self._writer is None:
            raise ValueError('a BagWriter can only write inside its with block')
        kind = message.__msgtype__
        with _unwritable(self.path):
            connection = self._connections.get(topic)
            if connection is None:
                connection = self._writer.add_connection(topic, kind, typestore=typestore())
                self._connections[topic] = connection
            elif connection.msgtype != kind:
                raise ValueError(f'topic {topic} holds {connection.msgtype}, not {kind}')
            self._writer.write(connection, stamp, typestore().serialize_cdr(message, kind))


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, WriterError) as error:
        raise VprError(f'{path} cannot be written: {error}') from error
