"""
Distillation: a student learns to give what a teacher gives, on pictures that need no label.

The teacher may be far larger than the student, and need not be of this project.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch import Tensor
from vpr_ros.core.errors import TrainingError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.training.checkpoint import load_network
from vpr_ros.training.model import imagenet_weights
from vpr_ros.training.model import load_backbone
from vpr_ros.training.model import PlaceNetwork
from vpr_ros.training.model import read_weights
from vpr_ros.training.model import unit

MATCHES = ('descriptor', 'similarity', 'local', 'stages')
"""What a student can be asked to match: see `Matching`."""


class Outputs(NamedTuple):
    """
    What a network gives for a batch of N pictures.

    stages: maps (N,C,h,w) after each stage of the backbone, by name; the last are the local
    descriptors. descriptor: (N,D) of unit norm. A teacher leaves out what it does not have.
    """

    stages: OrderedDict[str, Tensor]
    descriptor: Tensor | None


def outputs(network: PlaceNetwork, image: Tensor) -> Outputs:
    """Return what `network` gives for pictures uint8 (N,H,W,3); `finish` runs in float32."""
    x = network.normalise(image)
    stages: OrderedDict[str, Tensor] = OrderedDict()
    for name, part in network.backbone.named_children():
        x = part(x)
        stages[name] = x
    with torch.autocast(image.device.type, enabled=False):
        return Outputs(stages, network.finish(x.float()))


class Teacher:
    """
    A network whose outputs are learned; it never changes.

    `source` is a checkpoint of `vpr train` (it has stages and descriptors), weights of a backbone
    or 'imagenet' for torchvision's (stages only), or an ONNX model of this package's contract,
    such as `vpr wrap-model` makes of any published network (descriptors only).
    """

    def __init__(self, source: str | Path, backbone: str = 'resnet18', layer: str = '') -> None:
        """Load the teacher. `backbone` and `layer` say what a file of bare weights belongs to."""
        self.source = Path(source)
        self._network: PlaceNetwork | None = None
        self._encoder: Encoder | None = None
        self._bare = False
        if self.source.suffix == '.onnx':
            self._encoder = Encoder(self.source)
        elif self.source.suffix == '.ckpt':
            self._network = load_network(self.source)[0]
        else:
            self._network = PlaceNetwork(backbone, layer, 'avg').eval()
            weights = imagenet_weights(backbone) if source == 'imagenet' else read_weights(source)
            load_backbone(self._network.backbone, weights, str(source))
            self._bare = True
        if self._network is not None:
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def gives(self, match: str) -> bool:
        """Return whether the teacher has what `match` asks for."""
        if match in ('local', 'stages'):
            return self._network is not None
        return not self._bare

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Outputs:
        """Return the outputs for pictures uint8 (N,H,W,3)."""
        if self._network is not None:
            given = outputs(self._network.to(image.device), image)
            return given._replace(descriptor=None) if self._bare else given
        assert self._encoder is not None
        descriptors = self._encoder.encode_batch(list(image.cpu().numpy()))
        return Outputs(OrderedDict(), torch.from_numpy(descriptors).to(image.device))


class Matching(nn.Module):
    """
    How far a student's outputs are from its teacher's: a weighted sum of what is matched.

    'descriptor': one minus the cosine of both descriptors, the student's mapped to the teacher's
    size by a trained matrix where sizes differ (Hinton et al., 2015, in spirit). 'similarity':
    the squared difference of all cosines within the batch, each network's descriptors centred on
    the batch as maps centre them; sizes need not agree (Park et al., CVPR 2019). 'local': one
    minus the cosine of the last stage's local descriptors, position by position. 'stages': the
    same for the earlier stages that both networks have under one name (Romero et al., ICLR 2015).
    Mappings between sizes are part of the training alone, and end with it.
    """

    def __init__(self, student: PlaceNetwork, teacher: Teacher, weights: dict[str, float],
                 height: int, width: int) -> None:
        """Raise TrainingError for an unknown match, or one that this teacher cannot give."""
        super().__init__()
        self.weights = dict(weights or {'similarity': 1.0})
        for match in self.weights:
            if match not in MATCHES:
                raise TrainingError(f"teacher.match knows no '{match}'; use "
                                    f'{", ".join(MATCHES)}')
            if not teacher.gives(match):
                raise TrainingError(f"{teacher.source} has no outputs for '{match}'")
        self.maps = nn.ModuleDict()
        with torch.no_grad():
            probe = torch.zeros(1, height, width, 3, dtype=torch.uint8)
            given, mine = teacher(probe), outputs(student.eval(), probe)
        self._shared = [name for name in list(mine.stages)[:-1]
                        if _holds_convolutions(student, name) and name in given.stages]
        for name in self._shared if 'stages' in self.weights else ():
            self._map(f'stage_{name}', mine.stages[name], given.stages[name])
        if 'local' in self.weights:
            self._map('local', _last(mine), _last(given))
        if 'descriptor' in self.weights:
            assert mine.descriptor is not None and given.descriptor is not None
            if mine.descriptor.shape != given.descriptor.shape:
                self.maps['descriptor'] = nn.Linear(mine.descriptor.shape[1],
                                                    given.descriptor.shape[1])

    def forward(self, mine: Outputs, given: Outputs) -> dict[str, Tensor]:
        """Return the weighted distance of each match, by its name."""
        found: dict[str, Tensor] = {}
        if 'local' in self.weights:
            found['local'] = self._apart('local', _last(mine), _last(given))
        if 'stages' in self.weights:
            found['stages'] = torch.stack([
                self._apart(f'stage_{name}', mine.stages[name], given.stages[name])
                for name in self._shared]).sum()
        if mine.descriptor is not None and given.descriptor is not None:
            if 'descriptor' in self.weights:
                mapped = (self.maps['descriptor'](mine.descriptor)
                          if 'descriptor' in self.maps else mine.descriptor)
                found['descriptor'] = 1 - nn.functional.cosine_similarity(
                    mapped, given.descriptor).mean()
            if 'similarity' in self.weights:
                difference = _similarities(mine.descriptor) - _similarities(given.descriptor)
                found['similarity'] = difference.square().mean()
        return {name: self.weights[name] * value for name, value in found.items()}

    def _map(self, name: str, mine: Tensor, given: Tensor) -> None:
        if mine.shape[1] != given.shape[1]:
            self.maps[name] = nn.Conv2d(mine.shape[1], given.shape[1], kernel_size=1)

    def _apart(self, name: str, mine: Tensor, given: Tensor) -> Tensor:
        if name in self.maps:
            mine = self.maps[name](mine)
        if given.shape[2:] != mine.shape[2:]:
            given = nn.functional.adaptive_avg_pool2d(given, mine.shape[2:])
        return 1 - nn.functional.cosine_similarity(mine.float(), given.float()).mean()


def _last(given: Outputs) -> Tensor:
    return next(reversed(given.stages.values()))


def _similarities(descriptors: Tensor) -> Tensor:
    centred = unit(descriptors - descriptors.mean(dim=0), dim=1)
    return centred @ centred.T


def _holds_convolutions(network: PlaceNetwork, name: str) -> bool:
    part = network.backbone.get_submodule(name)
    return sum(isinstance(m, nn.Conv2d) for m in part.modules()) > 1
