"""Whether the same place lies together, whatever the season, in the descriptors of drives.

Pictures of them by t-SNE and UMAP, and the share that says it in a number. What happens inside the
network is in training/words.py.
"""

from __future__ import annotations

from dataclasses import dataclass
import logging
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from vpr_ros.errors import SourceError
from vpr_ros.errors import VprError
from vpr_ros.files import whole_file
from vpr_ros.offline.descriptors import describe
from vpr_ros.place_map import centre

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.encoder import Encoder
    from vpr_ros.sources import Source

    Floats = NDArray[np.float64]
    Vectors = NDArray[np.float32]

log = logging.getLogger(__name__)

COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9', '#F0E442', '#000000')
"""One for each drive: those that the colour-blind can tell apart (Okabe and Ito 2008)."""

_MARKERS = 'osD^vP*X'
_NEIGHBOURS = 15


@dataclass(frozen=True)
class DescribedDrive:
    """Some frames of a drive: `label` (its season), `descriptors` float32 (N,D), positions (N,3).

    `pictures` are those that were asked for, uint8 (H,W,3), by the number of the frame.
    """

    label: str
    descriptors: Vectors
    positions: Floats
    pictures: dict[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class Together:
    """How much the same place lies together in different drives.

    `frames`: those that have a frame of another drive within the radius; of these, `share` have
    it as their nearest descriptor among all other drives, `centred` when each drive's mean is
    taken out first, and `chance` would.
    """

    frames: int
    share: float
    centred: float
    chance: float


def describe_drive(source: Source, encoder: Encoder, label: str, most: int, pictures: int
                   ) -> DescribedDrive:
    """Describe at most `most` frames of a source, evenly; keep that many of their pictures.

    Raises SourceError when it has none.
    """
    frames = list(source.frames)
    if not frames:
        raise SourceError(f'{source.name} has no frame with a pose')
    chosen = [frames[n] for n in np.unique(np.linspace(0, len(frames) - 1, most).astype(int))]
    descriptors, _ = describe([frame.load for frame in chosen], encoder, source.name)
    kept = np.unique(np.linspace(0, len(chosen) - 1, pictures).astype(int))
    return DescribedDrive(label, descriptors, np.array([frame.pose[:3] for frame in chosen]),
                          {int(n): chosen[n].load() for n in kept})


def together(drives: Sequence[DescribedDrive], radius: float) -> Together:
    """Return how much the same place, within `radius` metres, lies together in several drives.

    Raises VprError when there is one drive only, or none passes where another did.
    """
    if len(drives) < 2:
        raise VprError('one drive alone has nothing to lie together with: give it another season')
    own = _of(drives)
    positions = np.concatenate([drive.positions for drive in drives])
    near = np.zeros((len(own), len(own)), np.bool_)
    for number, others in enumerate(cKDTree(positions).query_ball_point(positions, radius)):
        near[number, others] = True
    other = own[:, None] != own[None]
    known = (near & other).any(axis=1)
    if not known.any():
        raise VprError(f'no drive comes within {radius:g} m of another: are their poses in one '
                       'frame?')
    shares: list[float] = []
    for vectors in (np.concatenate([drive.descriptors for drive in drives]), centred(drives)):
        nearest = np.where(other, vectors @ vectors.T, -np.inf).argmax(axis=1)
        shares.append(float(near[np.arange(len(own)), nearest][known].mean()))
    chance = ((near & other).sum(axis=1) / other.sum(axis=1))[known].mean()
    return Together(int(known.sum()), shares[0], shares[1], float(chance))


def centred(drives: Sequence[DescribedDrive]) -> Vectors:
    """Return all descriptors (M,D) with each drive's mean taken out, as the localiser does."""
    return np.concatenate([centre(drive.descriptors, drive.descriptors.mean(axis=0))
                           for drive in drives])


def embed(vectors: Vectors, method: str, seed: int = 0) -> tuple[Floats, float]:
    """Return vectors (M,D) in the plane, (M,2), by 'tsne' or 'umap', and its trustworthiness.

    That is 1 when the neighbours in the plane are neighbours in truth (Venna and Kaski 2001).
    Raises VprError when the library is missing, or for fewer than four vectors.
    """
    if len(vectors) < 4:
        raise VprError(f'{len(vectors)} frames are too few for a picture of them')
    try:
        from sklearn.manifold import trustworthiness
        from sklearn.manifold import TSNE
        if method == 'umap':
            from umap import UMAP
            reducer = UMAP(n_neighbors=min(_NEIGHBOURS, len(vectors) - 1), metric='cosine',
                           random_state=seed, n_jobs=1)
        else:
            reducer = TSNE(perplexity=min(30.0, (len(vectors) - 1) / 3), metric='cosine',
                           init='random', random_state=seed)
    except ModuleNotFoundError as error:
        raise VprError(f"{method} needs '{error.name}', which is not installed: "
                       f'pip install vpr_ros[{"umap" if method == "umap" else "viz"}]') from error
    points = np.asarray(reducer.fit_transform(vectors), np.float64)
    near = max(1, min(_NEIGHBOURS, len(vectors) // 2 - 1))
    return points, float(trustworthiness(vectors, points, n_neighbors=near, metric='cosine'))


def draw_embedding(path: str | Path, drives: Sequence[DescribedDrive], points: Floats, title: str
                   ) -> None:
    """Draw points (M,2) twice: coloured by where the frame is, and by which drive it is of.

    Where: by the metres that the first drive had driven there. Needs matplotlib.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(12, 5.6), layout='constrained')
    figure.suptitle(title, fontsize=11)
    by_place, by_drive = figure.subplots(1, 2)
    own, first = _of(drives), drives[0].positions
    driven = np.concatenate([[0.0], np.linalg.norm(np.diff(first, axis=0), axis=1).cumsum()])
    along = driven[cKDTree(first).query(np.concatenate([d.positions for d in drives]))[1]]
    for number, drive in enumerate(drives):
        mine, marker = own == number, _MARKERS[number % len(_MARKERS)]
        shown = by_place.scatter(*points[mine].T, c=along[mine], marker=marker, s=14,
                                 cmap='viridis', vmin=0, vmax=max(float(along.max()), 1e-9))
        by_drive.scatter(*points[mine].T, color=COLOURS[number % len(COLOURS)], marker=marker,
                         s=14, label=f'{drive.label} ({mine.sum()})', alpha=0.7, linewidths=0)
    figure.colorbar(shown, ax=by_place, label='metres along the first drive')
    by_place.set_title('by place: neighbours should have one colour', fontsize=10)
    by_drive.set_title('by drive: colours should be mixed', fontsize=10)
    by_drive.legend(fontsize=9)
    for axes in (by_place, by_drive):
        axes.set_xticks([])
        axes.set_yticks([])
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)


def _of(drives: Sequence[DescribedDrive]) -> NDArray[np.int64]:
    """Return which drive each frame (M,) is of."""
    return np.repeat(np.arange(len(drives)), [len(drive.positions) for drive in drives])
