"""Plots of a localised drive: true and estimated positions, some queries and their matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.drive_score import DriveScore


def draw_drive(path: str | Path, place_map: PlaceMap, stamps: NDArray[np.int64],
               estimated: NDArray[np.float64], trusted: NDArray[np.bool_], score: DriveScore,
               correct_radius: float, queries: Mapping[int, tuple[NDArray[np.uint8], int]]
               ) -> None:
    """
    Plot the map, the true and the estimated positions, and some queries beside their matches.

    stamps (N,) in ns, estimated (N,7) and trusted (N,) are those of the drive; `queries` are the
    images, uint8 (H,W,3) RGB, of some of its frames by their stamps, and the inliers of their
    refined poses: from 1 on the image has its match in it (refined_image.py). Needs matplotlib.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(12, 6.2), layout='compressed')
    grid = figure.add_gridspec(len(queries), 3, width_ratios=[2.2, 1, 1])
    axes = figure.add_subplot(grid[:, 0])
    _draw_route(axes, place_map, estimated, trusted, score, correct_radius)
    for row, (stamp, (query, inliers)) in enumerate(queries.items()):
        frame = int(np.flatnonzero(stamps == stamp)[0])
        place = int(np.linalg.norm(place_map.poses[:, :3] - estimated[frame, :3], axis=1).argmin())
        match = place_map.thumbnail(place)
        error = score.errors[frame]
        axes.annotate(str(row + 1), tuple(estimated[frame, :2]), fontsize=11, weight='bold',
                      ha='center', va='center',
                      bbox={'boxstyle': 'circle', 'fc': 'white', 'ec': 'black'})
        told = f'place {place}, {error:.2f} m error' + ('' if trusted[frame]
                                                        else ', not published')
        panels = [(slice(1, 2), query, f'{row + 1}: query'), (slice(2, 3), match, told)]
        if inliers:
            panels = [(slice(1, 3), query, f'{row + 1}: {inliers} landmarks agree, {told}')]
        for columns, rgb, title in panels:
            panel = figure.add_subplot(grid[row, columns])
            panel.set_title(title, fontsize=9,
                            color='black' if error <= correct_radius else 'crimson')
            panel.axis('off')
            if rgb is not None:
                panel.imshow(rgb)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)


def _draw_route(axes: Axes, place_map: PlaceMap, estimated: NDArray[np.float64],
                trusted: NDArray[np.bool_], score: DriveScore, correct_radius: float) -> None:
    wrong = score.errors > correct_radius
    axes.plot(*place_map.poses[:, :2].T, '.', color='0.75', markersize=5, label='map')
    axes.plot(*score.truth[:, :2].T, '-', color='black', linewidth=1, label='ground truth')
    for group, colour, size, label in (
            (~trusted, '#e8a33d', 3, 'best match, no pose published'),
            (trusted & ~wrong, '#2a7fd4', 5, f'right pose, within {correct_radius:g} m'),
            (trusted & wrong, 'crimson', 7, 'wrong pose')):
        axes.plot(*estimated[group, :2].T, '.', color=colour, markersize=size,
                  label=f'{label} ({int(group.sum())})')
    for true, pose in zip(score.truth[trusted & wrong], estimated[trusted & wrong], strict=True):
        axes.plot(*np.stack([true[:2], pose[:2]]).T, '-', color='crimson', linewidth=0.6)
    axes.set_aspect('equal')
    axes.set_xlabel('x (m)')
    axes.set_ylabel('y (m)')
    axes.legend(fontsize=8, loc='best')
    axes.set_title(f'{score.right / score.frames:.0%} of frames with a right pose, '
                   f'{score.wrong} wrong poses, median error {score.median_error:.2f} m',
                   fontsize=10)
