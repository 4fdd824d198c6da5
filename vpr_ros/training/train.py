"""
Training of a place-recognition network: from an experiment to checkpoints and logs.

Lightning runs the loop. The data is in data.py, the losses in losses.py and distill.py.
"""

from __future__ import annotations

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
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
import numpy as np
import torch
from torch import nn
from torch import Tensor
from tqdm import tqdm
from vpr_ros.core.errors import ModelError
from vpr_ros.core.errors import TrainingError
from vpr_ros.core.files import whole_file
from vpr_ros.core.images import resize
from vpr_ros.training.checkpoint import EXPERIMENT
from vpr_ros.training.checkpoint import NETWORK_PREFIX
from vpr_ros.training.checkpoint import read_checkpoint
from vpr_ros.training.checkpoint import read_progress
from vpr_ros.training.data import PlaceData
from vpr_ros.training.data import read_image_table
from vpr_ros.training.distill import DistillationLoss
from vpr_ros.training.distill import network_outputs
from vpr_ros.training.distill import Teacher
from vpr_ros.training.exported import exported_weights
from vpr_ros.training.exported import unfold
from vpr_ros.training.initialise import aggregated
from vpr_ros.training.initialise import calibrate_batch_norm
from vpr_ros.training.initialise import fit_centres
from vpr_ros.training.initialise import set_whitening
from vpr_ros.training.losses import LOSSES
from vpr_ros.training.metrics_log import MetricsLog
from vpr_ros.training.model import NetVLAD
from vpr_ros.training.model import PlaceNetwork
from vpr_ros.training.weights import initial_weights
from vpr_ros.training.weights import load_backbone
from vpr_ros.training.whitening import centre_per_drive
from vpr_ros.training.whitening import pca_whitening
from vpr_ros.training.whitening import SHRINKAGE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from vpr_ros.training.experiment import Experiment
    from vpr_ros.training.image_table import ImageTable

BEST = 'best.ckpt'
LAST = 'last.ckpt'
INITIALISED_ON = 2048
"""Images that centres and statistics are fitted to; a whitening takes four per dimension."""


def train(experiment: Experiment, output: str | Path, *, resume: bool = False,
          trainer_options: Mapping[str, Any] | None = None) -> Path:
    """
    Train, write checkpoints and logs into the folder `output`, return the best checkpoint.

    With training.epochs of 0, that is the network as it is initialised: with centres and whitening
    fitted to the images, such as a teacher that is not trained itself.
    `resume` continues from the last checkpoint there, to the same result as without interruption.
    `trainer_options` go to Lightning's Trainer (accelerator, devices, num_nodes, strategy ...);
    callbacks among them are added to ours. Raises TrainingError for an invalid experiment, an
    output that holds another training, or a loss that is not finite; checkpoints written before
    are kept.
    """
    output = Path(output)
    last = output / LAST
    if resume and not last.is_file():
        raise TrainingError(f'{last} does not exist: there is no training to resume')
    if not resume and (output / BEST).exists():
        raise TrainingError(f'{output} holds a training: choose another folder, or --resume')
    steps, epochs = read_progress(last, experiment) if resume else (0, 0)
    lightning.seed_everything(experiment.training.seed, workers=True, verbose=False)
    if not experiment.training.epochs:
        return _untrained(experiment, output / BEST)
    data = PlaceData.read(experiment)
    module = PlaceTraining(experiment, data)
    if not resume:
        initialise_network(module.network, experiment, data.table)
    module.train()  # Lightning trains in the mode that it finds
    data.first_epoch = epochs
    best = _fit(module, output, steps, dict(trainer_options or {}))
    if module.global_rank == 0:
        print(f'{output}: waited for images {100 * module.waiting:.1f} % of the time')
    return best


def _untrained(experiment: Experiment, path: Path) -> Path:
    """Write the network of an experiment as it is before its training, as a checkpoint."""
    config = experiment.network
    network = PlaceNetwork(config.backbone, config.layer, config.aggregation, config.clusters,
                           config.dimension)
    initialise_network(network, experiment, read_image_table(experiment.data, 'data'))
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {NETWORK_PREFIX + name: value for name, value in network.state_dict().items()}
    WholeCheckpoints().save_checkpoint({EXPERIMENT: experiment.as_dict(), 'state_dict': weights},
                                       path)
    return path


def initialise_network(network: PlaceNetwork, experiment: Experiment, table: ImageTable) -> None:
    """
    Load the initial weights into `network`, then fit the rest of it to some of the images.

    Raises FileNotFoundError or ModelError for weights that are missing or do not fit.
    """
    config, seed = experiment.network, experiment.training.seed
    if config.take == 'all':
        _load_all(network, experiment)
        return
    if config.weights != 'random':
        weights = initial_weights(config.weights, config.backbone)
        load_backbone(network.backbone, weights, config.weights)
    count = min(len(table), max(INITIALISED_ON, 4 * config.dimension))
    chosen = np.random.default_rng(seed).choice(len(table), count, replace=False)
    sample = np.stack([resize(table.read(i), config.height, config.width)
                       for i in tqdm(chosen, desc='reading', unit='image', leave=False)])
    network.eval()
    if config.weights == 'random':
        calibrate_batch_norm(network, sample[:INITIALISED_ON])
    if isinstance(network.aggregation, NetVLAD):
        fit_centres(network, sample[:INITIALISED_ON], seed)
    if config.dimension:
        vectors = aggregated(network, sample)
        matrix = pca_whitening(centre_per_drive(vectors, table.session[chosen]),
                               config.dimension, shrinkage=SHRINKAGE)
        set_whitening(network, matrix, vectors.mean(axis=0))


def _load_all(network: PlaceNetwork, experiment: Experiment) -> None:
    """Load a whole checkpoint or exported model; raise ModelError if it is of another network."""
    source, theirs = experiment.network.weights, ''
    if Path(source).suffix == '.onnx':
        weights = unfold(network, exported_weights(source))
    else:
        weights, described = read_checkpoint(source)
        other = described.network
        theirs = (f' ({other.backbone}, {other.aggregation}, {other.clusters} clusters, dimension '
                  f'{other.dimension})')
    fixed = {name: value for name, value in network.normalise.state_dict(
        prefix='normalise.').items() if name not in weights}
    try:
        network.load_state_dict({**fixed, **weights})
    except RuntimeError as error:
        raise ModelError(f'{source} is of another network{theirs}: describe that one, or set '
                         'network.take to backbone') from error


class PlaceTraining(lightning.LightningModule):
    """The network, its losses, its optimiser, and its validation by recall."""

    def __init__(self, experiment: Experiment, data: PlaceData) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []
        self.experiment = experiment
        self.data = data
        config = experiment.network
        self.network = PlaceNetwork(config.backbone, config.layer, config.aggregation,
                                    config.clusters, config.dimension)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if experiment.training.freeze_batch_norm:
            self._frozen += [part for part in self.network.modules()
                             if isinstance(part, nn.BatchNorm2d)]
        self._frozen += _layers_to(self.network.backbone, experiment.training.freeze)
        for part in self._frozen:
            part.requires_grad_(False)
        self._loss = _loss(experiment)
        self._teacher: Teacher | None = None
        self._matching: DistillationLoss | None = None
        if experiment.teacher.network:
            self._teacher = Teacher(experiment.teacher.network, config.backbone, config.layer,
                                    also=experiment.teacher.also)
            self._matching = DistillationLoss(self.network, self._teacher,
                                              experiment.teacher.match, config.height,
                                              config.width)
        if self._loss is None and self._matching is None:
            raise TrainingError('there is nothing to learn: neither a loss nor a teacher')
        self._fix_unused()
        self._validated: list[Tensor] = []
        self._waited = self._worked = 0.0
        self._clock = time.perf_counter()

    def train(self, mode: bool = True) -> PlaceTraining:
        """Set the training mode; what is frozen stays in eval mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Seed the epoch's triplets by its number, so that a resumed epoch draws the same."""
        torch.manual_seed(self.experiment.training.seed * 1_000_003 + self.current_epoch)
        self._clock = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """Measure how long the batch was waited for."""
        now = time.perf_counter()
        self._waited += now - self._clock
        self._clock = now

    def on_train_batch_end(self, *_: Any) -> None:
        """Measure how long the batch took."""
        now = time.perf_counter()
        self._worked += now - self._clock
        self._clock = now

    @property
    def waiting(self) -> float:
        """Share of the training time that was spent waiting for images."""
        return self._waited / max(self._waited + self._worked, 1e-9)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch: images (B,3,H,W) uint8, and their indices (B,)."""
        planes, indices = batch
        positive, negative = self.data.table.relations(
            indices.cpu().numpy(), self.experiment.relations.within,
            self.experiment.relations.beyond)
        parts = self._losses(planes, torch.from_numpy(positive).to(planes.device),
                             torch.from_numpy(negative).to(planes.device))
        loss = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(loss):
            raise TrainingError(f'the loss is {loss.item()} in epoch {self.current_epoch}, step '
                                f'{self.global_step}: the checkpoints of earlier epochs are good; '
                                'lower training.learning_rate, or train with precision 32-true')
        for name, value in {**parts, 'loss': loss}.items():
            self.log(name, value.detach(), prog_bar=True, on_step=False, on_epoch=True,
                     batch_size=len(planes), sync_dist=True)
        return loss

    def _losses(self, planes: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """Return each loss by its name, of images (B,3,H,W) and their relations (B,B)."""
        image = planes.permute(0, 2, 3, 1)  # (B,3,H,W) -> (B,H,W,3)
        output = network_outputs(self.network, image)
        assert output.descriptor is not None
        parts: dict[str, Tensor] = {}
        if self._loss is not None:
            parts[self.experiment.loss.kind] = self.experiment.loss.weight * self._loss(
                output.descriptor, positive, negative)
        if self._matching is not None:
            assert self._teacher is not None
            parts |= self._matching(output, self._teacher(image))
        return parts

    def _fix_unused(self) -> None:
        """Fix the parameters that no loss depends on: several processes would wait for them."""
        config = self.experiment.network
        self.eval()
        nothing = torch.zeros(2, 2, dtype=torch.bool)
        parts = self._losses(torch.zeros(2, 3, config.height, config.width, dtype=torch.uint8),
                             nothing, nothing)
        loss = torch.stack(list(parts.values())).sum()
        learned = [p for p in self.parameters() if p.requires_grad]
        if not loss.requires_grad:
            raise TrainingError('there is nothing to learn: training.freeze leaves no layer that '
                                'a loss depends on')
        for parameter, gradient in zip(
                learned, torch.autograd.grad(loss, learned, allow_unused=True), strict=True):
            if gradient is None:
                parameter.requires_grad_(False)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Compute the descriptors of a batch of the validation."""
        self._validated.append(self._describe(batch[0]))

    @torch.no_grad()
    def describe(self, batches: Iterable[Tensor]) -> NDArray[np.float32]:
        """Return the descriptors (N,D), in eval mode, of batches (B,3,H,W) uint8."""
        mode = self.training
        self.eval()
        described = torch.cat([self._describe(batch.to(self.device)) for batch in batches])
        self.train(mode)
        descriptors: NDArray[np.float32] = described.numpy()
        return descriptors

    def _describe(self, planes: Tensor) -> Tensor:
        output = network_outputs(self.network, planes.permute(0, 2, 3, 1))
        assert output.descriptor is not None
        return output.descriptor.float().cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the recall over the whole validation."""
        descriptors = torch.cat(self._validated).numpy()
        self._validated.clear()
        truth = self.data.truth
        if truth is None or len(descriptors) != len(truth):
            return  # Lightning's sanity check of a few batches
        for n, share in truth.recall(descriptors).items():
            self.log(f'recall@{n}', share, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with the learning rate's warm-up and schedule."""
        options = self.experiment.training
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, options.learning_rate,
                                      weight_decay=options.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)

        def rate(step: int) -> float:
            progress = (step + 1) / steps
            rising = min(1.0, progress / options.warmup) if options.warmup > 0 else 1.0
            if options.schedule == 'step':
                epoch = step * options.epochs // steps
                return float(rising * options.step_factor ** (epoch // options.step_epochs))
            return rising * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {'optimizer': optimiser, 'lr_scheduler': {'scheduler': schedule,
                                                         'interval': 'step'}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the whole experiment with the weights."""
        checkpoint[EXPERIMENT] = self.experiment.as_dict()


def _layers_to(backbone: nn.Sequential, last: str) -> list[nn.Module]:
    """Return the layers up to and including the one named `last`; none for ''."""
    if not last:
        return []
    names = [name for name, _ in backbone.named_children()]
    if last not in names:
        raise TrainingError(f"training.freeze: the backbone has no layer '{last}'; it has "
                            f'{", ".join(names)}')
    return list(backbone.children())[:names.index(last) + 1]


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


class WholeCheckpoints(TorchCheckpointIO):
    """
    Checkpoints that are whole or absent.

    Lightning writes to the folder for temporary files, and copies from there where that is on
    another file system: one that is killed meanwhile leaves half a file under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any,
                        storage_options: Any = None) -> None:
        """Write a checkpoint to a local path."""
        with whole_file(path) as part:
            torch.save(checkpoint, part)


def _fit(module: PlaceTraining, output: Path, steps: int, options: dict[str, Any]) -> Path:
    """Run Lightning's loop, from LAST if it is of any steps, and return the best checkpoint."""
    training = module.experiment.training
    validated = module.data.validation is not None
    monitor, mode = ('recall@1', 'max') if validated else ('loss', 'min')
    keep = ModelCheckpoint(output, Path(BEST).stem, monitor=monitor, mode=mode,
                           enable_version_counter=False, save_on_train_epoch_end=not validated)
    # Of its own: with `save_last`, Lightning would save it together with the best only.
    last = ModelCheckpoint(output, Path(LAST).stem, enable_version_counter=False,
                           save_on_train_epoch_end=True)
    stop = EarlyStopping(monitor, mode=mode, patience=training.patience,
                         check_on_train_epoch_end=not validated)
    warnings.filterwarnings('ignore', message='.*does not have many workers.*')
    trainer = lightning.Trainer(**{
        'max_epochs': training.epochs,
        'limit_train_batches': training.batches or 1.0,
        'precision': training.precision,
        'logger': [MetricsLog(output / 'logs' / 'csv' / 'metrics.csv', steps),
                   TensorBoardLogger(output, 'logs', 'tensorboard')],
        'plugins': [WholeCheckpoints()],
        'callbacks': [keep, stop, LearningRateMonitor('epoch'), last,
                      *options.pop('callbacks', ())],
        'use_distributed_sampler': False,
        'log_every_n_steps': 20,
        'num_sanity_val_steps': 0,
        'deterministic': 'warn',
        'enable_model_summary': False,
        **options})
    trainer.fit(module, datamodule=module.data, ckpt_path=output / LAST if steps else None,
                weights_only=True)
    return Path(keep.best_model_path)
