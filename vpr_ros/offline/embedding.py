"""
Whether the same place lies together, whatever the season, in the descriptors of drives.

Pictures of them by t-SNE and UMAP, and the share that says it in a number. What happens inside the
network is in training/words.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import whole_file
from vpr_ros.maps.place_map import centre
from vpr_ros.offline.descriptors import describe_frames

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.sources import Source
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]
    Vectors = NDArray[np.float32]

COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9', '#F0E442', '#000000')
"""One for each drive: those that the colour-blind can tell apart (Okabe and Ito 2008)."""

_MARKERS = 'osD^vP*X'
_NEIGHBOURS = 15


@dataclass(frozen=True)
class DescribedDrive:
    """
    Some frames of a drive: `label` (its season), `descriptors` float32 (N,D), positions (N,3).

    `pictures` are those that were asked for, uint8 (H,W,3), by the number of the frame. `centred`
    says that the drive's mean is out of the descriptors already, as a map keeps them.
    """

    label: str
    descriptors: Vectors
    positions: Floats
    pictures: dict[int, NDArray[np.uint8]]
    centred: bool = False


@dataclass(frozen=True)
class Together:
    """
    How much the same place lies together in different drives.

    `frames`: those that have a frame of another drive within the radius; of these, `share` have
    it as their nearest descriptor among all other drives, `centred` when each drive's mean is
    taken out first, and `chance` would. `share` is None where a map keeps only the latter.
    """

    frames: int
    share: float | None
    centred: float
    chance: float


def describe_drive(source: Source, encoder: Encoder, label: str, most: int, pictures: int
                   ) -> DescribedDrive:
    """
    Describe at most `most` frames of a source, evenly; keep that many of their pictures.

    Raises SourceError when it has none.
    """
    frames, descriptors, _ = describe_frames(source, encoder, set(_evenly(source.count, most)))
    return DescribedDrive(label, descriptors, np.array([frame.pose[:3] for frame in frames]),
                          {n: frames[n].load() for n in _evenly(len(frames), pictures)})


def describe_map(place_map: PlaceMap, most: int, pictures: int) -> list[DescribedDrive]:
    """
    Return at most `most` places of each session of a map, evenly; some have thumbnails.

    Labels are the sessions' conditions, or their sources where the condition is unknown. What a
    map keeps is centred.
    """
    drives = []
    for number, session in enumerate(place_map.manifest.sessions):
        own = np.flatnonzero(place_map.sessions == number)
        own = own[_evenly(len(own), most)]
        kept = {n: picture for n in _evenly(len(own), pictures)
                if (picture := place_map.thumbnail(int(own[n]))) is not None}
        label = session.source if session.condition == 'unknown' else session.condition
        drives.append(DescribedDrive(label, place_map.vectors(own), place_map.poses[own, :3],
                                     kept, centred=True))
    return drives


def together(drives: Sequence[DescribedDrive], radius: float) -> Together:
    """
    Return how much the same place, within `radius` metres, lies together in several drives.

    Raises VprError when there is one drive only, or none passes where another did.
    """
    near, other = _neighbours(drives, radius)
    known = (near & other).any(axis=1)
    chance = ((near & other).sum(axis=1) / other.sum(axis=1))[known].mean()

    def share(vectors: Vectors) -> float:
        return _share(vectors @ vectors.T, near, other)

    raw = raw_of(drives)
    return Together(int(known.sum()), None if raw is None else share(raw),
                    share(centred(drives)), float(chance))


def together_in_plane(drives: Sequence[DescribedDrive], points: Floats, radius: float) -> float:
    """
    Return the share of frames, as in Together, whose nearest point (M,2) is of their place.

    What a picture shows of the descriptors. Raises VprError as `together` does.
    """
    square = np.square(points).sum(axis=1)
    return _share(2 * points @ points.T - square[:, None] - square, *_neighbours(drives, radius))


def _neighbours(drives: Sequence[DescribedDrive], radius: float
                ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which frames are near each frame, and which are of another drive, each (M,M)."""
    if len(drives) < 2:
        raise VprError('one drive alone has nothing to lie together with: give it another season')
    own = _of(drives)
    positions = np.concatenate([drive.positions for drive in drives])
    near = np.zeros((len(own), len(own)), np.bool_)
    for number, others in enumerate(cKDTree(positions).query_ball_point(positions, radius)):
        near[number, others] = True
    other = own[:, None] != own[None]
    if not (near & other).any():
        raise VprError(f'no drive comes within {radius:g} m of another: are their poses in one '
                       'frame?')
    return near, other


def _share(similarity: NDArray[np.floating[Any]], near: NDArray[np.bool_],
           other: NDArray[np.bool_]) -> float:
    """Return the share of frames whose most similar one of another drive is near."""
    known = (near & other).any(axis=1)
    nearest = np.where(other, similarity, -np.inf).argmax(axis=1)
    return float(near[np.arange(len(near)), nearest][known].mean())


def raw_of(drives: Sequence[DescribedDrive]) -> Vectors | None:
    """Return all descriptors (M,D) as the model gave them; None where a drive is of a map."""
    if any(drive.centred for drive in drives):
        return None
    return np.concatenate([drive.descriptors for drive in drives])


def centred(drives: Sequence[DescribedDrive]) -> Vectors:
    """Return all descriptors (M,D) with each drive's mean taken out, as the localiser does."""
    return np.concatenate([
        drive.descriptors if drive.centred
        else centre(drive.descriptors, drive.descriptors.mean(axis=0)) for drive in drives])


def embed(vectors: Vectors, method: str, seed: int = 0) -> tuple[Floats, float]:
    """
    Return vectors (M,D) in the plane, (M,2), by 'tsne' or 'umap', and its trustworthiness.

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
                           init='pca', random_state=seed)
    except ModuleNotFoundError as error:
        raise VprError(f"{method} needs '{error.name}', which is not installed: "
                       f'pip install vpr_ros[{"umap" if method == "umap" else "viz"}]') from error
    points = np.asarray(reducer.fit_transform(vectors), np.float64)
    near = max(1, min(_NEIGHBOURS, len(vectors) // 2 - 1))
    return points, float(trustworthiness(vectors, points, n_neighbors=near, metric='cosine'))


def draw_embedding(path: str | Path, drives: Sequence[DescribedDrive],
                   layouts: Mapping[str, Floats], radius: float, title: str) -> None:
    """
    Draw points (M,2) twice: coloured by where the frame is, and by which drive it is of.

    `layouts`, by what was done to the descriptors, each become a row. Where: by the metres that
    the first drive had driven there. Lines join the same place, within `radius` metres, in the
    first drive and in others. Needs matplotlib.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(12, 5.6 * len(layouts)), layout='constrained')
    figure.suptitle(title, fontsize=11)
    own, first = _of(drives), drives[0].positions
    driven = np.concatenate([[0.0], np.linalg.norm(np.diff(first, axis=0), axis=1).cumsum()])
    away, nearest = cKDTree(first).query(np.concatenate([d.positions for d in drives]))
    along = driven[nearest]
    joined = np.flatnonzero((own > 0) & (away <= radius))
    for (done, points), (by_place, by_drive) in zip(
            layouts.items(), figure.subplots(len(layouts), 2, squeeze=False), strict=True):
        for one in joined:
            by_drive.plot(*points[[one, nearest[one]]].T, color='0.7', linewidth=0.4, zorder=0)
        for number, drive in enumerate(drives):
            mine, marker = own == number, _MARKERS[number % len(_MARKERS)]
            shown = by_place.scatter(*points[mine].T, c=along[mine], marker=marker, s=14,
                                     cmap='viridis', vmin=0, vmax=max(float(along.max()), 1e-9))
            by_drive.scatter(*points[mine].T, color=COLOURS[number % len(COLOURS)],
                             marker=marker, s=14, label=f'{drive.label} ({mine.sum()})',
                             alpha=0.7, linewidths=0)
        figure.colorbar(shown, ax=by_place, label='metres along the first drive')
        by_place.set_ylabel(done, fontsize=11)
        by_place.set_title('by place: neighbours should have one colour', fontsize=10)
        by_drive.set_title('by drive: colours should mix' + (
            ', lines from place to place be short' if len(joined) else ''), fontsize=10)
        by_drive.legend(fontsize=9)
        for axes in (by_place, by_drive):
            axes.set_xticks([])
            axes.set_yticks([])
    with whole_file(path) as part:
        figure.savefig(part, dpi=90)


def _evenly(count: int, most: int) -> list[int]:
    """Return at most `most` of `count` numbers, evenly."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def _of(drives: Sequence[DescribedDrive]) -> NDArray[np.int64]:
    """Return which drive each frame (M,) is of."""
    return np.repeat(np.arange(len(drives)), [len(drive.positions) for drive in drives])
