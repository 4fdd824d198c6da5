"""The network: its VLAD against the formula, its shapes, and what it makes of a black picture."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from vpr_ros.training.initialise import gabor_filters  # noqa: E402
from vpr_ros.training.initialise import randomise  # noqa: E402
from vpr_ros.training.initialise import start_netvlad  # noqa: E402
from vpr_ros.training.model import NetVLAD  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402


def netvlad_by_loops(x, weight, bias, centres):
    """Return V of local descriptors x (M,C), written from equation 4 of the paper."""
    vlad = np.zeros_like(centres)
    for local in x:
        local = local / np.linalg.norm(local)
        scores = np.exp(weight @ local + bias)
        for k in range(len(centres)):
            vlad[k] += scores[k] / scores.sum() * (local - centres[k])
    for k in range(len(centres)):
        vlad[k] /= np.linalg.norm(vlad[k])
    return vlad.ravel() / np.linalg.norm(vlad)


def test_netvlad_follows_the_formula():
    random = np.random.default_rng(3)
    layer = NetVLAD(clusters=4, channels=6)
    weight, bias, centres = (random.normal(size=shape) for shape in ((4, 6), (4,), (4, 6)))
    with torch.no_grad():
        layer.assign.weight.copy_(torch.tensor(weight)[:, :, None, None])
        layer.assign.bias.copy_(torch.tensor(bias))
        layer.centres.copy_(torch.tensor(centres))
    features = random.normal(size=(2, 6, 3, 5))
    result = layer(torch.tensor(features, dtype=torch.float32)).detach().numpy()
    for i in range(2):
        expected = netvlad_by_loops(features[i].reshape(6, 15).T, weight, bias, centres)
        np.testing.assert_allclose(result[i], expected, atol=2e-6)


def test_netvlad_starts_with_shares_that_fall_with_the_distance_to_the_centres():
    centres = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    layer = NetVLAD(clusters=5, channels=8)
    layer.start(centres, alpha=1.7)
    x = torch.randn(8, generator=torch.Generator().manual_seed(2))
    share = layer.assign(x.reshape(1, 8, 1, 1)).softmax(dim=1).flatten()
    expected = (-1.7 * (x - centres).square().sum(dim=1)).softmax(dim=0)
    torch.testing.assert_close(share, expected)


def test_netvlad_refuses_centres_of_another_shape():
    with pytest.raises(ValueError, match=r'\(4, 8\)'):
        NetVLAD(clusters=5, channels=8).start(torch.zeros(4, 8), alpha=1.0)


def test_kmeans_finds_the_centres_and_leaves_the_second_nearest_little():
    random = np.random.default_rng(0)
    truth = np.eye(4, 6)
    noise = 0.05 * random.normal(size=(400, 6))
    drawn = (np.repeat(truth, 100, axis=0) + noise).astype(np.float32)
    layer = NetVLAD(clusters=4, channels=6)
    alpha = start_netvlad(layer, drawn, seed=0)
    distances = np.linalg.norm(layer.centres.detach().numpy()[:, None] - truth, axis=2)
    assert distances.min(axis=0).max() < 0.05
    squared = np.sort(((drawn[:, None] - layer.centres.detach().numpy())**2).sum(axis=2))
    assert np.exp(-alpha * np.mean(squared[:, 1] - squared[:, 0])) == pytest.approx(0.01, rel=1e-3)


def test_kmeans_refuses_fewer_descriptors_than_centres():
    with pytest.raises(ValueError, match='4 centres'):
        start_netvlad(NetVLAD(clusters=4, channels=6), np.ones((3, 6), np.float32), seed=0)


@pytest.mark.parametrize('value', [0, 255])
def test_a_picture_of_one_colour_gets_a_finite_unit_vector(value):
    network = PlaceNetwork(clusters=4, dimension=8).eval()
    with torch.no_grad():
        descriptor = network(torch.full((1, 64, 96, 3), value, dtype=torch.uint8))
    assert descriptor.shape == (1, 8)
    assert torch.linalg.vector_norm(descriptor).item() == pytest.approx(1.0, abs=1e-5)


def test_local_descriptors_of_zero_stay_finite():
    layer = NetVLAD(clusters=3, channels=5)
    assert torch.isfinite(layer(torch.zeros(1, 5, 2, 2))).all()


def test_the_same_seed_gives_the_same_filters_and_another_seed_others():
    networks = [PlaceNetwork(clusters=2, dimension=4) for _ in range(3)]
    for network, seed in zip(networks, (5, 5, 6), strict=True):
        randomise(network.backbone, seed)
    first, again, other = (torch.cat([p.flatten() for p in n.backbone.parameters()])
                           for n in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gabor_filters_answer_nothing_to_an_even_surface():
    filters = gabor_filters(16, 7, np.random.default_rng(0))
    assert filters.shape == (16, 3, 7, 7)
    np.testing.assert_allclose(filters.sum(axis=(2, 3)), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(filters.reshape(16, -1), axis=1), 1.0, atol=1e-5)
