"""
Draw the figures of a benchmark, as `tables.bars` and `tables.lines` describe them, to a PNG.

Needs matplotlib (the extra `viz`). The benchmarks describe the figures.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import numpy as np
from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
MARKERS = 'osD^vP*'
WIDTH = 9.0


def draw(path: Path, figures: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> None:
    """Draw figures below one another to a PNG, with the machine that they were measured on."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    heights = [1.2 + 0.36 * len(figure['values']) if figure['kind'] == 'bars' else 4.2
               for figure in figures]
    sheet = Figure(figsize=(WIDTH, sum(heights) + 0.4), layout='constrained', dpi=110)
    FigureCanvasAgg(sheet)
    axes = sheet.subplots(len(figures), 1, squeeze=False, height_ratios=heights)[:, 0]
    for figure, ax in zip(figures, axes, strict=True):
        (_bars if figure['kind'] == 'bars' else _lines)(ax, figure)
        ax.set_title(figure['title'], loc='left', fontsize=10, fontweight='bold')
        ax.spines[['top', 'right']].set_visible(False)
    sheet.supxlabel(f'{machine["processor"]}, {machine["cores"]} cores, load at the beginning '
                    f'{machine["load"]}', x=0.99, ha='right', fontsize=7, color='0.4')
    with whole_file(path) as part:
        sheet.savefig(part, format='png')


def _bars(ax: Axes, figure: Mapping[str, Any]) -> None:
    names, values = list(figure['values']), list(figure['values'].values())
    spread = [figure['spread'].get(name, (value, value))
              for name, value in figure['values'].items()]
    rows = range(len(names))
    # A bar's length says nothing on a logarithmic axis, which has no zero: there it is a dot.
    logarithmic = min(values) > 0 and max(values) > 30 * min(values)
    if logarithmic:
        ax.set_xscale('log')
        ax.plot(values, rows, 'o', color=COLOURS[0])
        ax.grid(axis='x', alpha=0.3)
        ax.set_ylim(-0.6, len(names) - 0.4)
    else:
        ax.barh(rows, values, color=COLOURS[0], height=0.62)
    low, high = np.array(spread).T
    ax.errorbar(values, rows, fmt='none', ecolor='0.25', capsize=3, linewidth=1,
                xerr=[np.maximum(0.0, values - low), np.maximum(0.0, high - values)])
    for row, value, end in zip(rows, values, high.tolist(), strict=True):
        ax.annotate(f'{value:.3g}', (max(value, end), row), xytext=(5, 0), fontsize=8,
                    textcoords='offset points', va='center')
    if figure['target'] is not None:
        ax.axvline(figure['target'], color=COLOURS[1], linestyle='--', linewidth=1.2)
        ax.annotate(f'target {figure["target"]:g}', (figure['target'], 1), rotation=0, fontsize=8,
                    xycoords=('data', 'axes fraction'), xytext=(3, 2), color=COLOURS[1],
                    textcoords='offset points')
    ax.set_yticks(rows, names, fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel(figure['axis'], fontsize=8)


def _lines(ax: Axes, figure: Mapping[str, Any]) -> None:
    for number, (name, points) in enumerate(figure['points'].items()):
        label = name
        if figure['logarithmic'] and len(points) > 1:
            label = f'{name}: exponent {tables.exponent(points):.2f}'
        ax.plot(*zip(*points, strict=True), label=label, linewidth=1.4, markersize=4,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)] if len(points) < 40 else None)
    if figure['logarithmic']:
        ax.set_xscale('log')
        ax.set_yscale('log')
    else:
        ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    ax.set_xlabel(figure['x'], fontsize=8)
    ax.set_ylabel(figure['y'], fontsize=8)
    ax.legend(fontsize=8, frameon=False)
