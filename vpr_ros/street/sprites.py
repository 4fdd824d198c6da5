"""
Textures with an outline: trees, lamps, road signs, billboards, hedges, fences and walls.

Each is an image uint8 (H,W,4) RGBA, drawn under a condition.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from vpr_ros.street.conditions import SNOW
from vpr_ros.street.textures import grain

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.street.conditions import Condition

TREE_SHAPE = 0.8    # width of a tree's texture over its height
_TREE = (150, 120)  # height and width in pixels
_TREE_SCALE = 2     # trees are drawn larger by this factor, and reduced


@dataclass(frozen=True)
class _Branch:
    """A branch of a tree: where it begins, its direction and its size, in pixels and rad."""

    x: float
    y: float
    angle: float
    length: float
    thickness: float
    depth: int      # 0: the trunk

    @property
    def end(self) -> tuple[float, float]:
        return (self.x + self.length * math.cos(self.angle),
                self.y + self.length * math.sin(self.angle))


def tree(seed: int, number: int, condition: Condition) -> NDArray[np.uint8]:
    """Return a tree: its number sets the skeleton, the condition adds leaves or snow."""
    rng = np.random.default_rng((seed, 7, number))
    height, width = _TREE[0] * _TREE_SCALE, _TREE[1] * _TREE_SCALE
    canvas = np.zeros((height, width, 4), np.uint8)
    light = np.clip(np.asarray(condition.ambient) + 0.6 * np.asarray(condition.sun), 0, 1.15)
    bark = (*(int(c) for c in np.array([92, 74, 60]) * light), 255)
    trunk = _Branch(width / 2, height - 1.0, -math.pi / 2, height * 0.30, 13.0, 0)
    tips = _grow(canvas, trunk, bark, rng)
    if condition.leaves:
        _add_leaves(canvas, tips, light, rng)
    elif condition.snow:
        white = (*(int(c) for c in np.clip(np.array(SNOW) * light, 0, 255)), 255)
        for x, y in tips:
            if rng.random() < 0.5:
                cv2.line(canvas, (int(x) - 5, int(y) - 1), (int(x) + 4, int(y) - 2), white, 2)
    reduced = cv2.resize(canvas, (_TREE[1], _TREE[0]), interpolation=cv2.INTER_AREA)
    return _spread_colours(np.asarray(reduced, np.uint8))


def _grow(canvas: NDArray[np.uint8], branch: _Branch, colour: tuple[int, ...],
          rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draw a branch and all that grow from it; return the ends (x, y) of the thinner ones."""
    x, y = branch.end
    cv2.line(canvas, (int(branch.x), int(branch.y)), (int(x), int(y)), colour,
             max(1, int(branch.thickness)), cv2.LINE_AA)
    tips = [(x, y)] if branch.depth >= 2 else []
    if branch.depth == 5:
        return tips
    for spread in (-1, 1) if branch.depth else (-1, 0, 1):
        turn = spread * rng.uniform(0.25, 0.62) + rng.normal(0, 0.12)
        tips += _grow(canvas, _Branch(
            x, y, branch.angle + turn, branch.length * rng.uniform(0.66, 0.84),
            branch.thickness * 0.62, branch.depth + 1), colour, rng)
    return tips


def _add_leaves(canvas: NDArray[np.uint8], tips: list[tuple[float, float]],
                light: NDArray[np.float64], rng: np.random.Generator) -> None:
    colours = ((86, 128, 52), (66, 110, 54), (116, 140, 60), (70, 100, 66), (222, 172, 184))
    base = np.array(colours[int(rng.choice(5, p=[.28, .28, .2, .14, .1]))], float)
    for x, y in sorted(tips, key=lambda tip: -tip[1]):
        for _ in range(3):
            shade = (0.72 + 0.5 * (1 - y / canvas.shape[0])) * rng.uniform(0.8, 1.2)
            colour = np.clip(base * shade * light, 0, 255)
            centre = (int(x + rng.normal(0, 9)), int(y + rng.normal(0, 8)))
            cv2.circle(canvas, centre, int(rng.uniform(7, 15)),
                       (*(int(c) for c in colour), 255), -1, cv2.LINE_AA)


def lamp(condition: Condition) -> NDArray[np.uint8]:
    """Return a lamp post, 1.6 m wide and 6.2 m high, lit at night."""
    canvas = np.zeros((248, 64, 4), np.uint8)
    light = np.asarray(condition.ambient) + 0.5 * np.asarray(condition.sun)
    pole = (*(int(c) for c in np.array([70, 76, 78]) * light), 255)
    if condition.night:
        reach = np.hypot(*np.meshgrid(np.arange(64) - 46, np.arange(64) - 16))
        canvas[:64, :, :3] = (255, 216, 150)
        canvas[:64, :, 3] = np.clip(230 * np.exp(-(reach / 11) ** 2), 0, 255)
    cv2.rectangle(canvas, (29, 20), (33, 247), pole, -1)
    cv2.rectangle(canvas, (28, 205), (35, 247), pole, -1)
    cv2.line(canvas, (31, 21), (46, 11), pole, 3)
    head = (255, 244, 214, 255) if condition.night else (216, 216, 208, 255)
    cv2.ellipse(canvas, (48, 12), (10, 5), 0, 0, 360, head, -1)
    return _spread_colours(canvas)


def sign(number: int, condition: Condition) -> NDArray[np.uint8]:
    """Return a road sign on its post, 0.9 m wide and 2.6 m high."""
    canvas = np.zeros((104, 36, 4), np.uint8)
    cv2.rectangle(canvas, (16, 20), (19, 103), (128, 130, 132, 255), -1)
    kind = number % 4
    if kind == 0:
        cv2.circle(canvas, (18, 18), 17, (200, 30, 34, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, (18, 18), 12, (244, 244, 240, 255), -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.fillConvexPoly(canvas, np.array([[18, 0], [35, 32], [1, 32]], np.int32),
                           (200, 30, 34, 255))
        cv2.fillConvexPoly(canvas, np.array([[18, 8], [29, 28], [7, 28]], np.int32),
                           (244, 244, 240, 255))
    elif kind == 2:
        cv2.rectangle(canvas, (2, 2), (33, 33), (30, 80, 170, 255), -1)
        cv2.rectangle(canvas, (14, 8), (19, 28), (244, 244, 240, 255), -1)
    else:
        cv2.fillConvexPoly(canvas, np.array([[18, 0], [35, 17], [18, 34], [1, 17]], np.int32),
                           (236, 190, 40, 255))
    return _illuminated(canvas, condition, 0.5)


def billboard(seed: int, number: int, condition: Condition) -> NDArray[np.uint8]:
    """Return a billboard, 2.2 m wide and 3.0 m high."""
    rng = np.random.default_rng((seed, 8, number))
    canvas = np.zeros((120, 88, 4), np.uint8)
    cv2.rectangle(canvas, (8, 60), (12, 119), (90, 92, 96, 255), -1)
    cv2.rectangle(canvas, (75, 60), (79, 119), (90, 92, 96, 255), -1)
    cv2.rectangle(canvas, (0, 0), (87, 84), (60, 62, 66, 255), -1)
    cv2.rectangle(canvas, (4, 4), (83, 80),
                  (*(int(c) for c in rng.integers(60, 250, 3)), 255), -1)
    for _ in range(4):
        colour = (*(int(c) for c in rng.integers(20, 250, 3)), 255)
        x, y, r = (int(value) for value in rng.integers((10, 10, 6), (76, 72, 24)))
        x0, x1, y0, y1 = max(4, x - r), min(83, x + r), max(4, y - r), min(80, y + r)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, -1)
    return _illuminated(canvas, condition, 0.9)


def boundary(kind: str, number: int, condition: Condition,
             light: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a stretch of 'hedge', 'fence' or 'wall', 24 pixels high."""
    rng = np.random.default_rng((9, number))
    height, width = 24, 72
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[..., 3] = 255
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
        canvas[..., 3] = np.where(gaps, 0, 255)
    if condition.snow:
        body[:4] = np.array(SNOW) * np.minimum(light + 0.1, 1.04)
        canvas[:4, :, 3] = 255
    canvas[..., :3] = np.clip(body, 0, 255)
    return _spread_colours(canvas)


def _illuminated(canvas: NDArray[np.uint8], condition: Condition, glow: float
                 ) -> NDArray[np.uint8]:
    """Apply daylight, or at night a light of its own, and snow on top."""
    light = np.asarray(condition.ambient) + 0.5 * np.asarray(condition.sun)
    if condition.night:
        light = np.maximum(light, glow * 0.7)
    canvas[..., :3] = np.clip(canvas[..., :3] * light, 0, 255)
    if condition.snow:
        canvas[:3, :, :3] = 242
    return _spread_colours(canvas)


def _spread_colours(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Spread the colours beyond the outline, so that reductions have no dark fringe."""
    alpha = canvas[..., 3].astype(np.float32) / 255
    weight = cv2.GaussianBlur(alpha, (0, 0), 4) + 1e-4
    spread = cv2.GaussianBlur(canvas[..., :3].astype(np.float32) * alpha[..., None], (0, 0), 4)
    mean = spread / weight[..., None]
    canvas = canvas.copy()
    inside = (canvas[..., 3] > 0)[..., None]
    canvas[..., :3] = np.where(inside, canvas[..., :3], np.clip(mean, 0, 255))
    return canvas
