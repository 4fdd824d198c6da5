"""
The renderer: a scene through a pinhole camera, painted from far to near.

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
_DOT = 16                   # screen pixels up to which a face is painted in one colour
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
        # Columns of the map from (a, b, 1) on the face to the map frame.
        self.frames = np.array([(face.right, face.down, face.origin)
                                for face in faces]).reshape(-1, 3, 3).transpose(0, 2, 1)
        self.normals = np.cross(self.frames[:, :, 1], self.frames[:, :, 0])
        self.two_sided = np.array([face.two_sided for face in faces], bool)
        self.outlines = np.array([(*face.corners,
                                   *[face.corners[-1]] * (CORNERS - len(face.corners)))
                                  for face in faces]).reshape(-1, CORNERS, 2)
        self.sizes = np.array([face.size for face in faces]).reshape(-1, 2)
        self.under = np.array([face.under for face in faces], bool)
        self.eaves = np.array([face.eaves for face in faces])
        self.skins = [face.skin for face in faces]


@dataclass
class _Batch:
    """Faces that may be in the picture: arrays over the faces, in camera coordinates."""

    far: NDArray[np.float64]        # (n,) m to the middle of the body
    mean: NDArray[np.float64]       # (n,) m forward to the middle of the face, or inf
    matrices: NDArray[np.float64]   # (n,3,3) from (a, b, 1) to the screen
    outlines: NDArray[np.float64]   # (n,CORNERS,2) on the face
    sizes: NDArray[np.float64]      # (n,2)
    eaves: NDArray[np.float64]      # (n,) b from which the face hides all behind it, or NaN
    skins: list[Texture | tuple[int, int, int]]


class Renderer:
    """Renders frames of one scene; `image` and `depth` are valid until the next frame."""

    def __init__(self, bodies: Sequence[Body], sprites: Sequence[Sprite], ground: Ground,
                 sky: NDArray[np.uint8], size: tuple[int, int]) -> None:
        self.width, self.height = size
        self._matrix = camera_matrix(*size)
        self._static = _Pack(bodies)
        self._sprites = list(sprites)
        self._places = np.array([sprite.place for sprite in sprites]).reshape(-1, 3)
        self._sprite_sizes = np.array([(sprite.width, sprite.height)
                                       for sprite in sprites]).reshape(-1, 2)
        self._ground = ground
        self._sky = sky
        self._texel = np.eye(3)
        self._shift = np.eye(3)
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.depth = np.zeros((self.height, self.width), np.float32)
        self.ground_depth = np.zeros((self.height, self.width), np.float32)

    def render(self, view: View, moving: Sequence[Body] = ()) -> NDArray[np.uint8]:
        """Return the frame uint8 (H,W,3) RGB; `depth` (H,W) float32 holds metres forward."""
        projection = self._matrix @ view.rotation()
        self._paint_sky(view)
        self._paint_ground(view, projection)
        np.copyto(self.ground_depth, self.depth)
        batches = [self._faces(self._static, view, projection), self._standing(view, projection)]
        if moving:
            batches.append(self._faces(_Pack(moving), view, projection))
        self._paint_all(batches)
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

    def _faces(self, pack: _Pack, view: View, projection: NDArray[np.float64]) -> _Batch:
        bodies, distances = self._in_sight(pack.centres, pack.radii, view)
        counts = pack.first[bodies + 1] - pack.first[bodies]
        faces = np.repeat(pack.first[bodies] - np.cumsum(counts) + counts, counts) \
            + np.arange(counts.sum())
        far = np.repeat(distances, counts)
        towards = view.position - pack.frames[faces, :, 2]
        seen = (np.einsum('ij,ij->i', towards, pack.normals[faces]) > 1e-6) | pack.two_sided[faces]
        faces, far = faces[seen], far[seen]
        frames = pack.frames[faces]
        frames[:, :, 2] -= view.position
        matrices = projection @ frames
        outlines = pack.outlines[faces]
        mean = (outlines.mean(axis=1) * matrices[:, 2, :2]).sum(axis=1) + matrices[:, 2, 2]
        mean = np.where(pack.under[faces], np.inf, mean)
        return _Batch(far, mean, matrices, outlines, pack.sizes[faces], pack.eaves[faces],
                      [pack.skins[face] for face in faces.tolist()])

    def _standing(self, view: View, projection: NDArray[np.float64]) -> _Batch:
        index, distances = self._in_sight(self._places, self._sprite_sizes[:, 0] + 0.5, view)
        offset = self._places[index] - view.position
        near = distances > 0.8
        index, distances, offset = index[near], distances[near], offset[near]
        w, h = self._sprite_sizes[index].T
        frames = np.zeros((len(index), 3, 3))
        frames[:, 0, 0] = offset[:, 1] / distances
        frames[:, 1, 0] = -offset[:, 0] / distances
        frames[:, 2, 1] = -1.0
        frames[:, :, 2] = offset - frames[:, :, 0] * (w / 2)[:, None]
        frames[:, 2, 2] += h
        zero = np.zeros_like(w)
        outlines = np.stack([np.column_stack(pair) for pair in
                             ((zero, zero), (w, zero), (w, h), (zero, h), (zero, h))], axis=1)
        return _Batch(distances, distances, projection @ frames, outlines,
                      self._sprite_sizes[index], np.full(len(index), np.nan),
                      [self._sprites[i].texture for i in index.tolist()])

    def _paint_all(self, batches: list[_Batch]) -> None:
        """Paint the faces that are not hidden, the far ones first."""
        far, mean, matrices, outlines, sizes, eaves = (
            np.concatenate([getattr(batch, name) for batch in batches])
            for name in ('far', 'mean', 'matrices', 'outlines', 'sizes', 'eaves'))
        skins = [skin for batch in batches for skin in batch.skins]
        homogeneous = outlines @ matrices[:, :, :2].transpose(0, 2, 1) \
            + matrices[:, None, :, 2]
        depths = homogeneous[..., 2]
        whole = depths.min(axis=1) > _NEAR
        screen = homogeneous[..., :2] / np.maximum(depths, _NEAR)[..., None]
        boxes = np.concatenate([np.floor(screen.min(axis=1)), np.ceil(screen.max(axis=1)) + 1],
                               axis=1)
        boxes[~whole] = (0, 0, self.width, self.height)
        boxes[:, :2] = np.maximum(boxes[:, :2], 0)
        boxes[:, 2:] = np.minimum(boxes[:, 2:], (self.width, self.height))
        extents = _extents(matrices, sizes)
        rim = _rims(matrices, sizes, eaves)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) \
            & (depths.max(axis=1) > _NEAR)
        order = np.lexsort((mean, far))
        skyline = _Skyline(self.width, self.height)
        shown = []
        for i in order[inside[order]].tolist():
            box = boxes[i]
            if whole[i] and skyline.hides(box[0], box[2], box[1]):
                continue
            shown.append(i)
            if whole[i] and rim[i, 0] == rim[i, 0]:
                skyline.add(*rim[i])
        corner_lists = ((screen - boxes[:, None, :2]) * (1 << _SHIFT)).clip(-2e8, 2e8).round() \
            .astype(np.int32)
        limits = boxes.astype(int).tolist()
        for i in reversed(shown):
            if whole[i]:
                self._paint(skins[i], sizes[i], matrices[i], corner_lists[i], limits[i],
                            extents[i], far[i])
                continue
            corners = _clip(homogeneous[i])
            if len(corners) < 3:
                continue
            outline = corners[:, :2] / corners[:, 2:]
            left, top = np.floor(outline.min(axis=0)).clip(0, 1 << 20).astype(int).tolist()
            right, bottom = np.ceil(outline.max(axis=0)).clip(-9, 1 << 20).astype(int).tolist()
            box = [left, top, min(right + 1, self.width), min(bottom + 1, self.height)]
            if box[2] > box[0] and box[3] > box[1]:
                inner = ((outline - box[:2]) * (1 << _SHIFT)).clip(-2e8, 2e8).round()
                self._paint(skins[i], sizes[i], matrices[i], inner.astype(np.int32), box,
                            np.array([1e6, 1e6]), far[i])

    def _paint(self, skin: Texture | tuple[int, int, int], size: NDArray[np.float64],
               matrix: NDArray[np.float64], corners: NDArray[np.int32], box: list[int],
               extent: NDArray[np.float64], distance: float) -> None:
        left, top, right, bottom = box
        target = self.image[top:bottom, left:right]
        depth = self.depth[top:bottom, left:right]
        if not isinstance(skin, Texture):
            cv2.fillConvexPoly(target, corners, skin, cv2.LINE_8, _SHIFT)
            cv2.fillConvexPoly(depth, corners, distance, cv2.LINE_8, _SHIFT)
            return
        level = skin.at(*extent.tolist())
        if level.shape[2] == 3 and (right - left) * (bottom - top) <= _DOT:
            red, green, blue = level[level.shape[0] // 2, level.shape[1] // 2].tolist()
            cv2.fillConvexPoly(target, corners, (red, green, blue), cv2.LINE_8, _SHIFT)
            cv2.fillConvexPoly(depth, corners, distance, cv2.LINE_8, _SHIFT)
            return
        warped = self._warp(level, matrix, size, left, top, right, bottom)
        mask = np.zeros(depth.shape, np.uint8)
        cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_8, _SHIFT)
        if level.shape[2] == 3:
            cv2.copyTo(warped, mask, target)
            cv2.fillConvexPoly(depth, corners, distance, cv2.LINE_8, _SHIFT)
            return
        cover = cv2.multiply(cv2.extractChannel(warped, 3), mask, scale=1 / 255)
        weight = cover.astype(np.float32) * np.float32(1 / 255)
        colour = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
        target[:] = cv2.blendLinear(colour, np.ascontiguousarray(target), weight, 1 - weight)
        np.copyto(depth, distance, where=cover > 127)

    def _warp(self, picture: NDArray[np.uint8], matrix: NDArray[np.float64],
              size: NDArray[np.float64] | tuple[float, float], left: int, top: int, right: int,
              bottom: int) -> NDArray[np.uint8]:
        texel, shift = self._texel, self._shift
        texel[0, 0], texel[1, 1] = size[0] / picture.shape[1], size[1] / picture.shape[0]
        texel[0, 2], texel[1, 2] = 0.5 * texel[0, 0], 0.5 * texel[1, 1]
        shift[0, 2], shift[1, 2] = -left, -top
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

    def _paint_ground(self, view: View, projection: NDArray[np.float64]) -> None:
        ground = self._ground
        frame = np.column_stack([(1.0, 0.0, 0.0), (0.0, -1.0, 0.0),
                                 np.array([ground.left, ground.top, 0.0]) - view.position])
        matrix = projection @ frame
        ahead = np.array([math.cos(view.yaw), math.sin(view.yaw)])
        side = np.array([-ahead[1], ahead[0]])
        size = (ground.width, ground.height)
        full = ground.texture.at(1e9, 1e9)
        per_metre = full.shape[1] / ground.width
        for near, far in zip(_BANDS[-2::-1], _BANDS[:0:-1], strict=True):
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


def _extents(matrices: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,2) how many pixels faces cover across and down, on the average of their edges."""
    w, h = sizes.T
    zero, one = np.zeros_like(w), np.ones_like(w)
    corners = np.stack([np.stack(spot, axis=1) for spot in
                        ((zero, zero, one), (w, zero, one), (w, h, one), (zero, h, one))], axis=1)
    points = corners @ matrices.transpose(0, 2, 1)
    p = points[..., :2] / np.maximum(points[..., 2:], _NEAR)
    edges = np.hypot(*np.moveaxis(p - np.roll(p, -1, axis=1), 2, 0))
    return np.stack([edges[:, 0] + edges[:, 2], edges[:, 1] + edges[:, 3]], axis=1) / 2


def _rims(matrices: NDArray[np.float64], sizes: NDArray[np.float64],
          eaves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,4) x, y, x, y on the screen of the line above which walls hide nothing."""
    ends = []
    for a in (np.zeros(len(sizes)), sizes[:, 0]):
        point = matrices[:, :, 0] * a[:, None] + matrices[:, :, 1] * eaves[:, None] \
            + matrices[:, :, 2]
        ends.append(point[:, :2] / np.maximum(point[:, 2:], _NEAR))
    return np.concatenate(ends, axis=1)


class _Skyline:
    """
    What the nearer walls hide: everything below a line, by columns of the screen.

    Walls stand on the ground, so of a thing that stands farther away they hide all but what
    reaches above them.
    """

    _BIN = 4

    def __init__(self, width: int, height: int) -> None:
        self._bins = -(-width // self._BIN)
        self._top = [float(height)] * self._bins
        self._count = 0

    def hides(self, left: float, right: float, top: float) -> bool:
        """Return whether nothing in columns `left` to `right` shows below row `top`."""
        first, last = int(left) // self._BIN, int(right - 1) // self._BIN
        return max(self._top[first:last + 1]) <= top

    def add(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Hide what is below the line from (x0, y0) to (x1, y1)."""
        if x1 < x0:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first = max(-int(-x0 // self._BIN), 0)
        last = min(int(x1 // self._BIN), self._bins)
        if last <= first:
            return
        slope = (y1 - y0) / (x1 - x0)
        tops = self._top
        here = y0 + slope * (first * self._BIN - x0)
        for index in range(first, last):
            there = here + slope * self._BIN
            # A row to spare, since outlines are rounded.
            line = (here if here > there else there) + 1.5
            if line < tops[index]:
                tops[index] = line
            here = there
