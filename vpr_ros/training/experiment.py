"""
The description of an experiment: a YAML file in, checked dataclasses out.

What the parts mean is in docs/training.md. Nothing is read or trained here.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import TrainingError
import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Network:
    """What is trained. `weights` is 'imagenet', 'random', a weights file or a checkpoint."""

    backbone: str = 'resnet18'
    layer: str = ''
    aggregation: str = 'netvlad'
    clusters: int = 64
    dimension: int = 512
    height: int = 240
    width: int = 320
    weights: str = 'imagenet'


@dataclass(frozen=True)
class Batch:
    """A batch is `areas` x `places` x `pictures` pictures."""

    areas: int = 4
    places: int = 4
    pictures: int = 4


@dataclass(frozen=True)
class Relations:
    """
    Pictures within `within` metres show one place, those beyond `beyond` metres do not.

    A query of the validation is right within `tolerance` metres.
    """

    within: float = 5.0
    beyond: float = 15.0
    tolerance: float = 5.0


@dataclass(frozen=True)
class Loss:
    """The loss on descriptors: 'triplet', 'contrastive', 'multi-similarity', or 'none'."""

    kind: str = 'triplet'
    weight: float = 1.0
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Teacher:
    """
    Whose outputs are learned: a checkpoint, an ONNX model, or a weights file; '' for nobody.

    `match` weighs what is to agree: 'descriptor', 'similarity', 'local', 'stages'; 'similarity'
    alone where it is left out.
    """

    network: str = ''
    match: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """How long and how fast. `batches` bounds the batches of an epoch, 0 for whole epochs."""

    epochs: int = 20
    batches: int = 0
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup: float = 0.05
    precision: str = 'bf16-mixed'
    freeze_batch_norm: bool = True
    patience: int = 10
    workers: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Experiment:
    """One experiment, whole: what a checkpoint carries with it."""

    network: Network = field(default_factory=Network)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    validation: dict[str, dict[str, Any]] = field(default_factory=dict)
    relations: Relations = field(default_factory=Relations)
    batch: Batch = field(default_factory=Batch)
    augmentation: str = 'strong'
    loss: Loss = field(default_factory=Loss)
    teacher: Teacher = field(default_factory=Teacher)
    training: Training = field(default_factory=Training)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, as a checkpoint keeps it."""
        return asdict(self)


def read_experiment(path: str | Path, changes: Sequence[str] = ()) -> Experiment:
    """
    Read an experiment; `changes` are 'part.name=value', as from the command line.

    Raises FileNotFoundError, or TrainingError for what is not YAML, a name that an experiment
    does not have, or a value of the wrong kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such experiment')
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f'{path} is not YAML: {first_line(error)}') from error
    return make_experiment(values, changes, str(path))


def make_experiment(values: dict[str, Any], changes: Sequence[str] = (), source: str = 'experiment'
                    ) -> Experiment:
    """Return the experiment of plain values, as `read_experiment` does for a file's."""
    try:
        given = OmegaConf.create(values)
        for change in changes:
            name, equals, value = change.partition('=')
            if not equals:
                raise TrainingError(f"'{change}' is not of the form part.name=value")
            OmegaConf.update(given, name, yaml.safe_load(value), merge=False)
        experiment = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(Experiment), given))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise TrainingError(f'{source}: {first_line(error)}') from error
    assert isinstance(experiment, Experiment)
    return experiment
