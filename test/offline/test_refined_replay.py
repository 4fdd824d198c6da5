"""Bags become maps with landmarks, and poses of a replay become those of the camera itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import logging
from pathlib import Path

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.core.camera import camera_pose
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import MapError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import Sift
from vpr_ros.io.bag import Bag
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.descriptors import encoded
from vpr_ros.offline.evaluate_drives import evaluate_replay
from vpr_ros.offline.replay import bag_refiner
from vpr_ros.offline.replay import replay
from vpr_ros.offline.replay import write_drive
from vpr_ros.offline.summary import summary
from vpr_ros.street import CAMERA_HEIGHT
from vpr_ros.street import drive
from vpr_ros.street import DriveFrame
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town
from vpr_ros.street.record import MOUNT
from vpr_ros.street.record import record

OPTIONS = DriveOptions(start=60.0, width=256, height=192, traffic=False)


def _frames(length: float, rate: float, offset: float) -> Iterator[DriveFrame]:
    return drive(Town(71), seed=round(rate), speed=8.0, rate=rate, lateral_offset=offset,
                 length=length, options=OPTIONS)


@pytest.fixture(scope='module')
def bags(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a bag to map from, and one of four frames a metre beside it."""
    folder = tmp_path_factory.mktemp('bags')
    record(folder / 'map.mcap', _frames(11, 8, 0.0))
    record(folder / 'drive.mcap', _frames(10, 3, 1.0), compressed=True)
    return folder / 'map.mcap', folder / 'drive.mcap'


@pytest.fixture(scope='module')
def place_map(bags: tuple[Path, Path], encoder: Encoder) -> PlaceMap:
    return build_map([open_source(bags[0])], encoder, self_calibrate=False, features=Sift())


def test_a_replay_refines_the_poses_of_places(bags: tuple[Path, Path], place_map: PlaceMap,
                                              encoder: Encoder, tmp_path: Path) -> None:
    place_map.save(tmp_path / 'map')
    place_map = PlaceMap.load(tmp_path / 'map', encoder)
    refiner = bag_refiner(bags[1], place_map)
    assert refiner is not None
    localizer = Localizer(encoder, place_map, min_confidence=0.0, use_filter=False)
    replayed = replay(bags[1], localizer, refiner=refiner)
    with Bag(bags[1]) as bag:
        truth = bag.poses('/ground_truth/pose')
    refined = np.array([estimate.refined for estimate in replayed.estimates])
    assert refined.sum() >= 3  # of a model that knows few places by their thumbnails
    error = poses.distance(replayed.poses, truth.poses)[refined]
    assert error.max() < 0.2

    write_drive(replayed, tmp_path / 'out', 'map')
    figures = summary(evaluate_replay(tmp_path / 'out', place_map, truth, min_confidence=0.0))
    told = figures['refined']
    assert told['share'] == refined.mean()
    assert told['after']['p50'] == pytest.approx(np.median(error), abs=1e-3)
    assert told['before']['p50'] > 0.9
    assert told['aside']['p50'] < 0.2
    assert told['inliers'] >= 20
    plain = replay(bags[1], Localizer(encoder, place_map, min_confidence=0.0, use_filter=False))
    for estimate, other in zip(replayed.estimates, plain.estimates, strict=True):
        np.testing.assert_array_equal(
            other.pose, estimate.place_pose if estimate.refined else estimate.pose)


def test_a_bag_says_where_its_camera_is(bags: tuple[Path, Path]) -> None:
    for path in bags:
        with Bag(path) as bag:
            np.testing.assert_allclose(bag.mount(bag.image_topic(), 'base_link'), MOUNT)
    np.testing.assert_allclose(MOUNT, camera_pose(0, 0, CAMERA_HEIGHT, 0, 0, 0))


def test_a_lens_that_changes_during_the_bag_is_followed(
        bags: tuple[Path, Path], place_map: PlaceMap, encoder: Encoder,
        caplog: pytest.LogCaptureFixture) -> None:
    refiner = bag_refiner(bags[1], place_map)
    assert refiner is not None
    camera = refiner.camera
    bad = replace(camera, k=())
    with Bag(bags[1]) as bag:
        topic = bag.image_topic()
        frames = list(bag.images_and_cameras(topic))
        assert [frame[:1] for frame in frames] == [(stamp,) for stamp, _ in bag.images(topic)]
        assert {frame[2] for frame in frames} == {camera}
        lenses = (camera, bad, bad, replace(camera, k=tuple(2 * each for each in camera.k)))
        changed = [(*frame[:2], lens) for frame, lens in zip(frames, lenses, strict=False)]
        views = [future.result().view
                 for _, future in encoded(changed, encoder, refiner=refiner)]
        told = [message for message in caplog.messages if 'not refined' in message]
    assert told == ['some poses are not refined: the camera has no known lens: its CameraInfo is '
                    'not calibrated (K is zero)']
    assert views[1] is views[2] is None
    assert views[0] is not None
    assert views[3] is not None
    assert views[3].noise == pytest.approx(views[0].noise / 2)


def test_uneven_ground_leaves_the_height_to_the_image(bags: tuple[Path, Path], place_map: PlaceMap
                                                      ) -> None:
    even, uneven = (bag_refiner(bags[1], place_map, uneven_ground=given)
                    for given in (False, True))
    assert even is not None
    assert even.flat
    assert uneven is not None
    assert not uneven.flat


def test_a_robot_without_its_camera_pose_gets_the_poses_of_places(
        bags: tuple[Path, Path], place_map: PlaceMap, caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch) -> None:
    with caplog.at_level(logging.INFO, 'vpr_ros'):
        monkeypatch.setattr(Bag, 'camera', lambda *_: None)
        assert bag_refiner(bags[1], place_map, mount=MOUNT) is None
    assert 'are those of places, not refined by the landmarks of the map: it has no CameraInfo' \
        in caplog.messages[-1]
    assert bag_refiner(bags[1], place_map.select(np.arange(3))) is None


def test_landmarks_of_other_features_are_refused(bags: tuple[Path, Path], place_map: PlaceMap,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sift, 'digest', 'cd' * 32)
    with pytest.raises(MapError, match="landmarks of the map are of the features 'sift'"):
        bag_refiner(bags[1], place_map)


def test_an_image_that_features_fail_on_is_a_place_still(
        bags: tuple[Path, Path], place_map: PlaceMap, encoder: Encoder,
        monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ImageError('no features')
    refiner = bag_refiner(bags[1], place_map)
    monkeypatch.setattr(Sift, 'extract', fail)
    drive = replay(bags[1], Localizer(encoder, place_map), refiner=refiner)
    assert drive.estimates
    assert not drive.dropped
    assert not any(estimate.refined for estimate in drive.estimates)
