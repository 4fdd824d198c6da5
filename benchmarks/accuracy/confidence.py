"""
Accuracy and calibration of the localiser in towns that nothing was trained or fitted on.

Drives in spring, rain and at night on winter maps, drives through unmapped streets, and a robot
that is kidnapped to another street, which is on no map ('leaving') or on it; single frames, the
filter, and the filter with drifting odometry; with the self-calibrated map and after
`vpr calibrate`, in the same run.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from dataclasses import astuple
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import published
from benchmarks.lib import tables
from benchmarks.lib.town_drives import Frames
from benchmarks.lib.town_drives import town_drive
from benchmarks.lib.town_drives import town_map
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.metrics import reliability
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.confidence import DEFAULT_MODELS
from vpr_ros.maps.confidence import Mode
from vpr_ros.offline.calibrate import calibrate
from vpr_ros.offline.calibration_examples import gather
from vpr_ros.offline.calibration_examples import KnownDrive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

    Runs = dict[tuple[str, str, str], list[NDArray[np.float64]]]
    """By map, drive and mode: what `_run` returns, for each town."""

TOWNS = (41, 42, 43, 44, 45, 46)
"""Seeds of towns that nothing was fitted to and no setting was selected on."""

DRIVES = ('spring', 'rain', 'night', 'unmapped', 'leaving', 'kidnapped')
MODES = ('single frame', 'filter', 'filter, odometry')
MAPS = ('self-calibrated', 'calibrated')
THRESHOLDS = (0.9, defaults.MIN_CONFIDENCE, 0.99)
FITTED_ON = tuple(range(31, 41))
"""Seeds of towns that `--fit` fits the default models to."""

KIDNAPPED_AFTER = 150
"""Frames on the main route after which the robot is on the other one."""

METRES_A_FRAME = 1.2
FEW = 20
"""Bins with fewer frames are left out of the plot."""


def confidence(model: str | None = None, towns: Sequence[int] = TOWNS) -> dict[str, Any]:
    """Print, for each mode and kind of drive, how much is published and how much is right."""
    encoder = Encoder(model)
    runs: Runs = defaultdict(list)
    for seed in tqdm(towns, desc='towns', disable=None):
        for key, run in _runs(encoder, Town(seed)):
            runs[key].append(run)
    _show_kidnapped(runs)
    header = ['map', 'drive', 'mode', *published.header(THRESHOLDS), 'NEES']
    rows = [_row(key, parts) for key, parts in runs.items()]
    tables.show(f'right within {defaults.CORRECT_RADIUS:g} m, winter maps, towns '
                f'{", ".join(map(str, towns))}', header, rows)
    print('  ECE: expected calibration error, lower is better. NEES: squared error of x and y '
          'over its covariance, divided by its expectation (1 is ideal), of the right poses with '
          'a confidence of 0.9 or more')
    return {'header': header[3:], 'rows': {', '.join(row[:3]): [
        None if np.isnan(v) else float(v) for v in row[3:]] for row in rows},
        'figures': [_reliability(runs, fitted) for fitted in MAPS]}


def _runs(encoder: Encoder, town: Town) -> Iterator[tuple[tuple[str, str, str],
                                                          NDArray[np.float64]]]:
    """Yield map, drive and mode with what `_run` returns, for all of them in one town."""
    winter, others, queries = drives(encoder, town)
    known = town_drive(encoder, town, condition='spring', seed=3, speed=7.0, rate=5.0,
                       lateral_offset=-0.5)
    main, both = town_map(encoder, [winter]), town_map(encoder, [winter, others])
    for fitted in MAPS:
        if fitted == 'calibrated':
            # On the main route only: the map of both is for the kidnapped robot.
            fit = calibrate(main, encoder, [KnownDrive('spring', *known)]).calibration
            main, both = main.calibrated(fit), both.calibrated(fit)
        for name, frames in queries.items():
            place_map = both if name == 'kidnapped' else main
            for mode in MODES:
                yield (fitted, name, mode), _run(
                    Localizer(encoder, place_map, use_filter=mode != 'single frame'), frames,
                    odometry=mode.endswith('odometry'), unmapped=name == 'unmapped')


def fit(model: str | None = None, towns: Sequence[int] = FITTED_ON) -> dict[str, Any]:
    """Print the confidence models that fit the towns best: they are the defaults."""
    encoder = Encoder(model)
    runs: list[tuple[PlaceMap, KnownDrive]] = []
    for seed in tqdm(towns, desc='towns', disable=None):
        winter, others, queries = drives(encoder, Town(seed))
        main, both = town_map(encoder, [winter]), town_map(encoder, [winter, others])
        runs += [(both if name == 'kidnapped' else main,
                  KnownDrive(name, *frames, mapped=name != 'unmapped'))
                 for name, frames in queries.items()]
    models = {mode: gather(runs, encoder, Calibration(), mode, defaults.CORRECT_RADIUS,
                           defaults.MAX_SPEED, unmapped=False)
              # For a single frame, the evidence adds nothing to the probability.
              .fit(DEFAULT_MODELS[mode], prior_weight=0.1, keep_shape=mode is Mode.SINGLE)
              for mode in Mode}
    tables.show(f'confidence models fitted to towns {", ".join(map(str, towns))}',
                ['mode', 'offset', 'probability', 'evidence', 'weight'],
                [[mode.value, *astuple(model)] for mode, model in models.items()])
    return {mode.value: asdict(model) for mode, model in models.items()}


def drives(encoder: Encoder, town: Town) -> tuple[Frames, Frames, dict[str, Frames]]:
    """Return the winter drives to map, on the main and the other route, and the queries."""
    winter, others = (town_drive(encoder, town, condition='winter', seed=1, speed=8.0, rate=8.0,
                                 options=DriveOptions(route=route))
                      for route in ('main', 'other'))
    queries = {name: town_drive(encoder, town, condition=name, seed=2, speed=6.0, rate=5.0,
                                lateral_offset=1.0) for name in ('spring', 'rain', 'night')}
    queries['unmapped'] = town_drive(encoder, town, condition='spring', seed=2, speed=6.0,
                                     rate=5.0, lateral_offset=1.0,
                                     options=DriveOptions(route='other'))
    queries['kidnapped'] = kidnapped(queries['spring'], queries['unmapped'])
    queries['leaving'] = queries['kidnapped']  # on a map without that street
    return winter, others, queries


def _show_kidnapped(runs: Runs) -> None:
    """Print how far a kidnapped robot drives until it is localised, in the worst town."""
    rows = []
    for (fitted, name, mode), parts in runs.items():
        if name != 'kidnapped' or mode == 'single frame':
            continue
        rights, answers, wrong = [], [], []
        for part in parts:
            confidence, right, _ = part[KIDNAPPED_AFTER:].T
            sent = confidence >= defaults.MIN_CONFIDENCE
            rights.append(_first(right > 0))
            answers.append(_first(sent & (right > 0)))
            wrong.append(int((sent & (right == 0)).sum()))
        rows.append([fitted, mode, max(rights) * METRES_A_FRAME, max(answers) * METRES_A_FRAME,
                     max(wrong)])
    tables.show('kidnapped to another street, the worst town', [
        'map', 'mode', 'metres until right', 'until published', 'wrong poses'], rows)


def _reliability(runs: Runs, fitted: str) -> dict[str, Any]:
    """Describe a reliability diagram of all drives together."""
    points: dict[str, list[tuple[float, float]]] = {}
    for mode in MODES:
        confidence, right, _ = np.concatenate([part for name in DRIVES
                                               for part in runs[fitted, name, mode]]).T
        points[mode] = [(mean, share)
                        for count, mean, share in reliability(confidence, right > 0)
                        if count >= FEW]
    points['ideal'] = [(0.0, 0.0), (1.0, 1.0)]
    return tables.lines(f'Reliability diagram, {fitted}, all drives, mapped and unmapped',
                        'confidence', 'share that is right', points)


def _first(flags: NDArray[np.bool_]) -> int:
    """Return the index of the first true flag, or the number of flags if there is none."""
    return int(flags.argmax()) if flags.any() else len(flags)


def _row(key: tuple[str, str, str], parts: list[NDArray[np.float64]]) -> list[Any]:
    confidence, right, squared = np.concatenate(parts).T
    good = (confidence >= 0.9) & (right > 0)
    return [*key, *published.row(confidence, right > 0, THRESHOLDS),
            squared[good].mean() / 2 if good.any() else np.nan]


def kidnapped(first: Frames, second: Frames) -> Frames:
    """Return a drive that continues elsewhere, which its odometry does not notice."""
    last = KIDNAPPED_AFTER - 1
    later = second.stamps - second.stamps[0] + first.stamps[last] + 200_000_000
    moved = np.array([poses.moved(first.odometry[last], poses.relative(second.odometry[0], pose))
                      for pose in second.odometry])
    return Frames(np.concatenate([first.descriptors[:KIDNAPPED_AFTER], second.descriptors]),
                  np.concatenate([first.stamps[:KIDNAPPED_AFTER], later]),
                  np.concatenate([first.truth[:KIDNAPPED_AFTER], second.truth]),
                  np.concatenate([first.odometry[:KIDNAPPED_AFTER], moved]))


def _run(localizer: Localizer, frames: Frames, *, odometry: bool, unmapped: bool
         ) -> NDArray[np.float64]:
    """Return each frame's confidence, whether its pose was right, and its NEES, (N,3)."""
    rows = []
    for descriptor, stamp, true, wheels in zip(*frames, strict=True):
        estimate = localizer.locate(descriptor, int(stamp), wheels if odometry else None)
        distance = float(poses.distance(estimate.pose, true))
        error = estimate.pose[:2] - true[:2]
        rows.append((estimate.confidence, not unmapped and distance <= defaults.CORRECT_RADIUS,
                     error @ np.linalg.solve(estimate.covariance[:2, :2], error)))
    return np.array(rows, np.float64)


if __name__ == '__main__':
    parser = tables.parser(__doc__)
    parser.add_argument('--fit', action='store_true',
                        help='fit the default confidence models instead')
    options = parser.parse_args()
    sys.exit(tables.answer(options, lambda: (fit if options.fit else confidence)(options.model)))
