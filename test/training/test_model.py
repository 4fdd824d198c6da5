"""The network: its VLAD against the formula, its shapes, and what it makes of a black image."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from vpr_ros.core.errors import ModelError

torch = pytest.importorskip('torch')
torchvision = pytest.importorskip('torchvision')

from vpr_ros.training.initialise import start_netvlad  # noqa: E402
from vpr_ros.training.model import AGGREGATIONS  # noqa: E402
from vpr_ros.training.model import BACKBONES  # noqa: E402
from vpr_ros.training.model import cut_backbone  # noqa: E402
from vpr_ros.training.model import NetVLAD  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402
from vpr_ros.training.weights import load_backbone  # noqa: E402
from vpr_ros.training.weights import read_weights  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


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
def test_an_image_of_one_colour_gets_a_finite_unit_vector(value):
    network = PlaceNetwork(clusters=4, dimension=8).eval()
    with torch.no_grad():
        descriptor = network(torch.full((1, 64, 96, 3), value, dtype=torch.uint8))
    assert descriptor.shape == (1, 8)
    assert torch.linalg.vector_norm(descriptor).item() == pytest.approx(1.0, abs=1e-5)


def test_local_descriptors_of_zero_stay_finite():
    layer = NetVLAD(clusters=3, channels=5)
    assert torch.isfinite(layer(torch.zeros(1, 5, 2, 2))).all()


@pytest.mark.parametrize('name', BACKBONES)
def test_every_backbone_takes_any_size_and_learns_to_its_first_layer(name):
    network = PlaceNetwork(name, aggregation='avg')
    descriptor = network(torch.randint(0, 256, (2, 97, 131, 3), dtype=torch.uint8))
    assert descriptor.shape == (2, network.dimension)
    (descriptor[0] @ torch.linspace(0, 1, network.dimension)).backward()  # one may be 0
    first = next(network.backbone.parameters())
    assert first.grad is not None
    assert first.grad.abs().max() > 0


@pytest.mark.parametrize('name', AGGREGATIONS)
def test_every_aggregation_gives_unit_vectors_of_its_dimension(name):
    network = PlaceNetwork(aggregation=name, clusters=3, dimension=0).eval()
    with torch.no_grad():
        vectors = network(torch.randint(0, 256, (2, 64, 80, 3), dtype=torch.uint8))
    assert vectors.shape == (2, network.aggregation.dimension)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2), atol=1e-5, rtol=0.0)


def test_poolings_follow_their_formulas():
    x = torch.rand(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    local = x.flatten(2).numpy()
    expected = {'avg': local.mean(axis=2), 'max': local.max(axis=2),
                'gem': (local ** 3).mean(axis=2) ** (1 / 3)}
    for name, vectors in expected.items():
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        result = AGGREGATIONS[name](5)(x).detach().numpy()
        np.testing.assert_allclose(result, vectors, rtol=1e-5)


def test_the_pyramid_holds_the_maximum_of_each_quarter():
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    pyramid = AGGREGATIONS['spp'](1)(x)[0]
    cells = torch.tensor([63.0, 27.0, 31.0, 59.0, 63.0])
    torch.testing.assert_close(pyramid[:5] / pyramid[0] * 63.0, cells)


@pytest.mark.parametrize('size', [(4, 4), (7, 5), (3, 9)])
def test_the_pyramid_is_adaptive_pooling_for_any_size(size):
    x = torch.rand(2, 3, *size)
    pooled = [torch.nn.functional.adaptive_max_pool2d(x, level).flatten(2) for level in (1, 2, 4)]
    expected = torch.cat(pooled, dim=2).flatten(1)
    found = AGGREGATIONS['spp'](3)(x)
    torch.testing.assert_close(found.sort(dim=1).values,
                               (expected / expected.norm(dim=1, keepdim=True)).sort(dim=1).values)


def test_a_cut_is_the_network_up_to_its_layer():
    whole = torchvision.models.resnet18(weights=None).eval()
    cut = cut_backbone('resnet18', 'layer2').eval()
    load_backbone(cut, whole.state_dict(), 'whole')
    image = torch.randn(1, 3, 64, 64)
    x = image
    for name in ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2'):
        x = getattr(whole, name)(x)
    torch.testing.assert_close(cut(image), x)


@pytest.mark.parametrize('arguments, message', [
    (('resnet99', '', 'avg'), 'use one of resnet18'),
    (('resnet18', 'layer9', 'avg'), 'it has conv1'),
    (('resnet18', '', 'mean'), 'use one of netvlad'),
])
def test_unknown_parts_are_refused_with_the_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        PlaceNetwork(*arguments)


@pytest.mark.parametrize('suffix', ['.pt', '.npz'])
def test_weights_come_from_a_state_dict_or_from_arrays(tmp_path: Path, suffix):
    state = torchvision.models.alexnet(weights=None).state_dict()
    path = tmp_path / f'weights{suffix}'
    if suffix == '.npz':
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save(state, path)
    backbone = cut_backbone('alexnet')
    load_backbone(backbone, read_weights(path), str(path))
    torch.testing.assert_close(backbone.state_dict()['0.weight'], state['features.0.weight'])


def test_weights_that_miss_a_layer_are_refused_by_its_name():
    weights = cut_backbone('resnet18').state_dict()
    del weights['layer1.0.conv1.weight']
    with pytest.raises(ModelError, match=r'misses 1 of the \d+ .* layer1.0.conv1.weight'):
        load_backbone(cut_backbone('resnet18'), weights, 'file')


def test_weights_of_another_network_are_refused():
    with pytest.raises(ModelError, match='another network'):
        load_backbone(cut_backbone('resnet18'),
                      cut_backbone('resnet18').state_dict() | {'conv1.weight': torch.zeros(1)},
                      'file')


@pytest.mark.parametrize('content', [b'', b'no weights', pickle.dumps({'a': print})])
@pytest.mark.parametrize('suffix', ['.pt', '.npz'])
def test_other_files_are_no_weights_and_nothing_in_them_runs(tmp_path: Path, content, suffix):
    path = tmp_path / f'weights{suffix}'
    path.write_bytes(content)
    with pytest.raises(ModelError, match='holds no weights'):
        read_weights(path)


def test_a_list_of_tensors_is_no_state_dict(tmp_path: Path):
    torch.save([torch.zeros(3)], tmp_path / 'list.pt')
    with pytest.raises(ModelError, match='not a state dict'):
        read_weights(tmp_path / 'list.pt')


COUNTED = {'conv1': 0, 'bn1': 1, 'layer1': 4, 'layer2': 5}


@pytest.mark.parametrize('rename', [
    lambda name: f'backbone.model.{name}', lambda name: f'module.{name}',
    lambda name: f'backbone.{COUNTED[name.split(".")[0]]}.{name.partition(".")[2]}',
], ids=['prefix', 'data parallel', 'counted'])
def test_names_with_a_prefix_or_counted_layers_are_found(tmp_path: Path, rename):
    backbone = cut_backbone('resnet18', 'layer2')
    weights = {rename(name): value for name, value in backbone.state_dict().items()}
    torch.save({'state_dict': weights, 'epoch': 3}, tmp_path / 'published.ckpt')
    loaded = cut_backbone('resnet18', 'layer2')
    load_backbone(loaded, read_weights(tmp_path / 'published.ckpt'), 'published')
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)
