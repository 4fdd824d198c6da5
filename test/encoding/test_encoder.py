"""The encoder: its descriptors, and the files and providers that it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from thumbnail_model import DIMENSION
from thumbnail_model import HEIGHT
from thumbnail_model import WIDTH
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import images
from vpr_ros.core import raw_images
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.encoder import bundled_model
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.encoder import MAX_BATCH
from vpr_ros.encoding.engines import PROVIDERS


@pytest.mark.parametrize('size', [(HEIGHT, WIDTH), (480, 640), (16, 16)])
def test_a_descriptor_has_unit_norm_whatever_the_size(
        encoder: Encoder, size: tuple[int, int]) -> None:
    descriptor = encoder.encode(_noise(*size))
    assert descriptor.shape == (DIMENSION,)
    assert descriptor.dtype == np.float32
    assert np.linalg.norm(descriptor) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(('grey', 'cause'), [(0, 'all black'), (127, 'featureless'),
                                             (255, 'over-exposed')])
def test_an_image_that_shows_nothing_is_refused(encoder: Encoder, grey: int, cause: str) -> None:
    with pytest.raises(ImageError, match=f'the image shows nothing: {cause}'):
        encoder.encode(np.full((HEIGHT, WIDTH, 3), grey, np.uint8))
    descriptor = encoder.encode_batch([np.full((HEIGHT, WIDTH, 3), grey, np.uint8)])[0]
    assert np.linalg.norm(descriptor) == pytest.approx(1, abs=1e-5)


def test_a_batch_gives_the_descriptors_of_its_single_images(encoder: Encoder) -> None:
    batch = [_noise(HEIGHT, WIDTH, 1), _noise(96, 200, 2), _noise(20, 30, 3)]
    descriptors = encoder.encode_batch(batch)
    assert descriptors.shape == (3, DIMENSION)
    np.testing.assert_allclose(descriptors, [encoder.encode(rgb) for rgb in batch], atol=1e-6)


def test_an_image_is_resized_by_the_function_of_the_package(encoder: Encoder) -> None:
    rgb = _noise(200, 300)
    small = images.resize(rgb, HEIGHT, WIDTH)
    np.testing.assert_array_equal(encoder.encode(rgb), encoder.encode(small))


def test_concurrent_threads_do_not_mix_their_images(encoder: Encoder) -> None:
    batch = [_noise(60 + i, 90, i) for i in range(8)]
    expected = [encoder.encode(rgb) for rgb in batch]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            np.testing.assert_allclose(list(pool.map(encoder.encode, batch)), expected, atol=1e-6)


def test_an_invalid_array_never_gets_the_descriptor_of_the_previous_image(encoder: Encoder
                                                                          ) -> None:
    encoder.encode(_noise(96, 128))
    for wrong in (np.zeros((96, 128, 3), np.float32), np.zeros((96, 128), np.uint8)):
        with pytest.raises(ValueError, match='cannot be resized into'):
            encoder.encode(wrong)


def test_a_batch_larger_than_one_call_is_split(encoder: Encoder) -> None:
    batch = [_noise(HEIGHT, WIDTH, i) for i in range(MAX_BATCH + 3)]
    np.testing.assert_allclose(encoder.encode_batch(batch),
                               [encoder.encode(rgb) for rgb in batch], atol=1e-6)


def test_a_view_of_padded_rows_is_encoded_like_its_copy(encoder: Encoder) -> None:
    step = WIDTH * 3 + 7
    data = np.random.default_rng(0).integers(0, 256, HEIGHT * step, dtype=np.uint8)
    view = raw_images.from_raw(data, HEIGHT, WIDTH, 'rgb8', step)
    np.testing.assert_array_equal(encoder.encode(view), encoder.encode(view.copy()))


def test_the_encoder_describes_its_model(encoder: Encoder, model_path: Path) -> None:
    assert encoder.path == model_path
    assert encoder.digest == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert encoder.provider == 'cpu'
    assert (encoder.height, encoder.width, encoder.dimension) == (HEIGHT, WIDTH, DIMENSION)
    assert encoder.metadata['aggregation'] == 'thumbnail'


def test_auto_takes_a_provider_that_is_installed(model_path: Path) -> None:
    provider = Encoder(model_path).provider
    assert PROVIDERS[provider] in onnxruntime.get_available_providers()


def test_a_dynamic_input_size_is_read_from_the_metadata(tmp_path: Path) -> None:
    model = _model(tmp_path)
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f'side{axis}'
    onnx.save(model, str(tmp_path / 'open.onnx'))
    encoder = Encoder(tmp_path / 'open.onnx')
    assert (encoder.height, encoder.width) == (HEIGHT, WIDTH)


def test_a_model_without_an_input_size_is_refused(tmp_path: Path) -> None:
    model = _model(tmp_path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = 'height'
    del model.metadata_props[:]
    _refused(_save(tmp_path, model), 'input_height')


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / 'missing.onnx', tmp_path):
        with pytest.raises(FileNotFoundError, match=f'{path}: no such model file'):
            Encoder(path)


@pytest.mark.parametrize('content', [b'', b'not a model', bytes(4096)], ids=['empty', 'text', '0'])
def test_a_file_that_is_not_an_onnx_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'bad.onnx'
    path.write_bytes(content)
    _refused(path, 'not an ONNX model, or it is damaged')


@pytest.mark.parametrize(('field', 'version'), [('ir_version', 99), ('opset', 99)])
def test_a_model_for_a_newer_onnx_runtime_is_not_called_damaged(
        tmp_path: Path, model_path: Path, field: str, version: int) -> None:
    model = onnx.load(model_path)
    if field == 'opset':
        model.opset_import[0].version = version
    else:
        model.ir_version = version
    onnx.save(model, tmp_path / 'bad.onnx')
    _refused(tmp_path / 'bad.onnx', f'needs a newer onnxruntime than .*{version}')


def test_the_bundled_model_has_the_lowest_version_that_holds_it() -> None:
    model = onnx.load(bundled_model())
    assert model.ir_version == onnx.helper.find_min_ir_version_for(list(model.opset_import))


def test_a_truncated_model_is_refused(tmp_path: Path, model_path: Path) -> None:
    path = tmp_path / 'bad.onnx'
    path.write_bytes(model_path.read_bytes()[:400])
    _refused(path, 'damaged')


def test_another_input_name_is_refused_with_the_inputs_of_the_model(tmp_path: Path) -> None:
    path = write_thumbnail_model(tmp_path / 'bad.onnx', input_name='pixels')
    _refused(path, r"not a model of this package: it takes \[\('pixels', 'tensor\(uint8\)'\)\]")


def test_another_input_type_is_refused_with_the_inputs_of_the_model(tmp_path: Path) -> None:
    path = write_thumbnail_model(tmp_path / 'bad.onnx', input_type=onnx.TensorProto.FLOAT)
    _refused(path, r"it takes \[\('image', 'tensor\(float\)'\)\]")


def test_another_output_name_is_refused(tmp_path: Path) -> None:
    model = _model(tmp_path)
    model.graph.node[-1].output[0] = model.graph.output[0].name = 'embedding'
    _refused(_save(tmp_path, model), "'embedding'")


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    model = _model(tmp_path)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 4
    _refused(_save(tmp_path, model), r'\(N,H,W,3\)')


def test_descriptors_without_unit_norm_are_refused(tmp_path: Path) -> None:
    model = _model(tmp_path)
    last = model.graph.node[-1]
    last.op_type = 'Identity'
    del last.attribute[:]
    _refused(_save(tmp_path, model), 'not vectors of unit length')


def test_descriptors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write_thumbnail_model(tmp_path / 'bad.onnx', gain=float('nan'))
    _refused(path, 'not vectors of unit length')


def test_an_unknown_provider_is_refused_with_a_list_of_the_known(model_path: Path) -> None:
    with pytest.raises(ValueError, match="'npu' is not known; use auto or one of tensorrt, cuda"):
        Encoder(model_path, provider='npu')


def test_a_provider_that_does_not_load_is_refused_with_the_available(model_path: Path) -> None:
    installed = onnxruntime.get_available_providers()
    missing = [name for name, full in PROVIDERS.items() if full not in installed]
    if not missing:
        pytest.skip('this onnxruntime has every provider')
    with pytest.raises(ModelError, match=f"'{missing[0]}' does not load here; .* has .*cpu"):
        Encoder(model_path, provider=missing[0])


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _model(folder: Path) -> onnx.ModelProto:
    return onnx.load(str(write_thumbnail_model(folder / 'good.onnx')))


def _save(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, str(folder / 'bad.onnx'))
    return folder / 'bad.onnx'


def test_a_model_for_one_image_runs_one_by_one_and_one_for_two_is_refused(tmp_path: Path
                                                                          ) -> None:
    path = write_thumbnail_model(tmp_path / 'bad.onnx')
    free = Encoder(path, 'cpu')
    model = onnx.load(str(path))
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8))
    expected = free.encode_batch(images)
    for count in (2, 1):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = count
        onnx.save(model, str(path))
        if count == 2:
            _refused(path, r'must be .N,H,W,3. or .1,H,W,3., not')
    np.testing.assert_array_equal(Encoder(path, 'cpu').encode_batch(images), expected)


def _refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=rf'bad\.onnx.*{message}') as refusal:
        Encoder(path, provider='cpu')
    assert '\n' not in str(refusal.value)
