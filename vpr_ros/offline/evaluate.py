"""Measure: recall of a model on a set of pictures, and the error of a drive's poses."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros import defaults
from vpr_ros import images
from vpr_ros import poses
from vpr_ros.calibration import calibration_error
from vpr_ros.errors import SourceError
from vpr_ros.localizer import Localizer
from vpr_ros.offline.build_map import BATCH
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.rehearse import rehearsed
from vpr_ros.sources import open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoder import Encoder

RECALLS = (1, 5, 10)

FASTEST = 2.0
"""Places that a drive passes from one query to the next at most: the belief finds out how many."""


def evaluate_set(database: str | Path, queries: str | Path, ground_truth: str | Path,
                 encoder: Encoder, *, compensate: bool = True,
                 filter: bool = False,  # noqa: A002 (the node's name)
                 min_confidence: float = defaults.MIN_CONFIDENCE) -> dict[str, Any]:
    """Return Recall@1/5/10 of queries against a database of pictures, and what was answered.

    `ground_truth` is a CSV of (query,reference) file names, a row for each right answer. The
    queries go through the Localizer in the order of their names, one a second: each for itself,
    or with `filter` as a drive without odometry at up to FASTEST places a query. The places are
    where the database's poses.csv says, or else a metre apart. Queries without a right answer take
    no part in the recall; a pose for one of them is a false accept. What is right for the recall
    is right for the confidence, too. Raises SourceError for names that do not exist.
    """
    begin = time.perf_counter()
    references = {path.name: place for place, path in enumerate(images.list_folder(database))}
    files = images.list_folder(queries)
    truth = _read_truth(Path(ground_truth), references, {file.name for file in files})
    has_poses = filter and (Path(database) / 'poses.csv').is_file()
    place_map = build_map([open_source(database, in_order=not has_poses)], encoder, spacing=0.0,
                          thumbnails=False, rehearse=False)
    if len(place_map) != len(references):
        raise SourceError(f'{database}: {len(references) - len(place_map)} of its pictures '
                          'cannot be used: mend or remove them, with their ground truth')
    step = float(np.median(poses.distance(place_map.poses[1:], place_map.poses[:-1]))) \
        if len(place_map) > 1 else 1.0
    radius = _tolerance(place_map.poses, truth) + step / 2
    place_map = place_map.calibrated(rehearsed(
        place_map, encoder, ways=('filter' if filter else 'single',), correct_radius=radius,
        max_speed=FASTEST * step))
    localizer = Localizer(encoder, place_map, top_k=max(RECALLS), compensate=compensate,
                          filter=filter, min_confidence=min_confidence, correct_radius=radius,
                          max_speed=FASTEST * step)
    first_right: list[int] = []
    answers: list[tuple[float, bool, bool]] = []
    for start in tqdm(range(0, len(files), BATCH), desc=Path(queries).name, unit='batch',
                      disable=None):
        batch = files[start:start + BATCH]
        descriptors = encoder.encode_batch([images.read(file) for file in batch])
        for number, (file, descriptor) in enumerate(zip(batch, descriptors, strict=True)):
            estimate = localizer.locate(descriptor, (start + number) * 10**9)
            nearest = int(poses.distance(place_map.poses, estimate.pose).argmin())
            own = truth.get(file.name, [])
            answers.append((estimate.confidence, estimate.trusted, nearest in own))
            if own:
                right = np.flatnonzero(np.isin(estimate.candidates.places, own))
                first_right.append(int(right[0]) if len(right) else max(RECALLS))
    mapped = np.array([file.name in truth for file in files])
    sure, given, right_one = (np.array(column) for column in zip(*answers, strict=True))
    return {
        'database': str(database), 'queries': str(queries), 'places': len(references),
        'model': encoder.digest, 'evaluated': len(first_right),
        'unmapped': len(files) - len(first_right), 'compensate': compensate,
        'tolerance': 'as listed in the ground truth',
        'recall': {str(n): float(np.mean(np.array(first_right) < n)) for n in RECALLS},
        'filter': filter, 'min_confidence': min_confidence,
        **({'filtered': float(right_one[mapped].mean()), 'max_speed': FASTEST * step}
           if filter else {}),
        'answered': int(given.sum()), 'answered_right': int((given & right_one).sum()),
        'false_accepts': int((given & ~mapped).sum()),
        'ece': calibration_error(sure, right_one),
        'seconds': round(time.perf_counter() - begin, 3),
    }


def _tolerance(places: NDArray[np.float64], truth: dict[str, list[int]]) -> float:
    """Return how far right answers mostly lie from their middle, in metres."""
    return float(np.median([np.ptp(places[own, :2], axis=0).max() / 2 for own in truth.values()]))


@dataclass(frozen=True)
class DriveScore:
    """How right a drive was, over the frames whose truth is known.

    errors (N,) in metres and truth (N,7) are for every frame, NaN where it is not known;
    median_error is over the published poses.
    """

    frames: int
    published: int
    right: int
    wrong: int
    best_right: int
    median_error: float
    errors: NDArray[np.float64]
    truth: NDArray[np.float64]


def score_drive(stamps: NDArray[np.int64], estimated: NDArray[np.float64],
                trusted: NDArray[np.bool_], truth: poses.PoseTrack, correct_radius: float
                ) -> DriveScore:
    """Compare a drive's estimated poses (N,7), some of them `trusted` (N,), with the true ones.

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


def _read_truth(path: Path, references: dict[str, int], queries: set[str]
                ) -> dict[str, list[int]]:
    """Return the right places of each query by its file name."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    truth: dict[str, list[int]] = {}
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.DictReader(file)
        if not {'query', 'reference'} <= set(reader.fieldnames or ()):
            raise SourceError(f'{path} needs the columns query,reference')
        for row in reader:
            if row['query'] not in queries or row['reference'] not in references:
                missing = row['query'] if row['query'] not in queries else row['reference']
                raise SourceError(f'{path} names {missing}, which is not among the pictures')
            truth.setdefault(row['query'], []).append(references[row['reference']])
    if not truth:
        raise SourceError(f'{path} lists no right answer')
    return truth
