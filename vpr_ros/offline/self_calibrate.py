"""
Calibrate a map that no drive has been held against, on drives that are simulated from itself.

How a fit is made from drives is in calibrate.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.calibration import DEFAULT_MODELS
from vpr_ros.maps.calibration import Mode
from vpr_ros.maps.calibration import SIMULATED
from vpr_ros.offline.calibrate import FEWEST
from vpr_ros.offline.calibrate import gather
from vpr_ros.offline.calibrate import KnownDrive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.maps.place_map import PlaceMap

# Simulated drives: by how many standard deviations places stand out, and how much that varies;
# how many other places a frame is mixed with; frames that share those; frames of a drive.
_LEVELS = (4.0, 3.0)
_SCATTER = 1.0

_CERTAINTY = 200.0
"""How much the defaults, which come of real drives, count for against simulated ones."""

_MIXED = 64
_STRETCH = 10
_LONGEST = 200
_MOST_PLACES = 20_000


def self_calibrated(place_map: PlaceMap, encoder: Encoder, *, modes: Iterable[Mode] = Mode,
              correct_radius: float = defaults.CORRECT_RADIUS,
              max_speed: float = defaults.MAX_SPEED, seed: int = 0) -> Calibration:
    """
    Return the calibration of a map that no drive has been held against yet.

    The map's own places, mixed with others until they stand out by 3 or 4 standard deviations as
    places do in another season, are driven through it, and through the map without that stretch;
    and each session through the others where there are several. This knows how alike the places
    of this map are; how hard drives are, and how much streets on no map look like mapped ones, the
    default models know, which it only shifts and stretches. Of a map of fewer than 30 places, or
    of places that are all alike, it says nothing: the defaults are returned.
    """
    runs = _simulated_drives(place_map, np.random.default_rng(seed))
    if not runs:
        return Calibration()
    found = {mode: gather(runs, encoder, Calibration(), mode, correct_radius, max_speed)
             for mode in modes}
    models = {mode: own.fit(DEFAULT_MODELS[mode], keep_shape=True, prior_weight=_CERTAINTY)
              for mode, own in found.items()}
    return Calibration(confidence=models, fitted_on=SIMULATED)


def expected(place_map: PlaceMap, encoder: Encoder, threshold: float, *,
             correct_radius: float = defaults.CORRECT_RADIUS,
             max_speed: float = defaults.MAX_SPEED, seed: int = 1) -> dict[str, float] | None:
    """
    Return what simulated drives would get of a map, by the map's own calibration.

    Without odometry: `published`, the share of frames on the map with a pose at `threshold`;
    `right`, the share of these that is; `off_map`, the share of frames off the map with a pose,
    if a stretch can be left out. None of a map too small to simulate drives on. How hard drives
    are is a guess.
    """
    runs = _simulated_drives(place_map, np.random.default_rng(seed))
    if not runs:
        return None
    calibration = place_map.manifest.calibration
    own = gather(runs, encoder, calibration, Mode.SEQUENCE, correct_radius, max_speed)
    model = calibration.confidence[Mode.SEQUENCE]
    given = model.confidence(own.probability, own.evidence) >= threshold
    off, right = given[~own.mapped], own.right[own.mapped & given]
    return {'published': float(given[own.mapped].mean()),
            'right': float(right.mean()) if len(right) else 1.0,
            **({'off_map': float(off.mean())} if len(off) else {})}


def _simulated_drives(place_map: PlaceMap, random: np.random.Generator
                ) -> list[tuple[PlaceMap, KnownDrive]]:
    runs: list[tuple[PlaceMap, KnownDrive]] = []
    for session in range(len(place_map.means)):
        own = np.flatnonzero(place_map.sessions == session)[:_MOST_PLACES]
        if len(own) < FEWEST:
            continue
        vectors = place_map.vectors(own)
        usual = float(np.std(vectors @ vectors[random.permutation(len(own))[:256]].T))
        if not usual > 1e-3:
            continue
        own_map = place_map.select(own)
        begin = int(random.integers(0, max(1, len(own) - _LONGEST + 1)))
        chosen = slice(begin, begin + _LONGEST)
        if len(runs) < len(_LEVELS):
            runs += [(own_map, _as_drive(
                place_map, own, session, _mixed(vectors, level, usual, random)).part(chosen))
                for level in _LEVELS]
        others = np.flatnonzero(place_map.sessions != session)[:_MOST_PLACES]
        if len(others) >= FEWEST and len(runs) < 3 * len(_LEVELS):
            runs.append((place_map.select(others),
                         _as_drive(place_map, own, session, vectors).part(chosen)))
    return runs


def _mixed(vectors: NDArray[np.float32], level: float, usual: float, random: np.random.Generator
           ) -> NDArray[np.float32]:
    """
    Return centred descriptors (N,D) that look like their places, and a little like others.

    Over a stretch the others keep their distance along the drive: what disturbs one frame disturbs
    the next, as do streets that are alike.
    """
    count = len(vectors)
    mixed = np.empty_like(vectors)
    for begin in range(0, count, _STRETCH):
        own = np.arange(begin, min(begin + _STRETCH, count))
        ahead = random.integers(count // 8 + 1, max(count // 8 + 2, count * 7 // 8), _MIXED)
        signs = random.choice([-1.0, 1.0], _MIXED)
        noise = np.tensordot(signs, vectors[(own + ahead[:, None]) % count], 1)
        noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-6)
        clear = np.clip((level + random.normal(0, _SCATTER)) * usual, 0.0, 0.98)
        mixed[own] = clear * vectors[own] + np.sqrt(1 - clear ** 2) * noise
    return mixed


def _as_drive(place_map: PlaceMap, places: NDArray[np.int64], session: int,
              centred: NDArray[np.float32]) -> KnownDrive:
    """Return a session's places as a drive: its mean put back, odometry with a wrong scale."""
    mean = place_map.means[session]
    rest = max(0.05, 1 - float(mean @ mean)) ** 0.5
    descriptors = mean + rest * centred
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    stamps, truth = place_map.stamps[places], place_map.poses[places]
    if not (np.diff(stamps) > 0).all():
        stamps = np.arange(len(places), dtype=np.int64) * 10**9
    odometry = truth.copy()
    odometry[:, :3] *= 1.01
    return KnownDrive('simulated', descriptors.astype(np.float32), stamps, truth, odometry)
