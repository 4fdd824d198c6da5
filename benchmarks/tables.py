"""How a benchmark is asked and how it answers: options, timing in turns, a table, a JSON file.

What is measured is in the other modules.
"""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
import json
import os
import platform
import sys
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.errors import VprError
from vpr_ros.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence


def parser(question: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    options = argparse.ArgumentParser(
        description=question, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument('--model', metavar='ONNX', help='the bundled one if left out')
    options.add_argument('--json', metavar='OUT', help='also write the figures to this file')
    return options


def answer(options: argparse.Namespace, measure: Callable[[], Mapping[str, Any]]) -> int:
    """Measure, and write what `--json` asks for; return 0, or 1 after an error of one line."""
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
    """Return what the figures depend on besides the code: processor, load, versions."""
    return {'processor': _processor(), 'cores': len(os.sched_getaffinity(0)),
            'load': round(os.getloadavg()[0], 2), 'python': platform.python_version(),
            'versions': {name: _version(name) for name in ('numpy', 'faiss-cpu', 'onnxruntime')}}


def save(path: str, result: Mapping[str, Any]) -> None:
    """Write figures to a JSON file."""
    with whole_file(path) as part:
        part.write_text(json.dumps(result, indent=2) + '\n')


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: text to the left, all that is a number to the right."""
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


def in_turns(timed: Mapping[str, Callable[[], object]], rounds: int, pause: float = 0.0
             ) -> dict[str, list[float]]:
    """Return the seconds that each call took, in `rounds` rounds of all calls in turns.

    What disturbs the machine then disturbs all of them alike. One round before, which does not
    count, warms up. `pause` in seconds goes before every call: the worker threads of one library
    spin for a while after a call, and would take the processor from the next one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, call in timed.items():
            if pause:
                time.sleep(pause)
            begin = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median of seconds, in milliseconds."""
    return 1e3 * float(np.median(seconds))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return '-' if np.isnan(value) else f'{value:.3g}' if abs(value) < 1 else f'{value:.2f}'
    return str(value)


def _processor() -> str:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:  # noqa: PTH123
            return next(line.split(':', 1)[1].strip() for line in file if 'model name' in line)
    except (OSError, StopIteration):
        return platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return 'none'
