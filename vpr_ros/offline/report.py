"""
Report: an Evaluation as one HTML file that opens anywhere, without a server or a network.

The page is in page/; its figures are those of summary.py.
"""

from __future__ import annotations

import base64
from importlib import resources
import json
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import images
from vpr_ros.core import metrics
from vpr_ros.core import poses
from vpr_ros.core.errors import ImageError
from vpr_ros.core.files import whole_file
from vpr_ros.offline.summary import summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.offline.evaluation import Evaluation
    from vpr_ros.offline.evaluation import Image

    Read = tuple[Callable[[int], Image | None], int]

MOST_BYTES = 9_500_000
"""Of all images together, as JPEG; base64 makes them a third larger."""

HEIGHTS = (144, 120, 96, 72, 56, 40, 28)
"""Of the images, in pixels: the first that keeps within MOST_BYTES is taken."""

_QUALITY = 70
_SAMPLE = 24
_MOST_MISTAKES = 24
_BINS = 30


def write_report(evaluation: Evaluation, path: str | Path) -> None:
    """
    Write the report of an evaluation to `path`, whole or not at all.

    An image that cannot be read any more is left out. Raises VprError or OSError when the report
    cannot be written.
    """
    page = resources.files('vpr_ros.offline') / 'page'
    # A '<' in a name must not end the script element that holds the data.
    data = json.dumps(_data(evaluation), separators=(',', ':'),
                      ensure_ascii=False).replace('<', '\\u003c')
    text = (page / 'report.html').read_text('utf-8')
    for mark, content in (('@STYLE@', (page / 'report.css').read_text('utf-8')),
                          ('@SCRIPT@', (page / 'report.js').read_text('utf-8')),
                          ('@DATA@', data)):  # last: no mark is looked for in it
        text = text.replace(mark, content)
    with whole_file(path) as part:
        part.write_text(text, encoding='utf-8')


def _data(evaluation: Evaluation) -> dict[str, Any]:
    """Return what the page shows, ready for JSON."""
    figures = summary(evaluation)
    match = _matches(evaluation)
    mapped = evaluation.mapped
    shown = sorted({*match.tolist(), *evaluation.true_places[mapped].tolist()})
    query_images, place_images = _images(evaluation, shown)
    _, precision, recall = metrics.precision_recall(
        evaluation.estimates.confidence, evaluation.right, int(mapped.sum()))
    return {
        'title': _title(evaluation), 'metric': evaluation.metric, 'cards': _cards(figures),
        'places': np.round(_place_positions(evaluation), 2).tolist(),
        'queries': _queries(evaluation, match),
        'query_images': query_images, 'place_images': place_images,
        'mistakes': _mistakes(evaluation).tolist(),
        'precision_recall': np.round(np.stack([recall, precision], axis=1), 4).tolist(),
        'reliability': [bin_ for bin_ in figures['reliability'] if bin_[0]],
        'errors': _errors_by_distance(evaluation),
        'latency': {stage: _histogram(np.asarray(seconds) * 1e3)
                    for stage, seconds in evaluation.stage_seconds.items() if len(seconds)}}


def _title(evaluation: Evaluation) -> str:
    return ', '.join(f'{name}: {value[:12] if name == "model" else value}'
                     for name, value in evaluation.about.items() if isinstance(value, str))


def _cards(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the headline: numbers, each with its label."""
    cards = [
        (_percent(figures['answered']),
         f'frames localised (confidence >= {figures["min_confidence"]:g})'),
        (_percent(figures['answered_right']),
         f'published poses that are right (tolerance: {figures["tolerance"]})')]
    if figures['evaluated']:
        low, high = figures['recall_interval']['1']
        cards += [
            (f'{figures["recall"]["1"]:.3f}',
             f'single-frame Recall@1 (95 % interval: {low:.3f} to {high:.3f})'),
            (f'{figures["recall_at_precision"]["0.99"]:.3f}', 'recall at 99 % precision')]
    cards.append((f'{figures["ece"]:.3f}', 'calibration error (ECE, lower is better)'))
    if figures['evaluated'] and 'filtered' in figures:
        cards.append((_percent(figures['filtered']),
                      'filtered estimates that are right, published or not'))
    if figures['false_accepts'] is not None:
        cards.append((_percent(figures['false_accepts']),
                      'unmapped queries with a published pose (false accepts)'))
    if figures['pose_error']:
        cards.append((f'{figures["pose_error"]["p50"]:.2f} m',
                      'median position error of published poses'))
    if figures['refined']:
        before, after = (figures['refined'][when]['p50'] for when in ('before', 'after'))
        cards.append((f'{before:.2f} → {after:.2f} m',
                      'median position error before and after landmarks refined the pose '
                      f'({figures["refined"]["share"]:.0%} of published poses)'))
    return cards


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{share:.1%}'


def _matches(evaluation: Evaluation) -> NDArray[np.int64]:
    """Return the place (Q,) to show beside each query: nearest to its pose, or most similar."""
    estimates = evaluation.estimates
    if not evaluation.use_filter:
        return estimates.candidates[:, 0]
    return np.array([int(poses.distance(evaluation.references.poses, pose).argmin())
                     for pose in estimates.poses])


def _place_positions(evaluation: Evaluation) -> NDArray[np.float64]:
    """Return where the map is drawn (N,2): in metres, or as query number and place number."""
    if evaluation.metric:
        return evaluation.references.poses[:, :2]
    mapped = np.flatnonzero(evaluation.mapped)
    return np.stack([mapped, evaluation.true_places[mapped]], axis=1).astype(np.float64)


def _queries(evaluation: Evaluation, match: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return what the page says of each query; match (Q,) is the place shown beside it."""
    estimates, names = evaluation.estimates, evaluation.references.names
    errors, published = evaluation.errors, estimates.published
    if evaluation.metric:
        x, y = estimates.poses[:, :2].T
    else:
        x, y = np.arange(len(evaluation), dtype=np.float64), match.astype(np.float64)
    return [{
        'name': evaluation.query_names[q],
        'x': round(float(x[q]), 2), 'y': round(float(y[q]), 2),
        'confidence': round(float(estimates.confidence[q]), 4), 'published': bool(published[q]),
        'right': bool(evaluation.right[q]), 'reason': estimates.reasons[q],
        'match': int(match[q]), 'match_name': names[match[q]],
        'similarity': _similarity(evaluation, q, match[q]),
        'truth': int(true_place), 'truth_name': names[true_place] if true_place >= 0 else '',
        'error': None if np.isnan(errors[q]) else round(float(errors[q]), 2)}
        for q, true_place in enumerate(evaluation.true_places)]


def _similarity(evaluation: Evaluation, query: int, place: int) -> float | None:
    """Return the similarity of a query and a place; None when it is not among the candidates."""
    ranks = np.flatnonzero(evaluation.estimates.candidates[query] == place)
    if not len(ranks):
        return None
    return round(float(evaluation.estimates.similarity[query, ranks[0]]), 3)


def _mistakes(evaluation: Evaluation) -> NDArray[np.int64]:
    """Return the numbers of the worst wrong estimates: published ones first, the surest first."""
    wrong = np.flatnonzero(~evaluation.right)
    published, confidence = evaluation.estimates.published, evaluation.estimates.confidence
    return wrong[np.lexsort((-confidence[wrong], ~published[wrong]))][:_MOST_MISTAKES]


def _images(evaluation: Evaluation, places: list[int]) -> tuple[list[str], dict[int, str]]:
    """Return JPEG images in base64: of all queries, and of some places by their number."""
    reads: list[Read] = [
        *((evaluation.query_image, query) for query in range(len(evaluation))),
        *((evaluation.references.image, place) for place in places)]
    height = _affordable_height(reads)
    encoded = []
    for read in tqdm(reads, desc='report', unit='image', disable=None):
        jpegs = _jpegs(read, (height,))
        encoded.append('' if jpegs is None else base64.b64encode(jpegs[0]).decode())
    count = len(evaluation)
    return encoded[:count], dict(zip(places, encoded[count:], strict=True))


def _affordable_height(reads: Sequence[Read]) -> int:
    """Return the greatest of HEIGHTS at which all images are likely to fit into MOST_BYTES."""
    sampled = np.linspace(0, len(reads) - 1, min(_SAMPLE, len(reads))).astype(int)
    sizes = [[len(jpeg) for jpeg in jpegs] for jpegs in (
        _jpegs(reads[number], HEIGHTS) for number in sampled) if jpegs is not None]
    if not sizes:
        return HEIGHTS[0]
    return next((height for height, size in zip(HEIGHTS, np.mean(sizes, axis=0), strict=True)
                 if size * len(reads) <= MOST_BYTES), HEIGHTS[-1])


def _jpegs(read: Read, heights: tuple[int, ...]) -> list[bytes] | None:
    """Return an image as JPEG at some heights, never enlarged; None when there is none."""
    load, number = read
    try:
        rgb = load(number)
    except (ImageError, OSError):
        return None
    if rgb is None:
        return None
    return [images.encode_jpeg(images.to_height(rgb, min(height, len(rgb))), _QUALITY)
            for height in heights]


def _errors_by_distance(evaluation: Evaluation) -> list[tuple[float, float, bool]]:
    """Return (metres driven, error, whether right) of every published pose with known truth."""
    errors = evaluation.errors
    known = np.isfinite(errors)
    if not known.any():
        return []
    driven = np.zeros(len(evaluation))
    true = evaluation.true_poses[known, :3]
    driven[known] = np.concatenate([[0.0], np.linalg.norm(np.diff(true, axis=0), axis=1).cumsum()])
    return [(round(float(driven[q]), 1), round(float(errors[q]), 2), bool(evaluation.right[q]))
            for q in np.flatnonzero(known & evaluation.estimates.published)]


def _histogram(milliseconds: NDArray[np.float64]) -> tuple[float, float, list[int]]:
    """Return the limits and counts of latencies; the slowest hundredth is in the last bin."""
    high = max(float(np.percentile(milliseconds, 99)), 1e-3)
    counts, _ = np.histogram(np.minimum(milliseconds, high), _BINS, (0.0, high))
    return 0.0, high, counts.tolist()
