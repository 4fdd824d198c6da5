"""A refined pose as an image: lines go between the same landmark here and at its place."""

from __future__ import annotations

from dataclasses import replace
import hashlib

from landmark_world import DRIVE
from landmark_world import landmark_map
from landmark_world import World
import numpy as np
from vpr_ros.core import images
from vpr_ros.localization.refined_image import refined_image
from vpr_ros.localization.refined_image import seen_from


def test_landmarks_are_joined_with_where_the_place_has_them() -> None:
    world = World()
    grey = np.full((480, 640, 3), 90, np.uint8)
    plain = landmark_map(world)
    ahead = np.array([[20.0, 5.0, 3.0], [20.0, -5.0, 3.0], [-20.0, 0.0, 3.0]])
    keypoints = seen_from(ahead, DRIVE[4], world.camera, world.mount)
    assert np.isfinite(keypoints[:2]).all()
    assert np.isnan(keypoints[2]).all()

    def drawn(place_map, points=keypoints[:2], landmarks=ahead[:2]):
        return refined_image(grey, points, landmarks, DRIVE[4], place_map=place_map,
                             mount=world.mount, height=480)
    alone = drawn(plain)
    assert alone.shape == (480, 640, 3)
    jpeg = images.encode_jpeg(grey)
    digests = np.tile(np.frombuffer(hashlib.sha256(jpeg).digest(), np.uint8), (len(plain), 1))
    mapped = replace(plain, thumbnails=[jpeg] * len(plain), thumbnail_digests=digests,
                     manifest=replace(plain.manifest, cameras=(world.camera,)))
    both = drawn(mapped)
    assert both.shape == (480, 1280, 3)
    for canvas, left in ((alone, 0), (both, 0), (both, 640)):
        for column, row in np.rint(keypoints[:2]).astype(int):
            mark = canvas[row, column + left].astype(int)
            assert mark[1] > mark[0] + 90
    middle = both[:, 640].astype(int)  # the lines cross the border
    assert (middle[:, 2] > middle[:, 0] + 60).sum() >= 2
    behind = drawn(mapped, keypoints[:1], ahead[2:])
    assert (behind[:, 660:].astype(int).std(axis=(0, 1)) < 5).all()
