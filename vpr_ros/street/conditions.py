"""
The conditions of a drive: light, weather and what they do to the colours of the town.

Numbers only. Geometry (town.py) is the same under every condition; drawing lives elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Colour = tuple[float, float, float]

CONDITIONS = ('spring', 'winter', 'night', 'rain')

SNOW = (240, 243, 250)    # RGB

# Surfaces of the ground raster, in the order of the colour tables below.
(GRASS, ASPHALT, PAVEMENT, KERB, MARK, PARKING, YARD, TRACK, PATCH, COVER) = range(10)


@dataclass(frozen=True)
class Condition:
    """How a town looks: colours are RGB from 0 to 255, but those of light are factors."""

    name: str
    sun_azimuth: float      # rad in the map frame
    sun_elevation: float    # rad
    sun: Colour             # light on a surface that faces the sun
    ambient: Colour
    sky_top: Colour
    sky_horizon: Colour
    clouds: float           # 0 (none) to 1 (overcast)
    cloud_colour: Colour
    haze_range: float       # m after which haze replaces 63 % of a colour
    ground: tuple[Colour, ...]
    roughness: float        # contrast of the ground's noise
    shadow: float           # share of the light that reaches a cast shadow
    noise: float            # standard deviation of the sensor noise, grey levels
    exposure: float         # typical gain of the camera
    snow: bool = False
    leaves: bool = True
    night: bool = False
    wet: bool = False

    def light(self, normal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what falls on a surface with this outward unit `normal`, (3,): Lambert's law."""
        facing = max(0.0, float(np.dot(normal, self.sun_direction())))
        return np.asarray(self.ambient) + facing * np.asarray(self.sun)

    def sun_direction(self) -> NDArray[np.float64]:
        """Return the unit vector (3,) towards the sun, in the map frame."""
        flat = math.cos(self.sun_elevation)
        return np.array([flat * math.cos(self.sun_azimuth), flat * math.sin(self.sun_azimuth),
                         math.sin(self.sun_elevation)])


_TABLE = {
    'spring': Condition(
        name='spring', sun_azimuth=math.radians(250), sun_elevation=math.radians(48),
        sun=(0.62, 0.58, 0.48), ambient=(0.56, 0.60, 0.66),
        sky_top=(92, 144, 214), sky_horizon=(198, 218, 236), clouds=0.35,
        cloud_colour=(246, 247, 250), haze_range=420.0,
        ground=((104, 142, 62), (112, 111, 112), (172, 166, 158), (200, 197, 190),
                (232, 232, 228), (101, 100, 102), (150, 150, 110), (106, 105, 106),
                (88, 88, 90), (58, 58, 60)),
        roughness=9.0, shadow=0.62, noise=2.0, exposure=1.0),
    'winter': Condition(
        name='winter', sun_azimuth=math.radians(205), sun_elevation=math.radians(13),
        sun=(0.46, 0.34, 0.16), ambient=(0.60, 0.63, 0.70),
        sky_top=(150, 170, 200), sky_horizon=(238, 216, 190), clouds=0.45,
        cloud_colour=(226, 218, 214), haze_range=170.0,
        ground=((236, 238, 244), (202, 204, 212), (230, 232, 238), (214, 217, 224),
                (212, 214, 220), (224, 226, 233), (238, 240, 246), (174, 176, 183),
                (198, 200, 208), (120, 120, 124)),
        roughness=7.0, shadow=0.74, noise=2.5, exposure=1.0, snow=True, leaves=False),
    'night': Condition(
        name='night', sun_azimuth=0.0, sun_elevation=math.radians(40),
        sun=(0.02, 0.02, 0.03), ambient=(0.17, 0.175, 0.235),
        sky_top=(8, 10, 22), sky_horizon=(38, 34, 44), clouds=0.5, cloud_colour=(30, 28, 36),
        haze_range=260.0,
        ground=((104, 132, 72), (112, 111, 112), (172, 166, 158), (200, 197, 190),
                (232, 232, 228), (101, 100, 102), (150, 150, 110), (106, 105, 106),
                (88, 88, 90), (58, 58, 60)),
        roughness=7.0, shadow=1.0, noise=6.0, exposure=1.15, night=True),
    'rain': Condition(
        name='rain', sun_azimuth=0.0, sun_elevation=math.radians(60),
        sun=(0.06, 0.06, 0.06), ambient=(0.58, 0.61, 0.64),
        sky_top=(134, 142, 150), sky_horizon=(178, 184, 189), clouds=1.0,
        cloud_colour=(150, 156, 162), haze_range=130.0,
        ground=((92, 118, 66), (84, 86, 90), (132, 132, 132), (156, 156, 154),
                (206, 208, 208), (78, 80, 84), (124, 126, 100), (78, 80, 84),
                (66, 68, 72), (48, 49, 52)),
        roughness=6.0, shadow=0.96, noise=3.0, exposure=0.95, wet=True),
}


def condition_named(name: str) -> Condition:
    """Return the Condition of this name; raise ValueError listing the known names."""
    if name not in _TABLE:
        raise ValueError(f'unknown condition {name!r}: choose one of {", ".join(CONDITIONS)}')
    return _TABLE[name]
