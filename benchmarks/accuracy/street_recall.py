"""
Recall@1 of single frames in towns that the model was not trained on: other lane, season, night.

A winter map with a place about every metre; a query is right within 5 m. There is no filter: the
descriptor alone is measured.
"""

from __future__ import annotations

import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.encoding import descriptors
import numpy as np
from tqdm import tqdm
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.maps.place_map import centre
from vpr_ros.street import drive
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.street import DriveFrame

TOWNS = (21, 22, 23, 24)
"""Test towns: no model is trained on a seed below 100."""

TOLERANCE = 5.0
DRIVES = {'same season, other lane': ('winter', 0.97), 'winter to spring': ('spring', 0.90),
          'winter to rain': ('rain', None), 'winter to night': ('night', 0.60)}
"""The condition of each drive, and its target for Recall@1."""


def street_recall(models: Sequence[str] = (), towns: Sequence[int] = TOWNS) -> dict[str, Any]:
    """Print and return the Recall@1 of each model in each town, and over all of them."""
    encoders = [Encoder(model) for model in models or [None]]
    right: dict[tuple[int, str], list[NDArray[np.bool_]]] = {}
    for seed in tqdm(towns, desc='towns', disable=None):
        town = Town(seed)
        mapped = list(drive(town, condition='winter', seed=1, speed=8.0, rate=8.0))
        for name, (condition, _) in DRIVES.items():
            frames = list(drive(town, condition=condition, seed=2, speed=6.0, rate=3.0,
                                lateral_offset=1.0))
            for number, encoder in enumerate(encoders):
                right.setdefault((number, name), []).append(_right(encoder, mapped, frames))
    rows, result = [], {}
    for (number, name), parts in right.items():
        target = DRIVES[name][1]
        whole = float(np.concatenate(parts).mean())
        rows.append((encoders[number].path.name, name, *(float(part.mean()) for part in parts),
                     whole, np.nan if target is None else target))
        result[f'{encoders[number].path.name}, {name}'] = whole
    tables.show(f'Recall@1 within {TOLERANCE:g} m, single frames, winter maps',
                ('model', 'drive', *(f'town {seed}' for seed in towns), 'all', 'target'), rows)
    return {'recall': result, 'towns': list(towns), 'tolerance': TOLERANCE, 'figures': [
        tables.bars(f'Single frames on winter maps, within {TOLERANCE:g} m', 'Recall@1', result)]}


def _right(encoder: Encoder, mapped: Sequence[DriveFrame], frames: Sequence[DriveFrame]
           ) -> NDArray[np.bool_]:
    """Return which frames' most similar place is within the tolerance of the truth."""
    places, queries = (descriptors(encoder, (frame.image for frame in drive_frames))
                       for drive_frames in (mapped, frames))
    best = (centre(queries, queries.mean(axis=0)) @ centre(places, places.mean(axis=0)).T
            ).argmax(axis=1)
    estimated = np.array([frame.pose for frame in mapped])[best]
    error = poses.distance(estimated, np.array([frame.pose for frame in frames]))
    return np.asarray(error <= TOLERANCE)


if __name__ == '__main__':
    parser = tables.parser(__doc__)
    parser.add_argument('--models', nargs='+', default=[], metavar='ONNX',
                        help='several models, side by side')
    options = parser.parse_args()
    sys.exit(tables.answer(options, lambda: street_recall(
        options.models or ([options.model] if options.model else []))))
