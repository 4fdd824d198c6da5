"""Weights of an exported model, back in training."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.core.errors import ModelError

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

from vpr_ros.training.experiment import make_experiment  # noqa: E402
from vpr_ros.training.export import export  # noqa: E402
from vpr_ros.training.export import ExportOptions  # noqa: E402
from vpr_ros.training.exported import exported_weights  # noqa: E402
from vpr_ros.training.image_table import ImageTable  # noqa: E402
from vpr_ros.training.model import cut_backbone  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402
from vpr_ros.training.train import initialise_network  # noqa: E402
from vpr_ros.training.weights import initial_weights  # noqa: E402
from vpr_ros.training.weights import load_backbone  # noqa: E402

NOTHING = ImageTable((), (), np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0),
                     np.zeros(0, np.int64), np.zeros(0, np.bool_))


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    network = PlaceNetwork(layer='layer1', clusters=3, dimension=8).eval()
    for part in network.modules():  # a fold that does nothing would prove nothing
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            part.bias.data.uniform_(-0.2, 0.2)
    return network


@pytest.fixture(scope='module')
def model(network, tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    export(network, path, ExportOptions(32, 48), metadata={})
    return path


def started(path, clusters=3):
    made = PlaceNetwork(layer='layer1', clusters=clusters, dimension=8).eval()
    initialise_network(made, make_experiment({'network': {
        'layer': 'layer1', 'clusters': clusters, 'dimension': 8, 'height': 32, 'width': 48,
        'weights': str(path), 'take': 'all'}}), NOTHING)
    return made


def test_training_starts_from_what_was_exported(network, model):
    made = started(model)
    images = torch.randint(0, 256, (3, 32, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        alike = (network(images) * made(images)).sum(dim=1)
    assert alike.min() > 0.99999
    assert all(p.requires_grad for p in made.parameters())


def test_the_backbone_alone_is_taken_too(network, model):
    backbone = cut_backbone('resnet18', 'layer1').eval()
    load_backbone(backbone, initial_weights(str(model), 'resnet18'), str(model))
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        expected = network.backbone(image)
        assert (backbone(image) - expected).abs().max() < 0.005 * expected.abs().max()


def test_another_network_is_refused(model):
    with pytest.raises(ModelError, match='is of another network: describe that one'):
        started(model, clusters=4)


def test_a_file_that_is_no_such_model_is_refused(tmp_path):
    path = tmp_path / 'model.onnx'
    with pytest.raises(FileNotFoundError, match='no such model'):
        exported_weights(path)
    path.write_bytes(b'nothing of the kind')
    with pytest.raises(ModelError, match=r'model\.onnx (is not|has no weights)'):
        exported_weights(path)
