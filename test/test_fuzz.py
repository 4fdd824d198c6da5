"""
Mutated files, through the functions that read them: refused in one line, or of use.

A few examples of each in every run of the tests; `make fuzz MINUTES=60` goes on with others.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import io
import json
import os
from pathlib import Path
import resource
import shutil
import time
from typing import Any
import warnings

import cv2
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import onnx
import pytest
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import sha256
from vpr_ros.core.files import spot_sha256
from vpr_ros.core.pose_files import read_pose_file
from vpr_ros.encoding.engine_cache import read_manifest as read_engine
from vpr_ros.encoding.model_file import check_model_file
from vpr_ros.localization.running_mean import DriveState
from vpr_ros.localization.running_mean import read_state
from vpr_ros.localization.running_mean import write_state
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
import yaml

EXAMPLES = int(os.environ.get('VPR_FUZZ_EXAMPLES', '0'))
SECONDS, BYTES = 5, 1 << 30

fuzz = settings(max_examples=EXAMPLES or 20, deadline=None, derandomize=not EXAMPLES,
                database=None, suppress_health_check=list(HealthCheck))

# Mutations of bytes: where, by what, and how many bytes of the old give way.
_NUMBERS = st.sampled_from([0, 1, -1, 2, 255, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32,
                            (1 << 63) - 1, -(1 << 63), 5 * 10 ** 8]).flatmap(
    lambda number: st.sampled_from([
        (number & (1 << 8 * size) - 1).to_bytes(size, order)
        for size in (1, 2, 4, 8) for order in ('little', 'big')]))
_FLOATS = st.sampled_from([np.array(value, kind).tobytes() for kind, values in {
    '<f8': [np.nan, np.inf, -np.inf, 1e308, -0.0, 1e-40], '<f4': [np.nan, np.inf, 1e32, 2.0],
    '<f2': [np.nan, np.inf, 60_000, 2.0]}.items() for value in values])
_EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8) | _NUMBERS | _FLOATS,
                            st.sampled_from([None, None, None, 0, 1, 100, 10 ** 9])),
                  min_size=1, max_size=4)


def mutated(data: bytes, edits: list[tuple[float, bytes, int | None]]) -> bytes:
    """Return data with each edit's bytes over, between or instead of its own."""
    for where, new, gone in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + (len(new) if gone is None else gone):]
    return data


_ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.binary(max_size=4),
    st.sampled_from(['\ud800', 'x' * 5000, '/etc/passwd', '../x', 1e308, 1e-308, 10 ** 30, [],
                     {}]),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2), st.dates())


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where what is inside takes long, much memory, or is refused in more than a line."""
    begin, most = time.process_time(), peak()
    try:
        yield
    except (VprError, FileNotFoundError) as error:
        assert len(str(error)) < 300
        assert str(error).isprintable()
    assert time.process_time() - begin < SECONDS
    assert peak() < most + BYTES


def peak() -> int:
    """Return the most bytes that this process has had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Maps(dict[str, dict[str, bytes]]):

    def __repr__(self) -> str:
        return '<the files of maps>'


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Return the files of a map with each kind of index, by their names."""
    folder = tmp_path_factory.mktemp('whole')
    vectors = np.random.default_rng(0).standard_normal((270, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    maps = _Maps()
    for kind in defaults.INDEX_KINDS:
        manifest = Manifest(ModelIdentity('ab' * 32, 'model.onnx', 8, 48, 64),
                            (Session('winter.mcap', 'winter'),), spacing=1.0, index=kind)
        count = 270 if kind in ('pq', 'opq', 'ivfpq', 'rerank') else 20
        PlaceMap.build(vectors[:count], np.arange(count),
                       poses.planar(np.arange(count) * 1.0, 0.0, 0.0), np.zeros(count, np.int32),
                       manifest).save(folder / kind)
        maps[kind] = {file.name: file.read_bytes() for file in (folder / kind).iterdir()}
    return maps


@pytest.fixture
def place(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Return a function that writes a map whose digests match its files, whatever they are."""
    def write(files: dict[str, bytes]) -> Path:
        path = tmp_path / 'map'
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for name, data in files.items():
            (path / name).write_bytes(data)
        raw = yaml.safe_load(files['map.yaml'])
        if isinstance(raw, dict):
            raw |= {table: {name: digest(path / name) for name in files if name in raw[table]}
                    for table, digest in (('sha256', sha256), ('spots', spot_sha256))
                    if isinstance(raw.get(table), dict)}
            (path / 'map.yaml').write_text(yaml.safe_dump(raw))
        return path
    return write


def _used(path: Path) -> None:
    """Load a map and search it: what it gives is in range."""
    place_map = PlaceMap.load(path)
    assert np.isfinite(place_map.poses).all()
    assert np.isfinite(place_map.mean).all()
    assert place_map.manifest.spacing <= 1e4
    queries = np.eye(place_map.manifest.dimension, dtype=np.float32)[:3]
    similarity, places = place_map.search(queries, 10)
    assert (np.abs(similarity) <= 1.5).all()
    assert ((places >= 0) & (places < len(place_map))).all()
    assert np.isfinite(place_map.vectors(np.array([0, len(place_map) - 1]))).all()


@pytest.mark.parametrize('kind', defaults.INDEX_KINDS)
def test_files_that_are_not_mutated_are_read(whole: Any, place: Any, kind: str) -> None:
    _used(place(whole[kind]))


@fuzz
@given(kind=st.sampled_from(defaults.INDEX_KINDS), edits=_EDITS,
       name=st.sampled_from(['index.faiss', 'index.faiss', 'places.npz', 'vectors.npy']),
       head=st.booleans())
def test_files_of_a_map(whole: Any, place: Any, kind: str, edits: Any, name: str, head: bool
                        ) -> None:
    files = dict(whole[kind])
    if name in files:
        size = min(200 if head else 10 ** 9, len(files[name]))
        files[name] = mutated(files[name][:size], edits) + files[name][size:]
    with bounded():
        _used(place(files))


@fuzz
@given(name=st.sampled_from(['stamps', 'poses', 'sessions', 'means', 'more']),
       kind=st.sampled_from(['<f8', '>f8', '<f2', '<c16', '<i8', '<i4', '|b1', '<M8[ns]', '<U3']),
       shape=st.lists(st.sampled_from([0, 1, 7, 8, 20]), max_size=3), value=st.floats(),
       compressed=st.booleans())
def test_arrays_of_a_map(whole: Any, place: Any, name: str, kind: str, shape: list[int],
                         value: float, compressed: bool) -> None:
    with np.load(io.BytesIO(whole['flat']['places.npz'])) as kept:
        arrays = dict(kept)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        arrays[name] = np.full(shape, value).astype(kind)
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    with bounded():
        _used(place({**whole['flat'], 'places.npz': buffer.getvalue()}))


@fuzz
@given(data=st.data(), value=_ODD, remove=st.booleans())
def test_fields_of_a_manifest(whole: Any, place: Any, data: st.DataObject, value: Any,
                              remove: bool) -> None:
    raw = yaml.safe_load(whole['fp16']['map.yaml'])
    raw |= {'datum': {'latitude': 1.0, 'longitude': 2.0, 'altitude': 3.0},
            'cameras': [{'width': 4, 'height': 3, 'k': [1.0, 1.0, 1.0, 1.0], 'd': [0.1],
                         'distortion_model': 'plumb_bob'}]}
    inside: Any = raw
    while True:
        keys = sorted(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or not inside[key] or data.draw(st.booleans()):
            break
        inside = inside[key]
    if remove:
        del inside[key]
    else:
        inside[key] = value
    with bounded():
        _used(place({**whole['fp16'], 'map.yaml': yaml.safe_dump(raw).encode()}))


@fuzz
@given(edits=st.lists(st.tuples(
    st.floats(0, 1), st.sampled_from([
        b'&a ', b'*a', b'[', b'{', b'- ', b': ', b'\n', b'!!binary ', b'? ', b'"', b'<<: ', b'|',
        b'\xff', b'[' * 50, b'9' * 5000, b'1:' * 50, b'\0', b'---\n', b'.inf',
        b'!!python/name:a ']),
    st.sampled_from([0, 1, 5, None])), min_size=1, max_size=5))
def test_text_of_a_manifest(whole: Any, tmp_path: Path, edits: Any) -> None:
    files = {**whole['fp16'], 'map.yaml': mutated(whole['fp16']['map.yaml'], edits)}
    path = tmp_path / 'map'
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    with bounded():
        _used(path)


_RGB = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
_IMAGES = [bytes(cv2.imencode(suffix, _RGB, options)[1]) for suffix, options in (
    ('.png', []), ('.jpg', []), ('.jpg', [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), ('.webp', []),
    ('.webp', [cv2.IMWRITE_WEBP_QUALITY, 101]), ('.bmp', []), ('.ppm', []),
    ('.tiff', []))]


@fuzz
@given(data=st.sampled_from(_IMAGES), edits=_EDITS, head=st.booleans())
def test_images(data: bytes, edits: Any, head: bool) -> None:
    size = 80 if head else len(data)
    with bounded():
        rgb = images.decode(mutated(data[:size], edits) + data[size:], 'frame 7')
        images.check_size(*rgb.shape[:2])
        assert rgb.dtype == np.uint8


_POSES = [b'1.5 1 2 3 0 0 0 1\n2.5 2 2 3 0 0 0 1\n', b'1 0 0 5 0 1 0 6 0 0 1 7\n' * 2,
          b'image,x_m,y_m,yaw_deg\na.png,1,2,90\nb.png,2,2,91\n',
          b'#timestamp [ns],p_x [m],p_y [m],p_z [m],q_w,q_x,q_y,q_z\n15,1,2,3,1,0,0,0\n']


@fuzz
@given(data=st.sampled_from(_POSES), name=st.sampled_from(['a.csv', 'a.tum', 'a.txt']),
       edits=st.lists(st.tuples(
           st.floats(0, 1), st.binary(max_size=4) | st.sampled_from([
               b'1e308', b'-1e308', b'nan', b'inf', b'1e-308', b'sNaN', b'1e99999999', b'\n', b',',
               b'"', b';', b'\t', b'9' * 5000, b'x' * 20000, b'#', b'\xef\xbb\xbf', b'0 0 0 0',
               b'1_0', '\u0661'.encode(), b'\r', b'\0', b' ']), st.sampled_from([0, 1, 3, None])),
           min_size=1, max_size=4))
def test_poses_in_files(tmp_path: Path, data: bytes, name: str, edits: Any) -> None:
    (tmp_path / name).write_bytes(mutated(data, edits))
    with bounded():
        found: Any = read_pose_file(tmp_path / name)
        found = found.poses if hasattr(found, 'poses') else found[1] if isinstance(
            found, tuple) else found
        if len(found):
            np.testing.assert_allclose(np.linalg.norm(found[:, 3:], axis=1), 1)
            assert np.isfinite(poses.checked(found)).all()


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a model that keeps a weight in another file."""
    path = write_thumbnail_model(tmp_path_factory.mktemp('model') / 'm.onnx')
    graph = onnx.load(str(path))
    weight = graph.graph.initializer.add(name='w', data_type=1, dims=[4])
    weight.external_data.add(key='location', value='elsewhere')
    weight.data_location = onnx.TensorProto.EXTERNAL
    return bytes(graph.SerializeToString())


@fuzz
@given(edits=_EDITS, tail=st.booleans())
def test_models(model: bytes, tmp_path: Path, edits: Any, tail: bool) -> None:
    start = max(0, len(model) - 60) if tail else 0  # where the weight is
    data = model[:start] + mutated(model[start:], edits)
    (tmp_path / 'm.onnx').write_bytes(data)
    with bounded():
        check_model_file(tmp_path / 'm.onnx')
        try:
            graph = onnx.load_model_from_string(data).graph
        except Exception:  # it is none
            return
        assert not any(tensor.external_data or tensor.data_location
                       for tensor in graph.initializer)


@fuzz
@given(edits=_EDITS)
def test_states(tmp_path: Path, edits: Any) -> None:
    path = tmp_path / 'state.npz'
    write_state(path, DriveState(np.ones(8, np.float32), 30.0, 5), 'ab' * 32)
    path.write_bytes(mutated(path.read_bytes(), edits))
    with bounded():
        read_state(path, 'ab' * 32)


@fuzz
@given(value=_ODD, edits=_EDITS)
def test_manifests_of_engines(tmp_path: Path, value: Any, edits: Any) -> None:
    text = json.dumps({'key': {}, 'files': {}, 'cosine': value}, default=str).encode()
    for data in (text, mutated(text, edits)):
        (tmp_path / 'engine.json').write_bytes(data)
        cosine = read_engine(tmp_path, {})
        assert cosine is None or -1.1 < cosine < 1.1
