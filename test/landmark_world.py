"""A world of points that a camera sees without an image: what finds features knows the truth."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.camera import camera_pose
from vpr_ros.encoding.features import Features
from vpr_ros.localization.estimate import Candidates
from vpr_ros.localization.estimate import Estimate
from vpr_ros.maps.confidence import Mode
from vpr_ros.maps.landmarks import Landmarks
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.triangulate import Triangulator

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

    def limited(self, threads: int) -> World:
        """Return itself."""
        return self

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


def landmark_map(world: World, places: np.ndarray = DRIVE) -> PlaceMap:
    """Return a map of the places of a world, with landmarks."""
    triangulator = Triangulator(world, world.camera, world.mount)
    for number, pose in enumerate(places):
        triangulator.add(world.image(number), pose)
    vectors = np.eye(len(places), 32, dtype=np.float32)
    manifest = Manifest(ModelIdentity('ab' * 32, 'model.onnx', 32, 48, 64), (Session('w', 'x'),))
    return PlaceMap.build(vectors, np.arange(len(places)), places,
                          np.zeros(len(places), np.int32), manifest).with_landmarks(
        Landmarks.of(world.digest, *triangulator.finish('world')))


def estimate_at(pose: np.ndarray, stamp: int = 0, mode: Mode = Mode.SINGLE) -> Estimate:
    """Return the estimate of a place at a pose, of a standard deviation of a metre and a rad."""
    candidates = Candidates(np.zeros(1, np.int64), np.ones(1, np.float32), np.ones(1), pose[None])
    return Estimate(stamp, pose, np.eye(6), 0.99, candidates, 1.0, 1.0, mode)
