"""
The piece of street on which the node is benchmarked.

A map of winter and a drive in spring, as in the demo, but short. Nothing is measured here.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.io.frames import Frame
from vpr_ros.io.frames import Source
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.street import camera_matrix
from vpr_ros.street import drive
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town
from vpr_ros.street.record import MOUNT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.street import DriveFrame

SEED = 7
SPEED = 6.0
_SIZE = DriveOptions().width, DriveOptions().height
_MATRIX = camera_matrix(*_SIZE)
CAMERA = Camera(*_SIZE, (_MATRIX[0, 0], _MATRIX[1, 1], _MATRIX[0, 2], _MATRIX[1, 2]))
"""The lens of the mapping drive, and by default that of the other."""

FAR = 1000.0
"""Metres between the street and the places that only make the map larger."""


def winter_map(encoder: Encoder, length: float, features: Extractor | None = None) -> PlaceMap:
    """Return a map of the first `length` metres, with a place every metre; perhaps landmarks."""
    frames = [Frame(frame.stamp, frame.pose, partial(_loaded, frame.image), str(frame.stamp))
              for frame in drive(Town(SEED), condition='winter', seed=1, speed=8.0, rate=8.0,
                                 length=length)]
    return build_map([nullcontext(Source('winter', frames, len(frames), camera=CAMERA,
                                         mount=lambda: MOUNT))], encoder,
                     conditions=['winter'], thumbnails=False, features=features)


def enlarged(small: PlaceMap, places: int) -> PlaceMap:
    """Return a map of `places` places: the others are far away, mixtures of those of `small`."""
    rng = np.random.default_rng(0)
    vectors, mean = small.vectors(np.arange(len(small))), small.means[0]
    mixed = rng.standard_normal((places - len(vectors), len(vectors)), np.float32) @ vectors
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    descriptors = mean + np.sqrt(1 - mean @ mean) * np.concatenate([vectors, mixed])
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    along = FAR + np.arange(len(mixed), dtype=np.float64)
    return PlaceMap.build(
        descriptors, np.arange(places) * 10**9,
        np.concatenate([small.poses, poses.planar(along, along, 0 * along)]),
        np.zeros(places, np.int32), small.manifest, projection=small.projection)


def spring_drive(length: float, rate: float, width: int = 320, height: int = 240
                 ) -> Iterator[DriveFrame]:
    """Return the frames of a drive along the same metres in spring, 1 m beside the first one."""
    return drive(Town(SEED), condition='spring', seed=2, speed=SPEED, rate=rate,
                 lateral_offset=1.0, length=length,
                 options=DriveOptions(width=width, height=height))


def _loaded(image: NDArray[np.uint8], min_size: tuple[int, int] | None = None
            ) -> NDArray[np.uint8]:
    return image
