"""
Training images as a table: how to read each, where it was taken and on which drive.

datasets.py fills such tables from files, bags and the street. Which images form a batch is
decided in sampler.py, how they are augmented in augment.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields
from itertools import chain
import logging
import math
from typing import TYPE_CHECKING
import zlib

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.images import resize

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    ReadImage = Callable[[], NDArray[np.uint8]]

log = logging.getLogger(__name__)

SAME_VIEW = math.radians(60)
"""Images taken at one spot show the same place if their headings differ by at most this angle."""

MAX_WARNINGS = 10
"""Unreadable images that are named in the log; the rest are only counted."""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """
    N images to train with; row i of every field is about image i.

    `reads` are functions that return uint8 (H,W,3) RGB of any size; `names` are for messages.
    Images of different `world` (int64) never show the same place; `position` (N,2) float64 is x y
    in metres within the world, `heading` float64 radians about z, NaN where it is unknown.
    `session` (int64) is the drive or season, numbered over the whole table. An image that is
    `alone` is its own place: only views of itself are its positives. Raises ValueError when the
    lengths differ.
    """

    reads: tuple[ReadImage, ...]
    names: tuple[str, ...]
    world: NDArray[np.int64]
    position: NDArray[np.float64]
    heading: NDArray[np.float64]
    session: NDArray[np.int64]
    alone: NDArray[np.bool_]

    def __post_init__(self) -> None:
        N = len(self.reads)
        shapes = [column.shape for column in (self.world, self.heading, self.session, self.alone)]
        if len(self.names) != N or shapes != [(N,)] * 4 or self.position.shape != (N, 2):
            raise ValueError(f'a table of {N} images needs {N} names, worlds, positions (x, y), '
                             'headings, sessions and alone flags')

    def __len__(self) -> int:
        return len(self.reads)

    @staticmethod
    def join(tables: Sequence[ImageTable]) -> ImageTable:
        """
        Return one table of all images; worlds and sessions of different tables stay distinct.

        Raises ValueError without a table.
        """
        if not tables:
            raise ValueError('there are no tables of images to join')
        columns = {field.name: [getattr(table, field.name) for table in tables]
                   for field in fields(ImageTable)}
        return ImageTable(
            tuple(chain.from_iterable(columns['reads'])),
            tuple(chain.from_iterable(columns['names'])),
            _renumber(columns['world']), np.concatenate(columns['position']),
            np.concatenate(columns['heading']), _renumber(columns['session']),
            np.concatenate(columns['alone']))

    def select(self, indices: NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]
               ) -> ImageTable:
        """
        Return the images of these indices, in this order, or where a mask (N,) is true.

        Worlds and sessions keep their numbers.
        """
        chosen = np.arange(len(self))[np.asarray(indices, None if len(indices) else np.int64)]
        return ImageTable(
            tuple(self.reads[i] for i in chosen), tuple(self.names[i] for i in chosen),
            self.world[chosen], self.position[chosen], self.heading[chosen],
            self.session[chosen], self.alone[chosen])

    def read(self, index: int) -> NDArray[np.uint8]:
        """
        Return an image as uint8 (H,W,3) RGB; raise SourceError with its name if it is unreadable.

        `check_readable` removes unreadable images beforehand.
        """
        try:
            return self.reads[index]()
        except (ImageError, OSError) as error:
            reason, name = first_line(error), self.names[index]
            reason = reason if name in reason else f'{name}: {reason}'
            raise SourceError(f'{reason}; repair or remove this image') from error

    def relations(self, indices: Sequence[int] | NDArray[np.int64], within: float, beyond: float
                  ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """
        Return which images of a batch of B are positives and negatives of which: two (B,B).

        Positives are of one world, at most `within` metres and SAME_VIEW apart (an unknown
        heading matches any), of whatever session. Two views of one image are positives, but no
        entry is its own. Negatives are of another world, or more than `beyond` metres away. All
        others are neither. Raises ValueError when `beyond` is less than `within`.
        """
        if not 0 <= within <= beyond:
            raise ValueError(f'positives within {within} m and negatives beyond {beyond} m: the '
                             'first must not be negative, nor more than the second')
        index = np.asarray(indices, np.int64)
        world, position, heading = self.world[index], self.position[index], self.heading[index]
        same_world = world[:, None] == world
        x, y = position.T
        squared = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
        direction = np.stack([np.cos(heading), np.sin(heading)], axis=1)
        turned = direction @ direction.T < math.cos(SAME_VIEW)  # false where a heading is NaN
        positive = same_world & (squared <= within ** 2) & ~turned
        np.fill_diagonal(positive, False)
        return positive, ~same_world | (squared > beyond ** 2)


class ImageDataset(Dataset):
    """
    A table as torch reads it, with images scaled to height x width.

    Item i is (uint8 tensor (3,H,W) RGB, i). `augmentation` transforms such a tensor and keeps its
    shape. Its random numbers follow from `seed` and the indices of the batch, hence they are the
    same for any number of workers, and in a resumed training. Raises SourceError with the name of
    an image that cannot be read.
    """

    def __init__(self, table: ImageTable, height: int, width: int,
                 augmentation: Callable[[Tensor], Tensor] | None = None, seed: int = 0) -> None:
        self.table = table
        self._height, self._width = height, width
        self._augmentation = augmentation
        self._seed = seed

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        scaled = resize(self.table.read(index), self._height, self._width)
        # Copied, because pixels of a recording are read-only, which torch does not support.
        tensor = torch.from_numpy(scaled.transpose(2, 0, 1).copy())
        return (self._augmentation(tensor) if self._augmentation else tensor), index

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Return the items of a batch; DataLoader calls this."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed + zlib.crc32(np.asarray(indices, np.int64).tobytes()))
            return [self[index] for index in indices]


def check_readable(table: ImageTable) -> ImageTable:
    """
    Read every image once and return the table without those that cannot be read.

    The first MAX_WARNINGS are named in the log, all are counted. Raises SourceError when none is
    left.
    """
    readable = np.ones(len(table), np.bool_)
    for index in tqdm(range(len(table)), desc='checking', unit='image', disable=None):
        try:
            table.read(index)
        except SourceError as error:
            readable[index] = False
            if len(table) - readable.sum() <= MAX_WARNINGS:
                log.warning('left out: %s', error)
    unreadable = int((~readable).sum())
    if unreadable == len(table):
        raise SourceError(f'not one of the {len(table)} images can be read')
    if unreadable:
        log.warning('%d of %d images cannot be read and are left out', unreadable, len(table))
    return table.select(readable)


def _renumber(columns: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Concatenate columns of numbers, changed so that no two columns share a number."""
    renumbered, first = [], 0
    for numbers in columns:
        ranks = np.unique(numbers, return_inverse=True)[1].reshape(-1)
        renumbered.append(ranks + first)
        first += int(ranks.max(initial=-1)) + 1
    return np.concatenate(renumbered).astype(np.int64)
