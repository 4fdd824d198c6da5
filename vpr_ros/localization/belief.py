"""
Belief: a Bayes filter over the places of a map and one more state, 'nowhere on the map'.

It knows of poses, likelihoods and time; what an image or a descriptor is, it does not know. How
the numbers of all states are kept is in states.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.localization.motions import changes
from vpr_ros.localization.motions import ODOMETRY_IS_RIGHT
from vpr_ros.localization.motions import shares
from vpr_ros.localization.motions import SPEEDS
from vpr_ros.localization.states import States

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

NEIGHBOURS = 16
"""Places that probability can move to in one step, the place itself among them."""

MAX_STEPS = 20
"""Steps into which one motion is divided at most, each about as long as neighbours reach."""

KIDNAPPED = 0.001
"""Rate per second of being kidnapped."""

# Rates per metre: of leaving the mapped streets, and of coming back to them.
TO_NOWHERE = 0.0017
FROM_NOWHERE = 0.008

PRIOR_NOWHERE = 0.5
PRIOR_NOWHERE_EXPECTED = 0.02
"""The same when a pose was given."""

HEADING_ERROR = 0.25
"""Radians by which the heading of odometry, or of a place, is off (1 sigma)."""

CURVATURE = 0.2
"""Radians per metre that a robot without odometry is thought to turn at most (1 sigma)."""

WINDOW = 30.0
"""Time constant of the mean evidence, in wholly new frames: a corner on no map may look like a
mapped one for a dozen."""

EXPECTED_EVIDENCE = 5.0
"""The evidence for a place whose pose was given: that of a clear stretch."""

_ODOMETRY = np.array([0])
"""Which of the motions is as odometry says; the others are at one of the speeds."""

_GRID_ERROR = 0.45
"""Spacings by which a place is off where a robot without odometry gets to (1 sigma)."""

_SPEED_ERROR = 0.05
"""How far off a robot is from one of the SPEEDS, as a share of it (1 sigma)."""

_FARTHEST = 1e6
"""Metres from which on one motion is as absurd as another."""

_STRAY = 0.01
"""Weight of 'no matching neighbour' in the normalisation, that of a place 3 sigma off."""

_FEW = 0.5
"""Weight of all neighbours below which there may be no place where the robot has got to. In the
middle of a gap of two spacings it is about 0.4, past the end of a map 0.15."""


class Belief:
    """
    The probability of each of N places and of being nowhere on the map; they sum to 1.

    `places` is float64 (N,), `nowhere` a float. `evidence` float64 (N,) is the mean log-likelihood
    ratio of what was lately seen on the way to each place: it starts at zero, and where routes
    meet the likelier one counts for more. The same probability may rest on strong evidence or on a
    long row of weak evidence, in which frames that are not independent are counted as if they
    were; evidence tells the two apart. Each place has a probability for each motion: as odometry
    says, or at one of the SPEEDS, since robots keep theirs. What is seen decides between
    them, and so whether odometry is believed.
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
        self._has_odometry = False
        self._believed = ODOMETRY_IS_RIGHT  # how much of it, when there is odometry again
        self.nowhere = PRIOR_NOWHERE
        self._mapped = 0.0  # the probability of being anywhere on the map
        self.forget()

    @property
    def places(self) -> Floats:
        """Return the probability (N,) of each place."""
        return self._states.places

    @property
    def evidence(self) -> Floats:
        """Return the mean log-likelihood ratio (N,) lately seen on the way to each place."""
        return self.evidence_of(np.arange(self._count))

    def evidence_of(self, places: Places) -> Floats:
        """Return the evidence (m,) for only some places."""
        _, weighted = self._states.at(places)
        return np.asarray(weighted.sum(axis=0) / np.maximum(self.places[places], 1e-300))

    @property
    def odometry_share(self) -> float:
        """Return how much of the probability on the map believes in odometry, in [0,1]."""
        if self._states.motions == 1:
            return 0.0
        return float(self._states.totals[0]) / max(self._mapped, 1e-300)

    @property
    def mean_speed(self) -> float:
        """Return the mean speed, as a share of the fastest, of what does not follow odometry."""
        if self._states.motions == 1:
            return float(SPEEDS.mean())
        held = self._states.totals[1:]
        return float(held @ SPEEDS / max(held.sum(), 1e-300))

    def within(self, position: Floats, radius: float) -> Places:
        """Return the places (m,) that are within some metres of a position (3,), in order."""
        near = self._tree.query_ball_point(position, radius, return_sorted=True)
        return np.asarray(near, np.int64)

    def forget(self) -> None:
        """Start over: any place is as likely as any other."""
        self.nowhere = PRIOR_NOWHERE
        self._start(np.full(self._count, (1 - self.nowhere) / self._count))

    def expect(self, pose: Floats, deviation: float) -> None:
        """
        Start over around a pose (7,) that was given, within some metres (1 sigma).

        Raises ValueError for a deviation that is not finite or is below zero.
        """
        if not (math.isfinite(deviation) and deviation >= 0):
            raise ValueError(f'a deviation must be a finite number of metres, not {deviation}')
        deviation = max(deviation, self.spacing)
        distance = poses.distance(self._poses, pose) / deviation
        turn = poses.angle(self._poses, pose) / (2 * HEADING_ERROR)
        self.nowhere = PRIOR_NOWHERE_EXPECTED
        given = np.exp(-0.5 * (distance ** 2 + turn ** 2))
        scale = (1 - self.nowhere) / (given + 1e-9).sum()
        self._start((given + 1e-9) * scale, given * scale * EXPECTED_EVIDENCE)

    def predict(self, seconds: float, motion: Floats | None, max_speed: float,
                odometry_error: float = defaults.ODOMETRY_ERROR) -> None:
        """
        Let time pass while the robot moves: `follow` odometry, if there is a motion, and `wait`.

        Raises ValueError for a time below zero.
        """
        self.set_odometry(available=motion is not None)
        if motion is not None:
            self.follow(motion, odometry_error)
        self.wait(seconds, max_speed)

    def set_odometry(self, *, available: bool) -> None:
        """
        Say whether there is odometry to follow from here on.

        When it comes back it is believed as much as before.
        """
        if self._states.motions == 1:
            self._states.split(shares(ODOMETRY_IS_RIGHT if available else 0.0))
        elif available != self._has_odometry:
            if not available:
                self._believed = self.odometry_share
            right = self._believed if available else 0.0
            change = np.diag([right, *np.full(len(SPEEDS), 1 - right)])
            change[0, 1:], change[1:, 0] = right, (1 - right) / len(SPEEDS)
            self._states.mix(change)
        self._has_odometry = available

    def pardon_odometry(self) -> None:
        """Say that what was wrong with odometry is put right: it begins anew."""
        self._has_odometry, self._believed, self._wrong = False, ODOMETRY_IS_RIGHT, 0.0

    def follow(self, motion: Floats, odometry_error: float = defaults.ODOMETRY_ERROR) -> None:
        """
        Move what believes in odometry by its increment.

        `motion` float64 (3,): metres ahead, metres to the left, radians turned; it is off by
        `odometry_error` metres per metre.
        """
        motion = np.clip(motion, -_FARTHEST, _FARTHEST)
        length = math.hypot(*motion[:2])
        steps = self._steps(length)
        stray = sum(self._follow(motion / steps, odometry_error) for _ in range(steps))
        self._leak(0.0, length * self.odometry_share, stray)

    def wait(self, seconds: float, max_speed: float, likelihood: Floats | None = None) -> None:
        """
        Let time pass: what does not believe in odometry moves ahead, at speeds up to `max_speed`.

        Speeds change now and then, and odometry goes wrong or becomes right; `likelihood` (M,) is
        how much all else speaks for each motion, odometry's first. A little probability goes to
        'nowhere', comes back, or lands anywhere. Raises ValueError for a time below zero.
        """
        if seconds < 0:
            raise ValueError(f'time cannot pass backwards ({seconds} s)')
        if self._states.motions > 1:
            self._change_motions(seconds, likelihood)
        else:
            self.set_odometry(available=False)
        length = max_speed * seconds
        driven = length * self.mean_speed * (1 - self.odometry_share)
        self._leak(seconds, driven, self._drive_on(length))

    def _change_motions(self, seconds: float, likelihood: Floats | None) -> None:
        """Change motions where the robot may be: elsewhere that makes no difference."""
        share = self.odometry_share
        self._wrong = max(0.0, self._wrong + seconds * self._mapped * (1 - 2 * share))
        change = changes(seconds, self._wrong if self._has_odometry else None)
        places = self._states.likely_places()
        if likelihood is not None:
            held = self._states.at(places)[0].sum(axis=1)
            change *= likelihood * held.sum() / (likelihood @ held)
        self._states.mix(change, places)

    def update(self, places: Places, ratios: Floats, rest: float, *,
               weight: float = 1.0, novelty: float = 1.0) -> None:
        """
        Take in what was seen: the likelihood ratios (k,) of `places`, `rest` of all others.

        A ratio is p(seen | this place) / p(seen | some other place); 'nowhere' has 1. The belief
        takes it to the power of `weight`, evidence counts it as `novelty` (0 to 1) of a frame.
        """
        if len(places) > 1:  # of duplicates the last one counts
            places, last = np.unique(places[::-1], return_index=True)
            ratios = ratios[::-1][last]
        share = min(1.0, novelty) / WINDOW
        logs, log_rest = np.log(np.maximum(ratios, 1e-12)), math.log(max(rest, 1e-12))
        factors, factor = np.exp(weight * logs), math.exp(weight * log_rest)
        probability, weighted = self._states.at(places)
        before = probability.sum(axis=0)
        total = (factor * max(0.0, self._mapped - float(before.sum())) + float(factors @ before)
                 + self.nowhere)
        if not total > 0:  # no state explains what was seen, in the precision of numbers
            self.forget()
            return
        factor, factors = factor / total, factors / total
        self._states.observe(factor, share, log_rest)
        self._states.put(places, probability * factors,
                         (weighted * (1 - share) + probability * (share * logs)) * factors)
        self._mapped = float(self.places.sum())
        self.nowhere /= total

    def _start(self, probability: Floats, weighted: Floats | None = None) -> None:
        self._states = States(probability, weighted)
        self._has_odometry = False
        self._ahead = np.zeros(len(SPEEDS))  # metres at each speed that were not applied yet
        self._believed = ODOMETRY_IS_RIGHT
        self._wrong = 0.0  # seconds for which odometry was wrong, more than right
        self._mapped = float(probability.sum())

    def _steps(self, length: float) -> int:
        """Return into how many steps a motion of some metres is divided: neighbours are near."""
        return max(1, math.ceil(min(MAX_STEPS, length / self._reach)))

    def _follow(self, motion: Floats, odometry_error: float) -> float:
        """Move what believes in odometry by one step; return what is left without a target."""
        motions, places = self._states.likeliest(_ODOMETRY)
        near, ahead, aside, turn, _ = self._displacements(places)
        error = self.spacing / 2 + odometry_error * math.hypot(*motion[:2])
        square = (((ahead - motion[0]) ** 2 + (aside - motion[1]) ** 2) / error ** 2
                  + (_wrapped(turn - motion[2]) / HEADING_ERROR) ** 2)
        return self._move(motions, places, near, square)

    def _drive_on(self, length: float) -> float:
        """
        Move all else, the fastest by `length`; return what is left without a target.

        Each speed moves when it has come as far as the next place: probability that moves in many
        small steps would spread in each of them.
        """
        self._ahead = np.minimum(self._ahead + length * SPEEDS, MAX_STEPS * self._reach)
        stray = 0.0
        while len(due := np.flatnonzero(self._ahead >= self.spacing)):
            travelled = np.minimum(self._ahead[due], self._reach)
            self._ahead[due] -= travelled
            stray += self._move_on(due, travelled)
        return stray

    def _move_on(self, due: Places, travelled: Floats) -> float:
        """Move what has one of some speeds (m,) by metres (m,); return what has no target."""
        motions, places = self._states.likeliest(1 + due)
        near, ahead, aside, turn, (cosine, sine) = self._displacements(places)
        metres = travelled[np.searchsorted(due, motions - 1)][:, None]
        # On an arc the chord to the target lies half the turn off the heading.
        along, across = cosine * ahead + sine * aside, cosine * aside - sine * ahead
        error = _GRID_ERROR * self.spacing + _SPEED_ERROR * metres
        square = (((along - metres) ** 2 + across ** 2) / error ** 2
                  + (turn / (HEADING_ERROR + CURVATURE * metres)) ** 2)
        return self._move(motions, places, near, square)

    def _move(self, motions: Places, places: Places, near: NDArray[np.int32], square: Floats
              ) -> float:
        """
        Move the probability of states (m,) to the places (m,k) near them.

        `square` (m,k) is how far off each is, in squared standard deviations.
        """
        weights = np.exp(-0.5 * square)
        weights /= (np.maximum(weights.sum(axis=1), _FEW) + _STRAY)[:, None]
        return self._states.move(motions, places, near, weights)

    def _leak(self, seconds: float, driven: float, stray: float) -> None:
        """
        Exchange probability between the map, 'nowhere' and anywhere else on the map.

        `driven`: metres driven, on which the rates of leaving and re-entering the map depend;
        `stray`: the probability that has just driven off the map.
        """
        lost, found, kidnapped = -np.expm1(
            [-driven * TO_NOWHERE, -driven * FROM_NOWHERE, -seconds * KIDNAPPED])
        self.nowhere += stray
        self._mapped -= stray
        stays = (1 - lost) * (1 - kidnapped)
        landed = found * self.nowhere + kidnapped * (1 - lost) * self._mapped
        self.nowhere += lost * self._mapped - found * self.nowhere
        self._states.scatter(stays, landed / (self._states.motions * self._count))
        self._mapped = self._mapped * stays + landed

    def _displacements(self, places: Places
                       ) -> tuple[NDArray[np.int32], Floats, Floats, Floats,
                                  tuple[Floats, Floats]]:
        """
        Return the neighbours (m,k) of places (m,): ahead, to the left, and turned by how much.

        And the cosine and sine of half the turn. All are (m,k).
        """
        near = self._neighbours.take(places, axis=0)
        (x, y, heading, half_cosine, half_sine), own = self._plane, places[:, None]
        east, north = x.take(near) - x.take(own), y.take(near) - y.take(own)
        cosine, sine = np.cos(heading.take(own)), np.sin(heading.take(own))
        c, s, c_near, s_near = (half_cosine.take(own), half_sine.take(own),
                                half_cosine.take(near), half_sine.take(near))
        chord, tilt = c * c_near + s * s_near, c * s_near - s * c_near
        turn = heading.take(near) - heading.take(own)
        if np.abs(turn).max(initial=0.0) >= np.pi:
            turn = _wrapped(turn)
            tilt = np.copysign(tilt, turn)  # half of an angle that was not wrapped is turned by pi
            chord = np.abs(chord)
        return (near, cosine * east + sine * north, cosine * north - sine * east, turn,
                (chord, tilt))


def _wrapped(angle: Floats) -> Floats:
    """Return angles in radians within [-pi, pi)."""
    return np.asarray(angle - 2 * np.pi * np.floor((angle + np.pi) / (2 * np.pi)))
