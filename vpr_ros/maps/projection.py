"""
Fit a projection to a map: which directions of the model's aggregate tell its own places apart.

A model's last layer reduces its aggregate to a descriptor for any site. The map's own images, of
which no labels are needed, say what that leaves out. How encoders apply a projection is in
encoding/projection.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.projection import Projection

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder

    Floats = NDArray[np.float32]

log = logging.getLogger(__name__)

MIN_DISTINCT = 10
"""Distinct places below which `auto` keeps the model's descriptors: it gains nothing there."""

HALF_WEIGHT = 80
"""Distinct places with which the projection weighs as much as the model's descriptor: the smallest
number with which no size of map lost in any condition on streets (docs/maps.md)."""

MOST_ROWS = 512
"""Rows of a projection, which each frame is multiplied with."""

MOST_VALUES = 1 << 22
"""Values of a projection: 8.4 MB in a map, as float16."""

_MULTIPLE = 8
"""The number of rows is a multiple of this: quantising indices cut vectors into such parts."""

_ALIKE = 0.5
"""Cosine similarity, centred, above which two places are not distinct."""

_SAMPLE = 4 * MOST_ROWS
"""Places that a projection is fitted to, spread over the map: the time grows with their cube."""

_CHUNK = 1024
"""Images that are projected at once."""

_RANK = 1e-6
"""Share of the largest variance below which a direction is rounding error."""


def possible(kind: str, encoder: Encoder) -> str:
    """
    Return the kind of projection, one of PROJECTIONS, that an encoder's model allows.

    Without an output `aggregate`, that is 'model' for 'auto'; the log says so. Raises ModelError
    where 'none' is asked for, ValueError for an unknown kind.
    """
    if kind not in defaults.PROJECTIONS:
        raise ValueError(f"there is no projection '{kind}': choose from "
                         f'{", ".join(defaults.PROJECTIONS)}')
    if kind == 'model' or encoder.aggregate_size:
        return kind
    if kind == 'none':
        raise ModelError(f"{encoder.path} has no output 'aggregate': use --projection model")
    log.info("projection: the model's descriptors alone, since %s has no output 'aggregate'",
             encoder.path.name)
    return 'model'


def choose_projection(descriptors: Floats, aggregates: NDArray[np.floating],
                      sessions: NDArray[np.int32], kind: str) -> Projection | None:
    """
    Return the projection for a map's images, or None for the descriptors (N,D) as they are.

    aggregates (N,A) and descriptors are of unit norm, each of one of `sessions` (N,). 'auto' gives
    None for a map of few distinct places; the log says what was decided.
    """
    if kind == 'model':
        return None
    chosen = np.unique(np.linspace(0, len(sessions) - 1, _SAMPLE).astype(int))
    own, drives = aggregates[chosen].astype(np.float32), sessions[chosen]
    general = descriptors[chosen].astype(np.float32)
    for drive in np.unique(drives):
        for views in (own, general):
            views[drives == drive] -= views[drives == drive].mean(axis=0)
    distinct = distinct_places(own)
    if kind == 'auto' and distinct < MIN_DISTINCT:
        log.info("projection: the model's descriptors alone, for %.0f distinct places of %d "
                 '(fewer than %d)', distinct, len(sessions), MIN_DISTINCT)
        return None
    directions, variances = _principal(own)
    if not len(directions):
        log.info("projection: the model's descriptors alone, since too few places differ")
        return None
    if kind == 'none':
        log.info('projection: %d directions of the aggregates, without whitening', len(directions))
        return Projection(directions.astype(np.float16), beside_model=False)
    weight = distinct / (distinct + HALF_WEIGHT)
    # Half whitened, a direction of variance v keeps sqrt(v).
    share = weight / (1 - weight) * general.var(axis=0).sum() / np.sqrt(variances).sum()
    scales = np.sqrt(share) * variances ** -0.25
    log.info('projection: fitted to the map, %d directions for %.0f distinct places of %d, which '
             'weigh %.0f%%', len(directions), distinct, len(sessions), 100 * weight)
    return Projection((directions * scales[:, None]).astype(np.float16))


def projected(descriptors: Floats, aggregates: NDArray[np.floating], sessions: NDArray[np.int32],
              kind: str) -> tuple[Floats, Projection | None]:
    """Return a map's descriptors and the projection that makes them; see choose_projection."""
    projection = choose_projection(descriptors, aggregates, sessions, kind)
    if projection is None:
        return descriptors, None
    parts = [slice(i, i + _CHUNK) for i in range(0, len(sessions), _CHUNK)]
    return np.concatenate([projection.apply(descriptors[part], aggregates[part])
                           for part in parts]), projection


def distinct_places(centred: Floats) -> float:
    """
    Return how many different views N centred aggregates (N,A) hold.

    Each place counts for one over the number of places that look alike, so that a dense drive
    along few views does not pass for a large map.
    """
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    alike = int(np.count_nonzero(unit @ unit.T > _ALIKE))
    return float(len(unit) ** 2 / max(alike, 1))


def _principal(centred: Floats) -> tuple[Floats, Floats]:
    """Return orthonormal directions (R,A) of most variance of (N,A), and the variances (R,)."""
    rows = min(MOST_ROWS, MOST_VALUES // centred.shape[1])
    values, combinations = np.linalg.eigh(centred @ centred.T)
    values, combinations = values[::-1][:rows], combinations[:, ::-1][:, :rows]
    rank = int(np.count_nonzero(values > max(_RANK * values[0], 1e-9)))
    rank -= rank % _MULTIPLE
    values, combinations = values[:rank], combinations[:, :rank]
    directions: Floats = (combinations / np.sqrt(values)).T @ centred
    return directions, np.asarray(values / len(centred), np.float32)
