"""The exported file: the contract, the parity with torch, and no file where it fails."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from vpr_ros.errors import ModelError  # noqa: E402
from vpr_ros.training.export import export  # noqa: E402
from vpr_ros.training.export import fold_batch_norm  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402

HEIGHT, WIDTH = 48, 64
METADATA = {'backbone': 'resnet18', 'aggregation': 'netvlad-4', 'training': 'none',
            'license': 'Apache-2.0'}


def pictures(count: int) -> np.ndarray:
    random = np.random.default_rng(1)
    return random.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return PlaceNetwork(clusters=4, dimension=8).eval()


@pytest.fixture(scope='module')
def path(network, tmp_path_factory):
    path = tmp_path_factory.mktemp('export') / 'model.onnx'
    parity = export(network, path, height=HEIGHT, width=WIDTH, metadata=METADATA)
    assert parity.worst > 0.9999
    assert parity.mean >= parity.worst
    return path


@pytest.fixture(scope='module')
def session(path):
    return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])


def test_input_and_output_are_those_of_the_contract(session):
    image, descriptor = session.get_inputs()[0], session.get_outputs()[0]
    assert (image.name, image.type, image.shape[1:]) == ('image', 'tensor(uint8)',
                                                         [HEIGHT, WIDTH, 3])
    assert (descriptor.name, descriptor.type, descriptor.shape[1:]) == (
        'descriptor', 'tensor(float)', [8])


@pytest.mark.parametrize('count', [1, 3])
def test_any_batch_gives_what_torch_gives(network, session, count):
    batch = pictures(count)
    with torch.no_grad():
        expected = network(torch.from_numpy(batch)).numpy()
    result = session.run(['descriptor'], {'image': batch})[0]
    assert result.shape == (count, 8)
    assert np.sum(result * expected, axis=1).min() > 0.9999


def test_a_black_picture_gets_a_finite_unit_vector(session):
    black = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    result = session.run(['descriptor'], {'image': black})[0]
    assert np.linalg.norm(result) == pytest.approx(1.0, abs=1e-5)


def test_metadata_says_sizes_and_origin(session):
    assert session.get_modelmeta().custom_metadata_map == {
        **METADATA, 'input_height': str(HEIGHT), 'input_width': str(WIDTH),
        'descriptor_dim': '8'}


def test_big_weights_are_stored_as_float16(path):
    weights = onnx.load(path).graph.initializer
    big = [w for w in weights if np.prod(w.dims) >= 1024]
    assert len(big) > 15
    assert {w.data_type for w in big} == {onnx.TensorProto.FLOAT16}
    assert path.stat().st_size < 6.5e6  # 2.8 million weights


def test_the_file_says_nothing_of_the_machine_that_made_it(path):
    assert b'.py' not in path.read_bytes()


def test_folding_batch_norm_changes_no_descriptor(network):
    batch = torch.from_numpy(pictures(2))
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(batch), network(batch), atol=1e-4, rtol=1e-4)


def test_a_network_that_float16_cannot_hold_leaves_no_file(tmp_path):
    network = PlaceNetwork(clusters=4, dimension=8).eval()
    with torch.no_grad():
        network.whitening.weight[0, 0] = 1e6
    with pytest.raises(ModelError, match='float16'):
        export(network, tmp_path / 'model.onnx', height=HEIGHT, width=WIDTH, metadata=METADATA)
    assert not list(tmp_path.iterdir())


def test_descriptors_that_differ_leave_no_file(tmp_path):
    network = PlaceNetwork(clusters=4, dimension=8).eval()
    with torch.no_grad():
        # below float16's smallest number: stored as zero, only the bias is left
        network.whitening.weight.mul_(1e-12)
        network.whitening.bias.mul_(1e-13)
    with pytest.raises(ModelError, match='not written'):
        export(network, tmp_path / 'model.onnx', height=HEIGHT, width=WIDTH, metadata=METADATA)
    assert not list(tmp_path.iterdir())


def test_sizes_that_do_not_fit_are_refused(network, tmp_path):
    with pytest.raises(ValueError, match='too small'):
        export(network, tmp_path / 'model.onnx', height=16, width=64, metadata=METADATA)
    with pytest.raises(ValueError, match='do not fit'):
        export(network, tmp_path / 'model.onnx', height=64, width=64, metadata=METADATA,
               pictures=pictures(1))
