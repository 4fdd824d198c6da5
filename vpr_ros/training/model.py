"""The network: picture -> backbone -> aggregation -> whitening -> descriptor, all differentiable.

How its parameters get their first values is in initialise.py; how it becomes a file, in export.py.
"""

from __future__ import annotations

import torch
from torch import nn
from torch import Tensor
from torchvision.models import resnet18

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = 256
"""Channels of a local descriptor: the width of ResNet-18's layer3."""


def unit(x: Tensor, dim: int) -> Tensor:
    """Scale to L2 norm 1 along `dim`; a zero vector stays zero, where a division would be NaN."""
    return x / x.square().sum(dim=dim, keepdim=True).sqrt().clamp_min(1e-6)


class Normalise(nn.Module):
    """Pixels to network input: uint8 (N,H,W,3) RGB -> float32 (N,3,H,W), minus mean, over std."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # (3) -> (3,1,1), in units of uint8 so that one subtraction and one division do it all
        self.register_buffer('mean', 255.0 * torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1))
        self.register_buffer('std', 255.0 * torch.tensor(IMAGENET_STD).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Normalise a batch of pictures."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)  # (N,H,W,3) -> (N,3,H,W)
        return (pixels - self.mean) / self.std


class NetVLAD(nn.Module):
    """Sums of residuals to soft-assigned centres, after Arandjelovic et al., CVPR 2016.

    a_k(x) = softmax_k(W_k x + b_k) and V(j,k) = sum_i a_k(x_i) (x_i(j) - c_k(j)), of local
    descriptors x_i with unit norm. W, b and c learn independently of one another; they start from
    centres with W = 2 alpha c and b = -alpha ||c||^2 (see `start`).
    """

    def __init__(self, clusters: int, channels: int = CHANNELS) -> None:
        super().__init__()
        self.clusters = clusters
        self.channels = channels
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


def resnet18_to_layer3() -> nn.Sequential:
    """Return torchvision's ResNet-18 up to layer3, untrained: (N,3,H,W) -> (N,256,H/16,W/16)."""
    whole = resnet18(weights=None)
    return nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool,
                         whole.layer1, whole.layer2, whole.layer3)


class PlaceNetwork(nn.Module):
    """Pictures uint8 (N,H,W,3) RGB -> descriptors float32 (N,D) of unit norm."""

    def __init__(self, clusters: int = 64, dimension: int = 256) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.backbone = resnet18_to_layer3()
        self.aggregation = NetVLAD(clusters)
        self.whitening = nn.Linear(clusters * CHANNELS, dimension)

    @property
    def dimension(self) -> int:
        """Length D of a descriptor."""
        return self.whitening.out_features

    def features(self, image: Tensor) -> Tensor:
        """Return the local descriptors (N,256,H/16,W/16), before their normalisation."""
        local: Tensor = self.backbone(self.normalise(image))
        return local

    def vlad(self, image: Tensor) -> Tensor:
        """Return the VLAD vectors (N,K*256), before whitening."""
        vector: Tensor = self.aggregation(self.features(image))
        return vector

    def forward(self, image: Tensor) -> Tensor:
        """Describe a batch of pictures."""
        return unit(self.whitening(self.vlad(image)), dim=1)
