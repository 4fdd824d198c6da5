"""Mining and losses against plain loops written from their formulas."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('pytorch_metric_learning')

from pytorch_metric_learning import losses as peer_losses  # noqa: E402
from pytorch_metric_learning import miners as peer_miners  # noqa: E402
from vpr_ros.training.losses import ContrastiveLoss  # noqa: E402
from vpr_ros.training.losses import hard_pairs  # noqa: E402
from vpr_ros.training.losses import LOSSES  # noqa: E402
from vpr_ros.training.losses import MultiSimilarityLoss  # noqa: E402
from vpr_ros.training.losses import semi_hard_triplets  # noqa: E402
from vpr_ros.training.losses import squared_distances  # noqa: E402
from vpr_ros.training.losses import TripletLoss  # noqa: E402


def descriptors(count=12, dimension=6, seed=0, spread=0.5, dtype=torch.float64):
    """Return descriptors of places of three images each, `spread` around their own centre."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(-(-count // 3), dimension)), 3, axis=0)[:count]
    x = centres + spread * random.normal(size=centres.shape)
    return torch.tensor(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=dtype)


def masks(count=12):
    """Return masks of places of three images, the diagonal in them, the next place neither."""
    place = torch.arange(count) // 3
    apart = (place[:, None] - place[None]).abs()
    return apart == 0, apart > 1


def distance(a, b):
    return sum((float(u) - float(v)) ** 2 for u, v in zip(a, b, strict=True))


def cosine(a, b):
    return sum(float(u) * float(v) for u, v in zip(a, b, strict=True))


def pairs_of(mask):
    return [(a, b) for a in range(len(mask)) for b in range(len(mask)) if mask[a, b] and a != b]


def minable(distances, positive, negative, margin):
    """Return the negatives of each anchor-positive pair that has any, by a plain loop."""
    found = {}
    for a, p in pairs_of(positive):
        far = [n for n in range(len(distances)) if negative[a, n]
               and distances[a, p] < distances[a, n] < distances[a, p] + margin]
        if far:
            found[a, p] = far
    return found


def test_distances_are_those_of_a_plain_loop():
    x = descriptors()
    expected = [[distance(a, b) for b in x] for a in x]
    np.testing.assert_allclose(squared_distances(x), expected, atol=1e-12)


def test_distances_of_opposite_and_equal_descriptors_stay_in_bounds():
    x = descriptors(count=300, dimension=128, dtype=torch.float32)
    distances = squared_distances(torch.cat([x, -x, x]))
    assert distances.min() == 0.0
    assert distances.max() <= 4.0


@settings(max_examples=60, deadline=None)
@given(strategies.integers(0, 2**32 - 1), strategies.integers(1, 14), strategies.floats(0.0, 1.0),
       strategies.sampled_from([0.05, 0.5, 4.0]), strategies.booleans())
def test_mining_takes_every_pair_that_can_be_mined_once(seed, count, share, margin, ties):
    random = np.random.default_rng(seed)
    distances = torch.from_numpy(random.uniform(0, 4, (count, count)).astype(np.float32))
    if ties:
        distances = distances.round()
    # Any masks at all, not only those of labels: rows, columns and the diagonal as they come.
    positive = torch.from_numpy(random.uniform(size=(count, count)) < share)
    negative = torch.from_numpy(random.uniform(size=(count, count)) < 0.7) & ~positive
    expected = minable(distances, positive, negative, margin)
    anchor, near, far = semi_hard_triplets(distances, positive, negative, margin,
                                           torch.Generator().manual_seed(seed))
    triplets = list(zip(anchor.tolist(), near.tolist(), far.tolist(), strict=True))
    assert [(a, p) for a, p, _ in triplets] == sorted(expected)
    assert all(n in expected[a, p] for a, p, n in triplets)


def test_every_semi_hard_negative_is_taken_as_often_as_the_others():
    distances = torch.tensor([0.0, 1.0, 0.5, 1.02, 1.05, 1.09, 1.2]).repeat(7, 1)
    positive, negative = torch.zeros(2, 7, 7, dtype=torch.bool)
    positive[0, 1] = True
    negative[0, 2:] = True
    generator = torch.Generator().manual_seed(0)
    taken = [int(semi_hard_triplets(distances, positive, negative, 0.1, generator)[2])
             for _ in range(900)]
    counts = np.bincount(taken, minlength=7)
    assert counts[[0, 1, 2, 6]].sum() == 0
    assert counts[3:6].min() > 240  # 300 each; four standard deviations are 57


def test_mining_is_decided_by_the_seed():
    distances = squared_distances(descriptors(60))
    one, same, other = (semi_hard_triplets(distances, *masks(60), 0.5,
                                           torch.Generator().manual_seed(seed))[2]
                        for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_triplet_loss_is_the_mean_over_its_triplets():
    x = descriptors()
    triplets = semi_hard_triplets(squared_distances(x), *masks(), 0.5,
                                  torch.Generator().manual_seed(3))
    terms = [distance(x[a], x[p]) - distance(x[a], x[n]) + 0.5
             for a, p, n in zip(*triplets, strict=True)]
    assert len(terms) > 5
    loss = TripletLoss(0.5, torch.Generator().manual_seed(3))(x, *masks())
    assert float(loss) == pytest.approx(sum(terms) / len(terms), abs=1e-9)


def test_contrastive_loss_is_that_of_a_plain_loop():
    x, (positive, negative) = descriptors(), masks()
    near = [distance(x[a], x[b]) / 2.0 for a, b in pairs_of(positive)]
    far = [max(0.0, 1.5 - distance(x[a], x[b])) / 2.0 for a, b in pairs_of(negative)]
    close = [term for term in far if term > 0.0]
    assert 0 < len(close) < len(far)
    expected = sum(near) / len(near) + sum(close) / len(close)
    assert float(ContrastiveLoss(1.5)(x, positive, negative)) == pytest.approx(expected, abs=1e-9)


def test_multi_similarity_loss_is_that_of_a_plain_loop():
    x, (positive, negative) = descriptors(spread=1.0), masks()
    alpha, beta, base, epsilon = 2.0, 50.0, 0.5, 0.1
    total, taken = 0.0, 0
    for a in range(len(x)):
        near = [cosine(x[a], x[p]) for p in range(len(x)) if positive[a, p] and p != a]
        far = [cosine(x[a], x[n]) for n in range(len(x)) if negative[a, n]]
        hard_near = [s for s in near if s - epsilon < max(far)]
        hard_far = [s for s in far if s + epsilon > min(near)]
        taken += len(hard_near) + len(hard_far)
        total += math.log(1 + sum(math.exp(-alpha * (s - base)) for s in hard_near)) / alpha
        total += math.log(1 + sum(math.exp(beta * (s - base)) for s in hard_far)) / beta
    assert 0 < taken < int((positive | negative).sum()) - len(x)
    loss = MultiSimilarityLoss(alpha, beta, base, epsilon)(x, positive, negative)
    assert float(loss) == pytest.approx(total / len(x), abs=1e-9)


def test_masks_of_labels_give_what_the_peer_gives_for_labels():
    x = descriptors(30, spread=0.8)
    labels = torch.arange(30) // 3
    positive = labels[:, None] == labels[None]
    ours = hard_pairs(x @ x.T, positive, ~positive, 0.1)
    theirs = peer_miners.MultiSimilarityMiner(0.1)(x, labels)
    for mine, other in ((ours[:2], theirs[:2]), (ours[2:], theirs[2:])):
        assert len(mine[0]) > 0
        assert set(zip(*(i.tolist() for i in mine), strict=True)) == set(
            zip(*(i.tolist() for i in other), strict=True))
    expected = peer_losses.MultiSimilarityLoss(2.0, 50.0, 0.5)(x, labels, theirs)
    assert float(LOSSES['multi-similarity']()(x, positive, ~positive)) == pytest.approx(
        float(expected), abs=1e-9)


@pytest.mark.parametrize('name', LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(name):
    x = descriptors(30, spread=0.8, dtype=torch.float32).requires_grad_()
    loss = LOSSES[name]()
    before = loss(x, *masks(30))
    before.backward()
    after = loss(torch.nn.functional.normalize(x - 1e-2 * x.grad / x.grad.norm(), dim=1),
                 *masks(30))
    assert 0.0 < float(after.detach()) < float(before.detach())


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('count', [1, 4])
def test_a_batch_without_pairs_gives_a_zero_with_a_graph(name, count):
    x = descriptors(count).requires_grad_()
    nothing = torch.zeros(count, count, dtype=torch.bool)
    loss = LOSSES[name]()(x, nothing, nothing)
    loss.backward()
    assert loss.shape == ()
    assert float(loss.detach()) == 0.0
    assert x.grad.abs().sum() == 0.0


def test_no_semi_hard_triplet_gives_a_zero_with_a_graph():
    x = descriptors(spread=1e-6).requires_grad_()
    loss = TripletLoss(1e-9)(x, *masks())
    loss.backward()
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_descriptor_that_is_not_finite_shows_in_the_loss(name, value):
    x = descriptors(15)
    x[-1, 0] = value
    assert torch.isnan(LOSSES[name]()(x, *masks(15)))


@pytest.mark.parametrize('name', LOSSES)
def test_losses_stay_in_float32_under_autocast(name):
    x = descriptors(30, dtype=torch.float32)
    expected = LOSSES[name](**seeded(name))(x, *masks(30))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = LOSSES[name](**seeded(name))(x, *masks(30))
    assert loss.dtype == torch.float32
    assert float(loss) == float(expected)


def test_masks_that_do_not_fit_are_refused():
    x, (positive, negative) = descriptors(), masks()
    with pytest.raises(ValueError, match=r'12 descriptors need masks of shape \(12, 12\)'):
        TripletLoss()(x, positive[:6], negative)
    with pytest.raises(ValueError, match='positive and as negative'):
        TripletLoss()(x, positive, negative | positive)


def seeded(name):
    return {'generator': torch.Generator().manual_seed(0)} if name == 'triplet' else {}
