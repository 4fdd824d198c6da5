"""
The data of a training: what an experiment names, read, sampled into batches, and validated on.

The readers themselves are in datasets.py, the grouping into batches in sampler.py.
"""

from __future__ import annotations

import logging
from typing import Any
from typing import TYPE_CHECKING

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from vpr_ros.core.errors import TrainingError
from vpr_ros.training import datasets
from vpr_ros.training.augment import augmentation
from vpr_ros.training.image_table import check_readable
from vpr_ros.training.image_table import ImageDataset
from vpr_ros.training.image_table import ImageTable
from vpr_ros.training.mining import hard_groups
from vpr_ros.training.recall import recall_at
from vpr_ros.training.sampler import AreaBatchSampler
from vpr_ros.training.sampler import BatchShape
from vpr_ros.training.street_drives import StreetDrives

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from vpr_ros.training.experiment import Experiment

VALIDATION_RECALLS = (1, 5)
VALIDATION_BATCH = 64

KINDS: dict[str, Callable[..., ImageTable]] = {
    'places': datasets.folders_of_places,
    'gsv-cities': datasets.gsv_cities,
    'traverses': datasets.traverses,
    'utm': datasets.utm_folder,
    'single': datasets.single_images,
    'street': lambda **options: datasets.street_images(StreetDrives(**options)),
}
"""Readers by the `kind` of a source in an experiment."""

log = logging.getLogger(__name__)


class PlaceData(lightning.LightningDataModule):
    """
    The images of an experiment: `table` to train on, `validation` or None.

    `truth` are the correct answers within the validation. Raises TrainingError when the validation
    has none.
    """

    first_epoch = 0
    """Where a resumed training begins; workers read ahead before Lightning sets the epoch."""

    def __init__(self, experiment: Experiment, table: ImageTable,
                 validation: ImageTable | None = None) -> None:
        super().__init__()
        self.experiment = experiment
        self.table = table
        self.validation = validation
        self.truth = None if validation is None else ValidationTruth(
            validation, experiment.relations.tolerance)

    @staticmethod
    def read(experiment: Experiment) -> PlaceData:
        """Return the data that an experiment names; raise as `read_image_table` does."""
        return PlaceData(experiment, read_image_table(experiment.data, 'data'),
                         read_image_table(experiment.validation, 'validation')
                         if experiment.validation else None)

    def train_dataloader(self) -> DataLoader:
        """Return the batches of an epoch: areas x places x augmented images."""
        batch, table = self.experiment.batch, self.table
        shape = BatchShape(batch.areas, batch.places, batch.pictures)
        sampler = AreaBatchSampler.of_table(
            table, shape, self.experiment.relations.within, seed=self.experiment.training.seed,
            rank=self.trainer.global_rank, replicas=self.trainer.world_size)
        if sampler.left_out.images and not self.trainer.global_rank:
            log.warning('%s', sampler.left_out)
        if batch.mining != 'batch':
            sampler.regroup = self._hard_groups
            sampler.regrouped = batch.mined if batch.mining == 'partial' else None
        sampler.set_epoch(self.first_epoch)
        return self._loader(table, augmentation(self.experiment.augmentation),
                            batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader | list[Any]:
        """Return the images of the validation, in order and without augmentation."""
        if self.validation is None:
            return []
        return self._loader(self.validation, None, batch_size=VALIDATION_BATCH)

    def _loader(self, table: ImageTable, augment: Callable[..., Any] | None, **options: Any
                ) -> DataLoader:
        network, training = self.experiment.network, self.experiment.training
        data = ImageDataset(table, network.height, network.width, augment, training.seed)
        # A generator of its own, so that the global one gives the same numbers after a resumption.
        return DataLoader(data, num_workers=training.workers, generator=torch.Generator(),
                          **options)

    def _hard_groups(self, images: NDArray[np.int64], size: int, random: np.random.Generator
                     ) -> NDArray[np.int64]:
        """Group places (P,) of `images` by the descriptors of the network as it is now."""
        unique, which = np.unique(images, return_inverse=True)
        loader = self._loader(self.table.select(unique), None, batch_size=VALIDATION_BATCH)
        module = self.trainer.lightning_module
        described = module.describe(batch for batch, _ in tqdm(
            loader, desc='mining', unit='batch', leave=False, disable=None))
        # Statistics of a BatchNorm that learns differ between processes.
        descriptors = self.trainer.strategy.broadcast(described)[which.reshape(-1)]
        return hard_groups(descriptors, self.table.world[images], self.table.position[images],
                           self.experiment.relations.beyond, size, random)


def read_image_table(sources: Mapping[str, Mapping[str, Any]], part: str) -> ImageTable:
    """
    Return one table of the sources that `part` of an experiment, data or validation, lists.

    A source has a `kind`, one of KINDS, the arguments of that reader, and optionally `part`: from
    which to which share of each session's images, in order, is used. Raises TrainingError for an
    invalid description, SourceError for what the readers find. Unreadable images are named in the
    log, counted and left out.
    """
    tables = []
    for name, options in sources.items():
        arguments = dict(options)
        kind, share = arguments.pop('kind', None), arguments.pop('part', (0.0, 1.0))
        if kind not in KINDS:
            raise TrainingError(f"{part}.{name}: kind '{kind}' is not known; use one of "
                                f'{", ".join(KINDS)}')
        try:
            table = KINDS[kind](**arguments)
            begin, end = (float(value) for value in share)
        except TypeError as error:
            raise TrainingError(f'{part}.{name}: {error}') from error
        tables.append(_select_share(table, begin, end))
    if not tables or not sum(map(len, tables)):
        raise TrainingError(f'the experiment has no images in its {part}')
    return check_readable(ImageTable.join(tables))


def _select_share(table: ImageTable, begin: float, end: float) -> ImageTable:
    """Return the images from share `begin` to `end` of each session, both in [0,1]."""
    if (begin, end) == (0.0, 1.0):
        return table
    inside = np.zeros(len(table), np.bool_)
    for session in np.unique(table.session):
        members = np.flatnonzero(table.session == session)
        inside[members[round(begin * len(members)):round(end * len(members))]] = True
    return table.select(inside)


class ValidationTruth:
    """
    Which images of a validation are places, which are queries, and the correct answers.

    The first session of each world is its map; the images of its other sessions are queries.
    Raises TrainingError when no query has a place within `tolerance` metres.
    """

    def __init__(self, table: ImageTable, tolerance: float) -> None:
        first = {world: table.session[table.world == world].min()
                 for world in np.unique(table.world)}
        mapped = table.session == np.array([first[world] for world in table.world])
        self._places, self._queries = np.flatnonzero(mapped), np.flatnonzero(~mapped)
        self._count = len(table)
        same, _ = table.relations(np.arange(len(table)), tolerance, tolerance)
        self._answers = [np.flatnonzero(same[query, self._places]) for query in self._queries]
        if not any(len(answers) for answers in self._answers):
            raise TrainingError('no place of the validation has images of two sessions')

    def __len__(self) -> int:
        """Return the number of images, places and queries together."""
        return self._count

    def recall(self, descriptors: NDArray[np.float32]) -> dict[int, float]:
        """Return Recall@n of descriptors (N,D), in the order of the table."""
        return recall_at(descriptors[self._places], descriptors[self._queries], self._answers,
                         VALIDATION_RECALLS)
