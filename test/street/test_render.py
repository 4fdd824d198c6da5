"""The renderer agrees with projective geometry; its occlusion test leaves no pixel out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from vpr_ros.street.camera import camera_matrix
from vpr_ros.street.camera import View
from vpr_ros.street.conditions import condition_named
from vpr_ros.street.faces import Body
from vpr_ros.street.faces import rectangle
from vpr_ros.street.faces import UP
from vpr_ros.street.ground import Ground
from vpr_ros.street.occlusion import Skyline
from vpr_ros.street.render import Renderer
from vpr_ros.street.scene import Scene
from vpr_ros.street.textures import Texture
from vpr_ros.street.town import Town

EAST = View(np.array([0.0, 0.0, 1.4]), 0.0)


def plain_ground() -> Ground:
    return Ground(Texture(lambda: np.full((400, 400, 3), 90, np.uint8)), -100.0, 100.0, 200.0,
                  200.0)


def wall(distance: float, left: float, width: float, height: float,
         colour: tuple[int, int, int]) -> Body:
    """Return a wall across the view to the east."""
    face = rectangle(np.array([distance, left, height]), np.array([0.0, -1.0, 0.0]), -UP,
                     (width, height), colour)
    return Body((face,), np.array([distance, left - width / 2]), width / 2)


def renderer_of(*bodies: Body, size: tuple[int, int] = (160, 120)) -> Renderer:
    return Renderer(bodies, (), plain_ground(), np.full((256, 2048, 3), 200, np.uint8), size)


def test_a_wall_lies_where_the_pinhole_camera_puts_it() -> None:
    renderer = renderer_of(wall(10.0, 2.0, 3.0, 2.4, (255, 0, 0)))
    red = (renderer.render(EAST) == (255, 0, 0)).all(axis=2)
    rows, columns = np.nonzero(red)
    matrix = camera_matrix(160, 120)
    for corner, seen in (((-2.0, -1.0), (columns.min(), rows.min())),
                         ((1.0, 1.4), (columns.max(), rows.max()))):
        pixel = matrix @ (*corner, 10.0)
        assert np.abs(pixel[:2] / pixel[2] - seen).max() <= 1.5
    assert renderer.depth[red] == pytest.approx(10.0, rel=0.02)


def test_nearer_walls_cover_farther_ones() -> None:
    far, near = wall(20.0, 5.0, 10.0, 5.0, (0, 255, 0)), wall(8.0, 1.0, 2.0, 2.0, (255, 0, 0))
    image = renderer_of(near, far).render(EAST)
    assert tuple(image[60, 80]) == (255, 0, 0)
    assert (image == (0, 255, 0)).all(axis=2).any()


def test_walls_are_visible_from_outside_only() -> None:
    back = View(np.array([20.0, 0.0, 1.4]), np.pi)
    image = renderer_of(wall(10.0, 2.0, 4.0, 2.4, (255, 0, 0))).render(back)
    assert not (image == (255, 0, 0)).all(axis=2).any()


def test_the_depth_of_the_ground_follows_from_its_row() -> None:
    renderer = renderer_of(wall(-9.0, 0.0, 1.0, 1.0, (0, 0, 0)))
    renderer.render(EAST)
    focal = camera_matrix(160, 120)[1, 1]
    assert renderer.depth[110, 80] == pytest.approx(1.4 * focal / (110 - 59.5), rel=0.01)


def test_the_skyline_hides_only_what_is_wholly_below_it() -> None:
    skyline = Skyline(160, 120)
    skyline.add(20.0, 50.0, 100.0, 30.0)
    assert skyline.hides(40, 60, 60.0)
    assert not skyline.hides(40, 60, 20.0)
    assert not skyline.hides(10, 60, 60.0)
    assert not skyline.hides(90, 140, 60.0)


def test_leaving_out_hidden_faces_changes_no_pixel() -> None:
    town = Town(7)
    scene = Scene(town, condition_named('spring'), 0)
    transparent = [replace(body, faces=tuple(replace(face, eaves=float('nan'))
                                             for face in body.faces)) for body in scene.bodies]
    renderers = [Renderer(bodies, scene.sprites, plain_ground(),
                          np.full((256, 2048, 3), 200, np.uint8), (160, 120))
                 for bodies in (scene.bodies, transparent)]
    route = town.route('main')
    for index in range(0, len(route) - 4, 400):
        ahead = route[index + 4] - route[index]
        view = View(np.append(route[index], 1.4), float(np.arctan2(ahead[1], ahead[0])))
        short, full = (renderer.render(view) for renderer in renderers)
        assert np.array_equal(short, full)
