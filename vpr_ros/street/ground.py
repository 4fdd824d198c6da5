"""
The ground of a town as one picture from above, and the sky around it, under a condition.

Both are drawn once per town and condition. What stands on the ground is not known here, but for
the shadows and the pools of light that it casts.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street import conditions
from vpr_ros.street.textures import grain
from vpr_ros.street.textures import Texture
from vpr_ros.street.town import CARRIAGEWAY
from vpr_ros.street.town import LANE
from vpr_ros.street.town import PAVEMENT_EDGE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition
    from vpr_ros.street.town import Street
    from vpr_ros.street.town import Town

_SCALE = 8          # pixels per m
_MARGIN = 50.0      # m around the outermost streets
_SHIFT = 4          # sub-pixel bits of OpenCV's drawing


@dataclass(frozen=True)
class Ground:
    """The picture from above: its first pixel's corner is at `left`, `top` (m, map frame)."""

    texture: Texture
    left: float
    top: float
    width: float
    height: float


def ground(town: Town, condition: Condition) -> Ground:
    """Draw the ground of a town; north (y) is up."""
    x0, y0, x1, y1 = town.bounds()
    left, top = x0 - _MARGIN, y1 + _MARGIN
    width, height = x1 - x0 + 2 * _MARGIN, y1 - y0 + 2 * _MARGIN
    raster = _Raster(left, top, width, height)
    surfaces = _surfaces(raster, town)
    rng = np.random.default_rng((town.seed, 10))
    tile = grain((512, 512), 2, rng) * 0.6 + grain((512, 512), 9, rng) * 0.5 \
        + grain((512, 512), 60, rng) * 0.6
    rows, columns = surfaces.shape
    noise = np.tile(tile, (rows // 512 + 1, columns // 512 + 1))[:rows, :columns]
    light = _light(raster, town, condition)
    up = condition.light(np.array([0.0, 0.0, 1.0]))
    level = 1.0 if not condition.night else up.mean() / 0.9
    if not condition.night:
        # The colours of the table are as seen in open daylight; only the shadows change them.
        up = np.ones(3)
    table = np.asarray(condition.ground, np.float32)
    picture = np.empty((rows, columns, 3), np.uint8)
    grey = noise * (condition.roughness * level)
    for channel in range(3):
        plane = np.take(table[:, channel], surfaces)
        plane *= light[channel] * np.float32(up[channel])
        plane += grey
        np.clip(plane, 0, 255, out=plane)
        # Edges a pixel wide would be saw teeth under the wheels.
        cv2.GaussianBlur(plane, (5, 5), 0.9, dst=plane)
        picture[..., channel] = plane
    return Ground(Texture(lambda: picture), left, top, width, height)


def sky(town: Town, condition: Condition) -> NDArray[np.uint8]:
    """
    Return the sky and the far skyline all around, uint8 (256,2048,3).

    Column 0 looks along +x of the map and the angle grows to the right with the azimuth
    (counter-clockwise); row 0 is 45 degrees up, the last row 11 degrees below the horizon.
    """
    height, width, horizon = 256, 2048, 205
    rng = np.random.default_rng((town.seed, 11))
    up = np.clip((horizon - np.arange(height)) / horizon, 0, 1)[:, None, None] ** 0.7
    picture = np.asarray(condition.sky_top) * up + np.asarray(condition.sky_horizon) * (1 - up)
    picture = np.broadcast_to(picture, (height, width, 3)).copy()
    cloud = sum(grain((height, width), cell, rng) * weight
                for cell, weight in ((120, 0.5), (50, 0.35), (20, 0.2)))
    cover = np.clip((cloud - (0.35 - 0.55 * condition.clouds)) * 2.2, 0, 0.8)
    # The panorama closes on itself.
    ramp = np.clip(np.minimum(np.arange(width), width - 1 - np.arange(width)) / 100, 0, 1)
    cover = (cover * ramp)[..., None]
    picture = picture * (1 - cover) + np.asarray(condition.cloud_colour) * cover
    if condition.snow:
        column = condition.sun_azimuth % (2 * math.pi) / (2 * math.pi) * width
        row = horizon - math.degrees(condition.sun_elevation) / 45 * horizon
        reach = np.hypot((np.arange(width)[None, :] - column) / 2.2,
                         np.arange(height)[:, None] - row)
        picture += 70 * np.exp(-(reach / 55) ** 2)[..., None] * np.array([1.0, 0.85, 0.55])
    far = np.asarray(condition.sky_horizon, float)
    for distance, tone in ((0, 0.86), (1, 0.74)):
        ridge = np.zeros(width)
        for count, size in ((16, 5.0), (64, 4.0), (256, 3.0)):
            ridge += size * rng.uniform(-1, 1, count)[np.arange(width) * count // width]
        crest = horizon - 16 + 7 * distance - ridge * (1 - 0.3 * distance)
        below = np.arange(height)[:, None] > crest[None, :]
        picture[below] = far * tone
    return np.clip(picture, 0, 255).astype(np.uint8)


class _Raster:
    """Draws shapes given in m of the map frame."""

    def __init__(self, left: float, top: float, width: float, height: float) -> None:
        self.left, self.top = left, top
        self.shape = (math.ceil(height * _SCALE), math.ceil(width * _SCALE))

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        scaled = np.column_stack([points[:, 0] - self.left, self.top - points[:, 1]]) * _SCALE - .5
        return np.round(scaled * (1 << _SHIFT)).astype(np.int32)

    def polygon(self, canvas: NDArray, points: NDArray[np.float64], value: float) -> None:
        cv2.fillConvexPoly(canvas, self.pixels(points), value, cv2.LINE_8, _SHIFT)

    def strip(self, canvas: NDArray, street: Street, low: float, high: float, left: float,
              right: float, value: float) -> None:
        """Fill the rectangle from `low` to `high` m along a street, `left` to `right` beside."""
        along = (street.end - street.start) / np.linalg.norm(street.end - street.start)
        side = np.array([-along[1], along[0]])
        self.polygon(canvas, np.array([street.start + s * along + o * side for s, o in
                                       ((low, left), (high, left), (high, right), (low, right))]),
                     value)


def _surfaces(raster: _Raster, town: Town) -> NDArray[np.uint8]:
    canvas = np.full(raster.shape, conditions.GRASS, np.uint8)
    lengths = [float(np.linalg.norm(street.end - street.start)) for street in town.streets]
    edge, kerb = PAVEMENT_EDGE, CARRIAGEWAY + 0.18
    for house in town.houses:
        raster.polygon(canvas, np.array([house.point(-0.5, -6), house.point(house.width + 0.5, -6),
                                         house.point(house.width + 0.5, 2),
                                         house.point(-0.5, 2)]), conditions.YARD)
    for half, surface in ((edge, conditions.PAVEMENT), (kerb, conditions.KERB),
                          (CARRIAGEWAY, conditions.ASPHALT)):
        for street, length in zip(town.streets, lengths, strict=True):
            raster.strip(canvas, street, -half, length + half, half, -half, surface)
    for street, length in zip(town.streets, lengths, strict=True):
        for side in (-1, 1):
            raster.strip(canvas, street, 12.0, length - 12.0, side * CARRIAGEWAY, side * 4.0,
                         conditions.PARKING)
            for wheel in (-0.75, 0.75):
                raster.strip(canvas, street, 0.0, length, side * LANE + wheel + 0.28,
                             side * LANE + wheel - 0.28, conditions.TRACK)
    _mend(raster, town, canvas)
    for street, length in zip(town.streets, lengths, strict=True):
        for start in np.arange(13.0, length - 14.0, 6.0):
            raster.strip(canvas, street, start, start + 3.0, 0.08, -0.08, conditions.MARK)
        for low, high, side in ((9.6, 10.0, 1), (length - 10.0, length - 9.6, -1)):
            raster.strip(canvas, street, low, high, 0.2 * side, 3.6 * side, conditions.MARK)
        for zebra, low in zip(street.crossings, (6.4, length - 9.2), strict=True):
            for across in np.arange(-5.2, 5.3, 1.05) if zebra else ():
                raster.strip(canvas, street, low, low + 2.8, across + 0.27, across - 0.27,
                             conditions.MARK)
    return canvas


def _mend(raster: _Raster, town: Town, canvas: NDArray[np.uint8]) -> None:
    """Scatter patches of newer asphalt and drain covers over the roads."""
    rng = np.random.default_rng((town.seed, 17))
    for street in town.streets:
        length = float(np.linalg.norm(street.end - street.start))
        for _ in range(5):
            low, side = rng.uniform(8, length - 14), rng.uniform(-5.5, 4.0)
            raster.strip(canvas, street, low, low + rng.uniform(1.5, 6.0),
                         side + rng.uniform(0.8, 2.2), side, conditions.PATCH)
        for _ in range(4):
            low, side = rng.uniform(8, length - 8), rng.uniform(-3.5, 3.5)
            raster.strip(canvas, street, low, low + 0.65, side + 0.65, side, conditions.COVER)


def _light(raster: _Raster, town: Town, condition: Condition) -> list[NDArray[np.float32]]:
    """Return one factor per pixel and colour: shadows by day, pools of lamp light at night."""
    if condition.night:
        pool = np.zeros(raster.shape, np.float32)
        radius = 15 * _SCALE
        reach = np.hypot(*np.meshgrid(*(np.arange(-radius, radius + 1),) * 2)) / _SCALE
        spot = (3.6 * np.exp(-(reach / 5.5) ** 2)).astype(np.float32)
        for thing in town.standing:
            if thing.kind == 'lamp':
                x, y = raster.pixels(thing.place[None])[0] >> _SHIFT
                x0, y0 = x - radius, y - radius
                pool[y0:y0 + len(spot), x0:x0 + len(spot)] += spot
        return [1 + pool * np.float32(tint) for tint in (1.0, 0.8, 0.45)]
    mask = np.zeros(raster.shape, np.uint8)
    sun = condition.sun_direction()
    if condition.shadow < 1.0:
        away = -sun[:2] / np.linalg.norm(sun[:2])
        for house in town.houses:
            length = (house.height + house.rise * 0.5) / math.tan(condition.sun_elevation)
            base = house.footprint()
            tip = base + away * min(length, 40.0)
            hull = cv2.convexHull(np.vstack([base, tip]).astype(np.float32))[:, 0]
            raster.polygon(mask, hull.astype(np.float64), 255)
        for thing in town.standing:
            if thing.kind == 'tree':
                length = min(0.6 * thing.size / math.tan(condition.sun_elevation), 25.0)
                centre = thing.place + away * length
                angles = np.linspace(0, 2 * math.pi, 12, endpoint=False)
                ring = np.column_stack([np.cos(angles), np.sin(angles)]) * thing.size * 0.3
                raster.polygon(mask, centre + ring, 255 if condition.leaves else 110)
    soft = cv2.blur(mask, (7, 7)).astype(np.float32) / 255
    return [1 - soft * np.float32(1 - condition.shadow * tint) for tint in (0.94, 0.98, 1.06)]
