"""
Engines: which execution provider runs a model, with which options, and how engines are built.

encoder.py feeds the sessions that are opened here; engine_cache.py keeps engines on disk. CUDA and
TensorRT were not available for testing: their options follow the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
import shutil
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import whole_directory
from vpr_ros.encoding import hardware
from vpr_ros.encoding.engine_cache import engine_folder
from vpr_ros.encoding.engine_cache import engine_key
from vpr_ros.encoding.engine_cache import MANIFEST
from vpr_ros.encoding.engine_cache import read_manifest
from vpr_ros.encoding.engine_cache import Request
from vpr_ros.encoding.engine_cache import write_manifest
from vpr_ros.encoding.model_file import unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PROVIDERS = dict(zip(defaults.PROVIDERS, (
    'TensorrtExecutionProvider', 'CUDAExecutionProvider', 'OpenVINOExecutionProvider',
    'CPUExecutionProvider'), strict=True))
"""ONNX Runtime's names of the execution providers, by their short names."""

MIN_COSINE = 0.99
"""Minimum cosine of a reduced-precision engine's descriptors to those of the CPU."""

Options = dict[str, str]


class NotServingError(ModelError):
    """A provider that does not load on this machine, or is not used for this model."""


@dataclass(frozen=True)
class Engine:
    """
    A session that runs; `provider` is its short name, `max_batch` its largest batch.

    `precision` is the one it computes in, unless the model sets its own. For an engine that was
    built, `cosine` is the agreement of its descriptors with those of the CPU, and `folder` is
    where it is cached; they are None where nothing was built or cached.
    """

    session: onnxruntime.InferenceSession
    provider: str
    precision: str = 'fp32'
    max_batch: int | None = None
    cosine: float | None = None
    folder: Path | None = None


def provider_names(provider: str | Sequence[str]) -> tuple[str, ...]:
    """
    Return the providers to try, in order, from 'auto', 'tensorrt,cuda,cpu', or a list.

    Raises ValueError for a name that is not in PROVIDERS.
    """
    parts = provider.split(',') if isinstance(provider, str) else provider
    names = tuple(part.strip() for part in parts)
    if names == ('auto',):
        return tuple(PROVIDERS)
    for name in names or ('',):
        if name not in PROVIDERS:
            raise ValueError(f"provider '{name}' is not known; use auto or one of "
                             f'{", ".join(PROVIDERS)}, or several separated by commas')
    return names


def open_engine(provider: str | Sequence[str], request: Request) -> Engine:
    """
    Open a session with the first provider that loads and runs the model.

    An engine that must be built, or compared with the CPU, is taken from the cache if a matching
    one is there; `request.report` gets a line before and after a step that takes long. Raises
    ValueError for an unknown provider, NotServingError when no provider loads, ModelError for a
    file that none can run.
    """
    installed = onnxruntime.get_available_providers()
    names = [name for name in provider_names(provider) if PROVIDERS[name] in installed]
    errors: list[ModelError] = []
    for name in names:
        try:
            return _open_with(name, request)
        except ModelError as error:
            errors.append(error)
            if name != names[-1]:
                request.report(f'{error}: trying the next provider')
    if errors:
        # The error of a provider that failed on the model is better than that of a missing one.
        raise next((error for error in reversed(errors)
                    if not isinstance(error, NotServingError)), errors[-1])
    requested = provider if isinstance(provider, str) else ','.join(provider)
    raise NotServingError(f"provider '{requested}' does not load here; this onnxruntime has "
                          f'{", ".join(n for n, p in PROVIDERS.items() if p in installed)}')


def _open_with(name: str, request: Request) -> Engine:
    """Open a session with one provider; raise ModelError when it does not run the model."""
    try:
        return _open(name, request)
    except NotServingError:
        raise
    except Exception as error:  # ONNX Runtime raises a class of its own per provider
        if name == 'cpu':
            raise unreadable(request.path, first_line(error), onnxruntime.__version__) from error
        raise ModelError(f'{name} cannot run {request.path} ({first_line(error)})') from error


def variants(name: str, *, threads: int, int8: bool, bf16: bool) -> list[Options]:
    """
    Return the options to try with a provider, the fastest first.

    `int8`: the model is quantised to int8; `bf16`: the processor has bfloat16 arithmetic. TensorRT
    computes in fp16 except for L2 norms, whose sums of squares would overflow: they stay fp32.
    OpenVINO computes in bf16, which has the range of fp32.
    """
    if name == 'tensorrt':
        full = {'trt_fp16_enable': '0', 'trt_int8_enable': '1' if int8 else '0'}
        half = {**full, 'trt_fp16_enable': '1', 'trt_layer_norm_fp32_fallback': '1'}
        return [half, full]
    if name == 'openvino':
        return [_openvino(hint, threads) for hint in (('bf16', 'f32') if bf16 else ('f32',))]
    return [{}]


def provider_options(name: str, options: Mapping[str, str], folder: Path | None
                     ) -> list[tuple[str, Options]]:
    """
    Return the providers for ONNX Runtime, in order of preference, with their options.

    TensorRT reads its engine from `folder` or writes it there; None to keep it in memory.
    """
    merged = dict(options)
    if name != 'tensorrt':
        return [(PROVIDERS[name], merged)]
    if folder is not None:
        merged |= {'trt_engine_cache_enable': '1', 'trt_engine_cache_path': str(folder),
                   'trt_timing_cache_enable': '1', 'trt_timing_cache_path': str(folder)}
    return [(PROVIDERS[name], merged), (PROVIDERS['cuda'], {})]  # CUDA runs what TensorRT cannot


def agreement(descriptors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return the lowest cosine between rows (N,D) of unit norm; 0 when any is not finite."""
    cosines = np.sum(descriptors * reference, axis=1)
    return float(cosines.min()) if np.isfinite(cosines).all() else 0.0


def _open(name: str, request: Request) -> Engine:
    """Open a session with one provider; raise NotServingError when it does not serve."""
    if name in ('cpu', 'cuda'):
        return Engine(_session(name, request, {}), name)
    # Reading the metadata takes 30 ms; for OpenVINO it only matters where int8 sums saturate.
    int8 = ((name == 'tensorrt' or hardware.int8_saturates())
            and _metadata(request).get('precision') == 'int8')
    if name == 'openvino' and int8:
        raise NotServingError(f'openvino would give wrong descriptors for {request.path}, an int8 '
                              'model: this processor has no VNNI')
    for options in variants(name, threads=request.threads or hardware.cores(), int8=int8,
                            bf16=hardware.computes_bf16()):
        engine = prepared(name, request, options)
        if engine is not None:
            return engine
    raise NotServingError(f'{name} gives different descriptors for {request.path} than the CPU')


def prepared(name: str, request: Request, options: Options) -> Engine | None:
    """
    Return an engine from the cache, or build it; None when it disagrees with the CPU.

    A cached engine is used only if its manifest matches the key and its files; anything else is
    rebuilt. If the cache is not writable, the engine is built for this process only.
    """
    device, library = ((hardware.gpu_name(), hardware.tensorrt_version()) if name == 'tensorrt'
                       else (hardware.processor(), onnxruntime.__version__))
    key = engine_key(name, request, options, device=device, library=library)
    folder = engine_folder(request.cache, key)
    cosine = read_manifest(folder, key)
    if cosine is not None and cosine < MIN_COSINE:
        return None  # it was built and rejected before
    if cosine is not None:
        try:
            return _engine(name, request, options, cosine, folder)
        except NotServingError:
            raise
        except Exception as error:  # an engine may depend on more than the key holds
            request.report(f'{name}: {folder} does not load ({first_line(error)}): rebuilding it')
    return _built(name, request, options, key, folder)


def _built(name: str, request: Request, options: Options, key: Mapping[str, Any], folder: Path
           ) -> Engine | None:
    """Build an engine and report how long it took; return None when it disagrees with the CPU."""
    begin = time.monotonic()
    if name == 'tensorrt':
        request.report(f'tensorrt: building the engine of {request.path.name} for '
                       f'{key["device"]}; this takes minutes, once')
    cosine, kept = _build(name, request, options, key, folder)
    seconds = time.monotonic() - begin
    precision = _precision(options)
    if cosine < MIN_COSINE:
        request.report(f'{name}: {precision} is not used: its descriptors differ from those of '
                       f'the CPU (cosine {cosine:.4f})')
        return None
    request.report(f'{name}: engine of {request.path.name} with {precision} ready after '
                   f'{seconds:.1f} s, cosine {cosine:.5f} to the CPU, in {kept or "memory"}')
    return _engine(name, request, options, cosine, kept)


def _build(name: str, request: Request, options: Options, key: Mapping[str, Any], folder: Path
           ) -> tuple[float, Path | None]:
    """Build an engine; return its cosine to the CPU, and its folder or None if not writable."""
    if folder.exists() and not (folder / MANIFEST).is_file():
        shutil.rmtree(folder, ignore_errors=True)
    try:
        with whole_directory(folder, MANIFEST, overwrite=True) as part:
            part.chmod(0o700)
            cosine = _measured_agreement(name, request, options, part)
            write_manifest(part, key, cosine)
        return cosine, folder
    except NotServingError:
        raise
    except (VprError, OSError) as error:
        request.report(f'{name}: the engine is not kept ({error}): set engine_cache to a writable '
                       'folder')
        return _measured_agreement(name, request, options, None), None


def _measured_agreement(name: str, request: Request, options: Options, folder: Path | None
                        ) -> float:
    """Open a session, which builds its engine in `folder`, and return its cosine to the CPU."""
    session = _session(name, request, options, folder)
    reference = _session('cpu', request, {})
    height, width = input_size(reference)
    count = request.batch if name == 'tensorrt' else fixed_batch(reference) or 2
    feed = {'image': _probes(height, width, count)}
    return agreement(session.run(['descriptor'], feed)[0], reference.run(['descriptor'], feed)[0])


def _engine(name: str, request: Request, options: Options, cosine: float, folder: Path | None
            ) -> Engine:
    return Engine(_session(name, request, options, folder), name, _precision(options),
                  request.batch if name == 'tensorrt' else None, cosine, folder)


def _session(name: str, request: Request, options: Options, folder: Path | None = None
             ) -> onnxruntime.InferenceSession:
    """Open a session; raise NotServingError when ONNX Runtime drops the provider."""
    settings = _settings()
    single = request.throughput and name == 'cpu'
    settings.intra_op_num_threads = 1 if single else request.threads or hardware.cores()
    # Threads that spin while they wait keep the cores from the rest of the robot, which then loses
    # images.
    settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if hardware.int8_saturates():
        # For the CPU provider: slower int8 instructions, which do not saturate.
        settings.add_session_config_entry('session.x64quantprecision', '1')
    if name == 'tensorrt':
        # With static shapes the engine is built now and not at the first frame.
        for axis, size in open_axes(request).items():
            settings.add_free_dimension_override_by_name(axis, size)
    # ONNX Runtime's own fallback would hide why a provider fails, at run time as well.
    session = onnxruntime.InferenceSession(str(request.path), settings, enable_fallback=0,
                                           providers=provider_options(name, options, folder))
    # ONNX Runtime silently drops a provider whose libraries are missing.
    if session.get_providers()[0] != PROVIDERS[name]:
        raise NotServingError(f'{name} does not load here')
    return session


def _settings() -> onnxruntime.SessionOptions:
    """Return the options of every session: quiet, and for what was checked as ONNX only."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # whether the provider loaded is checked afterwards
    settings.add_session_config_entry('session.load_model_format', 'ONNX')
    return settings


def cpu_session(path: Path, threads: int, model: bytes | None = None, *, optimise: bool = True
                ) -> onnxruntime.InferenceSession:
    """
    Open a checked model on the CPU, where it runs beside an encoder; 0 threads for all.

    `model` are its bytes where they are not those of the file. Raises ModelError.
    """
    settings = _settings()
    settings.intra_op_num_threads = threads
    if not optimise:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model or str(path), settings,
                                            providers=[PROVIDERS['cpu']])
    except Exception as error:  # ONNX Runtime raises a class of its own per cause
        raise unreadable(path, first_line(error), onnxruntime.__version__) from error


def input_size(session: onnxruntime.InferenceSession) -> tuple[int, int]:
    """
    Return the height and width of a model's input, from the graph or else from the metadata.

    Raises KeyError or ValueError when neither has them.
    """
    shape = session.get_inputs()[0].shape
    metadata = session.get_modelmeta().custom_metadata_map
    height, width = shape[1:3] if len(shape) == 4 else (None, None)
    return (height if isinstance(height, int) else int(metadata['input_height']),
            width if isinstance(width, int) else int(metadata['input_width']))


def fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """Return how many images a model takes at a time; None for any number."""
    shape = session.get_inputs()[0].shape
    return shape[0] if shape and isinstance(shape[0], int) else None


def _inspection_session(request: Request) -> onnxruntime.InferenceSession:
    """Open a session that only describes the model: unoptimised, so that it opens quickly."""
    settings = _settings()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(request.path), settings,
                                        providers=[PROVIDERS['cpu']])


def _metadata(request: Request) -> dict[str, str]:
    return dict(_inspection_session(request).get_modelmeta().custom_metadata_map)


def open_axes(request: Request) -> dict[str, int]:
    """Return the size of each dynamic axis of the input, by its name."""
    session = _inspection_session(request)
    sizes = (request.batch, *input_size(session))
    return {axis: size for axis, size in zip(session.get_inputs()[0].shape, sizes, strict=False)
            if isinstance(axis, str)}


def _probes(height: int, width: int, count: int) -> NDArray[np.uint8]:
    """Return `count` different smooth random images, uint8 (N,height,width,3)."""
    rng = np.random.default_rng(0)
    return np.stack([images.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), height, width)
                     for _ in range(count)])


def _openvino(precision: str, threads: int) -> Options:
    properties = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': precision,
                  'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1}
    return {'device_type': 'CPU', 'load_config': json.dumps({'CPU': properties})}


def _precision(options: Options) -> str:
    if 'load_config' in options:
        return str(json.loads(options['load_config'])['CPU']['INFERENCE_PRECISION_HINT'])
    return 'fp16' if options.get('trt_fp16_enable') == '1' else 'fp32'
