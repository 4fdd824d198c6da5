"""
Encoder: an ONNX model that turns images into descriptors.

The model's input is `image`, uint8 (N,H,W,3) RGB, with any N or a fixed one of 1; its output
`descriptor` is float32 (N,D) of unit L2 norm; normalisation, aggregation and whitening are inside
the graph. engines.py runs it.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from pathlib import Path
import threading
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images
from vpr_ros.core.blank_images import check_content
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import packaged
from vpr_ros.core.files import user_cache
from vpr_ros.encoding import hardware
from vpr_ros.encoding.engine_cache import Request
from vpr_ros.encoding.engines import fixed_batch
from vpr_ros.encoding.engines import input_size
from vpr_ros.encoding.engines import open_engine
from vpr_ros.encoding.model_file import check_model_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.projection import Projection

    Floats = NDArray[np.float32]

MAX_BATCH = 32
"""Images per network call: a larger batch takes more memory and is no faster per image."""

log = logging.getLogger(__name__)


def bundled_model() -> Path:
    """Return the path of the model that comes with the package, or raise FileNotFoundError."""
    return packaged('models/resnet18_netvlad.onnx')


class Encoder:
    """
    Turns images into descriptors; safe to call from several threads.

    Attributes: `path`; `digest`, the SHA-256 of the file, which identifies the model; `provider`,
    the short name of the execution provider in use; `concurrency`, how many concurrent calls
    give the highest throughput; `height`, `width` of the input in pixels; `dimension` D of the
    descriptor; `metadata`, the model's metadata properties; `aggregate_size` A of the output
    `aggregate`, from which the model makes the descriptor, 0 for a model without; `space`, which
    says with what descriptors can be compared: the digest of the model, or one of it and the
    projection of a map, if it uses one.
    """

    def __init__(self, path: str | Path | None = None, provider: str | Sequence[str] = 'auto',
                 threads: int = 0, *, throughput: bool = False,
                 engine_cache: str | Path | None = None,
                 report: Callable[[str], None] | None = None) -> None:
        """
        Load a model, by default the one that comes with the package.

        `provider` is 'auto', a key of PROVIDERS, or several separated by commas, of which the
        first that runs the model is used. `threads` is the number of CPU threads, 0 for all cores.
        By default they share each call, for the lowest latency; with `throughput` each thread
        serves a call of its own. Engines that must be built are cached in `engine_cache`, by
        default in the user's cache directory; `report` gets a line of text before and after a step
        that may take minutes (by default it goes to the log).

        Raises FileNotFoundError, ValueError for an unknown provider, or ModelError for a file with
        other inputs or outputs and when no provider runs it.
        """
        self.path = Path(path) if path else bundled_model()
        self.digest = check_model_file(self.path)
        cache = Path(engine_cache) if engine_cache else user_cache() / 'engines'
        request = Request(self.path, self.digest, threads, cache, report or log.info, throughput)
        self.engine = open_engine(provider, request)
        self.provider = self.engine.provider
        # A second call uses the cores that the first leaves idle in its serial parts.
        self.concurrency = 2
        if throughput and self.provider == 'cpu':
            self.concurrency = threads or hardware.cores()
        self._session = self.engine.session
        self._max_batch = self.engine.max_batch or fixed_batch(self._session) or MAX_BATCH
        self._local = threading.local()
        self.metadata: dict[str, str] = dict(
            self._session.get_modelmeta().custom_metadata_map)
        self.aggregate_size = next((_columns(out) for out in self._session.get_outputs()
                                    if out.name == 'aggregate'), 0)
        self.space = self.digest
        self._combine: Callable[[Floats, Floats], Floats] | None = None
        self.height, self.width, self.dimension = self._check_contract()
        self._own_dimension = self.dimension

    def projected(self, projection: Projection | None) -> Encoder:
        """
        Return an encoder on the same engine that gives the descriptors of a map.

        With None they are the model's own. Raises ModelError when the model does not have the
        output `aggregate` that the projection needs.
        """
        if projection is None:
            return self if self._combine is None else self._giving('', None, 0)
        rows, columns = projection.matrix.shape
        if columns != self.aggregate_size:
            raise ModelError(f"{self.path} has no output 'aggregate' of {columns} values, which "
                             "the map's projection needs: export it again with `vpr export`, or "
                             'build the map with --projection model')
        return self._giving(f'+{projection.sha256}', projection.apply,
                            rows if projection.beside_model
                            else rows - self._own_dimension)

    def with_aggregate(self) -> Encoder:
        """Return an encoder on the same engine that gives (D + A,): descriptor, aggregate."""
        return self._giving('+aggregate', lambda *both: np.concatenate(both, axis=1),
                            self.aggregate_size)

    def _giving(self, space: str, combine: Callable[[Floats, Floats], Floats] | None, more: int
                ) -> Encoder:
        encoder = copy.copy(self)
        encoder.space = hashlib.sha256(f'{self.digest}{space}'.encode()).hexdigest() \
            if space else self.digest
        encoder._combine = combine
        encoder.dimension = self._own_dimension + more
        return encoder

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.height, self.width

    def encode(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Return the descriptor, float32 (D,) of unit norm, of a uint8 (H,W,3) RGB image.

        Raises ImageError when the image shows nothing (blank_images.py) or the descriptor is not
        finite.
        """
        out = None if rgb.shape[:2] == self.size else self._input_buffer()[0]
        descriptor: NDArray[np.float32] = self._run(self.fitted(rgb, out)[None])[0]
        return descriptor

    def fitted(self, rgb: NDArray[np.uint8], out: NDArray[np.uint8] | None = None
               ) -> NDArray[np.uint8]:
        """
        Return a uint8 (H,W,3) image in the size of the input, in `out` if given (images.resize).

        Raises ImageError when it shows nothing (blank_images.py).
        """
        fitted = images.resize(rgb, self.height, self.width, out=out)
        check_content(fitted)
        return fitted

    def encode_batch(self, batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """
        Return the descriptors, float32 (N,D), of N uint8 (H,W,3) RGB images of any size.

        Raises ImageError when one is not finite. That the images show something is left to the
        caller (`fitted`): of a batch, one can be left out.
        """
        resized = np.empty((len(batch), self.height, self.width, 3), np.uint8)
        for slot, rgb in zip(resized, batch, strict=True):
            images.resize(rgb, self.height, self.width, out=slot)
        return self._run(resized)

    def _input_buffer(self) -> NDArray[np.uint8]:
        """Return the calling thread's input buffer, uint8 (1,height,width,3)."""
        try:
            buffer: NDArray[np.uint8] = self._local.buffer
        except AttributeError:
            buffer = self._local.buffer = np.empty((1, self.height, self.width, 3), np.uint8)
        return buffer

    def _run(self, batch: NDArray[np.uint8]) -> Floats:
        parts = [self._run_engine(batch[i:i + self._max_batch])
                 for i in range(0, max(len(batch), 1), self._max_batch)]
        descriptors = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if not np.isfinite(descriptors).all():
            raise ImageError(f'{self.path} gives no finite descriptor for this image')
        return descriptors

    def _run_engine(self, batch: NDArray[np.uint8]) -> Floats:
        descriptors: Floats
        if self._combine is None:
            descriptors = self._session.run(['descriptor'], {'image': batch})[0]
            return descriptors
        return self._combine(*self._session.run(['descriptor', 'aggregate'], {'image': batch}))

    def _check_contract(self) -> tuple[int, int, int]:
        """Return the input's height and width and the descriptor's dimension, or raise."""
        inputs = [(i.name, i.type) for i in self._session.get_inputs()]
        outputs = [(o.name, o.type) for o in self._session.get_outputs()]
        if (inputs != [('image', 'tensor(uint8)')]
                or ('descriptor', 'tensor(float)') not in outputs):
            raise ModelError(
                f'{self.path} is not a model of this package: it takes {inputs} and gives '
                f"{outputs}, not uint8 'image' and float 'descriptor'")
        if fixed_batch(self._session) not in (None, 1):
            raise ModelError(f"{self.path}: input 'image' must be (N,H,W,3) or (1,H,W,3), not "
                             f'{self._session.get_inputs()[0].shape}: export it for any number of '
                             'images, or for one')
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


def _columns(output: Any) -> int:
    """Return A of an output float32 (N,A) of ONNX Runtime's session; 0 for one of another kind."""
    shape = output.shape
    matrix = output.type == 'tensor(float)' and len(shape) == 2 and isinstance(shape[1], int)
    return int(shape[1]) if matrix else 0
