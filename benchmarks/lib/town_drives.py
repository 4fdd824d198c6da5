"""Drives through synthetic towns as descriptors, and maps of them. Nothing is measured here."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

from benchmarks.lib.encoding import descriptors
import numpy as np
from vpr_ros.core import defaults
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.self_calibrate import self_calibrated
from vpr_ros.street import drive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.street import Town


class Frames(NamedTuple):
    """A drive of N frames: descriptors (N,D), stamps (N,) ns, true poses and odometry (N,7)."""

    descriptors: NDArray[np.float32]
    stamps: NDArray[np.int64]
    truth: NDArray[np.float64]
    odometry: NDArray[np.float64]


def town_drive(encoder: Encoder, town: Town, **options: Any) -> Frames:
    """Drive through a town with the options of `vpr_ros.street.drive`, and encode the frames."""
    known: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = []

    def images() -> Any:
        for frame in drive(town, **options):
            known.append((frame.stamp, frame.pose, frame.odometry))
            yield frame.image
    encoded = descriptors(encoder, images())
    return Frames(encoded, *(np.array(column) for column in zip(*known, strict=True)))


def town_map(encoder: Encoder, drives: Sequence[Frames]) -> PlaceMap:
    """Return the self-calibrated map of drives in winter, with a place for every frame."""
    manifest = Manifest(ModelIdentity.of(encoder), tuple(
        Session(f'winter {number}', 'winter') for number in range(len(drives))),
        spacing=defaults.SPACING)
    place_map = PlaceMap.build(
        np.concatenate([frames.descriptors for frames in drives]),
        np.concatenate([frames.stamps for frames in drives]),
        np.concatenate([frames.truth for frames in drives]),
        np.repeat(np.arange(len(drives), dtype=np.int32),
                  [len(frames.stamps) for frames in drives]),
        manifest)
    return place_map.calibrated(self_calibrated(place_map, encoder))
