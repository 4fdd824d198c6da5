"""Teachers: one that is fitted, but not trained, and several that teach together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from vpr_ros.core.errors import TrainingError

torch = pytest.importorskip('torch')
pytest.importorskip('lightning')

from vpr_ros.training.checkpoint import load_network  # noqa: E402
from vpr_ros.training.distill import Teacher  # noqa: E402
from vpr_ros.training.experiment import make_experiment  # noqa: E402
from vpr_ros.training.train import train  # noqa: E402


@pytest.fixture(scope='module')
def fitted(tmp_path_factory):
    """Return two checkpoints, of networks with different centres, that saw no gradient."""
    folder = tmp_path_factory.mktemp('fitted')
    random = np.random.default_rng(0)
    (folder / 'images').mkdir()
    for i in range(24):
        image = cv2.resize(random.integers(0, 256, (4, 5, 3), dtype=np.uint8), (40, 32))
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), image)
    return [train(make_experiment({
        'network': {'layer': 'layer1', 'clusters': clusters, 'dimension': 4, 'height': 32,
                    'width': 40, 'weights': 'random'},
        'data': {'images': {'kind': 'single', 'folder': str(folder / 'images')}},
        'training': {'epochs': 0}}), folder / f'run{clusters}') for clusters in (2, 3)]


def test_a_network_without_epochs_is_fitted_to_its_images(fitted):
    network, experiment = load_network(fitted[0])
    assert experiment.training.epochs == 0
    assert float(network.aggregation.centres.detach().norm(dim=1).min()) > 0.1
    image = torch.randint(0, 256, (6, 32, 40, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert network(image).std(dim=0).min() > 0.01


def test_joined_teachers_see_the_mean_of_their_similarities(fitted):
    image = torch.randint(0, 256, (5, 32, 40, 3), dtype=torch.uint8)
    one, two = (Teacher(path)(image).descriptor for path in fitted)
    joined = Teacher(fitted[0], also=fitted[1:])(image)
    assert joined.descriptor.shape == (5, 8)
    mean = (one @ one.T + two @ two.T) / 2
    assert torch.allclose(joined.descriptor @ joined.descriptor.T, mean, atol=1e-5)
    assert list(joined.stages) == list(Teacher(fitted[0])(image).stages)


def test_a_teacher_without_descriptors_cannot_be_joined(fitted, tmp_path):
    bare = tmp_path / 'bare.pt'
    torch.save(load_network(fitted[0])[0].backbone.state_dict(), bare)
    with pytest.raises(TrainingError, match=r'bare\.pt has no descriptors to join'):
        Teacher(fitted[0], layer='layer1', also=[bare])
