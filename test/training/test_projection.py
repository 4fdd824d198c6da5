"""Shorter descriptors, folded into the network."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from vpr_ros.training.initialise import aggregated  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402
from vpr_ros.training.projection import fold_projection  # noqa: E402
from vpr_ros.training.whitening import centre_per_drive  # noqa: E402
from vpr_ros.training.whitening import pca_whitening  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
DRIVES = np.repeat([0, 1], 12)


@pytest.fixture(scope='module', params=[0, 16], ids=['no last layer', 'last layer'])
def network(request):
    torch.manual_seed(0)
    return PlaceNetwork('squeezenet1_1', layer='3', aggregation='gem',
                        dimension=request.param).eval()


def test_the_network_says_what_projecting_its_output_would(network):
    shorter = fold_projection(network, IMAGES, DRIVES, 4, shrinkage=0.2)
    with torch.no_grad():
        vectors = network.whitening(torch.from_numpy(aggregated(network, IMAGES))).numpy()
        found = shorter(torch.from_numpy(IMAGES)).numpy()
    matrix = pca_whitening(centre_per_drive(vectors, DRIVES), 4, shrinkage=0.2)
    expected = (vectors - vectors.mean(axis=0)) @ matrix.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert shorter.dimension == found.shape[1] == 4


def test_the_network_itself_stays_as_it_is(network):
    before = network.dimension, network.whitening
    fold_projection(network, IMAGES, DRIVES, 4)
    assert (network.dimension, network.whitening) == before


def test_a_projection_that_is_none_is_refused(network):
    with pytest.raises(ValueError, match='shorter'):
        fold_projection(network, IMAGES, DRIVES, network.dimension)
