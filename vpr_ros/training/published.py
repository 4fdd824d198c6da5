"""
A published place-recognition network, an ONNX file: what it takes, what it gives, and running it.

wrap.py makes a model of this project's format of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import external_data_helper
from onnx import helper
from onnx import TensorProto
import onnxruntime
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.core.images import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.training.input_format import InputFormat

KINDS: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64, TensorProto.UINT8: np.uint8}
"""Types of images that a network may take; uint8 is not normalised, the network does that."""
LARGEST = 2 ** 31 - 1
"""Bytes in one ONNX file."""


@dataclass(frozen=True)
class Published:
    """
    A network of one image input and one chosen output, and the `expected` format of the input.

    `batch` is the number of images that it takes at a time, None for any.
    """

    path: Path
    model: onnx.ModelProto
    expected: InputFormat
    input_name: str
    output_name: str
    kind: int
    batch: int | None
    height: int
    width: int

    @property
    def quantises_batches(self) -> bool:
        """Whether it takes the range of 8-bit values from the whole batch, as dynamic int8."""
        return any(node.op_type.startswith('DynamicQuantize') for node in self.model.graph.node)

    @property
    def rounds(self) -> bool:
        """Whether it rounds to 8 bits on the way."""
        return any('Quantize' in node.op_type for node in self.model.graph.node)

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """
        Return the unit descriptors (N,D) of images uint8 (H,W,3) of any size, each on its own.

        Raises ModelError when the network does not run, or gives anything but vectors.
        """
        arranged = self.expected.arrange(
            np.stack([resize(image, self.height, self.width) for image in images]),
            KINDS[self.kind])
        count = self.batch or 1
        try:
            given = [self._session.run([self.output_name], {self.input_name: np.repeat(
                image[None], count, axis=0)})[0] for image in arranged]
        except Exception as error:  # ONNX Runtime raises a class of its own per cause
            raise ModelError(f'{self.path} does not run on {count} image(s) of {self.width}x'
                             f'{self.height} pixels: {first_line(error)}') from error
        shape = given[0].shape
        # An output squeezed too far has lost the axis of a batch of one.
        rows = [np.asarray(out[0] if count > 1 else out, np.float32) for out in given]
        if max(rows[0].shape, default=0) < rows[0].size or not rows[0].size or (
                count > 1 and shape[0] != count):
            raise ModelError(f"{self.path}: its output '{self.output_name}' has the shape {shape} "
                             f'for {count} image(s), not ({count},D): it is not a descriptor')
        vectors = np.stack([row.reshape(-1) for row in rows])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or not norms.min() > 0:
            raise ModelError(f'{self.path} gives descriptors that are not finite, or are zero')
        return np.asarray(vectors / norms, np.float32)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(str(self.path), options,
                                                providers=['CPUExecutionProvider'])
        except Exception as error:  # ONNX Runtime raises a class of its own per cause
            raise ModelError(f'{self.path} does not load: {first_line(error)}') from error


def read_published(path: Path, expected: InputFormat, output_name: str = '') -> Published:
    """
    Read a network that takes `expected`; `output_name` selects one of several outputs.

    Raises FileNotFoundError, or ModelError for a file that is not ONNX, takes no image of that
    format, or has several outputs.
    """
    model = _load_onnx(path)
    name, kind, (batch, *shape) = _image_input(model, path)
    if kind == TensorProto.UINT8 and not expected.leaves_pixels:
        raise ModelError(f"{path}: its input '{name}' is uint8, so it normalises pixels itself: "
                         'leave out --mean, --std and --scale')
    height, width = _image_size(shape, expected, path)
    return Published(path, model, expected, name, _chosen_output(model, output_name, path), kind,
                     batch, height, width)


def _load_onnx(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such model file')
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises a class of its own
        raise ModelError(f'{path} is not an ONNX model') from error
    if not model.graph.node:
        raise ModelError(f'{path} is not an ONNX model: it has no nodes')
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f'{path} keeps its weights in a file beside it, which is missing or '
                         f'damaged: copy that one, too ({first_line(error)})') from error
    if sum(len(weight.raw_data) for weight in model.graph.initializer) > LARGEST:
        raise ModelError(f'{path} does not fit into one ONNX file: 2 GB is the limit')
    return model


def _image_input(model: onnx.ModelProto, path: Path) -> tuple[str, int, list[int | None]]:
    """Return name, type and shape of the only input, with None for dynamic dimensions."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f'{path} takes {len(inputs)} inputs '
                         f'({", ".join(value.name for value in inputs)}), not one image')
    tensor = inputs[0].type.tensor_type
    dims = tensor.shape.dim
    if tensor.elem_type not in KINDS or len(dims) != 4:
        kind = helper.tensor_dtype_to_string(tensor.elem_type).removeprefix('TensorProto.')
        raise ModelError(f"{path}: its input '{inputs[0].name}' is {kind.lower()} with "
                         f'{len(dims)} dimensions, not a batch of float or uint8 images with 4')
    # dim_value is 0 where a dimension has a name or nothing.
    return (inputs[0].name, tensor.elem_type,
            [dim.dim_value if dim.dim_value > 0 else None for dim in dims])


def _chosen_output(model: onnx.ModelProto, wanted: str, path: Path) -> str:
    """Return the name of the only output, or the one called `wanted`."""
    names = [value.name for value in model.graph.output]
    if wanted and wanted not in names:
        raise ModelError(f"{path} has no output '{wanted}'; it has {', '.join(names)}")
    if not wanted and len(names) != 1:
        raise ModelError(f'{path} has {len(names)} outputs: choose one with --output-name: '
                         f'{", ".join(names)}')
    return wanted or names[0]


def _image_size(shape: Sequence[int | None], expected: InputFormat, path: Path
                ) -> tuple[int, int]:
    """Return height and width, from the `shape` of one image or else from `expected`."""
    channels, fixed = ((shape[0], shape[1:]) if expected.layout == 'nchw'
                       else (shape[2], shape[:2]))
    if channels not in (3, None):
        other = 'nhwc' if expected.layout == 'nchw' else 'nchw'
        raise ModelError(f'{path} takes {channels} channels in layout {expected.layout}, not 3; '
                         f'is it {other}?')
    wanted = expected.size or (None, None)
    height, width = fixed[0] or wanted[0], fixed[1] or wanted[1]
    if height is None or width is None:
        raise ModelError(f'{path} takes images of any size: choose one with --size WxH')
    if expected.size is not None and (height, width) != tuple(expected.size):
        raise ModelError(f'{path} takes {width}x{height} pixels only, not '
                         f'{expected.size[1]}x{expected.size[0]}')
    return height, width
