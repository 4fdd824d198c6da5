"""
The faces of a town: every wall, roof and sprite as a textured piece of a plane.

Built once per drive from a Town under a condition. How they are rendered is in render.py.
"""

from __future__ import annotations

from functools import partial
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.street import facades
from vpr_ros.street import sprites
from vpr_ros.street.cars import car_faces
from vpr_ros.street.cars import random_car
from vpr_ros.street.faces import Body
from vpr_ros.street.faces import Face
from vpr_ros.street.faces import lit
from vpr_ros.street.faces import polygon
from vpr_ros.street.faces import rectangle
from vpr_ros.street.faces import Sprite
from vpr_ros.street.faces import UP
from vpr_ros.street.textures import Texture

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition
    from vpr_ros.street.elements import Boundary
    from vpr_ros.street.elements import Fixture
    from vpr_ros.street.elements import House
    from vpr_ros.street.town import Town

_PIECE = 3.5    # m, the longest piece of a hedge, fence or wall


class Scene:
    """The bodies and sprites of a town under a condition, as one drive meets them."""

    def __init__(self, town: Town, condition: Condition, drive_seed: int) -> None:
        self._town = town
        self._condition = condition
        self._drive_seed = drive_seed
        self._shared: dict[tuple, Texture] = {}
        self.bodies = [self._house(house) for house in town.houses]
        self.bodies += [body for item in town.boundaries for body in self._boundary(item)]
        for house in town.houses:
            if house.design.name == 'church':
                self.bodies.append(self._tower(house))
        self.sprites: list[Sprite] = []
        self._add_fixtures()

    def _texture(self, key: tuple, draw: Callable[[], NDArray[np.uint8]]) -> Texture:
        return self._shared.setdefault(key, Texture(draw))

    def _house(self, house: House) -> Body:
        along = np.append(house.along, 0.0)
        back = np.array([-house.along[1], house.along[0], 0.0])
        corner = np.append(house.corner, 0.0)
        w, d, h = house.width, house.depth, house.height
        faces = [self._front(house, corner, along, -back),
                 self._side(house, 0, corner + d * back, -back),
                 self._side(house, 1, corner + w * along, back),
                 polygon(np.array([corner + w * along + d * back + h * UP,
                                   corner + d * back + h * UP,
                                   corner + d * back, corner + w * along + d * back]),
                         lit(house.colour, self._condition, back)),
                 *self._roofs(house, corner, along, back)]
        if house.number % 3 and house.design.name not in ('church', 'flats'):
            faces += self._chimney(corner + along * (w * (0.2 + 0.6 * (house.number % 2)))
                                   + back * (d * 0.5) + UP * (h + house.rise * 0.6), along, back)
        return Body(tuple(faces), house.ground_point(w / 2, d / 2), math.hypot(w, d) / 2 + 0.5)

    def _front(self, house: House, corner: NDArray[np.float64], along: NDArray[np.float64],
               normal: NDArray[np.float64]) -> Face:
        w, h, rise = house.width, house.height, house.rise
        gable = house.design.roof == 'gable'
        top = h + (rise if gable else 0.0)
        texture = Texture(lambda: facades.front(house, self._town.seed, self._condition,
                                                self._drive_seed, normal))
        outline = [(0, rise), (w / 2, 0), (w, rise), (w, top), (0, top)] if gable \
            else [(0, 0), (w, 0), (w, h), (0, h)]
        return Face(corner + top * UP, along, -UP, (w, top), np.array(outline, float), texture,
                    eaves=top - h)

    def _roofs(self, house: House, corner: NDArray[np.float64], along: NDArray[np.float64],
               back: NDArray[np.float64]) -> Iterator[Face]:
        """Yield the two slopes of a roof that is not flat."""
        w, d, h, rise = house.width, house.depth, house.height, house.rise
        left_back, right, right_back = (corner + d * back, corner + w * along,
                                        corner + w * along + d * back)
        if house.design.roof == 'gable':
            span, depth = w, d
            slopes = ((left_back, -back, -along), (right, back, along))
        elif house.design.roof == 'ridge':
            span, depth = d, w
            slopes = ((corner, along, -back), (right_back, -along, back))
        else:
            return
        length = math.hypot(span / 2, rise)
        for origin, across, fall in slopes:
            ridge = origin + (h + rise) * UP - fall * (span / 2)
            down = (fall * (span / 2) - rise * UP) / length
            yield self._roof(house, ridge, across, down, (depth, length))

    def _side(self, house: House, which: int, origin: NDArray[np.float64],
              right: NDArray[np.float64]) -> Face:
        d, h = house.depth, house.height
        rise = house.rise if house.design.roof == 'ridge' else 0.0
        top = h + rise
        normal = np.cross(-UP, right)
        texture = Texture(lambda: facades.side(house, self._town.seed, self._condition,
                                               self._drive_seed, which, normal))
        outline = [(0, rise), (d / 2, 0), (d, rise), (d, top), (0, top)] if rise \
            else [(0, 0), (d, 0), (d, h), (0, h)]
        return Face(origin + top * UP, right, -UP, (d, top), np.array(outline, float), texture,
                    eaves=rise)

    def _roof(self, house: House, origin: NDArray[np.float64], right: NDArray[np.float64],
              down: NDArray[np.float64], size: tuple[float, float]) -> Face:
        light = self._condition.light(np.cross(down, right))
        kind = house.number % 4
        texture = self._texture(('roof', kind, *np.round(light, 1)),
                                lambda: facades.roof(self._condition, light, kind))
        return rectangle(origin, right, down, size, texture)

    def _chimney(self, base: NDArray[np.float64], along: NDArray[np.float64],
                 back: NDArray[np.float64]) -> list[Face]:
        return self._box(base, along, back, (0.7, 0.7, 2.2), (128, 78, 62))

    def _box(self, base: NDArray[np.float64], along: NDArray[np.float64],
             back: NDArray[np.float64], size: tuple[float, float, float],
             colour: tuple[int, int, int]) -> list[Face]:
        """Return the four walls of an upright box whose front left lower corner is `base`."""
        w, d, h = size
        faces = []
        for origin, right, length in ((base, along, w), (base + w * along, back, d),
                                      (base + w * along + d * back, -along, w),
                                      (base + d * back, -back, d)):
            faces.append(rectangle(origin + h * UP, right, -UP, (length, h),
                                   lit(colour, self._condition, np.cross(-UP, right))))
        return faces

    def _tower(self, house: House) -> Body:
        along = np.append(house.along, 0.0)
        back = np.array([-house.along[1], house.along[0], 0.0])
        base = np.append(house.ground_point(house.width + 0.2, 0.5), 0.0)
        wide, high = 5.0, 22.0
        faces = self._box(base, along, back, (wide, wide, high), house.colour)
        apex = base + (along + back) * (wide / 2) + UP * (high + 11.0)
        ring = [base, base + wide * along, base + wide * (along + back), base + wide * back]
        for index in range(4):
            first, second = ring[index] + high * UP, ring[(index + 1) % 4] + high * UP
            normal = np.cross(second - first, apex - first)
            colour = (232, 235, 242) if self._condition.snow else (84, 104, 100)
            faces.append(polygon(np.array([apex, second, first]),
                                 lit(colour, self._condition, normal / np.linalg.norm(normal))))
        centre = (base + (along + back) * (wide / 2))[:2]
        return Body(tuple(faces), centre, 4.0)

    def _boundary(self, item: Boundary) -> list[Body]:
        """Return the boundary in short pieces, since bodies are sorted by their middles."""
        length = float(np.linalg.norm(item.end - item.start))
        count = math.ceil(length / _PIECE)
        right = np.append((item.end - item.start) / length, 0.0)
        normal = np.cross(-UP, right)
        light = (self._condition.light(normal) + self._condition.light(-normal)) / 2
        kind = item.number % 5
        texture = self._texture((item.kind, kind, *np.round(light, 1)), lambda: sprites.boundary(
            item.kind, kind, self._condition, light))
        bodies = []
        for index in range(count):
            start = item.start + (item.end - item.start) * (index / count)
            face = rectangle(np.append(start, item.height), right, -UP,
                             (length / count, item.height), texture, two_sided=True)
            bodies.append(Body((face,), start + right[:2] * (length / count / 2),
                               length / count / 2))
        return bodies

    def _add_fixtures(self) -> None:
        condition, seed = self._condition, self._town.seed
        # Width over height, the number of different textures, and how one is drawn.
        kinds: dict[str, tuple[float, int, Callable[[int], NDArray[np.uint8]]]] = {
            'tree': (sprites.TREE_SHAPE, 9, lambda number: sprites.tree(seed, number, condition)),
            'lamp': (1.6 / 6.2, 1, lambda number: sprites.lamp(condition)),
            'sign': (0.9 / 2.6, 4, lambda number: sprites.sign(number, condition)),
            'billboard': (2.2 / 3.0, 99,
                          lambda number: sprites.billboard(seed, number, condition))}
        for fixture in self._town.fixtures:
            if fixture.kind == 'parking':
                self._park(fixture)
                continue
            shape, count, draw = kinds[fixture.kind]
            number = fixture.number % count
            texture = self._texture((fixture.kind, number), partial(draw, number))
            self.sprites.append(Sprite(np.append(fixture.position, 0.0), fixture.size * shape,
                                       fixture.size, texture))

    def _park(self, space: Fixture) -> None:
        """Fill a parking space or leave it empty; a third of them are the same in every drive."""
        resident = np.random.default_rng((self._town.seed, 12, space.number))
        visitor = np.random.default_rng((self._town.seed, 13, space.number, self._drive_seed))
        rng = resident if resident.random() < 0.35 else visitor
        if rng.random() < 0.5:
            self.bodies.append(car_faces(random_car(rng), space.position, space.heading,
                                         self._condition))
