"""
Distillation: a student learns to reproduce a teacher's outputs, on unlabelled images.

The teacher may be far larger than the student, and may come from elsewhere, as an ONNX model.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch import Tensor
from vpr_ros.core.errors import TrainingError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.training.checkpoint import load_network
from vpr_ros.training.model import PlaceNetwork
from vpr_ros.training.model import unit
from vpr_ros.training.weights import initial_weights
from vpr_ros.training.weights import load_backbone

if TYPE_CHECKING:
    from collections.abc import Sequence

MATCHES = ('descriptor', 'similarity', 'local', 'stages')
"""Outputs that a student can match: see `DistillationLoss`."""


class NetworkOutputs(NamedTuple):
    """
    The outputs of a network for a batch of N images.

    stages: feature maps (N,C,h,w) after each stage of the backbone, by name; the last are the
    local descriptors. descriptor: (N,D) of unit norm. A teacher without stages has an empty
    dictionary, one without descriptors has None.
    """

    stages: OrderedDict[str, Tensor]
    descriptor: Tensor | None


def network_outputs(network: PlaceNetwork, image: Tensor) -> NetworkOutputs:
    """Return the outputs of `network` for images uint8 (N,H,W,3); `finish` runs in float32."""
    x = network.normalise(image)
    stages: OrderedDict[str, Tensor] = OrderedDict()
    for name, part in network.backbone.named_children():
        x = part(x)
        stages[name] = x
    with torch.autocast(image.device.type, enabled=False):
        return NetworkOutputs(stages, network.finish(x.float()))


class Teacher:
    """
    A fixed network whose outputs a student learns.

    `source` is a checkpoint of `vpr train` (it has stages and descriptors), weights of a backbone
    or 'imagenet' for torchvision's (stages only), or an ONNX model of this package's format, such
    as `vpr wrap-model` makes of any published network (descriptors only). Those of the teachers
    `also` are joined to its own: the similarity of the joined ones is the mean over all teachers.
    Raises TrainingError where one of several has no descriptors.
    """

    def __init__(self, source: str | Path, backbone: str = 'resnet18', layer: str = '', *,
                 also: Sequence[str | Path] = ()) -> None:
        """Load the teacher; `backbone` and `layer` are those of a file of bare weights."""
        self.source = Path(source)
        self._others = [Teacher(other, backbone, layer) for other in also]
        self._network: PlaceNetwork | None = None
        self._encoder: Encoder | None = None
        self._bare = False
        if self.source.suffix == '.onnx':
            self._encoder = Encoder(self.source)
        elif self.source.suffix == '.ckpt':
            self._network = load_network(self.source)[0]
        else:
            self._network = PlaceNetwork(backbone, layer, 'avg').eval()
            load_backbone(self._network.backbone, initial_weights(str(source), backbone),
                          str(source))
            self._bare = True
        if self._network is not None:
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        without = [str(teacher.source) for teacher in (self, *self._others)
                   if self._others and not teacher.provides('descriptor')]
        if without:
            raise TrainingError(f'{without[0]} has no descriptors to join with those of others')

    def provides(self, match: str) -> bool:
        """Return whether the teacher has the outputs for `match`."""
        if match in ('local', 'stages'):
            return self._network is not None
        return not self._bare

    @torch.no_grad()
    def __call__(self, image: Tensor) -> NetworkOutputs:
        """Return the outputs for images uint8 (N,H,W,3)."""
        target = self._own(image)
        if not self._others:
            return target
        parts = [target.descriptor, *(other(image).descriptor for other in self._others)]
        return target._replace(descriptor=torch.cat([
            part for part in parts if part is not None], dim=1) / len(parts) ** 0.5)

    def _own(self, image: Tensor) -> NetworkOutputs:
        if self._network is not None:
            target = network_outputs(self._network.to(image.device), image)
            return target._replace(descriptor=None) if self._bare else target
        assert self._encoder is not None
        descriptors = self._encoder.encode_batch(list(image.cpu().numpy()))
        return NetworkOutputs(OrderedDict(), torch.from_numpy(descriptors).to(image.device))


class DistillationLoss(nn.Module):
    """
    Distance of a student's outputs to its teacher's: a weighted sum over what is matched.

    'descriptor': one minus the cosine of both descriptors; where sizes differ, a trained matrix
    maps the student's to the teacher's size (in the spirit of Hinton et al., 2015). 'similarity':
    the squared difference of all cosines within the batch, with each network's descriptors centred
    on the batch as maps centre them; sizes may differ (Park et al., CVPR 2019). 'local': one minus
    the cosine of the last stage's local descriptors, position by position. 'stages': the same for
    the earlier stages that both networks have under one name (Romero et al., ICLR 2015). The
    trained mappings between sizes are used in training only, and are not exported.
    """

    def __init__(self, student: PlaceNetwork, teacher: Teacher, weights: dict[str, float],
                 height: int, width: int) -> None:
        """Raise TrainingError for an unknown match, or one that this teacher does not provide."""
        super().__init__()
        self.weights = dict(weights or {'similarity': 1.0})
        self._check_matches(teacher)
        self.maps = nn.ModuleDict()
        with torch.no_grad():
            probe = torch.zeros(1, height, width, 3, dtype=torch.uint8)
            target, output = teacher(probe), network_outputs(student.eval(), probe)
        self._shared = [name for name in list(output.stages)[:-1]
                        if _holds_convolutions(student, name) and name in target.stages]
        if 'stages' in self.weights:
            for name in self._shared:
                self._add_map(f'stage_{name}', output.stages[name], target.stages[name])
        if 'local' in self.weights:
            self._add_map('local', _last_stage(output), _last_stage(target))
        if 'descriptor' in self.weights:
            assert output.descriptor is not None and target.descriptor is not None
            sizes = output.descriptor.shape[1], target.descriptor.shape[1]
            if sizes[0] != sizes[1]:
                self.maps['descriptor'] = nn.Linear(*sizes)

    def _check_matches(self, teacher: Teacher) -> None:
        for match in self.weights:
            if match not in MATCHES:
                raise TrainingError(f"teacher.match knows no '{match}'; use "
                                    f'{", ".join(MATCHES)}')
            if not teacher.provides(match):
                raise TrainingError(f"{teacher.source} has no outputs for '{match}'")

    def forward(self, output: NetworkOutputs, target: NetworkOutputs) -> dict[str, Tensor]:
        """Return the weighted distance of each match, by its name."""
        distances: dict[str, Tensor] = {}
        if 'local' in self.weights:
            distances['local'] = self._distance('local', _last_stage(output), _last_stage(target))
        if 'stages' in self.weights:
            distances['stages'] = torch.stack([
                self._distance(f'stage_{name}', output.stages[name], target.stages[name])
                for name in self._shared]).sum()
        if output.descriptor is not None and target.descriptor is not None:
            if 'descriptor' in self.weights:
                mapped = (self.maps['descriptor'](output.descriptor)
                          if 'descriptor' in self.maps else output.descriptor)
                distances['descriptor'] = 1 - nn.functional.cosine_similarity(
                    mapped, target.descriptor).mean()
            if 'similarity' in self.weights:
                difference = _similarities(output.descriptor) - _similarities(target.descriptor)
                distances['similarity'] = difference.square().mean()
        return {name: self.weights[name] * value for name, value in distances.items()}

    def _add_map(self, name: str, output: Tensor, target: Tensor) -> None:
        """Add a trained 1x1 convolution if the numbers of channels differ."""
        if output.shape[1] != target.shape[1]:
            self.maps[name] = nn.Conv2d(output.shape[1], target.shape[1], kernel_size=1)

    def _distance(self, name: str, output: Tensor, target: Tensor) -> Tensor:
        if name in self.maps:
            output = self.maps[name](output)
        if target.shape[2:] != output.shape[2:]:
            target = nn.functional.adaptive_avg_pool2d(target, output.shape[2:])
        return 1 - nn.functional.cosine_similarity(output.float(), target.float()).mean()


def _last_stage(outputs: NetworkOutputs) -> Tensor:
    return next(reversed(outputs.stages.values()))


def _similarities(descriptors: Tensor) -> Tensor:
    centred = unit(descriptors - descriptors.mean(dim=0), dim=1)
    return centred @ centred.T


def _holds_convolutions(network: PlaceNetwork, name: str) -> bool:
    part = network.backbone.get_submodule(name)
    return sum(isinstance(m, nn.Conv2d) for m in part.modules()) > 1
