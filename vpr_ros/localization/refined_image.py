"""A refined pose as an image: the landmarks that agree with it, here and at the place of the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core import images
from vpr_ros.core import poses

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]


def refined_image(rgb: NDArray[np.uint8], estimate: Estimate, place_map: PlaceMap, mount: Floats,
                  height: int) -> NDArray[np.uint8]:
    """
    Return an image and its place's, `height` pixels high, with lines between their landmarks.

    `rgb` (H,W,3) is that of a refined `estimate`. The place is the nearest that looks the same
    way; where in its image the landmarks are is computed for a camera at `mount` (7,) there, too.
    Without thumbnails or known cameras in the map, the landmarks are marked in the image alone.
    Raises MapError for a damaged thumbnail.
    """
    assert estimate.landmarks is not None
    assert estimate.keypoints is not None
    turned = 1 - np.abs(place_map.poses[:, 3:] @ estimate.pose[3:])
    off = np.hypot(*(place_map.poses[:, :2] - estimate.pose[:2]).T)
    place = int((off + 100 * turned).argmin())
    view = place_map.thumbnail(place)
    camera = next((each for each in place_map.manifest.cameras if not each.problem), None)
    if view is None or camera is None:
        return images.joined_by_lines(rgb, None, estimate.keypoints, estimate.keypoints, height)
    eye = poses.composed(place_map.poses[place], mount)
    seen = Rotation.from_quat(eye[3:]).inv().apply(estimate.landmarks - eye[:3])
    return images.joined_by_lines(rgb, view, estimate.keypoints,
                                  _pixels(camera.scaled(*view.shape[:2]), seen), height)


def _pixels(camera: Camera, points: Floats) -> Floats:
    """Return where a camera has points (I,3) of its axes, (I,2); NaN outside of its lens."""
    pixels = camera.project(points)
    # A lens may bend rays that are far outside of its view back into it.
    ahead = points[:, 2] > np.abs(points[:, :2]).max(axis=1, initial=0) / 4
    pixels[~ahead] = np.nan
    return pixels
