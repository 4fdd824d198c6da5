"""
Inside a NetVLAD network, seen through its ONNX file: what its visual words stand for.

Nothing here needs torch. What descriptors of whole pictures look like is in offline/embedding.py.
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

    Pictures = Sequence[NDArray[np.uint8]]

STRONGEST = 9
"""Patches shown of each word."""

_BATCH = 16
_PATCH = 3
"""Cells of the network's grid that a patch is wide and high."""

_DRAWN = 40
_LEAST_ENERGY = 1e-3


@dataclass(frozen=True)
class Words:
    """
    What the K words of a network make of N pictures, on its grid of h x w cells.

    `assignment` float32 (N,K,h,w): how much of each cell's local descriptor goes to each word, in
    all 1; `energy` float32 (N,K): the squared length of what each word sums up, before words are
    brought to the same length (intra-normalisation).
    """

    assignment: NDArray[np.float32]
    energy: NDArray[np.float32]

    @property
    def unused(self) -> NDArray[np.int64]:
        """The words that have the most of no cell of any picture."""
        count = self.assignment.shape[1]
        return np.setdiff1d(np.arange(count), self.assignment.argmax(axis=1))


def look_inside(encoder: Encoder, pictures: Pictures) -> Words:
    """
    Return what the words of an encoder's model make of some pictures uint8 (H,W,3).

    Raises ModelError for a model without NetVLAD (Arandjelovic et al. 2016) as `vpr export` writes
    it.
    """
    model = onnx.load(str(encoder.path), load_external_data=False)
    made_by = {name: node for node in model.graph.node for name in node.output}

    def before(node: onnx.NodeProto | None, kind: str) -> onnx.NodeProto | None:
        own = made_by.get(node.input[0]) if node is not None else None
        return own if own is not None and own.op_type == kind else None
    residual = next((node for node in model.graph.node if node.op_type == 'Sub'
                     and before(before(node, 'MatMul'), 'Softmax') is not None), None)
    soft = before(before(residual, 'MatMul'), 'Softmax')
    shaped = before(soft, 'Reshape')
    if residual is None or soft is None or shaped is None:
        raise ModelError(f'{encoder.path} has no visual words: its aggregation is not NetVLAD in '
                         'fp32 or fp16')
    wanted = [soft.output[0], shaped.input[0], residual.output[0]]
    session = _opened(model, wanted)
    resized = np.stack([images.resize(picture, encoder.height, encoder.width)
                        for picture in pictures])
    assignments, energies = [], []
    for begin in range(0, len(resized), _BATCH):
        assignment, cells, left = session.run(wanted, {'image': resized[begin:begin + _BATCH]})
        assignments.append(assignment.reshape(cells.shape))
        energies.append(np.square(left, dtype=np.float32).sum(axis=2))
    return Words(np.concatenate(assignments).astype(np.float32), np.concatenate(energies))


def first_filters(encoder: Encoder) -> NDArray[np.float32] | None:
    """Return the weights (F,3,a,b) of a model's first layer; None where it sees no colours."""
    model = onnx.load(str(encoder.path), load_external_data=False)
    first = next((node.input[1] for node in model.graph.node if node.op_type == 'Conv'), '')
    if not first:
        return None
    stored = {one.name: one for one in model.graph.initializer}
    if first in stored:
        weights = numpy_helper.to_array(stored[first])
    else:  # kept in fewer bits, and converted in the graph
        blank = np.zeros((1, encoder.height, encoder.width, 3), np.uint8)
        weights = _opened(model, [first]).run([first], {'image': blank})[0]
    return np.asarray(weights, np.float32) if weights.shape[1] == 3 else None


def _opened(model: onnx.ModelProto, wanted: Sequence[str]) -> onnxruntime.InferenceSession:
    """Return a session of a model that also gives some of its inner values."""
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    return onnxruntime.InferenceSession(model.SerializeToString(),
                                        providers=['CPUExecutionProvider'])


def strongest(words: Words, word: int) -> list[tuple[int, int, int]]:
    """
    Return where a word is strongest: (picture, row, column), one for each picture, best first.

    STRONGEST at most.
    """
    own = words.assignment[:, word].reshape(len(words.assignment), -1)
    best = np.argsort(-own.max(axis=1), kind='stable')[:STRONGEST]
    width = words.assignment.shape[3]
    return [(int(n), *divmod(int(own[n].argmax()), width)) for n in best]


def draw_words(path: str | Path, words: Words, pictures: Pictures) -> None:
    """Draw each word's nine strongest patches; at most 40 words, the most energetic first."""
    from matplotlib.figure import Figure
    order = np.argsort(-words.energy.mean(axis=0), kind='stable')[:_DRAWN]
    columns = 8
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.75 * rows), layout='constrained')
    for axes, word in zip(np.ravel(figure.subplots(rows, columns, squeeze=False)), order,
                          strict=False):
        patches = [_patch(pictures[n], row, column, words.assignment.shape[2:])
                   for n, row, column in strongest(words, int(word))]
        axes.imshow(_mosaic(patches))
        axes.set_title(f'word {word}', fontsize=8)
    _save(figure, path)


def draw_assignment(path: str | Path, words: Words, pictures: Pictures, labels: Sequence[str],
                    chosen: Sequence[int]) -> None:
    """Draw some pictures, and beside each which word has the most of each of its cells."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.4 * len(chosen)), layout='constrained')
    grid = figure.subplots(len(chosen), 2, squeeze=False)
    colours = _palette(words.assignment.shape[1])
    for (plain, covered), number in zip(grid, chosen, strict=True):
        picture, share = pictures[number], words.assignment[number]
        plain.imshow(picture)
        plain.set_title(labels[number], fontsize=9)
        covered.imshow(picture)
        covered.imshow(colours[share.argmax(axis=0)], alpha=0.2 + 0.5 * share.max(axis=0),
                       extent=(0, picture.shape[1], picture.shape[0], 0), interpolation='nearest')
        for row, column in np.ndindex(share.shape[1:]):
            covered.text((column + 0.5) * picture.shape[1] / share.shape[2],
                         (row + 0.5) * picture.shape[0] / share.shape[1],
                         str(share[:, row, column].argmax()), fontsize=6, color='white',
                         ha='center', va='center')
        covered.set_title('the word that has the most of each cell', fontsize=9)
    _save(figure, path)


def draw_filters(path: str | Path, weights: NDArray[np.float32]) -> None:
    """Draw first-layer filters (F,3,a,b), each from its least to its greatest weight."""
    from matplotlib.figure import Figure
    filters = weights.transpose(0, 2, 3, 1)
    low = filters.min(axis=(1, 2, 3), keepdims=True)
    shown = (filters - low) / np.maximum(np.ptp(filters, axis=(1, 2, 3), keepdims=True), 1e-9)
    columns = 16
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(0.6 * columns, 0.62 * rows), layout='constrained')
    for axes, one in zip(np.ravel(figure.subplots(rows, columns, squeeze=False)), shown,
                         strict=False):
        axes.imshow(one)
    _save(figure, path)


def draw_energy(path: str | Path, words: Words) -> None:
    """
    Draw how much each word sums up: half of the pictures in the bar, nine tenths in the line.

    Words that never have the most of a cell are marked.
    """
    from matplotlib.figure import Figure
    order = np.argsort(-np.median(words.energy, axis=0), kind='stable')
    low, quarter, middle, upper, high = np.maximum(np.percentile(
        words.energy[:, order], (5, 25, 50, 75, 95), axis=0), _LEAST_ENERGY)
    figure = Figure(figsize=(max(8, 0.25 * len(order)), 4), layout='constrained')
    axes = figure.subplots()
    where = np.arange(len(order))
    axes.vlines(where, low, high, color='0.6', linewidth=1)
    unused = np.isin(order, words.unused)
    axes.bar(where, upper - quarter, bottom=quarter,
             color=np.where(unused, '#D55E00', '#0072B2'))
    axes.plot(where, middle, '_', color='black')
    axes.set_xticks(where, [str(word) for word in order], fontsize=7, rotation=90)
    axes.set_xlabel('word')
    axes.set_yscale('log')
    axes.set_ylabel('residual energy')
    axes.set_title(f'What each word sums up of a picture; {unused.sum()} of {len(order)} words '
                   'never have the most of a cell (orange)', fontsize=10)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)


def _patch(picture: NDArray[np.uint8], row: int, column: int, grid: tuple[int, ...]
           ) -> NDArray[np.uint8]:
    """Return what a cell of the grid (h,w) and its neighbours show, moved inside the picture."""
    spans = []
    for cell, cells, length in zip((row, column), grid, picture.shape[:2], strict=True):
        size = max(1, min(length, round(_PATCH * length / cells)))
        begin = round((cell + 0.5) * length / cells - size / 2)
        begin = min(max(begin, 0), length - size)
        spans.append(slice(begin, begin + size))
    return images.resize(picture[spans[0], spans[1]], 48, 48)


def _mosaic(patches: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return up to nine patches (48,48,3), three in a row, on white."""
    whole = np.full((3 * 50 - 2, 3 * 50 - 2, 3), 255, np.uint8)
    for number, patch in enumerate(patches):
        top, left = 50 * (number // 3), 50 * (number % 3)
        whole[top:top + 48, left:left + 48] = patch
    return whole


def _palette(count: int) -> NDArray[np.float64]:
    """Return as many colours (count,3) as there are words, neighbours unlike each other."""
    from matplotlib.colors import hsv_to_rgb
    hues = (np.arange(count) * 0.618034) % 1.0
    return np.asarray(hsv_to_rgb(np.stack([hues, np.full(count, 0.75), 0.6 + 0.35 * (
        np.arange(count) % 2)], axis=1)))


def _save(figure: object, path: str | Path) -> None:
    from matplotlib.figure import Figure
    assert isinstance(figure, Figure)
    axes: Axes
    for axes in figure.axes:
        axes.set_axis_off()
    with whole_file(path) as part:
        figure.savefig(part, dpi=90)
