"""
What halving large images first gains over INTER_AREA in one step, and how descriptors change.

The same for JPEGs, which are decoded at half their size where they would be halved. Images of the
street are rendered at each size; photos that are smaller are scaled up, and so are smooth.
"""

from __future__ import annotations

from itertools import islice
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import find_sets
import cv2
import numpy as np
from vpr_ros.core import images
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Frames = dict[str, list[NDArray[np.uint8]]]

SIZES = ((640, 480), (1280, 720), (1280, 960), (1920, 1080))
STREET = (('spring', 3), ('night', 4))
EACH = 8
"""Images of each drive and of each set."""
APART = 4
"""Every fourth frame of a drive is taken."""
GOAL = 0.999
SMALLEST = 360
"""Height in pixels from which a photo is sharp enough to be scaled up."""
AREA, HALVING = 'INTER_AREA', 'halving first'


def resize(data: str | None = None, model: str | None = None, rounds: int = 60) -> dict[str, Any]:
    """Time both methods in turns, and compare the descriptors of the results."""
    encoder = Encoder(model, 'cpu')
    cv2.setNumThreads(1)
    photos = _photos(data) if data else []
    rows, jpeg_rows = [], []
    for size in SIZES:
        frames = {'street': _street(*size), 'photos': [
            cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC) for photo in photos]}
        rows.append(_of_pixels(encoder, size, frames, rounds))
        jpeg_rows.append(_of_jpegs(encoder, size, frames, rounds))
    for source, table in (('Decoded images', rows), ('JPEGs', jpeg_rows)):
        tables.show(f'{source} to {encoder.width}x{encoder.height}, {rounds} rounds in turns',
                    ('from', 'INTER_AREA, ms', 'halving first, ms', 'times as fast',
                     'worst cosine, street', 'worst cosine, photos', 'mean cosine'),
                    [(*row[:4], *(f'{value:.5f}' for value in row[4:])) for row in table])
    worst = float(np.nanmin([row[4:] for row in (*rows, *jpeg_rows)]))
    line = tables.verdict(f'descriptors keep a cosine of {GOAL:g} to those of INTER_AREA: '
                          f'{worst:.5f}', reached=worst >= GOAL)
    return {'model': encoder.digest, 'rows': rows, 'jpegs': jpeg_rows, 'verdict': line}


def _of_pixels(encoder: Encoder, size: tuple[int, int], frames: Frames, rounds: int
               ) -> tuple[Any, ...]:
    """Return the row of a table for images that are decoded already."""
    height, width = encoder.size
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    seconds = tables.in_turns({
        AREA: lambda: _area(noise, encoder),
        HALVING: lambda: images.resize(noise, height, width)}, rounds)
    resized = {name: [_area(rgb, encoder) for rgb in part] for name, part in frames.items()}
    return _row(encoder, size, seconds, frames, resized)


def _of_jpegs(encoder: Encoder, size: tuple[int, int], frames: Frames, rounds: int
              ) -> tuple[Any, ...]:
    """Return the row of a table for JPEGs, decoding included."""
    height, width = encoder.size
    jpegs = {name: [images.encode_jpeg(rgb) for rgb in part] for name, part in frames.items()}
    first = jpegs['street'][0]
    seconds = tables.in_turns({
        AREA: lambda: _area(images.decode(first), encoder),
        HALVING: lambda: images.resize(images.decode(first, min_size=encoder.size), height,
                                       width)}, rounds)
    halved = {name: [images.decode(jpeg, min_size=encoder.size) for jpeg in part]
              for name, part in jpegs.items()}
    resized = {name: [_area(images.decode(jpeg), encoder) for jpeg in part]
               for name, part in jpegs.items()}
    return _row(encoder, size, seconds, halved, resized)


def _area(rgb: NDArray[np.uint8], encoder: Encoder) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(rgb, (encoder.width, encoder.height),
                                 interpolation=cv2.INTER_AREA), np.uint8)


def _row(encoder: Encoder, size: tuple[int, int], seconds: dict[str, list[float]], ours: Frames,
         area: Frames) -> tuple[Any, ...]:
    """Return the size, the times, their ratio, and the cosines between the descriptors."""
    took = {name: tables.median_ms(times) for name, times in seconds.items()}
    cosines = [[float(encoder.encode(rgb) @ encoder.encode(other)) for rgb, other in zip(
        ours[name], area[name], strict=True)] for name in ours]
    return (f'{size[0]}x{size[1]}', took[AREA], took[HALVING], took[AREA] / took[HALVING],
            *(min(values, default=float('nan')) for values in cosines),
            float(np.mean([value for values in cosines for value in values])))


def _street(width: int, height: int) -> list[NDArray[np.uint8]]:
    frames: list[NDArray[np.uint8]] = []
    for condition, seed in STREET:
        whole_drive = drive(Town(7), condition=condition, seed=seed,
                            options=DriveOptions(width=width, height=height))
        frames += [frame.image for frame in islice(whole_drive, 0, EACH * APART, APART)]
    return frames


def _photos(data: str) -> list[NDArray[np.uint8]]:
    photos = []
    for image_set in find_sets(data):
        paths = images.list_folder(image_set.database)
        part = [images.read(path) for path in paths[::max(1, len(paths) // EACH)][:EACH]]
        photos += [photo for photo in part if photo.shape[0] >= SMALLEST]
    return photos


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    add_data_option(parser)
    parser.add_argument('--rounds', type=int, default=60)
    options = parser.parse_args()
    return tables.answer(options, lambda: resize(options.data, options.model, options.rounds))


if __name__ == '__main__':
    sys.exit(main())
