"""
Recall on a validation set, for any function from images to descriptors.

It selects checkpoints and accepts exports. The recall of the whole Localizer is measured in
offline/evaluate_images.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import images
from vpr_ros.core.metrics import recall
from vpr_ros.io.ground_truth import read_ground_truth

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from numpy.typing import NDArray

BATCH = 16
QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class ValidationSet:
    """Image files of P places and Q queries; truth[q] (any number of int64) are q's places."""

    name: str
    database: tuple[Path, ...]
    queries: tuple[Path, ...]
    truth: tuple[NDArray[np.int64], ...]

    @classmethod
    def read(cls, folder: str | Path) -> ValidationSet:
        """
        Read a folder of `database/`, `queries/` and `ground_truth.csv`, as `vpr evaluate` does.

        The CSV has the columns query,reference: file names, one row per correct pair. Raises
        FileNotFoundError or SourceError for a missing part or file.
        """
        folder = Path(folder)
        database = images.list_folder(folder / 'database')
        queries = images.list_folder(folder / 'queries')
        truth = tuple(np.array(right, np.int64) for right in read_ground_truth(
            folder / 'ground_truth.csv', queries, database))
        return cls(folder.name, tuple(database), tuple(queries), truth)


def validate(validation: ValidationSet,
             describe: Callable[[list[NDArray[np.uint8]]], NDArray[np.float32]],
             ns: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Return Recall@n of `describe`; see `validation_ranks`."""
    return recall(validation_ranks(validation, describe), ns)


def validation_ranks(validation: ValidationSet,
                     describe: Callable[[list[NDArray[np.uint8]]], NDArray[np.float32]]
                     ) -> NDArray[np.int64]:
    """
    Return the rank (Q,) of each query with a correct place, as `ranks` does.

    `describe`: N images uint8 (H,W,3) of any sizes -> descriptors (N,D). Raises ImageError for an
    image that cannot be read, ValueError for descriptors not finite.
    """
    described = []
    for files in (validation.database, validation.queries):
        batches = []
        for start in tqdm(range(0, len(files), BATCH), desc=validation.name, unit='batch',
                          leave=False, disable=None):
            batches.append(describe([images.read(file) for file in files[start:start + BATCH]]))
        described.append(np.concatenate(batches))
    return ranks(described[0], described[1], validation.truth)


def recall_at(database: NDArray[np.float32], queries: NDArray[np.float32],
              truth: Sequence[ArrayLike], ns: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """
    Return the share of queries with a correct place among the n most similar, for each of `ns`.

    See `ranks`. Raises ValueError, too, when no query has a correct place.
    """
    return recall(ranks(database, queries, truth), ns)


def ranks(database: NDArray[np.float32], queries: NDArray[np.float32],
          truth: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """
    Return how many wrong places are more similar to each query than a correct one, from 0.

    `database` (P,D) and `queries` (Q,D) are each centred on their own mean, as the map and the
    Localizer do, and compared by cosine. truth[q] are the correct places of q; queries without any
    are skipped. Ties count as mistakes, so that identical descriptors have a recall of zero.
    Raises ValueError for descriptors that are not finite.
    """
    if len(truth) != len(queries):
        raise ValueError(f'{len(queries)} queries need as many entries of truth, not {len(truth)}')
    places, centred = _centred(database), _centred(queries)
    found = []
    for start in range(0, len(centred), QUERIES_AT_ONCE):
        similar = centred[start:start + QUERIES_AT_ONCE] @ places.T  # (q,P)
        for row, answers in zip(similar, truth[start:start + QUERIES_AT_ONCE], strict=True):
            right = np.asarray(answers, np.int64)
            if right.size:
                best = row[right].max()
                found.append(np.sum(row >= best) - np.sum(row[right] == best))
    return np.array(found, np.int64)


def _centred(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract the mean of (N,D) and scale each row to unit norm; a zero row stays zero."""
    if not np.isfinite(descriptors).all():
        raise ValueError('descriptors are not finite: there is no recall')
    # Minus its own mean, a single descriptor would be zero.
    mean = descriptors.mean(axis=0) if len(descriptors) > 1 else 0.0
    rest = np.asarray(descriptors - mean, np.float32)
    norms = np.linalg.norm(rest, axis=1, keepdims=True)
    return np.asarray(rest / np.maximum(norms, 1e-9), np.float32)
