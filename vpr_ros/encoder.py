"""Encoder: an ONNX model of this project's contract, run by ONNX Runtime.

Contract: input `image` uint8 (N,H,W,3) RGB, output `descriptor` float32 (N,D) of unit L2 norm;
normalisation, aggregation and whitening are inside the graph. Training lives elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from vpr_ros import defaults
from vpr_ros import images
from vpr_ros.errors import first_line
from vpr_ros.errors import ImageError
from vpr_ros.errors import ModelError
from vpr_ros.files import packaged
from vpr_ros.files import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PROVIDERS = dict(zip(defaults.PROVIDERS, (
    'TensorrtExecutionProvider', 'CUDAExecutionProvider', 'OpenVINOExecutionProvider',
    'CPUExecutionProvider'), strict=True))
"""ONNX Runtime's names of the execution providers."""


def bundled_model() -> Path:
    """Return the model that the package carries. Raises FileNotFoundError where it does not."""
    return packaged('models/resnet18_netvlad.onnx')


class Encoder:
    """Turns pictures into descriptors.

    Attributes: `path`; `digest`, the file's SHA-256, which is the model's identity; `provider`,
    the short name of the execution provider that serves; `height`, `width` of the input in
    pixels; `dimension` D of the descriptor; `metadata`, the model's own properties.
    """

    def __init__(self, path: str | Path, provider: str = 'auto', threads: int = 0) -> None:
        """Load a model; `provider` is 'auto' or a key of PROVIDERS, `threads` 0 for all cores.

        'auto' takes the first provider that loads and runs the model; a provider asked for by
        name that does not is an error. Raises FileNotFoundError, or ModelError for a file that
        is not a model of the contract, ValueError for an unknown provider.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f'{path}: no such model file')
        self.digest = sha256(self.path)
        self._session, self.provider = self._load(provider, threads)
        self.metadata: dict[str, str] = dict(
            self._session.get_modelmeta().custom_metadata_map)
        self.height, self.width, self.dimension = self._check_contract()

    def encode(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the descriptor, float32 (D,) of unit norm, of a uint8 (H,W,3) picture.

        Raises ImageError when the model gives none that is finite.
        """
        descriptor: NDArray[np.float32] = self._run(
            images.resize(rgb, self.height, self.width)[None])[0]
        return descriptor

    def encode_batch(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return descriptors, float32 (N,D), of N pictures of any sizes, in one network call."""
        batch = np.empty((len(pictures), self.height, self.width, 3), np.uint8)
        for slot, picture in zip(batch, pictures, strict=True):
            slot[:] = images.resize(picture, self.height, self.width)
        return self._run(batch)

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        descriptors: NDArray[np.float32] = self._session.run(['descriptor'], {'image': batch})[0]
        if not np.isfinite(descriptors).all():
            raise ImageError(f'{self.path} gives no finite descriptor for this picture')
        return descriptors

    def _load(self, provider: str, threads: int
              ) -> tuple[onnxruntime.InferenceSession, str]:
        if provider != 'auto' and provider not in PROVIDERS:
            raise ValueError(f"provider '{provider}' is not known; use auto or one of "
                             f'{", ".join(PROVIDERS)}')
        installed = onnxruntime.get_available_providers()
        names = [name for name in (PROVIDERS if provider == 'auto' else [provider])
                 if PROVIDERS[name] in installed]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores from the rest of the robot: images that
        # arrive meanwhile are lost.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 4  # a provider that fails to load says so here, below
        failure: Exception | None = None
        for name in names:
            try:
                session = onnxruntime.InferenceSession(
                    str(self.path), options, providers=[PROVIDERS[name]])
            except Exception as error:  # ONNX Runtime raises a class of its own per provider
                failure = error
                continue
            # A provider whose libraries are missing is left out in silence, not refused.
            if session.get_providers()[0] == PROVIDERS[name]:
                return session, name
        if failure is not None:
            raise ModelError(f'{self.path} cannot be loaded: it is not an ONNX model, or it is '
                             f'damaged ({first_line(failure)})') from failure
        raise ModelError(f"provider '{provider}' does not load here; this onnxruntime has "
                         f'{", ".join(n for n, p in PROVIDERS.items() if p in installed)}')

    def _check_contract(self) -> tuple[int, int, int]:
        inputs = [(i.name, i.type) for i in self._session.get_inputs()]
        outputs = [(o.name, o.type) for o in self._session.get_outputs()]
        if (inputs != [('image', 'tensor(uint8)')]
                or ('descriptor', 'tensor(float)') not in outputs):
            raise ModelError(
                f'{self.path} is not a model of this package: it takes {inputs} and gives '
                f"{outputs}, not uint8 'image' and float 'descriptor'")
        shape = self._session.get_inputs()[0].shape
        height = shape[1] if len(shape) == 4 else None
        width = shape[2] if len(shape) == 4 else None
        try:
            height = height if isinstance(height, int) else int(self.metadata['input_height'])
            width = width if isinstance(width, int) else int(self.metadata['input_width'])
            probe = self._run(np.full((2, height, width, 3), 127, np.uint8))
        except ImageError as error:
            raise ModelError(f'{self.path}: its descriptors are not vectors of unit length'
                             ) from error
        except Exception as error:  # as above
            raise ModelError(f"{self.path}: input 'image' must be (N,H,W,3) and the metadata name "
                             f'input_height and input_width ({first_line(error)})') from error
        if probe.ndim != 2 or np.abs(np.linalg.norm(probe, axis=1) - 1).max() > 1e-3:
            raise ModelError(f'{self.path}: its descriptors are not vectors of unit length')
        return height, width, probe.shape[1]
