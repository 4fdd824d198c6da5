"""
Local features: keypoints of an image and their descriptors, by OpenCV's SIFT or a network.

A network is an ONNX file: `image`, uint8 (1,H,W,1) or (1,H,W,3) RGB, becomes `keypoints` (K,2) in
pixels, `scores` (K,) and `descriptors` (K,D) of unit norm, float32, perhaps with a leading axis
of 1. K and the size of the image may be fixed or not. A feature with a score of 0 is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import Protocol
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import ModelError
from vpr_ros.core.files import packaged
from vpr_ros.encoding.engines import cpu_session
from vpr_ros.encoding.model_file import check_model_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIFT = 'sift'
"""The name of OpenCV's SIFT, in the place of a network's file."""

MOST = 1500
"""Keypoints of an image: those with the best scores."""

_PROBE = 192
"""Pixels of the sides of an image that a network is tried with, if it leaves them open."""

_CONTRAST = 0.01
"""SIFT's threshold: a quarter of the usual one, for night and haze."""

_LARGEST = 1280
"""Pixels of the longer side to which larger images are shrunk, unless a network has its size."""

_SMALLEST = 8
"""Pixels of the shorter side, below which nothing is found."""

_OUTPUTS = ('keypoints', 'scores', 'descriptors')


class Features(NamedTuple):
    """
    Keypoints float64 (K,2) in pixels, scores float32 (K,), descriptors float32 (K,D).

    They were found in an image one of whose pixels is `pixel` of those.
    """

    keypoints: NDArray[np.float64]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    pixel: float = 1.0


class Extractor(Protocol):
    """What finds features: `digest` identifies it, `dimension` is D."""

    digest: str
    dimension: int

    def extract(self, rgb: NDArray[np.uint8]) -> Features:
        """Return the features of a uint8 (H,W,3) RGB image."""

    def limited(self, threads: int) -> Extractor:
        """Return what finds the same features with so many threads, if they are its own."""


class Sift:
    """
    OpenCV's SIFT, with the descriptors of RootSIFT (Arandjelovic and Zisserman 2012).

    They are upright: a robot's camera does not roll, and its images are then told apart better.
    """

    digest = SIFT
    dimension = 128

    def extract(self, rgb: NDArray[np.uint8]) -> Features:
        """Return the features of a uint8 (H,W,3) RGB image, in its own pixels; perhaps none."""
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        shrink = min(1.0, _LARGEST / max(grey.shape))
        if min(grey.shape) * shrink < _SMALLEST:
            return _none(self.dimension)
        if shrink < 1:
            grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        create: Any = cv2.SIFT_create  # type: ignore[attr-defined]
        sift = create(nfeatures=MOST, contrastThreshold=_CONTRAST)
        # A keypoint of two orientations is found twice.
        upright = list({(point.pt, point.size): point for point in sift.detect(grey)}.values())
        for point in upright:
            point.angle = 0.0
        upright, raw = sift.compute(grey, upright)
        if raw is None:
            return _none(self.dimension)
        share = raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-6)
        pixels = np.array([point.pt for point in upright])
        return Features((pixels + 0.5) / shrink - 0.5,
                        np.array([point.response for point in upright], np.float32),
                        np.sqrt(share, dtype=np.float32), 1 / shrink)

    def limited(self, threads: int) -> Sift:
        """Return itself: the threads are OpenCV's (cv2.setNumThreads)."""
        return self


class FeatureNetwork:
    """
    A network that finds features; `digest` is the SHA-256 of its file, `dimension` that D.

    Raises FileNotFoundError, and ModelError for a file that is none of this contract.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self._arguments = path, threads
        self.path = Path(path)
        self.digest = check_model_file(self.path)
        self._session = cpu_session(self.path, threads)
        inputs = [(each.name, each.type, len(each.shape)) for each in self._session.get_inputs()]
        outputs = {each.name for each in self._session.get_outputs()}
        if inputs != [('image', 'tensor(uint8)', 4)] or not outputs >= set(_OUTPUTS):
            raise ModelError(f'{self.path} finds no features: it takes {inputs} and gives '
                             f"{sorted(outputs)}, not uint8 'image' (1,H,W,C) and "
                             f'{", ".join(_OUTPUTS)}')
        _, *size, channels = self._session.get_inputs()[0].shape
        self._grey = channels == 1
        self.size = tuple(side if isinstance(side, int) else None for side in size)
        probe = np.random.default_rng(0).integers(
            0, 255, (*(side or _PROBE for side in self.size), 3), dtype=np.uint8)
        try:
            self.dimension = self.extract(probe).descriptors.shape[1]
        except ImageError as error:
            raise ModelError(f'{self.path} finds no features: {error}') from error

    def __reduce__(self) -> tuple[type[FeatureNetwork], tuple[str | Path, int]]:
        """Open the network again in another process: a session cannot be sent there."""
        return FeatureNetwork, self._arguments

    def limited(self, threads: int) -> FeatureNetwork:
        """Return this network with so many threads."""
        return FeatureNetwork(self.path, threads)

    def extract(self, rgb: NDArray[np.uint8]) -> Features:
        """
        Return the features of a uint8 (H,W,3) RGB image, in its own pixels.

        A network of fixed size sees it resized, one of any size only if it is large. Raises
        ImageError when the network does not run on it, or gives what is no features.
        """
        shrink = min(1.0, _LARGEST / max(rgb.shape))
        height, width = (own or max(1, round(shrink * side))
                         for own, side in zip(self.size, rgb.shape[:2], strict=True))
        if None in self.size and min(height, width) < _SMALLEST:
            return _none(self.dimension)
        image = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None] if self._grey else rgb
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            image = image.reshape(height, width, -1)
        try:
            found: Any = self._session.run(list(_OUTPUTS), {'image': image[None]})
        except Exception as error:
            raise ImageError(f'{self.path} does not run ({first_line(error)})') from error
        keypoints, scores, descriptors = (
            value[0] if value.ndim > rank and len(value) == 1 else value
            for value, rank in zip(found, (2, 1, 2), strict=True))
        count = len(scores)
        if keypoints.shape != (count, 2) or descriptors.ndim != 2 or len(descriptors) != count:
            raise ImageError(f'{self.path} gives {keypoints.shape} keypoints, {scores.shape} '
                             f'scores and {descriptors.shape} descriptors')
        if not (np.isfinite(keypoints).all() and np.isfinite(scores).all()
                and np.abs(np.linalg.norm(descriptors, axis=1) - 1).max(initial=0) < 1e-2):
            raise ImageError(f'{self.path} gives descriptors that are not of unit length')
        best = np.argsort(-scores, kind='stable')
        best = best[scores[best] != 0][:MOST]
        shrunk = np.array([width / rgb.shape[1], height / rgb.shape[0]])
        pixels = (keypoints[best].astype(np.float64) + 0.5) / shrunk - 0.5
        return Features(pixels, scores[best].astype(np.float32),
                        descriptors[best].astype(np.float32), max(1.0, 1 / shrunk.min()))


def bundled_features() -> Path:
    """Return the path of the network that comes with the package; else FileNotFoundError."""
    return packaged('models/local_features.onnx')


def open_features(name: str | Path | None = None, threads: int = 0, *, known: str = ''
                  ) -> Extractor:
    """
    Return what finds features: SIFT by its name, a network in a file, or the bundled one.

    `known` is the digest of what found a map's features: without a name it is SIFT where those
    are SIFT's.
    """
    name = name or (SIFT if known == SIFT else bundled_features())
    return Sift() if name == SIFT else FeatureNetwork(name, threads)


def _none(dimension: int) -> Features:
    return Features(np.empty((0, 2)), np.empty(0, np.float32),
                    np.empty((0, dimension), np.float32))
