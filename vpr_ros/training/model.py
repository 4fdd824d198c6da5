"""
The network: image -> backbone -> aggregation -> whitening -> descriptor, all differentiable.

Its weights are read in weights.py, fitted to data in initialise.py and exported in export.py.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch import Tensor
import torchvision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BACKBONES = {
    'resnet18': 'layer3',
    'resnet34': 'layer3',
    'resnet50': 'layer3',
    'vgg16': '28',               # conv5_3, before its ReLU, as in the NetVLAD paper
    'alexnet': '10',             # conv5
    'mobilenet_v3_large': '15',
    'squeezenet1_1': '12',
    'densenet121': 'denseblock3',
}
"""torchvision's networks, and the default layer after which each is cut."""


def unit(x: Tensor, dim: int) -> Tensor:
    """Scale to L2 norm 1 along `dim`; a zero vector stays zero, where a division would be NaN."""
    return x / x.square().sum(dim=dim, keepdim=True).sqrt().clamp_min(1e-6)


class Normalise(nn.Module):
    """Input normalisation: uint8 (N,H,W,3) RGB -> float32 (N,3,H,W), (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # (3) -> (3,1,1), in grey levels, so that pixels need no division by 255
        self.register_buffer('mean', 255.0 * torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1))
        self.register_buffer('std', 255.0 * torch.tensor(IMAGENET_STD).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Normalise a batch of images."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)  # (N,H,W,3) -> (N,3,H,W)
        return (pixels - self.mean) / self.std


class NetVLAD(nn.Module):
    """
    Sums of residuals to soft-assigned centres, after Arandjelovic et al., CVPR 2016.

    a_k(x) = softmax_k(W_k x + b_k) and V(j,k) = sum_i a_k(x_i) (x_i(j) - c_k(j)), of local
    descriptors x_i with unit norm. W, b and c are learned independently; they are initialised from
    centres, with W = 2 alpha c and b = -alpha ||c||^2 (see `start`).
    """

    def __init__(self, channels: int, clusters: int = 64) -> None:
        super().__init__()
        self.clusters = clusters
        self.channels = channels
        self.dimension = clusters * channels
        self.assign = nn.Conv2d(channels, clusters, kernel_size=1)
        self.centres = nn.Parameter(torch.zeros(clusters, channels))

    @torch.no_grad()
    def start(self, centres: Tensor, alpha: float) -> None:
        """Set c to `centres` (K,C), and W and b so that a_k ~ exp(-alpha ||x - c_k||^2)."""
        if centres.shape != self.centres.shape:
            raise ValueError(f'NetVLAD has centres of shape {tuple(self.centres.shape)}; '
                             f'got {tuple(centres.shape)}')
        self.centres.copy_(centres)
        weight = 2.0 * alpha * centres
        self.assign.weight.copy_(weight[:, :, None, None])  # (K,C) -> (K,C,1,1)
        assert self.assign.bias is not None
        self.assign.bias.copy_(-alpha * centres.square().sum(dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Aggregate local descriptors (N,C,H,W) to VLAD vectors (N,K*C) of unit norm."""
        x = unit(features, dim=1)
        share = self.assign(x).flatten(2).softmax(dim=1)  # (N,K,H,W) -> (N,K,HW)
        x = x.flatten(2).transpose(1, 2)  # (N,C,H,W) -> (N,HW,C)
        # sum_i a_k x_i - (sum_i a_k) c_k: the residuals (N,K,C,HW) themselves are never stored
        vlad = share @ x - share.sum(dim=2, keepdim=True) * self.centres  # (N,K,C)
        vlad = unit(vlad, dim=2)  # intra-normalisation: no centre outweighs the others
        return unit(vlad.flatten(1), dim=1)  # (N,K,C) -> (N,K*C)


class GeM(nn.Module):
    """Generalised mean with a trainable power, after Radenovic et al., TPAMI 2019."""

    def __init__(self, channels: int, power: float = 3.0) -> None:
        super().__init__()
        self.dimension = channels
        self.power = nn.Parameter(torch.tensor(power))

    def forward(self, features: Tensor) -> Tensor:
        """Aggregate local descriptors (N,C,H,W) to (N,C) of unit norm."""
        powered = features.clamp_min(1e-6) ** self.power
        return unit(powered.mean(dim=(2, 3)) ** (1.0 / self.power), dim=1)


class Average(nn.Module):
    """Mean over the image (SPoC, Babenko and Lempitsky, ICCV 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dimension = channels

    def forward(self, features: Tensor) -> Tensor:
        """Aggregate local descriptors (N,C,H,W) to (N,C) of unit norm."""
        return unit(features.mean(dim=(2, 3)), dim=1)


class Maximum(nn.Module):
    """Maximum over the image (MAC, Tolias et al., ICLR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dimension = channels

    def forward(self, features: Tensor) -> Tensor:
        """Aggregate local descriptors (N,C,H,W) to (N,C) of unit norm."""
        return unit(features.amax(dim=(2, 3)), dim=1)


class Pyramid(nn.Module):
    """Maxima over a pyramid of 1x1, 2x2 and 4x4 cells (SPP, He et al., TPAMI 2015)."""

    def __init__(self, channels: int, levels: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.levels = levels
        self.dimension = channels * sum(level ** 2 for level in levels)

    def forward(self, features: Tensor) -> Tensor:
        """Aggregate local descriptors (N,C,H,W) to (N,21 C) of unit norm."""
        # adaptive_max_pool2d, cell by cell: ONNX has no such operator
        height, width = features.shape[2:]
        cells = [features[:, :, top:bottom, left:right].amax(dim=(2, 3))
                 for level in self.levels
                 for top, bottom in _cells(height, level) for left, right in _cells(width, level)]
        return unit(torch.cat(cells, dim=1), dim=1)


def _cells(length: int, count: int) -> list[tuple[int, int]]:
    """Return the begin and end of `count` cells that cover `length`, overlapping if necessary."""
    # No -(-a // b): for a dynamic size this exports as ONNX's division, which rounds towards zero.
    return [(i * length // count, ((i + 1) * length + count - 1) // count) for i in range(count)]


AGGREGATIONS = {'netvlad': NetVLAD, 'gem': GeM, 'avg': Average, 'max': Maximum, 'spp': Pyramid}


class PlaceNetwork(nn.Module):
    """
    Images uint8 (N,H,W,3) RGB -> descriptors float32 (N,D) of unit norm.

    `backbone` is one of BACKBONES, cut after `layer` ('' for its default), with random weights;
    `aggregation` is one of AGGREGATIONS, with `clusters` centres if it is NetVLAD; `dimension` is
    D, or 0 for no whitening: the aggregated vector is then the descriptor. Takes any input size
    large enough for the backbone. Raises ValueError, with the choices, for unknown names.
    """

    def __init__(self, backbone: str = 'resnet18', layer: str = '', aggregation: str = 'netvlad',
                 clusters: int = 64, dimension: int = 0) -> None:
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation '{aggregation}' is not known; use one of "
                             f'{", ".join(AGGREGATIONS)}')
        self.normalise = Normalise()
        self.backbone = cut_backbone(backbone, layer)
        channels = _channels(self.backbone)
        self.aggregation = (NetVLAD(channels, clusters) if aggregation == 'netvlad'
                            else AGGREGATIONS[aggregation](channels))
        self.whitening = (nn.Linear(self.aggregation.dimension, dimension) if dimension
                          else nn.Identity())
        self.dimension = dimension or self.aggregation.dimension

    def features(self, image: Tensor) -> Tensor:
        """Return the local descriptors (N,C,h,w), before their normalisation."""
        local: Tensor = self.backbone(self.normalise(image))
        return local

    def aggregate(self, image: Tensor) -> Tensor:
        """Return the aggregated vectors (N,A) of unit norm, before whitening."""
        return self.finish(self.features(image), whiten=False)

    def finish(self, features: Tensor, *, whiten: bool = True) -> Tensor:
        """Return the descriptors (N,D) of local descriptors (N,C,h,w)."""
        vector: Tensor = self.aggregation(features)
        return unit(self.whitening(vector), dim=1) if whiten else vector

    def forward(self, image: Tensor) -> Tensor:
        """Describe a batch of images."""
        return self.finish(self.features(image))


def cut_backbone(name: str, layer: str = '') -> nn.Sequential:
    """
    Return torchvision's network `name` up to and including `layer`, with random weights.

    The parts keep torchvision's names, so that its weights fit. Raises ValueError, with the
    choices, for an unknown name or layer.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone '{name}' is not known; use one of {', '.join(BACKBONES)}")
    whole = getattr(torchvision.models, name)(weights=None)
    parts = list(getattr(whole, 'features', whole).named_children())
    names = [part for part, _ in parts]
    layer = layer or BACKBONES[name]
    if layer not in names:
        raise ValueError(f"{name} has no layer '{layer}'; it has {', '.join(names)}")
    return nn.Sequential(OrderedDict(parts[:names.index(layer) + 1]))


@torch.no_grad()
def _channels(backbone: nn.Module) -> int:
    was_training = backbone.training
    channels = int(backbone.eval()(torch.zeros(1, 3, 96, 96)).shape[1])
    backbone.train(was_training)
    return channels
