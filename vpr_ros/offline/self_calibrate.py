"""
Self-calibrate a map: on drives that are simulated from the map itself, without any recording.

A map is calibrated on real drives in calibrate.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.calibration import SIMULATED
from vpr_ros.maps.confidence import DEFAULT_MODELS
from vpr_ros.maps.confidence import Mode
from vpr_ros.offline.calibration_examples import FEWEST
from vpr_ros.offline.calibration_examples import gather
from vpr_ros.offline.calibration_examples import KnownDrive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.maps.place_map import PlaceMap

_PRIOR_WEIGHT = 200.0
"""Weight of the default models, which were fitted to real drives, against simulated drives."""

_SEPARATIONS = (4.0, 3.0)
"""Of simulated drives: standard deviations by which the right place stands above the others."""

_SEPARATION_SPREAD = 1.0
"""Standard deviation of that separation from stretch to stretch."""

_DISTRACTORS = 64
"""Other places that a simulated frame is mixed with."""

_STRETCH = 10
"""Successive frames that share the offsets of their distractors."""

_MOST_FRAMES = 200
"""Of a simulated drive."""

_MOST_PLACES = 20_000
"""Of a session, that take part."""


def self_calibrated(place_map: PlaceMap, encoder: Encoder, *, modes: Iterable[Mode] = Mode,
                    correct_radius: float = defaults.CORRECT_RADIUS,
                    max_speed: float = defaults.MAX_SPEED, seed: int = 0) -> Calibration:
    """
    Return a calibration of a map that is fitted to simulated drives.

    They drive past the map's own places, mixed with others until they stand out by 3 or 4 standard
    deviations, as places do in another season: on the map, and on the map without that stretch.
    Where there are several sessions, each also drives on the others. Such drives show how alike
    the places of this map are. How hard real drives are, and how much streets off the map look
    like mapped ones, is in the default models, which are only shifted and scaled. A map of fewer
    than 30 places, or whose places all look the same, gets the defaults.
    """
    runs = _simulated_drives(place_map, np.random.default_rng(seed))
    if not runs:
        return Calibration()
    models = {mode: gather(runs, encoder, Calibration(), mode, correct_radius, max_speed).fit(
        DEFAULT_MODELS[mode], keep_shape=True, prior_weight=_PRIOR_WEIGHT) for mode in modes}
    return Calibration(confidence=models, fitted_on=SIMULATED)


def expected(place_map: PlaceMap, encoder: Encoder, threshold: float, *,
             correct_radius: float = defaults.CORRECT_RADIUS,
             max_speed: float = defaults.MAX_SPEED, seed: int = 1) -> dict[str, float] | None:
    """
    Return how well simulated drives are localised on a map, by the map's own calibration.

    Without odometry: `published`, the share of frames on the map with a confidence of at least
    `threshold`; `right`, the share of these that is right; `off_map`, the share of frames off the
    map with such a confidence, if there are any. None for a map that is too small to simulate
    drives on. How hard real drives are is a guess.
    """
    runs = _simulated_drives(place_map, np.random.default_rng(seed))
    if not runs:
        return None
    calibration = place_map.manifest.calibration
    examples = gather(runs, encoder, calibration, Mode.SEQUENCE, correct_radius, max_speed)
    published = examples.confidence(calibration.confidence[Mode.SEQUENCE]) >= threshold
    right = examples.right[examples.mapped & published]
    off_map = published[~examples.mapped]
    return {'published': float(published[examples.mapped].mean()),
            'right': float(right.mean()) if len(right) else 1.0,
            **({'off_map': float(off_map.mean())} if len(off_map) else {})}


def _simulated_drives(place_map: PlaceMap, random: np.random.Generator
                      ) -> list[tuple[PlaceMap, KnownDrive]]:
    """Return simulated drives, each with the map that it is driven on; none for small maps."""
    runs: list[tuple[PlaceMap, KnownDrive]] = []
    for session in range(len(place_map.means)):
        places = np.flatnonzero(place_map.sessions == session)[:_MOST_PLACES]
        if len(places) < FEWEST:
            continue
        vectors = place_map.vectors(places)
        deviation = float(np.std(vectors @ vectors[random.permutation(len(places))[:256]].T))
        if not deviation > 1e-3:
            continue
        session_map = place_map.select(places)
        begin = int(random.integers(0, max(1, len(places) - _MOST_FRAMES + 1)))
        stretch = slice(begin, begin + _MOST_FRAMES)
        if len(runs) < len(_SEPARATIONS):
            runs += [(session_map, _as_drive(
                place_map, places, session,
                _mixed(vectors, separation, deviation, random)).part(stretch))
                for separation in _SEPARATIONS]
        others = np.flatnonzero(place_map.sessions != session)[:_MOST_PLACES]
        if len(others) >= FEWEST and len(runs) < 3 * len(_SEPARATIONS):
            runs.append((place_map.select(others),
                         _as_drive(place_map, places, session, vectors).part(stretch)))
    return runs


def _mixed(vectors: NDArray[np.float32], separation: float, deviation: float,
           random: np.random.Generator) -> NDArray[np.float32]:
    """
    Return centred descriptors (N,D) of places (N,D), mixed with those of other places.

    Each is similar to its own place by about `separation` times `deviation`, the standard
    deviation of the similarities between places. Over a stretch, the other places keep their
    distance along the drive: what disturbs one frame disturbs the next, as similar streets do.
    """
    count = len(vectors)
    mixed = np.empty_like(vectors)
    for begin in range(0, count, _STRETCH):
        frames = np.arange(begin, min(begin + _STRETCH, count))
        offsets = random.integers(count // 8 + 1, max(count // 8 + 2, count * 7 // 8),
                                  _DISTRACTORS)
        signs = random.choice([-1.0, 1.0], _DISTRACTORS)
        noise = np.tensordot(signs, vectors[(frames + offsets[:, None]) % count], 1)
        noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-6)
        similarity = np.clip(
            (separation + random.normal(0, _SEPARATION_SPREAD)) * deviation, 0.0, 0.98)
        mixed[frames] = similarity * vectors[frames] + np.sqrt(1 - similarity ** 2) * noise
    return mixed


def _as_drive(place_map: PlaceMap, places: NDArray[np.int64], session: int,
              centred: NDArray[np.float32]) -> KnownDrive:
    """Return a session's places as a drive: the mean added again, odometry 1 % too long."""
    mean = place_map.means[session]
    scale = max(0.05, 1 - float(mean @ mean)) ** 0.5
    descriptors = mean + scale * centred
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    stamps, truth = place_map.stamps[places], place_map.poses[places]
    if not (np.diff(stamps) > 0).all():
        stamps = np.arange(len(places), dtype=np.int64) * 10**9
    odometry = truth.copy()
    odometry[:, :3] *= 1.01
    return KnownDrive('simulated', descriptors.astype(np.float32), stamps, truth, odometry)
