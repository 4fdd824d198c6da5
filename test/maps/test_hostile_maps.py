"""A map whose digests match may come from anybody: what is no map is not loaded."""

from __future__ import annotations

from collections.abc import Callable
import io
import os
from pathlib import Path
import shutil
from typing import Any
import zipfile

import faiss
import numpy as np
import pytest
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import sha256
from vpr_ros.encoding.projection import Projection
from vpr_ros.maps.index import make_index
from vpr_ros.maps.index_file import check_index_file
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.reranked import Reranked
import yaml

COUNT, DIMENSION = 300, 16
KINDS = defaults.INDEX_KINDS


def _vectors(count: int = COUNT) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, DIMENSION)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a map that is in order."""
    manifest = Manifest(ModelIdentity('ab' * 32, 'model.onnx', DIMENSION, 48, 64),
                        (Session('winter.mcap', 'winter'),), spacing=1.0, index='flat')
    thumbnails = [images.encode_jpeg(np.full((12, 16, 3), 20 * i, np.uint8)) for i in range(8)]
    path = tmp_path_factory.mktemp('maps') / 'whole'
    PlaceMap.build(_vectors(8), np.arange(8), poses.planar(np.arange(8.0), 0.0, 0.0),
                   np.zeros(8, np.int32), manifest, thumbnails).save(path)
    return path


@pytest.fixture
def saved(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be changed."""
    shutil.copytree(whole, tmp_path / 'map')
    return tmp_path / 'map'


@pytest.fixture(scope='module')
def indices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return files of every kind of index, of the same vectors."""
    folder = tmp_path_factory.mktemp('indices')
    for kind in KINDS:
        index: Any = make_index(_vectors(), kind)
        faiss.write_index(index.codes if isinstance(index, Reranked) else index,
                          str(folder / kind))
    return {kind: folder / kind for kind in KINDS}


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(MapError, match=reason) as refusal:
        PlaceMap.load(path)
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable()


def _sign(path: Path, **changes: object) -> None:
    raw = yaml.safe_load((path / 'map.yaml').read_text())
    raw['sha256'] = {name: sha256(path / name) for name in raw['sha256']}
    (path / 'map.yaml').write_text(yaml.safe_dump({**raw, **changes}))


def _replace(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path / 'places.npz') as kept:
        np.savez(path / 'places.npz', **{**kept, **arrays})
    _sign(path)


# The index

@pytest.mark.parametrize('kind', KINDS)
def test_an_index_is_of_the_kind_that_the_manifest_says(indices: dict[str, Path], kind: str
                                                        ) -> None:
    for other, path in indices.items():
        if other == kind:
            check_index_file(path, kind, COUNT, DIMENSION)
        else:
            with pytest.raises(ValueError, match=f"{other} is no index of kind '{kind}'"):
                check_index_file(path, kind, COUNT, DIMENSION)
    for count, dimension in ((COUNT + 1, DIMENSION), (COUNT, DIMENSION + 1)):
        with pytest.raises(ValueError, match='is no index'):
            check_index_file(indices[kind], kind, count, dimension)


@pytest.mark.parametrize('kind', KINDS)
def test_an_index_that_was_cut_or_is_longer_is_refused(
        indices: dict[str, Path], tmp_path: Path, kind: str) -> None:
    data = indices[kind].read_bytes()
    for part in (*(data[:len(data) * n // 20] for n in range(20)), data[:-1], data + b'x'):
        (tmp_path / 'index').write_bytes(part)
        with pytest.raises(ValueError, match='is no index'):
            check_index_file(tmp_path / 'index', kind, COUNT, DIMENSION)


@pytest.mark.parametrize('recipe', [
    'L2', 'LSH', 'IDMap,Flat', 'IVF2,Flat', 'SQ8', 'PCA8,Flat', 'Flat,RFlat'])
def test_an_index_of_another_kind_or_metric_is_refused(saved: Path, recipe: str) -> None:
    index = faiss.IndexFlatL2(DIMENSION) if recipe == 'L2' else faiss.index_factory(
        DIMENSION, recipe, faiss.METRIC_L2 if recipe == 'LSH' else faiss.METRIC_INNER_PRODUCT)
    index.train(_vectors(64))
    if 'IDMap' in recipe:
        index.add_with_ids(_vectors(8), np.arange(8))
    else:
        index.add(_vectors(8))
    faiss.write_index(index, str(saved / 'index.faiss'))
    _sign(saved)
    _refused(saved, r"index\.faiss is no index of kind 'flat'|larger than map.yaml says")


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e32, 1.01, 0.9])
@pytest.mark.parametrize('kind', ['flat', 'fp16', 'hnsw'])
def test_vectors_without_unit_norm_are_refused(saved: Path, kind: str, value: float) -> None:
    vectors = _vectors(8)
    vectors[5] *= value
    faiss.write_index(make_index(vectors, kind), str(saved / 'index.faiss'))
    _sign(saved, index=kind)
    _refused(saved, 'vector 5 has norm')


def _overwrite(path: Path, at: int, value: int, size: int = 4) -> None:
    data = bytearray(path.read_bytes())
    data[at:at + size] = value.to_bytes(size, 'little', signed=value < 0)
    path.write_bytes(data)


@pytest.mark.parametrize(('kind', 'end', 'value'), [
    ('hnsw', 8, 5 * 10 ** 8),   # efSearch
    ('hnsw', 20, COUNT), ('hnsw', 20, -7), ('hnsw', 16, 30),  # entry point, its level
    ('hnsw', 24, COUNT), ('hnsw', 24, -2)])                   # a link
def test_links_to_nowhere_are_refused(
        indices: dict[str, Path], tmp_path: Path, kind: str, end: int, value: int) -> None:
    path = tmp_path / 'index'
    shutil.copy(indices[kind], path)
    before_vectors = path.stat().st_size - (37 + 8 + 4 * COUNT * DIMENSION)
    _overwrite(path, before_vectors - end, value)
    with pytest.raises(ValueError, match='is no index'):
        check_index_file(path, kind, COUNT, DIMENSION)


@pytest.mark.parametrize('value', [COUNT, -1, 1, 10 ** 9])
@pytest.mark.parametrize('kind', ['ivfpq', 'rerank'])
def test_lists_of_vectors_that_are_none_are_refused(
        indices: dict[str, Path], tmp_path: Path, kind: str, value: int) -> None:
    index = faiss.read_index(str(indices[kind]))
    lists = faiss.extract_index_ivf(index).invlists
    number = next(n for n in range(lists.nlist) if lists.list_size(n) > 1)
    ids = faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
    ids[0] = value if value != 1 else ids[1]
    faiss.write_index(index, str(tmp_path / 'index'))
    with pytest.raises(ValueError, match=r'is no index .* (list|vectors)'):
        check_index_file(tmp_path / 'index', kind, COUNT, DIMENSION)


def test_what_a_search_gives_is_in_range_whatever_became_of_the_index(whole: Path) -> None:
    place_map = PlaceMap.load(whole)

    class Broken:
        d, ntotal = DIMENSION, 8

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            return (np.array([[np.inf, np.nan, 1e30, 0.5, 0.4]], np.float32),
                    np.array([[1, 2, 3, 8, 4]]))

        def sa_code_size(self) -> int:
            return 1

    object.__setattr__(place_map, 'index', Broken())
    similarity, places = place_map.search(_vectors(1), 5)
    assert similarity.tolist() == [[-1, -1, -1, -1, np.float32(0.4)]]
    assert places.tolist() == [[0, 0, 0, 0, 4]]


# places.npz

@pytest.mark.parametrize(('name', 'change'), [
    ('poses', lambda a: a.astype(np.complex128)), ('poses', lambda a: a.astype(np.float16)),
    ('poses', lambda a: a.astype('>f8')), ('poses', np.asfortranarray),
    ('poses', lambda a: a * 1e300), ('poses', lambda a: a * 0), ('stamps', lambda a: a * 1.0),
    ('poses', lambda a: np.where(np.arange(7) == 6, 1e308, a)),
    ('stamps', lambda a: np.zeros(8, [('a', '<i8')])), ('stamps', lambda a: a.view('<M8[ns]')),
    ('sessions', lambda a: a.astype(np.int64)), ('sessions', lambda a: a - 1),
    ('sessions', lambda a: a + 1), ('means', lambda a: a * np.nan), ('means', lambda a: a + 1e9),
    ('thumbnails', lambda a: a[:, :31]), ('thumbnails', lambda a: a.astype(np.int8))])
def test_arrays_of_another_kind_or_range_are_refused(
        saved: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with np.load(saved / 'places.npz') as kept:
        array = change(kept[name])
    _replace(saved, **{name: array})
    _refused(saved, 'cannot be read')


def test_compressed_arrays_are_refused_before_they_are_unpacked(saved: Path) -> None:
    with np.load(saved / 'places.npz') as kept:
        np.savez_compressed(saved / 'places.npz', **kept)
    _sign(saved)
    _refused(saved, "'stamps' in places.npz: it is compressed")


@pytest.mark.parametrize('shape', ['(1000000000, 7)', '(8, 7, 10000000000)', '(-8, 7)', '(' * 90])
def test_a_header_that_claims_more_than_the_file_has_is_refused(saved: Path, shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with np.load(saved / 'places.npz') as kept, zipfile.ZipFile(saved / 'p', 'w') as archive:
        for name in kept.files:
            buffer = io.BytesIO()
            np.save(buffer, kept[name])
            archive.writestr(f'{name}.npy', buffer.getvalue() if name != 'poses' else (
                b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + bytes(448)))
    (saved / 'p').rename(saved / 'places.npz')
    _sign(saved)
    _refused(saved, "'poses' in places.npz")


@pytest.mark.parametrize('name', ['index.faiss', 'places.npz'])
def test_a_file_without_end_is_refused_before_it_is_read(saved: Path, name: str) -> None:
    with (saved / name).open('r+b') as file:
        file.truncate(1 << 40)  # sparse
    _refused(saved, f'{name} is larger than map.yaml says')


# projection.npy

@pytest.fixture
def with_projection(saved: Path) -> Path:
    """Return a map that has a projection of 3 rows and 5 columns."""
    built = PlaceMap.load(saved)
    shutil.rmtree(saved)
    PlaceMap.build(
        np.concatenate([built.vectors(), np.zeros((8, 3), np.float32)], axis=1), built.stamps,
        built.poses, built.sessions, built.manifest,
        projection=Projection(np.ones((3, 5), np.float16))).save(saved)
    assert PlaceMap.load(saved).projection is not None
    return saved


@pytest.mark.parametrize('array', [
    np.ones((3, 5), np.float32), np.ones((3, 5), '>f2'), np.ones((5, 3), np.float16),
    np.ones((3, 5, 1), np.float16), np.ones((3, 5), np.float16, order='F'),
    np.full((3, 5), np.inf, np.float16), np.full((3, 5), np.nan, np.float16)],
    ids=lambda array: f'{array.dtype.str}{array.shape}{array.flat[0]}')
def test_a_projection_of_another_kind_or_range_is_refused(with_projection: Path, array: np.ndarray
                                                          ) -> None:
    np.save(with_projection / 'projection.npy', array)
    _sign(with_projection)
    _refused(with_projection, r'cannot be read \(projection\.npy: it holds|larger than map.yaml')


def test_a_projection_that_is_cut_longer_missing_or_without_end_is_refused(with_projection: Path
                                                                           ) -> None:
    path = with_projection / 'projection.npy'
    data = path.read_bytes()
    for part in (data[:-1], data[:60], b'', data + b'x'):
        path.write_bytes(part)
        _sign(with_projection)
        _refused(with_projection, r'cannot be read \(projection\.npy: it')
    with path.open('r+b') as file:
        file.truncate(1 << 40)  # sparse
    _refused(with_projection, r'projection\.npy is larger than map.yaml says')
    path.unlink()
    _refused(with_projection, r'is not whole: projection\.npy is missing')


@pytest.mark.parametrize('changes', [
    {'rows': 0}, {'rows': 2}, {'rows': 1 << 40}, {'rows': True}, {'rows': '3'}, {'columns': 0},
    {'columns': 6}, {'columns': 1 << 22}, {'columns': 5.0}, {'beside_model': 1},
    {'beside_model': False}, {'more': 1}], ids=repr)
def test_a_projection_of_another_shape_than_map_yaml_says_is_refused(
        with_projection: Path, changes: dict[str, object]) -> None:
    shape = {'rows': 3, 'columns': 5, 'beside_model': True, **changes}
    _sign(with_projection, projection=shape)
    _refused(with_projection, r'map\.yaml is damaged|cannot be read')


# map.yaml

_BOMB = '\n'.join(f'l{n}: &l{n} [{", ".join([f"*l{n - 1}" if n else "lol"] * 10)}]'
                  for n in range(9))


@pytest.mark.parametrize(('key', 'text'), [
    ('frame_id', '*l8'), ('format', '*l8'), ('calibration', '{fitted_on: *l8}'),
    ('sha256', '*l8'), ('places', '*l8'), ('sessions', '*l8')])
def test_aliases_are_not_followed(saved: Path, key: str, text: str) -> None:
    lines = [line for line in (saved / 'map.yaml').read_text().splitlines()
             if not line.startswith(f'{key}:')]
    (saved / 'map.yaml').write_text('\n'.join([_BOMB, *lines, f'{key}: {text}']))
    _refused(saved, r'map\.yaml is damaged \((an alias in line 2|.*)\): build the map again')


@pytest.mark.parametrize(('key', 'value'), [
    ('format', '\ud800'), ('format', 'x' * 9999), ('format', True), ('format', 2.0 ** 70),
    ('frame_id', ''), ('frame_id', 5), ('frame_id', 'a\nb'), ('frame_id', 'x' * 300),
    ('frame_id', '\udcff'), ('child_frame_id', ['base']), ('child_frame_id', '\x1b[31m'),
    ('spacing', 1e308), ('spacing', True), ('spacing', float('inf')), ('spacing', '1'),
    ('places', float('inf')), ('places', 8.5), ('places', True), ('places', 10 ** 30),
    ('index', '/etc/passwd'), ('index', 'auto'), ('index', None), ('index', ['flat']),
    ('recall', 'good'), ('recall', float('nan')), ('recall', 7),
    ('calibration', {'deviation': [1e200] * 3}), ('calibration', {'deviation': ['1', 1, 1]}),
    ('calibration', {'deviation': [0.1, 0.1, 7.0]}), ('calibration', {'deviation': 3}),
    ('calibration', {'fitted_on': 5}), ('calibration', {'fitted_on': 'a\u2028b'}),
    ('calibration', {'separation': 1e308}), ('calibration', {'outliers': 1e-308}),
    ('calibration', {'confidence': {'odometry': {'offset': '1'}}}),
    ('calibration', {'confidence': {'odometry': {'offset': 1e308}}}),
    ('calibration', {'confidence': {'walking': {}}}), ('calibration', {'confidence': [1]}),
    ('sessions', [{'source': 5}]), ('sessions', [{'source': 'x' * 5000}]),
    ('sessions', [{'source': 'a', 'condition': None}]), ('sessions', {'source': 'a'}),
    ('datum', {'latitude': 91, 'longitude': 0, 'altitude': 0}), ('datum', {'latitude': 1}),
    ('datum', {'latitude': 1, 'longitude': float('nan'), 'altitude': 0}), ('datum', 'here'),
    ('cameras', [{'width': 0, 'height': 4}]), ('cameras', [{'width': 4}]), ('cameras', 'one'),
    ('cameras', [{'width': 4, 'height': 4, 'k': [0, 0, 1, 1]}]),
    ('cameras', [{'width': 4, 'height': 4, 'd': [1e308] * 5}]),
    ('sha256', {'index.faiss': 5}), ('sha256', {5: 'ab' * 32}), ('spots', {'vectors.npy': 'ab'}),
    ('model', {'name': 'm'}), ('model', 'm'), ('projection', 'model'), ('projection', {}),
    ('projection', {'rows': 1, 'columns': float('nan'), 'beside_model': True})], ids=repr)
def test_a_manifest_with_a_value_of_another_type_or_range_is_refused(
        saved: Path, key: str, value: object) -> None:
    raw = yaml.safe_load((saved / 'map.yaml').read_text())
    (saved / 'map.yaml').write_text(yaml.safe_dump({**raw, key: value}))
    _refused(saved, r'map\.yaml is damaged \(.*\): build the map again')


@pytest.mark.parametrize('text', [
    'a: ' + '[' * 3000, '{' * 3000, 'a: ' + '1:' * 9999 + '1', 'a: ' + '9' * 5000,
    'format: ' + 'x' * 300_000, '? ' * 3000, '- ' * 3000, '<<: [1]', '? [a]\n: 1', '!!set {a}'],
    ids=lambda text: f'{text[:8]}x{len(text)}')
def test_a_manifest_that_nests_or_is_too_long_is_refused(saved: Path, text: str) -> None:
    (saved / 'map.yaml').write_text(text)
    _refused(saved, r'map\.yaml is damaged')


def test_names_that_are_no_utf_8_are_kept_with_escapes(whole: Path, tmp_path: Path) -> None:
    built = PlaceMap.load(whole)
    source = os.fsdecode(b'caf\xe9.mcap')
    manifest = Manifest(ModelIdentity('ab' * 32, source, DIMENSION, 48, 64), (Session(source),))
    PlaceMap.build(built.vectors(), built.stamps, built.poses, built.sessions, manifest
                   ).save(tmp_path / 'map')
    assert PlaceMap.load(tmp_path / 'map').manifest.sessions[0].source == 'caf\\udce9.mcap'


# Thumbnails

def test_thumbnails_are_files_of_the_map_and_nothing_else(saved: Path, tmp_path: Path) -> None:
    place_map, folder = PlaceMap.load(saved), saved / 'thumbnails'
    (folder / '000000.jpg').rename(tmp_path / 'outside.jpg')
    (folder / '000000.jpg').symlink_to(tmp_path / 'outside.jpg')
    (folder / '000001.jpg').unlink()
    (folder / '000001.jpg').symlink_to('/dev/zero')
    (folder / '000002.jpg').unlink()
    os.mkfifo(folder / '000002.jpg')
    with (folder / '000003.jpg').open('r+b') as file:
        file.truncate(1 << 40)
    for place in range(4):
        with pytest.raises(VprError, match=f'the thumbnail of place {place} cannot be read'):
            place_map.thumbnail(place)
    assert place_map.thumbnail(4) is not None
    folder.rename(tmp_path / 'elsewhere')
    folder.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(VprError, match='the thumbnail of place 4 cannot be read'):
        place_map.thumbnail(4)
