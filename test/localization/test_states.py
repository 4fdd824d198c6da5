"""States: what is deferred gives the same numbers as writing every change into every state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from vpr_ros.localization.states import ACTIVE
from vpr_ros.localization.states import States

PLACES = 30
EVERY = np.arange(PLACES)
seeds = st.integers(0, 10_000)


class Written:
    """The same states as two plain arrays (S,N), every change written at once."""

    def __init__(self, probability, weighted):
        self.p, self.w = probability[None].copy(), weighted[None].copy()

    def put(self, places, probability, weighted):
        self.p[:, places], self.w[:, places] = probability, weighted

    def observe(self, factor, share, log_ratio):
        self.w = factor * ((1 - share) * self.w + share * log_ratio * self.p)
        self.p = factor * self.p

    def scatter(self, stays, landed):
        self.p, self.w = stays * self.p + landed, stays * self.w

    def split(self, shares):
        self.p, self.w = (shares[:, None] * numbers for numbers in (self.p, self.w))

    def mix(self, change):
        self.p, self.w = change @ self.p, change @ self.w


def start(rng):
    """Return both kinds of states with the same numbers."""
    probability = rng.dirichlet(np.ones(PLACES))
    weighted = probability * rng.normal(0, 3, PLACES)
    return States(probability, weighted), Written(probability, weighted)


def change_both(rng, states, written):
    """Let something that is random happen to both, as it happens along a drive."""
    kind = rng.choice(['observe', 'scatter', 'split', 'mix', 'put'])
    if kind == 'observe':
        change = ('observe', rng.lognormal(0, 2), rng.uniform(0, 0.2), rng.normal(0, 3))
    elif kind == 'scatter':
        change = ('scatter', rng.uniform(0.9, 1), rng.uniform(0, 1e-3))
    elif kind == 'split':
        if states.motions > 1:
            return
        change = ('split', rng.dirichlet(np.ones(4)))
    elif kind == 'mix':
        stays = rng.uniform(0.5, 1)
        count = states.motions
        change = ('mix', stays * np.eye(count) + (1 - stays) / count)
    else:
        places = rng.permutation(PLACES)[:8]
        shape = states.motions, 8
        change = ('put', places, rng.uniform(0, 1, shape), rng.normal(0, 3, shape))
    name, *arguments = change
    for one in (states, written):
        getattr(one, name)(*arguments)


def check_equal(states, written):
    """Assert that both hold the same numbers, to within rounding."""
    scale = max(written.p.max(), np.abs(written.w).max())
    probability, weighted = states.at(EVERY)
    np.testing.assert_allclose(probability, written.p, atol=1e-9 * scale)
    np.testing.assert_allclose(weighted, written.w, atol=1e-7 * scale)
    np.testing.assert_allclose(states.places, written.p.sum(axis=0), atol=1e-8 * scale)


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_deferred_changes_are_as_good_as_written_ones(seed) -> None:
    rng = np.random.default_rng(seed)
    states, written = start(rng)
    for _ in range(25):
        change_both(rng, states, written)
        check_equal(states, written)


@pytest.mark.parametrize('factor', [1e-3, 1e3])
def test_numbers_do_not_overflow_over_a_long_drive(factor) -> None:
    states, written = start(np.random.default_rng(0))
    for _ in range(80):  # 10^240 in all
        for one in (states, written):
            one.observe(factor, 0.1, 1.0)
    expected = written.p / written.p.sum()
    np.testing.assert_allclose(states.at(EVERY)[0] / states.places.sum(), expected, rtol=1e-9)
    assert np.isfinite(states.at(EVERY)[1]).all()


def test_evidence_stays_exact_over_a_long_drive() -> None:
    states, written = start(np.random.default_rng(1))
    for number in range(3000):
        for one in (states, written):
            one.observe(1.0, 0.1, float(number % 7))
    check_equal(states, written)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_what_moves_arrives_or_is_returned(seed) -> None:
    rng = np.random.default_rng(seed)
    states, written = start(rng)
    states.observe(0.5, 0.1, 1.0)
    written.observe(0.5, 0.1, 1.0)
    for one in (states, written):
        one.split(np.array([0.2, 0.5, 0.3]))
    motions, places = states.likeliest(np.arange(3))
    targets = rng.integers(0, PLACES, (len(places), 4)).astype(np.int32)
    weights = rng.dirichlet(np.ones(5), len(places))[:, :4]  # a fifth part is lost
    before = states.places.sum()
    lost = states.move(motions, places, targets, weights)
    assert states.places.sum() + lost == pytest.approx(before)
    expected = [np.zeros_like(written.p), np.zeros_like(written.w)]
    for moved, numbers in zip(expected, (written.p, written.w), strict=True):
        for state, (motion, place) in enumerate(zip(motions, places, strict=True)):
            for target, weight in zip(targets[state], weights[state], strict=True):
                moved[motion, target] += weight * numbers[motion, place]
    written.p, written.w = expected
    check_equal(states, written)


def test_what_landed_everywhere_stays_in_place() -> None:
    states = States(np.eye(PLACES)[0])
    states.scatter(0.7, 0.01)
    lost = states.move(np.array([0]), np.array([0]), np.array([[1]], np.int32), np.ones((1, 1)))
    assert lost == 0
    np.testing.assert_allclose(states.places[[0, 1, 2]], [0.01, 0.71, 0.01])


def test_of_many_states_the_likeliest_are_moved() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(400_000) ** 8
    _, places = States(probability).likeliest(np.array([0]))
    assert len(places) == ACTIVE
    assert set(places) == set(np.argsort(probability)[-ACTIVE:])
    _, few = States(np.eye(1000)[7] + 1e-9).likeliest(np.array([0]))
    assert few.tolist() == [7]


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_kept_sums_are_those_of_the_states(seed) -> None:
    rng = np.random.default_rng(seed)
    states, _ = start(rng)
    states.split(np.array([0.2, 0.5, 0.3]))
    for _ in range(40):
        states.observe(rng.lognormal(0, 2), 0.1, 1.0)
        places = rng.permutation(PLACES)[:6]
        states.put(places, *(rng.lognormal(0, 4) * numbers for numbers in states.at(places)))
        motions, moved = states.likeliest(rng.permutation(3)[:2])
        states.move(motions, moved, rng.integers(0, PLACES, (len(moved), 3)).astype(np.int32),
                    rng.dirichlet(np.ones(4), len(moved))[:, :3])
        states.mix(np.full((3, 3), 1 / 3), places)
    held, scale = states.at(EVERY)[0], states.places.max()
    np.testing.assert_allclose(states.totals, held.sum(axis=1), atol=1e-9 * scale)
    np.testing.assert_allclose(states.places, held.sum(axis=0), atol=1e-9 * scale)
