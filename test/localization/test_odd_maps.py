"""Maps and drives that are odd, but possible: never a confident pose that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder

    Floats = NDArray[np.float64]

NOW = 1_700_000_000_000_000_000
UTM = np.array([447_123.25, 5_411_987.75, 312.5])


class Drive(NamedTuple):
    """Views (N,D) of unit length along poses (N,7), at a rate in Hz."""

    views: NDArray[np.float32]
    truth: Floats
    rate: float = 5.0


class Result(NamedTuple):
    """How many frames there were, got a pose, and got one that is more than 5 m or 45 deg off."""

    frames: int
    published: int
    wrong: int


def views(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """Return random views of places, each like its neighbours, as along a street."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((count + 4, dimension))
    smooth = sum(raw[i:count + i] * weight for i, weight in enumerate((0.2, 0.6, 1.0, 0.6, 0.2)))
    return _unit(smooth)


def seen(places: NDArray[np.float32], noise: float = 0.4, seed: int = 9) -> NDArray[np.float32]:
    """Return the views of another day."""
    rng = np.random.default_rng(seed)
    return _unit(places + noise / np.sqrt(places.shape[1]) * rng.standard_normal(places.shape))


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def straight(count: int, step: float = 1.0, heading: float = 0.0) -> Floats:
    return poses.planar(np.arange(count) * step, 0.0, heading)


def build(encoder: Encoder, descriptors: NDArray[np.float32], where: Floats,
          sessions: NDArray[np.int32] | None = None) -> PlaceMap:
    sessions = np.zeros(len(where), np.int32) if sessions is None else sessions
    manifest = Manifest(ModelIdentity.of(encoder),
                        tuple(Session(str(i), 'day') for i in range(sessions.max() + 1)),
                        spacing=1.0)
    return PlaceMap.build(descriptors, NOW - 10 ** 12 + np.arange(len(where)) * 10 ** 8, where,
                          sessions, manifest)


def run(encoder: Encoder, place_map: PlaceMap, drive: Drive, *, odometry: bool = True) -> Result:
    localizer = Localizer(encoder, place_map)
    published = wrong = 0
    for number, (view, true) in enumerate(zip(drive.views, drive.truth, strict=True)):
        estimate = localizer.locate(view, NOW + int(number * 1e9 / drive.rate),
                                    true if odometry else None)
        assert np.isfinite(estimate.pose).all()
        assert np.linalg.eigvalsh(estimate.covariance).min() > 0
        assert 0 <= estimate.confidence <= 1
        if estimate.trusted:
            turn = 2 * np.arccos(min(1.0, abs(float(estimate.pose[3:] @ true[3:]))))
            off = float(np.linalg.norm(estimate.pose[:3] - true[:3]))
            published += 1
            wrong += off > 5 or turn > np.pi / 4
    return Result(len(drive.views), published, wrong)


def _one_place(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return a map of one place, which is passed on a street of sixty."""
    street = views(60, encoder.dimension)
    return build(encoder, street[30:31], straight(60)[30:31]), Drive(seen(street), straight(60))


def _two_places(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    street, along = views(60, encoder.dimension), straight(60)
    return build(encoder, street[[10, 50]], along[[10, 50]]), Drive(seen(street), along)


def _equal_places(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return a tunnel: forty places, 10 m apart, that look all the same."""
    tunnel = np.repeat(views(1, encoder.dimension), 40, axis=0)
    return build(encoder, tunnel, straight(40, 10)), Drive(seen(tunnel), straight(40, 10), 1.0)


def _twins(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return two streets, 500 m apart, that look the same."""
    street, along = views(40, encoder.dimension), straight(40)
    far = along + np.array([500, 0, 0, 0, 0, 0, 0])
    return (build(encoder, np.concatenate([street, street]), np.concatenate([along, far])),
            Drive(seen(street), far))


def _street(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    street = views(80, encoder.dimension)
    return build(encoder, street, straight(80)), Drive(seen(street), straight(80))


def _alternating(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return a street where every other frame is of a camera that looks elsewhere."""
    place_map, drive = _street(encoder)
    mixed = drive.views.copy()
    mixed[1::2] = views(80, encoder.dimension, seed=5)[1::2]
    return place_map, drive._replace(views=mixed)


def _backwards(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return a street driven in the opposite direction, where nothing looks as on the map."""
    place_map, _ = _street(encoder)
    return place_map, Drive(views(80, encoder.dimension, seed=6), straight(80, 1, np.pi)[::-1])


def _both_directions(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return a map of both directions of a street, a drive there and back."""
    there, back = (views(60, encoder.dimension, seed=seed) for seed in (1, 2))
    where = np.concatenate([straight(60), straight(60, 1, np.pi)[::-1]])
    both = np.concatenate([there, back])
    return (build(encoder, both, where, np.repeat([0, 1], 60).astype(np.int32)),
            Drive(seen(both), where))


def _loops(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return a map of two rounds of a loop, and a drive of two rounds more."""
    loop = views(60, encoder.dimension)
    angle = np.arange(60) / 60 * 2 * np.pi
    where = poses.planar(10 * np.cos(angle), 10 * np.sin(angle), angle + np.pi / 2)
    twice = np.concatenate([where, where])
    return (build(encoder, np.concatenate([loop, seen(loop, seed=3)]), twice),
            Drive(seen(np.concatenate([loop, loop])), twice))


def _slow_camera(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    place_map, drive = _street(encoder)
    return place_map, Drive(drive.views[::5], drive.truth[::5], 1.0)


def _fast_camera(encoder: Encoder) -> tuple[PlaceMap, Drive]:
    """Return a camera of 100 Hz on a robot of 5 m/s: twenty frames of each metre."""
    place_map, drive = _street(encoder)
    many = np.repeat(drive.views[:30], 20, axis=0)
    return place_map, Drive(seen(many, 0.05), straight(600, 1 / 20), 100.0)


# The least share of frames with a pose: where there is nothing to tell places apart, none need.
CASES = {_one_place: 0.0, _two_places: 0.0, _equal_places: 0.0, _twins: 0.0, _street: 0.7,
         _alternating: 0.0, _backwards: 0.0, _both_directions: 0.6, _loops: 0.7,
         _slow_camera: 0.2, _fast_camera: 0.4}


@pytest.mark.parametrize('odometry', [True, False], ids=['odometry', 'none'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.__name__[1:])
def test_no_confident_pose_is_wrong(encoder: Encoder, case: object, odometry: bool) -> None:
    result = run(encoder, *case(encoder), odometry=odometry)
    assert result.wrong == 0, result
    assert result.published >= CASES[case] * result.frames


def test_large_coordinates_change_nothing(encoder: Encoder) -> None:
    place_map, drive = _street(encoder)
    far = replace(place_map, poses=place_map.poses + np.append(UTM, np.zeros(4)))
    near, there = Localizer(encoder, place_map), Localizer(encoder, far)
    for number, (view, true) in enumerate(zip(drive.views, drive.truth, strict=True)):
        one, two = (localizer.locate(view, NOW + number * 200_000_000, true)
                    for localizer in (near, there))
        np.testing.assert_allclose(two.pose[:3] - UTM, one.pose[:3], atol=1e-3)
        np.testing.assert_allclose(two.covariance, one.covariance, rtol=1e-3, atol=1e-6)
        assert two.confidence == pytest.approx(one.confidence, abs=1e-6)
