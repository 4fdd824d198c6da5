"""
What halving large pictures first gains, and what it does to descriptors, beside area at once.

And the same of JPEGs, which are decoded at half their size where they would be halved.

Pictures of the street are rendered at their size; photographs below it are scaled up, and smooth.
"""

from __future__ import annotations

from itertools import islice
import os
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
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

    Pictures = dict[str, list[NDArray[np.uint8]]]

SIZES = ((640, 480), (1280, 720), (1280, 960), (1920, 1080))
STREET = (('spring', 3), ('night', 4))
EACH = 8
"""Pictures of each drive and of each set."""
APART = 4
"""Frames of a drive from one to the next."""
GOAL = 0.999
SMALLEST = 360
"""Height in pixels from which a photograph has edges sharp enough to be scaled up."""


def resize(data: str | None = None, model: str | None = None, rounds: int = 60) -> dict[str, Any]:
    """Time both ways in turns, and compare what the model makes of them."""
    encoder = Encoder(model, 'cpu')
    height, width = encoder.height, encoder.width

    def at_once(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA),
                          np.uint8)
    cv2.setNumThreads(1)
    rows, of_jpegs, worst = [], [], 1.0
    photographs = _photographs(data) if data else []
    for size in SIZES:
        some = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        seconds = tables.in_turns({
            'at once': lambda some=some: at_once(some),
            'ours': lambda some=some: images.resize(some, height, width)}, rounds)
        took = {name: tables.median_ms(times) for name, times in seconds.items()}
        pictures = {'street': _street(*size), 'photographs': [
            cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC) for picture in photographs]}
        whole = {name: [at_once(picture) for picture in some] for name, some in pictures.items()}
        rows.append(_row(encoder, size, took, pictures, whole))
        jpegs = {name: [images.encode_jpeg(picture) for picture in some]
                 for name, some in pictures.items()}
        one = jpegs['street'][0]
        seconds = tables.in_turns({
            'at once': lambda one=one: at_once(images.decode(one)),
            'ours': lambda one=one: images.resize(
                images.decode(one, min_size=encoder.size), height, width)}, rounds)
        took = {name: tables.median_ms(times) for name, times in seconds.items()}
        smaller, whole = (
            {name: [scale(jpeg) for jpeg in some] for name, some in jpegs.items()}
            for scale in (lambda jpeg: images.decode(jpeg, min_size=encoder.size),
                          lambda jpeg: at_once(images.decode(jpeg))))
        of_jpegs.append(_row(encoder, size, took, smaller, whole))
        worst = min([worst, *rows[-1][4:], *of_jpegs[-1][4:]])
    for name, one_way in (('', rows), ('JPEG to pixels, ', of_jpegs)):
        tables.show(f'{name}To {width}x{height}, {rounds} rounds in turns',
                    ('from', 'area at once, ms', 'images, ms', 'times as fast',
                     'worst cosine, street', 'worst cosine, photographs', 'mean cosine'),
                    [(*row[:4], *(f'{value:.5f}' for value in row[4:])) for row in one_way])
    line = tables.verdict(f'descriptors keep a cosine of {GOAL:g} to those of area at once: '
                          f'{worst:.5f}', reached=worst >= GOAL)
    return {'model': encoder.digest, 'rows': rows, 'jpegs': of_jpegs, 'verdict': line}


def _row(encoder: Encoder, size: tuple[int, int], took: dict[str, float], ours: Pictures,
         at_once: Pictures) -> tuple[Any, ...]:
    """Return a line of a table: what it took, and how like the descriptors are."""
    cosines = [[float(encoder.encode(one) @ encoder.encode(other)) for one, other in zip(
        ours[name], at_once[name], strict=True)] for name in ours]
    return (f'{size[0]}x{size[1]}', took['at once'], took['ours'],
            took['at once'] / took['ours'],
            *(min(values, default=float('nan')) for values in cosines),
            float(np.mean([value for values in cosines for value in values])))


def _street(width: int, height: int) -> list[NDArray[np.uint8]]:
    pictures: list[NDArray[np.uint8]] = []
    for condition, seed in STREET:
        running = drive(Town(7), condition=condition, seed=seed,
                        options=DriveOptions(width=width, height=height))
        pictures += [frame.image for frame in islice(running, 0, EACH * APART, APART)]
    return pictures


def _photographs(data: str) -> list[NDArray[np.uint8]]:
    pictures = []
    for one in find_sets(data):
        paths = images.list_folder(one.database)
        some = [images.read(path) for path in paths[::max(1, len(paths) // EACH)][:EACH]]
        pictures += [picture for picture in some if picture.shape[0] >= SMALLEST]
    return pictures


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--data', default=os.environ.get('VPR_DATA'), metavar='DIR',
                        help='folder of real picture sets')
    parser.add_argument('--rounds', type=int, default=60)
    options = parser.parse_args()
    return tables.answer(options, lambda: resize(options.data, options.model, options.rounds))


if __name__ == '__main__':
    sys.exit(main())
