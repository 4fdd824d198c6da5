"""
Report: an Evaluation as one HTML file that opens anywhere, without a server or a network.

The page is in page/; the figures are those of metrics.py.
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
from vpr_ros.offline.evaluate import summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.offline.evaluation import Evaluation
    from vpr_ros.offline.evaluation import Picture

MOST_BYTES = 9_500_000
"""Of all pictures together, as JPEG: base64 makes a third more of them."""

HEIGHTS = (144, 120, 96, 72, 56, 40, 28)
"""Of the pictures, in pixels: the first that keeps within MOST_BYTES is taken."""

_QUALITY = 70
_SAMPLE = 24
_WORST = 24
_BINS = 30


def write_report(evaluation: Evaluation, path: str | Path) -> None:
    """
    Write the report of an evaluation to `path`, whole or not at all.

    A picture that cannot be read any more is left out. Raises VprError or OSError when it cannot
    be written.
    """
    data = _data(evaluation)
    page = resources.files('vpr_ros.offline') / 'page'
    # A '<' in a name must not end the script that the data stand in.
    inside = json.dumps(data, separators=(',', ':'), ensure_ascii=False).replace('<', '\\u003c')
    text = (page / 'report.html').read_text('utf-8')
    for mark, content in (('@STYLE@', (page / 'report.css').read_text('utf-8')),
                          ('@SCRIPT@', (page / 'report.js').read_text('utf-8')),
                          ('@DATA@', inside)):  # last: nothing is looked for in it
        text = text.replace(mark, content)
    with whole_file(path) as part:
        part.write_text(text, encoding='utf-8')


def _data(e: Evaluation) -> dict[str, Any]:
    """Return what the page shows, ready for JSON."""
    figures = summary(e)
    given = np.array([not reason for reason in e.reasons])
    errors = poses.distance(e.estimated, e.truth) if e.metric else np.full(len(e), np.nan)
    match = e.candidates[:, 0] if not e.filtered else _nearest(e)
    count = np.arange(len(e), dtype=np.float64)
    where = e.estimated[:, :2] if e.metric else np.stack([count, match], axis=1)
    places = e.places[:, :2] if e.metric else np.stack(
        [count[e.mapped], e.true_place[e.mapped]], axis=1)
    wrong = np.flatnonzero(~e.right)
    worst = wrong[np.argsort(-e.confidence[wrong], kind='stable')][:_WORST]
    shown = sorted({*match.tolist(), *e.true_place[e.mapped].tolist()})
    queries, pictures = _pictures(e, shown)
    _, precision, recall = metrics.precision_recall(e.confidence, e.right, int(e.mapped.sum()))
    return {
        'title': ', '.join(f'{name} {value[:12] if name == "model" else value}'
                           for name, value in e.about.items()),
        'metric': e.metric, 'cards': _cards(figures),
        'places': np.round(places, 2).tolist(),
        'drive': [{
            'name': e.names[q],
            'x': round(float(where[q, 0]), 2), 'y': round(float(where[q, 1]), 2),
            'confidence': round(float(e.confidence[q]), 4), 'given': bool(given[q]),
            'right': bool(e.right[q]), 'reason': e.reasons[q],
            'match': int(match[q]), 'match_name': e.place_names[match[q]],
            'similarity': round(float(e.similarity[q, 0]), 3), 'truth': int(e.true_place[q]),
            'truth_name': e.place_names[e.true_place[q]] if e.true_place[q] >= 0 else '',
            'error': None if np.isnan(errors[q]) else round(float(errors[q]), 2)}
            for q in range(len(e))],
        'queries': queries, 'pictures': pictures, 'worst': worst.tolist(),
        'precision_recall': [[round(float(r), 4), round(float(p), 4)]
                             for r, p in zip(recall, precision, strict=True)],
        'reliability': [bin_ for bin_ in figures['reliability'] if bin_[0]],
        'errors': _over_distance(e, errors, given),
        'latency': {stage: _histogram(np.asarray(seconds) * 1e3)
                    for stage, seconds in e.seconds.items() if len(seconds)}}


def _cards(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the headline: a number and what it says, for each."""
    def share(value: float | None) -> str:
        return '-' if value is None else f'{value:.1%}'

    cards = [
        (share(figures['answered']), 'of the queries got a pose at confidence '
                                     f'{figures["min_confidence"]:g}'),
        (share(figures['answered_right']), f'of these are right ({figures["tolerance"]})'),
        (f'{figures["ece"]:.3f}', 'calibration error: 0 is honest')]
    if figures['evaluated']:
        low, high = figures['recall_interval']['1']
        cards[2:2] = [
            (f'{figures["recall"]["1"]:.3f}',
             f'Recall@1 of single frames ({low:.3f} to {high:.3f})'),
            (f'{figures["recall_at_precision"]["0.99"]:.3f}', 'recall at 99 % precision')]
        if 'filtered' in figures:
            cards.append((f'{figures["filtered"]:.3f}', 'of best guesses right, with the filter'))
    if figures['false_accepts'] is not None:
        cards.append((share(figures['false_accepts']),
                      'of the queries that are not on the map got a pose'))
    if figures['pose_error']:
        cards.append((f'{figures["pose_error"]["p50"]:.2f} m', 'median error of the poses'))
    return cards


def _nearest(e: Evaluation) -> NDArray[np.int64]:
    return np.array([int(poses.distance(e.places, pose).argmin()) for pose in e.estimated])


def _pictures(e: Evaluation, places: list[int]) -> tuple[list[str], dict[int, str]]:
    """Return the JPEG pictures of all queries, and of some places by their number, in base64."""
    jobs: list[tuple[Callable[[int], Picture | None], int]] = [
        *((e.query_picture, q) for q in range(len(e))),
        *((e.place_picture, place) for place in places)]
    sampled = np.linspace(0, len(jobs) - 1, min(_SAMPLE, len(jobs))).astype(int)
    some = [jpeg for read, number in (jobs[k] for k in sampled)
            if (jpeg := _jpegs(read, number, HEIGHTS)) is not None]
    mean = np.mean([[len(one) for one in jpeg] for jpeg in some], axis=0) if some else [0]
    height = next((HEIGHTS[k] for k, each in enumerate(mean) if each * len(jobs) <= MOST_BYTES),
                  HEIGHTS[-1])
    encoded = []
    for read, number in tqdm(jobs, desc='report', unit='picture', disable=None):
        jpeg = _jpegs(read, number, (height,))
        encoded.append('' if jpeg is None else base64.b64encode(jpeg[0]).decode())
    return encoded[:len(e)], dict(zip(places, encoded[len(e):], strict=True))


def _jpegs(read: Callable[[int], Picture | None], number: int, heights: tuple[int, ...]
           ) -> list[bytes] | None:
    """Return a picture as JPEG at some heights, never enlarged; None when there is none."""
    try:
        picture = read(number)
    except (ImageError, OSError):
        return None
    if picture is None:
        return None
    return [images.encode_jpeg(images.to_height(picture, min(height, len(picture))), _QUALITY)
            for height in heights]


def _over_distance(e: Evaluation, errors: NDArray[np.float64], given: NDArray[np.bool_]
                   ) -> list[tuple[float, float, bool]]:
    """Return (metres driven, error, whether right) of every pose whose truth is known."""
    known = np.isfinite(errors)
    if not known.any():
        return []
    driven = np.zeros(len(e))
    true = e.truth[known, :3]
    driven[known] = np.concatenate([[0.0], np.linalg.norm(np.diff(true, axis=0), axis=1).cumsum()])
    return [(round(float(driven[q]), 1), round(float(errors[q]), 2), bool(e.right[q]))
            for q in np.flatnonzero(known & given)]


def _histogram(milliseconds: NDArray[np.float64]) -> tuple[float, float, list[int]]:
    """Return the limits and counts of latencies; the slowest hundredth is in the last bin."""
    high = max(float(np.percentile(milliseconds, 99)), 1e-3)
    counts, _ = np.histogram(np.minimum(milliseconds, high), _BINS, (0.0, high))
    return 0.0, high, counts.tolist()
