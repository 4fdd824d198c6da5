"""
A small drive along a straight street, for tests: a random texture at each place, 1 m apart.

Written as a bag or a folder of images within milliseconds. The thumbnail model gives every place a
distinct descriptor.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.core import images
from vpr_ros.core import pose_files
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.io.sources import open_source
from vpr_ros.offline.build_map import build_map

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

START = 1_700_000_000_000_000_000
STEP = 200_000_000
COUNT = 40
HEIGHT, WIDTH = 60, 80
IMAGES, POSES = '/camera/image_raw', '/ground_truth/pose'
CAMERA_INFO = '/camera/camera_info'
FOCAL = 50.0


def stamp(place: int) -> int:
    """Return the stamp of the drive at a place, in ns."""
    return START + place * STEP


def pose(place: float) -> NDArray[np.float64]:
    """Return the robot's pose at a place, float64 (7,)."""
    return np.array([place, 0, 0, 0, 0, 0, 1], np.float64)


def render(place: int, noise: int = 0) -> NDArray[np.uint8]:
    """Return the image of a place, uint8 (H,W,3); each `noise` is a different drive past it."""
    blocks = np.random.default_rng(place).integers(40, 216, (6, 8, 3), np.uint8)
    scene = cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST).astype(np.int16)
    grain = np.random.default_rng([place, noise]).integers(-8, 9, scene.shape, np.int16)
    return (scene + grain).astype(np.uint8)


def camera_info(types: messages.Types, focal: float) -> Any:
    """Return the CameraInfo of a camera of a focal length in pixels."""
    return messages.camera_info(types, START, 'camera', np.array(
        [[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]]), WIDTH, HEIGHT)


def write_bag(path: Path, places: Iterable[int] = range(COUNT), *, noise: int = 0,
              compressed: bool = False, with_poses: bool = True, with_images: bool = True,
              frame_id: str = 'map', focal: float | None = None) -> Path:
    """Write the drive as a rosbag2, with a CameraInfo if `focal` is given; return its path."""
    image_message = messages.compressed_image if compressed else messages.image
    with BagWriter(path) as bag:
        if focal is not None:
            bag.write(CAMERA_INFO, camera_info(bag.types, focal), START)
        for place in places:
            if with_poses:
                bag.write(POSES, messages.pose_stamped(bag.types, stamp(place), frame_id,
                                                       pose(place)), stamp(place))
            if with_images:
                bag.write(IMAGES, image_message(bag.types, stamp(place), 'camera',
                                                render(place, noise)), stamp(place))
    return path


def write_folder(path: Path, places: Iterable[int] = range(COUNT), *, noise: int = 0,
                 pose_file: str = '') -> Path:
    """Write the images of the drive, and their poses if `pose_file` is poses.csv or poses.tum."""
    path.mkdir(parents=True)
    places = list(places)
    names = [f'{place:03d}.png' for place in places]
    if pose_file.endswith('.tum'):
        names = [f'{stamp(place) / 1e9:.1f}.png' for place in places]
        pose_files.write_tum(path / pose_file, np.array([stamp(place) for place in places]),
                             np.array([pose(place) for place in places]))
    elif pose_file:
        pose_files.write_csv(path / pose_file, names, np.array([pose(place) for place in places]))
    for name, place in zip(names, places, strict=True):
        cv2.imwrite(str(path / name), render(place, noise)[..., ::-1])
    return path


def write_map(path: Path, model: Path, places: Iterable[int] = range(COUNT)) -> Path:
    """Write a map of the drive, built with the model, and return its path."""
    bag = write_bag(path.with_name(f'{path.name}-drive'), places, focal=FOCAL)
    build_map([open_source(bag)], Encoder(model, 'cpu', 1)).save(path)
    return path


def write_damaged(path: Path) -> Path:
    """Write the first bytes of a JPEG file, which cannot be decoded."""
    path.write_bytes(images.encode_jpeg(render(0))[:40])
    return path
