"""
Which faces may be visible from a view, and where they lie in the image.

Arrays over all faces at once, since a town has thousands. Painting is in render.py.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.street.camera import FIELD_OF_VIEW
from vpr_ros.street.camera import NEAR
from vpr_ros.street.faces import CORNERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.street.camera import View
    from vpr_ros.street.faces import Body
    from vpr_ros.street.faces import Face
    from vpr_ros.street.faces import Material
    from vpr_ros.street.faces import Sprite

FAR = 150.0     # m beyond which nothing but the ground is drawn
_TOO_CLOSE = 0.8  # m within which a sprite is not drawn


@dataclass
class Candidates:
    """Faces in front of the camera: arrays over n faces, in coordinates of the image."""

    distance: NDArray[np.float64]   # (n,) m to the middle of the body
    depth: NDArray[np.float64]      # (n,) m forward to the middle of the face; inf: painted first
    matrices: NDArray[np.float64]   # (n,3,3) from (a, b, 1) on the face to the image
    outlines: NDArray[np.float64]   # (n,CORNERS,2) on the face
    sizes: NDArray[np.float64]      # (n,2)
    eaves: NDArray[np.float64]      # (n,) b from which the face hides all behind it, or NaN
    materials: list[Material]

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return the faces of all parts, in their order."""
        distance, depth, matrices, outlines, sizes, eaves = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ('distance', 'depth', 'matrices', 'outlines', 'sizes', 'eaves'))
        return cls(distance, depth, matrices, outlines, sizes, eaves,
                   [material for part in parts for material in part.materials])


class Projected:
    """
    Where n faces lie in an image of `size` (width, height), in pixels.

    `homogeneous` (n,CORNERS,3) are the corners before the division by their depth, `corners`
    (n,CORNERS,2) those after it, `whole` (n,) whether all of them are beyond the near plane,
    `boxes` (n,4) left, top, right and bottom of the pixels covered, the whole image for a face
    that is not whole, `visible` (n,) whether the box holds any pixel.
    """

    def __init__(self, faces: Candidates, size: tuple[int, int]) -> None:
        matrices = faces.matrices
        self.homogeneous = faces.outlines @ matrices[:, :, :2].transpose(0, 2, 1) \
            + matrices[:, None, :, 2]
        depths = self.homogeneous[..., 2]
        self.whole = depths.min(axis=1) > NEAR
        self.corners = self.homogeneous[..., :2] / np.maximum(depths, NEAR)[..., None]
        self.boxes = np.concatenate([np.floor(self.corners.min(axis=1)),
                                     np.ceil(self.corners.max(axis=1)) + 1], axis=1)
        self.boxes[~self.whole] = (0, 0, *size)
        self.boxes[:, :2] = np.maximum(self.boxes[:, :2], 0)
        self.boxes[:, 2:] = np.minimum(self.boxes[:, 2:], size)
        self.visible = (self.boxes[:, 2] > self.boxes[:, 0]) \
            & (self.boxes[:, 3] > self.boxes[:, 1]) & (depths.max(axis=1) > NEAR)


class FaceTable:
    """The faces of many bodies as arrays."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        faces = [face for body in bodies for face in body.faces]
        counts = [len(body.faces) for body in bodies]
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        self._centres = np.array([body.centre for body in bodies]).reshape(-1, 2)
        self._radii = np.array([body.radius for body in bodies])
        self._tabulate(faces)

    def _tabulate(self, faces: list[Face]) -> None:
        # Columns of the map from (a, b, 1) on the face to the map frame.
        self._frames = np.array([(face.right, face.down, face.origin)
                                 for face in faces]).reshape(-1, 3, 3).transpose(0, 2, 1)
        self._normals = np.cross(self._frames[:, :, 1], self._frames[:, :, 0])
        self._two_sided = np.array([face.two_sided for face in faces], bool)
        self._outlines = np.array([(*face.corners,
                                    *[face.corners[-1]] * (CORNERS - len(face.corners)))
                                   for face in faces]).reshape(-1, CORNERS, 2)
        self._sizes = np.array([face.size for face in faces]).reshape(-1, 2)
        self._painted_first = np.array([face.painted_first for face in faces], bool)
        self._eaves = np.array([face.eaves for face in faces])
        self._materials = [face.material for face in faces]

    def candidates(self, view: View, projection: NDArray[np.float64]) -> Candidates:
        """Return the faces that look towards the camera, of bodies in its field of view."""
        bodies, distances = _in_field_of_view(self._centres, self._radii, view)
        counts = self._first[bodies + 1] - self._first[bodies]
        faces = np.repeat(self._first[bodies] - np.cumsum(counts) + counts, counts) \
            + np.arange(counts.sum())
        distance = np.repeat(distances, counts)
        towards = view.position - self._frames[faces, :, 2]
        facing = (np.einsum('ij,ij->i', towards, self._normals[faces]) > 1e-6) \
            | self._two_sided[faces]
        faces, distance = faces[facing], distance[facing]
        frames = self._frames[faces]
        frames[:, :, 2] -= view.position
        matrices = projection @ frames
        outlines = self._outlines[faces]
        depth = (outlines.mean(axis=1) * matrices[:, 2, :2]).sum(axis=1) + matrices[:, 2, 2]
        depth = np.where(self._painted_first[faces], np.inf, depth)
        return Candidates(distance, depth, matrices, outlines, self._sizes[faces],
                          self._eaves[faces], [self._materials[face] for face in faces.tolist()])


class SpriteTable:
    """Many sprites as arrays."""

    def __init__(self, sprites: Sequence[Sprite]) -> None:
        self._textures = [sprite.texture for sprite in sprites]
        self._positions = np.array([sprite.position for sprite in sprites]).reshape(-1, 3)
        self._sizes = np.array([(sprite.width, sprite.height)
                                for sprite in sprites]).reshape(-1, 2)

    def candidates(self, view: View, projection: NDArray[np.float64]) -> Candidates:
        """Return the sprites in the field of view as faces turned to the camera."""
        index, distances = _in_field_of_view(self._positions, self._sizes[:, 0] + 0.5, view)
        offset = self._positions[index] - view.position
        far_enough = distances > _TOO_CLOSE
        index, distances, offset = index[far_enough], distances[far_enough], offset[far_enough]
        w, h = self._sizes[index].T
        frames = np.zeros((len(index), 3, 3))
        frames[:, 0, 0] = offset[:, 1] / distances
        frames[:, 1, 0] = -offset[:, 0] / distances
        frames[:, 2, 1] = -1.0
        frames[:, :, 2] = offset - frames[:, :, 0] * (w / 2)[:, None]
        frames[:, 2, 2] += h
        zero = np.zeros_like(w)
        outlines = np.stack([np.column_stack(pair) for pair in
                             ((zero, zero), (w, zero), (w, h), (zero, h), (zero, h))], axis=1)
        return Candidates(distances, distances, projection @ frames, outlines, self._sizes[index],
                          np.full(len(index), np.nan), [self._textures[i] for i in index.tolist()])


def _in_field_of_view(positions: NDArray[np.float64], radii: NDArray[np.float64], view: View
                      ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the indices of the things that may be in the image, and their distances in m."""
    offset = positions[:, :2] - view.position[:2]
    forward = offset @ np.array([math.cos(view.yaw), math.sin(view.yaw)])
    side = np.abs(offset @ np.array([math.sin(view.yaw), -math.cos(view.yaw)]))
    half = math.radians(FIELD_OF_VIEW / 2 + 1.5)
    inside = (forward > -radii) & (forward < FAR) \
        & (side * math.cos(half) - forward * math.sin(half) < radii)
    index = np.flatnonzero(inside)
    return index, np.hypot(*offset[index].T)


def extents(faces: Candidates) -> NDArray[np.float64]:
    """Return (n,2) how many pixels faces cover across and down, on the average of their edges."""
    w, h = faces.sizes.T
    zero, one = np.zeros_like(w), np.ones_like(w)
    corners = np.stack([np.stack(corner, axis=1) for corner in
                        ((zero, zero, one), (w, zero, one), (w, h, one), (zero, h, one))], axis=1)
    points = corners @ faces.matrices.transpose(0, 2, 1)
    pixels = points[..., :2] / np.maximum(points[..., 2:], NEAR)
    edges = np.hypot(*np.moveaxis(pixels - np.roll(pixels, -1, axis=1), 2, 0))
    return np.stack([edges[:, 0] + edges[:, 2], edges[:, 1] + edges[:, 3]], axis=1) / 2


def eave_lines(faces: Candidates) -> NDArray[np.float64]:
    """
    Return (n,4) x, y, x, y in pixels of the line below which a face hides all behind it.

    NaN for a face without eaves.
    """
    matrices, ends = faces.matrices, []
    for a in (np.zeros(len(faces.sizes)), faces.sizes[:, 0]):
        point = matrices[:, :, 0] * a[:, None] + matrices[:, :, 1] * faces.eaves[:, None] \
            + matrices[:, :, 2]
        ends.append(point[:, :2] / np.maximum(point[:, 2:], NEAR))
    return np.concatenate(ends, axis=1)
