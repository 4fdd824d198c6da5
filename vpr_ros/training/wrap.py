"""
Conversion of published place-recognition networks (ONNX) to models of this project's format.

A published network takes normalised floats, under names of its own. Here it gets the input and
the output that the Encoder expects. Networks trained by this project are exported by export.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import compose
from onnx import external_data_helper
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
from onnx import version_converter
import onnxruntime
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import whole_file
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.training.onnx_file import save

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAYOUTS = ('nchw', 'nhwc')
CHANNEL_ORDERS = ('rgb', 'bgr')
OLDEST_OPSET = 13
"""The first opset whose ReduceSum takes its axes as an input, as in the nodes added here."""
NODE_PREFIX = 'wrapped/'
MIN_WRAP_COSINE = 0.9999
MAX_SIDE = 4096


@dataclass(frozen=True)
class InputFormat:
    """
    The input that a published network was trained with: (pixels / scale - mean) / std.

    `mean` and `std` have one value per channel, in the order of `colour`, 'rgb' or 'bgr'. `layout`
    is 'nchw' or 'nhwc'. `size` is (height, width), needed if the network takes any size. Raises
    ValueError for invalid values.
    """

    mean: Sequence[float]
    std: Sequence[float]
    size: tuple[int, int] | None = None
    layout: str = 'nchw'
    colour: str = 'rgb'
    scale: float = 255.0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout '{self.layout}' is not known; use one of "
                             f'{", ".join(LAYOUTS)}')
        if self.colour not in CHANNEL_ORDERS:
            raise ValueError(f"colour order '{self.colour}' is not known; use one of "
                             f'{", ".join(CHANNEL_ORDERS)}')
        if (not len(self.mean) == len(self.std) == 3
                or not np.isfinite([self.mean, self.std]).all()):
            raise ValueError('mean and std are three finite numbers each, one for each channel')
        if min(self.std) <= 0 or not 0 < self.scale < np.inf:
            raise ValueError('std and scale are above 0')
        if self.size is not None and not 1 <= min(self.size) <= max(self.size) <= MAX_SIDE:
            raise ValueError(f'a size of {self.size[1]}x{self.size[0]} is out of range')

    @property
    def pixel_mean(self) -> NDArray[np.float64]:
        """Mean (3,) in grey levels."""
        return self.scale * np.asarray(self.mean, np.float64)

    @property
    def pixel_std(self) -> NDArray[np.float64]:
        """Return the standard deviation (3,) in grey levels."""
        return self.scale * np.asarray(self.std, np.float64)

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the shape of one image in this layout."""
        return (3, height, width) if self.layout == 'nchw' else (height, width, 3)

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return images uint8 (N,H,W,3) RGB as the network takes them."""
        ordered = images[..., ::-1] if self.colour == 'bgr' else images
        floats = ((ordered - self.pixel_mean) / self.pixel_std).astype(np.float32)
        return np.ascontiguousarray(floats.transpose(0, 3, 1, 2)
                                    if self.layout == 'nchw' else floats)


@dataclass(frozen=True)
class WrapReport:
    """Sizes of a wrapped network; `worst` is its lowest cosine to the original network."""

    height: int
    width: int
    dimension: int
    worst: float

    def __str__(self) -> str:
        """Return one line."""
        return (f'{self.width}x{self.height} pixels to {self.dimension} values, worst cosine to '
                f'the network itself {self.worst:.6f}')


def wrap_model(source: str | Path, output: str | Path, expected: InputFormat, *,
               output_name: str = '', name: str = '', license_name: str = '') -> WrapReport:
    """
    Write the network `source` (.onnx), which takes `expected`, to `output` in our model format.

    The written model takes uint8 (N,H,W,3) RGB, normalises it, runs the network, and scales its
    output to unit L2 norm. `output_name` selects one of several outputs; `name` and `license_name`
    are for the metadata. If the network has a fixed batch of 1, it is made dynamic where its graph
    allows it.

    The result is compared with the original network on the same images. Raises FileNotFoundError,
    or ModelError, leaving no file, for a file that is not ONNX, takes no image, has no output
    (N,D), or does not run with a dynamic batch.
    """
    source = Path(source)
    original = _load_onnx(source)
    name_in, shape = _image_input(original, source)
    name_out = _vector_output(original, output_name, source)
    height, width = _image_size(shape, expected, source)
    model = compose.add_prefix(_modern_opset(original, source), NODE_PREFIX)
    _set_input_shape(model.graph, NODE_PREFIX + name_in, expected.shape(height, width))
    _free_reshapes(model.graph)
    _add_ends(model.graph, NODE_PREFIX + name_in, NODE_PREFIX + name_out, (height, width),
              expected)
    helper.set_model_props(model, {
        'input_height': str(height), 'input_width': str(width),
        'backbone': name or source.stem, 'aggregation': 'as published',
        'training': f'not by this project; wrapped from {source.name}',
        'license': license_name or 'that of the published network'})
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    vectors = _run_original(original, source, name_in, name_out, expected.normalise(images))
    with whole_file(output) as part:
        try:
            save(model, part)
        except ValueError as error:
            raise ModelError(f'{source} does not fit into one ONNX file: 2 GB is the limit'
                             ) from error
        descriptors = _run_wrapped(part, source, images)
        worst = float(np.sum(descriptors * vectors, axis=1).min())
        if not worst >= MIN_WRAP_COSINE:
            raise ModelError(f'{source}: not wrapped, a batch of images gives other descriptors '
                             f'than one at a time (cosine {worst:.4f}): export it with a dynamic '
                             'batch dimension')
    return WrapReport(height, width, descriptors.shape[1], worst)


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
    return model


def _image_input(model: onnx.ModelProto, path: Path) -> tuple[str, list[int | None]]:
    """Return the name of the only input and its shape, with None for dynamic dimensions."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f'{path} takes {len(inputs)} inputs '
                         f'({", ".join(value.name for value in inputs)}), not one image')
    tensor = inputs[0].type.tensor_type
    dims = tensor.shape.dim
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or len(dims) != 4:
        kind = helper.tensor_dtype_to_string(tensor.elem_type).removeprefix('TensorProto.')
        raise ModelError(f"{path}: its input '{inputs[0].name}' is {kind.lower()} with "
                         f'{len(dims)} dimensions, not a batch of float images with 4')
    # dim_value is 0 where a dimension has a name or nothing.
    return inputs[0].name, [dim.dim_value if dim.dim_value > 0 else None for dim in dims]


def _vector_output(model: onnx.ModelProto, wanted: str, path: Path) -> str:
    """Return the name of the output (N,D): the only one, or the one called `wanted`."""
    outputs = {value.name: value for value in model.graph.output}
    if wanted and wanted not in outputs:
        raise ModelError(f"{path} has no output '{wanted}'; it has {', '.join(outputs)}")
    if not wanted and len(outputs) != 1:
        raise ModelError(f'{path} has {len(outputs)} outputs: choose one with --output-name: '
                         f'{", ".join(outputs)}')
    name = wanted or next(iter(outputs))
    tensor = outputs[name].type.tensor_type
    if tensor.HasField('shape') and len(tensor.shape.dim) != 2:
        raise ModelError(f"{path}: its output '{name}' has {len(tensor.shape.dim)} "
                         'dimensions, not the 2 of (N,D): it is not a descriptor')
    return name


def _image_size(shape: Sequence[int | None], expected: InputFormat, path: Path
                ) -> tuple[int, int]:
    """Return height and width, from the input's `shape` or else from `expected`."""
    channels, fixed = ((shape[1], shape[2:]) if expected.layout == 'nchw'
                       else (shape[3], shape[1:3]))
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


def _modern_opset(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Return a copy in OLDEST_OPSET or later."""
    version = next((o.version for o in model.opset_import if o.domain in ('', 'ai.onnx')), 1)
    if version < OLDEST_OPSET:
        try:
            return version_converter.convert_version(model, OLDEST_OPSET)
        except Exception as error:  # the converter raises whatever its C++ side throws
            raise ModelError(f'{path} is of opset {version}, and cannot be converted to '
                             f'{OLDEST_OPSET}: export it with a newer one ({first_line(error)})'
                             ) from error
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _set_input_shape(graph: onnx.GraphProto, name: str, shape: tuple[int, int, int]) -> None:
    """Give the input a dynamic batch of images of one shape, and forget all inferred shapes."""
    value = next(value for value in graph.input if value.name == name)
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(name, kind, ['batch', *shape]))
    del graph.value_info[:]


def _free_reshapes(graph: onnx.GraphProto) -> None:
    """Make reshapes take any batch, where they were traced with a batch of 1: view(1, ...)."""
    shapes = {node.input[1] for node in graph.node if node.op_type == 'Reshape'}
    constants = {node.output[0]: attribute.t for node in graph.node if node.op_type == 'Constant'
                 for attribute in node.attribute if attribute.name == 'value'}
    constants |= {weight.name: weight for weight in graph.initializer}
    for name in shapes & constants.keys():
        shape = numpy_helper.to_array(constants[name]).copy()
        if shape.ndim == 1 and len(shape) > 1 and shape[0] == 1:
            shape[0] = 0  # ONNX for 'as in the input'
            constants[name].CopyFrom(numpy_helper.from_array(shape, constants[name].name))


def _add_ends(graph: onnx.GraphProto, name_in: str, name_out: str, size: tuple[int, int],
              expected: InputFormat) -> None:
    """Put the normalisation before the network and the L2 norm after it."""
    kind = next(v for v in graph.input if v.name == name_in).type.tensor_type.elem_type
    constants = {'mean': expected.pixel_mean.astype(np.float32),
                 'std': expected.pixel_std.astype(np.float32),
                 'one': np.array([1], np.int64), 'tiny': np.array(1e-12, np.float32),
                 'flip': np.array([2, 1, 0], np.int64)}
    before = [helper.make_node('Cast', ['image'], ['pixels'], to=TensorProto.FLOAT)]
    if expected.colour == 'bgr':
        before.append(helper.make_node('Gather', ['pixels', 'flip'], ['flipped'], axis=3))
    before += [helper.make_node('Sub', [before[-1].output[0], 'mean'], ['centred']),
               helper.make_node('Div', ['centred', 'std'], ['normalised'])]
    if expected.layout == 'nchw':
        before.append(helper.make_node('Transpose', ['normalised'], ['planes'],
                                       perm=[0, 3, 1, 2]))
    before.append(helper.make_node('Cast', [before[-1].output[0]], [name_in], to=kind))
    after = [helper.make_node('Cast', [name_out], ['vector'], to=TensorProto.FLOAT),
             helper.make_node('Mul', ['vector', 'vector'], ['squares']),
             helper.make_node('ReduceSum', ['squares', 'one'], ['square'], keepdims=1),
             helper.make_node('Sqrt', ['square'], ['norm']),
             helper.make_node('Max', ['norm', 'tiny'], ['length']),
             helper.make_node('Div', ['vector', 'length'], ['descriptor'])]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {value for node in nodes for value in node.input}
    graph.initializer.extend(numpy_helper.from_array(value, key)
                             for key, value in constants.items() if key in used)
    weights = [value for value in graph.input if value.name != name_in]
    del graph.input[:]
    graph.input.extend([helper.make_tensor_value_info('image', TensorProto.UINT8,
                                                      ['batch', *size, 3]), *weights])
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info('descriptor', TensorProto.FLOAT, ['batch', None]))


def _run_original(model: onnx.ModelProto, path: Path, name_in: str, name_out: str,
                  floats: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the published network on normalised images, one by one; return (N,D) of unit norm."""
    value = next(value for value in model.graph.input if value.name == name_in)
    if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
        floats = floats.astype(np.float16)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                               providers=['CPUExecutionProvider'])
        rows = [session.run([name_out], {name_in: image[None]})[0] for image in floats]
    except Exception as error:  # ONNX Runtime raises a class of its own per cause
        raise ModelError(f'{path} does not run: {first_line(error)}') from error
    if any(row.ndim != 2 or len(row) != 1 for row in rows):
        raise ModelError(f"{path}: its output '{name_out}' has the shape {rows[0].shape} for one "
                         'image, not (1,D): it is not a descriptor')
    vectors = np.concatenate(rows).astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or not norms.min() > 0:
        raise ModelError(f'{path} gives descriptors that are not finite, or are zero')
    return np.asarray(vectors / norms, np.float32)


def _run_wrapped(model: Path, path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        return Encoder(model, provider='cpu').encode_batch(list(images))
    except ModelError as error:
        raise ModelError(f'{path}: not wrapped, it runs with one image at a time only: export it '
                         f'with a dynamic batch dimension ({first_line(error)})') from error
