"""
Image sets as drives: the filter on real images, with and without a calibration drive.

On the sets whose queries follow the map in the order of their names. The self-calibrated map
localises all queries; one calibrated on their first half, as by `vpr calibrate`, the second half.
"""

from __future__ import annotations

import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import published
from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import answer
from benchmarks.lib.sets import find_sets
import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.calibrate import calibrate
from vpr_ros.offline.calibration_examples import FEWEST
from vpr_ros.offline.calibration_examples import KnownDrive
from vpr_ros.offline.descriptors import describe_frames
from vpr_ros.offline.evaluate_images import FASTEST
from vpr_ros.offline.self_calibrate import self_calibrated

if TYPE_CHECKING:
    from benchmarks.lib.sets import ImageSet
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

THRESHOLDS = (defaults.MIN_CONFIDENCE, 0.99)
FOLLOWS = 0.9
"""Share of the queries of a drive that are at most FASTEST places after the previous one."""


def real_drives(data: str, model: str | None = None) -> dict[str, Any]:
    """Localise the queries of every set in `data` that is a drive; return the figures."""
    encoder = Encoder(model, throughput=True)
    rows: list[list[Any]] = []
    for image_set in find_sets(data):
        known = known_drive(image_set, encoder) if image_set.has_queries else None
        if known is None:
            continue
        place_map = build_map([open_source(image_set.database, in_order=True)], encoder,
                              spacing=0.0, thumbnails=False, self_calibrate=False)
        # Again, as the map's own projection describes it.
        drive, radius = known_drive(image_set, encoder.projected(place_map.projection)) or known
        place_map = place_map.calibrated(self_calibrated(
            place_map, encoder, correct_radius=radius, max_speed=FASTEST))
        half = len(drive) // 2
        fit = calibrate(place_map, encoder, [drive.part(slice(half))], correct_radius=radius,
                        max_speed=FASTEST)
        simulated = _run(place_map, encoder, drive, radius)
        fitted = _run(place_map.calibrated(fit.calibration), encoder, drive, radius)
        rows += [[image_set.name, len(place_map), *parts] for parts in (
            ['simulated drives', 'all', *_row(simulated)],
            ['simulated drives', 'second half', *_row(simulated[half:])],
            ['first half', 'second half', *_row(fitted[half:])])]
    header = published.header(THRESHOLDS)
    tables.show('Real drives, filter without odometry',
                ['set', 'places', 'calibrated on', 'queries', *header], rows)
    return {'model': encoder.digest, 'header': header,
            'rows': {f'{row[0]}, {row[2]}, {row[3]}': [
                None if np.isnan(value) else value for value in row[4:]] for row in rows}}


def known_drive(image_set: ImageSet, encoder: Encoder) -> tuple[KnownDrive, float] | None:
    """
    Return the queries as a drive with one metre per place, and the radius in m that is right.

    None for a set whose queries are not in order, or too few to calibrate on half of them.
    """
    answers = image_set.answers()
    with open_source(image_set.queries, in_order=True) as source:
        frames, descriptors, _ = describe_frames(source, encoder)
    right = [sorted(answers.get(frame.name, ())) for frame in frames]
    middle = np.array([places[len(places) // 2] if places else np.nan for places in right])
    steps = np.diff(middle)
    if len(frames) < 2 * FEWEST or not ((steps >= 0) & (steps <= FASTEST)).mean() >= FOLLOWS:
        return None
    truth = poses.planar(middle, 0 * middle, 0 * middle)
    radius = float(np.median([np.ptp(places) / 2 for places in right if places])) + 0.5
    stamps = (1 + np.arange(len(frames), dtype=np.int64)) * 10**9
    no_odometry = np.full_like(truth, np.nan)
    return KnownDrive(image_set.name, descriptors, stamps, truth, no_odometry), radius


def _run(place_map: PlaceMap, encoder: Encoder, drive: KnownDrive, radius: float
         ) -> NDArray[np.float64]:
    """Return each frame's confidence and whether its pose was right, (N,2)."""
    localizer = Localizer(encoder, place_map, correct_radius=radius, max_speed=FASTEST)
    rows = []
    for descriptor, stamp, true in zip(drive.descriptors, drive.stamps, drive.truth, strict=True):
        estimate = localizer.locate(descriptor, int(stamp))
        rows.append((estimate.confidence, poses.distance(estimate.pose, true) <= radius))
    return np.array(rows, np.float64)


def _row(run: NDArray[np.float64]) -> list[float]:
    confidence, right = run.T
    return published.row(confidence, right > 0, THRESHOLDS)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    add_data_option(parser)
    options = parser.parse_args()
    return answer(options, lambda: real_drives(options.data, options.model))


if __name__ == '__main__':
    sys.exit(main())
