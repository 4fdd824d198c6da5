"""
Whether the replay and the node give the same poses for the same bag.

A dropped frame changes the poses after it, so the bag is played slowly enough for the node to
process all frames. Every pose is published and compared, whatever its confidence.
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
    from benchmarks.lib.node_run import NodeRun
    from numpy.typing import NDArray
    from vpr_ros.localization.estimate import Estimate

TOLERANCE = 1e-4
"""In metres, and in the components of a unit quaternion."""
FRAME_RATE = 5.0


def replay_vs_node(model: str | None = None, length: float = 150.0, rate: float = 1.0
                   ) -> dict[str, Any]:
    """Replay a spring drive of `length` m and play it to the node; return the differences."""
    if not node_run.has_ros():
        print(f'replay and node: {node_run.NO_ROS}')
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        encoder = Encoder(model)
        street_map.winter_map(encoder, length).save(folder / 'map')
        record(folder / 'drive', street_map.spring_drive(length, FRAME_RATE))
        localizer = Localizer(encoder, PlaceMap.load(folder / 'map', encoder),
                              min_confidence=0.0)
        drive = replay(folder / 'drive', localizer, image_topic=node_run.IMAGE_TOPIC)
        parameters = {'map': folder / 'map', 'model': encoder.path, 'min_confidence': 0.0}
        del localizer, encoder
        run = node_run.play_to_node(folder / 'drive', parameters, folder, rate=rate)
    replayed = {estimate.stamp: estimate for estimate in drive.estimates}
    result = _compare(replayed, run)
    tables.show('Replay and node, the same bag', ('figure', 'value'),
                [(name, f'{value:.2g}' if isinstance(value, float) else value)
                 for name, value in result.items()])
    dropped, largest = result['sent'] - result['both_processed'], result['largest_difference']
    if dropped:
        print(f'  {dropped} frames were not processed by both, so later poses may differ: lower '
              '--rate')
    line = tables.verdict(f'poses differ by {largest:.2g} at most (target {TOLERANCE:g}), '
                          f'{result["only_one_published"]} published by only one',
                          reached=result['both_published'] > 0 and largest <= TOLERANCE
                          and result['only_one_published'] == 0)
    return {**result, 'verdict': line}


def _compare(replayed: dict[int, Estimate], run: NodeRun) -> dict[str, Any]:
    """Return how many frames both processed and published, and how far the poses differ."""
    both = [stamp for stamp in run.stamps.tolist() if stamp in replayed]
    agreed = [stamp for stamp in both if replayed[stamp].trusted and stamp in run.published]
    return {'sent': run.sent, 'both_processed': len(both), 'both_published': len(agreed),
            'only_one_published': sum(
                replayed[stamp].trusted != (stamp in run.published) for stamp in both),
            'largest_difference': max((_difference(replayed[stamp].pose, run.published[stamp])
                                       for stamp in agreed), default=float('nan'))}


def _difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the largest difference of two poses (7,); quaternions q and -q are the same."""
    sign = -1.0 if float(a[3:] @ b[3:]) < 0 else 1.0
    return float(np.abs(np.concatenate([a[:3] - b[:3], a[3:] - sign * b[3:]])).max())


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--length', type=float, default=150.0, help='metres of the drive')
    parser.add_argument('--rate', type=float, default=1.0, help='times 5 frames per second')
    options = parser.parse_args()
    return tables.answer(
        options, lambda: replay_vs_node(options.model, options.length, options.rate))


if __name__ == '__main__':
    sys.exit(main())
