"""
Training: an experiment in, checkpoints and logs out.

Lightning runs the loop. What is learned from is in datasets.py and sampler.py, by what in
losses.py and distill.py.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
import time
from typing import Any
from typing import TYPE_CHECKING
import warnings

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers import TensorBoardLogger
import numpy as np
import torch
from torch import nn
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from vpr_ros.core import images
from vpr_ros.core.errors import TrainingError
from vpr_ros.training import datasets as sources
from vpr_ros.training.augment import augmentation
from vpr_ros.training.checkpoint import EXPERIMENT
from vpr_ros.training.checkpoint import read_checkpoint
from vpr_ros.training.datasets import Pictures
from vpr_ros.training.datasets import PictureSet
from vpr_ros.training.distill import Matching
from vpr_ros.training.distill import outputs
from vpr_ros.training.distill import Teacher
from vpr_ros.training.initialise import aggregated
from vpr_ros.training.initialise import calibrate_batch_norm
from vpr_ros.training.initialise import centre_per_drive
from vpr_ros.training.initialise import fit_centres
from vpr_ros.training.initialise import pca_whitening
from vpr_ros.training.initialise import set_whitening
from vpr_ros.training.losses import LOSSES
from vpr_ros.training.model import imagenet_weights
from vpr_ros.training.model import load_backbone
from vpr_ros.training.model import NetVLAD
from vpr_ros.training.model import PlaceNetwork
from vpr_ros.training.model import read_weights
from vpr_ros.training.recall import recall_at
from vpr_ros.training.sampler import AreaBatchSampler
from vpr_ros.training.sampler import group_areas
from vpr_ros.training.sampler import group_places

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from vpr_ros.training.distill import Outputs
    from vpr_ros.training.experiment import Experiment

BEST = 'best.ckpt'
LAST = 'last.ckpt'
RECALLS = (1, 5)
SHRINKAGE = 0.1
LOOKED_AT = 2048
"""Pictures that centres and statistics are fitted to; a whitening takes four per dimension."""

SOURCES: dict[str, Callable[..., Pictures]] = {
    'places': sources.folders_of_places,
    'traverses': sources.traverses,
    'utm': sources.utm_folder,
    'single': sources.single_pictures,
    'street': sources.street,
}
"""Kinds of data by their names in an experiment."""

log = logging.getLogger(__name__)


def train(experiment: Experiment, output: str | Path, *, resume: bool = False,
          trainer_options: Mapping[str, Any] | None = None) -> Path:
    """
    Train, write checkpoints and logs below the folder `output`, return the best checkpoint.

    `resume` goes on from the last checkpoint there, as if it had not been interrupted.
    `trainer_options` go to Lightning's Trainer (accelerator, devices, num_nodes, strategy ...);
    callbacks among them are added to ours. Raises TrainingError for an experiment that cannot be
    run, an output that holds another training, or a loss that is not finite: the checkpoints
    stay.
    """
    output = Path(output)
    last = output / LAST
    if resume and not last.is_file():
        raise TrainingError(f'{last} does not exist: there is no training to resume')
    if not resume and (output / BEST).exists():
        raise TrainingError(f'{output} holds a training: choose another folder, or --resume')
    lightning.seed_everything(experiment.training.seed, workers=True, verbose=False)
    pictures = read_pictures(experiment.data, 'data')
    validation = read_pictures(experiment.validation, 'validation') \
        if experiment.validation else None
    module = PlaceTraining(experiment, pictures, validation)
    if not resume:
        start(module.network, experiment, pictures)
    module.train()  # Lightning trains in the mode that it finds
    best = _run(module, output, last if resume else None, dict(trainer_options or {}))
    print(f'{output}: waited {100 * module.waiting:.1f} % of the time for pictures')
    return best


def read_pictures(described: Mapping[str, Mapping[str, Any]], part: str) -> Pictures:
    """
    Return one table of the sources that an experiment's `data` or `validation` describes.

    A source has a `kind`, one of SOURCES, the arguments of that function, and optionally `part`:
    the first and last share of each session's pictures, in order, that is used. Raises
    TrainingError for a source that is not described so, SourceError for what it finds. Pictures
    that cannot be read are named in the log, counted and left out.
    """
    tables = []
    for name, options in described.items():
        arguments = dict(options)
        kind, share = arguments.pop('kind', None), arguments.pop('part', (0.0, 1.0))
        if kind not in SOURCES:
            raise TrainingError(f"{part}.{name}: kind '{kind}' is not known; use one of "
                                f'{", ".join(SOURCES)}')
        try:
            table = SOURCES[kind](**arguments)
            first, end = (float(value) for value in share)
        except TypeError as error:
            raise TrainingError(f'{part}.{name}: {error}') from error
        tables.append(_part(table, first, end))
    if not tables or not sum(map(len, tables)):
        raise TrainingError(f'the experiment has no pictures in its {part}')
    return sources.check_readable(Pictures.join(tables))


def _part(table: Pictures, first: float, end: float) -> Pictures:
    if (first, end) == (0.0, 1.0):
        return table
    kept = np.zeros(len(table), np.bool_)
    for session in np.unique(table.session):
        member = np.flatnonzero(table.session == session)
        kept[member[round(first * len(member)):round(end * len(member))]] = True
    return table.select(kept)


def start(network: PlaceNetwork, experiment: Experiment, pictures: Pictures) -> None:
    """
    Give `network` its first values: weights, then what is fitted to some of the pictures.

    Raises FileNotFoundError or ModelError for weights that are not there or do not fit.
    """
    described = experiment.network
    if described.weights == 'imagenet':
        load_backbone(network.backbone, imagenet_weights(described.backbone), 'torchvision')
    elif Path(described.weights).suffix == '.ckpt':
        weights, _ = read_checkpoint(described.weights)
        backbone = {name.removeprefix('backbone.'): value for name, value in weights.items()
                    if name.startswith('backbone.')}
        load_backbone(network.backbone, backbone, described.weights)
    elif described.weights != 'random':
        load_backbone(network.backbone, read_weights(described.weights), described.weights)
    count = min(len(pictures), max(LOOKED_AT, 4 * described.dimension))
    chosen = np.random.default_rng(experiment.training.seed).choice(len(pictures), count,
                                                                    replace=False)
    some = np.stack([images.resize(pictures.read(i), described.height, described.width)
                     for i in tqdm(chosen, desc='reading', unit='picture', leave=False)])
    network.eval()
    if described.weights == 'random':
        calibrate_batch_norm(network, some[:LOOKED_AT])
    if isinstance(network.aggregation, NetVLAD):
        fit_centres(network, some[:LOOKED_AT], experiment.training.seed)
    if described.dimension:
        vectors = aggregated(network, some)
        matrix = pca_whitening(centre_per_drive(vectors, pictures.session[chosen]),
                               described.dimension, shrinkage=SHRINKAGE)
        set_whitening(network, matrix, vectors.mean(axis=0))


class PlaceTraining(lightning.LightningModule):
    """One training: the network, what it learns from, and how it is judged."""

    def __init__(self, experiment: Experiment, pictures: Pictures,
                 validation: Pictures | None = None) -> None:
        super().__init__()
        self._frozen: list[nn.BatchNorm2d] = []
        self.experiment = experiment
        described = experiment.network
        self.network = PlaceNetwork(described.backbone, described.layer, described.aggregation,
                                    described.clusters, described.dimension)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._frozen += [part for part in self.network.modules()
                         if isinstance(part, nn.BatchNorm2d)
                         and experiment.training.freeze_batch_norm]
        for norm in self._frozen:
            norm.requires_grad_(False)
        self.pictures = pictures
        self.validation = validation
        self._truth = None if validation is None else _Truth(validation,
                                                             experiment.relations.tolerance)
        self._loss = _loss(experiment)
        self._teacher: Teacher | None = None
        self._matching: Matching | None = None
        if experiment.teacher.network:
            self._teacher = Teacher(experiment.teacher.network, described.backbone,
                                    described.layer)
            self._matching = Matching(self.network, self._teacher, experiment.teacher.match,
                                      described.height, described.width)
        if self._loss is None and self._matching is None:
            raise TrainingError('there is nothing to learn: neither a loss nor a teacher')
        self._validated: list[Tensor] = []
        self._waited = self._worked = 0.0
        self._clock = time.perf_counter()

    def train(self, mode: bool = True) -> PlaceTraining:
        """Set the training mode; a frozen BatchNorm stays in eval mode."""
        super().train(mode)
        for norm in self._frozen:
            norm.eval()
        return self

    def train_dataloader(self) -> DataLoader:
        """Return the batches of an epoch: areas x places x augmented pictures."""
        described, batch = self.experiment.network, self.experiment.batch
        table = self.pictures
        places = group_places(table.world, table.position, self.experiment.relations.within,
                              heading=table.heading, alone=table.alone, views=batch.pictures)
        first = np.array([place[0] for place in places])
        areas = group_areas(table.world[first], table.position[first], batch.places)
        sampler = AreaBatchSampler(
            places, areas, table.session, areas_per_batch=batch.areas,
            places_per_area=batch.places, pictures_per_place=batch.pictures,
            seed=self.experiment.training.seed, rank=self.global_rank,
            replicas=self.trainer.world_size)
        if sampler.left_out.pictures:
            log.info('%d pictures take no part: %d places have too few, or stand in areas with '
                     'too few', sampler.left_out.pictures, sampler.left_out.places)
        data = PictureSet(table, described.height, described.width,
                          augmentation(self.experiment.augmentation),
                          self.experiment.training.seed)
        return self._loader(data, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader | list[Any]:
        """Return the pictures of the validation, in order and as they are."""
        if self.validation is None:
            return []
        described = self.experiment.network
        return self._loader(PictureSet(self.validation, described.height, described.width),
                            batch_size=64)

    def _loader(self, data: PictureSet, **options: Any) -> DataLoader:
        return DataLoader(data, num_workers=self.experiment.training.workers, **options)

    def on_train_epoch_start(self) -> None:
        """Draw the epoch's triplets from the seed and its number: a resumed one has the same."""
        torch.manual_seed(self.experiment.training.seed * 1_000_003 + self.current_epoch)
        self._clock = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """Note how long the batch was waited for."""
        now = time.perf_counter()
        self._waited += now - self._clock
        self._clock = now

    def on_train_batch_end(self, *_: Any) -> None:
        """Note how long the batch took."""
        now = time.perf_counter()
        self._worked += now - self._clock
        self._clock = now

    @property
    def waiting(self) -> float:
        """Share of the training's time that was spent waiting for pictures."""
        return self._waited / max(self._waited + self._worked, 1e-9)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch: pictures (B,3,H,W) uint8, and their numbers (B,)."""
        pictures, numbers = batch
        image = pictures.permute(0, 2, 3, 1)  # (B,3,H,W) -> (B,H,W,3)
        mine = outputs(self.network, image)
        assert mine.descriptor is not None
        parts: dict[str, Tensor] = {}
        if self._loss is not None:
            positive, negative = self.pictures.relations(
                numbers.cpu().numpy(), self.experiment.relations.within,
                self.experiment.relations.beyond)
            parts[self.experiment.loss.kind] = self.experiment.loss.weight * self._loss(
                mine.descriptor, torch.from_numpy(positive).to(image.device),
                torch.from_numpy(negative).to(image.device))
        if self._matching is not None:
            assert self._teacher is not None
            parts |= self._matching(mine, self._teacher(image))
        loss = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(loss):
            raise TrainingError(f'the loss is {loss.item()} in epoch {self.current_epoch}, step '
                                f'{self.global_step}: the checkpoints of earlier epochs are good; '
                                'lower training.learning_rate, or train with precision 32-true')
        for name, value in {**parts, 'loss': loss}.items():
            self.log(name, value.detach(), prog_bar=True, on_step=False, on_epoch=True,
                     batch_size=len(image))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Describe a batch of the validation's pictures."""
        described: Outputs = outputs(self.network, batch[0].permute(0, 2, 3, 1))
        assert described.descriptor is not None
        self._validated.append(described.descriptor.float().cpu())

    def on_validation_epoch_end(self) -> None:
        """Log the recall over all of them."""
        descriptors = torch.cat(self._validated).numpy()
        self._validated.clear()
        if self._truth is None or len(descriptors) != len(self._truth):
            return  # Lightning's check of a first batch or two
        for n, share in self._truth.recall(descriptors).items():
            self.log(f'recall@{n}', share, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW, its rate rising over the warm-up and then falling as a cosine."""
        options = self.experiment.training
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, options.learning_rate,
                                      weight_decay=options.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)

        def rate(step: int) -> float:
            progress = (step + 1) / steps
            rising = min(1.0, progress / options.warmup) if options.warmup > 0 else 1.0
            return rising * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {'optimizer': optimiser, 'lr_scheduler': {'scheduler': schedule,
                                                         'interval': 'step'}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the whole experiment with the weights."""
        checkpoint[EXPERIMENT] = self.experiment.as_dict()


class _Truth:
    """
    Which pictures of a validation are places, which queries, and the right answers.

    The first session of each world is its map; the pictures of its other sessions are queries.
    """

    def __init__(self, table: Pictures, tolerance: float) -> None:
        first = {world: table.session[table.world == world].min()
                 for world in np.unique(table.world)}
        mapped = table.session == np.array([first[world] for world in table.world])
        self._places, self._queries = np.flatnonzero(mapped), np.flatnonzero(~mapped)
        self._count = len(table)
        same, _ = table.relations(np.arange(len(table)), tolerance, tolerance)
        self._answers = [np.flatnonzero(same[query, self._places]) for query in self._queries]
        if not any(len(answers) for answers in self._answers):
            raise TrainingError('the validation has no place with pictures of two sessions')

    def __len__(self) -> int:
        return self._count

    def recall(self, descriptors: NDArray[np.float32]) -> dict[int, float]:
        """Return Recall@n of descriptors (N,D), in the order of the table."""
        return recall_at(descriptors[self._places], descriptors[self._queries], self._answers,
                         RECALLS)


def _loss(experiment: Experiment) -> nn.Module | None:
    kind = experiment.loss.kind
    if kind == 'none':
        return None
    if kind not in LOSSES:
        raise TrainingError(f"loss.kind '{kind}' is not known; use one of "
                            f'{", ".join(LOSSES)}, none')
    try:
        return LOSSES[kind](**experiment.loss.options)
    except TypeError as error:
        raise TrainingError(f'loss.options: {error}') from error


def _run(module: PlaceTraining, output: Path, checkpoint: Path | None, options: dict[str, Any]
         ) -> Path:
    """Run Lightning's loop, and return the best checkpoint."""
    experiment = module.experiment
    judged = module.validation is not None
    monitor, mode = ('recall@1', 'max') if judged else ('loss', 'min')
    keep = ModelCheckpoint(output, Path(BEST).stem, monitor=monitor, mode=mode,
                           save_last=True, enable_version_counter=False,
                           save_on_train_epoch_end=not judged)
    stop = EarlyStopping(monitor, mode=mode, patience=experiment.training.patience,
                         check_on_train_epoch_end=not judged)
    warnings.filterwarnings('ignore', message='.*does not have many workers.*')
    trainer = lightning.Trainer(**{
        'max_epochs': experiment.training.epochs,
        'limit_train_batches': experiment.training.batches or 1.0,
        'precision': experiment.training.precision,
        'logger': [CSVLogger(output, 'logs', 'csv'),
                   TensorBoardLogger(output, 'logs', 'tensorboard')],
        'callbacks': [keep, stop, LearningRateMonitor('epoch'), *options.pop('callbacks', ())],
        'use_distributed_sampler': False,
        'log_every_n_steps': 20,
        'num_sanity_val_steps': 0,
        'deterministic': 'warn',
        'enable_model_summary': False,
        **options})
    trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    return Path(keep.best_model_path)
