"""
Belief: a Bayes filter over the places of a map and one more state, 'nowhere on the map'.

It knows of poses, likelihoods and time; what a picture or a descriptor is, it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from vpr_ros.core import defaults
from vpr_ros.core import poses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NEIGHBOURS = 16
"""Places that mass can move to in one step, the place itself among them."""

ACTIVE = 2048
"""States that mass moves from, the heaviest; what all the others hold stays where it is."""

MOST_STEPS = 20

SPEEDS = (np.arange(8) / 7) ** 2
"""Speeds that are told apart without odometry, as shares of the fastest; finer where slow."""

# Per metre: how a robot gets off the map, and back on it.
TO_NOWHERE = 0.0017
FROM_NOWHERE = 0.008

# Per second: how it is carried elsewhere, changes its speed to one nearby, to any (it brakes or
# starts within a second or two).
KIDNAPPED = 0.001
CHANGED_SPEED = 0.02
NEW_SPEED = 0.02

PRIOR_NOWHERE = 0.5
PRIOR_NOWHERE_EXPECTED = 0.02
"""The same when somebody said where the robot is."""

HEADING_ERROR = 0.25
"""Radians by which the heading of odometry, or of a place, is off (1 sigma)."""

CURVATURE = 0.2
"""Radians per metre that a robot without odometry is thought to turn at most (1 sigma)."""

WINDOW = 30.0
"""Wholly new frames over which `support` is a mean; older ones fade. A corner on no map may look
like a mapped one for a dozen."""

EXPECTED_EVIDENCE = 5.0
"""The support that a place has when somebody said the robot is there: that of a clear stretch."""

_GAPS = np.gradient(SPEEDS)

_NEGLIGIBLE = 1e-6
"""Share of the likeliest state's mass below which that of another need not be moved."""

_LEAST = 1e-30
"""What was put off is done before its factors leave these bounds: numbers would run over."""

_BLOCK = 1 << 15
"""States that are worked on at a time: more leave the processor's cache between two operations,
and make BLAS wait for other cores."""

_STRAY = 0.01
"""The weight of 'nowhere' against a place that odometry leads to exactly (3 sigma off weighs so
much): mass that drives off the end of the map does not pile up there."""


class Belief:
    """
    The probability of each of N places and of being nowhere on the map; they sum to 1.

    `places` is float64 (N,), `nowhere` a float. `support` float64 (N,) is the mean log-likelihood
    ratio of what was lately seen on the way to each place: it starts at zero, and where ways meet
    the likelier one tells more. The same mass may rest on strong evidence or on a long row of weak
    evidence, in which frames that are not independent are counted as if they were; this tells.
    Without odometry each place has a probability for each speed: robots keep theirs.
    """

    def __init__(self, place_poses: Floats, spacing: float = 0.0) -> None:
        """
        Take the poses (N,7) of the places, and the metres between neighbours.

        Without a spacing, the median distance to the nearest place is taken. Only where the
        places are matters, not their order.
        """
        self._count = len(place_poses)
        self._poses = place_poses
        self._tree = cKDTree(place_poses[:, :3])
        near = min(NEIGHBOURS, self._count)
        distances, neighbours = self._tree.query(self._tree.data, k=np.arange(1, near + 1))
        self._neighbours = neighbours.astype(np.int32)
        self.spacing = spacing or float(np.median(distances[:, min(1, near - 1)])) or 1.0
        self._reach = max(self.spacing, float(np.median(distances[:, -1])) / 2)
        headings = poses.heading(place_poses)
        # One array each, float64 (N,): x, y, heading, cosine and sine of half the heading.
        self._plane = (place_poses[:, 0].copy(), place_poses[:, 1].copy(), headings,
                       np.cos(headings / 2), np.sin(headings / 2))
        # States are speeds x places. Evidence is support times mass: it moves as mass does, and
        # where ways meet it adds up. These are not the masses themselves: what happens to all
        # states alike is put off (_Alike), and what landed on all of them alike stays where it is.
        self._mass: Floats = np.zeros((1, self._count))
        self._evidence: Floats = np.zeros((1, self._count))
        self._alike = _Alike()
        self._summed: Floats | None = None  # `_mass` over all speeds
        self._mapped = 0.0  # all the mass there is on the map
        self._places: Floats | None = None
        self.forget()

    @property
    def places(self) -> Floats:
        """The probability (N,) of each place."""
        if self._places is None:
            landed = len(self._mass) * self._alike.landed
            # Rounding may leave a hair less than nothing.
            self._places = np.maximum(self._alike.scale * self._sums() + landed, 0.0)
        return self._places

    @property
    def evidence(self) -> Floats:
        """The mean log-likelihood ratio (N,) of what was lately seen on the way to each place."""
        return self.evidence_of(np.arange(self._count))

    def evidence_of(self, places: NDArray[np.int64]) -> Floats:
        """Return the support (m,) of only some places."""
        evidence = self._true_evidence(places).sum(axis=0)
        return np.asarray(evidence / np.maximum(self.places[places], 1e-300))

    def within(self, place: int, radius: float) -> NDArray[np.int64]:
        """Return the places (m,) that are within some metres of one of them, in their order."""
        near = self._tree.query_ball_point(self._tree.data[place], radius, return_sorted=True)
        return np.asarray(near, np.int64)

    def forget(self) -> None:
        """Start over: any place is as likely as any other."""
        self.nowhere = PRIOR_NOWHERE
        self._start(np.full(self._count, (1 - self.nowhere) / self._count))

    def expect(self, pose: Floats, deviation: float) -> None:
        """
        Start over around a pose (7,) that somebody gave, within some metres (1 sigma).

        Raises ValueError for a deviation that is not finite or is below zero.
        """
        if not (math.isfinite(deviation) and deviation >= 0):
            raise ValueError(f'a deviation must be a finite number of metres, not {deviation}')
        deviation = max(deviation, self.spacing)
        distance = poses.distance(self._poses, pose) / deviation
        turn = poses.angle(self._poses, pose) / (2 * HEADING_ERROR)
        self.nowhere = PRIOR_NOWHERE_EXPECTED
        told = np.exp(-0.5 * (distance ** 2 + turn ** 2))
        scale = (1 - self.nowhere) / (told + 1e-9).sum()
        self._start((told + 1e-9) * scale)
        self._evidence[0] = told * scale * EXPECTED_EVIDENCE

    def predict(self, seconds: float, motion: Floats | None, max_speed: float,
                odometry_error: float = defaults.ODOMETRY_ERROR) -> None:
        """
        Let time pass while the robot moves.

        With `motion` float64 (3,) (metres ahead, metres to the left, radians turned: odometry's
        increment, off by `odometry_error` metres per metre), mass moves to the places that agree
        with it; without, it moves ahead at speeds up to `max_speed`, which change now and then. A
        little goes to 'nowhere', comes back, or lands anywhere. Raises ValueError for a time below
        zero.
        """
        if seconds < 0:
            raise ValueError(f'time cannot pass backwards ({seconds} s)')
        self._places = self._summed = None
        if motion is None:
            self._spread_speeds(seconds)
        elif len(self._mass) > 1:
            self._alike = self._alike.shared(1 / len(self._mass))
            self._mass = self._mass.sum(axis=0, keepdims=True)
            self._evidence = self._evidence.sum(axis=0, keepdims=True)
        length = max_speed * seconds if motion is None else math.hypot(*motion[:2])
        driven = length if motion is not None else length * float(SPEEDS.mean())
        lost, found, carried = -np.expm1(
            [-driven * TO_NOWHERE, -driven * FROM_NOWHERE, -seconds * KIDNAPPED])
        steps = min(MOST_STEPS, max(1, math.ceil(length / self._reach)))
        stray = sum(self._move(length / steps, None if motion is None else motion / steps,
                               odometry_error)
                    for _ in range(steps))
        stray *= self._alike.scale
        self.nowhere += stray
        self._mapped -= stray
        stays = (1 - lost) * (1 - carried)
        landed = found * self.nowhere + carried * (1 - lost) * self._mapped
        self.nowhere += lost * self._mapped - found * self.nowhere
        self._alike = self._alike.moved(stays, landed / self._mass.size)
        self._mapped = self._mapped * stays + landed

    def update(self, places: NDArray[np.int64], ratios: Floats, rest: float, *,
               weight: float = 1.0, novelty: float = 1.0) -> None:
        """
        Take in what was seen: the likelihood ratios (k,) of `places`, `rest` of all others.

        A ratio is p(seen | this place) / p(seen | some other place); 'nowhere' has 1. The belief
        takes it to the power of `weight`, the support counts it as `novelty` (0 to 1) of a frame.
        """
        if len(places) > 1:  # of a place named twice the last is meant
            places, last = np.unique(places[::-1], return_index=True)
            ratios = ratios[::-1][last]
        share = min(1.0, novelty) / WINDOW
        logs, log_rest = np.log(np.maximum(ratios, 1e-12)), math.log(max(rest, 1e-12))
        factors, factor = np.exp(weight * logs), math.exp(weight * log_rest)
        mass = self._alike.mass(self._mass[:, places])
        evidence = self._true_evidence(places)
        seen = mass.sum(axis=0)
        total = (factor * max(0.0, self._mapped - float(seen.sum())) + float(factors @ seen)
                 + self.nowhere)
        factor, factors = factor / total, factors / total
        if not self._alike.within_bounds(factor, share):
            self._settle()
        sums, self._alike = self._sums(), self._alike.seen(factor, share, log_rest)
        self._mass[:, places] = own = (mass * factors - self._alike.landed) / self._alike.scale
        self._evidence[:, places] = self._alike.stored(
            (evidence * (1 - share) + mass * (share * logs)) * factors, own)
        sums[places] = own.sum(axis=0)
        self._places = None
        self._mapped = float(self.places.sum())
        self.nowhere /= total

    def _start(self, mass: Floats) -> None:
        self._mass = mass[None].copy()
        self._evidence = np.zeros_like(self._mass)
        self._alike, self._summed = _Alike(), None
        self._mapped, self._places = float(mass.sum()), None

    def _sums(self) -> Floats:
        """Return `_mass` (N,) over all speeds."""
        if self._summed is None:
            self._summed = np.asarray(self._mass.sum(axis=0))
        return self._summed

    def _true_evidence(self, places: NDArray[np.int64]) -> Floats:
        """Return the evidence (speeds,m) of some places."""
        return self._alike.evidence(self._mass[:, places], self._evidence[:, places])

    def _settle(self) -> None:
        """Do to each state what was put off."""
        for block in self._blocks():
            mass, evidence = self._mass[:, block], self._evidence[:, block]
            evidence[:] = self._alike.evidence(mass, evidence)
            mass[:] = self._alike.mass(mass)
        self._alike, self._summed = _Alike(), None

    def _blocks(self) -> Iterator[slice]:
        """Yield the places in parts whose states fit the processor's cache."""
        size = max(1, _BLOCK // len(self._mass))
        for start in range(0, self._count, size):
            yield slice(start, start + size)

    def _spread_speeds(self, seconds: float) -> None:
        """Give each place its speeds, of which some mass changes to others in that time."""
        count = len(SPEEDS)
        if len(self._mass) == 1:
            self._mass = np.repeat(self._mass / count, count, axis=0)
            self._evidence = np.repeat(self._evidence / count, count, axis=0)
            self._alike = self._alike.shared(count)
            return
        nearby, anew = -np.expm1(-seconds * np.array([CHANGED_SPEED, NEW_SPEED]))
        change = np.eye(count) + nearby / 2 * (np.eye(count, k=1) + np.eye(count, k=-1))
        change += (1 - change.sum(axis=0)) * np.eye(count)
        change = (1 - anew) * change + anew / count
        for block in self._blocks():
            self._mass[:, block] = change @ self._mass[:, block]
            self._evidence[:, block] = change @ self._evidence[:, block]

    def _move(self, length: float, motion: Floats | None, odometry_error: float) -> float:
        """
        Move the mass of each state to those of its place's neighbours that one step leads to.

        `length` is that of the motion or, without one, that of the fastest. Returns the mass that
        finds none there.
        """
        mass, evidence = self._mass.reshape(-1), self._evidence.reshape(-1)
        active = self._active(mass)
        speed, place = np.divmod(active, self._count)
        near = self._neighbours.take(place, axis=0)
        ahead, aside, turn, chord = self._ways(place, near)
        if motion is None:
            travelled = length * SPEEDS[speed][:, None]
            gap = length * _GAPS[speed][:, None]
            # On an arc the chord to where one gets lies half the turn off the heading.
            cosine, sine = chord
            along, across = cosine * ahead + sine * aside, cosine * aside - sine * ahead
            square = (((along - travelled) ** 2 + across ** 2)
                      / (self.spacing / 2 + gap / 4) ** 2
                      + (turn / (HEADING_ERROR + CURVATURE * travelled)) ** 2)
        else:
            error = self.spacing / 2 + odometry_error * length
            square = (((ahead - motion[0]) ** 2 + (aside - motion[1]) ** 2) / error ** 2
                      + (_wrapped(turn - motion[2]) / HEADING_ERROR) ** 2)
        weights = np.exp(-0.5 * square)
        weights /= (weights.sum(axis=1) + _STRAY)[:, None]
        targets = (near + (speed * self._count)[:, None]).ravel()
        stray = float((1 - weights.sum(axis=1)) @ mass[active])
        for amount in (mass, evidence):
            moving = (weights * amount[active][:, None]).ravel()
            amount[active] = 0
            np.add.at(amount, targets, moving)
        return stray

    def _active(self, mass: Floats) -> NDArray[np.int64]:
        """Return the states whose mass is to move: the heaviest, where there are many."""
        least = _NEGLIGIBLE * mass.max()
        if len(mass) > 8 * _BLOCK:  # to sort all would take longer than all the rest
            sample = mass[::len(mass) // _BLOCK]
            rank = len(sample) - max(1, 2 * ACTIVE * len(sample) // len(mass))
            heavy = np.flatnonzero(mass > max(least, np.partition(sample, rank)[rank]))
            if len(heavy) < ACTIVE:
                heavy = np.flatnonzero(mass > least)
        else:
            heavy = np.flatnonzero(mass > least)
        if len(heavy) > ACTIVE:
            heavy = heavy[np.argpartition(mass[heavy], -ACTIVE)[-ACTIVE:]]
        return heavy

    def _ways(self, place: NDArray[np.int64], near: NDArray[np.int32]
              ) -> tuple[Floats, Floats, Floats, tuple[Floats, Floats]]:
        """
        Return how far the places `near` (m,16) are ahead of places (m,), aside, and turned.

        And the cosine and sine of half the turn.
        """
        (x, y, heading, half_cosine, half_sine), own = self._plane, place[:, None]
        east, north = x.take(near) - x.take(own), y.take(near) - y.take(own)
        cosine, sine = np.cos(heading.take(own)), np.sin(heading.take(own))
        c, s, c_near, s_near = (half_cosine.take(own), half_sine.take(own),
                                half_cosine.take(near), half_sine.take(near))
        chord, tilt = c * c_near + s * s_near, c * s_near - s * c_near
        turn = heading.take(near) - heading.take(own)
        if np.abs(turn).max() >= np.pi:
            turn = _wrapped(turn)
            tilt = np.copysign(tilt, turn)  # half of an angle that was not wrapped is turned by pi
            chord = np.abs(chord)
        return (cosine * east + sine * north, cosine * north - sine * east, turn, (chord, tilt))


@dataclass(frozen=True)
class _Alike:
    """
    What has happened to all states of a belief alike since their numbers were last touched.

    A state whose numbers are m and e has the mass `scale * m + landed`, and the evidence
    `scale * (fade * e + drift * m) + proven`.
    """

    scale: float = 1.0
    landed: float = 0.0
    fade: float = 1.0
    drift: float = 0.0
    proven: float = 0.0

    def mass(self, mass: Floats) -> Floats:
        """Return the mass of states from their number m."""
        return self.scale * mass + self.landed

    def evidence(self, mass: Floats, evidence: Floats) -> Floats:
        """Return the evidence of states from their numbers m and e."""
        return self.scale * (self.fade * evidence + self.drift * mass) + self.proven

    def stored(self, evidence: Floats, mass: Floats) -> Floats:
        """Return the numbers e of states that have this evidence, and the number m."""
        return ((evidence - self.proven) / self.scale - self.drift * mass) / self.fade

    def seen(self, factor: float, share: float, log: float) -> _Alike:
        """Return it after all masses were multiplied, and a frame's log-likelihood shared."""
        return _Alike(self.scale * factor, self.landed * factor, self.fade * (1 - share),
                      self.drift * (1 - share) + share * log,
                      factor * (self.proven * (1 - share) + share * log * self.landed))

    def moved(self, stays: float, landed: float) -> _Alike:
        """Return it after a share of all mass went away, and some landed on each state."""
        return replace(self, scale=self.scale * stays, landed=self.landed * stays + landed,
                       proven=self.proven * stays)

    def shared(self, count: float) -> _Alike:
        """Return it after each state became `count` states that share what it has."""
        return replace(self, landed=self.landed / count, proven=self.proven / count)

    def within_bounds(self, factor: float, share: float) -> bool:
        """Return whether numbers stay exact after one more frame."""
        return (_LEAST < self.scale * factor < 1 / _LEAST
                and self.fade * (1 - share) > _LEAST)


def _wrapped(angle: Floats) -> Floats:
    """Return angles in radians within [-pi, pi)."""
    return np.asarray(angle - 2 * np.pi * np.floor((angle + np.pi) / (2 * np.pi)))
