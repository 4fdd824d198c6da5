"""Towns follow from their seed: long, separate routes, and no two towns alike."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.street import Town


@pytest.mark.parametrize('seed', range(6))
def test_routes_are_long_enough_and_apart(seed: int) -> None:
    town = Town(seed)
    main, other = town.route('main'), town.route('other')
    lengths = [np.linalg.norm(np.diff(route, axis=0), axis=1).sum() for route in (main, other)]
    assert lengths[0] >= 500.0
    assert lengths[1] >= 200.0
    assert np.linalg.norm(main[0] - main[-1]) < 1.0
    apart = np.linalg.norm(main[:, None] - other[None, ::8], axis=2).min()
    assert apart > 30.0


@pytest.mark.parametrize('seed', range(3))
def test_the_main_route_turns_both_ways(seed: int) -> None:
    steps = np.diff(Town(seed).route('main')[::8], axis=0)
    heading = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    bend = heading[6:] - heading[:-6]
    assert bend.max() > 1.0
    assert bend.min() < -1.0


def test_the_same_seed_gives_the_same_town() -> None:
    one, two = Town(11), Town(11)
    assert np.array_equal(one.route('main'), two.route('main'))
    assert [(house.design.name, house.width, house.colour) for house in one.houses] \
        == [(house.design.name, house.width, house.colour) for house in two.houses]


def test_other_seeds_give_other_towns() -> None:
    one, two = Town(1), Town(2)
    assert one.route('main').shape != two.route('main').shape \
        or not np.allclose(one.route('main'), two.route('main'))
    assert [house.design.name for house in one.houses] \
        != [house.design.name for house in two.houses]


def test_houses_share_few_designs_and_keep_off_the_road() -> None:
    town = Town(3)
    assert len(town.houses) > 120
    assert len({house.design.name for house in town.houses}) <= 10
    route = town.route('main')
    for house in town.houses:
        distance = np.linalg.norm(route[:, None] - house.footprint()[None], axis=2).min()
        assert distance > 3.5


def test_a_route_is_read_only() -> None:
    with pytest.raises(ValueError, match='read-only'):
        Town(0).route('main')[0] = 0.0
