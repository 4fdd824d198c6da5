"""Small networks of the patterns that published place recognition is made of: no real weights."""

from __future__ import annotations

from pathlib import Path
import warnings

import torch
from torch import nn
from torch.nn import functional

HEIGHT, WIDTH, PATCH = 42, 56, 14
GRID = (HEIGHT // PATCH, WIDTH // PATCH)


def convolutions() -> nn.Sequential:
    """Return (N,3,H,W) -> (N,8,6,7)."""
    return nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())


class Gem(nn.Module):
    """A mean of powers whose window is that of the features, to (N,D,1,1)."""

    def __init__(self, squeezed: bool = False) -> None:
        super().__init__()
        self.features, self.power = convolutions(), nn.Parameter(torch.ones(1) * 3)
        self.squeezed = squeezed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        x = self.features(x).clamp(min=1e-6).pow(self.power)
        x = functional.avg_pool2d(x, x.shape[-2:]).pow(1.0 / self.power)
        return x.squeeze() if self.squeezed else x


class Bytes(Gem):
    """Takes uint8, which it normalises itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        return super().forward(x.float() / 255 - 0.5)


class Mixed(nn.Module):
    """Linear layers over all positions, as MixVPR."""

    def __init__(self) -> None:
        super().__init__()
        self.features, places = convolutions(), 42
        self.mix = nn.Sequential(nn.LayerNorm(places), nn.Linear(places, places), nn.ReLU())
        self.channels, self.rows = nn.Linear(8, 6), nn.Linear(places, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        x = self.features(x).flatten(2)
        x = self.channels((x + self.mix(x)).permute(0, 2, 1)).permute(0, 2, 1)
        return functional.normalize(self.rows(x).flatten(1), dim=-1)


class Pooled(nn.Module):
    """Features averaged over a grid, as ConvAP."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.reduce = convolutions(), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        x = functional.adaptive_avg_pool2d(self.reduce(self.features(x)), (2, 1))
        return functional.normalize(x.flatten(1), dim=1)


class Transformer(nn.Module):
    """A class token, a positional embedding that is interpolated, and one block of attention."""

    def __init__(self, size: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.patches, self.heads = nn.Conv2d(3, size, PATCH, PATCH), heads
        self.token = nn.Parameter(torch.randn(1, 1, size))
        self.position = nn.Parameter(torch.randn(1, GRID[0] * GRID[1] + 1, size))
        self.norm, self.qkv = nn.LayerNorm(size), nn.Linear(size, 3 * size)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N,1+P,C)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        count, places, size = x.shape
        grid = self.position[:, 1:].reshape(1, *GRID, size).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=GRID, mode='bicubic')
        position = torch.cat([self.position[:, :1],
                              grid.permute(0, 2, 3, 1).view(1, -1, size)], 1)
        x = torch.cat([self.token.expand(count, -1, -1), x], 1) + position
        q, k, v = self.qkv(self.norm(x)).reshape(
            count, places + 1, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return x + attended.transpose(1, 2).reshape(count, places + 1, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        return functional.normalize(self.tokens(x)[:, 0], dim=-1)


class Transported(nn.Module):
    """Optimal transport from tokens to clusters and a dustbin, as SALAD."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.dustbin = Transformer(), nn.Parameter(torch.tensor(1.0))
        self.values, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        tokens = self.backbone.tokens(x)
        features = tokens[:, 1:].reshape(x.shape[0], *GRID, 16).permute(0, 3, 1, 2)
        values, scores = self.values(features).flatten(2), self.scores(features).flatten(2)
        batch, clusters, places = scores.shape
        cost = torch.empty(batch, clusters + 1, places)
        cost[:, :clusters], cost[:, clusters] = scores, self.dustbin
        u, v = cost.new_zeros(batch, clusters + 1), cost.new_zeros(batch, places)
        for _ in range(2):
            u = -torch.logsumexp(cost + v.unsqueeze(1), dim=2)
            v = -torch.logsumexp(cost + u.unsqueeze(2), dim=1)
        plan = (cost + u.unsqueeze(2) + v.unsqueeze(1)).exp()[:, :-1]
        plan = plan.unsqueeze(1).repeat(1, 4, 1, 1)
        values = values.unsqueeze(2).repeat(1, 1, clusters, 1)
        sums = functional.normalize((values * plan).sum(-1), dim=1).flatten(1)
        return functional.normalize(torch.cat([tokens[:, 0], sums], -1), dim=-1)


class Queried(nn.Module):
    """Learned queries, one set for each image of a batch, as BoQ."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.queries = convolutions(), nn.Parameter(torch.randn(1, 3, 8))
        self.own = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        x = self.features(x).flatten(2).permute(0, 2, 1)
        queries = self.queries.repeat(x.size(0), 1, 1)
        queries = queries + self.own(queries, queries, queries)[0]
        return functional.normalize(self.cross(queries, x, x)[0].flatten(1), dim=-1)


class Summed(nn.Module):
    """NetVLAD by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.assign = convolutions(), nn.Conv2d(8, 3, 1)
        self.centres = nn.Parameter(torch.rand(3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Describe a batch."""
        x = self.features(x)
        count, channels = x.shape[:2]
        shares = functional.softmax(self.assign(x).view(count, 3, -1), dim=1)
        sums = torch.einsum('nkl,ncl->nkc', shares, x.view(count, channels, -1))
        sums = sums - shares.sum(-1, keepdim=True) * self.centres
        return functional.normalize(functional.normalize(sums, dim=2).reshape(count, -1), dim=1)


NETWORKS = {'gem': Gem, 'squeezed': lambda: Gem(squeezed=True), 'bytes': Bytes, 'mixed': Mixed,
            'pooled': Pooled, 'transformer': Transformer, 'transported': Transported,
            'queried': Queried, 'summed': Summed}


def make(name: str) -> nn.Module:
    """Return a network with random weights that tell images apart."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.mul_(2)
    return network


def export(network: nn.Module, path: Path, example: torch.Tensor, *, dynamo: bool,
           dynamic: bool) -> Path:
    """Export as the two exporters of torch do, with any batch or that of the example."""
    shapes = {}
    if dynamic:
        shapes = ({'dynamic_shapes': ({0: torch.export.Dim('n')},)} if dynamo
                  else {'dynamic_axes': {'image': {0: 'n'}}})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(network, (example,), str(path), input_names=['image'],
                          output_names=['features'], dynamo=dynamo, verbose=False, **shapes)
    return path
