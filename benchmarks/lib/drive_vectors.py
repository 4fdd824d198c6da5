"""
Synthetic descriptors like those of a long drive: neighbours are similar, places are clustered.

Independent random vectors would say nothing about a map: they give an approximate search nothing
to use, and no second-best match that is nearly as good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

CORRELATION = 0.9
"""Of a place and the next one, a metre further."""

_DECAY = 0.5
_PART = 65_536


def drive_vectors(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """
    Return unit vectors float32 (count,dimension) of a drive: a random walk on the sphere.

    The dimensions' variances fall as a power of their number, as principal components' do.
    """
    rng = np.random.default_rng(seed)
    scale = np.arange(1, dimension + 1, dtype=np.float32) ** -_DECAY
    vectors = np.empty((count, dimension), np.float32)
    state = rng.standard_normal((1, dimension)) * CORRELATION
    for start in range(0, count, _PART):
        noise = rng.standard_normal((min(_PART, count - start), dimension), np.float32)
        noise *= np.sqrt(1 - CORRELATION ** 2)
        walk, state = lfilter([1.0], [1.0, -CORRELATION], noise, axis=0, zi=state)
        vectors[start:start + len(noise)] = walk * scale
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def later_drive(vectors: NDArray[np.float32], count: int, similarity: float, seed: int = 1
                ) -> NDArray[np.float32]:
    """
    Return queries float32 (count,D) of another season: between two places, with noise.

    The noise is a drive elsewhere, so that it is distributed like the vectors; the cosine
    similarity to the place is about `similarity`.
    """
    rng = np.random.default_rng(seed)
    places = rng.integers(0, len(vectors) - 1, count) if len(vectors) > 1 else np.zeros(count, int)
    share = rng.random((count, 1), np.float32)
    following = vectors[np.minimum(places + 1, len(vectors) - 1)]
    true = (1 - share) * vectors[places] + share * following
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    elsewhere = drive_vectors(20 * count, vectors.shape[1], seed + 1000)[::20]
    queries = similarity * true + np.sqrt(1 - similarity ** 2) * elsewhere
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return np.asarray(queries, np.float32)
