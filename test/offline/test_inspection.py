"""What `vpr inspect` prints of a map, a model and a bag."""

from __future__ import annotations

import pytest
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import write_bag
from small_drive import write_folder
from small_drive import write_map
from thumbnail_model import DIMENSION
from thumbnail_model import write_thumbnail_model
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import ModelError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.files import sha256
from vpr_ros.offline.inspection import inspect


@pytest.fixture
def model(tmp_path):
    return write_thumbnail_model(tmp_path / 'm.onnx')


def test_a_map(tmp_path, model):
    printed = dict(inspect(write_map(tmp_path / 'map', model)))
    assert printed['places'] == COUNT
    assert printed['frames'] == 'base_link in map'
    assert printed['extent'] == '39.0 x 0.0 x 0.0 m'
    assert printed['spacing'] == '1.0 m requested, 1.00 m median, 1.00 m at most'
    assert printed['index'] == (f'fp16, {DIMENSION} dimensions, finds the exact nearest neighbour '
                                'for 100.0% of queries')
    assert printed['model'] == f'm.onnx {sha256(model)}'
    assert printed['session 0'] == f'map-drive (unknown), {COUNT} places'
    assert printed['thumbnails'] == 'yes'


def test_a_map_of_one_place(tmp_path, model):
    assert dict(inspect(write_map(tmp_path / 'map', model, [3])))['places'] == 1


def test_a_model(model):
    printed = dict(inspect(model))
    assert printed['sha256'] == sha256(model)
    assert printed['input'] == '64x48 RGB'
    assert printed['descriptor'] == f'{DIMENSION} dimensions'
    assert printed['aggregation'] == 'thumbnail'


def test_a_bag(tmp_path):
    printed = list(inspect(write_bag(tmp_path / 'drive.mcap')))
    assert ('messages', 2 * COUNT) in printed
    assert ('duration', '7.80 s') in printed
    assert (str(COUNT), f'{IMAGES}  sensor_msgs/msg/Image') in printed


def test_anything_else_is_one_clear_error(tmp_path, model):
    with pytest.raises(FileNotFoundError, match='nothing does not exist'):
        inspect(tmp_path / 'nothing')
    with pytest.raises(SourceError, match=r'no metadata\.yaml'):
        list(inspect(write_folder(tmp_path / 'images', range(3))))
    (tmp_path / 'text.onnx').write_text('text')
    with pytest.raises(ModelError, match='not an ONNX model'):
        list(inspect(tmp_path / 'text.onnx'))
    place_map = write_map(tmp_path / 'map', model)
    (place_map / 'index.faiss').write_bytes(b'')
    with pytest.raises(MapError, match='truncated'):
        list(inspect(place_map))
