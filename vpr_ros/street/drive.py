"""
A drive through the town: motion, traffic, odometry, and a frame at every tick.

Everything follows from the town, the seed and the arguments; no clock is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.street.cars import car_faces
from vpr_ros.street.cars import random_car
from vpr_ros.street.conditions import condition_named
from vpr_ros.street.ground import ground
from vpr_ros.street.ground import sky
from vpr_ros.street.render import CAMERA_HEIGHT
from vpr_ros.street.render import camera_matrix
from vpr_ros.street.render import Renderer
from vpr_ros.street.render import View
from vpr_ros.street.route import Path
from vpr_ros.street.scene import Scene
from vpr_ros.street.sensor import Sensor
from vpr_ros.street.town import LANE
from vpr_ros.street.town import Town

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.street.cars import Car
    from vpr_ros.street.conditions import Condition
    from vpr_ros.street.faces import Body
    from vpr_ros.street.ground import Ground


@dataclass(frozen=True)
class DriveFrame:
    """
    One frame of a drive, with the truth and with what the wheels say.

    `pose` is base_link in 'map' (exact), `odometry` base_link in 'odom' (drifting, starts at the
    identity), both float64 (7,) x y z qx qy qz qw; `velocity` (2,) is forward m/s and yaw rate
    rad/s as the odometry measures them. `image` is uint8 (H,W,3) RGB, `stamp` is in ns.
    """

    stamp: int
    image: NDArray[np.uint8]
    pose: NDArray[np.float64]
    odometry: NDArray[np.float64]
    velocity: NDArray[np.float64]


def drive(town: Town, *, condition: str = 'spring', seed: int = 0, route: str = 'main',
          speed: float = 8.0, lateral_offset: float = 0.0, length: float | None = None,
          start: float = 0.0, rate: float = 10.0, width: int = 320, height: int = 240,
          traffic: bool = True,
          start_stamp: int = 1_700_000_000_000_000_000) -> Iterator[DriveFrame]:
    """
    Yield the frames of a drive along a route in the right-hand lane.

    `speed` is in m/s (it varies by some per cent), `lateral_offset` in m to the left of the lane's
    middle, `start` and `length` in m along the route (None: the whole of it; a closed route may be
    driven for longer than one lap), `rate` in Hz. Two drives of one town differ by `seed`: parked
    cars, traffic, lit windows, wobble, exposure and noise; the same arguments give the same bytes.
    Raises ValueError, naming the choices, for an unknown condition or route.
    """
    weather = condition_named(condition)
    path = Path(town.route(route), closed=town.closed(route))
    if speed <= 0 or rate <= 0 or width < 16 or height < 16:
        raise ValueError(f'speed {speed}, rate {rate} and size {width}x{height} must be positive '
                         '(and the size at least 16x16)')
    if length is None:
        length = path.length if path.closed else path.length - start
    elif not path.closed:
        length = min(length, path.length - start)
    return _frames(town, weather, seed, path, speed, lateral_offset, length, start, rate,
                   (width, height), traffic, start_stamp)


def _frames(town: Town, condition: Condition, seed: int, path: Path, speed: float, offset: float,
            length: float, start: float, rate: float, size: tuple[int, int], traffic: bool,
            start_stamp: int) -> Iterator[DriveFrame]:
    rng = np.random.default_rng((15, seed))
    scene = Scene(town, condition, seed)
    renderer = Renderer(scene.bodies, scene.sprites, *_surroundings(town.seed, condition.name),
                        size)
    sensor = Sensor(condition, seed, size)
    motion = _Motion(path, speed, offset, start, rng)
    odometry = _Odometry(rng)
    others = _Traffic(path, start, condition, np.random.default_rng((16, seed))) \
        if traffic else None
    focal = float(camera_matrix(*size)[1, 1])
    tick = 0
    while motion.travelled < length:
        pose, velocity = motion.state()
        wheels = odometry.measure(pose, velocity, 1.0 / rate, motion.curved)
        pitch = 0.004 * math.sin(1.7 * motion.time + motion.phase) + rng.normal(0, 0.0012)
        roll = 0.003 * math.sin(1.1 * motion.time + 2 * motion.phase)
        view = View(np.array([pose[0], pose[1], CAMERA_HEIGHT]), pose[2], pitch, roll)
        moving = others.bodies(motion.time, start + motion.travelled) if others else []
        picture = renderer.render(view, moving)
        horizon = (size[1] - 1) / 2 - focal * math.tan(pitch)
        on_ground = (renderer.depth == renderer.ground_depth) & (renderer.depth < 200.0)
        yield DriveFrame(start_stamp + round(tick * 1e9 / rate),
                         sensor.expose(picture, renderer.depth, on_ground, horizon),
                         _pose(*pose), _pose(*odometry.pose), wheels)
        tick += 1
        motion.step(1.0 / rate)


@lru_cache(maxsize=4)
def _surroundings(seed: int, condition_name: str) -> tuple[Ground, NDArray[np.uint8]]:
    town, condition = Town(seed), condition_named(condition_name)
    return ground(town, condition), sky(town, condition)


def _pose(x: float, y: float, yaw: float) -> NDArray[np.float64]:
    return np.array([x, y, 0.0, 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])


class _Motion:
    """Where the vehicle is: along the path with changing speed, swaying within the lane."""

    def __init__(self, path: Path, speed: float, offset: float, start: float,
                 rng: np.random.Generator) -> None:
        self._path, self._speed, self._offset, self._start = path, speed, offset, start
        self.phase, self._sway, self._pace = rng.uniform(0, 2 * math.pi, 3)
        self.travelled = 0.0
        self.time = 0.0
        self.curved = 0.0

    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the true (x, y, yaw) and the true (forward speed, yaw rate)."""
        here, soon = self._at(self.time, self.travelled), 1e-3
        there = self._at(self.time + soon, self.travelled + self._pace_now() * soon)
        change = (there - here) / soon
        self.curved = change[2]
        forward = change[0] * math.cos(here[2]) + change[1] * math.sin(here[2])
        return here, np.array([forward, change[2]])

    def step(self, duration: float) -> None:
        self.travelled += self._pace_now() * duration
        self.time += duration

    def _pace_now(self) -> float:
        return self._speed * (1 + 0.06 * math.sin(0.31 * self.time + self._pace)
                              + 0.03 * math.sin(1.3 * self.time + 2 * self._pace))

    def _at(self, time: float, travelled: float) -> NDArray[np.float64]:
        sway = 0.12 * math.sin(0.055 * travelled + self._sway)
        point, heading = self._path.at(self._start + travelled, self._offset + sway)
        heading += 0.008 * math.sin(0.9 * time + self.phase) \
            + 0.005 * math.sin(2.3 * time + self._sway)
        return np.array([point[0], point[1], heading])


class _Odometry:
    """Wheel odometry with a wrong scale, a drifting yaw rate and slip in the corners."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._scale = 1 + rng.choice([-1.0, 1.0]) * rng.uniform(0.006, 0.014)
        self._turn = 1 + rng.normal(0, 0.01)
        self._bias = rng.normal(0, 4e-4)    # rad/s
        self._last: NDArray[np.float64] | None = None
        self.pose = np.zeros(3)

    def measure(self, pose: NDArray[np.float64], velocity: NDArray[np.float64], duration: float,
                curved: float) -> NDArray[np.float64]:
        """Move on to the true `pose` (3,) after `duration` s; return the measured velocity."""
        self._bias += self._rng.normal(0, 1.2e-4 * math.sqrt(duration))
        slip = 1 - 0.02 * min(abs(curved), 1.0)
        if self._last is not None:
            dx, dy = pose[:2] - self._last[:2]
            middle = self._last[2]
            ahead = dx * math.cos(middle) + dy * math.sin(middle)
            aside = dy * math.cos(middle) - dx * math.sin(middle)
            turn = math.remainder(pose[2] - self._last[2], 2 * math.pi)
            ahead *= self._scale * slip * (1 + self._rng.normal(0, 0.004))
            yaw = self.pose[2]
            self.pose = self.pose + np.array([
                ahead * math.cos(yaw) - aside * math.sin(yaw),
                ahead * math.sin(yaw) + aside * math.cos(yaw),
                turn * self._turn + self._bias * duration
                + self._rng.normal(0, 6e-4 * math.sqrt(duration))])
        self._last = pose
        return np.array([velocity[0] * self._scale * slip + self._rng.normal(0, 0.02),
                         velocity[1] * self._turn + self._bias + self._rng.normal(0, 0.002)])


class _Traffic:
    """Cars and vans ahead in the lane and coming the other way."""

    def __init__(self, path: Path, start: float, condition: Condition,
                 rng: np.random.Generator) -> None:
        self._path, self._condition = path, condition
        self._leaders: list[tuple[float, float, float, Car]] = []
        self._oncoming: list[tuple[float, float, Car]] = []
        where = start + rng.uniform(0, 60)
        while where < start + 20 * path.length and len(self._leaders) < 400:
            stretch = rng.uniform(50, 130)
            self._leaders.append((where, where + stretch, rng.uniform(8, 18), random_car(rng)))
            where += stretch + rng.uniform(40, 160)
        where = start + rng.uniform(10, 60)
        while where < start + 20 * path.length and len(self._oncoming) < 600:
            self._oncoming.append((where, rng.uniform(6.5, 9.5), random_car(rng)))
            where += rng.uniform(45, 160)

    def bodies(self, time: float, along: float) -> list[Body]:
        """Return the vehicles within sight at `time` s, seen from `along` m on the path."""
        bodies = []
        for low, high, gap, car in self._leaders:
            if low <= along <= high:
                # Comes from afar and leaves again, rather than out of nowhere.
                away = gap + 3.0 * (max(0.0, 20 - along + low) + max(0.0, 20 - high + along))
                bodies.append(self._body(along + away, 0.0, 0.0, car))
        for spot, pace, car in self._oncoming:
            where = spot - pace * time
            if along - 8 < where < along + 110:
                bodies.append(self._body(where, 2 * LANE, math.pi, car))
        return bodies

    def _body(self, along: float, offset: float, turned: float, car: Car) -> Body:
        point, heading = self._path.at(along, offset)
        return car_faces(car, point, heading + turned, self._condition)
