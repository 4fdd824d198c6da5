"""The first convolution on blocks of bytes: the same descriptors, whatever the backbone is."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

import onnx  # noqa: E402
from onnx import helper  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from vpr_ros.encoding.encoder import Encoder  # noqa: E402
from vpr_ros.offline.visual_words import first_filters  # noqa: E402
from vpr_ros.training.export import fold_batch_norm  # noqa: E402
from vpr_ros.training.export import to_precision  # noqa: E402
from vpr_ros.training.model import BACKBONES  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402
from vpr_ros.training.stem import PixelBlocks  # noqa: E402
from vpr_ros.training.stem import take_bytes  # noqa: E402

LAYERS = {'alexnet': '2', 'densenet121': 'pool0', 'mobilenet_v3_large': '1', 'squeezenet1_1': '3',
          'vgg16': '3', 'resnet50': 'layer1'}
"""Where the backbones are cut here; the others are at their usual layers."""


def pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def network(backbone: str) -> PlaceNetwork:
    torch.manual_seed(0)
    return fold_batch_norm(PlaceNetwork(backbone, layer=LAYERS.get(backbone, ''),
                                        aggregation='spp'))


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize(('height', 'width'), [(64, 80), (97, 131)])
def test_descriptors_stay_the_same(backbone, height, width):
    before, after = network(backbone), network(backbone)
    after.normalise.mean.copy_(after.normalise.mean.round())  # the border's colour is exact
    before.normalise.mean.copy_(after.normalise.mean)
    take_bytes(after, height, width)
    assert isinstance(after.normalise, PixelBlocks) is (backbone != 'vgg16')
    batch = torch.from_numpy(pictures(height, width))
    with torch.inference_mode():
        torch.testing.assert_close(after.features(batch), before.features(batch), rtol=1e-3,
                                   atol=1e-3 * float(before.features(batch).abs().max()))


def test_the_border_is_the_mean_colour_to_half_a_grey_level():
    before, after = network('resnet18'), network('resnet18')
    take_bytes(after, 96, 128)
    batch = torch.from_numpy(pictures(96, 128))
    with torch.inference_mode():
        assert (after(batch) * before(batch)).sum(dim=1).min() > 0.999


@pytest.fixture(scope='module')
def model():
    return to_precision(network('squeezenet1_1'), 'int8', height=48, width=64,
                        pictures=pictures(48, 64))


def test_its_filters_can_still_be_seen(model, tmp_path):
    helper.set_model_props(model, {'input_height': '48', 'input_width': '64'})
    onnx.save(model, tmp_path / 'int8.onnx')
    filters = first_filters(Encoder(tmp_path / 'int8.onnx', 'cpu'))
    before = network('squeezenet1_1')
    expected = (before.backbone[0].weight / before.normalise.std).detach().numpy()
    assert filters.shape == (64, 3, 4, 4)
    np.testing.assert_allclose(filters[:, :, 1:, 1:], expected, atol=np.abs(expected).max() / 50)
    assert not filters[:, :, 0].any()


def test_eight_bits_take_the_pictures_bytes_as_they_are(model):
    by_output = {output: node for node in model.graph.node for output in node.output}
    first = next(node for node in model.graph.node if node.op_type == 'Conv')
    bytes_ = by_output[first.input[0]]
    scale, zero = (numpy_helper.to_array(weight) for name in bytes_.input[1:]
                   for weight in model.graph.initializer if weight.name == name)
    assert (bytes_.op_type, scale, zero) == ('DequantizeLinear', 1, 0)
    above = {bytes_.input[0]}
    while 'image' not in above:
        makers = [by_output[value] for value in above if value in by_output]
        assert makers
        assert not {'Cast', 'QuantizeLinear'} & {node.op_type for node in makers}
        above = {value for node in makers for value in node.input}
