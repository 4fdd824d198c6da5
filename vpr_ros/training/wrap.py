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
from onnx import helper
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import whole_file
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.training.export import CALIBRATED_ON
from vpr_ros.training.export import sample_images
from vpr_ros.training.half_precision import store_as_half
from vpr_ros.training.half_precision import to_half
from vpr_ros.training.input_format import InputFormat
from vpr_ros.training.onnx_file import save
from vpr_ros.training.parity import accept
from vpr_ros.training.parity import check_int8
from vpr_ros.training.parity import compare
from vpr_ros.training.parity import noise_images
from vpr_ros.training.published import Published
from vpr_ros.training.published import read_published
from vpr_ros.training.quantise import to_int8
from vpr_ros.training.recall import ValidationSet
from vpr_ros.training.wrapped_graph import convolutional
from vpr_ros.training.wrapped_graph import multiplying
from vpr_ros.training.wrapped_graph import wrapped_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.training.parity import ExportReport

MIN_WRAP_COSINE = 0.99999
DISTINCT = 0.1
"""A descriptor is off by at most this share of its distance to that of another image."""


@dataclass(frozen=True)
class Reduction:
    """
    The precision of a wrapped network, as of an exported one, and what it is judged on.

    `precision` is that of matrix products and convolutions (int8: of convolutions), and
    `half_weights` stores the weights of the others as float16. `images` are folders of images, one
    for each drive; `validation` is a folder with database/, queries/ and ground_truth.csv.
    """

    precision: str = 'fp32'
    half_weights: bool = False
    images: Sequence[str | Path] = ()
    validation: str | Path | None = None


@dataclass(frozen=True)
class WrapReport:
    """
    Sizes of a wrapped network; `worst` is its lowest cosine to the original, in fp32.

    `single` says why it takes one image at a time, and is empty if it takes any number. `parity`
    compares it with the original in the precision asked for, if it is another, or on images.
    """

    height: int
    width: int
    dimension: int
    worst: float
    single: str = ''
    parity: ExportReport | None = None

    def __str__(self) -> str:
        """Return a line for each thing to say."""
        lines = [f'{self.width}x{self.height} pixels to {self.dimension} values, worst cosine to '
                 f'the network itself {self.worst:.6f}']
        if self.single:
            lines.append(f'one image at a time, also when maps are built: {self.single}')
        if self.parity is not None:
            lines.append(str(self.parity))
        return '\n'.join(lines)


def wrap_model(source: str | Path, output: str | Path, expected: InputFormat, *,
               output_name: str = '', name: str = '', license_name: str = '',
               reduction: Reduction | None = None) -> WrapReport:
    """
    Write the network `source` (.onnx), which takes `expected`, to `output` in our model format.

    The written model takes uint8 (N,H,W,3) RGB, normalises it unless the network does, runs the
    network, and scales its output to unit L2 norm. `output_name` selects one of several outputs;
    `name` and `license_name` are for the metadata. A network that takes one image at a time, or
    whose descriptors depend on the other images of a batch, becomes a model with a batch of 1.

    The result is compared with the original network on the same images. Raises FileNotFoundError,
    ValueError for a `reduction` without what it needs, or ModelError, leaving no file, for a file
    that is not ONNX, takes no image, gives no vector, takes exactly N > 1 images, or is not
    accepted by parity.py.
    """
    reduction = reduction or Reduction()
    network = read_published(Path(source), expected, output_name)
    images, validation = _judged_on(reduction, network)
    facts = {'backbone': name or network.path.stem, 'aggregation': 'as published',
             'training': f'not by this project; wrapped from {network.path.name}',
             'license': license_name or 'that of the published network',
             'precision': reduction.precision}
    with whole_file(output) as part:
        model, report = _wrapped(network, part, facts)
        if reduction == Reduction():
            return report
        save(_reduced(model, reduction, images), part)
        parity = compare(network.describe, part, reduction.precision, images=images,
                         validation=validation, source='the network')
        accept(parity, output)
    return WrapReport(report.height, report.width, report.dimension, report.worst, report.single,
                      parity)


def _judged_on(reduction: Reduction, network: Published
               ) -> tuple[NDArray[np.uint8] | None, ValidationSet | None]:
    """Return the images and the validation set that a reduction names."""
    images = validation = None
    if reduction.images:
        images, _ = sample_images(reduction.images, network.height, network.width, CALIBRATED_ON)
    if reduction.validation:
        validation = ValidationSet.read(reduction.validation)
    check_int8(reduction.precision, images, validation)
    return images, validation


def _wrapped(network: Published, part: Path, facts: dict[str, str]
             ) -> tuple[onnx.ModelProto, WrapReport]:
    """Write a model for any number of images if it gives what one at a time give, else for one."""
    images = list(noise_images(network.height, network.width))
    vectors = network.describe(images)  # (N,D)
    reason = ('it was exported for one image at a time' if network.batch else
              'its descriptors depend on the other images of a batch')
    for batch in (1,) if network.quantises_batches else (None, 1):
        model = wrapped_graph(network, vectors.shape[1], batch)
        helper.set_model_props(model, dict(sorted({
            **facts, 'input_height': str(network.height), 'input_width': str(network.width),
            'descriptor_dim': str(vectors.shape[1])}.items())))
        save(model, part)
        failure = ''
        try:
            encoder = Encoder(part, provider='cpu')
            found = np.concatenate([encoder.encode_batch(images), *(
                encoder.encode_batch([image]) for image in images)])
        except ModelError as error:
            failure = first_line(error).replace(part.name, network.path.name)
            if batch is None and not network.batch:
                reason = 'it does not run with several'
        else:
            worst, failure = _agreement(found, vectors)
            if not failure:
                return model, WrapReport(network.height, network.width, vectors.shape[1], worst,
                                         reason if batch else '')
        if network.batch not in (None, 1):
            raise ModelError(f'{network.path}: not wrapped, it was exported for exactly '
                             f'{network.batch} images at a time: export it for 1, or any number')
    if network.rounds:
        failure += '; 8-bit steps magnify rounding: wrap it in float32, with --precision int8'
    raise ModelError(f'{network.path}: not wrapped: {failure}')


def _agreement(found: NDArray[np.float32], vectors: NDArray[np.float32]) -> tuple[float, str]:
    """
    Return the lowest cosine between found (2N,D) and, twice, vectors (N,D), of unit norm.

    And why they are not the same, '' if they are: some are missing, or too far off, also for
    images whose descriptors are so alike that they may be confused.
    """
    if len(found) != 2 * len(vectors):
        return 0.0, f'of {2 * len(vectors)} images it gives {len(found)} descriptors'
    errors = np.linalg.norm(found - np.tile(vectors, (2, 1)), axis=1)
    between = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    nearest = (between + 9 * np.eye(len(vectors))).min()
    worst = float(1 - errors.max() ** 2 / 2)
    if worst >= MIN_WRAP_COSINE and errors.max() <= DISTINCT * nearest:
        return worst, ''
    return worst, (f"its descriptors are {errors.max():.2g} from the network's (cosine "
                   f'{worst:.6f}), those of different images {nearest:.2g} apart')


def _reduced(model: onnx.ModelProto, reduction: Reduction, images: NDArray[np.uint8] | None
             ) -> onnx.ModelProto:
    """Return a wrapped graph in another precision."""
    if reduction.precision == 'fp16':
        model = to_half(model, multiplying(model.graph))
    elif reduction.precision == 'int8':
        assert images is not None
        names = convolutional(model.graph)
        if not names:
            raise ModelError('not wrapped: the network has no convolutions to compute in int8')
        model = to_int8(model, names, images)
    return store_as_half(model) if reduction.half_weights else model
