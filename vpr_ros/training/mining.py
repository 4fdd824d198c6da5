"""
Hard negatives from the whole database: groups of places that look alike and are far apart.

sampler.py makes batches of the groups, data.py computes the descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 128
"""Most similar places among which the negatives of a place are looked for."""


def hard_groups(descriptors: NDArray[np.float32], world: NDArray[np.int64],
                position: NDArray[np.float64], beyond: float, size: int,
                random: np.random.Generator) -> NDArray[np.int64]:
    """
    Partition P places into groups (P/size,size) of similar places that are negatives.

    In an order drawn from `random`, each place that is in no group yet takes the most similar of
    the others that are in another world or more than `beyond` metres away, and have no group
    either; any others, if there are too few. `descriptors` (P,D) of unit norm; `world` (P,) and
    `position` (P,2) are those of the places. Raises ValueError when `size` does not divide P.
    """
    P = len(descriptors)
    if P % size:
        raise ValueError(f'{P} places cannot be grouped by {size}')
    index = faiss.IndexFlatIP(descriptors.shape[1])
    index.add(np.ascontiguousarray(descriptors))
    _, similar = index.search(np.ascontiguousarray(descriptors), min(P, NEIGHBOURS))
    free = np.ones(P, np.bool_)
    order = random.permutation(P)
    groups = []
    for place in order:
        if not free[place]:
            continue
        free[place] = False
        near = similar[place][free[similar[place]]]
        apart = np.linalg.norm(position[near] - position[place], axis=1)
        chosen = near[(world[near] != world[place]) | (apart > beyond)][:size - 1]
        free[chosen] = False
        if len(chosen) < size - 1:
            rest = order[free[order]][:size - 1 - len(chosen)]
            free[rest] = False
            chosen = np.append(chosen, rest)
        groups.append([place, *chosen])
    return np.array(groups, np.int64).reshape(-1, size)
