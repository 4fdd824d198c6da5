"""
Real pictures as drives: what the belief gets out of them, with and without a calibration drive.

Of the sets whose queries follow the map, in the order of their names. The map alone is asked for
all queries; `vpr calibrate`'s fit to the first half of them, for the second half.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.sets import find_sets
from benchmarks.lib.sets import NO_DATA
import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.metrics import calibration_error
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.calibrate import calibrate
from vpr_ros.offline.descriptors import describe_frames
from vpr_ros.offline.evaluate_images import FASTEST
from vpr_ros.offline.examples import FEWEST
from vpr_ros.offline.examples import KnownDrive
from vpr_ros.offline.self_calibrate import self_calibrated

if TYPE_CHECKING:
    from benchmarks.lib.sets import PictureSet
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

THRESHOLDS = (defaults.MIN_CONFIDENCE, 0.99)
FOLLOWS = 0.9
"""Share of the queries of a drive that are at most FASTEST places after the one before."""


def real_drives(data: str, model: str | None = None) -> dict[str, Any]:
    """Drive every set in `data` that is a drive; return the figures."""
    encoder = Encoder(model, throughput=True)
    rows: list[list[Any]] = []
    for one in find_sets(data):
        known = _drive(one, encoder) if one.has_queries else None
        if known is None:
            continue
        drive, radius = known
        place_map = build_map([open_source(one.database, in_order=True)], encoder, spacing=0.0,
                              thumbnails=False, self_calibrate=False)
        place_map = place_map.calibrated(self_calibrated(
            place_map, encoder, correct_radius=radius, max_speed=FASTEST))
        half = len(drive) // 2
        fit = calibrate(place_map, encoder, [drive.part(slice(half))], correct_radius=radius,
                        max_speed=FASTEST)
        alone = _run(place_map, encoder, drive, radius)
        fitted = _run(place_map.calibrated(fit.calibration), encoder, drive, radius)
        rows += [[one.name, len(place_map), *parts] for parts in (
            ['map alone', 'all', *_row(alone)],
            ['map alone', 'second half', *_row(alone[half:])],
            ['first half', 'second half', *_row(fitted[half:])])]
    header = ['right', *(part for t in THRESHOLDS for part in (f'>={t:g}', 'of it right')), 'ECE']
    tables.show('Real drives, filter without odometry',
                ['set', 'places', 'calibrated on', 'queries', *header], rows)
    return {'model': encoder.digest, 'header': header,
            'rows': {f'{row[0]}, {row[2]}, {row[3]}': [
                None if np.isnan(value) else value for value in row[4:]] for row in rows}}


def _drive(one: PictureSet, encoder: Encoder) -> tuple[KnownDrive, float] | None:
    """
    Return the queries as a drive, a metre for a place, and what is right in metres.

    None of a set whose queries jump about, or are too few to fit anything to half of them.
    """
    answers = one.answers()
    with open_source(one.queries, in_order=True) as source:
        frames, descriptors, _ = describe_frames(source, encoder)
    own = [sorted(answers.get(frame.name, ())) for frame in frames]
    middle = np.array([places[len(places) // 2] if places else np.nan for places in own])
    steps = np.diff(middle)
    if len(frames) < 2 * FEWEST or not ((steps >= 0) & (steps <= FASTEST)).mean() >= FOLLOWS:
        return None
    truth = poses.planar(middle, 0 * middle, 0 * middle)
    radius = float(np.median([np.ptp(places) / 2 for places in own if places])) + 0.5
    stamps = (1 + np.arange(len(frames), dtype=np.int64)) * 10**9
    return KnownDrive(one.name, descriptors, stamps, truth, np.full_like(truth, np.nan)), radius


def _run(place_map: PlaceMap, encoder: Encoder, drive: KnownDrive, radius: float
         ) -> NDArray[np.float64]:
    """Return each frame's confidence and whether its pose was right, (N,2)."""
    localizer = Localizer(encoder, place_map, correct_radius=radius, max_speed=FASTEST)
    rows = []
    for descriptor, stamp, true in zip(drive.descriptors, drive.stamps, drive.truth, strict=True):
        estimate = localizer.locate(descriptor, int(stamp))
        rows.append((estimate.confidence, poses.distance(estimate.pose, true) <= radius))
    return np.array(rows, np.float64)


def _row(came: NDArray[np.float64]) -> list[float]:
    sure, right = came.T
    shares = [right.mean()]
    for threshold in THRESHOLDS:
        given = sure >= threshold
        shares += [given.mean(), right[given].mean() if given.any() else np.nan]
    return [*map(float, shares), calibration_error(sure, right > 0)]


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--data', default=os.environ.get('VPR_DATA'), metavar='DIR',
                        help='folder of picture sets')
    options = parser.parse_args()
    if not options.data:
        print(NO_DATA)
        return 0
    return tables.answer(options, lambda: real_drives(options.data, options.model))


if __name__ == '__main__':
    sys.exit(main())
