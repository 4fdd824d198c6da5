"""
From the right place to the right spot: poses refined by landmarks, on test towns and a real drive.

A winter map of each town, asked from the other side of the lane in spring, rain and at night, as
single frames and as a drive with odometry. With --metric, a folder of a real drive with exact
poses and a camera.yaml, of which every second and every third image becomes the map.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
import sys
import time
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

from benchmarks.lib import tables
import cv2
import numpy as np
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.camera import camera_pose
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import open_features
from vpr_ros.io.frames import Frame
from vpr_ros.io.frames import Source
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.refine import difference
from vpr_ros.localization.refine import Refiner
from vpr_ros.offline.build_map import build_map
from vpr_ros.street import camera_matrix
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town
from vpr_ros.street.record import MOUNT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

TOWNS = (90, 92)
"""No settings were chosen on them: those came from towns 71 and 72, and a check from 83 and 86."""

SIZES = ((640, 480), (320, 240))
CONDITIONS = (('spring', 2, 1.0), ('rain', 4, 0.8), ('night', 3, 1.0))
LENGTH = 300.0
HEADER = ['frames', 'refined', 'before', 'median', 'p90', 'ahead', 'aside', 'yaw', 'within',
          '> 1 m', 'NEES', 'ms', 'features ms']


class Asked(NamedTuple):
    """A frame to localise: its image, its true pose (7,), and odometry (7,) if any."""

    stamp: int
    rgb: NDArray[np.uint8]
    pose: Floats
    odometry: Floats | None


class Setup(NamedTuple):
    """What sees an image: as a whole, and its local features."""

    encoder: Encoder
    features: Extractor


class Result(NamedTuple):
    """One answer: the estimate, the truth, the milliseconds of refining and of the features."""

    estimate: Estimate
    truth: Floats
    milliseconds: float
    features: float


def refined_poses(model: str | None = None, metric: str | None = None,
                  towns: Sequence[int] = TOWNS, sizes: Sequence[tuple[int, int]] = SIZES,
                  length: float = LENGTH, features: str | None = None) -> dict[str, Any]:
    """Refine the poses of drives of `length` metres; return the figures."""
    found_by = open_features(features, threads=1)
    setup = Setup(Encoder(model, throughput=True), found_by)
    rows: list[list[Any]] = []
    for size in sizes:
        found = _town_results(setup, towns, size, length)
        rows += [[f'{size[0]}x{size[1]}', *name, *_row(results)]
                 for name, results in found.items()]
    if metric:
        for every in (2, 3):
            rows.append(['real drive', f'1 of {every} mapped', 'single',
                         *_row(_real_results(setup, metric, every))])
    tables.show('Refined poses: metres, degrees, milliseconds of one thread',
                ['images', 'asked', 'mode', *HEADER], rows)
    return {'model': setup.encoder.digest, 'features': found_by.digest, 'header': HEADER,
            'towns': list(towns),
            'rows': {', '.join(row[:3]): row[3:] for row in rows}}


def _town_results(setup: Setup, towns: Sequence[int], size: tuple[int, int], length: float
                  ) -> dict[tuple[str, str], list[Result]]:
    matrix = camera_matrix(*size)
    camera = Camera(*size, (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    options = DriveOptions(start=60.0, width=size[0], height=size[1])
    found: dict[tuple[str, str], list[Result]] = {}
    for seed in towns:
        town = Town(seed)
        frames = [Frame(each.stamp, each.pose, partial(_loaded, each.image), '')
                  for each in drive(town, condition='winter', seed=1, speed=8.0, rate=8.0,
                                    length=length, options=options)]
        place_map = _map(setup, Source(f'town {seed}', frames, len(frames), camera=camera,
                                       mount=lambda: MOUNT))
        for condition, number, offset in CONDITIONS:
            asked = [Asked(each.stamp, each.image, each.pose, each.odometry) for each in drive(
                town, condition=condition, seed=number, speed=6.0, rate=4.0,
                lateral_offset=offset, length=length - 10, options=options)]
            for mode, results in _asked(setup, place_map, asked, camera, MOUNT).items():
                found.setdefault((condition, mode), []).extend(results)
    return found


def _real_results(setup: Setup, folder: str, every: int) -> list[Result]:
    """Map one of `every` images of a folder, whose poses are the camera's; ask the others."""
    mount = camera_pose(0, 0, 0, 0, 0, 0)
    with open_source(folder, mount=mount) as source:
        frames = list(source.frames)
        place_map = _map(setup, replace(source, frames=frames[::every]))
        asked = [Asked(frame.stamp, frame.load(), frame.pose, None)
                 for number, frame in enumerate(frames) if number % every]
        assert source.camera is not None
        return _asked(setup, place_map, asked, source.camera, mount)['single']


def _map(setup: Setup, source: Source) -> PlaceMap:
    return build_map([nullcontext(source)], setup.encoder, thumbnails=False,
                     features=setup.features)


def _asked(setup: Setup, place_map: PlaceMap, asked: Iterable[Asked], camera: Camera,
           mount: Floats) -> dict[str, list[Result]]:
    """Return the results of single frames ('single'), and of published ones ('odometry')."""
    encoder = setup.encoder.projected(place_map.projection)
    refiner = Refiner(place_map, setup.features, camera, mount)
    single = Localizer(encoder, place_map, use_filter=False)
    filtered = Localizer(encoder, place_map)
    found: dict[str, list[Result]] = {'single': [], 'odometry': []}
    for stamp, rgb, truth, odometry in asked:
        begin = time.thread_time()
        view = refiner.look(rgb)
        looked = 1e3 * (time.thread_time() - begin)
        descriptor = encoder.encode(rgb)
        for mode, localizer in (('single', single), ('odometry', filtered)):
            estimate = localizer.locate(descriptor, stamp, odometry)
            if mode == 'single' or estimate.trusted:
                begin = time.thread_time()
                refined = refiner.refine(estimate, view)
                spent = 1e3 * (time.thread_time() - begin)
                found[mode].append(Result(refined, truth, spent, looked))
    return found


def _row(results: Sequence[Result]) -> list[float]:
    """Return the figures of HEADER: shares of all frames, errors of those that were refined."""
    kept = [result for result in results if result.estimate.refined]
    if not kept:
        return [len(results), 0.0, *[float('nan')] * (len(HEADER) - 2)]
    error = np.array([difference(each.estimate.pose, each.truth) for each in kept])
    before = [poses.distance(each.estimate.place_pose, each.truth) for each in kept
              if each.estimate.place_pose is not None]
    yaw = np.array([float(poses.heading(each.truth)) for each in kept])
    ahead = np.abs(np.cos(yaw) * error[:, 0] + np.sin(yaw) * error[:, 1])
    aside = np.abs(np.cos(yaw) * error[:, 1] - np.sin(yaw) * error[:, 0])
    off, turn = np.hypot(ahead, aside), np.abs(np.degrees(error[:, 5]))
    plane = [0, 1, 5]
    nees = [each[plane] @ np.linalg.solve(result.estimate.covariance[np.ix_(plane, plane)],
                                          each[plane]) / 3
            for each, result in zip(error, kept, strict=True)]
    return [len(results), len(kept) / len(results), float(np.median(before)),
            float(np.median(off)), float(np.percentile(off, 90)), float(np.median(ahead)),
            float(np.median(aside)), float(np.median(turn)),
            float(((off <= 0.25) & (turn <= 2)).sum() / len(results)), float((off > 1).mean()),
            float(np.mean(nees)), float(np.median([each.milliseconds for each in results])),
            float(np.median([each.features for each in results]))]


def _loaded(image: NDArray[np.uint8], min_size: tuple[int, int] | None = None
            ) -> NDArray[np.uint8]:
    return image


def _size(text: str) -> tuple[int, int]:
    width, height = text.split('x')
    return int(width), int(height)


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--metric', metavar='DIR',
                        help='a real drive: a folder of images, exact poses and a camera.yaml')
    parser.add_argument('--features', metavar='ONNX',
                        help="network that finds the features, or 'sift'")
    parser.add_argument('--sizes', nargs='+', type=_size, default=SIZES, metavar='WxH',
                        help='of the images')
    parser.add_argument('--length', type=float, default=LENGTH, metavar='M', help='of the drives')
    parser.add_argument('--towns', type=int, nargs='+', default=TOWNS, help='seeds of the towns')
    options = parser.parse_args()
    cv2.setNumThreads(1)
    return tables.answer(options, lambda: refined_poses(
        options.model, options.metric, options.towns, options.sizes, options.length,
        options.features))


if __name__ == '__main__':
    sys.exit(main())
