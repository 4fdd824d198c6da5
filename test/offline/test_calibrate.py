"""Fitting a map's confidence: to known drives, and to drives simulated on the map alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_drive import POSES
from small_drive import write_bag
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.errors import SourceError
from vpr_ros.core.metrics import calibration_error
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.confidence import ConfidenceModel
from vpr_ros.maps.confidence import Mode
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.calibrate import calibrate
from vpr_ros.offline.calibrate import read_drive
from vpr_ros.offline.calibrate import report
from vpr_ros.offline.calibration_examples import KnownDrive
from vpr_ros.offline.self_calibrate import self_calibrated

COUNT = 120


def site(encoder, descriptors, sessions=1):
    """Return a map of places a metre apart on a straight road, driven at 5 m/s."""
    count = len(descriptors)
    x = np.tile(np.arange(count // sessions), sessions).astype(float)
    manifest = Manifest(ModelIdentity.of(encoder), tuple(Session(str(n)) for n in range(sessions)),
                        spacing=1.0)
    return PlaceMap.build(descriptors, (x * 2e8).astype(np.int64), poses.planar(x, 0 * x, 0 * x),
                          np.repeat(np.arange(sessions, dtype=np.int32), count // sessions),
                          manifest)


def views(encoder, count=COUNT, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, encoder.dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def driven(place_map, descriptors, noise, seed=1):
    """Return a drive over the whole map, each frame as hard as `noise` says."""
    random = np.random.default_rng(seed)
    hard = descriptors + noise * random.normal(size=descriptors.shape) / descriptors.shape[1] ** .5
    hard = (hard / np.linalg.norm(hard, axis=1, keepdims=True)).astype(np.float32)
    odometry = place_map.poses.copy()
    odometry[:, 1] += 0.2
    truth = place_map.poses.copy()
    truth[:, 1] -= 0.6  # beside the track
    return KnownDrive('a drive', hard, place_map.stamps, truth, odometry)


@pytest.fixture(scope='module')
def fit(encoder):
    descriptors = views(encoder)
    place_map = site(encoder, descriptors)
    return calibrate(place_map, encoder, [driven(place_map, descriptors, 2.0)])


def test_a_calibration_names_what_it_was_fitted_on(fit):
    assert fit.calibration.fitted_on == f'a drive: {COUNT} frames'
    assert set(fit.examples) == {Mode.ODOMETRY, Mode.SEQUENCE, Mode.SINGLE}
    assert Calibration.from_dict(fit.calibration.as_dict()) == fit.calibration


def test_held_out_confidence_is_calibrated_and_poses_off_the_map_are_rare(fit):
    for mode in (Mode.ODOMETRY, Mode.SEQUENCE):
        assert fit.errors(mode)[1] < 0.12
        assert fit.false_accepts(mode, 0.95)[1] < 0.05


def test_frames_off_the_map_are_all_wrong(fit):
    for examples in fit.examples.values():
        assert not examples.right[~examples.mapped].any()
        assert examples.right[examples.mapped].any()
        assert (~examples.mapped).sum() > 20


def test_the_deviation_is_how_far_the_drive_was_beside_the_track(fit):
    ahead, aside, _ = fit.calibration.deviation
    assert aside == pytest.approx(((0.6 ** 2 + 0.8 ** 2) / 2) ** 0.5, abs=0.07)
    assert ahead < 0.6


def test_the_report_has_the_reliability_of_each_mode(fit):
    lines = list(report(fit))
    assert sum('calibration error' in line for line in lines) == 3
    assert any(line.startswith('  0.9 to 1.0') for line in lines)


def test_a_fit_holds_on_a_drive_that_it_was_not_made_on(encoder, fit):
    descriptors = views(encoder)
    place_map = site(encoder, descriptors)
    from vpr_ros.localization.localizer import Localizer
    localizer = Localizer(encoder, place_map.calibrated(fit.calibration))
    drive = driven(place_map, descriptors, 2.0, seed=9)
    sure, right, squares = [], [], []
    for descriptor, stamp, true, odometry in zip(drive.descriptors, drive.stamps, drive.truth,
                                                 drive.odometry, strict=True):
        estimate = localizer.locate(descriptor, int(stamp), odometry)
        sure.append(estimate.confidence)
        right.append(poses.distance(estimate.pose, true) <= 5)
        if right[-1] and sure[-1] > 0.9:
            error = estimate.pose[:2] - true[:2]
            squares.append(error @ np.linalg.solve(estimate.covariance[:2, :2], error))
    assert calibration_error(np.array(sure), np.array(right)) < 0.1
    assert 0.3 < np.mean(squares) / 2 < 2


def test_a_map_alone_is_self_calibrated_and_says_so(encoder):
    calibration = self_calibrated(site(encoder, views(encoder)), encoder)
    assert calibration.fitted_on == 'simulated drives on the map itself'
    for mode, model in calibration.confidence.items():
        assert model.probability > 0
        assert model.evidence > 0 or mode == Mode.SINGLE


def test_sessions_are_driven_against_each_other(encoder):
    one = views(encoder)
    other = one + 0.05 * views(encoder, seed=5)
    both = np.concatenate([one, other / np.linalg.norm(other, axis=1, keepdims=True)])
    calibration = self_calibrated(site(encoder, both.astype(np.float32), sessions=2), encoder,
                                  modes=(Mode.ODOMETRY,))
    assert calibration.fitted_on


def test_two_self_calibrations_agree(encoder):
    place_map = site(encoder, views(encoder))
    assert self_calibrated(place_map, encoder, modes=(Mode.SINGLE,)) == self_calibrated(
        place_map, encoder, modes=(Mode.SINGLE,))


@pytest.mark.parametrize(('count', 'alike'), [(1, False), (2, True), (29, False), (60, True)])
def test_a_map_without_information_keeps_the_defaults(encoder, count, alike):
    descriptors = views(encoder, count)
    if alike:
        descriptors = np.repeat(descriptors[:1], count, axis=0)
    assert self_calibrated(site(encoder, descriptors), encoder) == Calibration()


def test_a_drive_is_read_from_a_bag(tmp_path, encoder):
    drive = read_drive(write_bag(tmp_path / 'drive'), encoder, truth_topic=POSES)
    assert drive.descriptors.shape == (len(drive), encoder.dimension)
    assert np.isfinite(drive.truth).all()
    assert not drive.has_odometry


def test_a_drive_that_is_too_short_is_refused(tmp_path, encoder):
    bag = write_bag(tmp_path / 'short', range(12))
    with pytest.raises(SourceError, match=r'short: 12 frames have a true pose, at least 30'):
        read_drive(bag, encoder)


def test_a_drive_with_another_lens_than_the_maps_is_said_and_above_a_difference_refused(
        tmp_path, encoder, caplog):
    mapped = [Camera(80, 60, (50., 50., 40., 30.))]
    other = write_bag(tmp_path / 'other', range(30), focal=50 / 0.92)
    read_drive(other, encoder, cameras=mapped)
    assert "another lens or crop than the map's" in caplog.text
    third = write_bag(tmp_path / 'third', range(30), focal=50 / 0.8)
    with pytest.raises(SourceError, match=r'third has no usable frame: 30 frames .*another lens'):
        read_drive(third, encoder, cameras=mapped)


def test_a_drive_without_odometry_is_fitted_without(encoder):
    descriptors = views(encoder, 60)
    place_map = site(encoder, descriptors)
    drive = driven(place_map, descriptors, 1.0)
    fit = calibrate(place_map, encoder,
                    [replace(drive, odometry=np.full_like(drive.odometry, np.nan))])
    assert set(fit.examples) == {Mode.SEQUENCE, Mode.SINGLE}


def test_a_map_with_another_likelihood_is_fitted_again_and_compared_by_its_own(encoder):
    descriptors = views(encoder, 60)
    place_map = site(encoder, descriptors)
    drive = driven(place_map, descriptors, 1.5)
    other = Calibration(separation=1.5, outliers=0.2,
                        confidence={Mode.SEQUENCE: ConfidenceModel(weight=0.1)})
    plain = calibrate(place_map, encoder, [drive])
    fit = calibrate(place_map.calibrated(other), encoder, [drive])
    assert fit.calibration == plain.calibration
    localizer = Localizer(encoder, place_map.calibrated(other))
    expected = [localizer.locate(view, int(at)).confidence
                for view, at in zip(drive.descriptors, drive.stamps, strict=True)]
    # But for what driving without a new view takes off: next to nothing here.
    np.testing.assert_allclose(fit.before[Mode.SEQUENCE][:50], expected[10:], atol=1e-6)
    assert np.abs(plain.before[Mode.SEQUENCE][:50] - expected[10:]).max() > 0.01


def test_the_error_before_is_that_of_the_previous_poses(encoder):
    descriptors = views(encoder, 60)
    # So weak a likelihood that its poses are wrong, and it says so.
    weak = site(encoder, descriptors).calibrated(Calibration(
        separation=0.5, outliers=0.2,
        confidence={Mode.SEQUENCE: ConfidenceModel(weight=0.03)}))
    fit = calibrate(weak, encoder, [driven(weak, descriptors, 1.5)])
    old = fit.examples_before[Mode.SEQUENCE]
    now = fit.examples[Mode.SEQUENCE]
    assert old.right[old.mapped].mean() < 0.5 < now.right[old.mapped].mean()
    assert fit.errors(Mode.SEQUENCE)[0] == pytest.approx(calibration_error(
        fit.before[Mode.SEQUENCE][old.mapped], old.right[old.mapped]))
    assert fit.errors(Mode.SEQUENCE)[0] < 0.3
