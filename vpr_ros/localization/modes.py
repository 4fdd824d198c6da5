"""The modes of a belief: the places that hold more of it than any other around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FAINT = 1e-3
"""Share of the likeliest place's probability below which a place is no mode."""

_COMPARED = 256
"""Places that are compared, the likeliest."""


def strongest_modes(belief: Floats, positions: Floats, radius: float, count: int
                    ) -> tuple[NDArray[np.int64], Floats]:
    """
    Return the places (m,) of the strongest modes, `count` at most, and what each holds (m,).

    `belief` is that of all places (N,), at `positions` (N,3); what is within `radius` metres
    belongs to a mode.
    """
    likely = np.flatnonzero(belief >= _FAINT * belief.max())
    if len(likely) > _COMPARED:
        likely = likely[np.argpartition(belief[likely], -_COMPARED)[-_COMPARED:]]
    likely = likely[np.argsort(-belief[likely], kind='stable')]
    near, probability = positions[likely], belief[likely]
    chosen: list[int] = []
    held: list[float] = []
    free = np.ones(len(likely), np.bool_)
    while free.any() and len(chosen) < count:
        top = int(free.argmax())
        off = near - near[top]
        own = free & (np.einsum('ij,ij->i', off, off) <= radius ** 2)
        chosen.append(top)
        held.append(float(probability[own].sum()))
        free &= ~own
    order = np.argsort(-np.array(held), kind='stable')
    return likely[np.array(chosen)[order]], np.array(held)[order]
