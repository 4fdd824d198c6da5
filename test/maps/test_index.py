"""Kinds of index: which one `auto` takes, what it finds, and how its files are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.errors import MapError
from vpr_ros.core.files import sha256
from vpr_ros.core.files import spot_sha256
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.index import make_index
from vpr_ros.maps.index_choice import fit_index
from vpr_ros.maps.index_choice import other_views
from vpr_ros.maps.index_choice import RECALL
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.reranked import Reranked
from vpr_ros.maps.reranked import RowFile
import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from vpr_ros.encoding.encoder import Encoder

DIMENSION = 32


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the directory of a map whose vectors stay on disk."""
    _map(_drive(600)).save(tmp_path / 'town')
    return tmp_path / 'town'


def test_every_vector_of_a_small_map_is_compared_in_half_precision() -> None:
    index, kind, recall = fit_index(_drive(300), 'auto')
    assert kind == 'fp16'
    assert recall > 0.995
    assert not isinstance(index, Reranked)


def test_where_half_precision_does_not_tell_places_apart_auto_is_exact() -> None:
    vectors = np.ones((300, DIMENSION), np.float32)
    vectors[:, 0] += np.linspace(0, 1e-3, 300, dtype=np.float32)  # less than a rounding apart
    vectors[:, 1] += np.random.default_rng(0).normal(0, 1e-4, 300).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert fit_index(vectors, 'fp16')[2] < RECALL
    assert fit_index(vectors, 'auto')[1:] == ('flat', 1.0)


def test_a_large_map_gets_codes_that_find_what_an_exact_search_finds() -> None:
    vectors = _drive(3000)
    index, kind, recall = fit_index(vectors, 'auto', exact_bytes=100_000)
    assert kind == 'rerank'
    assert recall >= RECALL
    queries = other_views(vectors, 0.5, 0.7, np.random.default_rng(7), 300)
    exact = queries @ vectors.T
    similarity, places = index.search(queries, 5)
    assert (places[:, 0] == exact.argmax(axis=1)).mean() >= 0.98
    np.testing.assert_allclose(similarity, np.take_along_axis(exact, places, axis=1), atol=2e-3)


def test_where_the_codes_do_not_tell_places_apart_auto_stays_exact() -> None:
    vectors = np.random.default_rng(0).standard_normal((20_000, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert fit_index(vectors, 'rerank')[2] < RECALL
    assert fit_index(vectors, 'auto', exact_bytes=0)[1:] == ('flat', 1.0)


def test_the_recall_of_a_rough_index_is_measured_to_be_low() -> None:
    vectors = _drive(2000)
    assert fit_index(vectors, 'pq')[2] < fit_index(vectors, 'sq8')[2]
    assert fit_index(vectors, 'sq8')[2] > 0.9


def test_other_views_are_as_like_their_place_as_asked() -> None:
    vectors = _drive(1000)
    queries = other_views(vectors, 0.5, 0.5, np.random.default_rng(1), 400)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    assert np.median((queries @ vectors.T).max(axis=1)) == pytest.approx(0.6, abs=0.12)


# Not ivfpq: of many equal places all lie in one list, and the lists that it looks into are empty.
@pytest.mark.parametrize('kind', ['auto', *sorted({*defaults.INDEX_KINDS} - {'ivfpq'})])
@pytest.mark.parametrize('count', [1, 2, 300])
def test_places_that_all_look_the_same_are_as_good_as_each_other(kind: str, count: int) -> None:
    vectors = np.repeat(_drive(1), count, axis=0)
    if kind in ('pq', 'opq', 'rerank') and count < 256:
        with pytest.raises(ValueError, match='needs at least 256 places'):
            fit_index(vectors, kind)
        return
    index, _, recall = fit_index(vectors, kind)
    assert recall == 1.0
    similarity, places = index.search(vectors[:1], min(count, 5))
    assert ((places >= 0) & (places < count)).all()
    np.testing.assert_allclose(similarity, 1, atol=0.05)


def test_a_map_on_disk_serves_whatever_a_map_in_memory_does(saved: Path) -> None:
    place_map, exact = PlaceMap.load(saved), _map(_drive(600), 'flat')
    assert isinstance(place_map.index.rows, RowFile)
    assert place_map.manifest.recall >= RECALL
    np.testing.assert_allclose(place_map.vectors(), exact.vectors(), atol=1e-3)
    some = place_map.select(np.arange(10, 40))
    assert some.manifest.index == 'flat'
    assert some.search(exact.vectors(np.array([17])), 1)[1].tolist() == [[7]]
    similarity, places = place_map.search(exact.vectors(np.array([3])), 600)
    assert similarity.shape == (1, 600)
    assert (places[similarity == -1] == 0).all()
    assert places[0, 0] == 3


def test_a_map_on_disk_is_saved_again_over_itself(saved: Path) -> None:
    before = sha256(saved / 'vectors.npy')
    PlaceMap.load(saved).save(saved, overwrite=True)
    assert sha256(saved / 'vectors.npy') == before
    PlaceMap.load(saved, verify=True)


def test_the_localiser_finds_places_on_a_map_on_disk(encoder: Encoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, encoder.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    manifest = Manifest(ModelIdentity.of(encoder), (Session('a'),), spacing=1.0, index='rerank')
    PlaceMap.build(vectors, np.arange(400), _poses(400), np.zeros(400, np.int32),
                   manifest).save(tmp_path / 'map')
    localizer = Localizer(encoder, PlaceMap.load(tmp_path / 'map', encoder))
    for step, place in enumerate(range(50, 90)):
        estimate = localizer.locate(vectors[place], 10**8 * (step + 1))
    assert abs(estimate.pose[0] - 89) < 2
    assert estimate.candidates.places[0] == 89
    assert np.isfinite(localizer.modes().similarity).all()


@pytest.mark.parametrize('damage', [lambda whole: whole[:-1], lambda whole: b'',
                                    lambda whole: whole + b'x',
                                    lambda whole: whole[:5000] + b'?' + whole[5001:]],
                         ids=['cut off', 'empty', 'longer', 'one byte'])
def test_damaged_vectors_are_refused(saved: Path, damage: object) -> None:
    file = saved / 'vectors.npy'
    file.write_bytes(damage(file.read_bytes()))
    _refused(saved, r'vectors\.npy is truncated or was changed')


def test_a_map_that_was_copied_without_its_vectors_is_refused(saved: Path) -> None:
    (saved / 'vectors.npy').unlink()
    _refused(saved, r'not whole: vectors\.npy is missing; build the map again')


def test_vectors_outside_of_the_map_are_refused(saved: Path, tmp_path: Path) -> None:
    (saved / 'vectors.npy').rename(tmp_path / 'vectors.npy')
    (saved / 'vectors.npy').symlink_to(tmp_path / 'vectors.npy')
    _refused(saved, r'vectors\.npy leads out of the map')


@pytest.mark.parametrize('vectors', [
    np.zeros((599, DIMENSION), np.float16), np.zeros((600, DIMENSION), np.float32),
    np.zeros((DIMENSION, 600), np.float16).T, np.zeros(3, object)],
    ids=['fewer', 'float32', 'by columns', 'pickled'])
def test_vectors_of_another_map_are_refused_even_with_a_matching_digest(
        saved: Path, vectors: np.ndarray) -> None:
    np.save(saved / 'vectors.npy', vectors)
    _sign(saved)
    _refused(saved, '(cannot be read|larger than map.yaml says).*: build the map again')


def test_a_change_between_the_spots_is_found_when_everything_is_verified(saved: Path) -> None:
    file = saved / 'vectors.npy'
    whole = bytearray(file.read_bytes())
    whole[5000] ^= 1
    file.write_bytes(whole)
    _sign(saved)  # what loading looks at is unchanged, then
    PlaceMap.load(saved)
    with pytest.raises(MapError, match=r'vectors\.npy is truncated or was changed'):
        PlaceMap.load(saved, verify=True)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 3.0])
@pytest.mark.parametrize('k', [1, 20])
def test_vectors_that_are_none_are_never_the_best(saved: Path, value: float, k: int) -> None:
    rows = np.load(saved / 'vectors.npy')
    query = rows[3:4].astype(np.float32)
    rows[10:30] = value * np.sign(query)
    place_map = PlaceMap.load(saved)
    np.save(saved / 'vectors.npy', rows)  # while it is in use
    similarity, places = place_map.search(query, k)
    assert places[0, 0] == 3
    assert np.isfinite(similarity).all()
    assert (np.diff(similarity) <= 0).all()
    assert not np.isin(places, np.arange(10, 30)).any()
    _sign(saved)
    _refused(saved, r'cannot be read \(vector 10 has norm .*, not 1\)')


def test_vectors_that_are_cut_off_while_in_use_are_an_error(saved: Path) -> None:
    place_map = PlaceMap.load(saved)
    query = place_map.vectors(np.array([599]))
    with (saved / 'vectors.npy').open('r+b') as file:
        file.truncate(300)
    with pytest.raises(MapError, match=r'vectors\.npy was cut off .* load the map again'):
        place_map.search(query, 5)


def test_spots_tell_a_large_file_that_was_cut_off_or_exchanged(tmp_path: Path) -> None:
    file = tmp_path / 'large'
    whole = bytearray(8 << 20)
    seen = []
    for change in (None, 0, -1, len(whole) // 63):
        if change is not None:
            whole[change] ^= 1
        file.write_bytes(whole)
        seen.append(spot_sha256(file))
    file.write_bytes(whole[:-(1 << 20)])
    assert len({*seen, spot_sha256(file)}) == 5


def test_a_map_of_the_format_before_is_read(saved: Path, tmp_path: Path) -> None:
    _map(_drive(30), 'flat').save(tmp_path / 'old')
    manifest = yaml.safe_load((tmp_path / 'old' / 'map.yaml').read_text())
    del manifest['recall'], manifest['spots']
    (tmp_path / 'old' / 'map.yaml').write_text(yaml.safe_dump({**manifest, 'format': 1}))
    assert PlaceMap.load(tmp_path / 'old').manifest.recall is None


def test_the_same_vectors_give_the_same_index() -> None:
    vectors = _drive(700)
    first, second = (make_index(vectors, 'rerank').search(vectors[:50], 20) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def _drive(count: int) -> np.ndarray:
    """Return vectors (count,DIMENSION) of which neighbours are alike, as on a drive."""
    rng = np.random.default_rng(5)
    steps = rng.standard_normal((count + 20, DIMENSION)).cumsum(axis=0)
    rows = steps[20:] - steps[:-20]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _poses(count: int) -> np.ndarray:
    return poses.planar(np.arange(float(count)), np.zeros(count), np.zeros(count))


def _map(vectors: np.ndarray, kind: str = 'rerank') -> PlaceMap:
    count = len(vectors)
    return PlaceMap.build(vectors, np.arange(count), _poses(count), np.zeros(count, np.int32),
                          Manifest(ModelIdentity('ab' * 32, 'm.onnx', DIMENSION, 48, 64),
                                   (Session('a'),), spacing=1.0, index=kind))


def _sign(path: Path) -> None:
    """Write the digest of spots that the vectors have now, as someone who tampers would."""
    manifest = yaml.safe_load((path / 'map.yaml').read_text())
    manifest['spots'] = {'vectors.npy': spot_sha256(path / 'vectors.npy')}
    (path / 'map.yaml').write_text(yaml.safe_dump(manifest))


def _refused(path: Path, message: str) -> None:
    with pytest.raises(MapError, match=message) as refusal:
        PlaceMap.load(path)
    assert '\n' not in str(refusal.value)
