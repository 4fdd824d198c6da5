"""Cameras: their views, and how much of them two share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from vpr_ros.core.camera import Camera
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
