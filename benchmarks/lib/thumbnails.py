"""
A peer that needs no model: SeqSLAM's patch-normalised thumbnails.

Milford and Wyeth, 'SeqSLAM', ICRA 2012: 64x32 grey pixels, normalised patch by patch, compared by
the sum of absolute differences. Single images only, without the search over sequences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import faiss
import numpy as np
from vpr_ros.core import images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

HEIGHT, WIDTH, PATCH = 32, 64, 8


def describe(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the descriptor float32 (2048,) of an image uint8 (H,W,3)."""
    grey = cv2.cvtColor(images.resize(rgb, HEIGHT, WIDTH), cv2.COLOR_RGB2GRAY)
    # (H,W) -> (H/P,P,W/P,P) -> (patches,P*P)
    patches = grey.reshape(HEIGHT // PATCH, PATCH, WIDTH // PATCH, PATCH).swapaxes(1, 2)
    pixels = patches.reshape(-1, PATCH * PATCH).astype(np.float32)
    deviation = pixels.std(axis=1, keepdims=True)
    normal = (pixels - pixels.mean(axis=1, keepdims=True)) / np.maximum(deviation, 1.0)
    return np.asarray(normal.reshape(-1), np.float32)


def search(database: Sequence[Path], queries: Sequence[Path], k: int) -> NDArray[np.int64]:
    """Return the k most similar database images of each query, int64 (Q,k), best first."""
    index = faiss.IndexFlat(HEIGHT * WIDTH, faiss.METRIC_L1)
    index.add(np.array([describe(images.read(path)) for path in database]))
    places: NDArray[np.int64] = index.search(
        np.array([describe(images.read(path)) for path in queries]), min(k, len(database)))[1]
    return places
