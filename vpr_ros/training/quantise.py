"""
8-bit computation in chosen nodes of an ONNX graph.

export.py chooses the nodes, and checks whether the descriptors stay good enough.
"""

from __future__ import annotations

from pathlib import Path
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
from onnx import TensorProto
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization import quantize_static
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterator

    from numpy.typing import NDArray

CALIBRATION_BATCH = 8
STEPS = 127
"""Largest 8-bit weight, on either side of zero."""
STEP_SHARES = np.linspace(0.4, 1.0, 31)
"""Steps that are tried for a channel, relative to the one that clips no weight."""
NEGLIGIBLE = 1e-6
"""A weight too small to change any output, even an 8-bit one."""
EIGHT_BIT = ('Conv', 'Relu', 'Clip', 'MaxPool', 'AveragePool', 'GlobalAveragePool', 'Add', 'Mul',
             'Concat', 'HardSigmoid')
"""Operators that ONNX Runtime computes in 8 bits, so that chains of them stay in 8 bits."""


def to_int8(model: onnx.ModelProto, names: Collection[str], images: NDArray[np.uint8]
            ) -> onnx.ModelProto:
    """
    Return a copy whose nodes called `names` compute in 8 bits where ONNX Runtime can: static QDQ.

    The range of each activation is the mean over batches of its extremes on `images` (M,H,W,3):
    the extremes of a single odd image would make the steps coarse for all. Activations are
    unsigned and weights signed, per channel, which x86 multiplies fastest.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    fit_weights(copied, names, images)
    add_pre_process_metadata(copied)  # its purpose, folding BatchNorm, is done before the export
    with tempfile.TemporaryDirectory(prefix='vpr_ros-') as folder:
        path = Path(folder) / 'int8.onnx'
        quantize_static(copied, path, _Calibration(images, _batch(model)),
                        quant_format=QuantFormat.QDQ, op_types_to_quantize=list(EIGHT_BIT),
                        nodes_to_quantize=sorted(names),
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        per_channel=True, extra_options={'CalibMovingAverage': True})
        return onnx.load(path)


def fit_weights(model: onnx.ModelProto, names: Collection[str], images: NDArray[np.uint8]) -> None:
    """
    Round the weights of the convolutions called `names` to the grids of 8-bit weights.

    Each output channel gets the step with the least squared error, which clips its largest
    weights. Each of its kernels keeps its sum, to half a step unless it was clipped, because its
    inputs change little from tap to tap. What still changes in the mean output over `images`
    (M,H,W,3) is added to the bias (Nagel et al., ICCV 2019). Changes `model`.
    """
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == 'Conv' and node.name in names
                    and node.input[1] in weights]
    means = _channel_means(model, {node.input[0] for node in convolutions}, images)
    for node in convolutions:
        weight = numpy_helper.to_array(weights[node.input[1]])  # (O,I,h,w), I per group
        rounded = _on_grid(weight)
        error = (weight - rounded).sum(axis=(2, 3))  # (O,I)
        groups = next((a.i for a in node.attribute if a.name == 'group'), 1)
        # (C,) -> (G,I) -> (O,I): the mean inputs of each output channel
        inputs = means[node.input[0]].reshape(groups, -1).repeat(len(weight) // groups, axis=0)
        shift = (error * inputs).sum(axis=1)
        weights[node.input[1]].CopyFrom(_float_weight(rounded, node.input[1]))
        if len(node.input) < 3:
            node.input.append(f'{node.name}.bias')
            graph.initializer.append(_float_weight(shift, node.input[2]))
        else:
            bias = weights[node.input[2]]
            bias.CopyFrom(_float_weight(shift + numpy_helper.to_array(bias), node.input[2]))


def _on_grid(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Round (O,I,h,w) to multiples of one step per output channel, at most STEPS of them."""
    taps = weight.reshape(*weight.shape[:2], -1).astype(np.float64)  # (O,I,hw)
    unclipped = np.maximum(np.abs(taps).max(axis=(1, 2), keepdims=True), 1e-12) / STEPS
    steps = STEP_SHARES[:, None, None, None] * unclipped  # (shares,O,1,1)
    errors = np.stack([np.square(_round_clipped(taps / step) * step - taps).sum(axis=(1, 2))
                       for step in steps])  # (shares,O)
    step = np.take_along_axis(steps, errors.argmin(axis=0)[None, :, None, None], axis=0)[0]
    rounded = _round_clipped(taps / step)
    lost = taps / step - rounded
    missing = np.round(lost.sum(axis=2, keepdims=True))  # steps that the sum of a kernel lacks
    # Given to the taps that were nearest to being rounded the other way, and are not clipped.
    gain = np.where(np.abs(rounded) < STEPS, lost * np.sign(missing), -np.inf)
    rank = np.argsort(np.argsort(-gain, axis=2), axis=2)
    rounded += np.sign(missing) * (rank < np.abs(missing))
    fitted = np.clip(rounded, -STEPS, STEPS) * step
    # For a channel of zeros ONNX Runtime would choose a step of 1, and round the bias to integers.
    fitted[~fitted.any(axis=(1, 2)), 0, 0] = NEGLIGIBLE
    return fitted.reshape(weight.shape)


def _round_clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.round(values), -STEPS, STEPS)


def _channel_means(model: onnx.ModelProto, values: Collection[str], images: NDArray[np.uint8]
                   ) -> dict[str, NDArray[np.float32]]:
    """Return the mean (C,) over `images` of each of `values` (N,C,h,w) in the graph."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = sorted(values)
    del probe.graph.output[:]
    for name in names:
        mean = f'{name}.mean'
        probe.graph.node.append(
            helper.make_node('GlobalAveragePool', [name], [mean], name=mean))  # in any opset
        probe.graph.output.append(helper.make_tensor_value_info(mean, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(),
                                           providers=['CPUExecutionProvider'])
    sums: list[NDArray[np.float32]] = [np.zeros(1, np.float32)] * len(names)
    for batch in _calibration_batches(images, 'weights', _batch(model)):
        means = session.run(None, {'image': batch})  # (n,C,1,1)
        sums = [total + mean.sum(axis=(0, 2, 3))
                for total, mean in zip(sums, means, strict=True)]
    return {name: np.asarray(total / len(images), np.float32)
            for name, total in zip(names, sums, strict=True)}


def _batch(model: onnx.ModelProto) -> int:
    """Return how many images a model takes at a time: CALIBRATION_BATCH if it takes any number."""
    return model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or CALIBRATION_BATCH


def _calibration_batches(images: NDArray[np.uint8], title: str, count: int
                         ) -> Iterator[NDArray[np.uint8]]:
    for start in tqdm(range(0, len(images), count), desc=title, unit='batch', leave=False,
                      disable=None):
        yield images[start:start + count]


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Images (M,H,W,3) through the interface of ONNX Runtime's quantisation."""

    def __init__(self, images: NDArray[np.uint8], count: int) -> None:
        self._batches = _calibration_batches(images, 'calibration', count)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {'image': batch}


def _float_weight(values: NDArray[np.floating], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)
