"""Feature networks: the views that they learn from, a small training, the file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from vpr_ros.cli import main
from vpr_ros.core.errors import ModelError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import TrainingError
from vpr_ros.encoding.features import FeatureNetwork
from vpr_ros.training.experiment import FeatureExperiment
from vpr_ros.training.experiment import read_experiment
from vpr_ros.training.feature_export import read_features
from vpr_ros.training.feature_network import CELL
from vpr_ros.training.feature_network import heat_map
from vpr_ros.training.feature_views import read_views
from vpr_ros.training.feature_views import ViewOptions
from vpr_ros.training.features import draw_batch
from vpr_ros.training.features import train_features

VIEWS = {'towns': [100], 'conditions': ['spring', 'winter'], 'length': 8.0, 'spacing': 2.0}
SMALL = f"""
kind: features
dimension: 16
views: {VIEWS}
training: {{steps: 4, batch: 2, width: 96, height: 96, points: 32}}
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Return a folder with the experiment small.yaml, and its views in views/."""
    folder = tmp_path_factory.mktemp('features')
    (folder / 'small.yaml').write_text(SMALL)
    read_views(_experiment(folder))
    return folder


def _experiment(folder: Path) -> ViewOptions:
    return ViewOptions(**VIEWS, cache=str(folder / 'views'))


def _read(folder: Path, *changes: str) -> FeatureExperiment:
    experiment = read_experiment(folder / 'small.yaml', (f'views.cache={folder}/views', *changes))
    assert isinstance(experiment, FeatureExperiment)
    return experiment


def test_views_of_two_seasons_share_points(folder: Path) -> None:
    views = read_views(_experiment(folder))
    assert views.images.shape[1:] == (240, 320)
    assert len(views.pairs) > 4
    assert np.diff(views.pair_starts).min() >= 32
    # Each pair is of two drives, and its points are points of its first view.
    first = views.pairs[0, 0]
    own = views.pixels[views.starts[first]:views.starts[first + 1]]
    shared = views.pair_pixels[:views.pair_starts[1], 0]
    assert {tuple(pixel) for pixel in shared.tolist()} <= {tuple(pixel) for pixel in own.tolist()}
    # What is shared lies on the same things: a small patch is like its own, not like the others.
    one, two = (np.stack([_patch(views.images[views.pairs[0, side]], pixel) for pixel in
                          views.pair_pixels[:views.pair_starts[1], side]]) for side in (0, 1))
    alike = one @ two.T
    own_alike = np.diag(alike).mean()
    assert own_alike > alike.mean() + 0.2


def _patch(image: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    x, y = np.rint(pixel).astype(int)
    patch = image[max(y - 4, 0):y + 5, max(x - 4, 0):x + 5].astype(float)
    patch = np.resize(patch, (9, 9)) - patch.mean()
    return (patch / max(np.linalg.norm(patch), 1e-6)).ravel()


def test_damaged_views_are_refused_and_towns_of_tests_are_too(tmp_path: Path, folder: Path
                                                              ) -> None:
    stored = next((folder / 'views').iterdir())
    (tmp_path / stored.name).write_bytes(stored.read_bytes()[:1000])
    with pytest.raises(SourceError, match=r'is damaged .* delete it'):
        read_views(ViewOptions(**VIEWS, cache=str(tmp_path)))
    with pytest.raises(ValueError, match='kept for tests'):
        ViewOptions(towns=[61])
    with pytest.raises(ValueError, match='one of them by day'):
        ViewOptions(towns=[100], conditions=['night'])


def test_a_batch_says_where_points_are(folder: Path) -> None:
    batch = draw_batch(read_views(_experiment(folder)), _read(folder).training, 0)
    assert batch.images.shape == (4, 1, 96, 96)
    assert batch.cells.shape == (4, 65, 12, 12)
    torch.testing.assert_close(batch.cells.sum(dim=1), torch.ones(4, 12, 12))
    assert batch.known.any(dim=1).all()
    # Points that are compared are keypoints of the first image.
    heat = torch.nn.functional.pixel_shuffle(batch.cells[:2, :-1], CELL)[:, 0]
    x, y = batch.points[:2][batch.known].round().long().T
    pair = batch.known.nonzero()[:, 0]
    assert (heat[pair, y, x] > 0).float().mean() > 0.95


def test_a_training_learns_and_exports(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    cache = f'views.cache={folder}/views'
    assert main(['train', 'small.yaml', '-o', 'run', '--set', cache,
                 '--set', 'training.learning_rate=0.01', '--set', 'training.steps=8']) == 0
    with Path('run/metrics.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]['step'] == '8'
    # Of 65 answers for a cell, and of 32 points: less than the entropy of a guess.
    assert float(rows[-1]['keypoints']) < np.log(65)
    with pytest.raises(TrainingError, match='holds a training'):
        train_features(_read(folder), 'run')
    assert main(['export', 'run/last.ckpt', '-o', 'small.onnx']) == 0
    network = FeatureNetwork('small.onnx')
    assert network.dimension == 16
    noise = np.random.default_rng(0).integers(0, 255, (150, 210, 3), dtype=np.uint8)
    found = network.extract(noise)
    assert len(found.keypoints) == 1024
    assert (found.keypoints > -1).all()
    assert (found.keypoints < (210, 150)).all()


def test_a_resumed_training_is_the_uninterrupted_one(folder: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('vpr_ros.training.features._SAVED_EVERY', 2)
    whole = train_features(_read(folder), tmp_path / 'whole')

    def stop(_: object, __: object, step: int, real=draw_batch) -> object:
        if step == 2:
            raise KeyboardInterrupt
        return real(_, __, step)
    with monkeypatch.context() as patched:
        patched.setattr('vpr_ros.training.features.draw_batch', stop)
        with pytest.raises(KeyboardInterrupt):
            train_features(_read(folder), tmp_path / 'part')
    part = train_features(_read(folder), tmp_path / 'part', resume=True)
    one, two = (torch.load(path, weights_only=True)['state_dict'] for path in (whole, part))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=0, atol=0)


def test_what_is_no_experiment_or_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    for change, match in (('training.width=100', '32 must divide'), ('kind=other', 'kind'),
                          ('training.step=3', 'step')):
        with pytest.raises(TrainingError, match=match):
            _read(folder, change)
    with pytest.raises(TrainingError, match='views: '):
        train_features(_read(folder, 'views.towns=[5]'), tmp_path / 'none')
    with pytest.raises(TrainingError, match='no training to resume'):
        train_features(_read(folder), tmp_path / 'none', resume=True)
    (tmp_path / 'text.ckpt').write_text('no checkpoint')
    with pytest.raises(ModelError, match='not a checkpoint'):
        read_features(tmp_path / 'text.ckpt')
    with pytest.raises(FileNotFoundError):
        read_features(tmp_path / 'none.ckpt')


def test_heat_is_of_pixels_and_of_trusted_ones() -> None:
    logits = torch.zeros(1, CELL * CELL + 1, 2, 3)
    logits[0, 3 * CELL + 5, 1, 2] = 20
    heat = heat_map(logits, torch.zeros(1, 1, 2, 3))
    assert heat.shape == (1, 1, 2 * CELL, 3 * CELL)
    assert heat[0, 0, CELL + 3, 2 * CELL + 5] == pytest.approx(0.5, abs=1e-3)
    assert heat.argmax() == (CELL + 3) * 3 * CELL + 2 * CELL + 5
