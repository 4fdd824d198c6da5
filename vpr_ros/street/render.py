"""
The renderer: a scene through a pinhole camera, painted from far to near.

Every face is warped by its own homography into the rectangle that it covers in the image
(Hartley and Zisserman, Multiple View Geometry, ch. 8). Weather and sensor are in sensor.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street.camera import CAMERA_HEIGHT
from vpr_ros.street.camera import camera_matrix
from vpr_ros.street.camera import clip_near
from vpr_ros.street.occlusion import Skyline
from vpr_ros.street.projection import Candidates
from vpr_ros.street.projection import eave_lines
from vpr_ros.street.projection import extents
from vpr_ros.street.projection import FaceTable
from vpr_ros.street.projection import Projected
from vpr_ros.street.projection import SpriteTable
from vpr_ros.street.textures import Texture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.street.camera import View
    from vpr_ros.street.faces import Body
    from vpr_ros.street.faces import Sprite
    from vpr_ros.street.ground import Ground

    Box = tuple[int, int, int, int]
    """Left, top, right and bottom in pixels; right and bottom are the first ones outside."""

SKY_DEPTH = 250.0           # m, the depth of the sky, for the haze
_BANDS = (0.6, 3.0, 7.0, 15.0, 32.0, 70.0, 400.0)   # m ahead: bounds of strips of the ground
_SMALL = 16                 # pixels up to which a face is painted in one colour
_SHIFT = 3                  # sub-pixel bits of the polygons' corners


class Renderer:
    """
    Renders frames of one scene; `image` and `depth` are valid until the next frame.

    `depth` (H,W) is that of a face's middle, for the haze. `nearness` (H,W) is exact: 1/m along
    the optical axis, 0 for the sky; None unless it is asked for.
    """

    def __init__(self, bodies: Sequence[Body], sprites: Sequence[Sprite], ground: Ground,
                 sky: NDArray[np.uint8], size: tuple[int, int], *, exact: bool = False) -> None:
        self.width, self.height = size
        self._matrix = camera_matrix(*size)
        self._bodies = FaceTable(bodies)
        self._sprites = SpriteTable(sprites)
        self._ground = ground
        self._sky = sky
        self._texel = np.eye(3)
        self._shift = np.eye(3)
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.depth = np.zeros((self.height, self.width), np.float32)
        self.ground_depth = np.zeros((self.height, self.width), np.float32)
        self.nearness = np.zeros_like(self.depth) if exact else None

    def render(self, view: View, moving: Sequence[Body] = ()) -> NDArray[np.uint8]:
        """Return the frame uint8 (H,W,3) RGB; `depth` (H,W) float32 holds metres forward."""
        projection = self._matrix @ view.rotation()
        self._paint_sky(view)
        if self.nearness is not None:
            self.nearness[:] = 0
        self._paint_ground(view, projection)
        np.copyto(self.ground_depth, self.depth)
        parts = [self._bodies.candidates(view, projection),
                 self._sprites.candidates(view, projection)]
        if moving:
            parts.append(FaceTable(moving).candidates(view, projection))
        self._paint_faces(Candidates.joined(parts))
        return self.image

    def _paint_faces(self, faces: Candidates) -> None:
        """Paint the faces that are not hidden, the far ones first."""
        projected = Projected(faces, (self.width, self.height))
        sizes = extents(faces)
        corners = _fixed_point(projected.corners - projected.boxes[:, None, :2])
        boxes = projected.boxes.astype(int).tolist()
        for i in reversed(self._not_hidden(faces, projected)):
            if projected.whole[i]:
                self._paint(faces, i, corners[i], boxes[i], sizes[i])
            else:
                self._paint_clipped(faces, i, projected.homogeneous[i])

    def _not_hidden(self, faces: Candidates, projected: Projected) -> list[int]:
        """Return the faces that the skyline of the nearer ones does not hide, near ones first."""
        eaves = eave_lines(faces)
        order = np.lexsort((faces.depth, faces.distance))
        skyline = Skyline(self.width, self.height)
        shown = []
        for i in order[projected.visible[order]].tolist():
            box = projected.boxes[i]
            if projected.whole[i] and skyline.hides(box[0], box[2], box[1]):
                continue
            shown.append(i)
            if projected.whole[i] and eaves[i, 0] == eaves[i, 0]:    # not NaN
                skyline.add(*eaves[i])
        return shown

    def _paint_clipped(self, faces: Candidates, i: int, homogeneous: NDArray[np.float64]) -> None:
        """Paint a face that reaches behind the camera."""
        corners = clip_near(homogeneous)
        if len(corners) < 3:
            return
        outline = corners[:, :2] / corners[:, 2:]
        left, top = np.floor(outline.min(axis=0)).clip(0, 1 << 20).astype(int).tolist()
        right, bottom = np.ceil(outline.max(axis=0)).clip(-9, 1 << 20).astype(int).tolist()
        box = (left, top, min(right + 1, self.width), min(bottom + 1, self.height))
        if box[2] > left and box[3] > top:
            self._paint(faces, i, _fixed_point(outline - box[:2]), box, np.array([1e6, 1e6]))

    def _paint(self, faces: Candidates, i: int, corners: NDArray[np.int32], box: Box,
               extent: NDArray[np.float64]) -> None:
        """Paint face i into its box; `extent` (2,) is the size of all its texture in pixels."""
        left, top, right, bottom = box
        target = self.image[top:bottom, left:right]
        depth = self.depth[top:bottom, left:right]
        material, distance = faces.materials[i], float(faces.distance[i])
        if not isinstance(material, Texture):
            self._place(faces.matrices[i], corners, box)
            self._fill(target, depth, corners, material, distance)
            return
        texture = material.at(*extent.tolist())
        opaque = texture.shape[2] == 3
        if opaque:
            self._place(faces.matrices[i], corners, box)
        if opaque and (right - left) * (bottom - top) <= _SMALL:
            red, green, blue = texture[texture.shape[0] // 2, texture.shape[1] // 2].tolist()
            self._fill(target, depth, corners, (red, green, blue), distance)
            return
        warped = self._warp(texture, faces.matrices[i], faces.sizes[i], box)
        mask = np.zeros(depth.shape, np.uint8)
        cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_8, _SHIFT)
        if opaque:
            cv2.copyTo(warped, mask, target)
            cv2.fillConvexPoly(depth, corners, distance, cv2.LINE_8, _SHIFT)
            return
        alpha = cv2.multiply(cv2.extractChannel(warped, 3), mask, scale=1 / 255)
        weight = alpha.astype(np.float32) * np.float32(1 / 255)
        colour = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
        target[:] = cv2.blendLinear(colour, np.ascontiguousarray(target), weight, 1 - weight)
        np.copyto(depth, distance, where=alpha > 127)
        self._place(faces.matrices[i], corners, box, alpha > 127)

    def _place(self, matrix: NDArray[np.float64], corners: NDArray[np.int32], box: Box,
               where: NDArray[np.bool_] | None = None) -> None:
        """Note how near the plane is that is mapped into the image by `matrix`."""
        if self.nearness is None:
            return
        left, top, right, bottom = box
        if where is None:
            mask = np.zeros((bottom - top, right - left), np.uint8)
            cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_8, _SHIFT)
            where = mask > 0
        # The third row of the inverse: it takes a pixel to 1 / depth.
        row = np.cross(matrix[:, 0], matrix[:, 1])
        volume = row @ matrix[:, 2]
        if abs(volume) < 1e-12:     # seen edge-on
            return
        u, v, one = row / volume
        plane = (u * np.arange(left, right))[None] + (v * np.arange(top, bottom) + one)[:, None]
        np.copyto(self.nearness[top:bottom, left:right], plane.astype(np.float32), where=where)

    @staticmethod
    def _fill(target: NDArray[np.uint8], depth: NDArray[np.float32], corners: NDArray[np.int32],
              colour: tuple[int, int, int], distance: float) -> None:
        cv2.fillConvexPoly(target, corners, colour, cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(depth, corners, distance, cv2.LINE_8, _SHIFT)

    def _warp(self, texture: NDArray[np.uint8], matrix: NDArray[np.float64],
              size: NDArray[np.float64] | tuple[float, float], box: Box) -> NDArray[np.uint8]:
        """Return the part of a texture of `size` (m) that is seen in the box of the image."""
        left, top, right, bottom = box
        texel, shift = self._texel, self._shift
        texel[0, 0], texel[1, 1] = size[0] / texture.shape[1], size[1] / texture.shape[0]
        texel[0, 2], texel[1, 2] = 0.5 * texel[0, 0], 0.5 * texel[1, 1]
        shift[0, 2], shift[1, 2] = -left, -top
        return cv2.warpPerspective(  # type: ignore[return-value]
            texture, shift @ matrix @ texel, (right - left, bottom - top),
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
        """Paint the ground in strips across the line of sight, each at the scale that suits it."""
        ground = self._ground
        frame = np.column_stack([(1.0, 0.0, 0.0), (0.0, -1.0, 0.0),
                                 np.array([ground.left, ground.top, 0.0]) - view.position])
        matrix = projection @ frame
        ahead = np.array([math.cos(view.yaw), math.sin(view.yaw)])
        side = np.array([-ahead[1], ahead[0]])
        for near, far in zip(_BANDS[-2::-1], _BANDS[:0:-1], strict=True):
            wide = far * 1.3 + 3.0
            points = view.position[:2] + np.array([near * ahead + wide * side,
                                                   near * ahead - wide * side,
                                                   far * ahead - wide * side,
                                                   far * ahead + wide * side])
            plane = np.column_stack([points[:, 0] - ground.left, ground.top - points[:, 1],
                                     np.ones(4)])
            corners = clip_near(plane @ matrix.T)
            if len(corners) >= 3:
                self._paint_strip(view, matrix, corners[:, :2] / corners[:, 2:],
                                  math.sqrt(near * far))

    def _paint_strip(self, view: View, matrix: NDArray[np.float64], outline: NDArray[np.float64],
                     distance: float) -> None:
        """Paint a strip of the ground: `outline` (K,2) in pixels, its middle at `distance` m."""
        ground = self._ground
        top = max(int(np.floor(outline[:, 1].min())), 0)
        bottom = min(int(np.ceil(outline[:, 1].max())) + 1, self.height)
        if bottom <= top:
            return
        full = ground.texture.at(1e9, 1e9)
        per_metre = full.shape[1] / ground.width
        # The geometric mean of the scales across and along the line of sight.
        scale = self._matrix[0, 0] / distance * math.sqrt(CAMERA_HEIGHT / distance)
        texture = ground.texture.at(full.shape[1] * scale / per_metre,
                                    full.shape[0] * scale / per_metre)
        warped = self._warp(texture, matrix, (ground.width, ground.height),
                            (0, top, self.width, bottom))
        mask = np.zeros((bottom - top, self.width), np.uint8)
        cv2.fillConvexPoly(mask, _fixed_point(outline - (0, top)), 255, cv2.LINE_8, _SHIFT)
        cv2.copyTo(warped, mask, self.image[top:bottom])
        box = (0, top, self.width, bottom)
        self._place(matrix, _fixed_point(outline - (0, top)), box)
        rows = np.arange(top, bottom) - self._matrix[1, 2]
        below = rows / self._matrix[0, 0] + math.tan(view.pitch)
        depth = (CAMERA_HEIGHT / np.maximum(below, 1e-3)).astype(np.float32)
        np.copyto(self.depth[top:bottom], np.minimum(depth, SKY_DEPTH)[:, None], where=mask > 0)


def _fixed_point(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return coordinates as OpenCV's drawing takes them, with _SHIFT sub-pixel bits."""
    return (pixels * (1 << _SHIFT)).clip(-2e8, 2e8).round().astype(np.int32)
