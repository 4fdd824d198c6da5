"""The first convolution, in a form that takes the picture's bytes: what 8 bits compute fast.

Instructions of 8 bits take four channels or more at once, where a picture has three; and its
normalised values would have to be rounded again to what bytes are by nature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch import Tensor

if TYPE_CHECKING:
    from vpr_ros.training.model import PlaceNetwork

Margins = tuple[int, int, int, int]
"""Pixels to add at the top, the bottom, the left and the right; fewer than none are cut off."""


class PixelBlocks(nn.Module):
    """Pictures uint8 (N,H,W,3) -> their blocks of s x s pixels, float32 (N,3 s s,h,w), unscaled.

    Margins have one colour, uint8 (3,).
    """

    colour: Tensor

    def __init__(self, block: int, margins: Margins, colour: Tensor) -> None:
        super().__init__()
        self.block = block
        self.margins = margins
        self.register_buffer('colour', colour)

    def forward(self, image: Tensor) -> Tensor:
        """Cut a batch of pictures into blocks."""
        top, bottom, left, right = self.margins
        count, height, width = image.shape[:3]
        image = image[:, :height + min(0, bottom), :width + min(0, right)]
        rows, columns = image.shape[1] + top + max(0, bottom), image.shape[2]
        image = torch.cat([self.colour.expand(count, top, columns, 3), image,
                           self.colour.expand(count, max(0, bottom), columns, 3)], dim=1)
        image = torch.cat([self.colour.expand(count, rows, left, 3), image,
                           self.colour.expand(count, rows, max(0, right), 3)], dim=2)
        # (N,hs,ws,3) -> (N,h,s,w,s,3) -> (N,h,w,s,s,3) -> (N,h,w,3ss) -> (N,3ss,h,w)
        blocks = image.unflatten(2, (-1, self.block)).unflatten(1, (-1, self.block))
        return blocks.permute(0, 1, 3, 2, 4, 5).flatten(3).permute(0, 3, 1, 2).to(torch.float32)


@torch.no_grad()
def take_bytes(network: PlaceNetwork, height: int, width: int) -> None:
    """Let the first convolution see blocks of bytes, for pictures of one size; changes `network`.

    A convolution of k x k pixels at each s-th one is one of k/s x k/s blocks at each; mean and
    standard deviation go into its weights and bias. The border, which was 0 after normalisation,
    is the mean colour, rounded. Where the first convolution looks at every pixel there are no
    blocks, and nothing changes. Descriptors stay the same but for that rounding.
    """
    name, first = next((name, module) for name, module in network.backbone.named_modules()
                       if isinstance(module, nn.Conv2d))
    (size, _), (stride, _), (padding, _) = first.kernel_size, first.stride, first.padding
    if (stride == 1 or isinstance(first.padding, str) or first.groups > 1
            or any(len(set(pair)) > 1 for pair in (first.kernel_size, first.stride,
                                                   first.padding))
            or first.dilation != (1, 1)):
        return
    mean, std = network.normalise.mean.flatten(), network.normalise.std.flatten()
    weight = first.weight / std[:, None, None]
    bias = -(weight.sum(dim=(2, 3)) @ mean)
    if first.bias is not None:
        bias += first.bias
    more = -size % stride  # zeros before the first weight, so that blocks hold them all
    weight = nn.functional.pad(weight, (more, 0, more, 0))
    across = (size + more) // stride
    # (O,3,ks,ks) -> (O,3,k,s,k,s) -> (O,s,s,3,k,k) -> (O,3ss,k,k)
    weight = weight.unflatten(3, (across, stride)).unflatten(2, (across, stride))
    weight = weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    blocks = nn.Conv2d(weight.shape[1], len(weight), across)
    blocks.weight.copy_(weight)
    assert blocks.bias is not None
    blocks.bias.copy_(bias)
    before = padding + more
    bottom, right = (
        stride * ((length + 2 * padding - size) // stride) + size + more - length - before
        for length in (height, width))
    network.backbone.set_submodule(name, blocks.eval())
    network.normalise = PixelBlocks(stride, (before, bottom, before, right),  # type: ignore[assignment]
                                    mean.round().to(torch.uint8))
