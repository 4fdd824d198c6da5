"""The exported file: the contract, the parity with torch, and no file where it fails."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.offline.visual_words import first_filters

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

from vpr_ros.training.experiment import Experiment  # noqa: E402
from vpr_ros.training.export import export  # noqa: E402
from vpr_ros.training.export import ExportOptions  # noqa: E402
from vpr_ros.training.export import fold_batch_norm  # noqa: E402
from vpr_ros.training.export import metadata_of  # noqa: E402
from vpr_ros.training.export import sample_images  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402
from vpr_ros.training.recall import ValidationSet  # noqa: E402

HEIGHT, WIDTH = 48, 64
FP32, FP16, INT8 = (ExportOptions(HEIGHT, WIDTH, name) for name in ('fp32', 'fp16', 'int8'))
METADATA = {'backbone': 'resnet18', 'aggregation': 'netvlad-4', 'training': 'none',
            'license': 'Apache-2.0'}


def noise_images(count: int) -> np.ndarray:
    random = np.random.default_rng(1)
    return random.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return PlaceNetwork(clusters=4, dimension=8).eval()


@pytest.fixture(scope='module')
def path(network, tmp_path_factory):
    path = tmp_path_factory.mktemp('export') / 'model.onnx'
    report = export(network, path, FP32, metadata=METADATA)
    assert report.worst > 0.99999
    assert report.mean >= report.worst
    assert report.size_bytes == path.stat().st_size
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
    batch = noise_images(count)
    with torch.no_grad():
        expected = network(torch.from_numpy(batch)).numpy()
    result = session.run(['descriptor'], {'image': batch})[0]
    assert result.shape == (count, 8)
    assert np.sum(result * expected, axis=1).min() > 0.9999


def test_the_aggregate_is_what_whitening_reduces(network, session):
    assert [output.name for output in session.get_outputs()] == ['descriptor', 'aggregate']
    descriptor, aggregate = session.run(['descriptor', 'aggregate'], {'image': noise_images(2)})
    assert session.get_outputs()[1].shape[1] == aggregate.shape[1]
    assert np.linalg.norm(aggregate, axis=1) == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        whitened = network.whitening(torch.from_numpy(aggregate)).numpy()
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    assert np.sum(whitened * descriptor, axis=1).min() > 0.9999


def test_a_black_image_gets_a_finite_unit_vector(session):
    black = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    result = session.run(['descriptor'], {'image': black})[0]
    assert np.linalg.norm(result) == pytest.approx(1.0, abs=1e-5)


def test_metadata_says_sizes_and_origin(session):
    assert session.get_modelmeta().custom_metadata_map == {
        **METADATA, 'input_height': str(HEIGHT), 'input_width': str(WIDTH),
        'descriptor_dim': '8', 'precision': 'fp32'}


def test_big_weights_are_stored_as_float16(path):
    weights = onnx.load(path).graph.initializer
    big = [w for w in weights if np.prod(w.dims) >= 1024]
    assert len(big) > 15
    assert {w.data_type for w in big} == {onnx.TensorProto.FLOAT16}
    assert path.stat().st_size < 6.5e6  # 2.8 million weights


def test_the_file_says_nothing_of_the_machine_that_made_it(path):
    assert b'.py' not in path.read_bytes()


def test_folding_batch_norm_changes_no_descriptor(network):
    batch = torch.from_numpy(noise_images(2))
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(batch), network(batch), atol=1e-4, rtol=1e-4)


def test_a_network_that_float16_cannot_hold_leaves_no_file(tmp_path):
    network = PlaceNetwork(clusters=4, dimension=8).eval()
    with torch.no_grad():
        network.whitening.weight[0, 0] = 1e6
    with pytest.raises(ModelError, match='float16'):
        export(network, tmp_path / 'model.onnx', FP32, metadata=METADATA)
    assert not list(tmp_path.iterdir())


def test_descriptors_that_differ_leave_no_file(tmp_path):
    network = PlaceNetwork(clusters=4, dimension=8).eval()
    with torch.no_grad():
        # below float16's smallest number: stored as zero, only the bias is left
        network.whitening.weight.mul_(1e-12)
        network.whitening.bias.mul_(1e-13)
    with pytest.raises(ModelError, match='not written'):
        export(network, tmp_path / 'model.onnx', FP32, metadata=METADATA)
    assert not list(tmp_path.iterdir())


def test_sizes_that_do_not_fit_are_refused(network, tmp_path):
    with pytest.raises(ValueError, match='too small'):
        ExportOptions(height=16, width=64)
    with pytest.raises(ValueError, match='do not fit'):
        export(network, tmp_path / 'model.onnx', ExportOptions(64, 64), metadata=METADATA,
               images=noise_images(1))


def small_network(aggregation: str = 'avg') -> PlaceNetwork:
    """Return two layers of squeezenet: fast to export."""
    torch.manual_seed(0)
    return PlaceNetwork('squeezenet1_1', layer='3', aggregation=aggregation).eval()


@pytest.mark.parametrize('aggregation', ['netvlad', 'gem', 'spp'])
def test_half_precision_is_within_a_thousandth(tmp_path, aggregation):
    report = export(small_network(aggregation), tmp_path / 'half.onnx', FP16, metadata=METADATA)
    assert report.worst > 0.999
    model = onnx.load(tmp_path / 'half.onnx')
    types = {value.name: value.type.tensor_type.elem_type for value in
             onnx.shape_inference.infer_shapes(model).graph.value_info}
    assert {types[node.output[0]] for node in model.graph.node if node.op_type == 'Conv'
            and 'backbone' in node.input[1]} == {onnx.TensorProto.FLOAT16}
    assert {types[node.output[0]] for node in model.graph.node
            if node.op_type in ('ReduceSum', 'Softmax', 'Sqrt')} == {onnx.TensorProto.FLOAT}


def test_eight_bits_are_accepted_when_the_recall_stays(tmp_path, validation):
    fitting, drives = sample_images([validation / 'database', validation / 'queries'], HEIGHT,
                                    WIDTH, most=16)
    assert (drives.sum(), len(fitting)) == (8, 16)
    report = export(small_network(), tmp_path / 'int8.onnx', INT8, metadata=METADATA,
                    images=fitting, validation=ValidationSet.read(validation))
    assert report.recall_before == report.recall_after == 1.0
    assert 'Recall@1: 1.0000 in torch, 1.0000 in the file' in str(report)
    encoder = Encoder(tmp_path / 'int8.onnx', provider='cpu')
    assert encoder.metadata['precision'] == 'int8'
    assert [path.name for path in tmp_path.iterdir()] == ['int8.onnx']
    # The first filters of an int8 model can still be drawn.
    filters, expected = first_filters(encoder), small_network().backbone[0].weight.detach().numpy()
    assert filters.shape == (64, 3, 3, 3)
    np.testing.assert_allclose(filters, expected, atol=np.abs(expected).max() / 50)


def test_eight_bits_that_cost_recall_leave_no_file(tmp_path, validation):
    network = small_network()
    with torch.no_grad():
        # What tells places apart is far smaller than one of the 255 steps of what does not.
        fire = network.backbone[-1]
        for convolution in (fire.expand1x1, fire.expand3x3):
            convolution.weight.mul_(1e-4)
            convolution.bias.fill_(1.0)
    fitting, _ = sample_images([validation / 'database'], HEIGHT, WIDTH, most=16)
    with pytest.raises(ModelError, match=r'int8 takes Recall@1 from 1.0000 to 0'):
        export(network, tmp_path / 'int8.onnx', INT8, metadata=METADATA, images=fitting,
               validation=ValidationSet.read(validation))
    assert not list(tmp_path.iterdir())


def test_eight_bits_need_images_and_a_validation_set(tmp_path):
    with pytest.raises(ValueError, match='int8 needs images'):
        export(small_network(), tmp_path / 'int8.onnx', INT8, metadata=METADATA,
               images=noise_images(2))


@pytest.mark.parametrize('aggregation', ['gem', 'spp'])
def test_a_dynamic_size_takes_images_of_any_size(tmp_path, aggregation):
    network = small_network(aggregation)
    export(network, tmp_path / 'free.onnx', ExportOptions(HEIGHT, WIDTH, dynamic_size=True),
           metadata=METADATA)
    encoder = Encoder(tmp_path / 'free.onnx', provider='cpu')
    assert (encoder.height, encoder.width) == (HEIGHT, WIDTH)
    session = onnxruntime.InferenceSession(str(tmp_path / 'free.onnx'),
                                           providers=['CPUExecutionProvider'])
    other = np.random.default_rng(0).integers(0, 256, (1, 70, 90, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(other)).numpy()
    result = session.run(['descriptor'], {'image': other})[0]
    assert np.sum(result * expected) > 0.9999


def test_weights_are_stored_as_float32_on_request(tmp_path):
    network = small_network()
    sizes = [export(network, tmp_path / 'model.onnx',
                    ExportOptions(HEIGHT, WIDTH, half_weights=half),
                    metadata=METADATA).size_bytes for half in (True, False)]
    assert sizes[1] > 1.4 * sizes[0]


def test_metadata_names_what_was_trained():
    facts = metadata_of(Experiment(data={'town': {}}), 'runs/best.ckpt')
    assert facts['backbone'] == 'resnet18'
    assert facts['aggregation'] == 'netvlad-64'
    assert 'best.ckpt' in facts['training']
    assert 'town' in facts['training']
