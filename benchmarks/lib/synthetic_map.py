"""
Large maps of synthetic descriptors, on a grid of streets, for benchmarks of speed and memory.

The descriptors come from drive_vectors.py, or are random where only their number matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.poses import planar
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

STREET = 1000
"""Metres of a street, a place for each; the next street is 20 m beside it."""

CANDIDATES = 256
"""Places that the localiser searches for in each frame."""


def street_poses(count: int) -> NDArray[np.float64]:
    """Return the poses (count,7) of places one metre apart, along parallel streets."""
    along = np.arange(count) % STREET * 1.0
    return planar(along, np.arange(count) // STREET * 20.0, 0 * along)


def random_vectors(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """Return unit vectors float32 (count,dimension) in random directions."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def synthetic_map(descriptors: NDArray[np.float32], index: str, model: ModelIdentity | None = None
                  ) -> PlaceMap:
    """Return a map of one session with these descriptors (N,D), of `model` or a made-up one."""
    count, dimension = descriptors.shape
    manifest = Manifest(model or ModelIdentity('0' * 64, 'synthetic', dimension, 240, 320),
                        (Session('synthetic'),), spacing=1.0, index=index)
    return PlaceMap.build(descriptors, np.arange(count) * 10**9, street_poses(count),
                          np.zeros(count, np.int32), manifest)
