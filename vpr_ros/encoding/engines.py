"""
Engines: which execution provider runs a model, with which options, and engines kept on disk.

A session is opened here; what goes in and comes out of it is encoder.py's. No CUDA and no TensorRT
was at hand when this was written: what concerns them follows their documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
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
from vpr_ros.core.files import sha256
from vpr_ros.core.files import whole_directory
from vpr_ros.core.files import whole_file
from vpr_ros.encoding import hardware
from vpr_ros.encoding.model_file import damaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray

PROVIDERS = dict(zip(defaults.PROVIDERS, (
    'TensorrtExecutionProvider', 'CUDAExecutionProvider', 'OpenVINOExecutionProvider',
    'CPUExecutionProvider'), strict=True))
"""ONNX Runtime's names of the execution providers."""

MANIFEST = 'engine.json'
FORMAT = 1
LEAST_COSINE = 0.99
"""Between the descriptors of an engine with fewer bits and those of the CPU, on every probe."""

Options = dict[str, str]


class NotServingError(ModelError):
    """A provider that does not load here, or that does not run this model."""


@dataclass(frozen=True)
class Request:
    """
    What is to run, and how.

    `digest` is the SHA-256 of the file; `threads` is for a CPU, 0 for all cores; `cache` is the
    folder of engines; `report` is told what takes long; `throughput`: a call keeps to one of those
    threads, for there are as many calls at once (CPU alone); `batch` is how many pictures
    TensorRT's engine takes, no more and no fewer.
    """

    path: Path
    digest: str
    threads: int
    cache: Path
    report: Callable[[str], None]
    throughput: bool = False
    batch: int = 1


@dataclass(frozen=True)
class Engine:
    """
    A session that runs; `provider` by its short name, `largest` is the batch it takes at most.

    `precision` is what it computes in, unless the model says otherwise. Of an engine that was
    prepared, `cosine` is how far its descriptors agree with those of the CPU, and `folder` is
    where it is kept; they are None where nothing was prepared or kept.
    """

    session: onnxruntime.InferenceSession
    provider: str
    precision: str = 'fp32'
    largest: int | None = None
    cosine: float | None = None
    folder: Path | None = None


def provider_names(provider: str | Sequence[str]) -> tuple[str, ...]:
    """
    Return the providers to try, in order: of 'auto', of 'tensorrt,cuda,cpu', or of a list.

    Raises ValueError for a name that is not in PROVIDERS.
    """
    parts = provider.split(',') if isinstance(provider, str) else provider
    names = tuple(part.strip() for part in parts)
    if names == ('auto',):
        return tuple(PROVIDERS)
    for name in names or ('',):
        if name not in PROVIDERS:
            raise ValueError(f"provider '{name}' is not known; use auto or one of "
                             f'{", ".join(PROVIDERS)}, or several with commas')
    return names


def open_engine(provider: str | Sequence[str], request: Request) -> Engine:
    """
    Open a session with the first provider that loads and runs the model.

    An engine that is built for it, or whose agreement with the CPU is measured, is taken from the
    cache where it is there and fits; `request.report` is told before and after what takes long.
    Raises ValueError for an unknown provider, NotServingError when none serves, ModelError for a
    file that none can run.
    """
    installed = onnxruntime.get_available_providers()
    names = [name for name in provider_names(provider) if PROVIDERS[name] in installed]
    failure: tuple[str, Exception] | None = None
    for name in names:
        try:
            return _open(name, request)
        except NotServingError as error:
            problem = str(error)
        except Exception as error:  # ONNX Runtime raises a class of its own per provider
            failure = name, error
            problem = f'{name} cannot run {request.path} ({first_line(error)})'
        if name != names[-1]:
            request.report(f'{problem}: the next provider is tried')
    if failure is not None:
        name, cause = failure
        if name == 'cpu':
            raise damaged(request.path, first_line(cause)) from cause
        raise ModelError(f'{name} cannot run {request.path} ({first_line(cause)})') from cause
    if names:
        raise NotServingError(problem)
    asked = provider if isinstance(provider, str) else ','.join(provider)
    raise NotServingError(f"provider '{asked}' does not load here; this onnxruntime has "
                          f'{", ".join(n for n, p in PROVIDERS.items() if p in installed)}')


def variants(name: str, *, threads: int, int8: bool, bf16: bool) -> list[Options]:
    """
    Return the options to try with a provider, the fastest first.

    `int8` says that the model is one of 8 bits, `bf16` that the processor computes in bfloat16.
    TensorRT computes in fp16, but for squares and their sums, which overflow there: L2 norms stay
    fp32. OpenVINO computes in bf16, whose range is that of fp32.
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
    Return what ONNX Runtime is given: providers in order of preference, with their options.

    `folder` is where TensorRT finds its engine, or writes it; None for nowhere.
    """
    own = dict(options)
    if name != 'tensorrt':
        return [(PROVIDERS[name], own)]
    if folder is not None:
        own |= {'trt_engine_cache_enable': '1', 'trt_engine_cache_path': str(folder),
                'trt_timing_cache_enable': '1', 'trt_timing_cache_path': str(folder)}
    return [(PROVIDERS[name], own), (PROVIDERS['cuda'], {})]  # CUDA runs what TensorRT cannot


def engine_key(name: str, request: Request, options: Mapping[str, str], *, device: str,
               library: str) -> dict[str, Any]:
    """Return all that an engine depends on: with any of it changed, it is another engine."""
    return {'format': FORMAT, 'provider': name, 'model': request.digest,
            'file': request.path.name,  # TensorRT names its engine after it
            'batch': request.batch,
            'onnxruntime': onnxruntime.__version__, 'library': library, 'device': device,
            'options': dict(sorted(options.items()))}


def engine_folder(cache: Path, key: Mapping[str, Any]) -> Path:
    """Return the folder of an engine: a name for people, and a digest of the whole key."""
    return cache / f'{key["provider"]}-{key["model"][:12]}-{_digest(key)}'


def read_manifest(folder: Path, key: Mapping[str, Any]) -> float | None:
    """
    Return the cosine of an engine in a folder; None unless it is whole and made for `key`.

    The manifest must hold the very key, and each file must be there with its SHA-256, and none
    besides.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
        if manifest['key'] != key or manifest['files'] != _digests(folder):
            return None
        return float(manifest['cosine'])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_manifest(folder: Path, key: Mapping[str, Any], cosine: float) -> None:
    """Say in a folder which engine its files are, and how far it agrees with the CPU."""
    manifest = {'key': dict(key), 'cosine': cosine, 'files': _digests(folder)}
    with whole_file(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=2) + '\n', encoding='utf-8')


def agreement(descriptors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return the worst cosine between rows (N,D) of unit norm; 0 when any is not finite."""
    cosines = np.sum(descriptors * reference, axis=1)
    return float(cosines.min()) if np.isfinite(cosines).all() else 0.0


def _open(name: str, request: Request) -> Engine:
    """Open a session with one provider. Raises NotServingError when it does not serve."""
    if name in ('cpu', 'cuda'):
        return Engine(_session(name, request, {}), name)
    # To ask the model takes 30 ms; OpenVINO need not be told what it would not cut off.
    int8 = ((name == 'tensorrt' or hardware.int8_saturates())
            and _facts(request).get('precision') == 'int8')
    if name == 'openvino' and int8:
        raise NotServingError(f'openvino would give wrong descriptors for {request.path}, of '
                              'int8: this processor has no VNNI')
    for options in variants(name, threads=request.threads or hardware.cores(), int8=int8,
                            bf16=hardware.computes_bf16()):
        engine = prepared(name, request, options)
        if engine is not None:
            return engine
    raise NotServingError(f'{name} gives other descriptors for {request.path} than the CPU does')


def prepared(name: str, request: Request, options: Options) -> Engine | None:
    """
    Return an engine from the cache, or built into it; None when it disagrees with the CPU.

    What the cache holds is used only with a manifest of this very key and of these very files;
    anything else is built anew. Where the cache cannot be written, nothing is kept.
    """
    largest = request.batch if name == 'tensorrt' else None
    device, library = ((hardware.gpu_name(), hardware.tensorrt_version()) if name == 'tensorrt'
                       else (hardware.processor(), onnxruntime.__version__))
    precision = _precision(options)
    key = engine_key(name, request, options, device=device, library=library)
    folder = engine_folder(request.cache, key)
    cosine = read_manifest(folder, key)
    if cosine is not None and cosine < LEAST_COSINE:
        return None  # it was built, and found out, before
    if cosine is not None:
        try:
            return Engine(_session(name, request, options, folder), name, precision, largest,
                          cosine, folder)
        except NotServingError:
            raise
        except Exception as error:  # the key cannot know all that an engine depends on
            request.report(f'{name}: {folder} does not load ({first_line(error)}): built anew')
    if folder.exists() and not (folder / MANIFEST).is_file():
        shutil.rmtree(folder, ignore_errors=True)
    begin = time.monotonic()
    kept: Path | None = folder
    if name == 'tensorrt':
        request.report(f'tensorrt: building the engine of {request.path.name} for {device}; this '
                       'takes minutes, once')
    try:
        with whole_directory(folder, MANIFEST, overwrite=True) as part:
            part.chmod(0o700)
            cosine = _build(name, request, options, part)
            write_manifest(part, key, cosine)
    except (VprError, OSError) as error:
        if isinstance(error, NotServingError):
            raise
        request.report(f'{name}: the engine is not kept ({error}): give engine_cache a folder '
                       'that can be written')
        cosine, kept = _build(name, request, options, None), None
    seconds = time.monotonic() - begin
    if cosine < LEAST_COSINE:
        request.report(f'{name}: not with {precision}, which gives other descriptors than '
                       f'the CPU (cosine {cosine:.4f})')
        return None
    request.report(f'{name}: engine of {request.path.name} with {precision} ready after '
                   f'{seconds:.1f} s, cosine {cosine:.5f} to the CPU, in {kept or "memory"}')
    return Engine(_session(name, request, options, kept), name, precision, largest, cosine, kept)


def _build(name: str, request: Request, options: Options, folder: Path | None) -> float:
    """Let an engine build itself into a folder; return how far it agrees with the CPU."""
    session = _session(name, request, options, folder)
    reference = _session('cpu', request, {})
    height, width = input_size(reference)
    pictures = _probes(height, width, request.batch if name == 'tensorrt' else 2)
    feed = {'image': pictures}
    return agreement(session.run(['descriptor'], feed)[0], reference.run(['descriptor'], feed)[0])


def _session(name: str, request: Request, options: Options, folder: Path | None = None
             ) -> onnxruntime.InferenceSession:
    """Open a session. Raises NotServingError when the provider leaves the model to another."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # a provider that fails to load says so by its absence
    alone = request.throughput and name == 'cpu'
    settings.intra_op_num_threads = 1 if alone else request.threads or hardware.cores()
    # Threads that spin while they wait take the cores from the rest of the robot: images that
    # arrive meanwhile are lost.
    settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if hardware.int8_saturates():
        # Of the CPU provider alone: int8 by another way, slower and exact.
        settings.add_session_config_entry('session.x64quantprecision', '1')
    if name == 'tensorrt':
        # With static shapes the engine is built here and not at the first frame.
        for axis, size in open_axes(request).items():
            settings.add_free_dimension_override_by_name(axis, size)
    # Without a fallback of its own, which would hide why a provider fails, at run time too.
    session = onnxruntime.InferenceSession(str(request.path), settings, enable_fallback=0,
                                           providers=provider_options(name, options, folder))
    # A provider whose libraries are missing is left out in silence, not refused.
    if session.get_providers()[0] != PROVIDERS[name]:
        raise NotServingError(f'{name} does not load here')
    return session


def input_size(session: onnxruntime.InferenceSession) -> tuple[int, int]:
    """
    Return the height and width of a model's input, of the graph or else of the metadata.

    Raises KeyError or ValueError where neither tells.
    """
    shape = session.get_inputs()[0].shape
    facts = session.get_modelmeta().custom_metadata_map
    height, width = shape[1:3] if len(shape) == 4 else (None, None)
    return (height if isinstance(height, int) else int(facts['input_height']),
            width if isinstance(width, int) else int(facts['input_width']))


def _plain(request: Request) -> onnxruntime.InferenceSession:
    """Open a session to ask about the model, without the time to make it fast."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    return onnxruntime.InferenceSession(str(request.path), settings,
                                        providers=[PROVIDERS['cpu']])


def _facts(request: Request) -> dict[str, str]:
    return dict(_plain(request).get_modelmeta().custom_metadata_map)


def open_axes(request: Request) -> dict[str, int]:
    """Return the size of each axis of the input that the graph leaves open, by its name."""
    session = _plain(request)
    sizes = (request.batch, *input_size(session))
    return {axis: size for axis, size in zip(session.get_inputs()[0].shape, sizes, strict=False)
            if isinstance(axis, str)}


def _probes(height: int, width: int, count: int) -> NDArray[np.uint8]:
    """Return pictures (N,height,width,3) with shades and edges, unlike each other."""
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


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
