"""
How a map scales to a million places: time of a query, time to open, and memory.

Each map is saved, and opened in a process of its own, whose resident memory is measured; the
exponents are fitted to the logarithms. Pages of a mapped file, which the kernel may drop at any
time, are counted apart from anonymous memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.drive_vectors import drive_vectors
from benchmarks.lib.drive_vectors import later_drive
from benchmarks.lib.synthetic_map import CANDIDATES
from benchmarks.lib.synthetic_map import synthetic_map
import numpy as np
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE, QUERY_MS, BYTES, OPEN_S = 1_000_000, 2.0, 120.0, 1.0
_MEASURABLE = 10_000  # places of a map whose memory is large beside that of the process


def map_scaling(sizes: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000), dimension: int = 256,
                index: str = 'auto') -> dict[str, Any]:
    """Build, open and search maps of several sizes; return rows and fitted exponents."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            vectors = drive_vectors(size, dimension)
            queries = later_drive(vectors, 200, 0.4)
            begin = time.perf_counter()
            place_map = synthetic_map(vectors, index)
            built = time.perf_counter() - begin
            path, asked = Path(folder) / 'map', Path(folder) / 'queries.npy'
            place_map.save(path, overwrite=True)
            queries = queries - place_map.mean
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            np.save(asked, queries)
            kind, recall = place_map.manifest.index, place_map.manifest.recall
            del vectors, place_map
            run = subprocess.run([sys.executable, '-m', 'benchmarks.speed.map_scaling', '--open',
                                  str(path), str(asked)], check=True, capture_output=True,
                                 text=True)
            measured = json.loads(run.stdout)
            memory = [measured[what] / size if size >= _MEASURABLE else math.nan
                      for what in ('index_bytes', 'map_bytes')]
            rows.append((size, kind, recall, measured['query_ms'], measured['p99_ms'],
                         measured['open_s'], *memory, built))
    header = ('places', 'index', 'recall', 'query ms', 'p99 ms', 'open s', 'index B/place',
              'map B/place', 'build s')
    tables.show(f'Maps of {dimension} dimensions', header, rows)
    exponents = {}
    if len(rows) > 1:
        for column in (3, 5, 8):
            exponents[header[column]] = tables.exponent([(row[0], row[column]) for row in rows])
        tables.show('Fitted exponents of the number of places',
                    ('figure', 'exponent'), list(exponents.items()))
    lines = []
    for row in rows:
        if row[0] == LARGE:
            for what, value, target in (('ms per query', row[3], QUERY_MS),
                                        ('bytes of index per place', row[6], BYTES),
                                        ('s to open', row[5], OPEN_S)):
                lines.append(tables.verdict(f'{value:.2f} {what} at {LARGE} places (target '
                                            f'{target:g})', reached=value <= target))
    points = {header[column]: [(row[0], row[column]) for row in rows] for column in (3, 5, 6, 8)}
    return {'header': header, 'rows': rows, 'exponents': exponents, 'verdicts': lines,
            'figures': [tables.lines(f'Maps of {dimension} dimensions', 'places of the map',
                                     'see the labels', points, logarithmic=True)]}


def _opened(path: str, asked: str) -> dict[str, float]:
    """Open a map and search it, in a process that has done little else."""
    queries = np.load(asked)
    synthetic_map(drive_vectors(1000, queries.shape[1]), 'flat').search(queries[:1], CANDIDATES)
    before, begin = _resident(), time.perf_counter()
    place_map = PlaceMap.load(path)
    seconds = time.perf_counter() - begin
    loaded = _resident()
    times = []
    for query in queries:
        begin = time.perf_counter()
        place_map.search(query[None], CANDIDATES)
        times.append(time.perf_counter() - begin)
    arrays = (place_map.stamps, place_map.poses, place_map.sessions)
    other_bytes = sum(array.nbytes for array in arrays)
    return {'open_s': seconds, 'query_ms': tables.median_ms(times),
            'p99_ms': 1e3 * float(np.quantile(times, 0.99)),
            'map_bytes': max(loaded, _resident()) - before,
            'index_bytes': max(loaded, _resident()) - before - other_bytes}


def _resident() -> int:
    """Return the bytes of anonymous memory of this process: mapped files are not included."""
    with open('/proc/self/status', encoding='utf-8') as file:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('RssAnon'))


def main() -> int:
    """Run from the command line."""
    if sys.argv[1:2] == ['--open']:
        print(json.dumps(_opened(*sys.argv[2:4])))
        return 0
    parser = tables.parser(__doc__)
    parser.add_argument('--sizes', type=int, nargs='+',
                        default=(1_000, 10_000, 100_000, 1_000_000))
    parser.add_argument('--dimension', type=int, default=256)
    parser.add_argument('--index', default='auto')
    options = parser.parse_args()
    return tables.answer(options, lambda: map_scaling(
        options.sizes, options.dimension, options.index))


if __name__ == '__main__':
    sys.exit(main())
