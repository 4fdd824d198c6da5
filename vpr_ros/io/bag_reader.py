"""
The reader of rosbags, for two kinds of bags that it refuses but can read, and within a limit.

`ros2 bag reindex` of Humble leaves `storage_identifier` empty, and mcap files of other recorders
have no profile, though their messages are those of ROS 2. Nothing is unpacked without limit
(unpacking.py).
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Generator
from collections.abc import Mapping
from io import BufferedReader
from io import FileIO
from pathlib import Path
import struct
from types import MappingProxyType
from typing import Any

from rosbags.rosbag2 import Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader
from vpr_ros.core.errors import SourceError
from vpr_ros.io.unpacking import check_chunks
from vpr_ros.io.unpacking import check_files
from vpr_ros.io.unpacking import limit_mcap
from vpr_ros.io.unpacking import unpacked_message

_PROFILE = 17  # bytes before it: magic, the header's opcode and its length
_ROS2 = struct.pack('<I', 4) + b'ros2'


class _Profiled(FileIO):
    """An mcap file whose header says ros2 in place of no profile, and of its library's name."""

    def readinto(self, buffer: Any) -> int | None:
        begin = self.tell()
        count = super().readinto(buffer)
        first, last = max(begin, _PROFILE), min(begin + (count or 0), _PROFILE + len(_ROS2))
        if first < last:
            buffer[first - begin:last - begin] = _ROS2[first - _PROFILE:last - _PROFILE]
        return count


class _ProfiledPath:
    """What McapReader needs of the path of such a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def open(self, mode: str) -> BufferedReader:  # noqa: A003 (as of a Path)
        return BufferedReader(_Profiled(self._path, mode))


def _mcap(path: Any) -> McapReader:
    """Return the reader of an mcap file; raise SourceError for one of ROS 1."""
    profile = _profile(Path(path))
    if profile == b'ros1':
        raise SourceError(f'{path} holds messages of ROS 1: convert the .bag that it was made of '
                          'with rosbags-convert --src FILE.bag --dst FOLDER')
    return _McapReader(_ProfiledPath(path) if profile == b'' else path)  # type: ignore[arg-type]


class _McapReader(McapReader):
    """As rosbags' reader, but it refuses files that unpack to too much at a time."""

    def open(self) -> None:  # noqa: A003 (as of the base class)
        limit_mcap()
        super().open()
        try:
            check_chunks(self.chunks)
        except ValueError:
            self.close()
            raise


def _profile(path: Path) -> bytes | None:
    """Return the profile of an mcap file; None for a file that is too short to have one."""
    with path.open('rb') as file:
        file.seek(_PROFILE)
        length = file.read(4)
        return file.read(struct.unpack('<I', length)[0] & 0xFF) if len(length) == 4 else None


def _by_suffix(path: Any) -> Any:
    """Return the reader of a file of a bag that does not say what its files are."""
    return BagReader.STORAGE_PLUGINS[path.suffix](path)


class _DirectoryReader(DirectoryReader):
    STORAGE_PLUGINS: Mapping[Any, Any] = MappingProxyType({
        **DirectoryReader.STORAGE_PLUGINS, 'mcap': _mcap, '': _by_suffix, None: _by_suffix})
    _packed = False

    def open(self) -> None:  # noqa: A003 (as of the base class)
        check_files(Path(str(self.path)))
        super().open()
        self._packed = self.metadata.compression_mode == 'message'
        if self._packed:  # here, not by the base class
            self.metadata = self.metadata._replace(compression_mode=None)

    def messages(self, connections: Collection[Any], start: int | None = None,
                 stop: int | None = None) -> Generator[Any, None, None]:
        for connection, time, data in super().messages(connections, start, stop):
            yield connection, time, unpacked_message(data) if self._packed else data


class BagReader(Reader):
    """As rosbags' Reader, but it also reads bags without storage identifier or mcap profile."""

    STORAGE_PLUGINS: Mapping[Any, Any] = MappingProxyType({
        **Reader.STORAGE_PLUGINS, 'dir': _DirectoryReader, '.mcap': _mcap})
