"""The projection of a map: what it is fitted to, what it weighs, and who uses it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.encoder import bundled_model
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.projection import Projection
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.projection import choose_projection
from vpr_ros.maps.projection import distinct_places
from vpr_ros.maps.projection import possible
from vpr_ros.maps.projection import projected


@pytest.fixture(scope='module')
def bundled() -> Encoder:
    """Return an encoder with the bundled model, which has an aggregate."""
    return Encoder(bundled_model(), 'cpu')


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    """Return six images of the bundled model's size."""
    return np.random.default_rng(0).integers(0, 256, (6, 128, 160, 3), np.uint8)


@pytest.fixture(scope='module')
def projection() -> Projection:
    """Return a projection for the bundled model that is fitted to nothing."""
    matrix = np.random.default_rng(1).standard_normal((7, 8192)).astype(np.float16)
    return Projection(matrix)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _views(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return descriptors (N,8), aggregates (N,200) and sessions of different places."""
    random = np.random.default_rng(seed)
    aggregates = _unit(random.standard_normal((count, 200)) * np.geomspace(0.1, 1, 200))
    return (_unit(aggregates @ random.standard_normal((200, 8))), aggregates,
            np.zeros(count, np.int32))


def _map(encoder: Encoder, images: np.ndarray, projection: Projection | None) -> PlaceMap:
    poses = np.zeros((len(images), 7))
    poses[:, 0], poses[:, 6] = np.arange(len(images)), 1
    return PlaceMap.build(encoder.projected(projection).encode_batch(images),
                          np.arange(len(images)), poses, np.zeros(len(images), np.int32),
                          Manifest(ModelIdentity.of(encoder), (Session('drive'),)),
                          projection=projection)


def test_alike_places_count_as_one() -> None:
    views = np.eye(4, dtype=np.float32)
    assert distinct_places(views) == 4
    assert distinct_places(np.repeat(views, 5, axis=0)) == 4


@pytest.mark.parametrize(('count', 'weight'), [(20, 1 / 5), (80, 1 / 2), (240, 3 / 4)])
def test_the_projection_weighs_more_the_more_distinct_places_there_are(
        count: int, weight: float) -> None:
    descriptors, aggregates, sessions = _views(count)
    fitted = choose_projection(descriptors, aggregates, sessions, 'auto')
    assert fitted is not None
    share = (aggregates @ fitted.matrix.T.astype(np.float32)).var(axis=0).sum()
    found = share / (share + descriptors.var(axis=0).sum())
    distinct = distinct_places(aggregates - aggregates.mean(axis=0))
    assert found == pytest.approx(distinct / (distinct + 80), abs=0.01)
    assert found == pytest.approx(weight, abs=0.05)


def test_half_whitening_keeps_the_root_of_each_variance() -> None:
    descriptors, aggregates, sessions = _views(120)
    fitted, bare = (choose_projection(descriptors, aggregates, sessions, kind)
                    for kind in ('auto', 'none'))
    assert fitted is not None
    assert bare is not None
    whitened, plain = ((aggregates @ projection.matrix.T.astype(np.float32)).var(axis=0)
                       for projection in (fitted, bare))
    assert np.ptp(np.log(whitened / np.sqrt(plain))) < 0.1
    assert not bare.beside_model


def test_each_session_is_centred_on_its_own_mean() -> None:
    descriptors, aggregates, _ = _views(60)
    sessions = np.repeat(np.arange(2, dtype=np.int32), 30)
    shift = np.random.default_rng(1).standard_normal(200).astype(np.float32)
    one, two = (choose_projection(descriptors, moved, sessions, 'auto') for moved in (
        aggregates, aggregates + shift * sessions[:, None]))
    assert one is not None
    assert two is not None
    first, second = (p.matrix.astype(np.float32).T @ p.matrix for p in (one, two))
    assert second == pytest.approx(first, abs=0.01 * float(np.abs(first).max()))


@pytest.mark.parametrize(('count', 'repeat', 'message'), [
    (9, 1, '9 distinct places of 9'), (4, 20, '4 distinct places of 80'),
    (1, 1, 'distinct places of 1')])
def test_auto_keeps_the_models_descriptors_on_a_map_of_few_places(
        count: int, repeat: int, message: str, caplog: pytest.LogCaptureFixture) -> None:
    descriptors, aggregates, sessions = (np.repeat(part, repeat, axis=0)
                                         for part in _views(count))
    with caplog.at_level(logging.INFO):
        kept, projection = projected(descriptors, aggregates, sessions, 'auto')
    assert kept is descriptors
    assert projection is None
    assert message in caplog.text


def test_none_of_a_map_of_one_place_has_no_direction() -> None:
    assert choose_projection(*_views(1), 'none') is None


def test_a_projection_is_of_8_megabytes_at_most() -> None:
    wide = _unit(np.random.default_rng(0).standard_normal((40, 1 << 17)))
    fitted = choose_projection(_views(40)[0], wide, np.zeros(40, np.int32), 'auto')
    assert fitted is not None
    assert fitted.matrix.shape == (32, 1 << 17)
    assert fitted.matrix.nbytes <= 8.4e6


def test_a_map_keeps_its_projection_and_the_localizer_encodes_with_it(
        bundled: Encoder, images: np.ndarray, projection: Projection, tmp_path: Path) -> None:
    _map(bundled, images, projection).save(tmp_path / 'map')
    place_map = PlaceMap.load(tmp_path / 'map', bundled)
    assert (tmp_path / 'map' / 'map.yaml').read_text().startswith('format: 3\n')
    assert place_map.projection is not None
    assert np.array_equal(place_map.projection.matrix, projection.matrix)
    assert place_map.manifest.dimension == 512 + 7
    localizer = Localizer(bundled, place_map, use_filter=False, compensate=False)
    estimates = [localizer.localize(image, stamp) for stamp, image in enumerate(images, 1)]
    assert [estimate.candidates.places[0] for estimate in estimates] == list(range(len(images)))
    assert localizer.encoder.space == bundled.projected(projection).space != bundled.space
    other = Projection(2 * projection.matrix)
    assert localizer.encoder.space != bundled.projected(other).space
    assert localizer.encoder.dimension == 512 + 7
    assert localizer.encoder.projected(None).space == bundled.space == bundled.digest


def test_descriptors_are_the_models_beside_the_projected_aggregate(
        bundled: Encoder, images: np.ndarray, projection: Projection) -> None:
    both = bundled.with_aggregate().encode_batch(images)
    own, aggregates = both[:, :512], both[:, 512:]
    assert np.array_equal(own, bundled.encode_batch(images))
    assert np.linalg.norm(aggregates, axis=1) == pytest.approx(1, abs=1e-3)
    found = bundled.projected(projection).encode_batch(images)
    assert found == pytest.approx(_unit(np.concatenate(
        [own, aggregates @ projection.matrix.T.astype(np.float32)], axis=1)), abs=1e-5)
    alone = bundled.projected(Projection(projection.matrix, beside_model=False))
    assert alone.encode(images[0]).shape == (7,)


def test_a_model_without_aggregate_is_refused_by_name(
        encoder: Encoder, projection: Projection, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelError, match="has no output 'aggregate' of 8192 values"):
        encoder.projected(projection)
    with caplog.at_level(logging.INFO):
        assert possible('auto', encoder) == 'model'
    assert "has no output 'aggregate'" in caplog.text
    with pytest.raises(ModelError, match='use --projection model'):
        possible('none', encoder)
    with pytest.raises(ValueError, match='choose from auto, model, none'):
        possible('best', encoder)


def test_the_running_mean_of_another_projection_is_not_taken_over(
        bundled: Encoder, images: np.ndarray, projection: Projection) -> None:
    localizer = Localizer(bundled, _map(bundled, images, projection))
    localizer.localize(images[0], 1)
    for other, kept in ((projection, True), (Projection(projection.matrix[::-1]), False),
                        (None, False)):
        follower = Localizer(localizer.encoder, _map(bundled, images, other))
        follower.take_over(localizer)
        assert (follower.state is not None) == kept


def test_a_map_of_an_older_format_is_read_without_projection(
        encoder: Encoder, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    _map(encoder, grey, None).save(tmp_path / 'map')
    text = (tmp_path / 'map' / 'map.yaml').read_text()
    assert text.startswith('format: 2\n')
    assert 'projection: null\n' in text
    (tmp_path / 'map' / 'map.yaml').write_text(text.replace('projection: null\n', ''))
    assert PlaceMap.load(tmp_path / 'map', encoder).projection is None


def test_a_changed_projection_is_refused(
        bundled: Encoder, images: np.ndarray, projection: Projection, tmp_path: Path) -> None:
    _map(bundled, images, projection).save(tmp_path / 'map')
    np.save(tmp_path / 'map' / 'projection.npy', projection.matrix * 2)
    with pytest.raises(MapError, match=r'projection\.npy is truncated or was changed'):
        PlaceMap.load(tmp_path / 'map')
