"""
States: the probability and the evidence of motions x places, with uniform changes deferred.

A frame compares a few hundred places; all others change alike. To write that into every state
would touch two numbers for each place of the map and motion at every frame: with 100,000 places
it more than doubles the time of a frame (benchmarks/speed/belief_speed.py). So five scalars
hold what has happened to all states since their numbers were last written. What the numbers mean
on a map, and how a robot moves, is in belief.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ACTIVE = 2048
"""States that are moved, the likeliest; what all the others hold stays where it is."""

_NEGLIGIBLE = 1e-6
"""Share of the likeliest state's probability below which that of another need not be moved."""

_SMALLEST = 1e-30
"""Deferred changes are written before their factors leave these bounds: numbers would overflow."""

_SAMPLE = 1 << 13
"""Numbers that tell about how great the greatest of many are."""

_BLOCK = 1 << 15
"""States that are worked on at a time: more leave the processor's cache between two operations,
and make BLAS wait for other cores."""


class States:
    """
    Probability p and weighted evidence w (both M,N) of M motions at N places.

    Weighted evidence is evidence times probability: it moves as probability does, and adds up
    where states meet. From the stored numbers (m, e) of a state follow

        p = scale * m + floor
        w = scale * (fade * e + drift * m) + floor_w

    All changes below are exact in this form: each is the same affine map of (p, w) for all states,
    which the five scalars absorb, or a write to states. Only what moves to other places or changes
    its motion is approximate: that is what is stored, while the part that has landed on all states
    alike, `floor`, stays in place.
    """

    def __init__(self, probability: Floats, weighted: Floats | None = None) -> None:
        """Start with one motion: probability (N,), and no evidence unless it is given (N,)."""
        self._p = np.array(probability, np.float64)[None]
        self._w = np.zeros_like(self._p) if weighted is None else np.array(weighted)[None]
        self._scale, self._floor = 1.0, 0.0
        self._fade, self._drift, self._floor_w = 1.0, 0.0, 0.0
        self._places: Floats | None = None
        self._count()

    @property
    def motions(self) -> int:
        """Return the number M of motions."""
        return len(self._p)

    @property
    def places(self) -> Floats:
        """Return the probability (N,) of each place, over all motions."""
        if self._places is None:
            floor = self.motions * self._floor
            # Rounding may leave a hair less than nothing.
            self._places = np.asarray(np.maximum(self._scale * self._sums + floor, 0.0))
        return self._places

    @property
    def totals(self) -> Floats:
        """Return the probability (M,) of each motion, over all places."""
        totals = self._scale * self._totals + self._floor * len(self._sums)
        return np.asarray(np.maximum(totals, 0.0))  # rounding, as in `places`

    def at(self, places: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the probability and the weighted evidence (M,m) of some places (m,)."""
        p, w = self._p[:, places], self._w[:, places]
        return (self._scale * p + self._floor,
                self._scale * (self._fade * w + self._drift * p) + self._floor_w)

    def put(self, places: NDArray[np.int64], probability: Floats, weighted: Floats) -> None:
        """Set the probability and the weighted evidence (M,m) of some places (m,), each once."""
        p = (probability - self._floor) / self._scale
        self._store(places, p, ((weighted - self._floor_w) / self._scale
                                - self._drift * p) / self._fade)

    def observe(self, factor: float, share: float, log_ratio: float) -> None:
        """
        Apply one observation to all states alike.

        p' = factor p; w' = factor ((1 - share) w + share log_ratio p): evidence is a running mean
        of log-likelihood ratios, in which the new one has `share`.
        """
        keep = 1 - share
        if not (_SMALLEST < self._scale * factor < 1 / _SMALLEST
                and self._fade * keep > _SMALLEST):
            self._write()
        self._floor_w = factor * (keep * self._floor_w + share * log_ratio * self._floor)
        self._floor *= factor
        self._scale *= factor
        self._drift = keep * self._drift + share * log_ratio
        self._fade *= keep
        self._places = None

    def scatter(self, stays: float, landed: float) -> None:
        """
        Let a share of all probability stay, and some land on each state: p' = stays p + landed.

        What lands brings no evidence: w' = stays w.
        """
        self._scale *= stays
        self._floor = stays * self._floor + landed
        self._floor_w *= stays
        self._places = None

    def split(self, shares: Floats) -> None:
        """Divide what the only motion of each place has between M, by their shares (M,)."""
        self._write()
        self._p, self._w = shares[:, None] * self._p, shares[:, None] * self._w
        self._count()

    def mix(self, change: Floats, places: NDArray[np.int64] | None = None) -> None:
        """
        Change motions at some places (m,), or at all: `change` (M,M) is (to, from).

        What has landed on all states alike, `floor`, stays as it is.
        """
        if places is None:
            for block in self._blocks():
                self._p[:, block] = change @ self._p[:, block]
                self._w[:, block] = change @ self._w[:, block]
            self._count()
        else:
            self._store(places, change @ self._p[:, places], change @ self._w[:, places])

    def likely_places(self) -> NDArray[np.int64]:
        """Return the places (m,), ACTIVE at most, that hold more than next to nothing."""
        return _likeliest(self.places, _NEGLIGIBLE * float(self.places.max()))

    def likeliest(self, motions: NDArray[np.int64]
                  ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the motions (n,), of some (m,), and places (n,) of the likeliest states."""
        least = _NEGLIGIBLE * float(self._sums.max())
        places = _likeliest(self._sums, least)
        p = self._p[np.ix_(motions, places)].reshape(-1)
        motion, place = np.divmod(_likeliest(p, least), len(places))
        return motions[motion], places[place]

    def move(self, motions: NDArray[np.int64], places: NDArray[np.int64],
             targets: NDArray[np.int32], weights: Floats) -> float:
        """
        Move what n states hold to other places (n,k) of the same motion, by `weights` (n,k).

        Returns the probability that the weights leave out: it is lost.
        """
        states = motions * self._p.shape[1] + places
        into = targets + (motions * self._p.shape[1])[:, None]
        held = self._p.reshape(-1)[states]
        moving = weights * held[:, None]
        lost = held - moving.sum(axis=1)
        np.subtract.at(self._totals, motions, lost)
        np.subtract.at(self._sums, places, held)
        np.add.at(self._sums, targets.ravel(), moving.ravel())
        for numbers, share in ((self._p.reshape(-1), moving),
                               (self._w.reshape(-1),
                                weights * self._w.reshape(-1)[states][:, None])):
            numbers[states] = 0
            np.add.at(numbers, into.ravel(), share.ravel())
        self._places = None
        return self._scale * float(lost.sum())

    def _store(self, places: NDArray[np.int64], p: Floats, w: Floats) -> None:
        """Store the numbers (M,m) of some places (m,), each once."""
        self._totals += p.sum(axis=1) - self._p[:, places].sum(axis=1)
        self._p[:, places], self._w[:, places] = p, w
        self._sums[places] = p.sum(axis=0)
        self._places = None

    def _count(self) -> None:
        """Add up the stored probability: (N,) over motions, and (M,) over places."""
        self._sums: Floats = self._p.sum(axis=0)
        self._totals: Floats = self._p.sum(axis=1)
        self._places = None

    def _write(self) -> None:
        """Write what was deferred into each state."""
        for block in self._blocks():
            p, w = self._p[:, block], self._w[:, block]
            w[:] = self._scale * (self._fade * w + self._drift * p) + self._floor_w
            p[:] = self._scale * p + self._floor
        self._scale, self._floor = 1.0, 0.0
        self._fade, self._drift, self._floor_w = 1.0, 0.0, 0.0
        self._count()

    def _blocks(self) -> Iterator[slice]:
        """Yield the places in parts whose states fit the processor's cache."""
        size = max(1, _BLOCK // self.motions)
        for start in range(0, self._p.shape[1], size):
            yield slice(start, start + size)


def _likeliest(p: Floats, least: float) -> NDArray[np.int64]:
    """Return the indices of the numbers above `least`, of the ACTIVE greatest at most."""
    likely = np.flatnonzero(p > least)
    if len(likely) > 2 * _SAMPLE:  # to sort all would take longer than all the rest
        sample = p[likely[::len(likely) // _SAMPLE]]
        rank = len(sample) - 2 * ACTIVE * len(sample) // len(likely)
        above = likely[p[likely] > np.partition(sample, rank)[rank]]
        likely = above if len(above) >= ACTIVE else likely
    if len(likely) > ACTIVE:
        likely = likely[np.argpartition(p[likely], -ACTIVE)[-ACTIVE:]]
    return likely
