"""Landmarks on disk: whole, exact, and refused when they are not what map.yaml says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import shutil

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.core.errors import MapError
from vpr_ros.core.files import sha256
from vpr_ros.core.files import spot_sha256
from vpr_ros.maps.landmarks import BYTES_PER_PLACE
from vpr_ros.maps.landmarks import DESCRIPTORS
from vpr_ros.maps.landmarks import LandmarkIdentity
from vpr_ros.maps.landmarks import Landmarks
from vpr_ros.maps.landmarks import per_place
from vpr_ros.maps.landmarks import POINTS
from vpr_ros.maps.landmarks import quantised
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
import yaml

COUNTS, DIMENSION = (3, 0, 5), 8
FAR = np.array([5e5, 4e6, 100.0])  # m, as in UTM


def _landmarks() -> Landmarks:
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal((count, DIMENSION)) for count in COUNTS]
    return Landmarks.of('sift', [rng.uniform(-50, 50, (count, 3)) + FAR for count in COUNTS],
                        [quantised(each / np.linalg.norm(each, axis=1, keepdims=True))
                         for each in vectors], [0.001, 0, 0.002])


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a map with landmarks that is in order."""
    manifest = Manifest(ModelIdentity('ab' * 32, 'model.onnx', 16, 48, 64), (Session('w', 'x'),),
                        index='flat')
    path = tmp_path_factory.mktemp('maps') / 'whole'
    PlaceMap.build(np.eye(3, 16, dtype=np.float32), np.arange(3),
                   poses.planar(np.arange(3.0), 0.0, 0.0), np.zeros(3, np.int32), manifest
                   ).with_landmarks(_landmarks()).save(path)
    return path


@pytest.fixture
def saved(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be changed."""
    shutil.copytree(whole, tmp_path / 'map')
    return tmp_path / 'map'


def _sign(path: Path, **landmarks: object) -> None:
    raw = yaml.safe_load((path / 'map.yaml').read_text())
    raw['sha256'] = {name: sha256(path / name) for name in raw['sha256']}
    raw['spots'] = {name: spot_sha256(path / name) for name in raw['spots']}
    raw['landmarks'] = {**raw['landmarks'], **landmarks}
    (path / 'map.yaml').write_text(yaml.safe_dump(raw))


def test_landmarks_survive_a_round_trip(whole: Path, tmp_path: Path) -> None:
    expected, loaded = _landmarks(), PlaceMap.load(whole, verify=True)
    assert loaded.landmarks is not None
    assert loaded.landmarks.identity == expected.identity == loaded.manifest.landmarks
    np.testing.assert_array_equal(loaded.landmarks.errors, expected.errors)
    np.testing.assert_array_equal(loaded.landmarks.counts, COUNTS)
    for place, count in enumerate(COUNTS):
        points, descriptors = loaded.landmarks.of_place(place)
        assert (points.shape, descriptors.shape) == ((count, 3), (count, DIMENSION))
        np.testing.assert_array_equal(points, expected.of_place(place)[0])
        np.testing.assert_array_equal(descriptors, expected.of_place(place)[1])
        np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=0.02)
    loaded.calibrated(loaded.manifest.calibration).save(tmp_path / 'again')
    assert sha256(tmp_path / 'again' / POINTS) == sha256(whole / POINTS)
    assert loaded.select(np.arange(2)).landmarks is None


def test_points_are_exact_far_from_the_origin() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-500, 500, (40, 3)) + FAR
    landmarks = Landmarks.of('sift', [points], [np.zeros((40, 4), np.int8)])
    np.testing.assert_allclose(landmarks.of_place(0)[0], points, rtol=0, atol=1e-4)


@pytest.mark.parametrize('dimension', [32, 64, 128, 256])
def test_the_landmarks_of_a_place_have_a_bound(dimension: int) -> None:
    assert 0.98 * BYTES_PER_PLACE < per_place(dimension) * (dimension + 12) <= BYTES_PER_PLACE


def test_a_map_of_no_landmark_at_all_can_be_kept(saved: Path) -> None:
    empty = Landmarks.of('sift', [np.empty((0, 3))] * 3, [np.empty((0, 8), np.int8)] * 3)
    PlaceMap.load(saved).with_landmarks(empty).save(saved, overwrite=True)
    loaded = PlaceMap.load(saved).landmarks
    assert loaded is not None
    assert len(loaded.of_place(1)[0]) == 0


@pytest.mark.parametrize('name', [POINTS, DESCRIPTORS])
def test_files_that_are_missing_cut_or_changed_are_refused(saved: Path, name: str) -> None:
    data = (saved / name).read_bytes()
    for changed in (data[:-1], data + b'x' * 4000, data[:-1] + bytes([data[-1] ^ 1])):
        (saved / name).write_bytes(changed)
        with pytest.raises(MapError, match=r'changed after|larger than'):
            PlaceMap.load(saved)
    for changed in (data[:-1], data + b'x', b'\x93NUMPY\x02' + data[7:], b''):
        (saved / name).write_bytes(changed)
        _sign(saved)
        with pytest.raises(MapError, match=r'not of the size in its header|no array in the form'):
            PlaceMap.load(saved)
    (saved / name).unlink()
    with pytest.raises(MapError, match=f'{name} is missing'):
        PlaceMap.load(saved)


@pytest.mark.parametrize(('changes', 'reason'), [
    ({'count': 7}, 'are not those of its files'),
    ({'dimension': 9}, r'holds int8 \(8, 8\), not int8 \(8, 9\)'),
    ({'count': -1}, 'count is -1'), ({'dimension': 1 << 20}, 'dimension is'),
    ({'origin': [0, 0]}, 'origin has 2 numbers'), ({'origin': [0, 0, float('nan')]}, 'origin is'),
    ({'origin': [0, 0, 1e12]}, 'origin is'), ({'features': 7}, 'features is 7'),
    ({'more': 1}, 'which is not known')])
def test_a_manifest_that_does_not_fit_is_refused(saved: Path, changes: dict[str, object],
                                                 reason: str) -> None:
    _sign(saved, **changes)
    with pytest.raises(MapError, match=reason):
        PlaceMap.load(saved)


@pytest.mark.parametrize('starts', [
    [0, 3, 2, 8], [1, 3, 3, 8], [0, 3, 3, 9], [0, -5, 3, 8], [0, 3, 8]])
def test_starts_that_do_not_fit_are_refused(saved: Path, starts: list[int]) -> None:
    with np.load(saved / 'places.npz') as kept:
        np.savez(saved / 'places.npz', **{**kept, 'landmarks': np.array(starts)})
    _sign(saved)
    with pytest.raises(MapError, match=r'not those of its files|it holds int64'):
        PlaceMap.load(saved)


def test_points_that_are_no_numbers_are_left_out() -> None:
    landmarks = _landmarks()
    points = np.array(landmarks.points)
    points[0], points[1] = np.nan, np.inf
    assert len(replace(landmarks, points=points).of_place(0)[0]) == COUNTS[0] - 2


def test_a_file_that_is_cut_while_in_use_is_a_map_error(saved: Path) -> None:
    landmarks = PlaceMap.load(saved).landmarks
    assert landmarks is not None
    with (saved / POINTS).open('r+b') as file:
        file.truncate(140)
    with pytest.raises(MapError, match='was cut off while it was in use'):
        landmarks.of_place(2)


def test_a_place_has_no_more_landmarks_than_the_bound(saved: Path) -> None:
    most = per_place(DIMENSION)
    identity = LandmarkIdentity('sift', DIMENSION, most + 1, (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match='not those of its files'):
        Landmarks.opened(saved, identity, np.array([0, 0, 0, most + 1]))


def test_descriptors_a_little_too_long_do_not_wrap() -> None:
    assert quantised(np.array([[1.009, -1.009]], np.float32)).tolist() == [[127, -127]]
