"""How well landmarks cover a map, and what errors its mapping poses leave: for map-report."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.localization.refine import MIN_INLIERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

ROUGH = 2.0
"""Reprojection error, in that of the whole map, from which on a stretch is rough."""

_SHORTEST = 3
"""Consecutive places that are a stretch: of fewer, the places around have enough."""

_MOST_ADVICE = 5


def landmark_report(place_map: PlaceMap) -> dict[str, Any] | None:
    """
    Return the figures of a map's landmarks, ready for JSON; None for a map without.

    `per_place`: the median; `few`: the share of places with fewer than a refined pose needs;
    `error_degrees`: the reprojection error that the mapping poses leave, of the median place and
    of that at 90 %, None for maps without. `weak`: stretches of places with few landmarks,
    `rough`: those whose error is ROUGH times that of the map; `first` and `last` place, `metres`,
    where they begin (`at`), and their median `landmarks` or `degrees`; the longest first.
    """
    landmarks = place_map.landmarks
    if landmarks is None:
        return None
    counts = landmarks.counts
    report: dict[str, Any] = {
        'per_place': float(np.median(counts)), 'few': float((counts < MIN_INLIERS).mean()),
        'error_degrees': None, 'rough': [],
        'weak': _stretches(place_map, counts < MIN_INLIERS, 'landmarks', counts)}
    errors = np.zeros(len(counts)) if landmarks.errors is None else np.degrees(
        landmarks.errors.astype(np.float64))
    known = errors > 0
    if known.any():
        usual = float(np.median(errors[known]))
        report['error_degrees'] = {'p50': usual, 'p90': float(np.percentile(errors[known], 90))}
        report['rough'] = _stretches(place_map, known & (errors > ROUGH * usual), 'degrees',
                                     errors)
    return report


def landmark_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the line on a map's landmarks that people read."""
    error = report['error_degrees']
    yield (f'landmarks: {report["per_place"]:.0f} a place (median); {report["few"]:.0%} of the '
           f'places have fewer than {MIN_INLIERS}'
           + (f'; the mapping poses leave a reprojection error of {error["p50"]:.2f} degrees '
              f'(median; {error["p90"]:.2f} at 90 %)' if error else ''))


def landmark_advice(report: dict[str, Any]) -> Iterator[str]:
    """Yield what to do about stretches with few landmarks, and with large errors."""
    for each in report['weak'][:_MOST_ADVICE]:
        yield (f'{_place(each)} have few landmarks ({each["landmarks"]:.0f}): poses are hardly '
               'refined there; map this stretch again, in better light or with more images')
    for each in report['rough'][:_MOST_ADVICE]:
        yield (f'{_place(each)} have landmarks that miss by {each["degrees"]:.2f} degrees, '
               f'{each["degrees"] / report["error_degrees"]["p50"]:.1f} times the usual: are the '
               'mapping poses wrong there?')


def _stretches(place_map: PlaceMap, flagged: NDArray[np.bool_], name: str,
               values: NDArray[Any]) -> list[dict[str, Any]]:
    """Return the stretches of flagged places (N,) of a session, the longest first."""
    found: list[dict[str, Any]] = []
    numbers = np.flatnonzero(flagged)
    breaks = (np.diff(numbers) > 1) | (np.diff(place_map.sessions[numbers]) != 0)
    for run in np.split(numbers, np.flatnonzero(breaks) + 1):
        if len(run) >= _SHORTEST:
            own = place_map.poses[run]
            found.append({'first': int(run[0]), 'last': int(run[-1]),
                          'metres': float(poses.distance(own[1:], own[:-1]).sum()),
                          'at': own[0, :2].tolist(), name: float(np.median(values[run]))})
    return sorted(found, key=lambda each: -each['metres'])


def _place(each: dict[str, Any]) -> str:
    x, y = each['at']
    return (f'places {each["first"]}-{each["last"]} (from x {x:.1f}, y {y:.1f} on, '
            f'{each["metres"]:.0f} m)')
