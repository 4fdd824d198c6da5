"""
How long a large map takes to load, all checks included, and to save.

The peer is the least that a loader must do: read the index with FAISS, and compute its SHA-256.
The files are in the page cache for both.
"""

from __future__ import annotations

from pathlib import Path
import sys
import tempfile
from typing import Any

from benchmarks.lib import tables
from benchmarks.lib.synthetic_map import random_vectors
from benchmarks.lib.synthetic_map import synthetic_map
import faiss
from vpr_ros.core.files import sha256
from vpr_ros.maps.place_map import PlaceMap

TARGET = 1.0
"""Seconds to load a map of 1e5 places of 512 dimensions."""


def map_load(places: int = 100_000, dimension: int = 512, index: str = 'flat', rounds: int = 5
             ) -> dict[str, Any]:
    """Time loading and saving a map of random descriptors; return seconds and ratios."""
    place_map = synthetic_map(random_vectors(places, dimension), index)
    with tempfile.TemporaryDirectory() as folder:
        path, bare = Path(folder) / 'map', Path(folder) / 'bare.faiss'
        title = f'map of {places} places x {dimension}, {index}'
        saving = tables.race(f'Saving a {title}', {
            'PlaceMap.save': lambda: place_map.save(path, overwrite=True),
            'faiss.write_index': lambda: faiss.write_index(place_map.index, str(bare)),
        }, 'faiss.write_index', 2)
        bare.unlink()
        file = path / 'index.faiss'
        loading = tables.race(f'Loading a {title}, {file.stat().st_size / 1e6:.0f} MB', {
            'PlaceMap.load': lambda: PlaceMap.load(path),
            'faiss.read_index + sha256': lambda: (faiss.read_index(str(file)), sha256(file)),
        }, 'faiss.read_index + sha256', rounds)
    seconds = loading['median_ms']['PlaceMap.load'] / 1e3
    line = tables.verdict(f'loads in {seconds:.2f} s (target {TARGET:g} s)',
                          reached=seconds < TARGET)
    return {'places': places, 'dimension': dimension, 'index': index, 'loading': loading,
            'saving': saving, 'verdict': line,
            'figures': loading['figures'] + saving['figures']}


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--places', type=int, default=100_000)
    parser.add_argument('--dimension', type=int, default=512)
    parser.add_argument('--index', default='flat')
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()
    return tables.answer(options, lambda: map_load(
        options.places, options.dimension, options.index, options.rounds))


if __name__ == '__main__':
    sys.exit(main())
