"""Places, areas and batches: what is in them, how often, and in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
import math
from pathlib import Path

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from vpr_ros import street  # noqa: E402
from vpr_ros.street import route  # noqa: E402
from vpr_ros.street.drive import _Motion  # noqa: E402
from vpr_ros.training.experiment import Experiment  # noqa: E402
from vpr_ros.training.experiment import read_experiment  # noqa: E402
from vpr_ros.training.image_table import ImageTable  # noqa: E402
from vpr_ros.training.sampler import AreaBatchSampler  # noqa: E402
from vpr_ros.training.sampler import BatchShape  # noqa: E402
from vpr_ros.training.sampler import group_areas  # noqa: E402
from vpr_ros.training.sampler import group_places  # noqa: E402
from vpr_ros.training.street_drives import plan  # noqa: E402
from vpr_ros.training.street_drives import SPEED  # noqa: E402
from vpr_ros.training.street_drives import StreetDrives  # noqa: E402


def town(places=24, images=5, sizes=(6, 6, 6, 6)):
    """Return places of so many images, areas of `sizes` places, and the images' sessions."""
    numbers = np.arange(places * images).reshape(places, images)
    return list(numbers), np.repeat(np.arange(len(sizes)), sizes), np.arange(numbers.size) % 3


def sampler(given_town=None, *, n=2, m=3, l=2, **options):  # noqa: E741
    return AreaBatchSampler(*(given_town or town()), BatchShape(n, m, l), **options)


def places_of(batch, images=5):
    return [index // images for index in batch]


@settings(max_examples=30, deadline=None)
@given(strategies.integers(0, 2**32 - 1), strategies.integers(0, 60), strategies.booleans())
def test_places_are_of_one_world_within_the_radius_and_every_image_is_in_one(seed, count, turn):
    random = np.random.default_rng(seed)
    world = random.integers(0, 3, count)
    position = 7e5 + random.uniform(-20, 20, (count, 2))
    heading = random.uniform(-10, 10, count)
    heading[random.uniform(size=count) < 0.2] = math.nan
    places = group_places(world, position, 10.0, heading=heading if turn else None)
    assert sorted(index for place in places for index in place) == list(range(count))
    for place in places:
        assert list(place) == sorted(place)
        assert len(set(world[place])) == 1
        apart = position[place][:, None] - position[place][None]
        assert np.linalg.norm(apart, axis=2).max() <= 10.0
        if turn:
            angle = heading[place][:, None] - heading[place][None]
            off = np.abs(np.arctan2(np.sin(angle), np.cos(angle)))
            known = ~np.isnan(heading[place])
            assert known.all() or not known.any()
            assert not (off > math.radians(60.0) + 1e-9).any()


def test_a_folder_per_place_stays_one_place():
    places = group_places(np.array([4, 4, 9, 9, 9]), np.zeros((5, 2)), 5.0)
    assert [list(place) for place in places] == [[0, 1], [2, 3, 4]]


def test_an_image_that_is_alone_is_its_own_place_with_as_many_views():
    alone = np.array([False, True, False, True])
    places = group_places(np.zeros(4, np.int64), np.zeros((4, 2)), 5.0, alone=alone, views=3)
    assert [list(place) for place in places] == [[0, 2], [1, 1, 1], [3, 3, 3]]


@pytest.mark.parametrize(('radius', 'where', 'words'),
                         [(0.0, 0.0, 'radius'), (math.nan, 0.0, 'radius'),
                          (1.0, math.nan, 'positions')])
def test_places_need_a_radius_and_positions(radius, where, words):
    with pytest.raises(ValueError, match=words):
        group_places(np.zeros(1, np.int64), np.full((1, 2), where), radius)


def test_areas_are_of_neighbours_in_one_world_and_of_even_size():
    random = np.random.default_rng(0)
    world = np.repeat([0, 1], [50, 31])
    centre = np.concatenate([random.uniform(0, 100, (50, 2)), random.uniform(0, 100, (31, 2))])
    area = group_areas(world, centre, 5)
    for one in np.unique(area):
        assert len(set(world[area == one])) == 1
        assert 5 <= np.sum(area == one) < 10
    # Half of a place's five nearest, at least, are in its own area: by chance it were a tenth.
    apart = np.linalg.norm(centre[:, None] - centre[None], axis=2) + 1e9 * (
        world[:, None] != world[None])
    nearest = np.argsort(apart, axis=1)[:, 1:6]
    assert np.mean(area[nearest] == area[:, None]) > 0.5


def test_worlds_of_few_places_share_areas():
    area = group_areas(np.arange(11), np.zeros((11, 2)), 4)
    assert sorted(np.bincount(area)) == [5, 6]
    assert (np.diff(area) >= 0).all() or (np.diff(area) <= 0).all()
    assert len(set(group_areas(np.arange(3), np.zeros((3, 2)), 4))) == 1
    assert len(group_areas(np.arange(0), np.zeros((0, 2)), 4)) == 0


def test_a_batch_is_areas_of_places_of_images():
    given_town = town()
    _, area, session = given_town
    for batch in sampler(given_town):
        by_place = np.array(places_of(batch)).reshape(2, 3, 2)
        assert (by_place[..., 0] == by_place[..., 1]).all()
        assert len(set(batch)) == 12
        areas = area[by_place[..., 0]]
        assert (areas == areas[:, :1]).all()
        assert len(set(areas[:, 0])) == 2
        assert (np.diff(session[batch].reshape(-1, 2)) != 0).all(), 'two sessions per place'


def test_an_epoch_goes_through_every_place_once():
    batches = list(sampler())
    taken = Counter(place for batch in batches for place in set(places_of(batch)))
    assert taken == dict.fromkeys(range(24), 1)
    assert len(batches) == len(sampler()) == 4


@settings(max_examples=25, deadline=None)
@given(strategies.integers(0, 1000), strategies.integers(1, 3), strategies.integers(1, 4),
       strategies.integers(1, 3), strategies.integers(1, 3))
def test_any_town_gives_whole_batches_as_long_as_promised(seed, n, m, l, replicas):  # noqa: E741
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 5, 60)
    places = np.split(random.permutation(lengths.sum()), lengths.cumsum()[:-1])
    area = random.integers(0, 5, 60)
    home = {index: place for place, ours in enumerate(places) for index in ours}
    session = random.integers(0, 3, lengths.sum())
    fit = [place for place in range(60) if lengths[place] >= min(l, 2)]
    fit = [place for place in fit if sum(area[other] == area[place] for other in fit) >= m]
    groups = sum(-(-count // m) for count in Counter(area[fit]).values())
    batches = []
    if groups < n * replicas:
        with pytest.raises(ValueError, match='too few images'):
            sampler((places, area, session), n=n, m=m, l=l, replicas=replicas)
        return
    for rank in range(replicas):
        one = sampler((places, area, session), n=n, m=m, l=l, seed=seed, rank=rank,
                      replicas=replicas)
        assert len(list(one)) == len(one) == groups // n // replicas
        batches += one
    assert one.left_out.images == lengths.sum() - lengths[fit].sum()
    for batch in batches:
        by_place = np.array([home[index] for index in batch]).reshape(n, m, l)
        assert (by_place == by_place[..., :1]).all()
        assert set(by_place.flat) <= set(fit)
        for group in by_place[..., 0]:
            assert len(set(group)) == m
            assert len(set(area[group])) == 1
    taken = {home[index] for batch in batches for index in batch}
    dropped = groups - len(batches) * n
    assert len(taken) >= len(fit) - dropped * m


def test_an_area_that_does_not_divide_is_filled_up_with_its_own():
    batches = list(sampler(town(sizes=(7, 5, 6, 6)), n=1))
    taken = Counter(place for batch in batches for place in set(places_of(batch)))
    assert set(taken) == set(range(24))
    assert sum(taken.values()) == 27
    assert max(taken.values()) == 2


def test_epochs_differ_and_come_again():
    one, same, other = sampler(seed=1), sampler(seed=1), sampler(seed=2)
    first = list(one)
    assert list(one) == first
    one.set_epoch(1)
    second = list(one)
    assert second != first
    same.set_epoch(1)
    assert list(same) == second
    assert list(other) != first


def test_the_dropped_last_batch_has_other_places_in_each_epoch():
    one = sampler(n=3)
    missing = set()
    for epoch in range(12):
        one.set_epoch(epoch)
        taken = {place for batch in one for place in places_of(batch)}
        assert len(taken) == 18
        missing |= set(range(24)) - taken
    assert len(missing) > 18


def test_replicas_share_an_epoch():
    whole = list(sampler(seed=5))
    shares = [list(sampler(seed=5, rank=rank, replicas=2)) for rank in range(2)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == whole


def test_what_is_left_out_is_counted():
    places, area, session = town()
    places[0] = places[0][:1]
    places[6:10] = [place[:1] for place in places[6:10]]
    one = sampler((places, area, session))
    assert one.left_out == (5, 2 * 5, 100)
    assert str(one.left_out) == (
        '15 of 100 images (15.0%) are left out: 5 have no second image of their place, 10 are of '
        'places with too few neighbours for an area')
    taken = {place for batch in one for place in places_of(batch)}
    assert taken == set(range(24)) - {0, *range(6, 12)}


def test_a_place_with_too_few_images_gives_some_of_them_again():
    for batch in sampler(town(images=3), l=4):
        for place in np.array(batch).reshape(-1, 4):
            assert len(set(place)) == 3


def test_the_only_image_of_a_cell_joins_a_place_that_it_fits_to():
    # Cells of 3.5 m: 0 and 1 | 4 | 8 | 11, of which 1 to 4 and 8 to 11 are within 5 m.
    position = np.array([[0, 0], [1, 0], [4, 0], [8, 0], [11, 0], [500, 0]], np.float64)
    world = np.zeros(6, np.int64)
    grouped = [list(place) for place in group_places(world, position, 5.0)]
    assert grouped == [[0, 1, 2], [3, 4], [5]]
    turned = np.array([0, 0, 3, 0, 0, 0], np.float64)
    grouped = [list(place) for place in group_places(world, position, 5.0, heading=turned)]
    assert grouped == [[0, 1], [2], [3, 4], [5]]
    assert len(group_places(np.arange(6), position, 5.0)) == 6


def drive_of_town(planned):
    """Return the poses (N,3), x y yaw, of a planned drive, without its images."""
    town_of = street.Town(planned.town)
    path = route.Path(town_of.route(planned.route), closed=town_of.closed(planned.route))
    motion = _Motion(path, SPEED, planned.offset, 0.0, np.random.default_rng(
        (15, planned.seed)))
    poses = []
    while motion.travelled < path.length:
        poses.append(motion.state()[0])
        motion.step(planned.spacing / SPEED)
    return np.array(poses)


@pytest.mark.parametrize(('name', 'images', 'taken', 'batches'), [
    # Before places without a second image were left out of the areas: 351 images, 11 batches.
    ('winter', 2631, 2620, 71),
    ('bundled', 13093, 13093, 131),     # 1910 images, 21 batches
    ('teacher', 13093, 13093, 131),
])
def test_nearly_all_images_of_the_experiments_take_part(name, images, taken, batches):
    experiment = read_experiment(
        Path(__file__).parents[2] / 'experiments' / f'{name}.yaml')
    source = next(dict(source) for source in experiment.data.values()
                  if source['kind'] == 'street')
    del source['kind']
    plans = plan(StreetDrives(**source))
    drives = [drive_of_town(planned) for planned in plans]
    pose, counts = np.concatenate(drives), [len(poses) for poses in drives]
    table = ImageTable((np.zeros,) * len(pose), ('',) * len(pose),
                       np.repeat([planned.town for planned in plans], counts), pose[:, :2],
                       pose[:, 2], np.repeat(np.arange(len(plans)), counts),
                       np.zeros(len(pose), bool))
    one = AreaBatchSampler.of_table(table, BatchShape(*astuple(experiment.batch)[:3]),
                                    experiment.relations.within)
    assert (one.left_out.total, len(one)) == (images, batches)
    assert images - one.left_out.images == taken


def test_a_single_drive_trains_with_the_defaults():
    for spacing in (1.0, 1.6, 4.0):
        along = np.arange(0, 2000, spacing)
        angle = along / 300.0  # a road that bends
        position = 300.0 * np.column_stack([np.sin(angle), 1 - np.cos(angle)])
        N = len(along)
        table = ImageTable((np.zeros,) * N, ('',) * N, np.zeros(N, np.int64), position, angle,
                           np.zeros(N, np.int64), np.zeros(N, bool))
        one = AreaBatchSampler.of_table(table, BatchShape(*astuple(Experiment().batch)[:3]),
                                        Experiment().relations.within)
        assert len(one) >= 15
        assert one.left_out.images < 0.03 * N


def test_an_image_on_its_own_is_given_once_for_each_view():
    places = group_places(np.zeros(8, np.int64), np.zeros((8, 2)), 1.0, alone=np.ones(8, bool))
    for batch in sampler((places, np.zeros(8), np.zeros(8)), n=1, m=4):
        assert batch[::2] == batch[1::2]
        assert len(set(batch)) == 4


def test_one_image_per_place_is_refused_with_what_is_missing():
    with pytest.raises(ValueError, match='0 of 24 places have 2 images or more'):
        sampler(town(images=1))
    with pytest.raises(ValueError, match='0 of 4 areas have 7 such places'):
        sampler(m=7)
    with pytest.raises(ValueError, match='too few images'):
        sampler(n=9)
    with pytest.raises(ValueError, match='24 places need as many areas'):
        sampler((town()[0], np.zeros(3), np.zeros(120)))
    with pytest.raises(ValueError, match='rank 2 of 2'):
        sampler(rank=2, replicas=2)


def test_lightning_sets_the_epoch(tmp_path):
    lightning = pytest.importorskip('lightning')
    seen = []

    class Module(lightning.LightningModule):

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch, index):
            seen.append(batch[0].tolist())
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(120)),
                                       batch_sampler=sampler())
    lightning.Trainer(max_epochs=2, accelerator='cpu', logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False,
                      default_root_dir=tmp_path).fit(Module(), data)
    expected = sampler()
    first = list(expected)
    expected.set_epoch(1)
    assert seen == first + list(expected)
