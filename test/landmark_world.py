"""A world of points that a camera sees without an image: what finds features knows the truth."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.camera import camera_pose
from vpr_ros.encoding.features import Features

CAMERA = Camera(640, 480, (350.0, 350.0, 319.5, 239.5), 'plumb_bob', (0.0,) * 5)
FISHEYE = Camera(640, 480, (230.0, 230.0, 319.5, 239.5), 'equidistant', (0.02, -0.01, 0.0, 0.0))
MOUNT = camera_pose(0.3, -0.1, 1.4, 0.0, 0.05, 0.0)
DRIVE = poses.planar(np.arange(20.0), 0 * np.arange(20.0), 0.02 * np.arange(20.0))


class World:
    """
    Points along a street, each with a descriptor of its own, seen from poses by their number.

    An image is uint8 (H,W,3) whose first value is the number of a pose in `views`. A share `wrong`
    of the features has another point's descriptor. It is an Extractor.
    """

    digest, dimension = 'world', 32

    def __init__(self, views: np.ndarray = DRIVE, *, camera: Camera = CAMERA,
                 mount: np.ndarray = MOUNT, noise: float = 0.5, wrong: float = 0.2,
                 points: int = 500, seed: int = 0) -> None:
        rng = np.random.default_rng(0)
        side = rng.choice([-1.0, 1.0], points) * rng.uniform(4, 9, points)
        self.points = np.stack([rng.uniform(0, 50, points), side, rng.uniform(0, 8, points)], 1)
        raw = rng.standard_normal((points, self.dimension))
        self.descriptors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        self.views, self.camera, self.mount = views, camera, mount
        self.noise, self.wrong = noise, wrong
        self.rng = np.random.default_rng(seed)

    def image(self, number: int) -> np.ndarray:
        """Return the image of a view."""
        return np.full((self.camera.height, self.camera.width, 3), number, np.uint8)

    def extract(self, rgb: np.ndarray) -> Features:
        """Return the points that the view of an image has, with noise."""
        at = poses.composed(self.views[rgb[0, 0, 0]], self.mount)
        local = Rotation.from_quat(at[3:]).inv().apply(self.points - at[:3])
        pixels = self.camera.project(local)
        size = np.array([self.camera.width, self.camera.height])
        seen = np.flatnonzero((np.abs(pixels / size - 0.5) < 0.5).all(axis=1))
        pixels = pixels[seen] + self.rng.normal(0, self.noise, (len(seen), 2))
        known = seen.copy()
        mixed = self.rng.random(len(seen)) < self.wrong
        known[mixed] = self.rng.permutation(len(self.points))[:mixed.sum()]
        return Features(pixels, np.ones(len(seen), np.float32), self.descriptors[known])
