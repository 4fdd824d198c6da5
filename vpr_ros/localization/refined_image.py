"""A refined pose as an image: the landmarks that agree with it, here and at the map's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core import images
from vpr_ros.core import poses

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]


def refined_image(rgb: NDArray[np.uint8], keypoints: Floats, landmarks: Floats, pose: Floats, *,
                  place_map: PlaceMap, mount: Floats, height: int) -> NDArray[np.uint8]:
    """
    Return an image and its place's, `height` pixels high, with lines between their landmarks.

    `rgb` (H,W,3) is that of a refined `pose` (7,), and shows at `keypoints` (I,2) the `landmarks`
    (I,3). The place is the nearest that looks the same way; where in its image they are is
    computed for a camera at `mount` (7,) there, too. Without thumbnails or known cameras in the
    map, they are marked in `rgb` alone. Raises MapError for a damaged thumbnail.
    """
    turned = 1 - np.abs(place_map.poses[:, 3:] @ pose[3:])
    off = np.hypot(*(place_map.poses[:, :2] - pose[:2]).T)
    place = int((off + 100 * turned).argmin())
    view = place_map.thumbnail(place)
    camera = next((each for each in place_map.manifest.cameras if not each.problem), None)
    if view is None or camera is None:
        return images.joined_by_lines(rgb, None, keypoints, keypoints, height)
    there = seen_from(landmarks, place_map.poses[place], camera.scaled(*view.shape[:2]), mount)
    return images.joined_by_lines(rgb, view, keypoints, there, height)


def seen_from(points: Floats, pose: Floats, camera: Camera, mount: Floats) -> Floats:
    """
    Return where points (I,3) of the map are in the image from a robot's pose (7,), in pixels.

    The camera is at `mount` (7,) on the robot. (I,2), NaN for what is not ahead.
    """
    eye = poses.composed(pose, mount)
    local = Rotation.from_quat(eye[3:]).inv().apply(points - eye[:3])
    pixels = camera.project(local)
    # A lens may bend rays that are far outside of its view back into it.
    pixels[local[:, 2] <= np.abs(local[:, :2]).max(axis=1, initial=0) / 4] = np.nan
    return pixels
