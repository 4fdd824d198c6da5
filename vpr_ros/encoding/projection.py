"""
The projection of a map: what it makes of the descriptor and the aggregate of a model.

How one is fitted is in maps/projection.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


_ROWS = 8
"""Rows that one image is multiplied with at once: few enough for numpy to stay in one thread. To
wait for a second core, which the network keeps busy, takes up to ten times as long as that."""


@dataclass(frozen=True)
class Projection:
    """
    A linear map of a model's aggregate, float16 (R,A), beside the model's own descriptor or alone.

    It is fitted to a map, and makes descriptors of D + R numbers, or of R alone.
    """

    matrix: NDArray[np.float16]
    beside_model: bool = True

    @cached_property
    def sha256(self) -> str:
        """Return the digest of the matrix in memory."""
        return hashlib.sha256(self.matrix.tobytes()).hexdigest()

    @cached_property
    def _rows(self) -> Floats:
        rows: Floats = self.matrix.astype(np.float32)
        return rows

    def apply(self, descriptors: Floats, aggregates: NDArray[np.floating]) -> Floats:
        """Return the map's descriptors of N images, of unit norm, by those (N,D) and (N,A)."""
        aggregates = aggregates.astype(np.float32, copy=False)
        if len(aggregates) == 1:
            vectors = np.concatenate([self._rows[i:i + _ROWS] @ aggregates[0]
                                      for i in range(0, len(self._rows), _ROWS)])[None]
        else:
            vectors = aggregates @ self._rows.T
        if self.beside_model:
            vectors = np.concatenate([descriptors, vectors], axis=1)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)
