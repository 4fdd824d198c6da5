"""
Encoder: an ONNX model of this project's contract, and the descriptors it gives.

Contract: input `image` uint8 (N,H,W,3) RGB, output `descriptor` float32 (N,D) of unit L2 norm;
normalisation, aggregation and whitening are inside the graph. What runs it is engines.py's.
"""

from __future__ import annotations

import logging
from pathlib import Path
import threading
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import packaged
from vpr_ros.core.files import user_cache
from vpr_ros.encoding import hardware
from vpr_ros.encoding.engines import input_size
from vpr_ros.encoding.engines import open_engine
from vpr_ros.encoding.engines import Request
from vpr_ros.encoding.model_file import check_model_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray

LARGEST_BATCH = 32
"""Pictures in one network call at most: more take memory, and are no faster each."""

log = logging.getLogger(__name__)


def bundled_model() -> Path:
    """Return the model that the package carries. Raises FileNotFoundError where it does not."""
    return packaged('models/resnet18_netvlad.onnx')


class Encoder:
    """
    Turns pictures into descriptors; any number of threads may call it at once.

    Attributes: `path`; `digest`, the file's SHA-256, which is the model's identity; `provider`,
    the short name of the execution provider that serves; `at_once`, the calls in flight that keep
    the machine busy; `height`, `width` of the input in pixels; `dimension` D of the descriptor;
    `metadata`, the model's own properties.
    """

    def __init__(self, path: str | Path | None = None, provider: str | Sequence[str] = 'auto',
                 threads: int = 0, *, throughput: bool = False,
                 engine_cache: str | Path | None = None,
                 report: Callable[[str], None] | None = None) -> None:
        """
        Load a model; without a path, the one that the package carries.

        `provider` is 'auto', a key of PROVIDERS, or several, with commas: the first that loads and
        runs the model serves; if none does, that is an error. `threads` is for the CPU, 0 for all
        cores: they share each call, so that one image is done soonest, or with `throughput` each
        has a call of its own, so that many are. Engines that have to be
        built are kept in `engine_cache`, the user's cache directory if left out; `report` is told,
        in a line each, before and after what may take minutes (the log if left out). Raises
        FileNotFoundError, or ModelError for a file that is not a model of the contract, ValueError
        for an unknown provider.
        """
        self.path = Path(path) if path else bundled_model()
        self.digest = check_model_file(self.path)
        cache = Path(engine_cache) if engine_cache else user_cache() / 'engines'
        request = Request(self.path, self.digest, threads, cache, report or log.info, throughput)
        self.engine = open_engine(provider, request)
        self.provider = self.engine.provider
        # What of a call uses one core only, or none, leaves the rest to another.
        self.at_once = 2
        if throughput and self.provider == 'cpu':
            self.at_once = threads or hardware.cores()
        self._session = self.engine.session
        self._largest = self.engine.largest or LARGEST_BATCH
        self._own = threading.local()
        self.metadata: dict[str, str] = dict(
            self._session.get_modelmeta().custom_metadata_map)
        self.height, self.width, self.dimension = self._check_contract()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.height, self.width

    def encode(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Return the descriptor, float32 (D,) of unit norm, of a uint8 (H,W,3) picture.

        Raises ImageError when the model gives none that is finite.
        """
        if rgb.shape[:2] == (self.height, self.width):
            batch = rgb[None]
        else:
            batch = self._buffer()
            images.resize(rgb, self.height, self.width, out=batch[0])
        descriptor: NDArray[np.float32] = self._run(batch)[0]
        return descriptor

    def encode_batch(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return descriptors, float32 (N,D), of N pictures of any sizes."""
        batch = np.empty((len(pictures), self.height, self.width, 3), np.uint8)
        for slot, picture in zip(batch, pictures, strict=True):
            images.resize(picture, self.height, self.width, out=slot)
        return self._run(batch)

    def _buffer(self) -> NDArray[np.uint8]:
        """Return this thread's own picture (1,height,width,3) to scale into."""
        try:
            buffer: NDArray[np.uint8] = self._own.buffer
        except AttributeError:
            buffer = self._own.buffer = np.empty((1, self.height, self.width, 3), np.uint8)
        return buffer

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        descriptors: NDArray[np.float32]
        if len(batch) <= self._largest:
            descriptors = self._session.run(['descriptor'], {'image': batch})[0]
        else:
            descriptors = np.concatenate([
                self._session.run(['descriptor'], {'image': batch[i:i + self._largest]})[0]
                for i in range(0, len(batch), self._largest)])
        if not np.isfinite(descriptors).all():
            raise ImageError(f'{self.path} gives no finite descriptor for this picture')
        return descriptors

    def _check_contract(self) -> tuple[int, int, int]:
        inputs = [(i.name, i.type) for i in self._session.get_inputs()]
        outputs = [(o.name, o.type) for o in self._session.get_outputs()]
        if (inputs != [('image', 'tensor(uint8)')]
                or ('descriptor', 'tensor(float)') not in outputs):
            raise ModelError(
                f'{self.path} is not a model of this package: it takes {inputs} and gives '
                f"{outputs}, not uint8 'image' and float 'descriptor'")
        try:
            height, width = input_size(self._session)
            probe = self._run(np.full((2, height, width, 3), 127, np.uint8))
        except ImageError as error:
            raise ModelError(f'{self.path}: its descriptors are not vectors of unit length'
                             ) from error
        except Exception as error:  # ONNX Runtime raises a class of its own per provider
            raise ModelError(f"{self.path}: input 'image' must be (N,H,W,3) and the metadata name "
                             f'input_height and input_width ({first_line(error)})') from error
        if probe.ndim != 2 or np.abs(np.linalg.norm(probe, axis=1) - 1).max() > 1e-3:
            raise ModelError(f'{self.path}: its descriptors are not vectors of unit length')
        return height, width, probe.shape[1]
