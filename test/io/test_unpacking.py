"""Compressed bags unpack to no more than they say, and than is allowed."""

from __future__ import annotations

from types import SimpleNamespace

import lz4.frame
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import storage_mcap
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from vpr_ros.core.errors import SourceError
from vpr_ros.io import messages
from vpr_ros.io import unpacking
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag import rosbags_types

BYTES = 3 * 200 * 200


def dark(path, mode, storage=StoragePlugin.MCAP):
    """Write a bag of one black image of BYTES bytes."""
    store, kind = get_typestore(Stores.ROS2_HUMBLE), 'sensor_msgs/msg/Image'
    message = messages.image(rosbags_types, 5, 'camera', np.zeros((200, 200, 3), np.uint8))
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/image', kind, typestore=store)
        writer.write(connection, 5, store.serialize_cdr(message, kind))
    return path


def images(path):
    with Bag(path) as bag:
        return list(bag.images('/image'))


@pytest.mark.parametrize(('mode', 'storage'), [
    (CompressionMode.STORAGE, StoragePlugin.MCAP), (CompressionMode.MESSAGE, StoragePlugin.MCAP),
    (CompressionMode.MESSAGE, StoragePlugin.SQLITE3)])
def test_a_bag_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, mode, storage):
    path = dark(tmp_path / 'dark', mode, storage)
    monkeypatch.setattr(unpacking, 'MOST', 2 * BYTES)
    assert len(images(path)) == 1
    monkeypatch.setattr(unpacking, 'MOST', BYTES)
    with pytest.raises(SourceError, match='dark cannot be read: it unpacks to more than 256 MiB'):
        images(path)


def test_a_bag_that_is_packed_as_files_is_bounded(tmp_path, monkeypatch):
    path = dark(tmp_path / 'dark', CompressionMode.FILE)
    packed, = path.glob('*.zstd')
    metadata = path / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(packed.name, 'innocent.mcap.x'))
    packed.rename(path / 'innocent.mcap.x')
    assert len(images(path)) == 1
    monkeypatch.setattr(unpacking, 'MOST', 1000)
    monkeypatch.setattr(unpacking, 'RATIO', 2)
    with pytest.raises(SourceError, match='unpacks to more than 2 times its size'):
        images(path)
    monkeypatch.setattr(unpacking, 'RATIO', 10_000)
    assert len(images(path)) == 1
    monkeypatch.setattr(unpacking.shutil, 'disk_usage', lambda path: SimpleNamespace(free=1000))
    with pytest.raises(SourceError, match='has room for'):
        images(path)


@pytest.mark.parametrize('name', ['zstd', 'lz4'])
@pytest.mark.parametrize('size', [0, BYTES - 1, BYTES + 1])
def test_a_chunk_that_says_another_size_is_damaged(tmp_path, name, size):
    dark(tmp_path / 'dark', CompressionMode.STORAGE)
    images(tmp_path / 'dark')
    chunk = bytes(BYTES)
    zstd = getattr(storage_mcap, 'zstd', None) or storage_mcap.zstandard  # rosbags 0.11.0
    packed = (lz4.frame if name == 'lz4' else zstd).compress(chunk)
    assert storage_mcap.DECOMPRESSORS[name](packed, BYTES) == chunk
    with pytest.raises(ValueError, match=f'unpacks to {size} bytes, and does not'):
        storage_mcap.DECOMPRESSORS[name](packed, size)


def chunk(begin, end, size, compression='zstd'):
    return SimpleNamespace(message_start_time=begin, message_end_time=end,
                           uncompressed_size=size, compression=compression)


def test_chunks_of_the_same_time_count_together():
    third = unpacking.MOST_AT_ONCE // 3
    unpacking.check_chunks([])
    unpacking.check_chunks([chunk(10 * i, 10 * i + 9, third) for i in range(100)])
    unpacking.check_chunks([chunk(0, 2 ** 64 - 1, third) for _ in range(3)])
    unpacking.check_chunks([chunk(0, 9, 2 ** 63, '') for _ in range(9)])  # as large on the disk
    for many in ([chunk(0, 9, third) for _ in range(4)],
                 [chunk(i, 50, third) for i in range(4)], [chunk(0, 9, 2 ** 64 - 1)]):
        with pytest.raises(ValueError, match='at a time'):
            unpacking.check_chunks(many)
