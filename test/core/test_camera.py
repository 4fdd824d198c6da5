"""Cameras: their views, and how much of them two share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from vpr_ros.core.camera import Camera
from vpr_ros.core.camera import camera_pose
from vpr_ros.core.camera import overlap

LENS = (300.0, 300.0, 320.0, 240.0)
WHOLE = Camera(640, 480, LENS, 'plumb_bob', (0.0,) * 5)


@pytest.mark.parametrize('share', [1.0, 0.9, 0.6])
@pytest.mark.parametrize('scale', [1.0, 0.25])
def test_a_crop_shares_its_part_of_the_view_at_any_scale(share: float, scale: float) -> None:
    lens = (300 * scale, 300 * scale, 320 * share * scale, 240 * share * scale)
    crop = Camera(round(640 * share * scale), round(480 * share * scale), lens)
    assert overlap(WHOLE, crop) == overlap(crop, WHOLE) == pytest.approx(share, abs=0.01)


def test_a_crop_at_one_side_shares_less_than_its_width() -> None:
    right = Camera(320, 480, (300.0, 300.0, 0.0, 240.0))
    assert overlap(WHOLE, right) == pytest.approx(0.5)
    assert overlap(Camera(320, 480, (300.0, 300.0, 320.0, 240.0)), right) == 0


def test_without_a_lens_the_ratio_of_the_sides_is_compared() -> None:
    assert overlap(WHOLE, Camera(320, 240)) == 1
    assert overlap(Camera(1280, 720), WHOLE) == pytest.approx(0.75)
    assert overlap(WHOLE, Camera(480, 640)) == pytest.approx(0.5625)


def test_distortion_is_taken_into_account() -> None:
    barrel = Camera(640, 480, LENS, 'plumb_bob', (-0.25, 0.05, 0.0, 0.0, 0.0))
    assert overlap(WHOLE, barrel) < 0.9
    assert overlap(barrel, barrel) == 1
    assert math.isfinite(overlap(Camera(640, 480, LENS, 'equidistant', (0.1, 0.0, 0.0, 0.0)),
                                 WHOLE))


def test_a_camera_is_kept_as_plain_values() -> None:
    for camera in (WHOLE, Camera(3, 4)):
        assert Camera.from_dict(camera.as_dict()) == camera
    for wrong in ({}, {'width': 0, 'height': 4}, {'width': 3, 'height': 4, 'k': [1.0]},
                  {'width': 3, 'height': 4, 'k': [1, 1, 1, np.nan]}):
        with pytest.raises((KeyError, ValueError)):
            Camera.from_dict(wrong)


def test_a_camera_is_named_by_its_size_and_field_of_view() -> None:
    assert str(WHOLE) == '640x480, 94x77 degrees'
    assert str(Camera(640, 480)) == '640x480'


RATIONAL = Camera(640, 480, LENS, 'rational_polynomial',
                  (0.1, -0.02, 0.001, -0.001, 0.01, 0.05, -0.01, 0.002))
FISHEYE = Camera(640, 480, (280.0, 285.0, 322.0, 238.0), 'equidistant', (0.03, -0.01, 0.002, 0.0))


@pytest.mark.parametrize('camera', [
    WHOLE, RATIONAL, FISHEYE, Camera(640, 480, LENS),
    Camera(640, 480, LENS, 'plumb_bob', (-0.25, 0.05, 0.001, -0.002, 0.0))])
def test_points_are_projected_to_the_pixels_that_look_at_them(camera: Camera) -> None:
    across, down = np.meshgrid(np.linspace(5, 630, 9), np.linspace(5, 470, 7))
    pixels = np.stack([across.ravel(), down.ravel()], axis=1)
    rays = camera.rays(pixels)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)
    np.testing.assert_allclose(camera.project(7.5 * rays), pixels, atol=1e-3)
    half = camera.scaled(240, 320)
    np.testing.assert_allclose(half.rays((pixels + 0.5) / 2 - 0.5), rays, atol=1e-6)
    assert len(camera.rays(np.empty((0, 2)))) == len(camera.project(np.empty((0, 3)))) == 0


def test_what_a_camera_cannot_see_has_no_pixel() -> None:
    assert np.isnan(WHOLE.project(np.array([[0.0, 0.0, -1.0]]))).all()
    # 2 rad off the axis by the equidistant model: behind the camera
    assert np.isnan(FISHEYE.rays(np.array([[322.0 + 560, 238.0]]))).any()


@pytest.mark.parametrize(('camera', 'problem'), [
    (Camera(640, 480), 'its CameraInfo is not calibrated (K is zero)'),
    (Camera(640, 480, LENS, 'mei', (0.1,)), "its distortion model 'mei' is not known: it must be "
     'plumb_bob, rational_polynomial, equidistant, fisheye'),
    (Camera(640, 480, LENS, 'plumb_bob', (0.1,) * 3),
     'it has 3 coefficients of plumb_bob, not 4 or 5 or 8 or 12 or 14'),
    (Camera(640, 480, LENS, 'equidistant', (0.1,) * 5),
     'it has 5 coefficients of equidistant, not 4')])
def test_a_lens_that_is_not_known_is_named(camera: Camera, problem: str) -> None:
    assert camera.problem == problem
    with pytest.raises(ValueError, match='the camera has no known lens'):
        camera.rays(np.zeros((1, 2)))
    assert WHOLE.problem == ''


def test_the_pose_of_a_camera_is_that_of_its_body() -> None:
    def looks(*rpy: float) -> np.ndarray:
        return Rotation.from_quat(camera_pose(1, 2, 3, *rpy)[3:]).as_matrix().T
    right, down, ahead = looks(0, 0, 0)
    np.testing.assert_allclose([right, down, ahead], [[0, -1, 0], [0, 0, -1], [1, 0, 0]],
                               atol=1e-12)
    np.testing.assert_allclose(looks(0, 0, np.pi / 2)[2], [0, 1, 0], atol=1e-12)  # to the left
    assert looks(0, 0.1, 0)[2][2] < 0  # a positive pitch looks down
    np.testing.assert_array_equal(camera_pose(1, 2, 3, 0, 0, 0)[:3], [1, 2, 3])
