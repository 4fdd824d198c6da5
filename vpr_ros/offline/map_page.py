"""
An HTML page about a map: where its places are ambiguous, and what each session covers.

What it shows is computed in map_report.py.
"""

from __future__ import annotations

from pathlib import Path
import tempfile
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.defaults import EXCLUSION_RADIUS
from vpr_ros.offline.embedding import COLOURS
from vpr_ros.offline.gallery import write_gallery
from vpr_ros.offline.map_report import ALIAS_SIGMAS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

_PAIRS = 6


def write_map_page(path: str | Path, place_map: PlaceMap, score: NDArray[np.float64],
                   other: NDArray[np.int64], report: dict[str, Any], lines: Sequence[str]
                   ) -> None:
    """
    Write one HTML page about a map: `lines` of text, aliasing, the worst aliases, the sessions.

    `score` (N,) and `other` (N,) are from `find_aliases`, `report` from `map_report`. Needs
    matplotlib.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        panels = [('Ambiguous places', 'How similar the most similar place more than '
                   f'{EXCLUSION_RADIUS:g} m away is, in standard deviations above the mean. From '
                   f'{ALIAS_SIGMAS:g} on it is as similar as the right place in another season. '
                   'Red circles: ends of gaps.',
                   _draw_aliasing(folder / 'aliasing.png', place_map, score, report['gaps']))]
        pairs = _pairs(place_map, score, other)
        if pairs:
            panels.append(('The most similar distant places', 'Each pair shows two places far '
                           'apart.', _draw_pairs(folder / 'pairs.png', place_map, pairs, score)))
        panels.append(('Sessions', 'The places of each session, with its condition.',
                       _draw_sessions(folder / 'sessions.png', place_map)))
        write_gallery(path, f'Map of {len(place_map)} places', panels, lines)


def _draw_aliasing(path: Path, place_map: PlaceMap, score: NDArray[np.float64],
                   gaps: list[dict[str, Any]]) -> Path:
    figure, axes = _bird_view()
    order = np.argsort(score, kind='stable')  # the most ambiguous on top
    drawn = axes.scatter(place_map.poses[order, 0], place_map.poses[order, 1],
                         c=np.clip(score[order], 0, 2 * ALIAS_SIGMAS),
                         cmap='inferno', vmin=0, vmax=2 * ALIAS_SIGMAS, s=16)
    for gap in gaps:
        axes.plot(*np.transpose([gap['from'], gap['to']]), 'o', mfc='none', mec='#D55E00',
                  markersize=10)
    bar = figure.colorbar(drawn, ax=axes, label='similarity of the alias (standard deviations)')
    bar.ax.axhline(ALIAS_SIGMAS, color='white', linewidth=2)
    axes.set_title(f'{np.mean(score >= ALIAS_SIGMAS):.1%} of the places are ambiguous')
    figure.savefig(path, dpi=100)
    return path


def _pairs(place_map: PlaceMap, score: NDArray[np.float64], other: NDArray[np.int64]
           ) -> list[tuple[int, int]]:
    """Return the most similar pairs of distant places with thumbnails, no two close together."""
    pairs: list[tuple[int, int]] = []
    for place in np.argsort(-score, kind='stable'):
        if other[place] < 0 or len(pairs) == _PAIRS:
            break
        shown = place_map.poses[[each for pair in pairs for each in pair], :3]
        if any((np.linalg.norm(shown - place_map.poses[each, :3], axis=1) < EXCLUSION_RADIUS).any()
               for each in (place, other[place])):
            continue
        if place_map.thumbnail(int(place)) is None:
            break
        pairs.append((int(place), int(other[place])))
    return pairs


def _draw_pairs(path: Path, place_map: PlaceMap, pairs: list[tuple[int, int]],
                score: NDArray[np.float64]) -> Path:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 2.2 * -(-len(pairs) // 2)), layout='constrained')
    grid = figure.subplots(-(-len(pairs) // 2), 4, squeeze=False).reshape(-1, 2)
    for axes in grid.ravel():
        axes.axis('off')
    for row, pair in zip(grid, pairs, strict=False):
        for axes, place in zip(row, pair, strict=True):
            thumbnail = place_map.thumbnail(place)
            if thumbnail is not None:
                axes.imshow(thumbnail)
            x, y = place_map.poses[place, :2]
            axes.set_title(f'place {place}: x {x:.0f}, y {y:.0f}', fontsize=9)
        row[0].text(1.02, -0.08, f'{score[pair[0]]:.1f} standard deviations', fontsize=8,
                    transform=row[0].transAxes, ha='center')
    figure.savefig(path, dpi=100)
    return path


def _draw_sessions(path: Path, place_map: PlaceMap) -> Path:
    figure, axes = _bird_view()
    for number, session in enumerate(place_map.manifest.sessions):
        positions = place_map.poses[place_map.sessions == number, :2]
        axes.scatter(positions[:, 0], positions[:, 1], s=60 / (1 + 2 * number),
                     color=COLOURS[number % len(COLOURS)],
                     label=f'{session.source} ({session.condition}): {len(positions)} places')
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=100)
    return path


def _bird_view() -> tuple[Any, Axes]:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 6), layout='constrained')
    axes = figure.subplots()
    axes.set_aspect('equal', 'datalim')
    axes.set_xlabel('x (m)')
    axes.set_ylabel('y (m)')
    return figure, axes
