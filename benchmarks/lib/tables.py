"""
What a benchmark takes and gives: options, timing in turns, a table, a JSON file.

`race` measures a speed with all of these. The questions are in the other modules; figures are
drawn in plots.py.
"""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import sys
import time
from typing import Any
from typing import TYPE_CHECKING
from typing import TypeVar

import numpy as np
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray

Name = TypeVar('Name')

PAUSE = 0.02
"""Seconds before a call, as between the frames of a camera: worker threads fall asleep."""

_BLOCK = 11  # calls in a turn; the first one is not counted

_FLAGS = ('avx2', 'avx512f', 'avx512_vnni', 'avx_vnni', 'amx_int8', 'amx_bf16')
"""Features of a processor that decide how fast networks run on it."""

_VERSIONS = ('numpy', 'opencv-python-headless', 'faiss-cpu', 'onnxruntime', 'onnxruntime-openvino',
             'openvino', 'torch', 'scikit-learn', 'scipy', 'rosbags')


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, []) or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


def parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark; its description is `doc`'s summary."""
    options = argparse.ArgumentParser(
        description=doc.strip().splitlines()[0],
        formatter_class=HelpFormatter)
    options.add_argument('--model', metavar='ONNX', help='default: the bundled model')
    options.add_argument('--json', metavar='OUT', help='also write the figures to this file')
    return options


def answer(options: argparse.Namespace, measure: Callable[[], Mapping[str, Any]]) -> int:
    """Measure, and write the JSON file; return 0, or 1 after printing an error in one line."""
    try:
        begin = surroundings()
        result = measure()
        if options.json:
            save(options.json, {**result, 'machine': begin})
    except (VprError, OSError, ValueError) as error:
        print(f'benchmarks: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


def surroundings() -> dict[str, Any]:
    """Return what the figures depend on besides the code: processor, load and versions."""
    return {'processor': _processor(), 'cores': len(os.sched_getaffinity(0)),
            'flags': [flag for flag in _FLAGS if flag in _cpuinfo('flags').split()],
            'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9),
            'load': round(os.getloadavg()[0], 2), 'system': f'{platform.system()} '
            f'{platform.release().split("-")[0]}', 'python': platform.python_version(),
            'versions': {name: _version(name) for name in _VERSIONS}}


def save(path: str, result: Mapping[str, Any]) -> None:
    """Write figures to a JSON file."""
    with whole_file(path) as part:
        part.write_text(json.dumps(result, indent=2) + '\n')


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: text is aligned left, numbers right."""
    table = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    right = [any(isinstance(row[column], int | float) for row in rows)
             for column in range(len(header))]
    print(f'\n{title}')
    for number, row in enumerate(table):
        print('  ' + '  '.join(cell.rjust(width) if to_right else cell.ljust(width)
                               for cell, width, to_right in zip(row, widths, right, strict=True)
                               ).rstrip())
        if number == 0:
            print('  ' + '  '.join('-' * width for width in widths))
    sys.stdout.flush()


def verdict(what: str, *, reached: bool) -> str:
    """Print whether a target was reached, and return the line."""
    line = f'{"reached" if reached else "MISSED"}: {what}'
    print(f'  {line}')
    return line


def in_turns(timed: Mapping[Name, Callable[[], object]], rounds: int, pause: float = 0.0,
             block: int = 1) -> dict[Name, list[float]]:
    """
    Return the seconds that each call took, in `rounds` rounds of all calls in turns.

    Other load on the machine then affects all of them alike. A first round, which is not counted,
    warms up. `pause` is in seconds before every call: the worker threads of some libraries spin
    for a while after a call, and would take the processor from the next one. A turn is `block`
    calls, each timed by itself, so that not every call finds cold caches.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, call in timed.items():
            if pause:
                time.sleep(pause)
            for _ in range(block):
                begin = time.perf_counter()
                call()
                if number:
                    seconds[name].append(time.perf_counter() - begin)
    return seconds


def in_both_turns(timed: Mapping[Name, Callable[[], object]], rounds: int, pause: float
                  ) -> dict[str, dict[Name, NDArray[np.float64]]]:
    """
    Return the seconds of some `rounds` calls of each, in turns, after a pause and without one.

    After a pause caches are cold and threads asleep, as on a robot with time to spare. Back to
    back shows what the code itself can do; the first call of each turn follows a pause and is left
    out.
    """
    after = in_turns(timed, rounds, pause)
    turns = -(-rounds // (_BLOCK - 1))
    return {'after a pause': {name: np.array(times) for name, times in after.items()},
            'back to back': {name: np.reshape(times, (turns, _BLOCK))[:, 1:].ravel()
                             for name, times in in_turns(timed, turns, pause, _BLOCK).items()}}


def race(title: str, timed: Mapping[str, Callable[[], object]], peer: str, rounds: int, *,
         pause: float = 0.0, units: int = 1, target: float | None = None) -> dict[str, Any]:
    """
    Time calls in turns against the one named `peer`; print the table and return the figures.

    Ratios are taken within each round, so that other load on the machine cancels out; `ratio` is
    their median, `ratio_quartiles` their spread. Milliseconds are per unit of work (image, query),
    of which each call does `units`. `target` is only drawn into the plot that `figures` describes
    (plots.py).
    """
    seconds = {name: np.array(times) / units
               for name, times in in_turns(timed, rounds, pause).items()}
    ratios = {name: times / seconds[peer] for name, times in seconds.items()}
    result = {
        'title': title, 'peer': peer, 'rounds': rounds, 'units': units,
        'median_ms': {name: median_ms(times) for name, times in seconds.items()},
        'quartiles_ms': {name: _quartiles(1e3 * times) for name, times in seconds.items()},
        'p99_ms': {name: 1e3 * float(np.percentile(times, 99)) for name, times in seconds.items()},
        'ratio': {name: float(np.median(values)) for name, values in ratios.items()},
        'ratio_quartiles': {name: _quartiles(values) for name, values in ratios.items()}}
    show(f'{title} ({rounds} rounds in turns)',
         ('call', 'median ms', 'quartiles', 'p99 ms', f'time / {peer}', 'quartiles'),
         [(name, result['median_ms'][name], _range(result['quartiles_ms'][name]),
           result['p99_ms'][name], result['ratio'][name],
           _range(result['ratio_quartiles'][name])) for name in timed])
    result['figures'] = [bars(title, f'time, as a multiple of: {peer}', result['ratio'],
                              result['ratio_quartiles'], target)]
    return result


def bars(title: str, axis: str, values: Mapping[str, float],
         spread: Mapping[str, Sequence[float]] | None = None, target: float | None = None
         ) -> dict[str, Any]:
    """Describe a plot with one bar per name, a `spread` from low to high, and a target line."""
    return {'kind': 'bars', 'title': title, 'axis': axis, 'values': dict(values),
            'spread': dict(spread or {}), 'target': target}


def lines(title: str, x: str, y: str, points: Mapping[str, Sequence[tuple[float, float]]], *,
          logarithmic: bool = False) -> dict[str, Any]:
    """Describe a plot with one line per name through points (x, y), on linear or log axes."""
    return {'kind': 'lines', 'title': title, 'x': x, 'y': y, 'logarithmic': logarithmic,
            'points': {name: [list(point) for point in line] for name, line in points.items()}}


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """
    Return the exponent b of the power law y = a x^b that fits points (x, y) best.

    By least squares of the logarithms: 1 is a cost proportional to the work, 0 a constant one.
    """
    x, y = np.log(np.array(points, np.float64)).T
    return float(np.polyfit(x, y, 1)[0])


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median of seconds, in milliseconds."""
    return 1e3 * float(np.median(seconds))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return '-' if np.isnan(value) else f'{value:.3g}' if abs(value) < 1 else f'{value:.2f}'
    return str(value)


def _quartiles(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.percentile(values, (25, 75))]


def _range(quartiles: Sequence[float]) -> str:
    return ' .. '.join(_cell(value) for value in quartiles)


def _processor() -> str:
    return _cpuinfo('model name') or platform.machine()


def _cpuinfo(name: str) -> str:
    """Return a field of /proc/cpuinfo for the first processor, or an empty string."""
    try:
        with Path('/proc/cpuinfo').open(encoding='utf-8') as file:
            return next(line.split(':', 1)[1].strip() for line in file if line.startswith(name))
    except (OSError, StopIteration):
        return ''


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return 'none'
