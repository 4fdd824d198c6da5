"""
What a shorter descriptor or a compressed map loses: Recall@1 against bytes per place.

PCA-whitening to fewer dimensions, fitted on drives through the street, and the compressed kinds of
index; on every set of real images.
"""

from __future__ import annotations

from pathlib import Path
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.encoding import descriptors
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import answer
from benchmarks.lib.sets import find_sets
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.maps.index import make_index
from vpr_ros.maps.place_map import centre
from vpr_ros.street import CONDITIONS
from vpr_ros.street import drive
from vpr_ros.street import Town
from vpr_ros.training.whitening import SHRINKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.lib.sets import ImageSet
    from numpy.typing import NDArray

TOWNS = (100, 101, 102)
"""Training towns: the projections are fitted here."""
DIMENSIONS = (512, 256, 128, 64)


def compression(data: str, model: str | None = None, plot: str | None = None) -> dict[str, Any]:
    """Print and return Recall@1 of every kind of compression on every set in `data`."""
    encoder = Encoder(model)
    learned = _centred_drives(encoder)
    sets = [image_set for image_set in find_sets(data) if image_set.has_queries]
    described = [_describe_set(encoder, image_set) for image_set in sets]
    rows: list[list[Any]] = []
    for dimension in (d for d in DIMENSIONS if d <= encoder.dimension):
        shortened = described
        if dimension < encoder.dimension:
            matrix = _whitening(learned, dimension)
            shortened = [(database @ matrix.T, queries @ matrix.T)
                         for database, queries in described]
        for kind in defaults.INDEX_KINDS:
            recalls = [_recall(kind, *vectors, image_set)
                       for vectors, image_set in zip(shortened, sets, strict=True)]
            rows.append([kind, dimension, bytes_per_place(kind, dimension), *recalls,
                         float(np.nanmean(recalls))])
    header = ['index', 'D', 'bytes', *(image_set.name[:16] for image_set in sets), 'mean']
    tables.show(f'Recall@1 of {encoder.path.name} {encoder.digest[:12]} by bytes per place',
                header, rows)
    if plot:
        _plot(rows, plot)
    return {'header': header, 'rows': rows, 'model': encoder.digest}


def bytes_per_place(kind: str, dimension: int) -> float:
    """Return the bytes of index per place, without codebooks and coarse clusters."""
    return float({'flat': 4 * dimension, 'fp16': 2 * dimension, 'sq8': dimension,
                  'hnsw': 4 * dimension + 4 * 64, 'pq': dimension // 8, 'opq': dimension // 8,
                  'ivfpq': dimension // 8 + 8, 'rerank': dimension // 8 + 8}[kind])


def _recall(kind: str, database: NDArray[np.float32], queries: NDArray[np.float32],
            image_set: ImageSet) -> float:
    """Return the Recall@1 of one index; NaN where the set is too small for its kind."""
    places = centre(database, database.mean(axis=0))
    try:
        index = make_index(places, kind)
    except ValueError:
        return float('nan')
    answers = image_set.answers()
    names = [path.name for path in images.list_folder(image_set.queries)]
    best = index.search(centre(queries, queries.mean(axis=0)), 1)[1][:, 0]
    return float(np.mean([place in answers[name] for name, place in zip(names, best, strict=True)
                          if name in answers]))


def _describe_set(encoder: Encoder, image_set: ImageSet
                  ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    database, queries = (descriptors(encoder, map(images.read, images.list_folder(folder)))
                         for folder in (image_set.database, image_set.queries))
    return database, queries


def _centred_drives(encoder: Encoder) -> NDArray[np.float32]:
    """Return descriptors (N,D) of the training towns, each drive centred on its mean."""
    parts = []
    for seed in tqdm(TOWNS, desc='training towns', disable=None):
        for condition in CONDITIONS:
            frames = drive(Town(seed), condition=condition, seed=1, rate=2.0)
            vectors = descriptors(encoder, (frame.image for frame in frames))
            parts.append(vectors - vectors.mean(axis=0))
    return np.concatenate(parts)


def _whitening(centred: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Return the PCA-whitening (dimension,D) of centred descriptors (N,D), slightly shrunk."""
    variances, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred / len(centred))
    variances, vectors = variances[::-1][:dimension], vectors[:, ::-1][:, :dimension]
    scale = np.sqrt((1 - SHRINKAGE) * variances + SHRINKAGE * variances.mean())
    return np.asarray((vectors / scale).T, np.float32)


def _plot(rows: Sequence[Sequence[Any]], path: str) -> None:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(6.4, 4.0), layout='constrained')
    axes = figure.add_subplot()
    for kind in defaults.INDEX_KINDS:
        points = sorted((row[2], row[-1]) for row in rows if row[0] == kind)
        axes.plot(*zip(*points, strict=True), 'o-', label=kind)
    axes.set(xscale='log', xlabel='bytes per place', ylabel='Recall@1, mean over the sets')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(Path(path), dpi=110)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    add_data_option(parser)
    parser.add_argument('--plot', metavar='PNG', help='also draw the table as a plot')
    options = parser.parse_args()
    return answer(options, lambda: compression(options.data, options.model, options.plot))


if __name__ == '__main__':
    sys.exit(main())
