"""
How near a model file is to the network that it was made of, and whether that is accepted.

export.py and wrap.py make the file, in a precision that may be lower than the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.core.metrics import paired_difference
from vpr_ros.core.metrics import recall
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.training.recall import validation_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.training.recall import ValidationSet

Describe = Callable[[Sequence['NDArray[np.uint8]']], 'NDArray[np.float32]']
"""From images uint8 (H,W,3) of any size to unit descriptors float32 (N,D)."""

PRECISIONS = ('fp32', 'fp16', 'int8')
MIN_EXPORT_COSINE = 0.999
"""Between network and file, on every image, in fp32 and fp16."""
MIN_INT8_COSINE = 0.98
"""
Between network and file, in the mean over images, in int8.

Random errors of this size cost at most 1.7 points of Recall@1 on any of six image sets, those of
.95 up to 4.2, those of .675 from 20 to 50.
"""
MAX_RECALL_LOSS = 0.005
"""How far Recall@1 on the validation set may be shown to fall: half a point."""
VAGUE = 0.05
"""A loss of Recall@1 that a validation set should be large enough to exclude."""
COMPARED_ON = 16
"""Most images on which the cosine is measured."""


@dataclass(frozen=True)
class ExportReport:
    """
    Size of an exported model, and its deviation from the network, which is called `source`.

    `worst` and `mean` are cosines over images, or over noise where there were none (`on_noise`).
    `recall_before` and `recall_after` are Recall@1 in [0,1] on the validation set, of the network
    and of the file, and `loss` is the 95 % interval of their difference; None without such a set.
    """

    precision: str
    size_bytes: int
    worst: float
    mean: float
    recall_before: float | None = None
    recall_after: float | None = None
    loss: tuple[float, float] | None = None
    on_noise: bool = False
    source: str = 'torch'

    def __str__(self) -> str:
        """Return two lines, or three with a validation set."""
        where = (' on noise, which says little of real images: give some with --images'
                 if self.on_noise else '')
        lines = [f'{self.precision}, {self.size_bytes / 1e6:.2f} MB',
                 f'cosine to {self.source}: worst {self.worst:.6f}, mean {self.mean:.6f}{where}']
        if self.recall_before is not None and self.recall_after is not None:
            lines.append(f'Recall@1: {self.recall_before:.4f} in {self.source}, '
                         f'{self.recall_after:.4f} in the file')
        if self.loss is not None:
            low, high = (100 * bound for bound in self.loss)
            lines[-1] += f'; {low:.1f} to {high:.1f} points lost (95 %)' + (
                f': more queries would say whether it is less than {100 * VAGUE:g}'
                if self.loss[1] > VAGUE else '')
        return '\n'.join(lines)


def check_int8(precision: str, images: NDArray[np.uint8] | None,
               validation: ValidationSet | None) -> None:
    """Raise ValueError for a precision that is not known, or that lacks what it is judged by."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}' is not known; use one of "
                         f'{", ".join(PRECISIONS)}')
    if precision == 'int8' and (images is None or validation is None):
        raise ValueError('int8 needs images to calibrate on and a validation set: only recall '
                         'shows whether a network tolerates it')


def compare(network: Describe, path: Path, precision: str, *,
            images: NDArray[np.uint8] | None = None, validation: ValidationSet | None = None,
            source: str = 'torch') -> ExportReport:
    """
    Compare the descriptors of a network with those of its file, alone and in a batch.

    They are of some of `images` (M,height,width,3), or of noise. Raises ModelError for a file that
    is no model.
    """
    try:
        encoder = Encoder(path, provider='cpu')
    except ModelError as error:
        # The error names a temporary file.
        raise ModelError('not written: the exported model cannot be loaded, or gives no unit '
                         f'vectors ({first_line(error).removeprefix(str(path)).lstrip(": ")})'
                         ) from error
    sample = noise_images(*encoder.size)
    if images is not None:
        count = min(COMPARED_ON, len(images))
        sample = images[np.linspace(0, len(images) - 1, count).astype(int)]
    expected = network(list(sample))
    batch = encoder.encode_batch(list(sample))
    single = np.concatenate([encoder.encode_batch([image]) for image in sample])
    cosines = np.concatenate([np.sum(expected * batch, axis=1), np.sum(expected * single, axis=1)])
    before = after = loss = None
    if validation is not None:
        ranks = [validation_ranks(validation, describe)
                 for describe in (network, encoder.encode_batch)]
        before, after = (recall(of, (1,))[1] for of in ranks)
        loss = paired_difference(ranks[0] < 1, ranks[1] < 1)
    return ExportReport(precision, path.stat().st_size, float(cosines.min()),
                        float(cosines.mean()), before, after, loss, images is None, source)


def accept(report: ExportReport, path: str | Path) -> None:
    """
    Raise ModelError when a file is too far from its network.

    That is a cosine below MIN_EXPORT_COSINE (fp32, fp16) or MIN_INT8_COSINE, or a Recall@1 that is
    lower by more than MAX_RECALL_LOSS even at the favourable end of the interval: a query or two
    of a small set decide nothing.
    """
    if report.precision != 'int8' and not report.worst >= MIN_EXPORT_COSINE:  # also when it is NaN
        raise ModelError(f'{path}: not written, its descriptors differ from the network by a '
                         f'cosine of {report.worst:.5f}; at least {MIN_EXPORT_COSINE} is needed')
    if report.loss is not None and not report.loss[0] <= MAX_RECALL_LOSS:
        raise ModelError(f'{path}: not written, {report.precision} takes Recall@1 from '
                         f'{report.recall_before:.4f} to {report.recall_after:.4f}, certainly by '
                         f'{100 * report.loss[0]:.1f} points (95 %); at most '
                         f'{100 * MAX_RECALL_LOSS:g} may be lost')
    if report.precision == 'int8' and not report.mean >= MIN_INT8_COSINE:
        raise ModelError(f'{path}: not written, the mean cosine of its descriptors to the network '
                         f'is {report.mean:.3f}, whatever the recall; at least {MIN_INT8_COSINE} '
                         'is needed')


def noise_images(height: int, width: int) -> NDArray[np.uint8]:
    """Return four images of noise, uint8 (4,height,width,3), of different light and contrast."""
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(low, high, (height, width, 3), dtype=np.uint8)
                     for low, high in ((0, 256), (0, 60), (100, 256), (120, 140))])
