"""
What the visual words of a NetVLAD network stand for, read from its ONNX file without torch.

Descriptors of whole images are drawn by embedding.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
import onnxruntime
from vpr_ros.core import images
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder

    Frames = Sequence[NDArray[np.uint8]]

PATCHES_PER_WORD = 9
"""Image patches drawn of each word."""

_BATCH = 16
_PATCH = 3
"""Width and height of a patch, in cells of the network's grid."""

_MAX_WORDS = 40
_MIN_ENERGY = 1e-3


@dataclass(frozen=True)
class VisualWords:
    """
    How the K words of a network describe N images, on its grid of h x w cells.

    `assignment` float32 (N,K,h,w): the soft assignment of each cell to the words, which adds up to
    1; `energy` float32 (N,K): the squared norm of each word's summed residuals, before
    intra-normalisation.
    """

    assignment: NDArray[np.float32]
    energy: NDArray[np.float32]

    @property
    def unused(self) -> NDArray[np.int64]:
        """Return the words that dominate no cell of any image."""
        count = self.assignment.shape[1]
        return np.setdiff1d(np.arange(count), self.assignment.argmax(axis=1))


def assign_words(encoder: Encoder, frames: Frames) -> VisualWords:
    """
    Return how the words of an encoder's model describe some images uint8 (H,W,3) RGB.

    Raises ModelError for a model without NetVLAD (Arandjelovic et al. 2016) as `vpr export` writes
    it.
    """
    model = onnx.load(str(encoder.path), load_external_data=False)
    tensors = _netvlad_tensors(model.graph)
    if tensors is None:
        raise ModelError(f'{encoder.path} has no visual words: its aggregation is not NetVLAD in '
                         'fp32 or fp16')
    session = _open_with_outputs(model, tensors)
    resized = np.stack([images.resize(frame, encoder.height, encoder.width) for frame in frames])
    assignments, energies = [], []
    for begin in range(0, len(resized), _BATCH):
        assignment, cells, residuals = session.run(tensors,
                                                   {'image': resized[begin:begin + _BATCH]})
        assignments.append(assignment.reshape(cells.shape))
        energies.append(np.square(residuals, dtype=np.float32).sum(axis=2))
    return VisualWords(np.concatenate(assignments).astype(np.float32), np.concatenate(energies))


def _netvlad_tensors(graph: onnx.GraphProto) -> tuple[str, str, str] | None:
    """
    Return the names of NetVLAD's soft assignment, (N,K,h*w), and of two tensors around it.

    These are the scores on the grid, (N,K,h,w), and the residuals, (N,K,C). None where the graph
    has no NetVLAD: scores -> Reshape -> Softmax -> MatMul with the features -> Sub of the centres.
    """
    made_by = {name: node for node in graph.node for name in node.output}

    def input_of(node: onnx.NodeProto | None, kind: str) -> onnx.NodeProto | None:
        source = made_by.get(node.input[0]) if node is not None else None
        return source if source is not None and source.op_type == kind else None

    for node in graph.node:
        softmax = input_of(input_of(node, 'MatMul'), 'Softmax') if node.op_type == 'Sub' else None
        reshape = input_of(softmax, 'Reshape')
        if softmax is not None and reshape is not None:
            return softmax.output[0], reshape.input[0], node.output[0]
    return None


def first_filters(encoder: Encoder) -> NDArray[np.float32] | None:
    """Return the weights (F,3,a,b) of a model's first layer; None if its input is not RGB."""
    model = onnx.load(str(encoder.path), load_external_data=False)
    first = next((node.input[1] for node in model.graph.node if node.op_type == 'Conv'), '')
    if not first:
        return None
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    if first in initializers:
        weights = numpy_helper.to_array(initializers[first])
    else:  # stored in fewer bits, and converted in the graph
        blank = np.zeros((1, encoder.height, encoder.width, 3), np.uint8)
        weights = _open_with_outputs(model, [first]).run([first], {'image': blank})[0]
    return np.asarray(weights, np.float32) if weights.shape[1] == 3 else None


def _open_with_outputs(model: onnx.ModelProto, tensors: Sequence[str]
                       ) -> onnxruntime.InferenceSession:
    """Return a session of a model that outputs some of its inner tensors, too."""
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    return onnxruntime.InferenceSession(model.SerializeToString(),
                                        providers=['CPUExecutionProvider'])


def strongest_cells(words: VisualWords, word: int) -> list[tuple[int, int, int]]:
    """
    Return the cells (image, row, column) that a word is assigned to most, best first.

    One cell of each image, and PATCHES_PER_WORD of them at most.
    """
    share = words.assignment[:, word].reshape(len(words.assignment), -1)
    best = np.argsort(-share.max(axis=1), kind='stable')[:PATCHES_PER_WORD]
    width = words.assignment.shape[3]
    return [(int(n), *divmod(int(share[n].argmax()), width)) for n in best]


def draw_words(path: str | Path, words: VisualWords, frames: Frames) -> None:
    """Draw the nine strongest patches of each word; at most 40 words, by falling energy."""
    from matplotlib.figure import Figure
    order = np.argsort(-words.energy.mean(axis=0), kind='stable')[:_MAX_WORDS]
    columns = 8
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.75 * rows), layout='constrained')
    for axes, word in zip(np.ravel(figure.subplots(rows, columns, squeeze=False)), order,
                          strict=False):
        patches = [_patch(frames[n], row, column, words.assignment.shape[2:])
                   for n, row, column in strongest_cells(words, int(word))]
        axes.imshow(_mosaic(patches))
        axes.set_title(f'word {word}', fontsize=8)
    _save_without_axes(figure, path)


def draw_assignment(path: str | Path, words: VisualWords, frames: Frames, labels: Sequence[str],
                    chosen: Sequence[int]) -> None:
    """Draw the `chosen` images, and beside each the dominant word of each of its cells."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.4 * len(chosen)), layout='constrained')
    grid = figure.subplots(len(chosen), 2, squeeze=False)
    colours = _palette(words.assignment.shape[1])
    for (plain, covered), number in zip(grid, chosen, strict=True):
        image, share = frames[number], words.assignment[number]
        height, width = image.shape[:2]
        plain.imshow(image)
        plain.set_title(labels[number], fontsize=9)
        covered.imshow(image)
        covered.imshow(colours[share.argmax(axis=0)], alpha=0.2 + 0.5 * share.max(axis=0),
                       extent=(0, width, height, 0), interpolation='nearest')
        for row, column in np.ndindex(share.shape[1:]):
            covered.text((column + 0.5) * width / share.shape[2],
                         (row + 0.5) * height / share.shape[1],
                         str(share[:, row, column].argmax()), fontsize=6, color='white',
                         ha='center', va='center')
        covered.set_title('dominant word of each cell', fontsize=9)
    _save_without_axes(figure, path)


def draw_filters(path: str | Path, weights: NDArray[np.float32]) -> None:
    """Draw first-layer filters (F,3,a,b), each scaled from its lowest to its highest weight."""
    from matplotlib.figure import Figure
    filters = weights.transpose(0, 2, 3, 1)
    low = filters.min(axis=(1, 2, 3), keepdims=True)
    shown = (filters - low) / np.maximum(np.ptp(filters, axis=(1, 2, 3), keepdims=True), 1e-9)
    columns = 16
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(0.6 * columns, 0.62 * rows), layout='constrained')
    for axes, pixels in zip(np.ravel(figure.subplots(rows, columns, squeeze=False)), shown,
                            strict=False):
        axes.imshow(pixels)
    _save_without_axes(figure, path)


def draw_energy(path: str | Path, words: VisualWords) -> None:
    """
    Draw the residual energy of each word: the middle half of the images as a bar, 90 % as a line.

    Words that dominate no cell are marked.
    """
    from matplotlib.figure import Figure
    order = np.argsort(-np.median(words.energy, axis=0), kind='stable')
    low, quarter, middle, upper, high = np.maximum(np.percentile(
        words.energy[:, order], (5, 25, 50, 75, 95), axis=0), _MIN_ENERGY)
    figure = Figure(figsize=(max(8, 0.25 * len(order)), 4), layout='constrained')
    axes = figure.subplots()
    ticks = np.arange(len(order))
    axes.vlines(ticks, low, high, color='0.6', linewidth=1)
    unused = np.isin(order, words.unused)
    axes.bar(ticks, upper - quarter, bottom=quarter,
             color=np.where(unused, '#D55E00', '#0072B2'))
    axes.plot(ticks, middle, '_', color='black')
    axes.set_xticks(ticks, [str(word) for word in order], fontsize=7, rotation=90)
    axes.set_xlabel('word')
    axes.set_yscale('log')
    axes.set_ylabel('residual energy')
    axes.set_title(f'Residual energy of each word per image; {unused.sum()} of {len(order)} words '
                   'dominate no cell (orange)', fontsize=10)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)


def _patch(image: NDArray[np.uint8], row: int, column: int, grid: tuple[int, ...]
           ) -> NDArray[np.uint8]:
    """Return the patch (48,48,3) around a cell of the grid (h,w), shifted to lie in the image."""
    spans = []
    for cell, cells, length in zip((row, column), grid, image.shape[:2], strict=True):
        size = max(1, min(length, round(_PATCH * length / cells)))
        begin = round((cell + 0.5) * length / cells - size / 2)
        begin = min(max(begin, 0), length - size)
        spans.append(slice(begin, begin + size))
    return images.resize(image[spans[0], spans[1]], 48, 48)


def _mosaic(patches: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return up to nine patches (48,48,3), three in a row, on white."""
    whole = np.full((3 * 50 - 2, 3 * 50 - 2, 3), 255, np.uint8)
    for number, patch in enumerate(patches):
        top, left = 50 * (number // 3), 50 * (number % 3)
        whole[top:top + 48, left:left + 48] = patch
    return whole


def _palette(count: int) -> NDArray[np.float64]:
    """Return `count` RGB colours (count,3); consecutive ones differ clearly."""
    from matplotlib.colors import hsv_to_rgb
    hues = (np.arange(count) * 0.618034) % 1.0
    return np.asarray(hsv_to_rgb(np.stack([hues, np.full(count, 0.75), 0.6 + 0.35 * (
        np.arange(count) % 2)], axis=1)))


def _save_without_axes(figure: object, path: str | Path) -> None:
    from matplotlib.figure import Figure
    assert isinstance(figure, Figure)
    axes: Axes
    for axes in figure.axes:
        axes.set_axis_off()
    with whole_file(path) as part:
        figure.savefig(part, dpi=90)
