"""
Cameras: the size of the image and the lens, and how much of one camera's view another has.

Pixel centres have whole coordinates, as in OpenCV, which does the mathematics of the lenses. The
axes of a camera are optical ones (REP-103): x to the right, y down, z ahead.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
import math
from typing import Any
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core import fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FISHEYE = ('equidistant', 'fisheye')
_LARGEST = 1_000_000  # of any number of a camera
_PINHOLE = ('plumb_bob', 'rational_polynomial')
_EXACT = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-10)
_OPTICAL = ((0, 0, 1), (-1, 0, 0), (0, -1, 0))  # the optical axes x, y, z of a body, as columns
_MISSED = 0.2  # pixels: where OpenCV's inversion of a lens ends elsewhere, it is outside of it


@dataclass(frozen=True)
class Camera:
    """
    A camera, as far as it is known: `width` and `height` in pixels, or at least their ratio.

    `k` is (fx, fy, cx, cy) in pixels, empty where there is no CameraInfo or it is not calibrated;
    `d` are the coefficients of `distortion_model`, a name of sensor_msgs/CameraInfo.
    """

    width: int
    height: int
    k: tuple[float, ...] = ()
    distortion_model: str = ''
    d: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, raw: Any) -> Camera:
        """Return a camera from `as_dict`; raise KeyError or ValueError if none."""
        raw = fields.mapping(raw, 'a camera', cls.__annotations__)
        k = fields.numbers(raw.get('k', ()), 'k', 4, _LARGEST)
        width, height = (fields.integer(raw[name], name, 1, _LARGEST)
                         for name in ('width', 'height'))
        if len(k) not in (0, 4) or not all(abs(focal) > 0 for focal in k[:2]):
            raise ValueError(f'k of a camera is {k}')
        return cls(width, height, k,
                   fields.text(raw.get('distortion_model', ''), 'distortion_model'),
                   fields.numbers(raw.get('d', ()), 'd', 14, _LARGEST))

    def as_dict(self) -> dict[str, Any]:
        """Return the camera as plain values."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self).items()}

    def fits(self, height: int, width: int) -> bool:
        """Return whether images of a size can be this camera's, perhaps scaled: by their ratio."""
        return abs(math.log(self.width * height / (self.height * width))) < 0.03

    def view(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """
        Return where its view begins and ends, to the right and downwards; None without `k`.

        In the lens's own measure, in which equal steps are equal numbers of pixels: tangents of
        the angles for a pinhole, the angles in rad for a fisheye.
        """
        if not self.k:
            return None
        fx, fy, cx, cy = self.k
        left, right, top, bottom = -cx / fx, (self.width - cx) / fx, -cy / fy, (
            self.height - cy) / fy
        if self.distortion_model in _PINHOLE and len(self.d) in (4, 5, 8, 12, 14):
            edges = np.array([[[left, 0]], [[right, 0]], [[0, top]], [[0, bottom]]])
            rays = cv2.undistortPoints(edges, np.eye(3), np.array(self.d))
            (left, right), (top, bottom) = rays[:2, 0, 0].tolist(), rays[2:, 0, 1].tolist()
        return (left, right), (top, bottom)

    @property
    def problem(self) -> str:
        """Return why the rays of pixels are not known, '' if they are."""
        if not self.k:
            return 'its CameraInfo is not calibrated (K is zero)'
        if self.distortion_model not in ('', *_FISHEYE, *_PINHOLE):
            return (f"its distortion model '{self.distortion_model}' is not known: it must be "
                    f'{", ".join((*_PINHOLE, *_FISHEYE))}')
        counts = (0, 4) if self.distortion_model in _FISHEYE else (0, 4, 5, 8, 12, 14)
        if len(self.d) not in counts:
            return (f'it has {len(self.d)} coefficients of {self.distortion_model or "distortion"}'
                    f', not {" or ".join(map(str, counts[1:]))}')
        return ''

    def scaled(self, height: int, width: int) -> Camera:
        """Return the camera of its images after a resize; the lens stays as it is."""
        if (self.height, self.width) == (height, width) or not self.k:
            return replace(self, height=height, width=width)
        fx, fy, cx, cy = self.k
        across, down = width / self.width, height / self.height
        return replace(self, width=width, height=height, k=(
            fx * across, fy * down, (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5))

    def rays(self, pixels: NDArray[Any]) -> Floats:
        """
        Return the unit vectors (N,3) along which pixels (N,2) look, in the camera's axes.

        NaN for pixels to which the lens brings no light from ahead. Raises ValueError where there
        is a `problem`.
        """
        matrix, coefficients = self._lens()
        if not len(pixels):
            return np.empty((0, 3))
        points = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
        if self.distortion_model in _FISHEYE:
            flat = cv2.fisheye.undistortPoints(points, matrix, coefficients)[:, 0]
        else:
            plain = np.eye(3)
            flat = cv2.undistortPointsIter(points, matrix, coefficients, plain, plain,
                                           _EXACT)[:, 0]
        rays = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        missed = np.linalg.norm(self.project(rays) - points[:, 0], axis=1)
        rays[~(missed < _MISSED)] = np.nan
        return np.asarray(rays)

    def project(self, points: Floats) -> Floats:
        """
        Return the pixels (N,2) of points (N,3) in the camera's axes; NaN for those behind it.

        Raises ValueError where there is a `problem`.
        """
        matrix, coefficients = self._lens()
        pixels = np.full((len(points), 2), np.nan)
        ahead = points[:, 2] > 0
        if ahead.any():
            shown, still = points[ahead].reshape(-1, 1, 3), np.zeros((3, 1))
            project: Any = (cv2.fisheye.projectPoints if self.distortion_model in _FISHEYE
                            else cv2.projectPoints)
            pixels[ahead] = project(shown, still, still, matrix, coefficients)[0].reshape(-1, 2)
        return pixels

    def _lens(self) -> tuple[Floats, Floats]:
        """Return its matrix (3,3) and its coefficients, as OpenCV takes them."""
        if self.problem:
            raise ValueError(f'the camera has no known lens: {self.problem}')
        fx, fy, cx, cy = self.k
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        return matrix, np.array(self.d or (0.0,) * 4)

    def __str__(self) -> str:
        """Return its size, and its field of view if that is known."""
        view = self.view()
        if view is None:
            return f'{self.width}x{self.height}'
        angles = np.array(view) if self.distortion_model in _FISHEYE else np.arctan(view)
        wide, high = np.degrees(angles[:, 1] - angles[:, 0])
        return f'{self.width}x{self.height}, {wide:.0f}x{high:.0f} degrees'


def camera_pose(x: float, y: float, z: float, roll: float, pitch: float, yaw: float) -> Floats:
    """
    Return the pose (7,) in optical axes of a camera that is placed on a robot as URDF would.

    x, y, z in metres; roll, pitch and yaw in rad about the robot's fixed axes, of the camera's
    body: x out of the lens, y left, z up. So zeros are a camera that looks straight ahead.
    """
    turn = Rotation.from_euler('xyz', (roll, pitch, yaw)) * Rotation.from_matrix(_OPTICAL)
    return np.concatenate([(x, y, z), turn.as_quat()])


def overlap(one: Camera, other: Camera) -> float:
    """
    Return the share of two cameras' views that both have, of all that either has, 0 to 1.

    The smaller one of those horizontally and vertically. Where the lens of one is not known, they
    are taken for equally wide: of images of different ratio, one is then cropped from the other.
    """
    a, b = one.view(), other.view()
    if a is None or b is None:
        ratio = one.width * other.height / (one.height * other.width)
        return min(ratio, 1 / ratio)
    return min(max(0.0, min(x[1], y[1]) - max(x[0], y[0])) / (max(x[1], y[1]) - min(x[0], y[0]))
               for x, y in zip(a, b, strict=True))
