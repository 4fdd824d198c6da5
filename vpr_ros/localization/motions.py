"""Motions: a robot drives as odometry says, or at one of some speeds, and that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SPEEDS = np.array([0.0, *0.8 ** np.arange(14, -1, -1.0)])
"""Speeds that are told apart without odometry, as shares of the fastest."""

ODOMETRY_IS_RIGHT = 0.95
"""Probability that odometry is right when it begins."""

# Rates per second: of changing to a neighbouring speed, and to any speed (a robot brakes or starts
# within a second or two); of odometry going wrong (wheels slip), and being right again.
CHANGED_SPEED = 0.1
NEW_SPEED = 0.02
ODOMETRY_FAILS = 0.001
ODOMETRY_RECOVERS = 0.2


def shares(odometry: float) -> Floats:
    """Return the share (M,) of each motion: odometry's, and the same for all speeds."""
    return np.array([odometry, *np.full(len(SPEEDS), (1 - odometry) / len(SPEEDS))])


def changes(seconds: float, wrong: float | None) -> Floats:
    """
    Return how motions change in that time, (M,M): (to, from).

    `wrong` is for how many seconds odometry was wrong more than right, None where there is none:
    the longer, the less it is expected to become right again.
    """
    count = len(SPEEDS)
    recovery = 0.0 if wrong is None else ODOMETRY_RECOVERS / (1 + ODOMETRY_RECOVERS * wrong)
    nearby, anew, fails, recovers = -np.expm1(-seconds * np.array(
        [CHANGED_SPEED, NEW_SPEED, ODOMETRY_FAILS, recovery]))
    change = np.eye(count) + nearby / 2 * (np.eye(count, k=1) + np.eye(count, k=-1))
    change += (1 - change.sum(axis=0)) * np.eye(count)
    change = (1 - anew) * change + anew / count
    motions = np.empty((1 + count, 1 + count))
    motions[:, 0] = shares(0.0 if wrong is None else 1 - fails)
    motions[0, 1:], motions[1:, 1:] = recovers, (1 - recovers) * change
    return motions
