"""
The first convolution, in a form that takes the picture's bytes: what 8 bits compute fast.

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


class PixelBlocks(nn.Module):
    """
    Pictures uint8 (N,H,W,3) -> their blocks of s x s pixels, float32 (N,3 s s,h,w), unscaled.

    `before` pixels are added at the top and the left, `below` and `right` there, or cut off where
    they are fewer than none; they have one colour, uint8 (3,).
    """

    colour: Tensor

    def __init__(self, block: int, before: int, below: int, right: int, colour: Tensor) -> None:
        super().__init__()
        self.block = block
        self.before = before
        self.below = below
        self.right = right
        self.register_buffer('colour', colour)

    def forward(self, image: Tensor) -> Tensor:
        """Cut a batch of pictures into blocks."""
        height, width = image.shape[1:3]
        image = image[:, :height + min(0, self.below), :width + min(0, self.right)]
        for axis, after in ((1, self.below), (2, self.right)):
            sides = list(image.shape)
            sides[axis] = self.before
            first = self.colour.expand(sides)
            sides[axis] = max(0, after)
            image = torch.cat([first, image, self.colour.expand(sides)], dim=axis)
        # (N,hs,ws,3) -> (N,h,s,w,s,3) -> (N,h,w,s,s,3) -> (N,h,w,3ss) -> (N,3ss,h,w)
        blocks = image.unflatten(2, (-1, self.block)).unflatten(1, (-1, self.block))
        return blocks.permute(0, 1, 3, 2, 4, 5).flatten(3).permute(0, 3, 1, 2).to(torch.float32)


@torch.no_grad()
def take_bytes(network: PlaceNetwork, height: int, width: int) -> None:
    """
    Let the first convolution see blocks of bytes, for pictures of one size; changes `network`.

    A convolution of k x k pixels at each s-th one is one of k/s x k/s blocks at each; mean and
    standard deviation go into its weights and bias. The border, which was 0 after normalisation,
    is the mean colour, rounded. Where the first convolution looks at every pixel there are no
    blocks, and nothing changes. Descriptors stay the same but for that rounding.
    """
    name, first = next((name, module) for name, module in network.backbone.named_modules()
                       if isinstance(module, nn.Conv2d))
    assert not isinstance(first.padding, str)  # in all of torchvision's, which are square, too
    size, stride, padding = first.kernel_size[0], first.stride[0], first.padding[0]
    if stride == 1:
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
    below, right = (
        stride * ((length + 2 * padding - size) // stride) + size + more - length - before
        for length in (height, width))
    network.backbone.set_submodule(name, blocks.eval())
    colour = mean.round().to(torch.uint8)
    network.normalise = PixelBlocks(  # type: ignore[assignment]
        stride, before, below, right, colour)
