"""
The configuration of an experiment: from a YAML file to checked dataclasses.

docs/training.md explains every value. No data is read here, and nothing is trained.
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


FEATURES = 'features'
"""The kind of the experiments that train a feature network; others have none."""

CHOICES = {('network', 'take'): ('backbone', 'all'),
           ('batch', 'mining'): ('batch', 'partial', 'full'),
           ('training', 'schedule'): ('cosine', 'step')}
"""The values that a name in a part of an experiment may have."""


@dataclass(frozen=True)
class Network:
    """
    The network to train.

    `weights` is 'imagenet', 'random', a weights file, an exported model or a checkpoint. `take`
    is what is taken of the last two: the 'backbone', or 'all' of the same network.
    """

    backbone: str = 'resnet18'
    layer: str = ''
    aggregation: str = 'netvlad'
    clusters: int = 64
    dimension: int = 512
    height: int = 240
    width: int = 320
    weights: str = 'imagenet'
    take: str = 'backbone'


@dataclass(frozen=True)
class Batch:
    """
    Composition of a batch: `areas` x `places` x `pictures` images.

    `mining` is 'batch' (areas are of neighbouring places; hard negatives are found within a
    batch), 'partial' (areas are of places that look alike, of `mined` places per epoch), or 'full'
    (of all places).
    """

    areas: int = 4
    places: int = 4
    pictures: int = 4
    mining: str = 'batch'
    mined: int = 1000


@dataclass(frozen=True)
class Relations:
    """
    Images at most `within` metres apart are positives, those more than `beyond` metres negatives.

    A query of the validation is correct within `tolerance` metres.
    """

    within: float = 5.0
    beyond: float = 15.0
    tolerance: float = 5.0


@dataclass(frozen=True)
class Loss:
    """Loss on the descriptors: 'triplet', 'contrastive', 'multi-similarity', or 'none'."""

    kind: str = 'triplet'
    weight: float = 1.0
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TeacherOptions:
    """
    The network to distil: a checkpoint, an ONNX model, or a weights file; '' for none.

    `also` are further networks, whose descriptors are joined to its own: the student learns what
    they see together. `match` has the weight of each output to match: 'descriptor', 'similarity',
    'local', 'stages'; 'similarity' alone if empty.
    """

    network: str = ''
    also: list[str] = field(default_factory=list)
    match: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """
    The optimisation.

    `batches` limits the batches of an epoch, 0 for whole epochs. After the warm-up the learning
    rate falls as a 'cosine', or to `step_factor` of itself every `step_epochs` epochs ('step').
    The backbone is fixed up to and including the layer `freeze`; '' for none.
    """

    epochs: int = 20
    batches: int = 0
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup: float = 0.05
    schedule: str = 'cosine'
    step_epochs: int = 5
    step_factor: float = 0.5
    freeze: str = ''
    precision: str = 'bf16-mixed'
    freeze_batch_norm: bool = True
    patience: int = 10
    workers: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Experiment:
    """A whole experiment, as stored in every checkpoint."""

    network: Network = field(default_factory=Network)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    validation: dict[str, dict[str, Any]] = field(default_factory=dict)
    relations: Relations = field(default_factory=Relations)
    batch: Batch = field(default_factory=Batch)
    augmentation: str = 'strong'
    loss: Loss = field(default_factory=Loss)
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    training: Training = field(default_factory=Training)

    def as_dict(self) -> dict[str, Any]:
        """Return the experiment as plain values, as a checkpoint stores it."""
        return asdict(self)


@dataclass(frozen=True)
class FeatureTraining:
    """
    The optimisation of a feature network: `steps` batches of `batch` pairs.

    They are of `width` x `height` pixels, which 32 divides. At most `points` of a pair are
    compared. The learning rate rises over `warmup` of the steps, and falls as a cosine.
    """

    steps: int = 4000
    batch: int = 8
    width: int = 224
    height: int = 160
    points: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.03
    seed: int = 0


@dataclass(frozen=True)
class FeatureExperiment:
    """
    A whole experiment of the kind 'features': a network that finds local features.

    `views` are the fields of ViewOptions (feature_views.py), `dimension` that of a descriptor.
    """

    kind: str = FEATURES
    views: dict[str, Any] = field(default_factory=dict)
    dimension: int = 64
    training: FeatureTraining = field(default_factory=FeatureTraining)

    def as_dict(self) -> dict[str, Any]:
        """Return the experiment as plain values, as a checkpoint stores it."""
        return asdict(self)


def read_experiment(path: str | Path, changes: Sequence[str] = ()
                    ) -> Experiment | FeatureExperiment:
    """
    Read an experiment; `changes` are 'part.name=value', as from the command line.

    Raises FileNotFoundError, or TrainingError for a file that is not YAML, an unknown name, or a
    value of the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such experiment')
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f'{path} is not YAML: {first_line(error)}') from error
    if isinstance(values, dict) and 'kind' in values:
        return make_feature_experiment(values, changes, str(path))
    return make_experiment(values, changes, str(path))


def make_experiment(values: dict[str, Any], changes: Sequence[str] = (), source: str = 'experiment'
                    ) -> Experiment:
    """Return the experiment of plain values, checked as by `read_experiment`."""
    experiment = _structured(Experiment, values, changes, source)
    assert isinstance(experiment, Experiment)
    for (part, name), choices in CHOICES.items():
        value = getattr(getattr(experiment, part), name)
        if value not in choices:
            raise TrainingError(f"{source}: {part}.{name} '{value}' is not known; use one of "
                                f'{", ".join(choices)}')
    return experiment


def make_feature_experiment(values: dict[str, Any], changes: Sequence[str] = (),
                            source: str = 'experiment') -> FeatureExperiment:
    """Return the experiment of the kind 'features' of plain values, checked."""
    experiment = _structured(FeatureExperiment, values, changes, source)
    assert isinstance(experiment, FeatureExperiment)
    if experiment.kind != FEATURES:
        raise TrainingError(f"{source}: kind '{experiment.kind}' is not known; use {FEATURES}, or "
                            'leave it out for a network of places')
    options = experiment.training
    if (min(options.steps, options.batch, options.points, experiment.dimension) < 1
            or min(options.width, options.height) < 1
            or options.width % 32 or options.height % 32):
        raise TrainingError(f'{source}: steps, batch, points and dimension must be above zero, '
                            'and 32 must divide training.width and training.height')
    return experiment


def _structured(kind: type, values: dict[str, Any], changes: Sequence[str], source: str) -> Any:
    """Return the dataclass `kind` of plain values; raise TrainingError for others."""
    try:
        config = OmegaConf.create(values)
        for change in changes:
            name, equals, value = change.partition('=')
            if not equals:
                raise TrainingError(f"'{change}' is not of the form part.name=value")
            OmegaConf.update(config, name, yaml.safe_load(value), merge=False)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), config))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise TrainingError(f'{source}: {first_line(error)}') from error
