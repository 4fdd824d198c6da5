"""The renderer: a scene through a pinhole camera, painted from far to near.

Every face is warped by its own homography into the rectangle that it covers on the screen
(Hartley and Zisserman, Multiple View Geometry, ch. 8). Weather and sensor are in sensor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street.faces import CORNERS
from vpr_ros.street.textures import Texture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.street.faces import Body
    from vpr_ros.street.faces import Sprite
    from vpr_ros.street.ground import Ground

CAMERA_HEIGHT = 1.4         # m above base_link
FIELD_OF_VIEW = 85.0        # degrees, horizontally
FAR = 150.0                 # m beyond which nothing but the ground is drawn
SKY_DEPTH = 250.0           # m, what haze and skyline take the sky to be
_NEAR = 0.25
_BANDS = (0.6, 3.0, 7.0, 15.0, 32.0, 70.0, 400.0)
_SHIFT = 3                  # sub-pixel bits of the polygons' corners


def camera_matrix(width: int, height: int) -> NDArray[np.float64]:
    """Return the pinhole matrix (3,3) in pixels; pixel centres have whole coordinates."""
    focal = 0.5 * width / math.tan(math.radians(FIELD_OF_VIEW) / 2)
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2],
                     [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class View:
    """Where the camera is: position (3,) in m, yaw, pitch (nose down) and roll in rad."""

    position: NDArray[np.float64]
    yaw: float
    pitch: float = 0.0
    roll: float = 0.0

    def rotation(self) -> NDArray[np.float64]:
        """Return (3,3) whose rows are the camera's right, down and forward in the map frame."""
        cy, sy = math.cos(self.yaw), math.sin(self.yaw)
        cp, sp = math.cos(self.pitch), math.sin(self.pitch)
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        right = np.array([sy, -cy, 0.0])
        forward = np.array([cy * cp, sy * cp, -sp])
        down = np.cross(forward, right)
        return np.stack([cr * right + sr * down, cr * down - sr * right, forward])


class _Pack:
    """Faces of many bodies as arrays."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        faces = [face for body in bodies for face in body.faces]
        counts = [len(body.faces) for body in bodies]
        self.first = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        self.centres = np.array([body.centre for body in bodies]).reshape(-1, 2)
        self.radii = np.array([body.radius for body in bodies])
        self.owner = np.repeat(np.arange(len(bodies)), counts)
        # Columns of the map from (a, b, 1) on the face to the map frame.
        self.frames = np.array([np.column_stack([face.right, face.down, face.origin])
                                for face in faces]).reshape(-1, 3, 3)
        self.normals = np.array([face.normal() for face in faces]).reshape(-1, 3)
        self.two_sided = np.array([face.two_sided for face in faces], bool)
        self.corners = np.ones((len(faces), CORNERS, 3))
        for index, face in enumerate(faces):
            self.corners[index, :len(face.corners), :2] = face.corners
            self.corners[index, len(face.corners):, :2] = face.corners[-1]
        self.counts = [len(face.corners) for face in faces]
        self.sizes = [face.size for face in faces]
        self.skins = [face.skin for face in faces]


class Renderer:
    """Renders frames of one scene; `image` and `depth` are valid until the next frame."""

    def __init__(self, bodies: Sequence[Body], sprites: Sequence[Sprite], ground: Ground,
                 sky: NDArray[np.uint8], size: tuple[int, int]) -> None:
        self.width, self.height = size
        self._matrix = camera_matrix(*size)
        self._static = _Pack(bodies)
        self._sprites = list(sprites)
        self._places = np.array([sprite.place for sprite in sprites]).reshape(-1, 3)
        self._extent = np.array([max(sprite.width, 0.5) for sprite in sprites])
        self._ground = ground
        self._sky = sky
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.depth = np.zeros((self.height, self.width), np.float32)
        self.ground_depth = np.zeros((self.height, self.width), np.float32)

    def render(self, view: View, moving: Sequence[Body] = ()) -> NDArray[np.uint8]:
        """Return the frame uint8 (H,W,3) RGB; `depth` (H,W) float32 holds metres forward."""
        rotation = view.rotation()
        projection = self._matrix @ rotation
        self._paint_sky(view)
        self._paint_ground(view, projection, rotation)
        np.copyto(self.ground_depth, self.depth)
        jobs: list[tuple[float, float, _Pack, int, NDArray, NDArray]] = []
        for pack in (self._static, _Pack(moving)) if moving else (self._static,):
            jobs += self._visible(pack, view, projection)
        jobs += self._standing(view, projection, rotation)
        jobs.sort(key=lambda job: (-job[0], -job[1]))
        for distance, _, source, index, matrix, corners in jobs:
            self._paint(source, index, matrix, corners, distance)
        return self.image

    def _in_sight(self, places: NDArray[np.float64], radii: NDArray[np.float64],
                  view: View) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the indices of the things that may be in the picture, and their distances."""
        offset = places[:, :2] - view.position[:2]
        forward = offset @ np.array([math.cos(view.yaw), math.sin(view.yaw)])
        side = np.abs(offset @ np.array([math.sin(view.yaw), -math.cos(view.yaw)]))
        half = math.radians(FIELD_OF_VIEW / 2 + 1.5)
        inside = (forward > -radii) & (forward < FAR) \
            & (side * math.cos(half) - forward * math.sin(half) < radii)
        index = np.flatnonzero(inside)
        return index, np.hypot(*offset[index].T)

    def _visible(self, pack: _Pack, view: View, projection: NDArray[np.float64]) -> list:
        bodies, distances = self._in_sight(pack.centres, pack.radii, view)
        if not len(bodies):
            return []
        faces = np.concatenate([np.arange(pack.first[b], pack.first[b + 1]) for b in bodies])
        far = np.repeat(distances, pack.first[bodies + 1] - pack.first[bodies])
        towards = view.position - pack.frames[faces, :, 2]
        seen = (np.einsum('ij,ij->i', towards, pack.normals[faces]) > 1e-6) | pack.two_sided[faces]
        faces, far = faces[seen], far[seen]
        frames = pack.frames[faces].copy()
        frames[:, :, 2] -= view.position
        matrices = projection @ frames
        corners = pack.corners[faces] @ matrices.transpose(0, 2, 1)
        mean = corners[:, :, 2].mean(axis=1)
        keep = corners[:, :, 2].max(axis=1) > _NEAR
        return [(far[i], mean[i], pack, int(faces[i]), matrices[i], corners[i])
                for i in np.flatnonzero(keep)]

    def _standing(self, view: View, projection: NDArray[np.float64],
                  rotation: NDArray[np.float64]) -> list:
        index, distances = self._in_sight(self._places, self._extent, view)
        jobs = []
        up = np.array([0.0, 0.0, 1.0])
        for i, distance in zip(index, distances):
            sprite = self._sprites[i]
            offset = sprite.place - view.position
            if rotation[2] @ offset < 0.8:
                continue
            across = np.array([offset[1], -offset[0], 0.0]) / max(distance, 1e-6)
            frame = np.column_stack([across, -up, offset - across * (sprite.width / 2)
                                     + up * sprite.height])
            matrix = projection @ frame
            w, h = sprite.width, sprite.height
            corners = np.array([(0, 0, 1), (w, 0, 1), (w, h, 1), (0, h, 1)], float) @ matrix.T
            jobs.append((distance, distance, sprite, -1, matrix, corners))
        return jobs

    def _paint(self, source: _Pack | Sprite, index: int, matrix: NDArray[np.float64],
               corners: NDArray[np.float64], distance: float) -> None:
        if isinstance(source, _Pack):
            skin, size = source.skins[index], source.sizes[index]
            corners = corners[:source.counts[index]]
        else:
            skin, size = source.texture, (source.width, source.height)
        clipped = corners[:, 2].min() < _NEAR
        if clipped:
            corners = _clip(corners)
            if len(corners) < 3:
                return
        outline = corners[:, :2] / corners[:, 2:]
        left, top = np.floor(outline.min(axis=0)).astype(int)
        right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 1
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, self.width), min(bottom, self.height)
        if right <= left or bottom <= top:
            return
        inner = np.clip((outline - (left, top)) * (1 << _SHIFT), -2e8, 2e8).round() \
            .astype(np.int32)
        target = self.image[top:bottom, left:right]
        depth = self.depth[top:bottom, left:right]
        if not isinstance(skin, Texture):
            cv2.fillConvexPoly(target, inner, skin, cv2.LINE_8, _SHIFT)
            cv2.fillConvexPoly(depth, inner, distance, cv2.LINE_8, _SHIFT)
            return
        if clipped:
            across = down = 1e6
        else:
            across, down = _extent(matrix, size)
        level = skin.at(across, down)
        warped = self._warp(level, matrix, size, left, top, right, bottom)
        mask = np.zeros(depth.shape, np.uint8)
        cv2.fillConvexPoly(mask, inner, 255, cv2.LINE_8, _SHIFT)
        if level.shape[2] == 4:
            cover = cv2.multiply(warped[..., 3], mask, scale=1 / 255)
            weight = cover.astype(np.float32) * (1 / 255)
            cv2.blendLinear(np.ascontiguousarray(warped[..., :3]), target.copy(), weight,
                            1 - weight, target)
            depth[cover > 127] = distance
        else:
            cv2.copyTo(warped, mask, target)
            depth[mask > 0] = distance

    def _warp(self, picture: NDArray[np.uint8], matrix: NDArray[np.float64],
              size: tuple[float, float], left: int, top: int, right: int, bottom: int
              ) -> NDArray[np.uint8]:
        sx, sy = size[0] / picture.shape[1], size[1] / picture.shape[0]
        texel = np.array([[sx, 0.0, 0.5 * sx], [0.0, sy, 0.5 * sy], [0.0, 0.0, 1.0]])
        shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        return cv2.warpPerspective(  # type: ignore[return-value]
            picture, shift @ matrix @ texel, (right - left, bottom - top),
            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def _paint_sky(self, view: View) -> None:
        height, width = self._sky.shape[:2]
        focal = self._matrix[0, 0]
        horizon = self._matrix[1, 2] - focal * math.tan(view.pitch)
        columns = view.yaw - np.arctan((np.arange(self.width) - self._matrix[0, 2]) / focal)
        across = (columns / (2 * math.pi) % 1.0 * width).astype(np.float32)
        rise = np.degrees(np.arctan((horizon - np.arange(self.height)) / focal))
        down = (205.0 - rise * (205.0 / 45.0)).clip(0, height - 1).astype(np.float32)
        cv2.remap(self._sky, np.broadcast_to(across, (self.height, self.width)),
                  np.broadcast_to(down[:, None], (self.height, self.width)), cv2.INTER_LINEAR,
                  self.image, cv2.BORDER_WRAP)
        self.depth[:] = SKY_DEPTH

    def _paint_ground(self, view: View, projection: NDArray[np.float64],
                      rotation: NDArray[np.float64]) -> None:
        ground = self._ground
        frame = np.column_stack([(1.0, 0.0, 0.0), (0.0, -1.0, 0.0),
                                 np.array([ground.left, ground.top, 0.0]) - view.position])
        matrix = projection @ frame
        ahead = np.array([math.cos(view.yaw), math.sin(view.yaw)])
        side = np.array([-ahead[1], ahead[0]])
        size = (ground.width, ground.height)
        full = ground.texture.at(1e9, 1e9)
        per_metre = full.shape[1] / ground.width
        for near, far in zip(_BANDS[-2::-1], _BANDS[:0:-1]):
            wide = far * 1.3 + 3.0
            spots = view.position[:2] + np.array([near * ahead + wide * side,
                                                  near * ahead - wide * side,
                                                  far * ahead - wide * side,
                                                  far * ahead + wide * side])
            plane = np.column_stack([spots[:, 0] - ground.left, ground.top - spots[:, 1],
                                     np.ones(4)])
            corners = _clip(plane @ matrix.T)
            if len(corners) < 3:
                continue
            outline = corners[:, :2] / corners[:, 2:]
            top = max(int(np.floor(outline[:, 1].min())), 0)
            bottom = min(int(np.ceil(outline[:, 1].max())) + 1, self.height)
            if bottom <= top:
                continue
            middle = math.sqrt(near * far)
            # The geometric mean of the scales across and along the line of sight.
            scale = self._matrix[0, 0] / middle * math.sqrt(CAMERA_HEIGHT / middle)
            level = ground.texture.at(full.shape[1] * scale / per_metre,
                                      full.shape[0] * scale / per_metre)
            warped = self._warp(level, matrix, size, 0, top, self.width, bottom)
            mask = np.zeros((bottom - top, self.width), np.uint8)
            inner = np.clip((outline - (0, top)) * (1 << _SHIFT), -2e8, 2e8).round() \
                .astype(np.int32)
            cv2.fillConvexPoly(mask, inner, 255, cv2.LINE_8, _SHIFT)
            cv2.copyTo(warped, mask, self.image[top:bottom])
            rows = np.arange(top, bottom) - self._matrix[1, 2]
            below = rows / self._matrix[0, 0] + math.tan(view.pitch)
            depth = (CAMERA_HEIGHT / np.maximum(below, 1e-3)).astype(np.float32)
            np.copyto(self.depth[top:bottom], np.minimum(depth, SKY_DEPTH)[:, None],
                      where=mask > 0)


def _clip(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut a polygon (K,3) in camera coordinates at the near plane (Sutherland and Hodgman)."""
    kept = []
    for index in range(len(corners)):
        here, then = corners[index], corners[(index + 1) % len(corners)]
        if here[2] >= _NEAR:
            kept.append(here)
        if (here[2] >= _NEAR) != (then[2] >= _NEAR):
            share = (_NEAR - here[2]) / (then[2] - here[2])
            kept.append(here + share * (then - here))
    return np.array(kept).reshape(-1, 3)


def _extent(matrix: NDArray[np.float64], size: tuple[float, float]) -> tuple[float, float]:
    """Return how many pixels a face covers across and down, on the average of its edges."""
    w, h = size
    corners = np.array([(0, 0, 1), (w, 0, 1), (w, h, 1), (0, h, 1)], float) @ matrix.T
    if corners[:, 2].min() < _NEAR:
        return 1e6, 1e6
    p = corners[:, :2] / corners[:, 2:]
    return (float(np.hypot(*(p[1] - p[0])) + np.hypot(*(p[2] - p[3]))) / 2,
            float(np.hypot(*(p[3] - p[0])) + np.hypot(*(p[2] - p[1]))) / 2)
