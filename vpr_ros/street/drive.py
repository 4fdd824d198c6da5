"""
A drive through the town: motion, traffic, odometry, and a frame at a steady rate.

Everything follows from the town, the seed and the arguments; no clock is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.street.camera import CAMERA_HEIGHT
from vpr_ros.street.camera import camera_matrix
from vpr_ros.street.camera import View
from vpr_ros.street.cars import car_faces
from vpr_ros.street.cars import random_car
from vpr_ros.street.conditions import condition_named
from vpr_ros.street.elements import LANE
from vpr_ros.street.ground import ground
from vpr_ros.street.ground import sky
from vpr_ros.street.render import Renderer
from vpr_ros.street.route import Path
from vpr_ros.street.scene import Scene
from vpr_ros.street.sensor import Sensor
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
    One frame of a drive, with its true pose and the odometry.

    `pose` is base_link in 'map' (exact), `odometry` base_link in 'odom' (drifting, starts at the
    identity), both float64 (7,) x y z qx qy qz qw; `velocity` (2,) is forward m/s and yaw rate
    rad/s as the odometry measures them. `image` is uint8 (H,W,3) RGB, `stamp` is in ns. `view` is
    where the camera is, `nearness` float32 (H,W) 1/m along its optical axis (0: the sky), or None.
    """

    stamp: int
    image: NDArray[np.uint8]
    pose: NDArray[np.float64]
    odometry: NDArray[np.float64]
    velocity: NDArray[np.float64]
    view: View
    nearness: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class DriveOptions:
    """
    What is seldom changed about a drive.

    `route` and `start` (m) say where along the town it begins, `width` and `height` are those of
    the frames in pixels, `traffic` adds cars that move, `start_stamp` (ns) is the first stamp,
    `nearness` asks for that of the frames.
    """

    route: str = 'main'
    start: float = 0.0
    width: int = 320
    height: int = 240
    traffic: bool = True
    start_stamp: int = 1_700_000_000_000_000_000
    nearness: bool = False


def drive(town: Town, *, condition: str = 'spring', seed: int = 0, speed: float = 8.0,
          rate: float = 10.0, lateral_offset: float = 0.0, length: float | None = None,
          options: DriveOptions = DriveOptions()) -> Iterator[DriveFrame]:
    """
    Yield the frames of a drive along a route in the right-hand lane.

    `speed` is in m/s (it varies by some per cent), `rate` in Hz, `lateral_offset` in m to the left
    of the lane's middle, `length` in m along the route (None: to its end; a closed route may be
    driven for longer than one lap). Two drives of one town differ by `seed`: parked cars, traffic,
    lit windows, sway, exposure and noise; the same arguments give the same bytes. Raises
    ValueError, naming the choices, for an unknown condition or route.
    """
    weather = condition_named(condition)
    path = Path(town.route(options.route), closed=town.closed(options.route))
    if speed <= 0 or rate <= 0 or options.width < 16 or options.height < 16:
        raise ValueError(f'speed {speed}, rate {rate} and size {options.width}x{options.height} '
                         'must be positive (and the size at least 16x16)')
    end = path.length if path.closed else path.length - options.start
    if length is None:
        length = end
    elif not path.closed:
        length = min(length, end)
    rng = np.random.default_rng((15, seed))
    motion = _Motion(path, speed, lateral_offset, options.start, rng)
    return _frames(town, weather, motion, rng, seed=seed, rate=rate, length=length,
                   options=options)


def _frames(town: Town, condition: Condition, motion: _Motion, rng: np.random.Generator, *,
            seed: int, rate: float, length: float, options: DriveOptions) -> Iterator[DriveFrame]:
    size = (options.width, options.height)
    scene = Scene(town, condition, seed)
    renderer = Renderer(scene.bodies, scene.sprites, *_surroundings(town.seed, condition.name),
                        size, exact=options.nearness)
    sensor = Sensor(condition, seed, size)
    odometry = _Odometry(rng)
    traffic = _Traffic(motion.path, options.start, condition, np.random.default_rng((16, seed))) \
        if options.traffic else None
    focal = float(camera_matrix(*size)[1, 1])
    count = 0
    while motion.travelled < length:
        pose, velocity = motion.state()
        measured = odometry.measure(pose, velocity, 1.0 / rate)
        pitch = 0.004 * math.sin(1.7 * motion.time + motion.phase) + rng.normal(0, 0.0012)
        roll = 0.003 * math.sin(1.1 * motion.time + 2 * motion.phase)
        view = View(np.array([pose[0], pose[1], CAMERA_HEIGHT]), pose[2], pitch, roll)
        moving = traffic.bodies(motion.time, options.start + motion.travelled) if traffic else []
        image = renderer.render(view, moving)
        horizon = (size[1] - 1) / 2 - focal * math.tan(pitch)
        on_ground = (renderer.depth == renderer.ground_depth) & (renderer.depth < 200.0)
        yield DriveFrame(options.start_stamp + round(count * 1e9 / rate),
                         sensor.expose(image, renderer.depth, on_ground, horizon),
                         _pose(*pose), _pose(*odometry.pose), measured, view,
                         None if renderer.nearness is None else renderer.nearness.copy())
        count += 1
        motion.step(1.0 / rate)


@lru_cache(maxsize=4)
def _surroundings(seed: int, condition_name: str) -> tuple[Ground, NDArray[np.uint8]]:
    town, condition = Town(seed), condition_named(condition_name)
    return ground(town, condition), sky(town, condition)


def _pose(x: float, y: float, yaw: float) -> NDArray[np.float64]:
    return np.array([x, y, 0.0, 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])


class _Motion:
    """The true motion of the vehicle: along the path at varying speed, swaying in the lane."""

    def __init__(self, path: Path, speed: float, offset: float, start: float,
                 rng: np.random.Generator) -> None:
        self.path = path
        self._speed, self._offset, self._start = speed, offset, start
        self.phase, self._sway_phase, self._speed_phase = rng.uniform(0, 2 * math.pi, 3)
        self.travelled = 0.0
        self.time = 0.0

    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the true (x, y, yaw) and the true (forward speed, yaw rate)."""
        here, step = self._at(self.time, self.travelled), 1e-3
        there = self._at(self.time + step, self.travelled + self._speed_now() * step)
        change = (there - here) / step
        forward = change[0] * math.cos(here[2]) + change[1] * math.sin(here[2])
        return here, np.array([forward, change[2]])

    def step(self, duration: float) -> None:
        self.travelled += self._speed_now() * duration
        self.time += duration

    def _speed_now(self) -> float:
        return self._speed * (1 + 0.06 * math.sin(0.31 * self.time + self._speed_phase)
                              + 0.03 * math.sin(1.3 * self.time + 2 * self._speed_phase))

    def _at(self, time: float, travelled: float) -> NDArray[np.float64]:
        sway = 0.12 * math.sin(0.055 * travelled + self._sway_phase)
        point, heading = self.path.at(self._start + travelled, self._offset + sway)
        heading += 0.008 * math.sin(0.9 * time + self.phase) \
            + 0.005 * math.sin(2.3 * time + self._sway_phase)
        return np.array([point[0], point[1], heading])


class _Odometry:
    """Wheel odometry with a wrong scale, a drifting yaw rate and slip in the corners."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._scale = 1 + rng.choice([-1.0, 1.0]) * rng.uniform(0.006, 0.014)
        self._turn_scale = 1 + rng.normal(0, 0.01)
        self._bias = rng.normal(0, 4e-4)    # rad/s
        self._last: NDArray[np.float64] | None = None
        self.pose = np.zeros(3)

    def measure(self, pose: NDArray[np.float64], velocity: NDArray[np.float64], duration: float
                ) -> NDArray[np.float64]:
        """Advance by `duration` s to the true `pose` (3,); return the measured velocity (2,)."""
        self._bias += self._rng.normal(0, 1.2e-4 * math.sqrt(duration))
        slip = 1 - 0.02 * min(abs(velocity[1]), 1.0)
        if self._last is not None:
            dx, dy = pose[:2] - self._last[:2]
            heading = self._last[2]
            ahead = dx * math.cos(heading) + dy * math.sin(heading)
            aside = dy * math.cos(heading) - dx * math.sin(heading)
            turn = math.remainder(pose[2] - self._last[2], 2 * math.pi)
            ahead *= self._scale * slip * (1 + self._rng.normal(0, 0.004))
            yaw = self.pose[2]
            self.pose = self.pose + np.array([
                ahead * math.cos(yaw) - aside * math.sin(yaw),
                ahead * math.sin(yaw) + aside * math.cos(yaw),
                turn * self._turn_scale + self._bias * duration
                + self._rng.normal(0, 6e-4 * math.sqrt(duration))])
        self._last = pose
        return np.array([velocity[0] * self._scale * slip + self._rng.normal(0, 0.02),
                         velocity[1] * self._turn_scale + self._bias + self._rng.normal(0, 0.002)])


class _Traffic:
    """Cars and vans ahead in the lane and oncoming."""

    def __init__(self, path: Path, start: float, condition: Condition,
                 rng: np.random.Generator) -> None:
        self._path, self._condition = path, condition
        # From and to which distance along the path they are ahead, and how far ahead, in m.
        self._leaders: list[tuple[float, float, float, Car]] = []
        # Where they are at time 0, in m along the path, and their speed in m/s.
        self._oncoming: list[tuple[float, float, Car]] = []
        along = start + rng.uniform(0, 60)
        while along < start + 20 * path.length and len(self._leaders) < 400:
            stretch = rng.uniform(50, 130)
            self._leaders.append((along, along + stretch, rng.uniform(8, 18), random_car(rng)))
            along += stretch + rng.uniform(40, 160)
        along = start + rng.uniform(10, 60)
        while along < start + 20 * path.length and len(self._oncoming) < 600:
            self._oncoming.append((along, rng.uniform(6.5, 9.5), random_car(rng)))
            along += rng.uniform(45, 160)

    def bodies(self, time: float, along: float) -> list[Body]:
        """Return the vehicles in sight at `time` s, seen from `along` m along the path."""
        bodies = []
        for low, high, gap, car in self._leaders:
            if low <= along <= high:
                # It approaches from afar and leaves again, rather than appearing from nowhere.
                ahead = gap + 3.0 * (max(0.0, 20 - along + low) + max(0.0, 20 - high + along))
                bodies.append(self._body(along + ahead, 0.0, 0.0, car))
        for start, speed, car in self._oncoming:
            position = start - speed * time
            if along - 8 < position < along + 110:
                bodies.append(self._body(position, 2 * LANE, math.pi, car))
        return bodies

    def _body(self, along: float, offset: float, turn: float, car: Car) -> Body:
        point, heading = self._path.at(along, offset)
        return car_faces(car, point, heading + turn, self._condition)
