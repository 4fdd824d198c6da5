"""
What a map costs as it grows to a million places: a query, opening it, and memory.

Each size is saved, and opened by a process of its own, whose resident memory is what counts; the
exponents are those of a line through the logarithms. Pages of a mapped file that the kernel may
drop at any time are counted apart from the memory that is really taken.
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
import numpy as np
from vpr_ros.core.poses import planar
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LARGE, QUERY_MS, BYTES, OPEN_S = 1_000_000, 2.0, 120.0, 1.0
_CANDIDATES = 256
_STREET = 1000
_SEEN = 10_000  # places of a map whose memory stands out from that of the process


def map_scaling(sizes: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000), dimension: int = 256,
                index: str = 'auto') -> dict[str, Any]:
    """Build, open and search maps of several sizes; return rows and fitted exponents."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            vectors = drive_vectors(size, dimension)
            queries = later_drive(vectors, 200, 0.4)
            begin = time.perf_counter()
            place_map = _map_of(vectors, index)
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
            seen = json.loads(run.stdout)
            memory = [seen[what] / size if size >= _SEEN else math.nan
                      for what in ('index_bytes', 'map_bytes')]
            rows.append((size, kind, recall, seen['query_ms'], seen['p99_ms'], seen['open_s'],
                         *memory, built))
    header = ('places', 'index', 'recall', 'query ms', 'p99 ms', 'open s', 'index B/place',
              'map B/place', 'build s')
    tables.show(f'Maps of {dimension} dimensions', header, rows)
    exponents = {}
    if len(rows) > 1:
        for column in (3, 5, 8):
            exponents[header[column]] = float(np.polyfit(
                np.log([row[0] for row in rows]), np.log([row[column] for row in rows]), 1)[0])
        tables.show('They grow with the number of places to the power of',
                    ('what', 'exponent'), list(exponents.items()))
    lines = []
    for row in rows:
        if row[0] == LARGE:
            for what, value, target in (('ms a query', row[3], QUERY_MS),
                                        ('bytes of index a place', row[6], BYTES),
                                        ('s to open', row[5], OPEN_S)):
                lines.append(tables.verdict(f'{value:.2f} {what} at {LARGE} places (target '
                                            f'{target:g})', reached=value <= target))
    points = {header[column]: [(row[0], row[column]) for row in rows] for column in (3, 5, 6, 8)}
    return {'header': header, 'rows': rows, 'exponents': exponents, 'verdicts': lines,
            'figures': [tables.lines(f'Maps of {dimension} dimensions', 'places of the map',
                                     'see the names', points, logarithmic=True)]}


def _map_of(vectors: NDArray[np.float32], index: str) -> PlaceMap:
    along = np.arange(len(vectors)) % _STREET * 1.0
    aside = np.arange(len(vectors)) // _STREET * 20.0
    manifest = Manifest(ModelIdentity('0' * 64, 'made up', vectors.shape[1], 240, 320),
                        (Session('made up'),), spacing=1.0, index=index)
    return PlaceMap.build(vectors, np.arange(len(vectors)) * 10**9,
                          planar(along, aside, 0 * along), np.zeros(len(vectors), np.int32),
                          manifest)


def _opened(path: str, asked: str) -> dict[str, float]:
    """Open a map and search it, in a process that has done nothing else."""
    queries = np.load(asked)
    _map_of(drive_vectors(1000, queries.shape[1]), 'flat').search(queries[:1], _CANDIDATES)
    before, begin = _resident(), time.perf_counter()
    place_map = PlaceMap.load(path)
    seconds = time.perf_counter() - begin
    loaded = _resident()
    times = []
    for query in queries:
        begin = time.perf_counter()
        place_map.search(query[None], _CANDIDATES)
        times.append(time.perf_counter() - begin)
    arrays = (place_map.stamps, place_map.poses, place_map.sessions)
    own = sum(array.nbytes for array in arrays)
    return {'open_s': seconds, 'query_ms': tables.median_ms(times),
            'p99_ms': 1e3 * float(np.quantile(times, 0.99)),
            'map_bytes': max(loaded, _resident()) - before,
            'index_bytes': max(loaded, _resident()) - before - own}


def _resident() -> int:
    """Return the bytes of memory that are this process's own, without those of mapped files."""
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
