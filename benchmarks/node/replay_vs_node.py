"""
Whether the replay and the node give the same poses for the same bag.

A node that drops a frame has seen another drive, so the bag is played slowly enough for all. Every
pose is published, however unsure, and so compared.
"""

from __future__ import annotations

from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import node_run
from benchmarks.lib import street_map
from benchmarks.lib import tables
import numpy as np
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.replay import replay
from vpr_ros.street.record import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-4
"""Metres, or parts of a unit quaternion."""
FRAME_RATE = 5.0


def replay_vs_node(model: str | None = None, length: float = 150.0, rate: float = 1.0
                   ) -> dict[str, Any]:
    """Replay a spring drive of `length` m and play it to the node; return the differences."""
    if not node_run.has_ros():
        print(f'replay against node: {node_run.NO_ROS}')
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        encoder = Encoder(model)
        street_map.winter_map(encoder, length).save(folder / 'map')
        record(folder / 'drive', street_map.spring_drive(length, FRAME_RATE))
        localizer = Localizer(encoder, PlaceMap.load(folder / 'map', encoder),
                              min_confidence=0.0)
        drive = replay(folder / 'drive', localizer, image_topic=node_run.IMAGES)
        parameters = {'map': folder / 'map', 'model': encoder.path, 'min_confidence': 0.0}
        del localizer, encoder
        run = node_run.play_to_node(folder / 'drive', parameters, folder, rate=rate)
    replayed = {estimate.stamp: estimate for estimate in drive.estimates}
    both = [stamp for stamp in run.stamps.tolist() if stamp in replayed]
    agreed = [stamp for stamp in both if replayed[stamp].trusted and stamp in run.published]
    split = sum(replayed[stamp].trusted != (stamp in run.published) for stamp in both)
    differences = [_difference(replayed[stamp].pose, run.published[stamp]) for stamp in agreed]
    largest = max(differences, default=float('nan'))
    dropped = run.sent - len(both)
    result = {'sent': run.sent, 'both_processed': len(both), 'both_published': len(agreed),
              'only_one_published': split, 'largest_difference': largest}
    tables.show('Replay against node, the same bag', ('figure', 'value'),
                [(name, f'{value:.2g}' if isinstance(value, float) else value)
                 for name, value in result.items()])
    if dropped:
        print(f'  {dropped} frames were not processed by both: what follows them differs with '
              'reason. Lower --rate')
    line = tables.verdict(f'poses differ by {largest:.2g} at most (target {TOLERANCE:g}), '
                          f'{split} published by one only',
                          reached=bool(agreed) and split == 0 and largest <= TOLERANCE)
    return {**result, 'verdict': line}


def _difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the largest difference of two poses (7,), where q and -q are the same."""
    sign = -1.0 if float(a[3:] @ b[3:]) < 0 else 1.0
    return float(np.abs(np.concatenate([a[:3] - b[:3], a[3:] - sign * b[3:]])).max())


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--length', type=float, default=150.0, help='metres of the drive')
    parser.add_argument('--rate', type=float, default=1.0, help='times 5 frames a second')
    options = parser.parse_args()
    return tables.answer(
        options, lambda: replay_vs_node(options.model, options.length, options.rate))


if __name__ == '__main__':
    sys.exit(main())
