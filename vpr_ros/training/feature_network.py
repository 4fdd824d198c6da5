"""
A network that finds local features: where corners are, how reliable, and what they look like.

It sees the grey image at 1/2 to 1/32 of its size. Keypoints come from cells of 8x8 pixels, as in
SuperPoint (DeTone et al. 2018), reliability and cheap descriptors are those of XFeat's kind
(Potje et al. 2024). The training is in features.py, the contract of the file in
encoding/features.py.
"""

from __future__ import annotations

import torch
from torch import nn
from torch import Tensor
from torch.nn import functional

CELL = 8
"""Pixels of the side of a cell, which has at most one keypoint in training."""

_DEEPEST = 32           # the size of an image is padded to a multiple of this
_NOISE = 4.0 / 255      # contrast below which there is only noise
_APART = 5              # pixels: the window in which one keypoint is the best
_REACH = 2              # pixels around it whose heat says where between them it is
_WINDOW = 2 * _REACH + 1


class FeatureNetwork(nn.Module):
    """
    From grey images (B,1,H,W) in 0..1, of sizes that 32 divides, to maps of features.

    `describe` gives descriptors of `dimension` at points of those.
    """

    def __init__(self, dimension: int = 64) -> None:
        super().__init__()
        self.dimension = dimension
        self.to_2 = nn.Sequential(_conv(2, 16, 2, size=5), _conv(16, 16))
        self.to_4 = nn.Sequential(_conv(16, 32, 2), _conv(32, 32))
        self.to_8 = nn.Sequential(_conv(32, 64, 2), _conv(64, 64))
        self.to_16 = nn.Sequential(_conv(64, 96, 2), _conv(96, 96))
        self.to_32 = nn.Sequential(_conv(96, 96, 2), _conv(96, 96))
        self.lateral = nn.Conv2d(96, 64, 1)
        self.merged = _conv(64, 64)
        self.detail = nn.Conv2d(16, 64, CELL // 2, CELL // 2)   # all pixels of a cell
        self.surroundings = nn.Conv2d(64, 64, 1)
        self.keypoints = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU(),
                                       nn.Conv2d(64, CELL * CELL + 1, 1))
        self.reliability = nn.Conv2d(64, 1, 1)
        self.descriptor = nn.Sequential(nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, dimension))

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Return the logits of keypoints (B,65,H/8,W/8) and of reliability (B,1,H/8,W/8), and maps.

        The last of the 65 is that of no keypoint. The maps are (B,64,H/8,W/8) and (B,32,H/4,W/4).
        """
        half = self.to_2(_normalised(grey))                             # (B,16,H/2,W/2)
        quarter = self.to_4(half)                                    # (B,32,H/4,W/4)
        eighth = self.to_8(quarter)                                   # (B,64,H/8,W/8)
        context = self.to_16(eighth)                                  # (B,96,H/16,W/16)
        context = context + _doubled(self.to_32(context))
        coarse = self.merged(functional.relu(eighth + _doubled(self.lateral(context))))
        logits = self.keypoints(self.detail(half) + self.surroundings(coarse))
        return logits, self.reliability(coarse), coarse, quarter

    def describe(self, coarse: Tensor, quarter: Tensor, points: Tensor) -> Tensor:
        """Return descriptors (B,N,D) of length 1 at points (B,N,2), in pixels of the image."""
        looks = torch.cat([_sampled(coarse, points / CELL), _sampled(quarter, points / 4)], dim=2)
        return functional.normalize(self.descriptor(looks), dim=2)


class Detector(nn.Module):
    """What is exported: a uint8 image (1,H,W,1) becomes its best `count` features."""

    def __init__(self, network: FeatureNetwork, count: int) -> None:
        super().__init__()
        self.network = network
        self.count = count

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keypoints (K,2) in pixels, scores (K,) and descriptors (K,D)."""
        height, width = image.shape[1], image.shape[2]
        rows, columns = (torch.arange((side + _DEEPEST - 1) // _DEEPEST * _DEEPEST)
                         .clamp(max=side - 1) for side in (height, width))
        grey = image.permute(0, 3, 1, 2)[:, :, rows][..., columns].float() / 255
        logits, reliability, coarse, quarter = self.network(grey)
        heat = heat_map(logits, reliability)[:, :, :height, :width]
        peaks = functional.max_pool2d(heat, (1, _APART), 1, (0, _APART // 2))
        peaks = functional.max_pool2d(peaks, (_APART, 1), 1, (_APART // 2, 0))
        flat = torch.where(heat == peaks, heat, 0).flatten()
        # Of a small image some are of score 0, which are none.
        scores, found = functional.pad(flat, (0, self.count)).topk(self.count)
        found = torch.where(scores > 0, found, 0)
        whole = torch.stack([torch.arange(width).expand(height, width).flatten()[found],
                             torch.arange(height)[:, None].expand(height, width).flatten()[found]],
                            dim=1)                                      # (K,2)
        points = whole + _offsets(heat[0, 0], whole)
        return points, scores, self.network.describe(coarse, quarter, points[None])[0]


def heat_map(logits: Tensor, reliability: Tensor) -> Tensor:
    """Return how probably a pixel is a keypoint that is found again, (B,1,H,W)."""
    share = logits.softmax(dim=1)[:, :-1] * reliability.sigmoid()
    return functional.pixel_shuffle(share, CELL)


def _offsets(heat: Tensor, whole: Tensor) -> Tensor:
    """Return by how much (K,2) the mean of the heat (H,W) around each pixel (K,2) is beside it."""
    padded = functional.pad(heat[None, None], (_REACH, _REACH, _REACH, _REACH))[0, 0]
    right = torch.arange(_WINDOW).repeat(_WINDOW)
    below = torch.arange(_WINDOW).repeat_interleave(_WINDOW)
    around = padded[whole[:, 1:] + below, whole[:, :1] + right]         # (K,25)
    beside = torch.stack([right - _REACH, below - _REACH], dim=1).float()
    return around @ beside / around.sum(dim=1, keepdim=True).clamp(min=1e-9)


def _normalised(grey: Tensor) -> Tensor:
    """Return the image by its own contrast and by that of its surroundings, (B,2,H,W)."""
    mean = grey.mean(dim=(2, 3), keepdim=True)
    spread = (grey - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
    small = functional.avg_pool2d(torch.cat([grey, grey.square()], dim=1), CELL)
    small = functional.avg_pool2d(small, 3, 1, 1, count_include_pad=False)
    light, power = functional.interpolate(small, scale_factor=float(CELL), mode='bilinear',
                                          align_corners=False).split(1, dim=1)
    contrast = ((power - light.square()).clamp(min=0) + _NOISE ** 2).sqrt()
    return torch.cat([(grey - mean) / (spread + _NOISE), (grey - light) / contrast], dim=1)


def _sampled(features: Tensor, points: Tensor) -> Tensor:
    """
    Return features (B,C,h,w) between their pixels at points (B,N,2), (B,N,C).

    ONNX Runtime's GridSample takes ten times as long.
    """
    rows = features.permute(0, 2, 3, 1)                                 # (B,h,w,C)
    batch = torch.arange(len(points))[:, None]
    x, y = (points[..., axis].clamp(0, features.shape[3 - axis] - 1) for axis in (0, 1))
    left, top = x.floor().long(), y.floor().long()
    right = (left + 1).clamp(max=features.shape[3] - 1)
    below = (top + 1).clamp(max=features.shape[2] - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    above = (1 - across) * rows[batch, top, left] + across * rows[batch, top, right]
    under = (1 - across) * rows[batch, below, left] + across * rows[batch, below, right]
    return (1 - down) * above + down * under


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode='nearest')


def _conv(inputs: int, outputs: int, stride: int = 1, *, size: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
                         nn.BatchNorm2d(outputs), nn.ReLU())
