"""
Drives on which a single frame finds little: what the filter makes of them.

Night drives through towns whose images are mixed with those of another town, until the recall of
a single frame is below .3; and with `--data` the image sets that are drives, in both directions,
at other speeds and on a sparser map. The maps are self-calibrated.
"""

from __future__ import annotations

import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.accuracy.real_drives import known_drive
from benchmarks.lib import published
from benchmarks.lib import tables
from benchmarks.lib.encoding import descriptors
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import find_sets
from benchmarks.lib.town_drives import Frames
from benchmarks.lib.town_drives import town_drive
from benchmarks.lib.town_drives import town_map
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.projection import projected
from vpr_ros.offline.evaluate_images import FASTEST
from vpr_ros.offline.self_calibrate import self_calibrated
from vpr_ros.street import drive
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from benchmarks.lib.sets import ImageSet
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Descriptors = NDArray[np.float32]

TOWNS = tuple(range(51, 61))
"""Seeds of towns that nothing was fitted to and no setting was selected on."""

HARD = 0.3
"""Recall@1 of single frames below which a drive is hard enough."""

_SHARES = np.arange(0.3, 0.8, 0.05)
"""Shares of the other town's image in a mixture, from easy to hard."""

_NIGHT: dict[str, Any] = {'condition': 'night', 'seed': 2, 'lateral_offset': 1.0, 'speed': 6.0,
                          'rate': 5.0}
_SPARSE = 4
"""One frame of so many is looked up to choose the share."""

THRESHOLDS = (defaults.MIN_CONFIDENCE,)


def hard_drives(data: str | None, model: str | None = None, towns: Sequence[int] = TOWNS
                ) -> dict[str, Any]:
    """Print how much of each drive is right and published, and return the figures."""
    encoder = Encoder(model)
    rows: list[list[Any]] = []
    for seed in tqdm(towns, desc='towns', disable=None):
        winter = town_drive(encoder, Town(seed), condition='winter', seed=1, speed=8.0, rate=8.0)
        place_map = town_map(encoder, [winter])
        recall, frames = _mixed(encoder, place_map, Town(seed), Town(seed + 1000))
        for odometry in (True, False):
            rows.append([f'town {seed}', 'odometry' if odometry else '', recall,
                         *_run(encoder, place_map, frames, defaults.CORRECT_RADIUS,
                               defaults.MAX_SPEED, odometry=odometry)])
    if rows:
        for odometry in ('odometry', ''):
            of_kind = np.array([row[2:] for row in rows if row[1] == odometry], np.float64)
            rows.append(['all towns', odometry, *np.nanmean(of_kind, axis=0)])
    for image_set in find_sets(data) if data else ():
        known = known_drive(image_set, encoder) if image_set.has_queries else None
        if known is not None:
            rows += _played(image_set, encoder, known[0].truth[:, 0], known[1])
    header = ['single frame', *published.header(THRESHOLDS)]
    tables.show('Hard drives', ['drive', 'with', *header], rows)
    return {'model': encoder.digest, 'header': header, 'rows': {
        f'{row[0]}, {row[1]}': [None if np.isnan(value) else float(value) for value in row[2:]]
        for row in rows}}


def _mixed(encoder: Encoder, place_map: PlaceMap, town: Town, other: Town
           ) -> tuple[float, Frames]:
    """Return a drive that is mixed with images of another town, and a single frame's recall."""
    driven = list(drive(town, **_NIGHT))
    strange = [frame.image for frame in drive(other, **_NIGHT)]
    chosen = np.random.default_rng(town.seed).integers(0, len(strange), len(driven))
    truth = np.array([frame.pose for frame in driven])

    def mixtures(share: float, step: int) -> Iterator[NDArray[np.uint8]]:
        for frame, number in list(zip(driven, chosen, strict=True))[::step]:
            mixed = (1 - share) * frame.image + share * strange[number]
            yield np.asarray(mixed + 0.5, np.uint8)

    for share in _SHARES:
        some = descriptors(encoder, mixtures(share, _SPARSE))
        localizer = Localizer(encoder, place_map, use_filter=False)
        found = np.array([localizer.locate(seen, 1 + number).pose
                          for number, seen in enumerate(some)])
        off = poses.distance(found, truth[::_SPARSE])
        recall = float((off <= defaults.CORRECT_RADIUS).mean())
        if recall < HARD:
            break
    return recall, Frames(descriptors(encoder, mixtures(share, 1)),
                          np.array([frame.stamp for frame in driven]), truth,
                          np.array([frame.odometry for frame in driven]))


def _played(image_set: ImageSet, encoder: Encoder, place_of_query: Floats, radius: float
            ) -> Iterator[list[Any]]:
    """Yield the rows of a set that is a drive, one metre from place to place."""
    both = encoder.with_aggregate()
    database, queries = (descriptors(both, map(images.read, images.list_folder(folder)))
                         for folder in (image_set.database, image_set.queries))
    queries, place_of_query = queries[~np.isnan(place_of_query)], place_of_query[
        ~np.isnan(place_of_query)]
    query_of_place = np.interp(np.arange(len(database)), place_of_query, np.arange(len(queries)))
    for way, mapped, seen, truth in (('', database, queries, place_of_query),
                                     (', reversed roles', queries, database, query_of_place)):
        maps = {step: _map(encoder, mapped[::step], step, radius, seen) for step in (1, 2)}
        for name, step, order in _ways(len(seen)):
            place_map, described = maps[step]
            along = truth[order]
            frames = Frames(described[order], (1 + np.arange(len(order), dtype=np.int64)) * 10**9,
                            poses.planar(along, 0 * along, 0 * along),
                            np.full((len(order), 7), np.nan))
            yield [image_set.name + way, name, np.nan,
                   *_run(encoder, place_map, frames, radius, FASTEST, odometry=False)]


def _ways(count: int) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """Yield names, every how manieth place is on the map, and the numbers of the frames seen."""
    every = np.arange(count)
    yield 'as it is', 1, every
    yield 'every 2nd frame', 1, every[::2]
    yield 'every 3rd frame', 1, every[::3]
    yield 'each frame twice', 1, np.repeat(every, 2)
    rng = np.random.default_rng(0)
    speeds = np.repeat(rng.choice([0, 1, 1, 2, 3], count), rng.integers(5, 30, count))
    path = np.cumsum(speeds)
    yield 'changing speed, stops', 1, path[path < count]
    yield 'every 2nd place', 2, every


def _map(encoder: Encoder, views: Descriptors, step: int, radius: float, seen: Descriptors
         ) -> tuple[PlaceMap, Descriptors]:
    """
    Return the map of places `step` metres apart, and the frames as it describes them.

    `views` (N,D+A) and `seen` (n,D+A) are the model's descriptors with their aggregates.
    """
    size = encoder.dimension
    along = np.arange(len(views), dtype=np.float64) * step
    session = np.zeros(len(views), np.int32)
    described, projection = projected(views[:, :size], views[:, size:], session, 'auto')
    place_map = PlaceMap.build(
        described, (1 + np.arange(len(views), dtype=np.int64)) * 10**9,
        poses.planar(along, 0 * along, 0 * along), session,
        Manifest(ModelIdentity.of(encoder), (Session('set'),)), projection=projection)
    calibration = self_calibrated(place_map, encoder, correct_radius=radius, max_speed=FASTEST)
    if projection is None:
        return place_map.calibrated(calibration), seen[:, :size]
    return place_map.calibrated(calibration), projection.apply(seen[:, :size], seen[:, size:])


def _run(encoder: Encoder, place_map: PlaceMap, frames: Frames, radius: float, max_speed: float, *,
         odometry: bool) -> list[float]:
    localizer = Localizer(encoder, place_map, correct_radius=radius, max_speed=max_speed)
    estimates = [localizer.locate(seen, int(stamp), wheels if odometry else None)
                 for seen, stamp, _, wheels in zip(*frames, strict=True)]
    right = np.array([poses.distance(estimate.pose, pose) <= radius
                      for estimate, pose in zip(estimates, frames.truth, strict=True)])
    confidence = np.array([estimate.confidence for estimate in estimates])
    return published.row(confidence, right, THRESHOLDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    add_data_option(parser)
    parser.add_argument('--towns', type=int, nargs='*', default=TOWNS, metavar='SEED')
    options = parser.parse_args(arguments)
    return tables.answer(options, lambda: hard_drives(options.data, options.model, options.towns))


if __name__ == '__main__':
    sys.exit(main())
