"""
Flat things with an outline: trees, lamps, signs, boards, hedges and the sides of cars.

Each is a picture uint8 (H,W,4), RGB and coverage, drawn under a condition.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street.textures import grain

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition

TREE_SHAPE = 0.8    # width of a tree's picture over its height
_TREE = (150, 120)


def tree(seed: int, number: int, condition: Condition) -> NDArray[np.uint8]:
    """Return a tree: the skeleton follows from the number, leaves or snow from the condition."""
    rng = np.random.default_rng((seed, 7, number))
    height, width = _TREE
    scale = 2
    big = np.zeros((height * scale, width * scale, 4), np.uint8)
    light = np.clip(np.asarray(condition.ambient) + 0.6 * np.asarray(condition.sun), 0, 1.15)
    bark = (*(int(c) for c in np.array([92, 74, 60]) * light), 255)
    tips: list[tuple[float, float]] = []
    _branch(big, width, height * scale - 1.0, -math.pi / 2, height * scale * 0.30, 13.0, 0, bark,
            tips, rng)
    if condition.leaves:
        colours = ((86, 128, 52), (66, 110, 54), (116, 140, 60), (70, 100, 66), (222, 172, 184))
        base = np.array(colours[int(rng.choice(5, p=[.28, .28, .2, .14, .1]))], float)
        order = sorted(range(len(tips)), key=lambda index: -tips[index][1])
        for index in order:
            x, y = tips[index]
            for _ in range(3):
                shade = (0.72 + 0.5 * (1 - y / (height * scale))) * rng.uniform(0.8, 1.2)
                colour = np.clip(base * shade * light, 0, 255)
                centre = (int(x + rng.normal(0, 9)), int(y + rng.normal(0, 8)))
                cv2.circle(big, centre, int(rng.uniform(7, 15)),
                           (*(int(c) for c in colour), 255), -1, cv2.LINE_AA)
    elif condition.snow:
        white = (*(int(c) for c in np.clip(np.array([240, 243, 250]) * light, 0, 255)), 255)
        for x, y in tips:
            if rng.random() < 0.5:
                cv2.line(big, (int(x) - 5, int(y) - 1), (int(x) + 4, int(y) - 2), white, 2)
    return _solid(np.asarray(cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA),
                             np.uint8))


def lamp(condition: Condition) -> NDArray[np.uint8]:
    """Return a lamp post, 1.6 m wide and 6.2 m high, lit at night."""
    picture = np.zeros((248, 64, 4), np.uint8)
    light = np.asarray(condition.ambient) + 0.5 * np.asarray(condition.sun)
    pole = (*(int(c) for c in np.array([70, 76, 78]) * light), 255)
    if condition.night:
        reach = np.hypot(*np.meshgrid(np.arange(64) - 46, np.arange(64) - 16))
        picture[:64, :, :3] = (255, 216, 150)
        picture[:64, :, 3] = np.clip(230 * np.exp(-(reach / 11) ** 2), 0, 255)
    cv2.rectangle(picture, (29, 20), (33, 247), pole, -1)
    cv2.rectangle(picture, (28, 205), (35, 247), pole, -1)
    cv2.line(picture, (31, 21), (46, 11), pole, 3)
    head = (255, 244, 214, 255) if condition.night else (216, 216, 208, 255)
    cv2.ellipse(picture, (48, 12), (10, 5), 0, 0, 360, head, -1)
    return _solid(picture)


def sign(number: int, condition: Condition) -> NDArray[np.uint8]:
    """Return a road sign on its post, 0.9 m wide and 2.6 m high."""
    picture = np.zeros((104, 36, 4), np.uint8)
    cv2.rectangle(picture, (16, 20), (19, 103), (128, 130, 132, 255), -1)
    kind = number % 4
    if kind == 0:
        cv2.circle(picture, (18, 18), 17, (200, 30, 34, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, (18, 18), 12, (244, 244, 240, 255), -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.fillConvexPoly(picture, np.array([[18, 0], [35, 32], [1, 32]], np.int32),
                           (200, 30, 34, 255))
        cv2.fillConvexPoly(picture, np.array([[18, 8], [29, 28], [7, 28]], np.int32),
                           (244, 244, 240, 255))
    elif kind == 2:
        cv2.rectangle(picture, (2, 2), (33, 33), (30, 80, 170, 255), -1)
        cv2.rectangle(picture, (14, 8), (19, 28), (244, 244, 240, 255), -1)
    else:
        cv2.fillConvexPoly(picture, np.array([[18, 0], [35, 17], [18, 34], [1, 17]], np.int32),
                           (236, 190, 40, 255))
    return _shine(picture, condition, 0.5)


def board(seed: int, number: int, condition: Condition) -> NDArray[np.uint8]:
    """Return an advertising board, 2.2 m wide and 3.0 m high."""
    rng = np.random.default_rng((seed, 8, number))
    picture = np.zeros((120, 88, 4), np.uint8)
    cv2.rectangle(picture, (8, 60), (12, 119), (90, 92, 96, 255), -1)
    cv2.rectangle(picture, (75, 60), (79, 119), (90, 92, 96, 255), -1)
    cv2.rectangle(picture, (0, 0), (87, 84), (60, 62, 66, 255), -1)
    cv2.rectangle(picture, (4, 4), (83, 80),
                  (*(int(c) for c in rng.integers(60, 250, 3)), 255), -1)
    for _ in range(4):
        colour = (*(int(c) for c in rng.integers(20, 250, 3)), 255)
        x, y, r = (int(value) for value in rng.integers((10, 10, 6), (76, 72, 24)))
        x0, x1, y0, y1 = max(4, x - r), min(83, x + r), max(4, y - r), min(80, y + r)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, -1)
    return _shine(picture, condition, 0.9)


def boundary(kind: str, number: int, condition: Condition,
             light: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a stretch of 'hedge', 'fence' or 'wall', 24 pixels high."""
    rng = np.random.default_rng((9, number))
    height, width = 24, 72
    picture = np.zeros((height, width, 4), np.uint8)
    picture[..., 3] = 255
    if kind == 'hedge':
        colour = np.array([62, 92, 48] if condition.leaves else [88, 80, 62], float)
        noise = grain((height, width), 3, rng) * 26 + grain((height, width), 7, rng) * 14
        body = (colour + noise[..., None]) * light
    elif kind == 'wall':
        body = np.array([150, 132, 120]) * light + 9 * grain((height, width), 4, rng)[..., None]
        body[::6] -= 12
    else:
        tone = ((232, 232, 226), (110, 84, 60), (60, 70, 66))[number % 3]
        body = np.broadcast_to(np.array(tone) * light, (height, width, 3)).copy()
        gaps = (np.arange(width) % 6 >= 3)[None, :] & (np.arange(height) % 18 > 3)[:, None]
        picture[..., 3] = np.where(gaps, 0, 255)
    if condition.snow:
        body[:4] = np.array([240, 243, 250]) * np.minimum(light + 0.1, 1.04)
        picture[:4, :, 3] = 255
    picture[..., :3] = np.clip(body, 0, 255)
    return _solid(picture)


def _branch(picture: NDArray[np.uint8], x: float, y: float, angle: float, length: float,
            thickness: float, depth: int, colour: tuple[int, ...],
            tips: list[tuple[float, float]], rng: np.random.Generator) -> None:
    x1, y1 = x + length * math.cos(angle), y + length * math.sin(angle)
    cv2.line(picture, (int(x), int(y)), (int(x1), int(y1)), colour, max(1, int(thickness)),
             cv2.LINE_AA)
    if depth >= 2:
        tips.append((x1, y1))
    if depth == 5:
        return
    for spread in (-1, 1) if depth else (-1, 0, 1):
        turn = spread * rng.uniform(0.25, 0.62) + rng.normal(0, 0.12)
        _branch(picture, x1, y1, angle + turn, length * rng.uniform(0.66, 0.84),
                thickness * 0.62, depth + 1, colour, tips, rng)


def _shine(picture: NDArray[np.uint8], condition: Condition, glow: float) -> NDArray[np.uint8]:
    light = np.asarray(condition.ambient) + 0.5 * np.asarray(condition.sun)
    if condition.night:
        light = np.maximum(light, glow * 0.7)
    picture[..., :3] = np.clip(picture[..., :3] * light, 0, 255)
    if condition.snow:
        picture[:3, :, :3] = 242
    return _solid(picture)


def _solid(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Spread the colours of an outline outwards, so that reductions have no dark fringe."""
    cover = picture[..., 3].astype(np.float32) / 255
    weight = cv2.GaussianBlur(cover, (0, 0), 4) + 1e-4
    spread = cv2.GaussianBlur(picture[..., :3].astype(np.float32) * cover[..., None], (0, 0), 4)
    mean = spread / weight[..., None]
    picture = picture.copy()
    inside = (picture[..., 3] > 0)[..., None]
    picture[..., :3] = np.where(inside, picture[..., :3], np.clip(mean, 0, 255))
    return picture
