"""Engines: the options of each provider, and that only a matching engine is used."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from thumbnail_model import HEIGHT
from thumbnail_model import WIDTH
from thumbnail_model import write_thumbnail_model
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding import engines
from vpr_ros.encoding import hardware
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.engine_cache import engine_folder
from vpr_ros.encoding.engine_cache import engine_key
from vpr_ros.encoding.engine_cache import read_manifest
from vpr_ros.encoding.engine_cache import Request
from vpr_ros.encoding.engine_cache import write_manifest
from vpr_ros.encoding.engines import provider_names
from vpr_ros.encoding.engines import provider_options
from vpr_ros.encoding.engines import PROVIDERS
from vpr_ros.encoding.engines import variants
from vpr_ros.encoding.model_file import check_model_file


@pytest.fixture
def reported() -> list[str]:
    return []


@pytest.fixture
def request_(tmp_path: Path, reported: list[str]) -> Request:
    path = write_thumbnail_model(tmp_path / 'm.onnx')
    return Request(path, check_model_file(path), 1, tmp_path / 'cache', reported.append)


def _key(request: Request, **changes: str) -> dict:
    return engine_key('tensorrt', request, {'trt_fp16_enable': '1'},
                      **{'device': 'Orin 8.7', 'library': '101300', **changes})


@pytest.mark.parametrize(('provider', 'names'), [
    ('auto', tuple(PROVIDERS)), ('cpu', ('cpu',)), ('cuda, cpu', ('cuda', 'cpu')),
    (['openvino', 'cpu'], ('openvino', 'cpu'))])
def test_providers_are_given_as_text_or_a_list(provider, names) -> None:
    assert provider_names(provider) == names


@pytest.mark.parametrize('provider', ['', 'npu', 'cuda,', 'auto,cpu', ['cpu', 'npu'], []])
def test_an_unknown_name_is_refused(provider) -> None:
    with pytest.raises(ValueError, match='is not known; use auto or one of tensorrt, cuda'):
        provider_names(provider)


def test_the_first_provider_of_a_list_that_loads_is_used(request_: Request) -> None:
    missing = [name for name, full in PROVIDERS.items()
               if full not in onnxruntime.get_available_providers()]
    assert Encoder(request_.path, ','.join([*missing, 'cpu'])).provider == 'cpu'
    assert Encoder(request_.path, [*missing, 'cpu']).provider == 'cpu'
    if missing:
        with pytest.raises(ModelError, match=f"'{','.join(missing)}' does not load here; .* cpu"):
            Encoder(request_.path, missing)


def test_tensorrt_tries_fp16_first_with_norms_in_fp32() -> None:
    half, full = variants('tensorrt', threads=2, int8=False, bf16=True)
    assert half['trt_fp16_enable'] == half['trt_layer_norm_fp32_fallback'] == '1'
    assert full['trt_fp16_enable'] == '0'
    assert half['trt_int8_enable'] == full['trt_int8_enable'] == '0'
    for options in variants('tensorrt', threads=2, int8=True, bf16=True):
        assert options['trt_int8_enable'] == '1'


def test_tensorrt_keeps_its_engine_in_its_folder_and_falls_back_to_cuda(
        tmp_path: Path) -> None:
    half = variants('tensorrt', threads=2, int8=False, bf16=True)[0]
    (first, merged), (second, cuda_options) = provider_options('tensorrt', half, tmp_path)
    assert (first, second) == (PROVIDERS['tensorrt'], PROVIDERS['cuda'])
    assert merged.items() >= half.items()
    assert merged['trt_engine_cache_enable'] == '1'
    assert merged['trt_engine_cache_path'] == merged['trt_timing_cache_path'] == str(tmp_path)
    assert cuda_options == {}
    (_, merged), _ = provider_options('tensorrt', half, None)
    assert merged == half


def test_openvino_computes_in_bfloat16_where_the_processor_does() -> None:
    def properties(bf16: bool) -> list[dict]:
        return [json.loads(options['load_config'])['CPU']
                for options in variants('openvino', threads=3, int8=False, bf16=bf16)]
    assert [p['INFERENCE_PRECISION_HINT'] for p in properties(True)] == ['bf16', 'f32']
    assert [p['INFERENCE_PRECISION_HINT'] for p in properties(False)] == ['f32']
    assert {p['INFERENCE_NUM_THREADS'] for p in properties(True)} == {3}


def test_cpu_and_cuda_need_no_options() -> None:
    for name in ('cpu', 'cuda'):
        assert variants(name, threads=1, int8=False, bf16=False) == [{}]
        assert provider_options(name, {}, None) == [(PROVIDERS[name], {})]


def test_an_engine_differs_with_everything_that_it_depends_on(
        request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(key: dict) -> Path:
        return engine_folder(request_.cache, key)
    keys = [_key(request_), _key(request_, device='Thor 11.0'), _key(request_, library='101400'),
            _key(replace(request_, digest='0' * 64)), _key(replace(request_, batch=32)),
            _key(replace(request_, path=Path('other.onnx'))),
            engine_key('tensorrt', request_, {'trt_fp16_enable': '0'}, device='Orin 8.7',
                       library='101300')]
    monkeypatch.setattr(onnxruntime, '__version__', '0.0.1')
    keys.append(_key(request_))
    assert len({folder(key) for key in keys}) == len(keys)
    assert folder(keys[0]) == folder(json.loads(json.dumps(keys[0])))
    # The cache folder and the report do not change the engine.
    assert _key(replace(request_, cache=Path('x'), report=print)) == _key(request_)


@pytest.fixture
def cached(request_: Request, tmp_path: Path) -> tuple[Path, dict]:
    folder = tmp_path / 'engine'
    folder.mkdir()
    (folder / 'm.engine').write_bytes(b'engine')
    (folder / 'm.timing').write_bytes(b'timing')
    write_manifest(folder, _key(request_), 0.9991)
    return folder, _key(request_)


def test_an_engine_is_used_with_a_matching_manifest(cached) -> None:
    assert read_manifest(*cached) == 0.9991


def test_an_engine_of_another_key_is_not_used(cached, request_: Request) -> None:
    folder, key = cached
    for change in ({'device': 'Thor 11.0'}, {'library': '101400'}):
        assert read_manifest(folder, _key(request_, **change)) is None
    assert read_manifest(folder, {**key, 'format': 0}) is None


@pytest.mark.parametrize('corrupt', [
    lambda folder: (folder / 'm.engine').write_bytes(b'engime'),
    lambda folder: (folder / 'm.engine').unlink(),
    lambda folder: (folder / 'n.engine').write_bytes(b'engine'),
    lambda folder: (folder / 'more').mkdir(),
    lambda folder: (folder / 'engine.json').unlink(),
    lambda folder: (folder / 'engine.json').write_text('{'),
    lambda folder: (folder / 'engine.json').write_text('[]'),
    lambda folder: (folder / 'engine.json').write_bytes(b'\xff\xfe'),
], ids=['changed', 'missing', 'added', 'folder', 'unlisted', 'half', 'list', 'bytes'])
def test_an_engine_whose_files_differ_from_its_manifest_is_not_used(cached, corrupt) -> None:
    corrupt(cached[0])
    assert read_manifest(*cached) is None


def test_the_agreement_is_the_lowest_cosine() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert engines.agreement(rows, rows) == 1
    rotated = rows.copy()
    rotated[1] = (0.6, 0.8, 0)
    assert engines.agreement(rotated, rows) == pytest.approx(0.8)
    rotated[2, 0] = np.nan
    assert engines.agreement(rotated, rows) == 0


@pytest.mark.parametrize(('flags', 'without_vnni'), [((), True), (('avx2', 'avx_vnni'), False)])
def test_int8_sums_do_not_saturate_on_any_processor(
        request_: Request, monkeypatch: pytest.MonkeyPatch, flags, without_vnni) -> None:
    monkeypatch.setattr(hardware, 'flags', lambda: frozenset(flags))
    monkeypatch.setattr('platform.machine', lambda: 'x86_64')
    settings = Encoder(request_.path, 'cpu').engine.session.get_session_options()
    entry = 'session.x64quantprecision'
    if without_vnni:
        assert settings.get_session_config_entry(entry) == '1'
    else:
        with pytest.raises(RuntimeError, match=entry):
            settings.get_session_config_entry(entry)


def test_openvino_does_not_run_int8_where_sums_would_saturate(
        request_: Request, reported: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(str(request_.path))
    onnx.helper.set_model_props(model, {'precision': 'int8'})
    onnx.save(model, str(request_.path))
    monkeypatch.setattr(onnxruntime, 'get_available_providers',
                        lambda: [PROVIDERS['openvino'], PROVIDERS['cpu']])
    monkeypatch.setattr(hardware, 'int8_saturates', lambda: True)
    assert Encoder(request_.path, report=reported.append).provider == 'cpu'
    assert 'no VNNI: trying the next provider' in reported[0]
    with pytest.raises(ModelError, match='no VNNI'):
        Encoder(request_.path, 'openvino')


# Engines in the cache, built with the CPU provider, which every machine has.

def test_an_engine_is_prepared_once(request_: Request, reported: list[str]) -> None:
    first = engines.prepared('cpu', request_, {})
    assert first.cosine == pytest.approx(1, abs=1e-6)
    assert first.folder.parent == request_.cache
    assert 'ready after' in reported[-1]
    assert str(first.folder) in reported[-1]
    count = len(reported)
    manifest = (first.folder / 'engine.json').stat()
    second = engines.prepared('cpu', request_, {})
    assert (second.folder, second.cosine) == (first.folder, first.cosine)
    assert (first.folder / 'engine.json').stat().st_mtime_ns == manifest.st_mtime_ns
    assert len(reported) == count
    assert [path.name for path in request_.cache.iterdir()] == [first.folder.name]
    assert not first.folder.stat().st_mode & 0o077  # no other user can plant an engine


@pytest.mark.parametrize('corrupt', [
    lambda folder: (folder / 'stray').write_bytes(b'x'),
    lambda folder: (folder / 'engine.json').unlink(),
    lambda folder: (folder / 'engine.json').write_text('{}')], ids=['stray', 'unlisted', 'empty'])
def test_a_stale_engine_is_rebuilt(request_: Request, reported: list[str], corrupt) -> None:
    folder = engines.prepared('cpu', request_, {}).folder
    corrupt(folder)
    count = len(reported)
    rebuilt = engines.prepared('cpu', request_, {})
    assert rebuilt.folder == folder
    assert len(reported) > count
    assert [path.name for path in folder.iterdir()] == ['engine.json']


def test_an_engine_that_disagrees_with_the_cpu_is_neither_used_nor_rebuilt(
        request_: Request, reported: list[str]) -> None:
    folder = engines.prepared('cpu', request_, {}).folder
    manifest = json.loads((folder / 'engine.json').read_text())
    write_manifest(folder, manifest['key'], 0.5)
    count = len(reported)
    assert engines.prepared('cpu', request_, {}) is None
    assert len(reported) == count


def test_an_engine_that_cannot_be_cached_runs_from_memory(
        request_: Request, reported: list[str]) -> None:
    request_.cache.write_text('a file')
    engine = engines.prepared('cpu', request_, {})
    assert engine.folder is None
    assert engine.cosine == pytest.approx(1, abs=1e-6)
    assert any('is not kept' in line and 'engine_cache' in line for line in reported)


@pytest.mark.filterwarnings('ignore:Specified provider')
def test_a_provider_that_does_not_load_leaves_nothing_in_the_cache(request_: Request) -> None:
    if PROVIDERS['tensorrt'] in onnxruntime.get_available_providers():
        pytest.skip('TensorRT is installed')
    half = variants('tensorrt', threads=1, int8=False, bf16=False)[0]
    with pytest.raises(engines.NotServingError, match='tensorrt does not load here'):
        engines.prepared('tensorrt', request_, half)
    assert list(request_.cache.iterdir()) == []


def test_tensorrt_gets_a_size_for_every_dynamic_axis(request_: Request) -> None:
    assert engines.open_axes(request_) == {'N': 1}
    model = onnx.load(str(request_.path))
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f'side{axis}'
    onnx.save(model, str(request_.path))
    assert engines.open_axes(replace(request_, batch=32)) == {
        'N': 32, 'side1': HEIGHT, 'side2': WIDTH}


def test_openvino_runs_the_model_where_it_is_installed(
        request_: Request, reported: list[str]) -> None:
    if PROVIDERS['openvino'] not in onnxruntime.get_available_providers():
        pytest.skip('needs onnxruntime-openvino')
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    encoder = Encoder(request_.path, 'openvino', 1, engine_cache=request_.cache,
                      report=reported.append)
    reference = Encoder(request_.path, 'cpu', 1)
    assert encoder.provider == 'openvino'
    assert encoder.encode(rgb) @ reference.encode(rgb) > 0.999
    assert 'openvino: engine of m.onnx' in reported[0]


@pytest.mark.parametrize('cosine', [float('nan'), float('inf'), 1e308, '1', None, True])
def test_a_manifest_without_a_cosine_counts_as_none(tmp_path: Path, cosine: object) -> None:
    (tmp_path / 'engine.json').write_text(json.dumps({'key': {}, 'files': {}, 'cosine': cosine}))
    assert read_manifest(tmp_path, {}) is None
