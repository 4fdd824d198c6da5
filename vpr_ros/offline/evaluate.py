"""
Evaluate: queries whose truth is known against a map, through the Localizer that robots run.

Each function makes an Evaluation (evaluation.py); `summary` makes figures of it, by metrics.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import csv
from dataclasses import dataclass
from functools import partial
import json
import math
from pathlib import Path
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core import metrics
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.core.metrics import RECALLS
from vpr_ros.io.sources import read_ground_truth
from vpr_ros.io.sources import utm_of
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.calibration import Mode
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.descriptors import describe
from vpr_ros.offline.descriptors import describe_frames
from vpr_ros.offline.evaluation import Evaluation
from vpr_ros.offline.replay import ESTIMATES
from vpr_ros.offline.self_calibrate import self_calibrated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.sources import Source
    from vpr_ros.localization.estimate import Estimate

    Floats = NDArray[np.float64]

FASTEST = 2.0
"""Places that a drive passes from one query to the next at most: the belief finds out how many."""

UTM_TOLERANCE = 25.0
"""Metres within which the geo-localisation benchmarks take a place for right."""

_SECOND = 10**9


def evaluate_set(database: str | Path, queries: str | Path, ground_truth: str | Path,
                 encoder: Encoder, *, compensate: bool = True,
                 use_filter: bool = False,
                 min_confidence: float = defaults.MIN_CONFIDENCE, cache: bool = True
                 ) -> Evaluation:
    """
    Hold a folder of queries against a folder of pictures of places.

    `ground_truth` is a CSV of (query,reference) file names, a row for each right answer. The
    places are where the database's poses.csv says, or else a metre apart, which counts for the
    filter only: an estimate is right when the nearest place is one of those listed. See _pictures
    for the rest. Raises SourceError for names that do not exist.
    """
    references, files = images.list_folder(database), images.list_folder(queries)
    truth = read_ground_truth(ground_truth, files, references)
    listed = Path(database) / 'poses.csv'
    places = None
    if listed.is_file():
        names, every = poses.read_csv(listed)
        by_name = dict(zip(names, every, strict=True))
        missing = next((file.name for file in references if file.name not in by_name), None)
        if missing is not None:
            raise SourceError(f'{listed} has no pose for {missing}')
        places = np.array([by_name[file.name] for file in references])
    return _pictures(references, files, truth, places, encoder, 'as listed in the ground truth',
                     compensate=compensate, use_filter=use_filter, min_confidence=min_confidence,
                     cache=cache)


def evaluate_utm(folder: str | Path, encoder: Encoder, *, tolerance: float = UTM_TOLERANCE,
                 compensate: bool = True,
                 use_filter: bool = False,
                 min_confidence: float = defaults.MIN_CONFIDENCE, cache: bool = True
                 ) -> Evaluation:
    """
    Hold `queries/` against `database/` of a folder whose file names say where they are.

    Names are @east@north@zone@letter@... (sources.utm_of); right is a place within `tolerance`
    metres in the same zone. Raises SourceError for a name of another form.
    """
    references, files = (images.list_folder(Path(folder) / part)
                         for part in ('database', 'queries'))
    (where, zones), (asked, asked_zones) = _positions(references), _positions(files)
    truth = [np.flatnonzero((zones == zone) & (np.linalg.norm(where - one, axis=1) <= tolerance)
                            ).tolist() for one, zone in zip(asked, asked_zones, strict=True)]
    if not any(truth):
        raise SourceError(f'{folder}: no query lies within {tolerance:g} m of a place')
    origin = where.mean(axis=0)
    east, north = (where - origin).T
    places = poses.planar(east, north, np.zeros(len(where)))
    return _pictures(references, files, truth, places, encoder, f'{tolerance:g} m',
                     compensate=compensate, use_filter=use_filter, min_confidence=min_confidence,
                     cache=cache)


def evaluate_drive(place_map: PlaceMap, source: Source, encoder: Encoder, *,
                   tolerance: float = defaults.CORRECT_RADIUS, degrees: float = 180.0,
                   compensate: bool = True,
                   use_filter: bool = True,
                   min_confidence: float = defaults.MIN_CONFIDENCE,
                   max_speed: float = defaults.MAX_SPEED) -> Evaluation:
    """
    Drive through a map along a source of frames with poses: a bag, or a folder with poses.

    Right is what lies within `tolerance` metres and `degrees` of the truth. There is no odometry:
    for a drive with it, replay the bag and evaluate that. Raises SourceError when the source has
    no frame, or its poses are in another frame of reference than the map's.
    """
    if source.frame_id != place_map.manifest.frame_id:
        raise SourceError(f"{source.name}: its poses are in '{source.frame_id}', the map's in "
                          f"'{place_map.manifest.frame_id}'")
    frames, descriptors, seconds = describe_frames(source, encoder)
    localizer = Localizer(encoder, place_map, top_k=max(RECALLS), compensate=compensate,
                          use_filter=use_filter, min_confidence=min_confidence,
                          correct_radius=tolerance,
                          max_speed=max_speed)
    estimates, located = _locate(localizer, descriptors, [frame.stamp for frame in frames],
                                 source.name)
    true = np.array([frame.pose for frame in frames])
    own = _places_near(place_map.poses, true, tolerance, degrees)
    right = np.array([_close(e.pose, pose, tolerance, degrees)
                      for e, pose in zip(estimates, true, strict=True)])
    return _evaluation(
        [frame.name for frame in frames], estimates, true, own, right, place_map,
        [f'place {number}' for number in range(len(place_map))],
        lambda query: frames[query].load(), place_map.thumbnail,
        tolerance=_words(tolerance, degrees),
        min_confidence=min_confidence, filtered=use_filter, seconds={**seconds, 'locate': located},
        about={'map': f'{len(place_map)} places', 'drive': source.name, 'model': encoder.digest,
               'compensate': str(compensate)})


def evaluate_replay(replayed: str | Path, place_map: PlaceMap, truth: poses.PoseTrack, *,
                    tolerance: float = defaults.CORRECT_RADIUS, degrees: float = 180.0,
                    min_confidence: float = defaults.MIN_CONFIDENCE) -> Evaluation:
    """
    Judge the output of `vpr replay` by the true poses of that drive.

    A frame without a true pose takes no part. There is one candidate a frame, and no covariance.
    Raises FileNotFoundError or SourceError for a folder that is not one of a replay.
    """
    path = Path(replayed) / ESTIMATES
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: {replayed} is no output of vpr replay')
    with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    try:
        stamps = np.array([int(row['stamp_ns']) for row in rows], np.int64)
        estimated = np.array([[float(row[axis]) for axis in ('x', 'y', 'z', 'qx', 'qy', 'qz',
                                                             'qw')] for row in rows])
        confidence = np.array([float(row['confidence']) for row in rows])
        candidates = np.array([[int(row['place'])] for row in rows], np.int64)
        similarity = np.array([[float(row['similarity'])] for row in rows], np.float32)
        reasons = [row['reason'] for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f'{path} is damaged or not of vpr replay ({error})') from error
    if len(rows) and candidates.max() >= len(place_map):
        raise SourceError(f'{path} names place {candidates.max()}, the map has {len(place_map)}: '
                          'it was replayed on another map')
    true, known = poses.interpolate(truth, stamps)
    if not known.any():
        raise SourceError(f'the ground truth covers none of the frames of {path}')
    keep = np.flatnonzero(known)
    own = _places_near(place_map.poses, true[keep], tolerance, degrees)
    return Evaluation(
        tuple(f'{stamps[n] / 1e9:.3f} s' for n in keep), stamps[keep], estimated[keep],
        np.full((len(keep), 6, 6), np.nan), confidence[keep], tuple(reasons[n] for n in keep),
        candidates[keep], similarity[keep], true[keep], _best(place_map.poses, true[keep], own),
        metrics.first_right(candidates[keep], own),
        np.array([_close(estimated[n], true[n], tolerance, degrees) for n in keep]),
        place_map.poses, tuple(f'place {n}' for n in range(len(place_map))),
        lambda query: None, place_map.thumbnail, _words(tolerance, degrees), min_confidence,
        filtered=True, about={'replay': str(replayed), 'map': f'{len(place_map)} places',
                              'model': place_map.manifest.model.sha256})


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """
    Return the figures of an evaluation, as `vpr evaluate --json` writes them (docs/metrics.md).

    What cannot be said (no mapped or no unmapped query, no metric poses, no covariance) is None.
    """
    e, mapped = evaluation, evaluation.mapped
    given = np.array([not reason for reason in e.reasons])
    known = int(mapped.sum())
    shares = metrics.recall(e.rank[mapped]) if known else dict.fromkeys(RECALLS, math.nan)
    counted = [n for n in RECALLS if n <= max(e.candidates.shape[1], 1)]
    errors = poses.distance(e.estimated, e.truth) if e.metric else np.zeros(0)
    errors = errors[given & np.isfinite(errors)] if e.metric else errors
    honest = given & e.right & np.isfinite(e.covariance[:, 0, 0]) & np.isfinite(e.truth[:, 0])
    result = {
        **e.about, 'places': len(e.places), 'evaluated': known,
        'unmapped': len(e) - known, 'tolerance': e.tolerance, 'filter': e.filtered,
        'min_confidence': e.min_confidence,
        'recall': {str(n): shares[n] for n in counted},
        'recall_interval': {str(n): metrics.wilson(shares[n], known) for n in counted},
        **({'filtered': _share(e.right[mapped])} if e.filtered else {}),
        'auc_pr': metrics.average_precision(e.confidence, e.right),
        'recall_at_precision': {
            str(p): metrics.recall_at_precision(e.confidence, e.right, p, known)
            for p in (0.99, 1.0)},
        'answered': float(given.mean()),
        'answered_right': _share(e.right[given]),
        'false_accepts': _share(given[~mapped]),
        'ece': metrics.calibration_error(e.confidence, e.right),
        'reliability': metrics.reliability(e.confidence, e.right),
        'pose_error': None if not len(errors) else {
            **{f'p{q}': float(np.percentile(errors, q)) for q in (50, 90, 99)},
            'within': {str(limit): share for limit, share in metrics.within(
                errors, (1, 2, 5, 10)).items()}},
        'nees': metrics.nees((e.truth - e.estimated)[honest, :2], e.covariance[honest, :2, :2])
        if e.metric and honest.any() else None,
        'latency_ms': {stage: {f'p{q}': float(np.percentile(each, q)) * 1e3 for q in (50, 99)}
                       for stage, each in e.seconds.items() if len(each)},
        'seconds': round(e.took, 3),
    }
    # JSON has no nan.
    plain: dict[str, Any] = json.loads(json.dumps(result), parse_constant=lambda _: None)
    return plain


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _pictures(references: Sequence[Path], files: Sequence[Path], truth: Sequence[Sequence[int]],
              places: Floats | None, encoder: Encoder, tolerance: str, *, compensate: bool,
              use_filter: bool,
              min_confidence: float, cache: bool) -> Evaluation:
    """
    Hold query files against reference files; the right places of each query are `truth`.

    The queries go through the Localizer in the order of their names, one a second: each for
    itself, or with `use_filter` as a drive without odometry at up to FASTEST places a query. What
    is right for the recall is right for the confidence, too. Queries without a right place take no
    part in the recall; a pose for one of them is a false accept.
    """
    begin = time.perf_counter()
    described, _ = describe([partial(images.read, file) for file in references], encoder,
                            references[0].parent.name, references if cache else None)
    metric, count = places is not None, len(references)
    where = places if places is not None else poses.planar(
        np.arange(count, dtype=np.float64), np.zeros(count), np.zeros(count))
    manifest = Manifest(ModelIdentity.of(encoder), (Session(references[0].parent.name, 'unknown'),
                                                    ), 'map', 'base_link', 0.0, 'flat')
    place_map = PlaceMap.build(described, np.arange(count, dtype=np.int64) * _SECOND, where,
                               np.zeros(count, np.int32), manifest)
    step = float(np.median(poses.distance(where[1:], where[:-1]))) if count > 1 else 1.0
    spread = [np.ptp(where[own, :2], axis=0).max() / 2 for own in map(list, truth) if own]
    radius = float(np.median(spread)) + step / 2
    with ThreadPoolExecutor(1) as pool:  # the network leaves some of the processor idle
        calibration = pool.submit(
            self_calibrated, place_map, encoder,
            modes=(Mode.SEQUENCE if use_filter else Mode.SINGLE,),
            correct_radius=radius, max_speed=FASTEST * step)
        queries, seconds = describe([partial(images.read, file) for file in files], encoder,
                                    files[0].parent.name, files if cache else None)
    place_map = place_map.calibrated(calibration.result())
    localizer = Localizer(encoder, place_map, top_k=max(RECALLS), compensate=compensate,
                          use_filter=use_filter, min_confidence=min_confidence,
                          correct_radius=radius, max_speed=FASTEST * step)
    estimates, located = _locate(localizer, queries,
                                 [number * _SECOND for number in range(len(files))],
                                 files[0].parent.name)
    nearest = [int(poses.distance(where, e.pose).argmin()) for e in estimates]
    right = np.array([place in own for place, own in zip(nearest, truth, strict=True)])
    true = np.array([where[own[len(own) // 2]] if own else np.full(7, np.nan) for own in truth])
    return _evaluation(
        [file.name for file in files], estimates, true, truth, right, place_map,
        [file.name for file in references], lambda query: images.read(files[query]),
        lambda place: images.read(references[place]), tolerance=tolerance,
        min_confidence=min_confidence, filtered=use_filter, metric=metric,
        seconds={**seconds, 'locate': located}, took=time.perf_counter() - begin,
        about={'database': str(references[0].parent), 'queries': str(files[0].parent),
               'model': encoder.digest, 'compensate': str(compensate)})


def _locate(localizer: Localizer, descriptors: NDArray[np.float32], stamps: Sequence[int],
            name: str) -> tuple[list[Estimate], Floats]:
    """Return the estimates of a drive's descriptors (N,D), and the seconds (N,) each took."""
    estimates, seconds = [], []
    for descriptor, stamp in tqdm(zip(descriptors, stamps, strict=True), total=len(stamps),
                                  desc=f'{name}: locate', unit='frame', disable=None):
        begin = time.perf_counter()
        estimates.append(localizer.locate(descriptor, stamp))
        seconds.append(time.perf_counter() - begin)
    return estimates, np.array(seconds)


def _evaluation(names: Sequence[str], estimates: Sequence[Estimate], true: Floats,
                own: Sequence[Sequence[int]], right: NDArray[np.bool_], place_map: PlaceMap,
                place_names: Sequence[str], query_picture: Any, place_picture: Any,
                **rest: Any) -> Evaluation:
    candidates = np.array([e.candidates.places for e in estimates])
    return Evaluation(
        tuple(names), np.array([e.stamp for e in estimates], np.int64),
        np.array([e.pose for e in estimates]), np.array([e.covariance for e in estimates]),
        np.array([e.confidence for e in estimates]),
        tuple(e.reason.value if e.reason else '' for e in estimates),
        candidates, np.array([e.candidates.similarity for e in estimates]), true,
        _best(place_map.poses, true, own), metrics.first_right(candidates, own), right,
        place_map.poses, tuple(place_names), query_picture, place_picture, **rest)


def _best(places: Floats, true: Floats, own: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return the place (Q,) that shows each truth best: the nearest of its own; or -1."""
    return np.array([own_places[int(poses.distance(places[list(own_places)], pose).argmin())]
                     if len(own_places) else -1
                     for own_places, pose in zip(own, true, strict=True)], np.int64)


def _places_near(places: Floats, true: Floats, tolerance: float, degrees: float
                 ) -> list[list[int]]:
    near = []
    for pose in true:
        own = np.flatnonzero(poses.distance(places, pose) <= tolerance)
        near.append(own[poses.angle(places[own], pose) <= math.radians(degrees)].tolist())
    return near


def _close(pose: Floats, true: Floats, tolerance: float, degrees: float) -> bool:
    return bool(poses.distance(pose, true) <= tolerance
                and poses.angle(pose, true) <= math.radians(degrees))


def _words(tolerance: float, degrees: float) -> str:
    return f'{tolerance:g} m' + (f', {degrees:g} degrees' if degrees < 180 else '')


def _positions(files: Sequence[Path]) -> tuple[Floats, NDArray[np.str_]]:
    found = [utm_of(file.stem) for file in files]
    bad = next((file for file, one in zip(files, found, strict=True) if one is None), None)
    if bad is not None:
        raise SourceError(f'{bad} is not named @utm_east@utm_north@...@')
    return (np.array([one[:2] for one in found if one is not None]),
            np.array([one[3] for one in found if one is not None]))


@dataclass(frozen=True)
class DriveScore:
    """
    How right a drive was, over the frames whose truth is known.

    errors (N,) in metres and truth (N,7) are for every frame, NaN where it is not known;
    median_error is over the published poses.
    """

    frames: int
    published: int
    right: int
    wrong: int
    best_right: int
    median_error: float
    errors: Floats
    truth: Floats


def score_drive(stamps: NDArray[np.int64], estimated: Floats, trusted: NDArray[np.bool_],
                truth: poses.PoseTrack, correct_radius: float) -> DriveScore:
    """
    Compare a drive's estimated poses (N,7), some of them `trusted` (N,), with the true ones.

    Raises SourceError when no estimate lies within the time of the truth.
    """
    true, known = poses.interpolate(truth, stamps)
    if not known.any():
        raise SourceError('the ground truth covers none of the frames')
    errors = poses.distance(estimated, true)
    right = errors <= correct_radius
    published = known & trusted
    return DriveScore(
        frames=int(known.sum()), published=int(published.sum()),
        right=int((published & right).sum()), wrong=int((published & ~right).sum()),
        best_right=int((known & right).sum()),
        median_error=float(np.median(errors[published])) if published.any() else float('nan'),
        errors=errors, truth=true)
