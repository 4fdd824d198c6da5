"""
Evaluate a model on image sets: query images against reference images of places.

Drives through a map are evaluated in evaluate_drives.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
import time
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images
from vpr_ros.core import metrics
from vpr_ros.core import pose_files
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.encoding.features import open_features
from vpr_ros.encoding.features import SIFT
from vpr_ros.encoding.grid import GridNetwork
from vpr_ros.io.ground_truth import check_metres
from vpr_ros.io.ground_truth import read_ground_truth
from vpr_ros.io.ground_truth import utm_of
from vpr_ros.localization.verify import PartFinder
from vpr_ros.localization.verify import Verifier
from vpr_ros.maps.confidence import Mode
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.projection import possible
from vpr_ros.maps.projection import projected
from vpr_ros.offline.descriptors import describe
from vpr_ros.offline.evaluation import Evaluation
from vpr_ros.offline.evaluation import nearest_right_places
from vpr_ros.offline.evaluation import References
from vpr_ros.offline.localize_queries import localize_queries
from vpr_ros.offline.localize_queries import SINGLE_FRAMES
from vpr_ros.offline.self_calibrate import self_calibrated

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.verify import Verify
    from vpr_ros.offline.localize_queries import EvaluationOptions

    Floats = NDArray[np.float64]

FASTEST = 5.0
"""Places that a drive passes from one query to the next, at most."""

UTM_TOLERANCE = 25.0
"""Metres within which the geo-localisation benchmarks count a place as right."""

_SECOND = 10**9


@dataclass(frozen=True)
class _ImageSet:
    """
    Image files of N places and of Q queries; right_places[q] are the places right for query q.

    poses float64 (N,7) are those of the places, or None: then they are taken to be a metre apart.
    """

    references: list[Path]
    queries: list[Path]
    right_places: list[list[int]]
    poses: Floats | None
    tolerance: str

    @property
    def place_poses(self) -> Floats:
        """Return the poses (N,7) of the places, known or assumed."""
        if self.poses is not None:
            return self.poses
        x = np.arange(len(self.references), dtype=np.float64)
        return poses.planar(x, 0 * x, 0 * x)

    def true_poses(self) -> Floats:
        """Return the pose (Q,7) of each query: that of the middle one of its right places."""
        places = self.place_poses
        return np.array([places[right[len(right) // 2]] if right else np.full(7, np.nan)
                         for right in self.right_places])

    def is_right(self, estimated: Floats) -> NDArray[np.bool_]:
        """Return whether the place nearest to each estimated pose (Q,7) is a right one."""
        places = self.place_poses
        nearest = [int(poses.distance(places, pose).argmin()) for pose in estimated]
        return np.array([place in right for place, right in zip(nearest, self.right_places,
                                                                strict=True)])

    def step(self) -> float:
        """Return the median distance in metres from one place to the next."""
        places = self.place_poses
        if len(places) < 2:
            return 1.0
        return float(np.median(poses.distance(places[1:], places[:-1])))

    def correct_radius(self) -> float:
        """Return the radius in metres of the places that are right for a query (the median)."""
        places = self.place_poses
        radii = [np.ptp(places[right, :2], axis=0).max() / 2 for right in self.right_places
                 if right]
        return float(np.median(radii)) + self.step() / 2


def evaluate_set(database: str | Path, queries: str | Path, ground_truth: str | Path,
                 encoder: Encoder, options: EvaluationOptions = SINGLE_FRAMES, *,
                 cache: bool = True) -> Evaluation:
    """
    Evaluate a folder of query images against a folder of images of places.

    `ground_truth` is a CSV of (query,reference) file names, a row for each right answer. The poses
    of the places are those of the database's poses.csv; without it, they are taken to be a metre
    apart, which matters with the filter only. A pose is right when the place nearest to it is
    listed. With `cache`, descriptors are kept for the next time. See _evaluate for the rest.
    Raises SourceError for names that do not exist.
    """
    references, files = images.list_folder(database), images.list_folder(queries)
    right_places = read_ground_truth(ground_truth, files, references)
    pose_file = Path(database) / 'poses.csv'
    place_poses = _read_poses(pose_file, references) if pose_file.is_file() else None
    return _evaluate(_ImageSet(references, files, right_places, place_poses,
                               'as listed in the ground truth'), encoder, options, cache=cache)


def evaluate_utm(folder: str | Path, encoder: Encoder,
                 options: EvaluationOptions = SINGLE_FRAMES, *,
                 tolerance: float = UTM_TOLERANCE, cache: bool = True) -> Evaluation:
    """
    Evaluate `queries/` against `database/` of a folder whose file names say where they are.

    Names are @east@north@zone@letter@... (ground_truth.utm_of); a place is right within
    `tolerance` metres, in the same zone. Raises SourceError for a name of another form, or when no
    query has a right place.
    """
    references = images.list_folder(Path(folder) / 'database')
    queries = images.list_folder(Path(folder) / 'queries')
    positions, zones = _utm_positions(references)
    right_places = [
        np.flatnonzero((zones == zone) & (np.linalg.norm(positions - position, axis=1)
                                          <= tolerance)).tolist()
        for position, zone in zip(*_utm_positions(queries), strict=True)]
    if not any(right_places):
        raise SourceError(f'{folder}: no query lies within {tolerance:g} m of a place')
    east, north = (positions - positions.mean(axis=0)).T
    place_poses = poses.planar(east, north, np.zeros(len(positions)))
    return _evaluate(_ImageSet(references, queries, right_places, place_poses,
                               f'{tolerance:g} m'), encoder, options, cache=cache)


def _evaluate(image_set: _ImageSet, encoder: Encoder, options: EvaluationOptions, *, cache: bool
              ) -> Evaluation:
    """
    Evaluate the queries of an image set on a map of its references, calibrated on itself.

    The queries go through the Localizer in the order of their names, one a second: each for
    itself, or with the filter as a drive without odometry at up to FASTEST places a query. What
    is right for the recall is right for the confidence, too. Queries without a right place take
    no part in the recall; a pose for one of them is a false accept.
    """
    begin = time.perf_counter()
    references, queries = image_set.references, image_set.queries
    place_map = options.centred(_map_of(image_set, encoder, options.projection, cache=cache))
    encoder = encoder.projected(place_map.projection)
    correct_radius = image_set.correct_radius()
    options = replace(options, max_speed=FASTEST * image_set.step())
    with ThreadPoolExecutor(1) as pool:  # the network leaves some of the processor idle
        calibration = pool.submit(
            self_calibrated, place_map, encoder,
            modes=(Mode.SEQUENCE if options.use_filter else Mode.SINGLE,),
            correct_radius=correct_radius, max_speed=options.max_speed)
        descriptors, seconds = _described(queries, encoder, cache=cache)
    estimates, located = localize_queries(
        place_map.calibrated(calibration.result()), encoder, descriptors,
        [number * _SECOND for number in range(len(queries))], options, correct_radius,
        queries[0].parent.name,
        _verifier(image_set, place_map, encoder) if options.verify else None)
    true_poses = image_set.true_poses()
    return Evaluation(
        query_names=tuple(file.name for file in queries),
        query_image=lambda query: images.read(queries[query]),
        estimates=estimates,
        references=References(poses=place_map.poses,
                              names=tuple(file.name for file in references),
                              image=lambda place: images.read(references[place])),
        true_poses=true_poses,
        true_places=nearest_right_places(place_map.poses, true_poses, image_set.right_places),
        ranks=metrics.first_right(estimates.candidates, image_set.right_places),
        right=image_set.is_right(estimates.poses),
        tolerance=image_set.tolerance, min_confidence=options.min_confidence,
        use_filter=options.use_filter, metric=image_set.poses is not None,
        stage_seconds={**seconds, 'locate': located},
        total_seconds=time.perf_counter() - begin,
        about={'database': str(references[0].parent), 'queries': str(queries[0].parent),
               'model': encoder.digest, **options.about})


def _verifier(image_set: _ImageSet, place_map: PlaceMap, encoder: Encoder
              ) -> Callable[[int], Verify]:
    """Return what compares a query, by its number, with the images of places."""
    finder = PartFinder(GridNetwork(encoder.path, threads=1),
                        [open_features(threads=1), open_features(SIFT)])
    references, queries = image_set.references, image_set.queries
    verifier = Verifier(place_map, finder, lambda place: images.read(references[place]))
    return lambda query: partial(verifier.check, images.read(queries[query]))


def _map_of(image_set: _ImageSet, encoder: Encoder, kind: str, *, cache: bool) -> PlaceMap:
    """Return a map of the references, in the order of their names, one a second."""
    references = image_set.references
    kind = possible(kind, encoder)
    network = encoder if kind == 'model' else encoder.with_aggregate()
    vectors, _ = _described(references, network, cache=cache)
    sessions = np.zeros(len(references), np.int32)
    descriptors, projection = projected(vectors[:, :encoder.dimension],
                                        vectors[:, encoder.dimension:], sessions, kind)
    session = Session(references[0].parent.name, 'unknown')
    manifest = Manifest(ModelIdentity.of(encoder), (session,), 'map', 'base_link', 0.0, 'flat')
    count = len(references)
    return PlaceMap.build(descriptors, np.arange(count, dtype=np.int64) * _SECOND,
                          image_set.place_poses, sessions, manifest, projection=projection)


def _described(files: list[Path], encoder: Encoder, *, cache: bool
               ) -> tuple[NDArray[np.float32], dict[str, Floats]]:
    return describe([partial(images.read, file) for file in files], encoder,
                    files[0].parent.name, files if cache else None)


def _read_poses(path: Path, references: Sequence[Path]) -> Floats:
    """Return the poses (N,7) that a CSV file has for the references."""
    names, listed = pose_files.read_csv(path)
    by_name = dict(zip(names, listed, strict=True))
    missing = next((file.name for file in references if file.name not in by_name), None)
    if missing is not None:
        raise SourceError(f'{path} has no pose for {missing}')
    return np.array([by_name[file.name] for file in references])


def _utm_positions(files: Sequence[Path]) -> tuple[Floats, NDArray[np.str_]]:
    """Return the positions (N,2), east and north in metres, and the UTM zones (N,)."""
    positions, zones = [], []
    for file in files:
        located = utm_of(file.stem)
        if located is None:
            raise SourceError(f'{file} is not named @utm_east@utm_north@...@')
        positions.append(located[:2])
        zones.append(located[3])
    check_metres([file.name for file in files], np.array(positions), files[0].parent)
    return np.array(positions), np.array(zones)
