"""
The ground of a town as one image from above, and the sky around it, under a condition.

Both are drawn once per town and condition. Of what stands on the ground, only the cast shadows and
the light of the street lamps are drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street import conditions
from vpr_ros.street.elements import CARRIAGEWAY
from vpr_ros.street.elements import LANE
from vpr_ros.street.elements import PAVEMENT_EDGE
from vpr_ros.street.textures import grain
from vpr_ros.street.textures import Texture

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition
    from vpr_ros.street.elements import Street
    from vpr_ros.street.town import Town

_SCALE = 8          # pixels per m
_MARGIN = 50.0      # m around the outermost streets
_SHIFT = 4          # sub-pixel bits of OpenCV's drawing


@dataclass(frozen=True)
class Ground:
    """The ground from above: `texture` covers `width` x `height` m from `left`, `top` (m) on."""

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
        # The table's colours are those in open daylight; only shadows change them.
        up = np.ones(3)
    table = np.asarray(condition.ground, np.float32)
    image = np.empty((rows, columns, 3), np.uint8)
    grey = noise * (condition.roughness * level)
    for channel in range(3):
        plane = np.take(table[:, channel], surfaces)
        plane *= light[channel] * np.float32(up[channel])
        plane += grey
        np.clip(plane, 0, 255, out=plane)
        # Sharp edges would look jagged right before the camera.
        cv2.GaussianBlur(plane, (5, 5), 0.9, dst=plane)
        image[..., channel] = plane
    return Ground(Texture(lambda: image), left, top, width, height)


def sky(town: Town, condition: Condition) -> NDArray[np.uint8]:
    """
    Return the sky and the far skyline all around, uint8 (256,2048,3).

    Column 0 looks along +x of the map and the angle grows to the right with the azimuth
    (counter-clockwise); row 0 is 45 degrees up, the last row 11 degrees below the horizon.
    """
    height, width, horizon = 256, 2048, 205
    rng = np.random.default_rng((town.seed, 11))
    up = np.clip((horizon - np.arange(height)) / horizon, 0, 1)[:, None, None] ** 0.7
    image = np.asarray(condition.sky_top) * up + np.asarray(condition.sky_horizon) * (1 - up)
    image = np.broadcast_to(image, (height, width, 3)).copy()
    cloud = sum(grain((height, width), cell, rng) * weight
                for cell, weight in ((120, 0.5), (50, 0.35), (20, 0.2)))
    cover = np.clip((cloud - (0.35 - 0.55 * condition.clouds)) * 2.2, 0, 0.8)
    # Fade the clouds out at both ends, where the panorama closes.
    ramp = np.clip(np.minimum(np.arange(width), width - 1 - np.arange(width)) / 100, 0, 1)
    cover = (cover * ramp)[..., None]
    image = image * (1 - cover) + np.asarray(condition.cloud_colour) * cover
    if condition.snow:
        column = condition.sun_azimuth % (2 * math.pi) / (2 * math.pi) * width
        row = horizon - math.degrees(condition.sun_elevation) / 45 * horizon
        reach = np.hypot((np.arange(width)[None, :] - column) / 2.2,
                         np.arange(height)[:, None] - row)
        image += 70 * np.exp(-(reach / 55) ** 2)[..., None] * np.array([1.0, 0.85, 0.55])
    far = np.asarray(condition.sky_horizon, float)
    for distance, tone in ((0, 0.86), (1, 0.74)):
        ridge = np.zeros(width)
        for count, size in ((16, 5.0), (64, 4.0), (256, 3.0)):
            ridge += size * rng.uniform(-1, 1, count)[np.arange(width) * count // width]
        crest = horizon - 16 + 7 * distance - ridge * (1 - 0.3 * distance)
        below = np.arange(height)[:, None] > crest[None, :]
        image[below] = far * tone
    return np.clip(image, 0, 255).astype(np.uint8)


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
        """Fill from `low` to `high` m along a street, `left` to `right` m beside its middle."""
        along = (street.end - street.start) / street.length
        side = np.array([-along[1], along[0]])
        self.polygon(canvas, np.array([street.start + s * along + o * side for s, o in
                                       ((low, left), (high, left), (high, right), (low, right))]),
                     value)


def _surfaces(raster: _Raster, town: Town) -> NDArray[np.uint8]:
    """Return the surface of every pixel, uint8 (H,W), numbered as in conditions.py."""
    canvas = np.full(raster.shape, conditions.GRASS, np.uint8)
    for house in town.houses:
        raster.polygon(canvas, np.array([
            house.ground_point(-0.5, -6), house.ground_point(house.width + 0.5, -6),
            house.ground_point(house.width + 0.5, 2), house.ground_point(-0.5, 2)]),
            conditions.YARD)
    _pave(raster, town, canvas)
    _patch(raster, town, canvas)
    for street in town.streets:
        _mark(raster, street, canvas)
    return canvas


def _pave(raster: _Raster, town: Town, canvas: NDArray[np.uint8]) -> None:
    """Draw pavements, kerbs and carriageways, then parking strips and the wheel tracks."""
    kerb = CARRIAGEWAY + 0.18
    for half, surface in ((PAVEMENT_EDGE, conditions.PAVEMENT), (kerb, conditions.KERB),
                          (CARRIAGEWAY, conditions.ASPHALT)):
        for street in town.streets:
            raster.strip(canvas, street, -half, street.length + half, half, -half, surface)
    for street in town.streets:
        for side in (-1, 1):
            raster.strip(canvas, street, 12.0, street.length - 12.0, side * CARRIAGEWAY,
                         side * 4.0, conditions.PARKING)
            for wheel in (-0.75, 0.75):
                raster.strip(canvas, street, 0.0, street.length, side * LANE + wheel + 0.28,
                             side * LANE + wheel - 0.28, conditions.TRACK)


def _mark(raster: _Raster, street: Street, canvas: NDArray[np.uint8]) -> None:
    """Draw the centre line, the stop lines and the zebra crossings of a street."""
    length = street.length
    for start in np.arange(13.0, length - 14.0, 6.0):
        raster.strip(canvas, street, start, start + 3.0, 0.08, -0.08, conditions.MARK)
    for low, high, side in ((9.6, 10.0, 1), (length - 10.0, length - 9.6, -1)):
        raster.strip(canvas, street, low, high, 0.2 * side, 3.6 * side, conditions.MARK)
    for zebra, low in zip(street.zebra_crossings, (6.4, length - 9.2), strict=True):
        for across in np.arange(-5.2, 5.3, 1.05) if zebra else ():
            raster.strip(canvas, street, low, low + 2.8, across + 0.27, across - 0.27,
                         conditions.MARK)


def _patch(raster: _Raster, town: Town, canvas: NDArray[np.uint8]) -> None:
    """Scatter patches of newer asphalt and drain covers over the roads."""
    rng = np.random.default_rng((town.seed, 17))
    for street in town.streets:
        for _ in range(5):
            low, side = rng.uniform(8, street.length - 14), rng.uniform(-5.5, 4.0)
            raster.strip(canvas, street, low, low + rng.uniform(1.5, 6.0),
                         side + rng.uniform(0.8, 2.2), side, conditions.PATCH)
        for _ in range(4):
            low, side = rng.uniform(8, street.length - 8), rng.uniform(-3.5, 3.5)
            raster.strip(canvas, street, low, low + 0.65, side + 0.65, side, conditions.COVER)


def _light(raster: _Raster, town: Town, condition: Condition) -> list[NDArray[np.float32]]:
    """Return one factor per pixel and colour: shadows by day, lamp light at night."""
    if condition.night:
        pools = _lamp_light(raster, town)
        return [1 + pools * np.float32(tint) for tint in (1.0, 0.8, 0.45)]
    mask = np.zeros(raster.shape, np.uint8)
    if condition.shadow < 1.0:
        _cast_shadows(raster, town, condition, mask)
    soft = cv2.blur(mask, (7, 7)).astype(np.float32) / 255
    return [1 - soft * np.float32(1 - condition.shadow * tint) for tint in (0.94, 0.98, 1.06)]


def _lamp_light(raster: _Raster, town: Town) -> NDArray[np.float32]:
    pools = np.zeros(raster.shape, np.float32)
    radius = 15 * _SCALE
    reach = np.hypot(*np.meshgrid(*(np.arange(-radius, radius + 1),) * 2)) / _SCALE
    pool = (3.6 * np.exp(-(reach / 5.5) ** 2)).astype(np.float32)
    for fixture in town.fixtures:
        if fixture.kind == 'lamp':
            x, y = raster.pixels(fixture.position[None])[0] >> _SHIFT
            x0, y0 = x - radius, y - radius
            pools[y0:y0 + len(pool), x0:x0 + len(pool)] += pool
    return pools


def _cast_shadows(raster: _Raster, town: Town, condition: Condition, mask: NDArray[np.uint8]
                  ) -> None:
    """Draw the shadows of houses and trees; 255 is full shadow."""
    sun = condition.sun_direction()
    away = -sun[:2] / np.linalg.norm(sun[:2])
    for house in town.houses:
        length = (house.height + house.rise * 0.5) / math.tan(condition.sun_elevation)
        base = house.footprint()
        tip = base + away * min(length, 40.0)
        hull = cv2.convexHull(np.vstack([base, tip]).astype(np.float32))[:, 0]
        raster.polygon(mask, hull.astype(np.float64), 255)
    angles = np.linspace(0, 2 * math.pi, 12, endpoint=False)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    for fixture in town.fixtures:
        if fixture.kind == 'tree':
            length = min(0.6 * fixture.size / math.tan(condition.sun_elevation), 25.0)
            centre = fixture.position + away * length
            raster.polygon(mask, centre + ring * fixture.size * 0.3,
                           255 if condition.leaves else 110)
