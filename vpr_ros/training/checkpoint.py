"""
Reading of checkpoints: a trained network together with its experiment.

train.py writes them, through Lightning.
"""

from __future__ import annotations

from pathlib import Path
import pickle
from typing import Any
import zipfile

import torch
from vpr_ros.core.errors import ModelError
from vpr_ros.core.errors import TrainingError
from vpr_ros.training.experiment import Experiment
from vpr_ros.training.experiment import make_experiment
from vpr_ros.training.model import PlaceNetwork

EXPERIMENT = 'experiment'
NETWORK_PREFIX = 'network.'
RESUMED = {'network': ('backbone', 'layer', 'aggregation', 'clusters', 'dimension'),
           'teacher': ('network', 'also', 'match'), 'training': ('freeze', 'freeze_batch_norm')}
"""Values of an experiment, by its part, that decide which parameters a checkpoint holds."""


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], Experiment]:
    """
    Return the weights of a checkpoint's network, by name, and its experiment.

    No code in the file is executed. Raises FileNotFoundError, or ModelError for another file.
    """
    content, experiment = _read(path)
    weights = {name.removeprefix(NETWORK_PREFIX): value
               for name, value in content['state_dict'].items()
               if name.startswith(NETWORK_PREFIX)}
    return weights, experiment


def _read(path: str | Path) -> tuple[dict[str, Any], Experiment]:
    """Return what a checkpoint holds, and its experiment; see `read_checkpoint`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint')
    try:
        content: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
        described = content[EXPERIMENT]
        content['state_dict'].items()
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, TypeError, IndexError,
            AttributeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ModelError(f'{path} is not a checkpoint of `vpr train`') from error
    if '${' in repr(described):  # OmegaConf would put the user's environment in its place
        raise ModelError(f'{path} is not a checkpoint of `vpr train`: its experiment refers to '
                         'other values')
    return content, make_experiment(described, source=str(path))


def read_progress(path: str | Path, experiment: Experiment) -> tuple[int, int]:
    """
    Return the number of steps and of epochs after which a checkpoint was written.

    Raises TrainingError when its training had another network or optimiser state than that of
    `experiment`. What may change between runs, such as training.epochs, is not compared.
    """
    content, described = _read(path)
    before, now = described.as_dict(), experiment.as_dict()
    changed = [f'{part}.{name} is {now[part][name]!r}, and was {before[part][name]!r}'
               for part, names in RESUMED.items() for name in names
               if now[part][name] != before[part][name]]
    if changed:
        raise TrainingError(f'{path} cannot be resumed: {"; ".join(changed)}. Set the old value, '
                            'or train in another folder with network.weights set to it')
    return int(content['global_step']), int(content['epoch']) + 1


def load_network(path: str | Path) -> tuple[PlaceNetwork, Experiment]:
    """
    Return a checkpoint's network, in eval mode, and its experiment.

    Raises FileNotFoundError, or ModelError for a file that is not a checkpoint or whose weights do
    not fit the network that its experiment describes.
    """
    weights, experiment = read_checkpoint(path)
    described = experiment.network
    network = PlaceNetwork(described.backbone, described.layer, described.aggregation,
                           described.clusters, described.dimension)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f'{path} does not hold the network that its experiment describes'
                         ) from error
    return network.eval(), experiment
