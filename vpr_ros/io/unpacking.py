"""
Unpacking of the compressed parts of a bag, to no more bytes than they say and than is allowed.

rosbags, which brings lz4 and a library for zstd, unpacks whatever is there: 83 kB to 3 GB.
"""

from __future__ import annotations

from io import BytesIO
import shutil
import tempfile
from typing import Any
from typing import IO
from typing import TYPE_CHECKING

import lz4.frame
import numpy as np
from rosbags.rosbag2 import storage_mcap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST = 1 << 28
"""Bytes that are unpacked at a time: far above one image, or a chunk of any recorder."""
MOST_AT_ONCE = 3 * MOST
"""The same of chunks of the same time: a recorder's buffers of all topics."""
RATIO = 100
"""Times its size to which a bag that is compressed as a file may unpack: images shrink by 20."""
_BLOCK = 1 << 20
TOO_MUCH = f'it unpacks to more than {MOST >> 20} MiB at a time'


def check_chunks(chunks: Sequence[Any]) -> None:
    """
    Raise ValueError when compressed chunks of an mcap file are too large.

    rosbags has all chunks in memory that are of the same time.
    """
    packed = [chunk for chunk in chunks if chunk.compression]
    if not packed:
        return
    if max(chunk.uncompressed_size for chunk in packed) > MOST:
        raise ValueError(TOO_MUCH)
    size = np.array([chunk.uncompressed_size for chunk in packed], np.int64)
    begin = np.array([chunk.message_start_time for chunk in packed], np.uint64)
    end = np.array([chunk.message_end_time for chunk in packed], np.uint64)
    opened, closed = np.argsort(begin, kind='stable'), np.argsort(end, kind='stable')
    before = np.searchsorted(end[closed], begin[opened])
    freed = np.concatenate([[0], np.cumsum(size[closed])])[before]
    if (np.cumsum(size[opened]) - freed).max() > MOST_AT_ONCE:
        raise ValueError(TOO_MUCH)


def check_files(directory: Path) -> None:
    """
    Raise ValueError when a bag's files, compressed as a whole, unpack to too much.

    That is more than RATIO times what they are (or than MOST), or than the temporary folder, to
    which rosbags unpacks them, has room for. They are unpacked to nowhere for that.
    """
    # Whatever they are called: metadata.yaml says of any that they are.
    files = [path for path in sorted(directory.iterdir()) if path.is_file() and _is_zstd(path)]
    room = shutil.disk_usage(tempfile.gettempdir()).free
    for path in files:
        most = max(MOST, RATIO * path.stat().st_size)
        size = 0
        with path.open('rb') as packed, _stream(packed) as file:
            while size <= min(most, room) and (block := file.read(_BLOCK)):
                size += len(block)
        if size > most:
            raise ValueError(f'{path.name} unpacks to more than {RATIO} times its size')
        if size > room:
            raise ValueError(f'{path.name} unpacks to more than {tempfile.gettempdir()} has room '
                             'for: unpack it with zstd -d, or set TMPDIR')
        room -= size


def unpacked_message(data: bytes) -> bytes:
    """Return a message that was compressed with zstd; raise ValueError when it is too large."""
    message = _zstd(data, MOST + 1)
    if len(message) > MOST:
        raise ValueError(TOO_MUCH)
    return message


def limit_mcap() -> None:
    """Let rosbags' reader of mcap files unpack no chunk to more than it says, and than MOST."""
    for name, unpack in (('zstd', _zstd), ('lz4', _lz4)):
        def limited(data: bytes, size: int, unpack: Any = unpack) -> bytes:
            if size > MOST:
                raise ValueError(TOO_MUCH)
            chunk: bytes = unpack(data, size + 1)
            if len(chunk) != size:
                raise ValueError(f'a chunk says that it unpacks to {size} bytes, and does not')
            return chunk
        storage_mcap.DECOMPRESSORS[name] = limited


def _zstd(data: bytes, most: int) -> bytes:
    """Return the first `most` bytes of what zstd has compressed."""
    with _stream(BytesIO(data)) as file:
        return bytes(file.read(most))


def _is_zstd(path: Path) -> bool:
    """Return whether a file begins as those of zstd do, with a frame or one that is skipped."""
    with path.open('rb') as file:
        head = file.read(4)
    return head == b'\x28\xb5\x2f\xfd' or head[1:] == b'\x2a\x4d\x18'


def _stream(packed: IO[bytes]) -> Any:
    """Return a file, to read, of what zstd has compressed into another."""
    library: Any = storage_mcap
    if hasattr(library, 'zstd'):
        return library.zstd.open(packed)
    return library.zstandard.ZstdDecompressor().stream_reader(packed)  # rosbags 0.11.0


def _lz4(data: bytes, most: int) -> bytes:
    """Return the first `most` bytes of what lz4 has compressed."""
    with lz4.frame.open(BytesIO(data)) as file:
        return bytes(file.read(most))
