"""
Map report: where a map has gaps, where its places look alike, and what to do about it.

Whether drives find their way on it is for evaluate.py and calibrate.py to say.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm
from vpr_ros.core import poses
from vpr_ros.core.defaults import EXCLUSION_RADIUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

ALIKE = 4.0
"""Standard deviations above what is usual at which a far place is taken for this one: so far do
right places stand out in another season (self_calibrate.py)."""

GAP = 3.0
"""Spacings between places that follow one another from which on it is a gap."""

_CANDIDATES = 128
_SAMPLE = 512
_BATCH = 4096
_SAME_WAY = np.radians(30)
_MOST = 5


def look_alikes(place_map: PlaceMap) -> tuple[Floats, NDArray[np.int64]]:
    """
    Return for each place (N,) the most similar one far away, and how it stands out (sigmas).

    Standardised by the similarities to a sample of the map, as the Localizer does; -inf and -1
    where the most similar places are all nearby.
    """
    count = len(place_map)
    sample = place_map.vectors(np.sort(np.random.default_rng(0).permutation(count)[:_SAMPLE]))
    score, other = np.full(count, -np.inf), np.full(count, -1, np.int64)
    for begin in tqdm(range(0, count, _BATCH), desc='look-alikes', unit='batch', disable=None):
        own = np.arange(begin, min(begin + _BATCH, count))
        queries = place_map.vectors(own)
        similarity, places = place_map.search(queries, min(_CANDIDATES, count))
        usual = queries @ sample.T
        offset = place_map.poses[places, :3] - place_map.poses[own][:, None, :3]
        far = (np.linalg.norm(offset, axis=2) > EXCLUSION_RADIUS) & (similarity > -1)
        best = np.where(far, similarity, -np.inf).argmax(axis=1)
        found = far[np.arange(len(own)), best]
        spread = np.maximum(usual.std(axis=1), 1e-3)
        stands = (similarity[np.arange(len(own)), best] - usual.mean(axis=1)) / spread
        score[own] = np.where(found, stands, -np.inf)
        other[own] = np.where(found, places[np.arange(len(own)), best], -1)
    return np.maximum(score, -99.0), other


def map_report(place_map: PlaceMap, score: Floats, other: NDArray[np.int64]) -> dict[str, Any]:
    """
    Return what can be said of a map by itself, ready for JSON; after `look_alikes`.

    `aliasing`: for how many places another, more than EXCLUSION_RADIUS metres off, is as similar
    as the right one is in another season; `stretches` of these, the longest first. `gaps`: metres
    between places that follow one another in a session. `redundant`: the share of places with
    another of the same session and heading within half a spacing. `seen_twice`: the share that
    another session has seen.
    """
    positions = place_map.poses[:, :3]
    spacing = place_map.manifest.spacing or _usual_step(place_map)
    alike = score >= ALIKE
    headings = poses.heading(place_map.poses)
    pairs = cKDTree(positions).query_pairs(max(2 * spacing, 1e-9), output_type='ndarray')
    near = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    turn = np.abs((headings[pairs[:, 0]] - headings[pairs[:, 1]] + np.pi) % (2 * np.pi) - np.pi)
    same = place_map.sessions[pairs[:, 0]] == place_map.sessions[pairs[:, 1]]
    close = same & (near < spacing / 2) & (turn < _SAME_WAY)
    redundant = np.unique(pairs[close, 1])
    twice = np.unique(pairs[~same & (turn < _SAME_WAY)])
    report = {
        'places': len(place_map), 'spacing': spacing,
        'calibration': place_map.manifest.calibration.origin,
        'validated': place_map.manifest.calibration.validated,
        'sessions': [_session(place_map, number) for number in range(len(place_map.means))],
        'gaps': _gaps(place_map, spacing),
        'redundant': len(redundant) / len(place_map), 'seen_twice': len(twice) / len(place_map),
        'aliasing': float(alike.mean()),
        'alike_score': {f'p{q}': float(np.percentile(score, q)) for q in (50, 90, 99)},
        'stretches': _stretches(place_map, alike, other)}
    return {**report, 'advice': list(_advice(report))}


def _usual_step(place_map: PlaceMap) -> float:
    steps = poses.distance(place_map.poses[1:], place_map.poses[:-1])
    return float(np.median(steps)) if len(steps) and np.median(steps) > 0 else 1.0


def _session(place_map: PlaceMap, number: int) -> dict[str, Any]:
    own = np.flatnonzero(place_map.sessions == number)
    steps = poses.distance(place_map.poses[own[1:]], place_map.poses[own[:-1]])
    described = place_map.manifest.sessions[number]
    return {'source': described.source, 'condition': described.condition, 'places': len(own),
            'metres': float(steps.sum())}


def _gaps(place_map: PlaceMap, spacing: float) -> list[dict[str, Any]]:
    """Return the gaps, the longest first."""
    steps = poses.distance(place_map.poses[1:], place_map.poses[:-1])
    same = place_map.sessions[1:] == place_map.sessions[:-1]
    found = np.flatnonzero(same & (steps > GAP * spacing))
    return [{'metres': float(steps[place]), 'after': int(place),
             'from': place_map.poses[place, :2].tolist(),
             'to': place_map.poses[place + 1, :2].tolist()}
            for place in found[np.argsort(-steps[found], kind='stable')]]


def _stretches(place_map: PlaceMap, alike: NDArray[np.bool_], other: NDArray[np.int64]
               ) -> list[dict[str, Any]]:
    """Return stretches of places that look like another stretch, the longest first."""
    stretches: list[list[int]] = []
    for place in np.flatnonzero(alike):
        last = stretches[-1][-1] if stretches else -2
        if place == last + 1 and float(poses.distance(
                place_map.poses[other[place]],
                place_map.poses[other[last]])) <= EXCLUSION_RADIUS / 2:
            stretches[-1].append(int(place))
        else:
            stretches.append([int(place)])
    stretches.sort(key=len, reverse=True)
    return [{'places': len(one), 'first': one[0], 'last': one[-1], 'like': int(other[one[0]]),
             'at': place_map.poses[one[0], :2].tolist(),
             'like_at': place_map.poses[other[one[0]], :2].tolist()} for one in stretches]


def _advice(report: dict[str, Any]) -> Iterator[str]:
    for gap in report['gaps'][:_MOST]:
        yield (f'drive this stretch again: nothing for {gap["metres"]:.0f} m after x '
               f'{gap["from"][0]:.1f}, y {gap["from"][1]:.1f}')
    for one in [one for one in report['stretches'] if one['places'] > 1][:_MOST]:
        yield (f'these {one["places"]} places look alike: {one["first"]} to {one["last"]} (x '
               f'{one["at"][0]:.1f}, y {one["at"][1]:.1f}) and those from {one["like"]} on (x '
               f'{one["like_at"][0]:.1f}, y {one["like_at"][1]:.1f}): odometry will tell them '
               'apart, a single frame will not')
    if report['redundant'] > 0.2:
        yield (f'{report["redundant"]:.0%} of the places are within half a spacing of another: a '
               'smaller map does as well (--spacing)')
    conditions = {session['condition'] for session in report['sessions']}
    if conditions == {'unknown'}:
        yield ('nothing says in which seasons or light it was seen: build it with --condition '
               'to know what is missing')
    elif len(conditions) == 1:
        yield (f"all of it was seen in one condition ('{conditions.pop()}'): add a drive in "
               'another one, if the robot drives in others')
    if not report['validated']:
        yield 'not validated: run vpr calibrate MAP BAG'
