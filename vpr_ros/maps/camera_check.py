"""Whether images come from a camera like the map's: another lens or crop gives wrong poses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vpr_ros.core.camera import Camera
from vpr_ros.core.camera import overlap
from vpr_ros.core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

WARN_BELOW = 0.96
"""Overlap of the views (camera.overlap) below which fewer frames are localised."""

REFUSE_BELOW = 0.88
"""Overlap below which poses become wrong. Both measured: docs/maps.md has the table."""


def camera_of_images(told: Camera | None, size: tuple[int, int]) -> Camera:
    """
    Return the camera of images of a size (height, width): the one that a CameraInfo has told.

    Where there is none, or the images have another ratio (they were cropped after it), nothing is
    known but the size.
    """
    return told if told is not None and told.fits(*size) else Camera(size[1], size[0])


def _unknown_crop(camera: Camera, mapped: Camera) -> str:
    """Return that images may be cropped; '' for the map's size, half of it and so on."""
    halvings = math.log2(camera.width / mapped.width)
    if abs(halvings - round(halvings)) < 0.02:  # JPEGs are decoded at half their size
        return ''
    return (f'the images are {camera}, those of the map {mapped}: without CameraInfo of both, a '
            'crop is not told from a scaled image')


class CameraCheck:
    """
    Compares the camera of a drive with those of a map's sessions, `mapped`; one is enough.

    `camera` is what a CameraInfo says of the drive's camera, None while there is none. `warning`
    says what is different, '' if nothing is, and `refuses` whether that is too much: both after
    `check`, which is cheap to call for each frame.
    """

    def __init__(self, mapped: Sequence[Camera], camera: Camera | None = None) -> None:
        self.mapped = tuple(mapped)
        self.camera = camera
        self.warning = ''
        self.refuses = False
        self._compared: tuple[Camera | None, int, int] | None = None

    def check(self, height: int, width: int) -> None:
        """Compare the camera of images of a size; raise ImageError if it is too different."""
        compared = self.camera, height, width
        if self._compared != compared:
            self.warning = self.problem(camera_of_images(self.camera, (height, width)))
            self._compared = compared
        if self.refuses:
            raise ImageError(self.warning)

    def __str__(self) -> str:
        """Return the warning, or what is known of the camera."""
        if self.warning:
            return self.warning
        if self.camera is None or not any(mapped.k for mapped in self.mapped):
            which = 'the map' if self.camera is not None else 'this camera'
            return f'not compared: there is no CameraInfo of {which}'
        return 'like that of the map'

    def problem(self, camera: Camera) -> str:
        """Return how a camera differs from those of the map, '' if one of them is like it."""
        shared, nearest = max(((overlap(camera, mapped), mapped) for mapped in self.mapped),
                              key=lambda pair: pair[0], default=(1.0, camera))
        self.refuses = shared < REFUSE_BELOW
        if shared >= WARN_BELOW:
            return '' if camera.k and nearest.k else _unknown_crop(camera, nearest)
        limit = f', less than {REFUSE_BELOW:.0%}' if self.refuses else ''
        return (f"another lens or crop than the map's: this camera ({camera}) and that of the map "
                f'({nearest}) share {shared:.0%} of their width or height{limit}; use that camera '
                'and crop, or build the map again with this one')
