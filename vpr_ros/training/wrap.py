"""
Other people's place-recognition networks as models of this project's contract.

A published ONNX takes normalised floats and names its ends as it likes; here it gets the ends that
the robot knows. Own networks go through export.py.
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAYOUTS = ('nchw', 'nhwc')
COLOURS = ('rgb', 'bgr')
OLDEST_OPSET = 13
"""The first in which what is added here, with its axes as inputs, exists."""
PREFIX = 'wrapped/'
LEAST_COSINE = 0.9999
LONGEST_SIDE = 4096


@dataclass(frozen=True)
class WrapReport:
    """What a network was wrapped to; `worst` is its cosine to the network fed by hand."""

    height: int
    width: int
    dimension: int
    worst: float

    def __str__(self) -> str:
        """Say it in one line."""
        return (f'{self.width}x{self.height} pixels to {self.dimension} values, worst cosine to '
                f'the network itself {self.worst:.6f}')


def wrap_model(third: str | Path, output: str | Path, *, mean: Sequence[float],
               std: Sequence[float], size: tuple[int, int] | None = None, layout: str = 'nchw',
               colour: str = 'rgb', scale: float = 255.0, output_name: str = '',
               name: str = '', license_name: str = '') -> WrapReport:
    """
    Write the network `third` (.onnx) to `output` as a model of the contract.

    What is written casts uint8 (N,H,W,3) RGB to float, gives (pixels / scale - mean) / std in the
    `layout` and `colour` order that the network was trained with (`mean` and `std` are in that
    order, too), runs it, and scales its output to unit L2 norm. `size` is (height,width), needed
    where the network leaves them open; `output_name` chooses among several outputs. A batch that
    the network fixes to 1 is freed where its graph allows it.

    The result is run beside the network itself on the same pictures. Raises FileNotFoundError,
    ValueError for options that make no sense, or ModelError, leaving no file, for what is not
    ONNX, takes no picture, gives no (N,D), or does not survive a free batch.
    """
    third = Path(third)
    _check_options(mean, std, size, layout, colour, scale)
    original = _load(third)
    name_in, shape = _picture_input(original, third)
    name_out = _vector_output(original, output_name, third)
    height, width = _picture_size(shape, size, layout, third)
    pixel_mean = scale * np.asarray(mean, np.float64)
    pixel_std = scale * np.asarray(std, np.float64)
    model = compose.add_prefix(_modern(original, third), PREFIX)
    _free_batch(model.graph, PREFIX + name_in, (height, width), layout)
    _add_ends(model.graph, PREFIX + name_in, PREFIX + name_out, (height, width), pixel_mean,
              pixel_std, nhwc=layout == 'nhwc', bgr=colour == 'bgr')
    facts = {'input_height': str(height), 'input_width': str(width),
             'backbone': name or third.stem, 'aggregation': 'as published',
             'training': f'not by this project; wrapped from {third.name}',
             'license': license_name or 'that of the published network'}
    helper.set_model_props(model, facts)
    pictures = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    fed = pictures[..., ::-1] if colour == 'bgr' else pictures
    floats = ((fed - pixel_mean) / pixel_std).astype(np.float32)
    if layout == 'nchw':
        floats = np.ascontiguousarray(floats.transpose(0, 3, 1, 2))
    expected = _describe_by_hand(original, third, name_in, name_out, floats)
    with whole_file(output) as part:
        try:
            onnx.save(model, part)
        except ValueError as error:
            raise ModelError(f'{third} does not fit into one ONNX file: 2 GB is the limit'
                             ) from error
        described = _describe(part, third, pictures)
        worst = float(np.sum(described * expected, axis=1).min())
        if not worst >= LEAST_COSINE:
            raise ModelError(f'{third}: not wrapped, a batch of pictures gives other descriptors '
                             f'than one at a time (cosine {worst:.4f}): export it with a free '
                             'batch dimension')
    return WrapReport(height, width, described.shape[1], worst)


def _check_options(mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None,
                   layout: str, colour: str, scale: float) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout '{layout}' is not known; use one of {', '.join(LAYOUTS)}")
    if colour not in COLOURS:
        raise ValueError(f"colour order '{colour}' is not known; use one of {', '.join(COLOURS)}")
    if len(mean) != 3 or len(std) != 3 or not np.isfinite([*mean, *std]).all():
        raise ValueError('mean and std are three finite numbers each, one for each channel')
    if min(std) <= 0 or not scale > 0 or not np.isfinite(scale):
        raise ValueError('std and scale are above 0')
    if size is not None and not 1 <= min(size) <= max(size) <= LONGEST_SIDE:
        raise ValueError(f'a size of {size[1]}x{size[0]} is out of range')


def _load(path: Path) -> onnx.ModelProto:
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


def _picture_input(model: onnx.ModelProto, path: Path) -> tuple[str, list[int | None]]:
    """Return the name of the only input and its shape, None where it is open."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f'{path} takes {len(inputs)} inputs '
                         f'({", ".join(value.name for value in inputs)}), not one picture')
    tensor = inputs[0].type.tensor_type
    shape = [d.dim_value if d.HasField('dim_value') and d.dim_value > 0 else None
             for d in tensor.shape.dim]
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or len(shape) != 4:
        kind = helper.tensor_dtype_to_string(tensor.elem_type).removeprefix('TensorProto.')
        raise ModelError(f"{path}: its input '{inputs[0].name}' is {kind.lower()} with "
                         f'{len(shape)} dimensions, not a batch of float pictures with 4')
    return inputs[0].name, shape


def _vector_output(model: onnx.ModelProto, wanted: str, path: Path) -> str:
    names = [value.name for value in model.graph.output]
    if wanted and wanted not in names:
        raise ModelError(f"{path} has no output '{wanted}'; it has {', '.join(names)}")
    if not wanted and len(names) != 1:
        raise ModelError(f'{path} has {len(names)} outputs: choose one with --output-name: '
                         f'{", ".join(names)}')
    chosen = next(v for v in model.graph.output if v.name == (wanted or names[0]))
    tensor = chosen.type.tensor_type
    if tensor.HasField('shape') and len(tensor.shape.dim) != 2:
        raise ModelError(f"{path}: its output '{chosen.name}' has {len(tensor.shape.dim)} "
                         'dimensions, not the 2 of (N,D): it is not a descriptor')
    return str(chosen.name)


def _picture_size(shape: Sequence[int | None], size: tuple[int, int] | None, layout: str,
                  path: Path) -> tuple[int, int]:
    channels, fixed = ((shape[1], shape[2:]) if layout == 'nchw' else (shape[3], shape[1:3]))
    if channels not in (3, None):
        other = 'nhwc' if layout == 'nchw' else 'nchw'
        raise ModelError(f'{path} takes {channels} channels in layout {layout}, not 3; is it '
                         f'{other}?')
    height, width = (side or (size[i] if size else None) for i, side in enumerate(fixed))
    if height is None or width is None:
        raise ModelError(f'{path} leaves the size of its pictures open: say it with --size WxH')
    if size is not None and (height, width) != tuple(size):
        raise ModelError(f'{path} takes {width}x{height} pixels only, not {size[1]}x{size[0]}')
    return height, width


def _modern(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
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


def _free_batch(graph: onnx.GraphProto, name_in: str, size: tuple[int, int], layout: str) -> None:
    """Make the batch free and the size fixed; the shapes in between are inferred anew."""
    value = next(value for value in graph.input if value.name == name_in)
    fixed = (3, *size) if layout == 'nchw' else (*size, 3)
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(name_in, kind, ['batch', *fixed]))
    del graph.value_info[:]
    # A view(1, ...) that was traced with a batch of 1: 0 stands for 'as it comes in'.
    shapes = {node.input[1] for node in graph.node if node.op_type == 'Reshape'}
    constants = {node.output[0]: attribute.t for node in graph.node if node.op_type == 'Constant'
                 for attribute in node.attribute if attribute.name == 'value'}
    constants |= {weight.name: weight for weight in graph.initializer}
    for name in shapes & constants.keys():
        shape = numpy_helper.to_array(constants[name]).copy()
        if shape.ndim == 1 and len(shape) > 1 and shape[0] == 1:
            shape[0] = 0
            constants[name].CopyFrom(numpy_helper.from_array(shape, constants[name].name))


def _add_ends(graph: onnx.GraphProto, name_in: str, name_out: str, size: tuple[int, int],
              mean: NDArray[np.float64], std: NDArray[np.float64], *, nhwc: bool, bgr: bool
              ) -> None:
    """Put the normalisation before the network and the L2 norm behind it."""
    kind = next(v for v in graph.input if v.name == name_in).type.tensor_type.elem_type
    constants = {'mean': mean.astype(np.float32), 'std': std.astype(np.float32),
                 'one': np.array([1], np.int64), 'tiny': np.array(1e-12, np.float32),
                 'flip': np.array([2, 1, 0], np.int64)}
    before = [helper.make_node('Cast', ['image'], ['pixels'], to=TensorProto.FLOAT)]
    if bgr:
        before.append(helper.make_node('Gather', ['pixels', 'flip'], ['flipped'], axis=3))
    before += [helper.make_node('Sub', [before[-1].output[0], 'mean'], ['centred']),
               helper.make_node('Div', ['centred', 'std'], ['normalised'])]
    if not nhwc:
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


def _describe_by_hand(model: onnx.ModelProto, path: Path, name_in: str, name_out: str,
                      floats: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the network as it was published on (N,...), one by one; return (N,D) of unit norm."""
    value = next(value for value in model.graph.input if value.name == name_in)
    if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
        floats = floats.astype(np.float16)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), _quiet(),
                                               providers=['CPUExecutionProvider'])
        rows = [session.run([name_out], {name_in: one[None]})[0] for one in floats]
    except Exception as error:  # ONNX Runtime raises a class of its own per cause
        raise ModelError(f'{path} does not run: {first_line(error)}') from error
    if any(row.ndim != 2 or len(row) != 1 for row in rows):
        raise ModelError(f"{path}: its output '{name_out}' has the shape {rows[0].shape} for one "
                         'picture, not (1,D): it is not a descriptor')
    vectors = np.concatenate(rows).astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or not norms.min() > 0:
        raise ModelError(f'{path} gives descriptors that are not finite, or are zero')
    return np.asarray(vectors / norms, np.float32)


def _describe(model: Path, path: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        return Encoder(model, provider='cpu').encode_batch(list(pictures))
    except ModelError as error:
        raise ModelError(f'{path}: not wrapped, it runs with one picture at a time only: export '
                         f'it with a free batch dimension ({first_line(error)})') from error


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options
