"""
How right the localiser is on streets it has not seen, and whether its confidence is honest.

Winter maps against spring, rain and night, drives through streets that are on no map, and a robot
that is carried to another street; single frames against the filter without and with odometry
(which drifts), with the map as it was built and after `vpr calibrate`, in the same run.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from dataclasses import astuple
import sys
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.metrics import calibration_error
from vpr_ros.core.metrics import reliability
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.calibration import DEFAULT_MODELS
from vpr_ros.maps.calibration import Mode
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.calibrate import calibrate
from vpr_ros.offline.calibrate import gather
from vpr_ros.offline.calibrate import KnownDrive
from vpr_ros.offline.self_calibrate import self_calibrated
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOWNS = (41, 42, 43, 44, 45, 46)
"""Seeds of towns that nothing was fitted to and no setting was chosen on."""

DRIVES = ('spring', 'rain', 'night', 'unmapped', 'carried')
MODES = ('single frame', 'filter', 'filter, odometry')
THRESHOLDS = (0.9, defaults.MIN_CONFIDENCE, 0.99)
FITTED_ON = tuple(range(31, 41))
"""Seeds of towns that `--fit` fits the default models to."""

CARRIED_AFTER = 150
"""Frames on the main streets after which the robot is on the others."""

METRES_A_FRAME = 1.2
FEW = 20
"""Frames in a bin below which its share is left out of the plot."""


class Frames(NamedTuple):
    """A drive of N frames: descriptors (N,D), stamps (N,) ns, true poses and odometry (N,7)."""

    descriptors: NDArray[np.float32]
    stamps: NDArray[np.int64]
    truth: NDArray[np.float64]
    odometry: NDArray[np.float64]


def confidence(model: str | None = None, towns: Sequence[int] = TOWNS) -> dict[str, Any]:
    """Print, for each mode and each kind of drive, how much is published and how much is right."""
    encoder = Encoder(model)
    came: dict[tuple[str, str, str], list[NDArray[np.float64]]] = defaultdict(list)
    for seed in tqdm(towns, desc='towns', disable=None):
        town = Town(seed)
        winter, others, queries = _drives(encoder, town)
        known = _drive(encoder, town, condition='spring', seed=3, speed=7.0, rate=5.0,
                       lateral_offset=-0.5)
        for fitted in ('map alone', 'calibrated'):
            maps = {name: _map(encoder, sessions) for name, sessions in (
                ('main', [winter]), ('both', [winter, others]))}
            if fitted == 'calibrated':
                # On the main streets: the others belong to the map that is only driven.
                fit = calibrate(maps['main'], encoder,
                                [KnownDrive('spring', *known)]).calibration
                maps = {name: one.calibrated(fit) for name, one in maps.items()}
            for name, frames in queries.items():
                for mode in MODES:
                    place_map = maps['both' if name == 'carried' else 'main']
                    came[fitted, name, mode].append(_run(
                        Localizer(encoder, place_map, use_filter=mode != 'single frame'), frames,
                        odometry=mode.endswith('odometry'), unmapped=name == 'unmapped'))
    _show_carried(came)
    header = ['map', 'drive', 'mode', 'right',
              *(part for t in THRESHOLDS for part in (f'>={t:g}', 'of it right')), 'ECE', 'NEES']
    rows = [_row(key, parts) for key, parts in came.items()]
    tables.show(f'right within {defaults.CORRECT_RADIUS:g} m, winter maps, towns '
                f'{", ".join(map(str, towns))}', header, rows)
    print('  ECE: expected calibration error. NEES: squared error of x and y over its covariance, '
          'over what is expected (1), where confidence is 0.9 or more and the pose right')
    return {'header': header[3:], 'rows': {', '.join(row[:3]): [
        None if np.isnan(v) else float(v) for v in row[3:]] for row in rows},
        'figures': [_reliability(came, fitted) for fitted in ('map alone', 'calibrated')]}


def fit(model: str | None = None, towns: Sequence[int] = FITTED_ON) -> dict[str, Any]:
    """Print the confidence models that fit made-up towns best: the defaults."""
    encoder = Encoder(model)
    runs: list[tuple[PlaceMap, KnownDrive]] = []
    for seed in tqdm(towns, desc='towns', disable=None):
        winter, others, queries = _drives(encoder, Town(seed))
        main, both = _map(encoder, [winter]), _map(encoder, [winter, others])
        runs += [(both if name == 'carried' else main,
                  KnownDrive(name, *frames, mapped=name != 'unmapped'))
                 for name, frames in queries.items()]
    models = {mode: gather(runs, encoder, Calibration(), mode, defaults.CORRECT_RADIUS,
                           defaults.MAX_SPEED, without=False)
              # Of a single frame the evidence says nothing that its probability does not.
              .fit(DEFAULT_MODELS[mode], prior_weight=0.1, keep_shape=mode is Mode.SINGLE)
              for mode in Mode}
    tables.show(f'confidence models fitted to towns {", ".join(map(str, towns))}',
                ['mode', 'offset', 'probability', 'evidence', 'weight'],
                [[mode.value, *astuple(model)] for mode, model in models.items()])
    return {mode.value: asdict(model) for mode, model in models.items()}


def _drives(encoder: Encoder, town: Town) -> tuple[Frames, Frames, dict[str, Frames]]:
    """Return the winter drives to map, on the main streets and the others, and the queries."""
    winter, others = (_drive(encoder, town, condition='winter', seed=1, speed=8.0, rate=8.0,
                             options=DriveOptions(route=route)) for route in ('main', 'other'))
    queries = {name: _drive(encoder, town, condition=name, seed=2, speed=6.0, rate=5.0,
                            lateral_offset=1.0) for name in ('spring', 'rain', 'night')}
    queries['unmapped'] = _drive(encoder, town, condition='spring', seed=2, speed=6.0, rate=5.0,
                                 lateral_offset=1.0, options=DriveOptions(route='other'))
    queries['carried'] = _carried(queries['spring'], queries['unmapped'])
    return winter, others, queries


def _show_carried(came: dict[tuple[str, str, str], list[NDArray[np.float64]]]) -> None:
    """Print how soon a robot that was carried knows, for the worst of the towns."""
    rows = []
    for (fitted, name, mode), parts in came.items():
        if name != 'carried' or mode == 'single frame':
            continue
        after = [part[CARRIED_AFTER:] for part in parts]
        given = [(part[:, 0] >= defaults.MIN_CONFIDENCE) for part in after]
        rows.append([fitted, mode, *(max(found) * METRES_A_FRAME for found in (
            [_first(part[:, 1] > 0) for part in after],
            [_first(one & (part[:, 1] > 0)) for one, part in zip(given, after, strict=True)])),
            max(int((one & (part[:, 1] == 0)).sum())
                for one, part in zip(given, after, strict=True))])
    tables.show('carried to another street, the worst town', [
        'map', 'mode', 'metres until right', 'until published', 'wrong poses'], rows)


def _reliability(came: dict[tuple[str, str, str], list[NDArray[np.float64]]], fitted: str
                 ) -> dict[str, Any]:
    """Describe a plot of how often it was right against how sure it was, all drives together."""
    points: dict[str, list[tuple[float, float]]] = {}
    for mode in MODES:
        sure, right, _ = np.concatenate([part for name in DRIVES
                                         for part in came[fitted, name, mode]]).T
        points[mode] = [(mean, share) for count, mean, share in reliability(sure, right > 0)
                       if count >= FEW]
    points['honest'] = [(0.0, 0.0), (1.0, 1.0)]
    return tables.lines(f'Is the confidence honest? {fitted}, all drives, on and off the map',
                        'confidence', 'share that is right', points)


def _first(yes: NDArray[np.bool_]) -> int:
    """Return the number of the first frame that is so, or that of all."""
    return int(yes.argmax()) if yes.any() else len(yes)


def _row(key: tuple[str, str, str], parts: list[NDArray[np.float64]]) -> list[Any]:
    sure, right, squared = np.concatenate(parts).T
    row: list[Any] = [*key, right.mean()]
    for threshold in THRESHOLDS:
        published = sure >= threshold
        row += [published.mean(), right[published].mean() if published.any() else np.nan]
    good = (sure >= 0.9) & (right > 0)
    return [*row, calibration_error(sure, right > 0),
            squared[good].mean() / 2 if good.any() else np.nan]


def _drive(encoder: Encoder, town: Town, **options: Any) -> Frames:
    frames = list(drive(town, **options))
    return Frames(
        np.concatenate([encoder.encode_batch([frame.image for frame in frames[i:i + 8]])
                        for i in range(0, len(frames), 8)]),
        np.array([frame.stamp for frame in frames]), np.array([frame.pose for frame in frames]),
        np.array([frame.odometry for frame in frames]))


def _carried(first: Frames, second: Frames) -> Frames:
    """Return a drive that goes on elsewhere: odometry notices nothing of it."""
    last = CARRIED_AFTER - 1
    later = second.stamps - second.stamps[0] + first.stamps[last] + 200_000_000
    moved = np.array([poses.moved(first.odometry[last], poses.relative(second.odometry[0], one))
                      for one in second.odometry])
    return Frames(np.concatenate([first.descriptors[:CARRIED_AFTER], second.descriptors]),
                  np.concatenate([first.stamps[:CARRIED_AFTER], later]),
                  np.concatenate([first.truth[:CARRIED_AFTER], second.truth]),
                  np.concatenate([first.odometry[:CARRIED_AFTER], moved]))


def _map(encoder: Encoder, drives: Sequence[Frames]) -> PlaceMap:
    """Return the map of drives, a place from every frame: they are a metre apart."""
    manifest = Manifest(ModelIdentity.of(encoder), tuple(
        Session(f'winter {number}', 'winter') for number in range(len(drives))),
        spacing=defaults.SPACING)
    place_map = PlaceMap.build(
        np.concatenate([one.descriptors for one in drives]),
        np.concatenate([one.stamps for one in drives]),
        np.concatenate([one.truth for one in drives]),
        np.repeat(np.arange(len(drives), dtype=np.int32), [len(one.stamps) for one in drives]),
        manifest)
    return place_map.calibrated(self_calibrated(place_map, encoder))


def _run(localizer: Localizer, frames: Frames, *, odometry: bool, unmapped: bool
         ) -> NDArray[np.float64]:
    """Return each frame's confidence, whether its pose was right, and its NEES, (N,3)."""
    rows = []
    for descriptor, stamp, true, wheels in zip(*frames, strict=True):
        estimate = localizer.locate(descriptor, int(stamp), wheels if odometry else None)
        off = float(poses.distance(estimate.pose, true))
        error = estimate.pose[:2] - true[:2]
        rows.append((estimate.confidence, not unmapped and off <= defaults.CORRECT_RADIUS,
                     error @ np.linalg.solve(estimate.covariance[:2, :2], error)))
    return np.array(rows, np.float64)


if __name__ == '__main__':
    parser = tables.parser(__doc__)
    parser.add_argument('--fit', action='store_true',
                        help='fit the default confidence models instead')
    options = parser.parse_args()
    sys.exit(tables.answer(options, lambda: (fit if options.fit else confidence)(options.model)))
