"""
The time per frame of the belief, with odometry and without, and of the whole localiser.

Peers in the same run: the encoder, which a frame needs anyway, and a plain forward filter with a
dense N x N transition matrix in numpy, as in a textbook (for sizes that fit in memory).
"""

from __future__ import annotations

import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.drive_vectors import drive_vectors
from benchmarks.lib.synthetic_map import STREET
from benchmarks.lib.synthetic_map import street_poses
from benchmarks.lib.synthetic_map import synthetic_map
import numpy as np
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.belief import Belief
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.manifest import ModelIdentity

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray

TARGETS = {10_000: 1.0, 100_000: 10.0}
"""Milliseconds for predict and update, by the number of places."""

_DENSE = 10_000
_STEP = np.array([2.0, 0.0, 0.0])
_SECONDS = 0.2


def belief_speed(model: str | None = None, sizes: Sequence[int] = (1_000, 10_000, 100_000),
                 rounds: int = 50) -> dict[str, Any]:
    """Time predict and update on maps of several sizes; return milliseconds and ratios."""
    encoder = Encoder(model)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (encoder.height, encoder.width, 3), np.uint8)
    rows, verdicts = [], []
    for size in sizes:
        place_poses = street_poses(size)
        timed: dict[str, Callable[[], object]] = {
            'with odometry': _frames(Belief(place_poses, 1.0), size, _STEP),
            'without': _frames(Belief(place_poses, 1.0), size, None),
            'lost, with odometry': _frames(Belief(place_poses, 1.0), size, _STEP, lost=True),
            'lost, without': _frames(Belief(place_poses, 1.0), size, None, lost=True),
            'Localizer.locate, whole': _located(size, encoder),
            'encoder': lambda: encoder.encode(image)}
        if size <= _DENSE:
            timed['dense numpy filter'] = _dense(size)
        seconds = tables.in_turns(timed, rounds)
        encoding = tables.median_ms(seconds['encoder'])
        for name, times in seconds.items():
            rows.append((size, name, tables.median_ms(times),
                         1e3 * float(np.quantile(times, 0.99)),
                         tables.median_ms(times) / encoding))
        if size in TARGETS:
            slowest = max(tables.median_ms(seconds[name]) for name in ('with odometry', 'without'))
            verdicts.append((f'{slowest:.2f} ms at {size} places (target {TARGETS[size]:g} ms)',
                             slowest <= TARGETS[size]))
    header = ('places', 'call', 'p50 ms', 'p99 ms', 'time / encoder')
    tables.show('One frame: predict and update', header, rows)
    points: dict[str, list[tuple[float, float]]] = {}
    for size, name, median, *_ in rows:
        points.setdefault(name, []).append((size, median))
    return {'figures': [tables.lines('One frame: predict and update', 'places of the map',
                                     'ms', points, logarithmic=True)],
            'header': header, 'rows': rows,
            'verdicts': [tables.verdict(what, reached=reached) for what, reached in verdicts]}


def _frames(belief: Belief, size: int, motion: NDArray[np.float64] | None, *, lost: bool = False
            ) -> Callable[[], object]:
    """Return a call that processes the next frame of a drive on the map, or off it if `lost`."""
    rng = np.random.default_rng(0)
    start = size // 2 // STREET * STREET + 50
    number = iter(range(1 << 30))

    def frame() -> object:
        centre = start + 2 * (next(number) % 400)
        near = np.arange(centre - 5, centre + 6)
        near = near[near < size]
        places = np.unique(np.concatenate([near, rng.integers(0, size, 245)]))
        ratios = rng.uniform(0.05, 1.0, len(places))
        if not lost:
            ratios[np.isin(places, near)] = 30.0
        belief.predict(_SECONDS, motion, 15.0)
        belief.update(places, ratios, 0.05, weight=0.5, novelty=0.7)
        return belief.places
    if not lost:
        for _ in range(10):
            frame()
    return frame


def _located(size: int, encoder: Encoder) -> Callable[[], object]:
    """Return a call that locates the descriptor of the next frame of a drive on a map."""
    vectors = drive_vectors(size, encoder.dimension)
    place_map = synthetic_map(vectors, 'auto', ModelIdentity.of(encoder))
    start = size // 2 // STREET * STREET
    street = vectors[start:start + STREET:2]
    drive = 0.6 * street + 0.8 * drive_vectors(len(street), encoder.dimension, seed=5)
    drive /= np.linalg.norm(drive, axis=1, keepdims=True)
    localizer = Localizer(encoder, place_map)
    number = iter(range(1, 1 << 30))

    def frame() -> object:
        step = next(number)
        return localizer.locate(drive[step % len(drive)], step * int(_SECONDS * 1e9))
    return frame


def _dense(size: int) -> Callable[[], object]:
    """Return one step of a forward filter with a dense transition matrix."""
    along = np.arange(size, dtype=np.float32)
    distance = np.abs(along - along[:, None] - 2)
    transition = np.exp(-np.square(np.minimum(distance, 30)) / 2)
    transition /= transition.sum(axis=0)
    belief = np.full(size, 1 / size, np.float32)
    likelihood = np.random.default_rng(0).uniform(0.05, 1, size).astype(np.float32)

    def frame() -> object:
        nonlocal belief
        belief = transition @ belief * likelihood
        belief /= belief.sum()
        return belief
    return frame


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--sizes', type=int, nargs='+', default=(1_000, 10_000, 100_000))
    parser.add_argument('--rounds', type=int, default=50)
    options = parser.parse_args()
    return tables.answer(options, lambda: belief_speed(
        options.model, options.sizes, options.rounds))


if __name__ == '__main__':
    sys.exit(main())
