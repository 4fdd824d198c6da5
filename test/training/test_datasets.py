"""Training images: every kind of source, positives and negatives, and invalid input."""

from __future__ import annotations

import logging
import math
import pickle
import re

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from small_drive import pose
from small_drive import render
from small_drive import write_bag
from small_drive import write_damaged
from small_drive import write_folder

torch = pytest.importorskip('torch')

from vpr_ros.core.errors import SourceError  # noqa: E402
from vpr_ros.core.pose_files import write_csv  # noqa: E402
from vpr_ros.training.datasets import folders_of_places  # noqa: E402
from vpr_ros.training.datasets import gsv_cities  # noqa: E402
from vpr_ros.training.datasets import single_images  # noqa: E402
from vpr_ros.training.datasets import street_images  # noqa: E402
from vpr_ros.training.datasets import traverses  # noqa: E402
from vpr_ros.training.datasets import utm_folder  # noqa: E402
from vpr_ros.training.image_table import check_readable  # noqa: E402
from vpr_ros.training.image_table import ImageDataset  # noqa: E402
from vpr_ros.training.image_table import ImageTable  # noqa: E402
from vpr_ros.training.street_drives import StreetDrives  # noqa: E402

SHORT = {'seed': 3, 'length': 9.0, 'size': (40, 30), 'drawn': (80, 60)}


def write(path, place=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), render(place)[..., ::-1])
    return path


def street(towns, conditions, **options):
    return street_images(StreetDrives(towns=towns, conditions=conditions, **SHORT | options))


def table(world, *, position=None, heading=None, session=None):
    """Return images of one colour each: that of their index."""
    N = len(world)
    return ImageTable(
        tuple(lambda i=i: np.full((9, 12, 3), i, np.uint8) for i in range(N)),
        tuple(f'image {i}' for i in range(N)), np.array(world, np.int64),
        np.zeros((N, 2)) if position is None else np.array(position, np.float64),
        np.full(N, np.nan) if heading is None else np.array(heading, np.float64),
        np.zeros(N, np.int64) if session is None else np.array(session, np.int64),
        np.zeros(N, np.bool_))


# The table

def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match='a table of 2 images'):
        table([0, 1], heading=[0.0])


numbers = st.lists(st.integers(-2, 3), max_size=6)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
def test_joining_keeps_worlds_and_sessions_of_different_tables_distinct(columns):
    tables = [table(world[:n], session=session[:n]) for world, session in columns
              for n in [min(len(world), len(session))]]
    joined = ImageTable.join(tables)
    owner = np.repeat(np.arange(len(tables)), [len(one) for one in tables])
    assert len(joined) == len(owner)
    for name in ('world', 'session'):
        before = np.concatenate([getattr(one, name) for one in tables])
        after = getattr(joined, name)
        same = (owner[:, None] == owner) & (before[:, None] == before)
        assert ((after[:, None] == after) == same).all()


def test_joining_nothing_is_refused():
    with pytest.raises(ValueError, match='no tables'):
        ImageTable.join([])


def test_select_takes_indices_or_a_mask():
    images = table([4, 5, 6])
    chosen = images.select([2, 0])
    assert chosen.names == ('image 2', 'image 0')
    assert chosen.world.tolist() == [6, 4]
    assert chosen.read(0)[0, 0, 0] == 2
    assert images.select(np.array([False, True, False])).names == ('image 1',)
    assert len(images.select([])) == 0


# Positives and negatives

def test_positives_are_near_and_negatives_are_far_and_the_rest_is_neither():
    images = table([0, 0, 0, 0, 1], position=[[0, 0], [3, 4], [0, 9], [0, 21], [0, 0]],
                   session=[0, 1, 0, 0, 0])
    positive, negative = images.relations(range(5), 5.0, 20.0)
    assert positive[0].tolist() == [False, True, False, False, False]
    assert negative[0].tolist() == [False, False, False, True, True]


def test_positives_look_the_same_way():
    images = table([0] * 4, heading=[math.pi - 0.1, -math.pi + 0.1, 0.0, math.nan])
    positive, negative = images.relations(range(4), 1.0, 2.0)
    assert positive[0].tolist() == [False, True, False, True]
    assert positive[2].tolist() == [False, False, False, True]
    assert not negative.any()


def test_two_views_of_one_image_are_positives_but_none_is_its_own():
    positive, negative = table([0, 1]).relations([1, 0, 1], 0.0, 0.0)
    assert positive.tolist() == [[False, False, True], [False, False, False],
                                 [True, False, False]]
    assert negative[0].tolist() == [False, True, False]


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-50, 50), st.floats(-50, 50),
                          st.one_of(st.just(math.nan), st.floats(-4, 4))), min_size=1),
       st.floats(0, 30), st.floats(0, 30))
def test_relations_are_mutual_and_exclude_each_other(rows, within, more):
    world, x, y, heading = zip(*rows, strict=True)
    images = table(world, position=np.stack([x, y], axis=1), heading=heading)
    positive, negative = images.relations(range(len(rows)), within, within + more)
    assert (positive == positive.T).all()
    assert (negative == negative.T).all()
    assert not (positive & negative).any()
    assert not positive.diagonal().any()
    assert not negative.diagonal().any()


def test_negatives_nearer_than_positives_are_refused():
    with pytest.raises(ValueError, match='within 10'):
        table([0]).relations([0], 10.0, 5.0)


# Folders of places

def test_each_folder_is_a_place(tmp_path):
    for name in ('a/1.png', 'a/2.jpg', 'b/1.png', 'b/2.png'):
        write(tmp_path / name)
    (tmp_path / '.hidden').mkdir()
    images = folders_of_places(tmp_path)
    assert len(images) == 4
    positive, negative = images.relations(range(4), 5.0, 20.0)
    assert positive[0].tolist() == [False, True, False, False]
    assert negative[0].tolist() == [False, False, True, True]
    assert images.read(0).shape == (60, 80, 3)


def test_a_place_with_one_image_is_used_and_named(tmp_path, caplog):
    for name in ('a/1.png', 'a/2.png', 'lonely/1.png'):
        write(tmp_path / name)
    assert len(folders_of_places(tmp_path)) == 3
    assert '1 of 2 places have one image' in caplog.text
    assert 'lonely' in caplog.text


def test_a_place_without_images_is_named(tmp_path):
    write(tmp_path / 'a' / '1.png')
    (tmp_path / 'nothing').mkdir()
    with pytest.raises(SourceError, match='nothing has no images'):
        folders_of_places(tmp_path)


@pytest.mark.parametrize('name', ['', 'not_there'])
def test_a_folder_without_places_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match=re.escape(str(tmp_path / name))):
        folders_of_places(tmp_path / name)


# Traverses

@pytest.mark.parametrize('compressed', [False, True])
def test_bags_and_folders_are_sessions_of_one_world(tmp_path, compressed):
    bag = write_bag(tmp_path / 'bag', range(10), noise=1, compressed=compressed)
    folder = write_folder(tmp_path / 'folder', range(5, 15), pose_file='poses.csv')
    images = traverses([bag, folder], spacing=2.0)
    assert set(images.world) == {0}
    assert images.position[:, 0].tolist() == [0, 2, 4, 6, 8, 5, 7, 9, 11, 13]
    assert images.session.tolist() == [0] * 5 + [1] * 5
    assert images.heading.tolist() == [0.0] * 10
    assert not images.alone.any()
    # What was recorded raw is kept as JPEG, which changes it a little.
    difference = images.read(2).astype(int) - render(4, noise=1)
    assert np.abs(difference).mean() < 10
    assert max(len(pickle.dumps(read)) for read in images.reads) < render(0).nbytes
    positive, _ = images.relations(range(10), 1.0, 5.0)
    assert positive[2].nonzero()[0].tolist() == [5], 'place 4 of the bag, place 5 of the folder'


def test_images_without_poses_may_be_taken_in_order(tmp_path):
    sources = [write_folder(tmp_path / name, range(4)) for name in ('winter', 'summer')]
    images = traverses(sources, in_order=True)
    assert images.position[:, 0].tolist() == [0, 1, 2, 3] * 2


def test_images_that_a_pose_file_misses_are_named_and_left_out(tmp_path, caplog):
    folder = write_folder(tmp_path / 'drive', range(4))
    write_csv(folder / 'poses.csv', ['000.png', '002.png'], np.array([pose(0), pose(2)]))
    images = traverses([folder])
    assert len(images) == 2
    assert 'no pose for 2 of 4 images' in caplog.text
    assert '001.png, 003.png' in caplog.text


def test_sources_in_different_frames_are_refused(tmp_path):
    sources = [write_bag(tmp_path / name, frame_id=name) for name in ('map', 'utm')]
    with pytest.raises(SourceError, match='different frames'):
        traverses(sources)


def test_no_source_is_refused():
    with pytest.raises(SourceError, match='no traverse'):
        traverses([])


# UTM file names

def test_positions_are_read_from_file_names(tmp_path):
    name = '@{}@{}@10@{}@@@id{}@@{}@@@@2014@@.jpg'
    write(tmp_path / 'database' / name.format('585001.5', 4477000, 'T', 1, 90))
    write(tmp_path / 'queries' / name.format(585003, '4477001.25', 'T', 2, ''))
    write(tmp_path / 'queries' / name.format(585003, '4477001.25', 'H', 3, 0))
    images = utm_folder(tmp_path)
    order = [next(i for i, name in enumerate(images.names) if f'id{n}@' in name)
             for n in (1, 2, 3)]
    images = images.select(order)
    assert images.position.tolist() == [[585001.5, 4477000], [585003, 4477001.25],
                                        [585003, 4477001.25]]
    assert images.heading[0] == pytest.approx(0.0), 'a compass heading of 90 degrees is east'
    assert np.isnan(images.heading[1])
    assert images.heading[2] == pytest.approx(math.pi / 2)
    assert images.world[0] == images.world[1] != images.world[2], 'the other hemisphere'
    assert images.session[0] != images.session[1] == images.session[2]


def test_names_of_another_form_are_named_and_left_out(tmp_path, caplog):
    for name in ('@1.5@2@.jpg', 'plain.jpg', '@east@2@.jpg', '@nan@2@.jpg', '@3.jpg'):
        write(tmp_path / name)
    images = utm_folder(tmp_path)
    assert images.position.tolist() == [[1.5, 2]]
    assert '4 of 5 images' in caplog.text
    assert 'plain.jpg' in caplog.text


def test_a_folder_without_such_names_is_an_error(tmp_path):
    write(tmp_path / 'plain.jpg')
    with pytest.raises(SourceError, match='@utm_east@utm_north'):
        utm_folder(tmp_path)


# Single images

def test_every_image_below_a_folder_is_a_place_of_its_own(tmp_path):
    for name in ('1.png', 'a/1.png', 'a/b/1.jpg'):
        write(tmp_path / name)
    (tmp_path / 'a' / 'notes.txt').write_text('not an image')
    images = single_images(tmp_path)
    assert len(images) == 3
    assert images.alone.all()
    positive, negative = images.relations([0, 1, 0], 5.0, 20.0)
    assert positive[0].tolist() == [False, False, True]
    assert negative[0].tolist() == [False, True, False]


def test_a_folder_without_any_image_is_refused(tmp_path):
    with pytest.raises(SourceError, match='have no images'):
        single_images(tmp_path)


# The street

@pytest.fixture(scope='module')
def two_towns():
    return street([101, 100], ['spring'], drives=2, jobs=2)


def test_a_town_is_a_world_and_a_drive_a_session(two_towns):
    assert len(two_towns) == len(set(two_towns.names)) >= 8
    assert len(np.unique(two_towns.world)) == 2
    assert two_towns.session.max() == 3
    drives = [two_towns.select(two_towns.session == number) for number in range(4)]
    assert drives[0].world[0] == drives[1].world[0] != drives[2].world[0]
    assert np.isfinite(two_towns.heading).all()
    steps = np.linalg.norm(np.diff(drives[0].position, axis=0), axis=1)
    assert steps == pytest.approx(4.0, abs=1.0)
    assert two_towns.read(0).shape == (30, 40, 3)
    positive, _ = two_towns.relations(range(len(two_towns)), 3.0, 20.0)
    assert positive[0, len(drives[0])], 'both drives start at one place'


def test_a_drive_does_not_depend_on_the_processes_or_on_other_drives(two_towns):
    alone = street([100], ['spring'], jobs=1)
    there = two_towns.select([two_towns.names.index(name) for name in alone.names])
    assert (there.position == alone.position).all()
    assert all((there.read(i) == alone.read(i)).all() for i in range(len(alone)))


def test_drives_of_one_town_differ(two_towns):
    first, second = (two_towns.select(two_towns.session == number) for number in (0, 1))
    assert (first.read(0) != second.read(0)).any()
    assert (first.position[0] != second.position[0]).any()


def test_the_condition_is_the_light(two_towns):
    night = street([100], ['night'], jobs=1)
    assert night.read(0).mean() < two_towns.read(0).mean() / 2


def test_drives_are_cached(tmp_path):
    drawn = street([100], ['spring'], drives=2, jobs=1, cache=tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    again = street([100], ['spring'], drives=2, jobs=1, cache=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert again.names == drawn.names
    assert (again.position == drawn.position).all()
    assert all((again.read(i) == drawn.read(i)).all() for i in range(len(drawn)))
    street([100], ['spring'], jobs=1, cache=tmp_path, seed=4)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_of_the_cache_is_named(tmp_path):
    street([100], ['spring'], jobs=1, cache=tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match=rf'{path.name} is damaged .*delete it'):
        street([100], ['spring'], jobs=1, cache=tmp_path)


@pytest.mark.parametrize(('change', 'message'), [
    ({'towns': [7, 100]}, 'kept for tests and demos'),
    ({'towns': []}, 'kept for tests and demos'),
    ({'conditions': ['autumn']}, 'autumn: choose some of spring'),
    ({'conditions': []}, 'choose some of spring'),
    ({'drives': 0}, 'above zero'),
    ({'spacing': 0.0}, 'above zero'),
    ({'jobs': 0}, 'at least one'),
    ({'routes': ['nowhere']}, "unknown route 'nowhere'"),
])
def test_invalid_options_of_the_street_are_refused(change, message):
    arguments = {'towns': [100], 'conditions': ['spring'], 'jobs': 1, **change}
    with pytest.raises(ValueError, match=message):
        street(**arguments)


# Unreadable images

def test_unreadable_images_are_named_once_counted_and_left_out(tmp_path, caplog):
    for number in range(3):
        write(tmp_path / f'good{number}.png')
    for number in range(12):
        write_damaged(tmp_path / f'bad{number:02d}.jpg')
    caplog.set_level(logging.WARNING)
    images = check_readable(single_images(tmp_path))
    assert len(images) == 3
    assert '12 of 15 images cannot be read' in caplog.text
    assert [caplog.text.count(f'bad{number:02d}.jpg') for number in range(12)] \
        == [1] * 10 + [0] * 2


def test_images_none_of_which_can_be_read_are_an_error(tmp_path):
    write_damaged(tmp_path / 'bad.jpg')
    with pytest.raises(SourceError, match='not one of the 1 images'):
        check_readable(single_images(tmp_path))


# The torch dataset

def test_items_are_scaled_tensors_and_their_index():
    item, index = ImageDataset(table([0, 1, 2]), 8, 16)[2]
    assert (item.dtype, tuple(item.shape), index) == (torch.uint8, (3, 8, 16), 2)
    assert (item == 2).all()


def test_the_augmentation_is_applied_to_scaled_images():
    seen = []

    def invert(tensor):
        seen.append(tuple(tensor.shape))
        return 255 - tensor

    item, _ = ImageDataset(table([0, 1]), 8, 16, invert)[1]
    assert (item == 254).all()
    assert seen == [(3, 8, 16)]


def test_items_own_their_memory(tmp_path):
    images = traverses([write_bag(tmp_path / 'bag', range(2))])
    item, _ = ImageDataset(images, 60, 80)[0]
    before = images.read(0).copy()
    item += 1
    assert (images.read(0) == before).all()


def test_images_of_every_kind_can_be_sent_to_a_worker(tmp_path):
    write(tmp_path / 'single' / '1.png')
    images = ImageTable.join([
        single_images(tmp_path / 'single'),
        traverses([write_bag(tmp_path / 'bag', range(2), compressed=True)]),
        traverses([write_bag(tmp_path / 'raw', range(2))]),
        street([100], ['spring'], jobs=1)])
    sent = pickle.loads(pickle.dumps(ImageDataset(images, 8, 16)))
    index = [index for item, index in sent if tuple(item.shape) == (3, 8, 16)]
    assert index == list(range(len(images)))


@pytest.mark.parametrize('name', ['bad.jpg', 'gone.jpg'])
def test_an_unreadable_item_is_named(tmp_path, name):
    path = write_damaged(tmp_path / name)
    images = ImageDataset(single_images(tmp_path), 8, 16)
    if name == 'gone.jpg':
        path.unlink()
    with pytest.raises(SourceError, match=rf'{name}.*repair or remove'):
        images[0]


def gsv_image(folder, city, place, month):
    (folder / city).mkdir(parents=True, exist_ok=True)
    name = f'{city}_{place:07}_2019_{month:02}_120_51.5_-0.12_Ab_c-D.JPG'
    assert cv2.imwrite(str(folder / city / name), np.zeros((8, 8, 3), np.uint8))


def test_gsv_cities_are_places_by_their_number_and_refused_as_folders_of_places(tmp_path):
    for city, place, month in (('London', 1, 3), ('London', 1, 7), ('London', 2, 3),
                               ('Oslo', 1, 3)):
        gsv_image(tmp_path, city, place, month)
    table = gsv_cities(tmp_path)
    assert table.world.tolist() == [0, 0, 1, 2]
    assert table.session.tolist() == [0, 1, 0, 0]
    with pytest.raises(SourceError, match=r"London, Oslo are cities .*'kind: gsv-cities'"):
        folders_of_places(tmp_path)
    assert cv2.imwrite(str(tmp_path / 'Oslo' / 'other.png'), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SourceError, match=r'1 of 5 images are not named .*other.png'):
        gsv_cities(tmp_path)


def test_cities_of_msls_are_no_places(tmp_path):
    (tmp_path / 'helsinki' / 'database' / 'images').mkdir(parents=True)
    with pytest.raises(SourceError, match='helsinki is a city of MSLS'):
        folders_of_places(tmp_path)
