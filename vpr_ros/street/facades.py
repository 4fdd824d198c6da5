"""
Facades, side walls and roofs of the houses, drawn under a condition.

Which house stands where is decided in lots.py; its details follow from its number and the town.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street.conditions import SNOW
from vpr_ros.street.textures import grain
from vpr_ros.street.textures import PIXELS_PER_METRE as PPM
from vpr_ros.street.textures import wall

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition
    from vpr_ros.street.elements import House

_DOORS = ((142, 34, 36), (30, 66, 112), (34, 92, 60), (64, 42, 34), (206, 170, 52), (60, 60, 66),
          (230, 230, 226), (120, 60, 120))
_SIGNS = ((176, 30, 40), (24, 72, 140), (24, 110, 72), (226, 178, 40), (60, 50, 50),
          (214, 110, 36), (110, 44, 110), (30, 130, 140))
_NAMES = ('CAFE', 'BAKER', 'BOOKS', 'BANK', 'HOTEL', 'TOYS', 'OPTIK', 'PIZZA', 'SHOES', 'RADIO',
          'FLORA', 'SPORT', 'MUSIC', 'BIKES', 'TEA', 'KIOSK', 'PHARMA', 'SALON', 'FISH', 'WINE')
_CURTAINS = ((226, 220, 206), (190, 70, 64), (90, 120, 160), (222, 196, 130), (240, 240, 240))
_LAMPLIGHT = ((255, 206, 128), (255, 224, 170), (236, 236, 214), (250, 180, 96))
_STONE = (198, 190, 176)


class _Facade:
    """One wall while it is drawn; `finish` applies daylight, lit windows, snow and wetness."""

    def __init__(self, canvas: NDArray[np.uint8], condition: Condition,
                 light: NDArray[np.float64]) -> None:
        self.canvas = canvas
        self.condition = condition
        self.light = light
        self.lights: list[tuple[int, int, int, int, tuple[int, int, int]]] = []
        self.ledges: list[tuple[int, int, int, int]] = []

    def box(self, x: float, y: float, w: float, h: float, colour: tuple[int, ...]) -> None:
        cv2.rectangle(self.canvas, (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1),
                      colour, -1)

    def finish(self) -> NDArray[np.uint8]:
        lit = self.canvas * self.light[None, None, :]
        if self.condition.night:
            # Street lamps light the ground floor from below.
            height = lit.shape[0]
            up = (height - np.arange(height)) / PPM
            glow = 0.34 * np.exp(-((up - 2.0) / 3.5) ** 2)[:, None, None]
            lit += self.canvas * glow * np.array([1.0, 0.82, 0.52])
            for x, y, w, h, colour in self.lights:
                lit[y:y + h, x:x + w] = 0.75 * np.asarray(colour) \
                    + 0.4 * lit[y:y + h, x:x + w]
        if self.condition.snow:
            for x, y, w, h in self.ledges:
                lit[max(y, 0):y + h, max(x, 0):x + w] = np.asarray(SNOW) * np.minimum(
                    self.light + 0.1, 1.05)
        if self.condition.wet:
            grey = lit.mean(axis=2, keepdims=True)
            lit = 0.7 * lit + 0.3 * grey
        return np.clip(lit, 0, 255).astype(np.uint8)


def front(house: House, seed: int, condition: Condition, drive_seed: int,
          normal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """
    Return the front of a house, uint8 (H,W,3), PIXELS_PER_METRE, gable included.

    `seed` is the town's; `drive_seed` decides which windows are lit and which blinds are down.
    """
    rng = np.random.default_rng((seed, 2, house.number))
    drive_rng = np.random.default_rng((seed, 3, house.number, drive_seed))
    top = house.rise if house.design.roof == 'gable' else 0.0
    width, height = round(house.width * PPM), round((house.height + top) * PPM)
    design = house.design
    facade = _Facade(wall(design.wall, width, height, house.colour, rng), condition,
                     condition.light(normal))
    storeys = _storeys(house)
    _front_storeys(facade, house, storeys, rng, drive_rng)
    if design.roof == 'gable':
        _gable(facade, house, width, height, rng, drive_rng)
    else:
        facade.box(0, 0, width, 0.32 * PPM, _STONE)
        facade.box(0, 0.32 * PPM, width, 3, (90, 84, 78))
        facade.ledges.append((0, 0, width, 5))
    if storeys > 1 and design.wall in ('plaster', 'brick'):
        facade.box(0, height - 3.55 * PPM, width, 4, _STONE)
        facade.ledges.append((0, round(height - 3.55 * PPM) - 2, width, 3))
    facade.box(0, height - 0.35 * PPM, width, 0.35 * PPM, (112, 106, 100))
    # A downpipe at the edge separates the houses of a row.
    facade.box(0, 0, 3, height, (96, 92, 88))
    return facade.finish()


def _storeys(house: House) -> int:
    return max(1, round((house.height - 0.7) / 3.0))


def _front_storeys(facade: _Facade, house: House, storeys: int, rng: np.random.Generator,
                   drive_rng: np.random.Generator) -> None:
    """Draw the windows, doors, shops and balconies of a front, from the ground floor up."""
    height, width = facade.canvas.shape[:2]
    design = house.design
    axes = max(1, int(house.width / design.window_pitch))
    pitch = width / axes
    door_axis = int(rng.integers(0, axes))
    curtain = _CURTAINS[int(rng.integers(0, len(_CURTAINS)))]
    shutter = _DOORS[int(rng.integers(0, len(_DOORS)))]
    for storey in range(storeys):
        floor = height - (storey * 3.0 + 0.5) * PPM
        if storey == 0 and design.ground_floor == 'shop':
            _shop(facade, width, floor, rng, drive_rng)
            continue
        entrance = {'door': door_axis, 'gate': axes // 2}[design.ground_floor] \
            if storey == 0 else -1
        for axis in range(axes):
            centre = (axis + 0.5) * pitch
            if axis == entrance:
                (_door if design.ground_floor == 'door' else _gate)(facade, centre, height, rng)
            else:
                _window(facade, centre, floor, design.windows, curtain, shutter, rng, drive_rng)
        if storey and design.windows == 'wide':
            _balcony(facade, (int(rng.integers(0, axes)) + 0.5) * pitch, floor, pitch, rng)


def side(house: House, seed: int, condition: Condition, drive_seed: int, which: int,
         normal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a side wall, uint8 (H,W,3): few windows, sometimes a mural."""
    rng = np.random.default_rng((seed, 4, house.number, which))
    drive_rng = np.random.default_rng((seed, 5, house.number, which, drive_seed))
    top = house.rise if house.design.roof == 'ridge' else 0.0
    width, height = round(house.depth * PPM), round((house.height + top) * PPM)
    facade = _Facade(wall(house.design.wall, width, height, house.colour, rng), condition,
                     condition.light(normal))
    mural = rng.random() < 0.16
    for storey in range(_storeys(house)):
        for axis in range(3):
            if rng.random() < (0.12 if mural else 0.45):
                _window(facade, (axis + 0.5) * width / 3,
                        height - (storey * 3.0 + 0.5) * PPM, 'sash',
                        _CURTAINS[0], _DOORS[0], rng, drive_rng)
    if mural:
        _mural(facade, width, height, rng)
    facade.box(0, height - 0.35 * PPM, width, 0.35 * PPM, (112, 106, 100))
    return facade.finish()


def roof(condition: Condition, light: NDArray[np.float64], kind: int) -> NDArray[np.uint8]:
    """Return a texture of tiles, uint8 (H,W,3), that is stretched over any roof plane."""
    rng = np.random.default_rng((6, kind))
    colour = ((152, 84, 62), (98, 96, 100), (122, 74, 60), (84, 80, 84))[kind % 4]
    canvas = np.full((96, 144, 3), colour, np.float32)
    canvas += 9.0 * grain((96, 144), 5, rng)[..., None]
    canvas[::6] -= 24
    canvas *= light
    if condition.snow:
        patches = grain((96, 144), 18, rng) + np.linspace(0.9, 0.15, 96)[:, None]
        cover = np.clip(patches * 4 + 0.6, 0, 1)[..., None]
        canvas = (1 - cover) * canvas + cover * np.asarray(SNOW) * np.minimum(light + .12, 1.04)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _window(facade: _Facade, centre: float, floor: float, style: str,
            curtain: tuple[int, int, int], shutter: tuple[int, int, int],
            rng: np.random.Generator, drive_rng: np.random.Generator) -> None:
    w, h = {'sash': (1.1, 1.6), 'cross': (1.25, 1.5), 'wide': (2.0, 1.4),
            'shutter': (1.15, 1.45)}[style]
    w, h = w * PPM, h * PPM
    x, y = centre - w / 2, floor - 0.75 * PPM - h
    frame = (236, 234, 228) if style != 'wide' else (90, 92, 96)
    facade.box(x - 3, y - 3, w + 6, h + 6, frame)
    pane = np.linspace(0.0, 1.0, max(round(h), 2))[:, None, None]
    glass = (1 - pane) * np.array([104, 124, 146]) + pane * np.array([44, 52, 62])
    y0, x0 = max(round(y), 0), max(round(x), 0)
    target = facade.canvas[y0:y0 + round(h), x0:x0 + round(w)]
    target[:] = glass[:target.shape[0]].astype(np.uint8)
    drawn = rng.random()
    if drawn < 0.55:
        share = 0.24 if drawn < 0.4 else 0.38
        facade.box(x, y, w * share, h, curtain)
        facade.box(x + w * (1 - share), y, w * share, h, curtain)
    if drive_rng.random() < 0.2:
        facade.box(x, y, w, h * float(drive_rng.uniform(0.3, 0.9)), (214, 208, 194))
    if drive_rng.random() < 0.34:
        facade.lights.append((x0, y0, round(w), round(h),
                             _LAMPLIGHT[int(drive_rng.integers(0, len(_LAMPLIGHT)))]))
    if style == 'sash':
        facade.box(x, y + h / 2 - 1, w, 3, frame)
    elif style in ('cross', 'shutter'):
        facade.box(x + w / 2 - 1, y, 3, h, frame)
        facade.box(x, y + h * 0.35, w, 2, frame)
    else:
        facade.box(x + w * 0.6, y, 3, h, frame)
    if style == 'shutter':
        facade.box(x - 0.5 * PPM, y - 2, 0.45 * PPM, h + 4, shutter)
        facade.box(x + w + 2, y - 2, 0.45 * PPM, h + 4, shutter)
    facade.box(x - 5, y + h + 3, w + 10, 4, _STONE)
    facade.ledges.append((round(x) - 5, round(y + h) - 1, round(w) + 10, 6))


def _door(facade: _Facade, centre: float, height: float, rng: np.random.Generator) -> None:
    colour = _DOORS[int(rng.integers(0, len(_DOORS)))]
    w, h = 1.1 * PPM, 2.25 * PPM
    x, y = centre - w / 2, height - 0.3 * PPM - h
    facade.box(x - 5, y - 5, w + 10, h + 5, (228, 224, 214))
    facade.box(x, y, w, h, colour)
    facade.box(x + 4, y + 5, w - 8, 0.4 * PPM, (70, 80, 92))
    facade.box(x + 5, y + h * 0.5, w - 10, h * 0.36, tuple(int(c * 0.75) for c in colour))
    facade.box(x - 8, height - 0.3 * PPM, w + 16, 0.3 * PPM, (160, 156, 150))
    facade.lights.append((round(x) + 4, round(y) + 5, round(w) - 8, 9, _LAMPLIGHT[1]))
    if rng.random() < 0.4:
        facade.box(x - 12, y - 14, w + 24, 8, (84, 80, 80))
        facade.ledges.append((round(x) - 12, round(y) - 18, round(w) + 24, 6))


def _gate(facade: _Facade, centre: float, height: float, rng: np.random.Generator) -> None:
    colour = _DOORS[int(rng.integers(0, len(_DOORS)))]
    w, h = 3.0 * PPM, 3.0 * PPM
    x, y = centre - w / 2, height - h
    facade.box(x - 6, y - 8, w + 12, h + 8, _STONE)
    facade.box(x, y, w, h, colour)
    for part in range(1, 5):
        facade.box(x + part * w / 5, y, 2, h, tuple(int(c * 0.6) for c in colour))


def _shop(facade: _Facade, width: int, floor: float, rng: np.random.Generator,
          drive_rng: np.random.Generator) -> None:
    colour = _SIGNS[int(rng.integers(0, len(_SIGNS)))]
    name = _NAMES[int(rng.integers(0, len(_NAMES)))]
    top = floor - 2.5 * PPM
    facade.box(4, top, width - 8, 2.6 * PPM, tuple(int(c * 0.55) for c in colour))
    door = 10 + int(rng.integers(0, 2)) * (width - 1.5 * PPM - 20)
    left = 10 if door > 10 else 10 + 1.5 * PPM
    facade.box(left, top + 6, width - 1.5 * PPM - 20, 2.0 * PPM, (66, 78, 92))
    shelf = left + 6
    while shelf < left + width - 1.5 * PPM - 44:
        w = float(rng.uniform(10, 26))
        facade.box(shelf, top + 2.0 * PPM - w * 0.9, w, w * 0.9,
                   tuple(int(c) for c in rng.integers(60, 240, 3)))
        shelf += w + float(rng.uniform(4, 16))
    facade.box(door, top + 4, 1.25 * PPM, 2.45 * PPM, (88, 96, 104))
    if drive_rng.random() < 0.75:
        facade.lights.append((round(left), round(top + 6), round(width - 1.5 * PPM - 20),
                             round(2.0 * PPM), _LAMPLIGHT[1]))
    band = round(top - 0.75 * PPM)
    facade.box(4, band, width - 8, 0.75 * PPM, colour)
    pale = (250, 246, 232)
    scale = (width - 40) / cv2.getTextSize(name, cv2.FONT_HERSHEY_DUPLEX, 1.0, 2)[0][0]
    scale = min(scale, 0.62)
    extent = cv2.getTextSize(name, cv2.FONT_HERSHEY_DUPLEX, scale, 2)[0]
    cv2.putText(facade.canvas, name, ((width - extent[0]) // 2, band + 15),
                cv2.FONT_HERSHEY_DUPLEX, scale, pale, 2, cv2.LINE_AA)
    facade.lights.append((4, band, width - 8, round(0.75 * PPM), colour))
    if rng.random() < 0.45:
        stripe = 14
        for index, x in enumerate(range(4, width - 8, stripe)):
            facade.box(x, top, stripe, 0.55 * PPM, colour if index % 2 else pale)
        facade.ledges.append((4, round(top) - 2, width - 8, 5))


def _balcony(facade: _Facade, centre: float, floor: float, pitch: float,
             rng: np.random.Generator) -> None:
    colour = _DOORS[int(rng.integers(0, len(_DOORS)))]
    facade.box(centre - pitch * 0.42, floor - 0.95 * PPM, pitch * 0.84, 0.9 * PPM, colour)
    facade.box(centre - pitch * 0.45, floor - 0.05 * PPM, pitch * 0.9, 5, (140, 138, 134))
    facade.ledges.append((round(centre - pitch * 0.42), round(floor - 1.02 * PPM),
                          round(pitch * 0.84), 4))


def _gable(facade: _Facade, house: House, width: int, height: int, rng: np.random.Generator,
           drive_rng: np.random.Generator) -> None:
    middle, y = width // 2, round(house.rise * PPM)
    if house.design.name == 'church':
        cv2.circle(facade.canvas, (middle, y), round(1.5 * PPM), _STONE, -1, cv2.LINE_AA)
        cv2.circle(facade.canvas, (middle, y), round(1.2 * PPM), (60, 66, 96), -1, cv2.LINE_AA)
        for x in (middle - 3.6 * PPM, middle + 3.6 * PPM):
            facade.box(x - 14, height - 7.5 * PPM, 28, 4.5 * PPM, (60, 64, 84))
            cv2.circle(facade.canvas, (round(x), round(height - 7.5 * PPM)), 14, (60, 64, 84), -1)
        return
    if rng.random() < 0.8:
        _window(facade, middle, y + 0.6 * PPM, 'cross', _CURTAINS[0], _DOORS[0], rng, drive_rng)
    for end in (0, width):
        cv2.line(facade.canvas, (middle, 0), (end, y), (236, 234, 228), 9, cv2.LINE_AA)


def _mural(facade: _Facade, width: int, height: int, rng: np.random.Generator) -> None:
    facade.box(width * 0.1, height * 0.3, width * 0.8, height * 0.45,
               _SIGNS[int(rng.integers(0, len(_SIGNS)))])
    for _ in range(6):
        cv2.circle(facade.canvas, (round(width * float(rng.uniform(0.25, 0.75))),
                                   round(height * float(rng.uniform(0.4, 0.65)))),
                   round(float(rng.uniform(8, 28))),
                   tuple(int(c) for c in rng.integers(40, 250, 3)), -1, cv2.LINE_AA)
