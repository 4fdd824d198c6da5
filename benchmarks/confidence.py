"""How right the localiser is on streets it has not seen, and whether its confidence is honest.

Winter maps against spring, rain and night, and drives through streets that are on no map; single
frames against the filter without and with odometry (which drifts), in the same run.
"""

from __future__ import annotations

from collections import defaultdict
import sys
from typing import Any
from typing import TYPE_CHECKING

from benchmarks import tables
import numpy as np
from tqdm import tqdm
from vpr_ros import defaults
from vpr_ros import poses
from vpr_ros.calibration import Calibration
from vpr_ros.encoder import bundled_model
from vpr_ros.encoder import Encoder
from vpr_ros.localizer import Localizer
from vpr_ros.place_map import Manifest
from vpr_ros.place_map import ModelIdentity
from vpr_ros.place_map import PlaceMap
from vpr_ros.place_map import Session
from vpr_ros.street import drive
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.street import DriveFrame

TOWNS = (21, 22, 23, 24)
"""Seeds of towns that nothing was fitted to and no setting was chosen on, but for 21 and 22."""

DRIVES = ('spring', 'rain', 'night', 'unmapped')
THRESHOLDS = (0.5, 0.8, defaults.MIN_CONFIDENCE, 0.95)
BINS = 10


def confidence(model: str | None = None, towns: Sequence[int] = TOWNS) -> dict[str, Any]:
    """Print, for each way and each kind of drive, how much is published and how much is right."""
    encoder = Encoder(model or bundled_model())
    came: dict[tuple[str, str], list[NDArray[np.float64]]] = defaultdict(list)
    for seed in tqdm(towns, desc='towns', disable=None):
        town = Town(seed)
        place_map = _map(encoder, drive(town, condition='winter', seed=1, speed=8.0, rate=8.0))
        for name in DRIVES:
            unmapped = name == 'unmapped'
            frames = list(drive(town, condition='spring' if unmapped else name, seed=2,
                                route='other' if unmapped else 'main', speed=6.0, rate=5.0,
                                lateral_offset=1.0))
            descriptors = _encode(encoder, frames)
            for way in ('single frame', 'filter', 'filter, odometry'):
                came[way, name].append(_run(
                    Localizer(encoder, place_map, filter=way != 'single frame'), frames,
                    descriptors, odometry=way.endswith('odometry'), unmapped=unmapped))
    rows, result = [], {}
    for (way, name), parts in sorted(came.items(), key=lambda item: DRIVES.index(item[0][1])):
        sure, right = np.concatenate(parts).T
        row: list[Any] = [name, way, right.mean()]
        for threshold in THRESHOLDS:
            published = sure >= threshold
            row += [published.mean(), right[published].mean() if published.any() else np.nan]
        rows.append([*row, _calibration_error(sure, right)])
        result[f'{name}, {way}'] = [None if np.isnan(v) else float(v) for v in rows[-1][2:]]
    header = ['drive', 'way', 'right', *(part for t in THRESHOLDS
                                         for part in (f'>={t:g}', 'of it right')), 'ECE']
    tables.show(f'right within {defaults.CORRECT_RADIUS:g} m, winter maps, towns '
                f'{", ".join(map(str, towns))}', header, rows)
    return {'header': header[2:], 'rows': result}


def _encode(encoder: Encoder, frames: Sequence[DriveFrame]) -> NDArray[np.float32]:
    return np.concatenate([encoder.encode_batch([frame.image for frame in frames[i:i + 8]])
                           for i in range(0, len(frames), 8)])


def _map(encoder: Encoder, frames: Iterable[DriveFrame]) -> PlaceMap:
    """Return the map of a drive, a place from every frame: they are a metre apart."""
    frames = list(frames)
    manifest = Manifest(ModelIdentity.of(encoder), (Session('winter', 'winter'),),
                        spacing=defaults.SPACING, calibration=Calibration().as_dict())
    return PlaceMap.build(
        _encode(encoder, frames), np.array([frame.stamp for frame in frames]),
        np.array([frame.pose for frame in frames]), np.zeros(len(frames), np.int32), manifest)


def _run(localizer: Localizer, frames: Sequence[DriveFrame], descriptors: NDArray[np.float32], *,
         odometry: bool, unmapped: bool) -> NDArray[np.float64]:
    """Return each frame's confidence and whether its pose was right, (N,2)."""
    rows = []
    for frame, descriptor in zip(frames, descriptors, strict=True):
        estimate = localizer.locate(descriptor, frame.stamp, frame.odometry if odometry else None)
        off = float(poses.distance(estimate.pose, frame.pose))
        rows.append((estimate.confidence, not unmapped and off <= defaults.CORRECT_RADIUS))
    return np.array(rows, np.float64)


def _calibration_error(sure: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the expected calibration error (Naeini et al. 2015) over equal bins of confidence."""
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return float(sum(np.abs((right - sure)[bins == b].sum()) for b in range(BINS)) / len(sure))


if __name__ == '__main__':
    options = tables.parser(__doc__).parse_args()
    sys.exit(tables.answer(options, lambda: confidence(options.model)))
