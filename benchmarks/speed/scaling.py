"""
How time and memory grow with the size of the image, the batch and the descriptor.

Each as a power law: an exponent of 1 is a cost proportional to the work. How they grow with the
map is measured in map_scaling.py.
"""

from __future__ import annotations

from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import long_drive
from benchmarks.lib import tables
from benchmarks.lib.synthetic_map import CANDIDATES
from benchmarks.lib.synthetic_map import random_vectors
from benchmarks.lib.synthetic_map import synthetic_map
import cv2
import numpy as np
import psutil
from vpr_ros.core import images
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.parallel import in_processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from vpr_ros.maps.place_map import PlaceMap

    Points = dict[str, list[tuple[float, float]]]

SIZES = ((320, 240), (640, 480), (1280, 960), (1920, 1440), (2560, 1920))
BATCHES = (1, 2, 4, 8, 16, 32)
DIMENSIONS = (64, 128, 256, 512, 1024)
PLACES = 10_000


def scaling(model: str | None = None, rounds: int = 9, threads: int = 1) -> dict[str, Any]:
    """Measure time and memory against three sizes; return points, exponents and plots."""
    encoder = Encoder(model, threads=threads)
    points = {'image': _image_sizes(encoder, rounds), 'batch': _batches(encoder, rounds),
              'descriptor': _descriptors(rounds)}
    memory = in_processes(_batch_memory, [(encoder.path, threads)], 1, lambda steps: None)[0]
    points['batch']['memory, MB'] = memory
    axes = {'image': 'pixels of the image', 'batch': 'images in one network call',
            'descriptor': f'dimensions of a descriptor ({PLACES} places)'}
    exponents = {work: {name: tables.exponent(line) for name, line in lines.items()}
                 for work, lines in points.items()}
    for work, lines in points.items():
        tables.show(f'Cost against: {axes[work]}', ('cost', 'exponent', *(
            f'{x:g}' for x, _ in next(iter(lines.values())))),
            [(name, exponents[work][name], *(y for _, y in line))
             for name, line in lines.items()])
    return {'model': encoder.digest, 'threads': threads, 'rounds': rounds, 'points': points,
            'exponents': exponents, 'figures': [
                tables.lines(f'Cost against the {work}', axes[work], 'ms, or MB', lines,
                             logarithmic=True) for work, lines in points.items()]}


def _image_sizes(encoder: Encoder, rounds: int) -> Points:
    """Return milliseconds against pixels: decoding, resizing, and the whole encoding."""
    view = long_drive.street_frames(1)[0]
    views = {width * height: cv2.resize(view, (width, height)) for width, height in SIZES}
    jpegs = {pixels: images.encode_jpeg(view) for pixels, view in views.items()}
    steps: dict[str, Callable[[int], object]] = {
        'decode a JPEG, ms': lambda pixels: images.decode(jpegs[pixels]),
        'resize to the input, ms': lambda pixels: images.resize(
            views[pixels], encoder.height, encoder.width),
        'Encoder.encode, ms': lambda pixels: encoder.encode(views[pixels])}
    lines: Points = {name: _timed({pixels: (lambda step=step, pixels=pixels: step(pixels))
                                   for pixels in views}, rounds)
                     for name, step in steps.items()}
    lines['decoded image, MB'] = [(pixels, 3 * pixels / 1e6) for pixels in views]
    return lines


def _batches(encoder: Encoder, rounds: int) -> Points:
    image = np.random.default_rng(0).integers(
        0, 256, (encoder.height, encoder.width, 3), np.uint8)
    whole = _timed({size: (lambda size=size: encoder.encode_batch([image] * size))
                    for size in BATCHES}, rounds)
    return {'Encoder.encode_batch, ms': whole,
            'the same per image, ms': [(size, ms / size) for size, ms in whole]}


def _batch_memory(model: tuple[Path, int], report: Callable[[int], object]
                  ) -> list[tuple[float, float]]:
    """Return the MB that the network takes in all, against the images of a batch."""
    process = psutil.Process()
    before = process.memory_info().rss
    encoder = Encoder(model[0], threads=model[1])
    image = np.zeros((encoder.height, encoder.width, 3), np.uint8)
    used = []
    for size in BATCHES:
        encoder.encode_batch([image] * size)
        used.append((float(size), (process.memory_info().rss - before) / 1e6))
    return used


def _descriptors(rounds: int) -> Points:
    """Return the cost of an exact search, and the size on disk, of maps of random descriptors."""
    maps: dict[float, PlaceMap] = {}
    sizes: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for dimension in DIMENSIONS:
            maps[dimension] = synthetic_map(random_vectors(PLACES, dimension), 'flat')
            path = Path(folder) / str(dimension)
            maps[dimension].save(path)
            sizes.append((dimension, sum(file.stat().st_size for file in path.iterdir()) / 1e6))
    queries = {dimension: place_map.vectors(np.array([7]))
               for dimension, place_map in maps.items()}
    search = _timed({dimension: (lambda dimension=dimension: maps[dimension].search(
        queries[dimension], CANDIDATES)) for dimension in maps}, rounds)
    return {f'search for {CANDIDATES} places, ms': search, 'map on disk, MB': sizes}


def _timed(calls: Mapping[float, Callable[[], object]], rounds: int) -> list[tuple[float, float]]:
    """Return (size, median milliseconds) of each call."""
    return [(size, tables.median_ms(seconds))
            for size, seconds in tables.in_turns(calls, rounds).items()]


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--threads', type=int, default=1, help='of the network; 0 for all cores')
    options = parser.parse_args()
    return tables.answer(options, lambda: scaling(options.model, options.rounds, options.threads))


if __name__ == '__main__':
    sys.exit(main())
