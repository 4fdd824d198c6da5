"""
Losses over the descriptors of one batch, and the mining of pairs and triplets for them.

Masks say which images are positives and negatives of each other (image_table.py makes them from
places, positions and headings). How batches are composed is in sampler.py.
"""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from pytorch_metric_learning import losses as peer
from pytorch_metric_learning.distances import CosineSimilarity
import torch
from torch import nn
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def squared_distances(x: Tensor) -> Tensor:
    """
    Return all squared distances (B,B) of descriptors (B,D) of unit norm, in [0,4].

    ||a - b||^2 = 2 - 2 a.b, so one matrix product gives all of them.
    """
    return (2.0 - 2.0 * x @ x.T).clamp(0.0, 4.0)


@torch.no_grad()
def semi_hard_triplets(distances: Tensor, positive: Tensor, negative: Tensor, margin: float,
                       generator: torch.Generator | None = None
                       ) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return anchors, positives and negatives, each int64 (T,): the semi-hard triplets of a batch.

    A negative is semi-hard (Schroff et al., CVPR 2015) when it is farther than the positive by
    less than `margin`: d(a,p) < d(a,n) < d(a,p) + margin. Each pair of anchor and positive that
    has such negatives gives one triplet, with one of them at random. `distances` (B,B) in any
    unit; `positive` and `negative` bool (B,B), rows are anchors; an image is never its own
    positive. Ordered by anchor, then by positive.
    """
    anchor, other = _without_diagonal(positive).nonzero(as_tuple=True)
    near = distances[anchor, other]
    # With the negatives of each anchor sorted once, those of every pair are a range, so the cost
    # hardly depends on the number of pairs; a mask over pairs x negatives would grow with it.
    ascending, order = _sort(distances.masked_fill(~negative, torch.inf))
    # The number of pairs varies by anchor; searchsorted wants rows of one length: (P,) ->
    # (B,most).
    count = torch.bincount(anchor, minlength=len(distances))
    start = count.cumsum(0) - count
    slot = torch.arange(len(anchor), device=anchor.device) - start[anchor]
    rows = near.new_zeros(len(distances), int(count.max()) if len(anchor) else 0)
    rows[anchor, slot] = near
    first = torch.searchsorted(ascending, rows, right=True)[anchor, slot]
    end = torch.searchsorted(ascending, rows + margin)[anchor, slot]
    # Drawn on the generator's device, so that a seed gives the same triplets on every device.
    device = generator.device if generator is not None else distances.device
    chance = torch.rand(len(anchor), generator=generator, device=device, dtype=torch.float64)
    choice = first + (chance.to(first.device) * (end - first)).long()
    minable = end > first
    anchor, other, choice = anchor[minable], other[minable], choice[minable]
    return anchor, other, order[anchor, choice]


@torch.no_grad()
def hard_pairs(similarities: Tensor, positive: Tensor, negative: Tensor, epsilon: float
               ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Return anchors and positives, each int64 (P,), and anchors and negatives, each int64 (N,).

    The mining of Wang et al., CVPR 2019, equations 9 and 10: a positive that is less similar than
    the anchor's most similar negative plus `epsilon`, and a negative that is more similar than its
    least similar positive minus `epsilon`. `similarities` (B,B) and the masks bool (B,B).
    """
    positive = _without_diagonal(positive)
    nearest_negative = similarities.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
    farthest_positive = similarities.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
    hard_positive = positive & (similarities - epsilon < nearest_negative)
    hard_negative = negative & (similarities + epsilon > farthest_positive)
    return (*hard_positive.nonzero(as_tuple=True), *hard_negative.nonzero(as_tuple=True))


class PairLoss(nn.Module, ABC):
    """
    Base class of the losses: descriptors (B,D) of unit norm and masks bool (B,B) -> a scalar.

    Computed in float32 or better even under autocast: bfloat16 would leave distances two digits. A
    batch without pairs gives zero, with a graph to differentiate; a descriptor that is not finite
    gives NaN, whether or not it was mined. Raises ValueError when shapes do not fit, or when two
    images are marked both as positives and as negatives.
    """

    def forward(self, embeddings: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss of a batch; rows of the masks are anchors, the diagonal is ignored."""
        square = (len(embeddings), len(embeddings))
        if positive.shape != square or negative.shape != square:
            raise ValueError(f'{len(embeddings)} descriptors need masks of shape {square}; got '
                             f'{tuple(positive.shape)} and {tuple(negative.shape)}')
        positive = _without_diagonal(positive)
        if bool((positive & negative).any()):
            raise ValueError('a pair of images is marked as positive and as negative')
        with torch.autocast(embeddings.device.type, enabled=False):
            x = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            return self.of_batch(x, positive, negative) + 0.0 * x.sum()

    @abstractmethod
    def of_batch(self, x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss; `positive` has no diagonal here."""


class TripletLoss(PairLoss):
    """
    Mean of d(a,p) - d(a,n) + margin over semi-hard triplets, on squared distances.

    Schroff et al., CVPR 2015. `generator` draws the negatives; None: torch's global generator.
    """

    def __init__(self, margin: float = 0.1, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.margin = margin
        self.generator = generator

    def of_batch(self, x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss."""
        distances = squared_distances(x)
        anchor, near, far = semi_hard_triplets(distances, positive, negative, self.margin,
                                               self.generator)
        violation = distances[anchor, near] - distances[anchor, far] + self.margin
        return violation.sum() / max(len(anchor), 1)


class ContrastiveLoss(PairLoss):
    """
    Pull positives together and negatives at least `margin` apart, in squared distance [0,4].

    Mean of d/2 over the positives plus mean of max(0, margin - d)/2 over the negatives closer than
    `margin`; after Hadsell et al., CVPR 2006, without the square roots.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        # d/2 = 1 - s in terms of the cosine s
        self.loss = peer.ContrastiveLoss(pos_margin=1.0, neg_margin=1.0 - margin / 2.0,
                                         distance=CosineSimilarity())

    def of_batch(self, x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss."""
        pairs = (*positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True))
        return self.loss(x, indices_tuple=pairs)


class MultiSimilarityLoss(PairLoss):
    """
    Multi-similarity loss over hard pairs: Wang et al., CVPR 2019, equation 15.

    Mean over anchors of 1/alpha log(1 + sum_p exp(-alpha (s_p - base))) + 1/beta log(1 + sum_n
    exp(beta (s_n - base))), with cosines s; `epsilon` is the margin of the mining.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5,
                 epsilon: float = 0.1) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.loss = peer.MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)

    def of_batch(self, x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss."""
        return self.loss(x, indices_tuple=hard_pairs(x @ x.T, positive, negative, self.epsilon))


LOSSES: dict[str, Callable[..., PairLoss]] = {
    'triplet': TripletLoss,
    'contrastive': ContrastiveLoss,
    'multi-similarity': MultiSimilarityLoss,
}
"""Losses by their names in an experiment file; `loss.options` are their arguments."""


def _without_diagonal(mask: Tensor) -> Tensor:
    return mask & ~torch.eye(len(mask), dtype=torch.bool, device=mask.device)


def _sort(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the rows of x (R,C); return the values and their columns."""
    if x.device.type == 'cpu':  # numpy's vectorised sort takes a seventh of torch's time
        order = torch.from_numpy(np.argsort(x.numpy(), axis=1))
        return x.gather(1, order), order
    ascending, order = x.sort(dim=1)
    return ascending, order
