"""Maps on disk and in search: every kind comes back, and nothing but a whole map is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import resource
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import ModelMismatchError
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import sha256
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.index import make_index
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import centre
from vpr_ros.maps.place_map import PlaceMap
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

DIMENSION = 32
NOW = 1_700_000_000_123_456_789
# The share of queries whose best place, by the exact index, is among the ten of each kind.
RECALL = {'flat': 1.0, 'fp16': 1.0, 'sq8': 0.99, 'hnsw': 0.98, 'pq': 0.98, 'opq': 0.98,
          'ivfpq': 0.98, 'rerank': 1.0}


@pytest.fixture(scope='module')
def exact() -> PlaceMap:
    return _build(_clusters(1000))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the directory of a small map with thumbnails."""
    pictures = [images.encode_jpeg(np.full((24, 32, 3), 20 * i, np.uint8)) for i in range(8)]
    _build(_clusters(8), thumbnails=pictures).save(tmp_path / 'town')
    return tmp_path / 'town'


@pytest.mark.parametrize('kind', defaults.INDEX_KINDS)
def test_every_kind_searches_the_same_after_a_round_trip(
        tmp_path: Path, exact: PlaceMap, kind: str) -> None:
    vectors = _clusters(1000)
    built = _build(vectors, kind)
    built.save(tmp_path / 'map')
    loaded = PlaceMap.load(tmp_path / 'map')
    queries = centre(vectors[:200] + _noise(200, 0.12, seed=9), built.mean)

    similarity, places = loaded.search(queries, 10)
    assert similarity.dtype == np.float32
    assert places.dtype == np.int64
    assert (np.diff(similarity, axis=1) <= 0).all()
    for before, after in zip(built.search(queries, 10), (similarity, places), strict=True):
        np.testing.assert_array_equal(after, before)

    best = exact.search(queries, 1)[1]
    assert (places == best).any(axis=1).mean() >= RECALL[kind]
    np.testing.assert_array_equal(loaded.vectors(np.array([3, 1])), built.vectors()[[3, 1]])
    kept = np.sum(loaded.vectors() * exact.vectors(), axis=1)
    assert kept.mean() > (0.999 if kind in ('flat', 'fp16', 'sq8', 'hnsw', 'rerank') else 0.8)


def test_everything_but_the_index_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = Manifest(ModelIdentity('ab' * 32, 'model.onnx', DIMENSION, 240, 320),
                        (Session('käse.mcap', 'winter'), Session('b.mcap', 'night')),
                        'town', 'camera_base', 1.5, 'flat',
                        Calibration(separation=1.5, outliers=0.2))
    built = PlaceMap.build(_clusters(6), NOW + np.arange(6), _poses(6),
                           np.array([0, 0, 0, 1, 1, 1], np.int32), manifest)
    built.save(tmp_path / 'map')
    loaded = PlaceMap.load(tmp_path / 'map')
    assert loaded.manifest == replace(manifest, recall=1.0)
    assert len(loaded) == 6
    assert loaded.thumbnail(0) is None
    for name in ('stamps', 'poses', 'sessions', 'means'):
        before, after = getattr(built, name), getattr(loaded, name)
        np.testing.assert_array_equal(after, before)
        assert after.dtype == before.dtype


def test_two_saves_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ('one', 'two'):
        _build(_clusters(40)).save(tmp_path / name)
    for file in (tmp_path / 'one').iterdir():
        assert sha256(file) == sha256(tmp_path / 'two' / file.name)


def test_a_place_is_found_by_its_own_descriptor(exact: PlaceMap) -> None:
    similarity, places = exact.search(exact.vectors(np.array([17, 400])), 5)
    assert places[:, 0].tolist() == [17, 400]
    np.testing.assert_allclose(similarity[:, 0], 1, atol=1e-5)


def test_more_candidates_than_places_are_not_made_up() -> None:
    place_map = _build(_clusters(3))
    similarity, places = place_map.search(place_map.vectors(), 10)
    assert similarity.shape == places.shape == (3, 3)
    assert sorted(places[0]) == [0, 1, 2]


def test_what_an_approximate_index_does_not_find_has_the_least_similarity() -> None:
    place_map = _build(_clusters(300), 'ivfpq')
    place_map.index.nprobe = 1
    similarity, places = place_map.search(place_map.vectors(np.array([0])), 300)
    assert (similarity == -1).any()
    assert (places[similarity == -1] == 0).all()


def test_each_session_is_centred_on_its_own_mean() -> None:
    vectors = _clusters(40)
    season = np.random.default_rng(4).normal(size=DIMENSION).astype(np.float32)
    sessions = np.repeat(np.array([0, 1], np.int32), [40, 40])
    place_map = PlaceMap.build(np.concatenate([vectors, vectors + season]), np.arange(80),
                               _poses(80), sessions, _manifest(sessions=2))
    np.testing.assert_allclose(place_map.means, [vectors.mean(0), vectors.mean(0) + season],
                               atol=1e-6)
    np.testing.assert_allclose(place_map.mean, vectors.mean(0) + season / 2, atol=1e-6)
    centred = place_map.vectors()
    np.testing.assert_allclose(centred[:40], centred[40:], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), 1, atol=1e-5)


def test_descriptors_come_back_as_they_were_without_centring() -> None:
    vectors = _clusters(60)
    vectors[:, 0] += 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    place_map = PlaceMap.build(vectors, np.arange(60), _poses(60),
                               np.repeat(np.array([0, 1], np.int32), 30), _manifest(sessions=2))
    assert np.linalg.norm(place_map.mean) > 0.3
    raw = place_map.uncentred()
    np.testing.assert_allclose(raw.vectors(), vectors, atol=1e-5)
    assert not raw.mean.any()
    np.testing.assert_array_equal(raw.poses, place_map.poses)


def test_centring_leaves_zero_where_nothing_is_left() -> None:
    rows = np.array([[1, 0], [3, 4]], np.float32)
    np.testing.assert_allclose(centre(rows, np.array([1, 0], np.float32)),
                               [[0, 0], np.array([2, 4]) / np.sqrt(20)], rtol=1e-6)


@pytest.mark.parametrize('kind', ['flat', 'sq8', 'hnsw'])
@pytest.mark.parametrize('count', [1, 2, 30])
def test_places_that_all_look_the_same_keep_their_descriptor(
        tmp_path: Path, count: int, kind: str) -> None:
    vectors = np.repeat(_clusters(1), count, axis=0)
    _build(vectors, kind).save(tmp_path / 'map')
    similarity, _ = PlaceMap.load(tmp_path / 'map').search(vectors[:1], 5)
    assert similarity.shape == (1, min(count, 5))
    np.testing.assert_allclose(similarity, 1, atol=0.02)


def test_a_model_of_few_dimensions_makes_a_map() -> None:
    vectors = np.eye(4, dtype=np.float32)
    manifest = Manifest(ModelIdentity('ab', 'm.onnx', 4, 48, 64), (Session('a'),))
    place_map = PlaceMap.build(vectors, np.arange(4), _poses(4), np.zeros(4, np.int32), manifest)
    assert place_map.search(place_map.vectors(), 1)[1].ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize('kind', ['pq', 'opq', 'ivfpq', 'rerank'])
def test_too_few_places_for_a_compressed_index_are_refused_with_the_remedy(kind: str) -> None:
    with pytest.raises(ValueError, match=rf"'{kind}' needs at least 256 places .* not 255: use"):
        _build(_clusters(255), kind)


def test_input_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match='at least one place'):
        _build(np.empty((0, DIMENSION), np.float32))
    with pytest.raises(ValueError, match="'lsh' is not known; use one of flat, fp16"):
        _build(_clusters(3), 'lsh')
    with pytest.raises(ValueError, match='descriptors have 31 dimensions, the model 32'):
        _build(_clusters(3)[:, :31])
    with pytest.raises(ValueError, match='2 thumbnails for 3 places'):
        _build(_clusters(3), thumbnails=[b'', b''])
    zeros = np.zeros(3, np.int32)
    with pytest.raises(ValueError, match='differ in length'):
        PlaceMap.build(_clusters(3), np.arange(2), _poses(3), zeros, _manifest())
    with pytest.raises(ValueError, match='session 1 has no places'):
        PlaceMap.build(_clusters(3), np.arange(3), _poses(3), zeros, _manifest(sessions=2))
    with pytest.raises(ValueError, match='numbers from 0 to 0'):
        PlaceMap.build(_clusters(3), np.arange(3), _poses(3), zeros + 1, _manifest())


def test_thumbnails_come_back_and_survive_another_save(saved: Path, tmp_path: Path) -> None:
    PlaceMap.load(saved).save(tmp_path / 'copy')
    PlaceMap.load(tmp_path / 'copy').save(tmp_path / 'copy', overwrite=True)
    for path in (saved, tmp_path / 'copy'):
        picture = PlaceMap.load(path).thumbnail(3)
        assert picture.shape == (24, 32, 3)
        assert abs(int(picture[0, 0, 0]) - 60) <= 2


def test_a_changed_or_missing_thumbnail_is_refused_when_it_is_asked_for(saved: Path) -> None:
    first, second = sorted((saved / 'thumbnails').iterdir())[:2]
    first.write_bytes(second.read_bytes())
    second.unlink()
    place_map = PlaceMap.load(saved)
    with pytest.raises(MapError, match='thumbnail of place 0 was changed'):
        place_map.thumbnail(0)
    with pytest.raises(MapError, match=r'thumbnail of place 1 cannot be read: .*000001\.jpg'):
        place_map.thumbnail(1)
    assert place_map.thumbnail(2) is not None


def test_an_existing_map_is_replaced_only_when_asked(saved: Path) -> None:
    before = _digests(saved)
    with pytest.raises(VprError, match='exists already'):
        _build(_clusters(3)).save(saved)
    assert _digests(saved) == before
    _build(_clusters(3)).save(saved, overwrite=True)
    assert len(PlaceMap.load(saved)) == 3
    assert not (saved / 'thumbnails').exists()


@pytest.mark.parametrize('room', [1_000, 51_240])
def test_a_full_disk_leaves_the_old_map_and_no_rubbish(
        saved: Path, tmp_path: Path, room: int) -> None:
    before = _digests(saved)
    place_map = _build(_clusters(400))  # an index of 51,245 bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match='too large'):
            place_map.save(saved, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _digests(saved) == before
    assert [path.name for path in tmp_path.iterdir()] == ['town']


def test_a_thumbnail_that_is_gone_stops_the_save_and_leaves_nothing(
        saved: Path, tmp_path: Path) -> None:
    place_map = PlaceMap.load(saved)
    (saved / 'thumbnails' / '000005.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'000005\.jpg'):
        place_map.save(tmp_path / 'copy')
    assert [path.name for path in tmp_path.iterdir()] == ['town']


def test_a_map_of_this_model_is_accepted(tmp_path: Path, encoder: Encoder) -> None:
    _of(encoder).save(tmp_path / 'map')
    assert len(PlaceMap.load(tmp_path / 'map', encoder)) == 2


def test_another_models_map_is_refused_with_both_hashes_and_the_command(
        tmp_path: Path, encoder: Encoder) -> None:
    _of(encoder).save(tmp_path / 'map')
    other = Encoder(write_thumbnail_model(tmp_path / 'other.onnx', gain=2.0))
    with pytest.raises(ModelMismatchError) as refusal:
        PlaceMap.load(tmp_path / 'map', other)
    message = str(refusal.value)
    assert encoder.digest[:12] in message
    assert other.digest[:12] in message
    assert (f'`vpr build-map SOURCE --model {other.path} --output {tmp_path / "map"} '
            '--overwrite`') in message


def test_a_map_of_another_file_of_the_same_network_is_accepted(
        tmp_path: Path, encoder: Encoder) -> None:
    _of(encoder).save(tmp_path / 'map')
    model = onnx.load(encoder.path)
    onnx.helper.set_model_props(model, {'same_as': encoder.digest})
    onnx.save(model, tmp_path / 'again.onnx')
    assert len(PlaceMap.load(tmp_path / 'map', Encoder(tmp_path / 'again.onnx'))) == 2


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='nowhere: no such map directory'):
        PlaceMap.load(tmp_path / 'nowhere')


@pytest.mark.parametrize('name', ['map.yaml', 'index.faiss', 'places.npz'])
def test_a_map_that_lacks_a_file_is_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(MapError, match=rf'town is not .*{name}'):
        PlaceMap.load(saved)


@pytest.mark.parametrize('name', ['index.faiss', 'places.npz'])
@pytest.mark.parametrize('damage', [
    lambda whole: whole[:len(whole) // 2], lambda whole: b'', lambda whole: whole + b'x',
    lambda whole: whole[:99] + bytes([whole[99] ^ 1]) + whole[100:]],
    ids=['half', 'empty', 'longer', 'one bit'])
def test_a_damaged_file_is_refused_by_its_digest(
        saved: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (saved / name).write_bytes(damage((saved / name).read_bytes()))
    with pytest.raises(MapError, match=f'{name} is truncated or was changed after the map'):
        PlaceMap.load(saved)


@pytest.mark.parametrize('name', ['index.faiss', 'places.npz'])
@pytest.mark.parametrize('content', [b'', b'not what it should be', bytes(5000)],
                         ids=['empty', 'text', '0'])
def test_a_file_that_is_none_of_its_kind_is_refused_even_with_a_matching_digest(
        saved: Path, name: str, content: bytes) -> None:
    (saved / name).write_bytes(content)
    _sign(saved)
    _refused(saved, 'cannot be read .*: build the map again')


def test_pickled_places_are_refused_even_with_a_matching_digest(saved: Path) -> None:
    arrays = _arrays(saved)
    np.savez(saved / 'places.npz', **{**arrays, 'stamps': arrays['stamps'].astype(object)})
    _sign(saved)
    _refused(saved, r"cannot be read \('stamps' in places\.npz: it holds object")


@pytest.mark.parametrize('name', ['stamps', 'poses', 'sessions', 'means'])
def test_places_that_lack_an_array_are_refused(saved: Path, name: str) -> None:
    arrays = _arrays(saved)
    del arrays[name]
    np.savez(saved / 'places.npz', **arrays)
    _sign(saved)
    _refused(saved, f"cannot be read .*'{name}'")


@pytest.mark.parametrize(('name', 'change'), [
    ('stamps', lambda a: a[:-1]), ('poses', lambda a: a[:, :6]), ('poses', lambda a: a[:-1]),
    ('sessions', lambda a: a + 1), ('sessions', lambda a: a - 1), ('means', lambda a: a[:, :-1]),
    ('means', lambda a: np.concatenate([a, a]))])
def test_arrays_that_disagree_are_refused(
        saved: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = _arrays(saved)
    np.savez(saved / 'places.npz', **{**arrays, name: change(arrays[name])})
    _sign(saved)
    _refused(saved, f'cannot be read .*({name}|session)')


def test_poses_that_are_not_numbers_are_refused(saved: Path) -> None:
    arrays = _arrays(saved)
    arrays['poses'][2, 1] = np.nan
    np.savez(saved / 'places.npz', **arrays)
    _sign(saved)
    _refused(saved, "'poses' in places.npz: it holds values that are not finite")


@pytest.mark.parametrize('name', ['index.faiss', 'places.npz'])
def test_a_link_out_of_the_map_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    _refused(saved, f'{name} leads out of the map')


def test_a_link_to_the_map_is_followed(saved: Path, tmp_path: Path) -> None:
    (tmp_path / 'current').symlink_to(saved)
    assert len(PlaceMap.load(tmp_path / 'current')) == 8


@pytest.mark.parametrize('content', [
    b'', b'[1, 2]', b'just text', b'places: 8', b'{{{', b'\xff\xfe\x00', b'format: 2024-99-99',
    b'!!python/object/apply:os.getcwd []'], ids=repr)
def test_a_manifest_that_is_none_is_refused(saved: Path, content: bytes) -> None:
    (saved / 'map.yaml').write_bytes(content)
    _refused(saved, r'map\.yaml is damaged')


def test_a_map_of_another_format_is_refused_with_both_numbers(saved: Path) -> None:
    _edit(saved, 'format', 99)
    _refused(saved, r'map\.yaml has format 99, this version reads 2')


@pytest.mark.parametrize('key', [
    'model', 'sessions', 'frame_id', 'child_frame_id', 'spacing', 'index', 'calibration',
    'places', 'sha256', 'model.sha256', 'model.dimension'])
def test_a_manifest_that_lacks_an_entry_is_refused(saved: Path, key: str) -> None:
    raw = yaml.safe_load((saved / 'map.yaml').read_text())
    *above, last = key.split('.')
    del (raw[above[0]] if above else raw)[last]
    (saved / 'map.yaml').write_text(yaml.safe_dump(raw))
    _refused(saved, r'map\.yaml is damaged \(.*build the map again')


@pytest.mark.parametrize(('key', 'value'), [
    ('model', 'resnet'), ('model', None), ('model.weight', 3), ('sessions', 3),
    ('sessions', ['a']), ('sessions', [{'name': 'a'}]), ('spacing', 'wide'),
    ('spacing', float('nan')), ('spacing', -1), ('places', 'many'), ('places', [8]),
    ('calibration', 7), ('calibration', {'outliers': 0}), ('calibration', {'separation': 'far'}),
    ('calibration', {'separation': float('nan')}), ('calibration', {'slope': 1}),
    ('sha256', 'abc'), ('sha256', None)])
def test_a_manifest_with_a_wrong_value_is_refused(saved: Path, key: str, value: object) -> None:
    _edit(saved, key, value)
    _refused(saved, r'map\.yaml is damaged \(.*build the map again')


@pytest.mark.parametrize(('key', 'value'), [
    ('places', 7), ('places', 0), ('places', -8), ('model.dimension', 33),
    ('model.dimension', 'many'), ('sessions', []),
    ('sessions', [{'source': 'a'}, {'source': 'a'}])])
def test_a_manifest_that_disagrees_with_the_files_is_refused(
        saved: Path, key: str, value: object) -> None:
    _edit(saved, key, value)
    _refused(saved, f'{key.rpartition(".")[2]} is|it holds|a session|no index of kind')


@pytest.mark.parametrize(('value', 'reason'), [
    ({}, 'is truncated or was changed'),
    ({'index.faiss': 'ab' * 32, 'places.npz': 'cd' * 32}, 'is truncated or was changed'),
    ({'index.faiss': 'ab', 'places.npz': 'cd'}, "is 'ab', not a SHA-256"),
    ({'index.faiss': 12, 'places.npz': None}, 'is 12, not a SHA-256')])
def test_a_changed_digest_is_refused(saved: Path, value: object, reason: str) -> None:
    _edit(saved, 'sha256', value)
    _refused(saved, rf'index\.faiss {reason}')


@pytest.mark.parametrize('value', ['ab' * 32, 'not a digest'])
def test_a_changed_model_digest_counts_as_another_model(
        tmp_path: Path, encoder: Encoder, value: object) -> None:
    _of(encoder).save(tmp_path / 'map')
    _edit(tmp_path / 'map', 'model.sha256', value)
    with pytest.raises(MapError, match=r'thumbnail\.onnx|not a SHA-256'):
        PlaceMap.load(tmp_path / 'map', encoder)


def _clusters(count: int) -> np.ndarray:
    """Return descriptors of unit norm (N,D) in clusters of ten or so."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(max(1, count // 10), DIMENSION))
    rows = centres[np.arange(count) % len(centres)] + 0.4 * rng.normal(size=(count, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _noise(count: int, scale: float, seed: int) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=(count, DIMENSION))).astype(np.float32)


def _poses(count: int) -> np.ndarray:
    return poses.planar(np.arange(float(count)), np.zeros(count), np.full(count, 0.3))


def _manifest(kind: str = 'flat', sessions: int = 1) -> Manifest:
    return Manifest(ModelIdentity('ab' * 32, 'model.onnx', DIMENSION, 48, 64),
                    tuple(Session(f'{i}.mcap') for i in range(sessions)), index=kind)


def _build(vectors: np.ndarray, kind: str = 'flat', thumbnails: list[bytes] | None = None
           ) -> PlaceMap:
    count = len(vectors)
    return PlaceMap.build(vectors, NOW + np.arange(count), _poses(count),
                          np.zeros(count, np.int32), _manifest(kind), thumbnails or [])


def _of(encoder: Encoder) -> PlaceMap:
    """Return a map of two places that an encoder's model made."""
    vectors = np.eye(2, encoder.dimension, dtype=np.float32)
    return PlaceMap.build(vectors, np.arange(2), _poses(2), np.zeros(2, np.int32),
                          Manifest(ModelIdentity.of(encoder), (Session('a.mcap'),)))


def _digests(path: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in path.rglob('*') if file.is_file()}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path / 'places.npz') as arrays:
        return dict(arrays)


def _edit(path: Path, key: str, value: object) -> None:
    """Change one entry of map.yaml; `key` may be 'outer.inner'."""
    raw = yaml.safe_load((path / 'map.yaml').read_text())
    *above, last = key.split('.')
    (raw[above[0]] if above else raw)[last] = value
    (path / 'map.yaml').write_text(yaml.safe_dump(raw))


def _sign(path: Path) -> None:
    """Write the digests that the files have now, as someone who tampers would."""
    _edit(path, 'sha256', {name: sha256(path / name) for name in ('index.faiss', 'places.npz')})


def _refused(path: Path, message: str) -> None:
    with pytest.raises(MapError, match=message) as refusal:
        PlaceMap.load(path)
    assert str(path) in str(refusal.value)
    assert '\n' not in str(refusal.value)


def test_a_rotation_is_not_learned_from_fewer_places_than_dimensions() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 320)).astype(np.float32)
    with pytest.raises(ValueError, match="'opq' needs at least 320 places to learn from, not 300"):
        make_index(vectors, 'opq')
