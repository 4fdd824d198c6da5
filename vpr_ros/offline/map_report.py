"""
Map report: where a map has gaps, which of its places look alike, and what to do about it.

It needs the map alone. How well drives are localised on it is measured by evaluate_drives.py.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from tqdm import tqdm
from vpr_ros.core import poses
from vpr_ros.core.defaults import EXCLUSION_RADIUS
from vpr_ros.offline.landmark_report import landmark_advice
from vpr_ros.offline.landmark_report import landmark_lines
from vpr_ros.offline.landmark_report import landmark_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

ALIAS_SIGMAS = 4.0
"""Similarity, in standard deviations above the mean of the map, from which a distant place is an
alias: the right place reaches as much in another season (self_calibrate.py)."""

GAP_SPACINGS = 3.0
"""Distance between consecutive places, in spacings, from which on it is a gap."""

_CANDIDATES = 128
_SAMPLE = 512
_BATCH = 4096
_SAME_HEADING = np.radians(30)
_MAX_ADVICE = 5
_MAX_SPOTS = 4


def find_aliases(place_map: PlaceMap) -> tuple[Floats, NDArray[np.int64]]:
    """
    Return for each place how similar the most similar distant place is, and which one that is.

    Both are (N,). Distant is more than EXCLUSION_RADIUS metres away. The similarity is in standard
    deviations above the mean of a sample of the map, as the Localizer has it. Where the most
    similar places are all nearby, these are -99 and -1.
    """
    count = len(place_map)
    sample = place_map.vectors(np.sort(np.random.default_rng(0).permutation(count)[:_SAMPLE]))
    score, other = np.full(count, -np.inf), np.full(count, -1, np.int64)
    for begin in tqdm(range(0, count, _BATCH), desc='aliases', unit='batch', disable=None):
        batch = np.arange(begin, min(begin + _BATCH, count))
        rows = np.arange(len(batch))
        queries = place_map.vectors(batch)
        similarity, places = place_map.search(queries, min(_CANDIDATES, count))
        usual = queries @ sample.T
        offset = place_map.poses[places, :3] - place_map.poses[batch][:, None, :3]
        far = (np.linalg.norm(offset, axis=2) > EXCLUSION_RADIUS) & (similarity > -1)
        best = np.where(far, similarity, -np.inf).argmax(axis=1)
        exists = far[rows, best]
        spread = np.maximum(usual.std(axis=1), 1e-3)
        sigmas = (similarity[rows, best] - usual.mean(axis=1)) / spread
        score[batch] = np.where(exists, sigmas, -np.inf)
        other[batch] = np.where(exists, places[rows, best], -1)
    return np.maximum(score, -99.0), other


def map_report(place_map: PlaceMap, score: Floats, other: NDArray[np.int64]) -> dict[str, Any]:
    """
    Return the figures of a map and advice, ready for JSON; `score` and `other` of `find_aliases`.

    `aliasing`: the share of places that have an alias (ALIAS_SIGMAS); `stretches`: consecutive
    places with consecutive aliases, the longest first; `alike`: all such stretches that look like
    each other together, `places` (first and last of each) and `at`, the most places first. `gaps`:
    metres between consecutive places of a session, the longest first; the same gap of several
    sessions counts once. `redundant`: the share of places with another of the same
    session and heading within half a spacing. `seen_twice`: the share that another session has
    seen, too. `landmarks`: of landmark_report.py. `advice`: what to do, in sentences.
    """
    positions = place_map.poses[:, :3]
    spacing = place_map.manifest.spacing or _median_step(place_map)
    aliased = score >= ALIAS_SIGMAS
    headings = poses.heading(place_map.poses)
    pairs = cKDTree(positions).query_pairs(max(2 * spacing, 1e-9), output_type='ndarray')
    near = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    turn = np.abs((headings[pairs[:, 0]] - headings[pairs[:, 1]] + np.pi) % (2 * np.pi) - np.pi)
    same = place_map.sessions[pairs[:, 0]] == place_map.sessions[pairs[:, 1]]
    close = same & (near < spacing / 2) & (turn < _SAME_HEADING)
    redundant = np.unique(pairs[close, 1])
    twice = np.unique(pairs[~same & (turn < _SAME_HEADING)])
    stretches = _stretches(place_map, aliased, other)
    report = {
        'places': len(place_map), 'spacing': spacing, 'median_step': _median_step(place_map),
        'calibration': place_map.manifest.calibration.origin,
        'validated': place_map.manifest.calibration.validated,
        'sessions': [_session(place_map, number) for number in range(len(place_map.means))],
        'gaps': _gaps(place_map, spacing),
        'redundant': len(redundant) / len(place_map), 'seen_twice': len(twice) / len(place_map),
        'aliasing': float(aliased.mean()),
        'alike_score': {f'p{q}': float(np.percentile(score, q)) for q in (50, 90, 99)},
        'stretches': stretches, 'alike': _alike(place_map, stretches, other),
        'landmarks': landmark_report(place_map)}
    return {**report, 'advice': list(_advice(report))}


def _median_step(place_map: PlaceMap) -> float:
    steps = place_map.steps()
    return float(np.median(steps)) if len(steps) and np.median(steps) > 0 else 1.0


def _session(place_map: PlaceMap, number: int) -> dict[str, Any]:
    places = np.flatnonzero(place_map.sessions == number)
    steps = poses.distance(place_map.poses[places[1:]], place_map.poses[places[:-1]])
    session = place_map.manifest.sessions[number]
    return {'source': session.source, 'condition': session.condition, 'places': len(places),
            'metres': float(steps.sum())}


def _gaps(place_map: PlaceMap, spacing: float) -> list[dict[str, Any]]:
    """Return the gaps, the longest first; of those that coincide, in either direction, one."""
    steps = poses.distance(place_map.poses[1:], place_map.poses[:-1])
    same = place_map.sessions[1:] == place_map.sessions[:-1]
    gaps = np.flatnonzero(same & (steps > GAP_SPACINGS * spacing))
    ends = place_map.poses[np.stack([gaps, gaps + 1], axis=1), :3]
    kept: list[int] = []
    for gap in np.argsort(-steps[gaps], kind='stable'):
        apart = [np.linalg.norm(ends[kept] - each, axis=2).max(axis=1, initial=0.0)
                 for each in (ends[gap], ends[gap][::-1])]
        if not (np.minimum(*apart) < steps[gaps[gap]] / 2).any():
            kept.append(int(gap))
    return [{'metres': float(steps[place]), 'after': int(place),
             'from': place_map.poses[place, :2].tolist(),
             'to': place_map.poses[place + 1, :2].tolist()} for place in gaps[kept]]


def _stretches(place_map: PlaceMap, aliased: NDArray[np.bool_], other: NDArray[np.int64]
               ) -> list[dict[str, Any]]:
    """Return stretches of consecutive places that look like another stretch, longest first."""
    stretches: list[list[int]] = []
    for place in np.flatnonzero(aliased):
        last = stretches[-1][-1] if stretches else -2
        if place == last + 1 and float(poses.distance(
                place_map.poses[other[place]],
                place_map.poses[other[last]])) <= EXCLUSION_RADIUS / 2:
            stretches[-1].append(int(place))
        else:
            stretches.append([int(place)])
    stretches.sort(key=len, reverse=True)
    return [{'places': len(stretch), 'first': stretch[0], 'last': stretch[-1],
             'like': int(other[stretch[0]]), 'like_last': int(other[stretch[-1]]),
             'at': place_map.poses[stretch[0], :2].tolist(),
             'like_at': place_map.poses[other[stretch[0]], :2].tolist()} for stretch in stretches]


def _alike(place_map: PlaceMap, stretches: list[dict[str, Any]], other: NDArray[np.int64]
           ) -> list[dict[str, Any]]:
    """Return groups of spots that look like each other, from the stretches of several places."""
    ambiguous = [place for stretch in stretches if stretch['places'] > 1
                 for place in range(stretch['first'], stretch['last'] + 1)]
    if not ambiguous:
        return []
    links = np.stack([ambiguous, other[ambiguous]], axis=1)
    places = np.unique(links)
    near = cKDTree(place_map.poses[places, :3]).query_pairs(EXCLUSION_RADIUS / 2,
                                                            output_type='ndarray')
    spots = _components(len(places), near)
    groups = _components(len(places), np.concatenate([near, np.searchsorted(places, links)]))
    alike = []
    for group in np.unique(groups):
        spans = []
        for spot in np.unique(spots[groups == group]):
            here = places[spots == spot]
            here = here[place_map.sessions[here] == place_map.sessions[here[0]]]
            spans.append([int(here[0]), int(here[-1])])
        alike.append({'places': sorted(spans),
                      'at': [place_map.poses[first, :2].tolist() for first, _ in sorted(spans)]})
    return sorted(alike, key=lambda group: -sum(last - first for first, last in group['places']))


def _components(count: int, links: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the connected component of each of `count` nodes; links are (L,2)."""
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), (count, count))
    labels: NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return labels


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """
    Yield the lines of a report for people: what `map_report` found, and its advice.

    The report may have `expected`, of self_calibrate.expected.
    """
    yield (f'{report["places"]} places, {report["median_step"]:.2f} m apart (median); '
           f'calibrated on {report["calibration"]}')
    for session in report['sessions']:
        yield (f'  {session["source"]} ({session["condition"]}): {session["places"]} places, '
               f'{session["metres"]:.0f} m')
    yield (f'gaps: {len(report["gaps"])}; places seen by several sessions: '
           f'{report["seen_twice"]:.0%}; redundant places: {report["redundant"]:.0%}')
    yield (f'{report["aliasing"]:.1%} of the places are ambiguous: a place more than '
           f'{EXCLUSION_RADIUS:g} m away is as similar as the right place would be in another '
           'season')
    if report['landmarks']:
        yield from landmark_lines(report['landmarks'])
    expected = report.get('expected')
    if expected:
        off_map = (f'; off the map, {expected["off_map"]:.1%} of the frames get a false pose'
                   if 'off_map' in expected else '')
        yield ('rough estimate from simulated drives, without odometry: '
               f'{expected["published"]:.0%} of the frames localised, {expected["right"]:.1%} of '
               f'these correct{off_map}')
    for line in report['advice']:
        yield f'- {line}'


def _advice(report: dict[str, Any]) -> Iterator[str]:
    for gap in report['gaps'][:_MAX_ADVICE]:
        yield (f'gap of {gap["metres"]:.0f} m without places from {_point(gap["from"])} to '
               f'{_point(gap["to"])}: record this stretch again')
    for group in report['alike'][:_MAX_ADVICE]:
        spots = [f'{first}-{last} (at {_point(at)})' if last > first else f'{first} (at '
                 f'{_point(at)})' for (first, last), at in zip(
                     group['places'], group['at'], strict=True)]
        more = len(spots) - _MAX_SPOTS
        spots[_MAX_SPOTS:] = [f'{more} more'] if more > 0 else []
        yield (f'places {", ".join(spots[:-1])} and {spots[-1]} look alike: use odometry here'
               if len(spots) > 1 else f'places {spots[0]} look alike all along: use odometry here')
    if report['landmarks']:
        yield from landmark_advice(report['landmarks'])
    if report['redundant'] > 0.2:
        yield (f'{report["redundant"]:.0%} of the places are within half a spacing of another: a '
               'map with a larger --spacing will do as well')
    conditions = {session['condition'] for session in report['sessions']}
    if conditions == {'unknown'}:
        yield ('the season or light of the sessions is unknown: name it with vpr build-map '
               '--condition, to see here which conditions are missing')
    elif len(conditions) == 1:
        yield (f"all sessions have the condition '{conditions.pop()}': if the robot also drives "
               'in another season or light, add a drive of it')
    if not report['validated']:
        yield 'not validated: run vpr calibrate MAP BAG'


def _point(position: list[float]) -> str:
    return f'x {position[0]:.1f}, y {position[1]:.1f}'
