"""Published networks become models of the contract, or say in one line why they cannot."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
import pytest

torch = pytest.importorskip('torch')

from vpr_ros.core.errors import ModelError  # noqa: E402
from vpr_ros.encoding.encoder import Encoder  # noqa: E402
from vpr_ros.training.wrap import InputFormat  # noqa: E402
from vpr_ros.training.wrap import wrap_model  # noqa: E402

HEIGHT, WIDTH = 40, 56
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = np.random.default_rng(2).integers(0, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)


class Published(torch.nn.Module):
    """Float images (N,3,H,W) -> vectors (N,8), not normalised: a convolution and GeM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 8, 5, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        return self.convolution(x).clamp_min(1e-3).pow(3).mean(dim=(2, 3)).pow(1 / 3)


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    pytest.importorskip('onnxscript')
    path = tmp_path_factory.mktemp('published') / 'gem.onnx'
    torch.onnx.export(Published().eval(), (torch.zeros(2, 3, HEIGHT, WIDTH),), str(path),
                      input_names=['image'], output_names=['features'], dynamo=True, verbose=False,
                      dynamic_shapes=({0: torch.export.Dim('n')},), external_data=False)
    return path


def in_torch(images: np.ndarray, mean=MEAN, std=STD, scale: float = 255.0) -> np.ndarray:
    x = ((images / scale - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        vectors = Published()(torch.from_numpy(x.astype(np.float32))).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_wrapped_network_says_what_it_said_in_torch(published, tmp_path):
    report = wrap_model(published, tmp_path / 'wrapped.onnx', InputFormat(MEAN, STD), name='GeM',
                        license_name='MIT')
    assert report.worst > 0.99999
    encoder = Encoder(tmp_path / 'wrapped.onnx', provider='cpu')
    assert (encoder.height, encoder.width, encoder.dimension) == (HEIGHT, WIDTH, 8)
    assert encoder.metadata['backbone'] == 'GeM'
    assert encoder.metadata['license'] == 'MIT'
    np.testing.assert_allclose(encoder.encode_batch(list(IMAGES)), in_torch(IMAGES),
                               atol=1e-5)


def test_blue_first_and_another_scale(published, tmp_path):
    wrap_model(published, tmp_path / 'wrapped.onnx',
               InputFormat((100, 110, 120), (1, 2, 3), scale=1.0, colour='bgr'))
    encoder = Encoder(tmp_path / 'wrapped.onnx', provider='cpu')
    expected = in_torch(IMAGES[..., ::-1], (100, 110, 120), (1, 2, 3), 1.0)
    np.testing.assert_allclose(encoder.encode_batch(list(IMAGES)), expected, atol=1e-5)


def write(path, nodes, shape, *, kind=TensorProto.FLOAT, outputs=('y',), opset=17, weights=None,
          rank=2):
    """Write a network of these nodes from 'x' to `outputs`, and return its path."""
    graph = helper.make_graph(
        nodes, 'published', [helper.make_tensor_value_info('x', kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
         for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)],
                                ir_version=8), path)
    return path


def pooled(path, shape, **others):
    """Write a network that gives the mean colour of float images (N,3,H,W)."""
    return write(path, [helper.make_node('GlobalAveragePool', ['x'], ['mean']),
                        helper.make_node('Flatten', ['mean'], ['y'])], shape, **others)


def wrap(path, tmp_path, *, output_name='', **options):
    return wrap_model(path, tmp_path / 'out.onnx', InputFormat((0, 0, 0), (1, 1, 1), **options),
                      output_name=output_name)


def is_refused(path, tmp_path, message, **options):
    with pytest.raises(ModelError, match=message):
        wrap(path, tmp_path, **options)
    assert not (tmp_path / 'out.onnx').exists()


@pytest.mark.parametrize('opset', [9, 12, 17])
def test_an_open_size_is_fixed_by_what_is_asked_for(tmp_path, opset):
    path = pooled(tmp_path / 'published.onnx', ['n', 3, 'h', 'w'], opset=opset)
    assert wrap(path, tmp_path, size=(24, 32)).height == 24
    described = Encoder(tmp_path / 'out.onnx', provider='cpu').encode(IMAGES[0])
    expected = IMAGES[0].mean(axis=(0, 1))
    np.testing.assert_allclose(described, expected / np.linalg.norm(expected), atol=0.01)
    is_refused(path, tmp_path / 'none', 'choose one with --size')


def test_channels_last(tmp_path):
    path = write(tmp_path / 'published.onnx',
                 [helper.make_node('ReduceMean', ['x'], ['y'], axes=[1, 2], keepdims=0)],
                 [None, 24, 32, 3])
    assert wrap(path, tmp_path, layout='nhwc').dimension == 3
    is_refused(path, tmp_path / 'none', '24 channels in layout nchw, not 3; is it nhwc')


def test_a_view_that_was_traced_for_one_image_is_freed(tmp_path):
    path = write(tmp_path / 'published.onnx',
                 [helper.make_node('GlobalAveragePool', ['x'], ['mean']),
                  helper.make_node('Reshape', ['mean', 'shape'], ['y'])], [1, 3, 24, 32],
                 weights={'shape': np.array([1, -1], np.int64)})
    wrap(path, tmp_path)
    assert Encoder(tmp_path / 'out.onnx', provider='cpu').encode_batch(
        list(IMAGES)).shape == (4, 3)


def test_a_network_for_one_image_only_is_kept_so(tmp_path):
    path = write(tmp_path / 'published.onnx',
                 [helper.make_node('GlobalAveragePool', ['x'], ['mean']),
                  helper.make_node('Squeeze', ['mean', 'axes'], ['vector']),
                  helper.make_node('Unsqueeze', ['vector', 'first'], ['y'])], [1, 3, 24, 32],
                 weights={'axes': np.array([0, 2, 3], np.int64), 'first': np.array([0], np.int64)})
    assert wrap(path, tmp_path).single == 'it was exported for one image at a time'


def test_a_network_that_describes_the_first_image_only_is_kept_to_one(tmp_path):
    path = write(tmp_path / 'published.onnx',
                 [helper.make_node('GlobalAveragePool', ['x'], ['mean']),
                  helper.make_node('Gather', ['mean', 'first'], ['vector']),
                  helper.make_node('Reshape', ['vector', 'shape'], ['y'])], [1, 3, 24, 32],
                 weights={'first': np.array(0, np.int64), 'shape': np.array([1, 3], np.int64)})
    assert wrap(path, tmp_path).single
    encoder = Encoder(tmp_path / 'out.onnx', provider='cpu')
    assert encoder.encode_batch(list(IMAGES)).shape == (4, 3)


def test_one_of_several_outputs_is_chosen_by_name(tmp_path):
    nodes = [helper.make_node('GlobalAveragePool', ['x'], ['mean']),
             helper.make_node('Flatten', ['mean'], ['y']), helper.make_node('Neg', ['y'], ['z'])]
    path = write(tmp_path / 'published.onnx', nodes, ['n', 3, 24, 32], outputs=('y', 'z'))
    is_refused(path, tmp_path, 'choose one with --output-name: y, z')
    is_refused(path, tmp_path, "no output 'q'; it has y, z", output_name='q')
    wrap(path, tmp_path, output_name='z')
    assert Encoder(tmp_path / 'out.onnx', provider='cpu').encode(IMAGES[0]).max() < 0


def test_what_is_no_place_network_is_refused(tmp_path):
    published = tmp_path / 'published.onnx'
    with pytest.raises(FileNotFoundError, match='no such model file'):
        wrap(published, tmp_path)
    published.write_bytes(b'not a network')
    is_refused(published, tmp_path, 'is not an ONNX model')
    published.write_bytes(b'')
    is_refused(published, tmp_path, 'is not an ONNX model')
    is_refused(pooled(published, ['n', 3, 24]), tmp_path, 'float with 3 dimensions')
    is_refused(pooled(published, ['n', 3, 24, 32], kind=TensorProto.INT8), tmp_path,
               'is int8 with')
    is_refused(pooled(published, ['n', 3, 24, 32], kind=TensorProto.UINT8), tmp_path,
               'leave out --mean', scale=2.0)
    is_refused(pooled(published, ['n', 1, 24, 32]), tmp_path, 'takes 1 channels')
    is_refused(write(published, [helper.make_node('Relu', ['x'], ['y'])], ['n', 3, 24, 32],
                     rank=4), tmp_path, r"'y' has the shape \(1, 3, 24, 32\) for 1 image")
    is_refused(pooled(published, ['n', 3, 24, 32]), tmp_path, 'takes 32x24 pixels only, not 20x10',
               size=(10, 20))


def test_weights_in_a_file_that_is_missing(tmp_path):
    published = tmp_path / 'published.onnx'
    weights = {'w': np.ones((4, 3, 1, 1), np.float32)}
    write(published, [helper.make_node('Conv', ['x', 'w'], ['c']),
                      helper.make_node('GlobalAveragePool', ['c'], ['mean']),
                      helper.make_node('Flatten', ['mean'], ['y'])], ['n', 3, 24, 32],
          weights=weights)
    onnx.save(onnx.load(published), published, save_as_external_data=True, location='weights.bin',
              size_threshold=0)
    wrap(published, tmp_path)
    Encoder(tmp_path / 'out.onnx', provider='cpu')
    (tmp_path / 'weights.bin').unlink()
    is_refused(published, tmp_path / 'none', 'weights in a file beside it, which is missing')


@pytest.mark.parametrize(('options', 'message'), [
    ({'layout': 'hwc'}, 'layout'), ({'colour': 'grey'}, 'colour'), ({'scale': 0.0}, 'above 0'),
    ({'std': (1, 0, 1)}, 'above 0'), ({'mean': (0, float('nan'), 0)}, 'finite'),
    ({'size': (0, 32)}, 'out of range'),
])
def test_an_invalid_input_format_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InputFormat(**{'mean': (0, 0, 0), 'std': (1, 1, 1), **options})
