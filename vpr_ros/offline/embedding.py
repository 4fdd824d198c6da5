"""
Whether descriptors of one place stay close together across seasons.

Recall@1 between drives says it in a number, t-SNE and UMAP show it. What happens inside the
network is in visual_words.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from vpr_ros.core.errors import how_to_install
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
    from vpr_ros.io.frames import Source
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]
    Vectors = NDArray[np.float32]

COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9', '#F0E442', '#000000')
"""One for each drive, safe for colour-blind readers (Okabe and Ito 2008)."""

_MARKERS = 'osD^vP*X'
_NEIGHBOURS = 15


@dataclass(frozen=True)
class DescribedDrive:
    """
    Frames of a drive: `label` (its season), `descriptors` float32 (N,D), `positions` (N,3) in m.

    `images` are uint8 (H,W,3) RGB, of some of the frames, by the number of the frame. `centred`:
    the mean of the drive is already subtracted from the descriptors, as in a map.
    """

    label: str
    descriptors: Vectors
    positions: Floats
    images: dict[int, NDArray[np.uint8]]
    centred: bool = False


@dataclass(frozen=True)
class CrossDriveRecall:
    """
    Recall@1 of frames among the frames of all other drives.

    `frames` counts those that have a frame of another drive within the radius; `share` of these
    have such a frame as their nearest neighbour by the descriptors as they are, `centred` by those
    with the mean of each drive subtracted, and `chance` by drawing at random. `share` is None
    where a drive has centred descriptors only.
    """

    frames: int
    share: float | None
    centred: float
    chance: float


def describe_drive(source: Source, encoder: Encoder, label: str, max_frames: int, max_images: int
                   ) -> DescribedDrive:
    """
    Describe at most `max_frames` frames of a source, evenly spaced; keep `max_images` images.

    Raises SourceError when it has none.
    """
    frames, descriptors, _ = describe_frames(source, encoder,
                                             set(_evenly(source.count, max_frames)))
    return DescribedDrive(label, descriptors, np.array([frame.pose[:3] for frame in frames]),
                          {n: frames[n].load() for n in _evenly(len(frames), max_images)})


def describe_map(place_map: PlaceMap, max_frames: int, max_images: int) -> list[DescribedDrive]:
    """
    Return each session of a map: at most `max_frames` places, evenly spaced, centred.

    At most `max_images` of them have their thumbnails. Labels are the sessions' conditions, or
    their sources where the condition is unknown.
    """
    drives = []
    for number, session in enumerate(place_map.manifest.sessions):
        places = np.flatnonzero(place_map.sessions == number)
        places = places[_evenly(len(places), max_frames)]
        thumbnails = {n: thumbnail for n in _evenly(len(places), max_images)
                      if (thumbnail := place_map.thumbnail(int(places[n]))) is not None}
        label = session.source if session.condition == 'unknown' else session.condition
        drives.append(DescribedDrive(label, place_map.vectors(places),
                                     place_map.poses[places, :3], thumbnails, centred=True))
    return drives


def cross_drive_recall(drives: Sequence[DescribedDrive], radius: float) -> CrossDriveRecall:
    """
    Return the Recall@1 between drives; right is a frame within `radius` metres.

    Raises VprError for a single drive, and for drives that never come within `radius`.
    """
    near, other = _neighbours(drives, radius)
    known = (near & other).any(axis=1)
    chance = ((near & other).sum(axis=1) / other.sum(axis=1))[known].mean()

    def share(vectors: Vectors) -> float:
        return _share(vectors @ vectors.T, near, other)

    raw = raw_descriptors(drives)
    return CrossDriveRecall(int(known.sum()), None if raw is None else share(raw),
                            share(centred_descriptors(drives)), float(chance))


def layout_recall(drives: Sequence[DescribedDrive], points: Floats, radius: float) -> float:
    """
    Return the Recall@1 between drives by distances of points (M,2) in the plane.

    How much of it a figure keeps. Raises VprError as `cross_drive_recall` does.
    """
    square = np.square(points).sum(axis=1)
    return _share(2 * points @ points.T - square[:, None] - square, *_neighbours(drives, radius))


def _neighbours(drives: Sequence[DescribedDrive], radius: float
                ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which frames are near each frame, and which are of another drive, each (M,M)."""
    if len(drives) < 2:
        raise VprError('one drive alone has no recall between drives: add a drive in another '
                       'season or light')
    numbers = _drive_numbers(drives)
    positions = np.concatenate([drive.positions for drive in drives])
    near = np.zeros((len(numbers), len(numbers)), np.bool_)
    for number, others in enumerate(cKDTree(positions).query_ball_point(positions, radius)):
        near[number, others] = True
    other = numbers[:, None] != numbers[None]
    if not (near & other).any():
        raise VprError(f'no drive comes within {radius:g} m of another: check that their poses '
                       'are in one frame')
    return near, other


def _share(similarity: NDArray[np.floating[Any]], near: NDArray[np.bool_],
           other: NDArray[np.bool_]) -> float:
    """Return the share of frames whose most similar frame of another drive is near."""
    known = (near & other).any(axis=1)
    nearest = np.where(other, similarity, -np.inf).argmax(axis=1)
    return float(near[np.arange(len(near)), nearest][known].mean())


def raw_descriptors(drives: Sequence[DescribedDrive]) -> Vectors | None:
    """Return all descriptors (M,D) as the model gave them; None where some are centred."""
    if any(drive.centred for drive in drives):
        return None
    return np.concatenate([drive.descriptors for drive in drives])


def centred_descriptors(drives: Sequence[DescribedDrive]) -> Vectors:
    """Return all descriptors (M,D), centred on the mean of their drive as the localiser does."""
    return np.concatenate([
        drive.descriptors if drive.centred
        else centre(drive.descriptors, drive.descriptors.mean(axis=0)) for drive in drives])


def embed(vectors: Vectors, method: str, seed: int = 0) -> tuple[Floats, float]:
    """
    Return vectors (M,D) in the plane, (M,2), by 'tsne' or 'umap', and the trustworthiness.

    That is 1 when all neighbours in the plane are neighbours among the vectors (Venna and Kaski
    2001). Raises VprError when the library is missing, or for fewer than four vectors.
    """
    if len(vectors) < 4:
        raise VprError(f'{len(vectors)} frames are too few to draw: at least 4 are needed')
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
        raise VprError(f'{method} needs {how_to_install(error.name)}') from error
    points = np.asarray(reducer.fit_transform(vectors), np.float64)
    near = max(1, min(_NEIGHBOURS, len(vectors) // 2 - 1))
    return points, float(trustworthiness(vectors, points, n_neighbors=near, metric='cosine'))


def draw_embedding(path: str | Path, drives: Sequence[DescribedDrive],
                   layouts: Mapping[str, Floats], radius: float, title: str) -> None:
    """
    Draw points (M,2) of frames twice: coloured by their place, and by their drive.

    Each of the `layouts`, by how the descriptors were treated, becomes a row. The place is given
    as the distance (m) along the first drive. Lines join frames of the first drive and of others
    within `radius` metres. Needs matplotlib.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(12, 5.6 * len(layouts)), layout='constrained')
    figure.suptitle(title, fontsize=11)
    numbers, first = _drive_numbers(drives), drives[0].positions
    driven = np.concatenate([[0.0], np.linalg.norm(np.diff(first, axis=0), axis=1).cumsum()])
    distance, nearest = cKDTree(first).query(np.concatenate([d.positions for d in drives]))
    along = driven[nearest]
    joined = np.flatnonzero((numbers > 0) & (distance <= radius))
    for (stage, points), (by_place, by_drive) in zip(
            layouts.items(), figure.subplots(len(layouts), 2, squeeze=False), strict=True):
        for frame in joined:
            by_drive.plot(*points[[frame, nearest[frame]]].T, color='0.7', linewidth=0.4, zorder=0)
        for number, drive in enumerate(drives):
            mask, marker = numbers == number, _MARKERS[number % len(_MARKERS)]
            shown = by_place.scatter(*points[mask].T, c=along[mask], marker=marker, s=14,
                                     cmap='viridis', vmin=0, vmax=max(float(along.max()), 1e-9))
            by_drive.scatter(*points[mask].T, color=COLOURS[number % len(COLOURS)],
                             marker=marker, s=14, label=f'{drive.label} ({mask.sum()})',
                             alpha=0.7, linewidths=0)
        figure.colorbar(shown, ax=by_place, label='distance along the first drive (m)')
        by_place.set_ylabel(stage, fontsize=11)
        by_place.set_title('by place: neighbours should have similar colours', fontsize=10)
        by_drive.set_title('by drive: colours should mix' + (
            ', lines (same place) should be short' if len(joined) else ''), fontsize=10)
        by_drive.legend(fontsize=9)
        for axes in (by_place, by_drive):
            axes.set_xticks([])
            axes.set_yticks([])
    with whole_file(path) as part:
        figure.savefig(part, dpi=90)


def _evenly(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def _drive_numbers(drives: Sequence[DescribedDrive]) -> NDArray[np.int64]:
    """Return the number of the drive of each frame, (M,)."""
    return np.repeat(np.arange(len(drives)), [len(drive.positions) for drive in drives])
