"""Local features: SIFT, and networks of the contract."""

from __future__ import annotations

from pathlib import Path
import pickle

import numpy as np
import pytest
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding import features
from vpr_ros.encoding.features import FeatureNetwork
from vpr_ros.encoding.features import open_features
from vpr_ros.encoding.features import Sift

onnx = pytest.importorskip('onnx')

COUNT, DIMENSION = 5, 4


def _network(path: Path, *, channels: int = 3, batch: bool = False, unit: bool = True,
             names: tuple[str, ...] = ('keypoints', 'scores', 'descriptors')) -> Path:
    """Write a network that gives the same features for every image of 24x32 pixels."""
    lead = (1,) if batch else ()
    turns = np.eye(COUNT, DIMENSION, dtype=np.float32)
    turns[-1] = 0.5
    values = (np.arange(2.0 * COUNT, dtype=np.float32).reshape(*lead, COUNT, 2),
              np.linspace(0, 1, COUNT, dtype=np.float32).reshape(*lead, COUNT),
              (turns if unit else 3 * turns).reshape(*lead, COUNT, DIMENSION))
    helper = onnx.helper
    nodes = [helper.make_node('Cast', ['image'], ['real'], to=1),
             helper.make_node('ReduceMean', ['real'], ['mean'], keepdims=0),
             helper.make_node('Mul', ['mean', 'zero'], ['nothing'])]
    nodes += [helper.make_node('Add', [f'{name}_', 'nothing'], [name]) for name in names]
    graph = helper.make_graph(
        nodes, 'features', [helper.make_tensor_value_info('image', 2, [1, 24, 32, channels])],
        [helper.make_tensor_value_info(name, 1, value.shape)
         for name, value in zip(names, values, strict=True)],
        [onnx.numpy_helper.from_array(value, f'{name}_')
         for name, value in zip(names, values, strict=True)]
        + [onnx.numpy_helper.from_array(np.zeros((), np.float32), 'zero')])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)],
                                ir_version=8), path)
    return path


@pytest.mark.parametrize('batch', [False, True])
@pytest.mark.parametrize('channels', [1, 3])
def test_a_network_finds_features_in_the_pixels_of_the_image(
        tmp_path: Path, channels: int, batch: bool) -> None:
    network = open_features(_network(tmp_path / 'f.onnx', channels=channels, batch=batch))
    assert network.dimension == DIMENSION
    assert len(network.digest) == 64
    found = network.extract(np.zeros((48, 64, 3), np.uint8))
    # The best score comes first; a network of half the size has pixels of twice the size.
    np.testing.assert_allclose(found.keypoints[0], (np.array([8.0, 9.0]) + 0.5) * 2 - 0.5)
    assert (np.diff(found.scores) <= 0).all()
    limited = pickle.loads(pickle.dumps(network.limited(1)))  # for `--jobs`
    assert limited.digest == network.digest
    assert limited._session.get_session_options().intra_op_num_threads == 1
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1)


def test_what_finds_no_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no such model file'):
        FeatureNetwork(tmp_path / 'none.onnx')
    with pytest.raises(ModelError, match='finds no features: it takes'):
        FeatureNetwork(_network(tmp_path / 'names.onnx', names=('points', 'scores', 'codes')))
    with pytest.raises(ModelError, match='descriptors that are not of unit length'):
        FeatureNetwork(_network(tmp_path / 'long.onnx', unit=False))
    (tmp_path / 'text.onnx').write_text('no model')
    with pytest.raises(ModelError, match='is not an ONNX model'):
        FeatureNetwork(tmp_path / 'text.onnx')


def _corners(height: int = 120, width: int = 160) -> np.ndarray:
    grey = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8), dtype=np.uint8)
    return np.repeat(np.kron(grey, np.ones((8, 8), np.uint8))[..., None], 3, axis=2)


def test_sift_finds_corners_and_nothing_in_a_blank_image() -> None:
    image = _corners()
    found = Sift().extract(image)
    assert len(found.keypoints) > 50
    assert found.descriptors.shape == (len(found.keypoints), Sift.dimension)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-3)
    assert len(np.unique(found.keypoints, axis=0)) > 0.9 * len(found.keypoints)
    blank = Sift().extract(np.full_like(image, 90))
    assert len(blank.keypoints) == 0
    assert blank.descriptors.shape == (0, Sift.dimension)


def test_sift_gives_the_pixels_of_an_image_that_it_shrinks(monkeypatch: pytest.MonkeyPatch
                                                           ) -> None:
    monkeypatch.setattr(features, '_LARGEST', 160)
    small = _corners()
    large = np.repeat(np.repeat(small, 4, axis=0), 4, axis=1)
    one, two = (Sift().extract(image).keypoints for image in (small, large))
    assert two.max() > 500
    off = ((two + 0.5) / 4 - 0.5)[:, None] - one
    assert np.median(np.sqrt((off ** 2).sum(axis=2).min(axis=1))) < 0.3


def test_a_network_that_fails_on_an_image_is_an_image_error(tmp_path: Path) -> None:
    network = FeatureNetwork(_network(tmp_path / 'f.onnx'))
    network.size = (20, 20)
    with pytest.raises(ImageError, match='does not run'):
        network.extract(np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize('shape', [(16, 30000), (9000, 8), (1, 1)])
def test_a_strip_has_no_features(shape) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert len(Sift().extract(noise).keypoints) == 0


def test_features_say_how_far_the_image_was_shrunk() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 2560, 3), dtype=np.uint8)
    assert Sift().extract(noise[:, :1280]).pixel == 1
    assert Sift().extract(noise).pixel == pytest.approx(2)


def test_the_bundled_network_finds_the_same_points_in_shifted_and_dark_images() -> None:
    network = open_features()
    assert network.dimension == 64
    assert features.bundled_features().stat().st_size < 6 << 20
    image = _corners(160, 224)
    one = network.extract(image)
    assert 100 < len(one.keypoints) <= features.MOST
    np.testing.assert_allclose(np.linalg.norm(one.descriptors, axis=1), 1, atol=1e-3)
    # Shifted by a cell and a quarter, and at a tenth of the light, with noise.
    noise = np.random.default_rng(1).normal(0, 1.5, image[10:, 10:].shape)
    dark = np.clip(0.1 * image[10:, 10:] + noise, 0, 255).astype(np.uint8)
    two = network.extract(dark)
    alike = one.descriptors @ two.descriptors.T
    best = alike.argmax(axis=1)
    mutual = alike.argmax(axis=0)[best] == np.arange(len(best))
    off = np.linalg.norm(one.keypoints - two.keypoints[best] - 10, axis=1)[mutual]
    assert (off < 2).sum() > 60
    assert np.median(off) < 2


@pytest.mark.parametrize('shape', [(1, 1), (7, 400), (24, 32), (33, 65), (16, 30000)])
def test_the_bundled_network_takes_images_of_any_size(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    found = open_features().extract(noise)
    assert found.descriptors.shape == (len(found.keypoints), 64)
    assert (found.scores > 0).all()
    assert (found.keypoints > -1).all()
    assert (found.keypoints < shape[::-1]).all()


def test_sift_is_named_or_known_from_the_map(tmp_path: Path) -> None:
    assert open_features('sift').digest == 'sift'
    assert open_features(known='sift').digest == 'sift'
    bundled = open_features(known='ab' * 32)
    assert bundled.digest == open_features(features.bundled_features(), known='sift').digest
    other = _network(tmp_path / 'f.onnx')
    assert open_features(other, known='sift').dimension == DIMENSION
