"""Maps from bags and folders: which frames become places, with which poses, in which sessions."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
import threading
import weakref

import cv2
import numpy as np
import pytest
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import pose
from small_drive import POSES
from small_drive import render
from small_drive import stamp
from small_drive import STEP
from small_drive import write_bag
from small_drive import write_damaged
from small_drive import write_folder
from thumbnail_model import write_thumbnail_model
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import PoseError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.core.geodesy import Datum
from vpr_ros.core.poses import planar
from vpr_ros.encoding import hardware
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import Sift
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.io.frames import Frame
from vpr_ros.io.frames import Source
from vpr_ros.io.sources import open_source
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.descriptors import BATCH


def mapped(path, encoder, *, spacing=1.0, pose_file=None, **options):
    return build_map([open_source(path, pose_file=pose_file)], encoder, spacing=spacing, **options)


def write_drive(path, frames, track):
    """Write a bag of frames (stamp, message or image) and poses (stamp, pose)."""
    with BagWriter(path) as bag:
        for time, value in track:
            bag.write(POSES, messages.pose_stamped(bag.types, time, 'map', value), time)
        for time, value in frames:
            if isinstance(value, np.ndarray):
                value = messages.image(bag.types, time, 'camera', value)
            bag.write(IMAGES, value, time)
    return path


def test_a_bag_becomes_a_map_that_is_read_back_the_same(tmp_path, encoder):
    place_map = mapped(write_bag(tmp_path / 'drive.mcap'), encoder, conditions=['winter'])
    place_map.save(tmp_path / 'map')
    again = PlaceMap.load(tmp_path / 'map', encoder)
    for one in (place_map, again):
        np.testing.assert_array_equal(one.poses, [pose(place) for place in range(COUNT)])
        assert one.stamps.tolist() == [stamp(place) for place in range(COUNT)]
        assert not one.sessions.any()
        assert one.manifest.frame_id == 'map'
        assert [(s.source, s.condition) for s in one.manifest.sessions] == [
            ('drive.mcap', 'winter')]
        assert one.thumbnail(3).shape == (120, 160, 3)
    assert again.manifest == place_map.manifest
    np.testing.assert_array_equal(again.vectors(), place_map.vectors())


@pytest.mark.parametrize('spacing', [0.0, 1.0, 2.0, 2.5, 10.0])
def test_places_are_a_spacing_apart(tmp_path, encoder, spacing):
    place_map = mapped(write_bag(tmp_path / 'drive'), encoder, spacing=spacing)
    assert place_map.poses[:, 0].tolist() == list(range(0, COUNT, max(1, int(np.ceil(spacing)))))


def test_a_robot_that_stands_still_gives_one_place(tmp_path, encoder):
    drive = write_drive(tmp_path / 'drive', [(stamp(i), render(0, i)) for i in range(9)],
                        [(stamp(i), pose(0)) for i in range(9)])
    assert len(mapped(drive, encoder)) == 1


def test_turning_on_the_spot_adds_places(tmp_path, encoder):
    turn = planar(np.zeros(10), np.zeros(10), np.deg2rad(6.0 * np.arange(10)))
    drive = write_drive(tmp_path / 'drive', [(stamp(i), render(i)) for i in range(10)],
                        [(stamp(i), turn[i]) for i in range(10)])
    assert mapped(drive, encoder).stamps.tolist() == [stamp(i) for i in (0, 3, 6, 9)]


def test_poses_are_interpolated_and_never_extrapolated(tmp_path, encoder, caplog):
    times = [stamp(0) - 1, stamp(0), stamp(1) + STEP // 4, stamp(3) + STEP // 2, stamp(4) + 1]
    drive = write_drive(tmp_path / 'drive', [(t, render(i)) for i, t in enumerate(times)],
                        [(stamp(i), pose(i)) for i in range(5)])
    place_map = mapped(drive, encoder)
    assert place_map.stamps.tolist() == times[1:4]
    np.testing.assert_allclose(place_map.poses[:, 0], [0, 1.25, 3.5], atol=1e-9)
    assert '2 frames left out' in caplog.text


def test_frames_in_a_gap_of_the_poses_are_left_out(tmp_path, encoder):
    drive = write_drive(tmp_path / 'drive', [(stamp(i), render(i)) for i in range(COUNT)],
                        [(stamp(i), pose(i)) for i in range(COUNT) if not 10 <= i < 30])
    assert mapped(drive, encoder).poses[:, 0].tolist() == [*range(10), *range(30, COUNT)]


def test_poses_that_are_no_poses_are_left_out_and_counted(tmp_path, encoder, caplog):
    track = [(stamp(i), pose(i)) for i in range(5)]
    track[2] = (stamp(2), np.full(7, np.nan))
    drive = write_drive(tmp_path / 'drive', [(stamp(i), render(i)) for i in range(5)], track)
    np.testing.assert_allclose(mapped(drive, encoder).poses[:, 0], range(5), atol=1e-9)
    assert '1 poses left out' in caplog.text


def test_bad_images_of_a_bag_are_left_out_and_counted(tmp_path, encoder, caplog):
    frames = [(stamp(i), render(i)) for i in range(5)]
    message = messages.image(BagWriter.types, stamp(2), 'camera', render(2))
    message.encoding = 'smell8'
    frames[2] = (stamp(2), message)
    frames[3] = (stamp(3), np.zeros((1, 1, 3), np.uint8))
    frames[5:] = [(stamp(i), np.full((60, 80, 3), i, np.uint8)) for i in (5, 6)]
    drive = write_drive(tmp_path / 'drive', frames, [(stamp(i), pose(i)) for i in range(7)])
    assert mapped(drive, encoder).poses[:, 0].tolist() == [0, 1, 4]
    assert '4 frames left out: 2 as the image shows nothing: all black' in caplog.text
    assert "; 1 as encoding 'smell8' is not supported" in caplog.text
    assert '; 1 as image is 1x1' in caplog.text


def test_a_frame_beside_a_bad_one_takes_its_place(tmp_path, encoder):
    frames = [(stamp(i), render(i)) for i in range(8)]
    frames[4] = (stamp(4), np.zeros((1, 1, 3), np.uint8))
    drive = write_drive(tmp_path / 'drive', frames, [(stamp(i), pose(i)) for i in range(8)])
    assert mapped(drive, encoder, spacing=4.0).poses[:, 0].tolist() == [0, 5]


def test_no_usable_frame_is_an_error(tmp_path, encoder):
    tiny = [(stamp(i), np.zeros((1, 1, 3), np.uint8)) for i in range(3)]
    track = [(stamp(i), pose(i)) for i in range(3)]
    with pytest.raises(SourceError,
                       match='tiny gives no place: 3 frames left out: 3 as image is 1x1'):
        mapped(write_drive(tmp_path / 'tiny', tiny, track), encoder)
    late = [(stamp(9), render(9))]
    with pytest.raises(SourceError, match='late gives no place'):
        mapped(write_drive(tmp_path / 'late', late, track), encoder)


def test_compressed_images_map_as_raw_ones_do(tmp_path, encoder):
    raw = mapped(write_bag(tmp_path / 'raw'), encoder)
    jpeg = mapped(write_bag(tmp_path / 'jpeg', compressed=True), encoder)
    np.testing.assert_array_equal(jpeg.poses, raw.poses)
    assert (jpeg.vectors() * raw.vectors()).sum(axis=1).min() > 0.99


def test_two_sources_are_two_sessions(tmp_path, encoder):
    sources = [open_source(write_bag(tmp_path / 'one', noise=1)),
               open_source(write_folder(tmp_path / 'two', range(10, 20), pose_file='poses.csv'))]
    place_map = build_map(sources, encoder, conditions=['spring', 'night'])
    assert np.bincount(place_map.sessions).tolist() == [COUNT, 10]
    assert [(s.source, s.condition) for s in place_map.manifest.sessions] == [
        ('one', 'spring'), ('two', 'night')]
    assert place_map.means.shape == (2, encoder.dimension)


def test_sources_in_different_frames_are_refused(tmp_path, encoder):
    sources = [open_source(write_bag(tmp_path / name, frame_id=name)) for name in ('map', 'utm')]
    with pytest.raises(SourceError, match='different frames') as caught:
        build_map(sources, encoder)
    assert 'base_link in map' in str(caught.value)
    assert 'base_link in utm' in str(caught.value)


def gps_source(name, datum, offset):
    frames = [Frame(i, pose(i + offset), lambda min_size, i=i: render(i), str(i))
              for i in range(5)]
    return nullcontext(Source(name, frames, 5, datum=datum))


def test_sessions_from_gps_share_the_datum_of_the_first(tmp_path, encoder):
    first, other = Datum(48.0, 11.0, 500.0), Datum(48.0, 11.001, 500.0)
    place_map = build_map([gps_source('one', first, 0), gps_source('two', other, 0)], encoder)
    assert place_map.manifest.datum == first
    np.testing.assert_allclose(place_map.poses[5:, 0], np.arange(5) + 74.6, atol=0.1)
    place_map.save(tmp_path / 'map')
    assert PlaceMap.load(tmp_path / 'map').manifest.datum == first
    text = (tmp_path / 'map' / 'map.yaml').read_text()
    begin, end = text.index('datum:'), text.index('places:')
    (tmp_path / 'map' / 'map.yaml').write_text(text[:begin] + text[end:])  # as before 0.3
    assert PlaceMap.load(tmp_path / 'map').manifest.datum is None
    (tmp_path / 'map' / 'map.yaml').write_text(text.replace('latitude:', 'lat:'))
    with pytest.raises(MapError, match=r'map\.yaml is damaged'):
        PlaceMap.load(tmp_path / 'map')
    with pytest.raises(SourceError, match='some are from the fixes of a GPS'):
        build_map([gps_source('one', first, 0), gps_source('two', None, 0)], encoder)


@pytest.mark.parametrize(('spacing', 'warned'), [(0.5, True), (0.9, False), (1.0, False),
                                                 (0.0, False), (6.0, False)])
def test_images_sparser_than_the_spacing_are_warned_about(tmp_path, encoder, caplog, spacing,
                                                          warned):
    mapped(write_bag(tmp_path / 'drive', range(9)), encoder, spacing=spacing,
           self_calibrate=False)
    assert ('1.00 m apart (median), more than the spacing of 0.5 m' in caplog.text) == warned
    assert ('places 6 m apart: images between them may look like none' in caplog.text) == (
        spacing > 5)


@pytest.mark.parametrize('count', [5, 21])
def test_poses_that_never_move_are_warned_about(tmp_path, encoder, caplog, count):
    mapped(write_bag(tmp_path / 'drive', [0] * count), encoder, self_calibrate=False)
    assert ('its 21 poses never move' in caplog.text) == (count == 21)


def test_sources_read_in_parallel_give_the_same_map(tmp_path):
    encoder = Encoder(write_thumbnail_model(tmp_path / 'm.onnx', aggregate=True), 'cpu', 1)
    paths = [write_bag(tmp_path / 'one', noise=1, compressed=True),
             write_folder(tmp_path / 'two', range(10, 20), pose_file='poses.csv'),
             write_bag(tmp_path / 'three.mcap', range(5, 30), noise=2)]
    given = []

    class Features(Sift):

        def limited(self, threads):
            given.append(threads)
            return Sift()

    serial, parallel = (build_map([open_source(path) for path in paths], encoder, jobs=jobs,
                                  conditions=['spring', 'night', 'rain'], features=Features())
                        for jobs in (1, 2))
    assert given == [max(1, hardware.cores() // 2)]
    assert parallel.manifest == serial.manifest
    for name in ('stamps', 'poses', 'sessions', 'means', 'thumbnail_digests'):
        np.testing.assert_array_equal(getattr(parallel, name), getattr(serial, name))
    np.testing.assert_array_equal(parallel.vectors(), serial.vectors())
    assert parallel.projection.sha256 == serial.projection.sha256
    assert parallel.thumbnails == serial.thumbnails


def test_a_bad_source_is_the_same_error_in_parallel(tmp_path, encoder):
    good = write_bag(tmp_path / 'good')
    with pytest.raises(FileNotFoundError, match='nothing does not exist'):
        build_map([open_source(good), open_source(tmp_path / 'nothing')], encoder, jobs=2)
    with pytest.raises(SourceError, match='different frames'):
        build_map([open_source(good), open_source(write_bag(tmp_path / 'utm', frame_id='utm'))],
                  encoder, jobs=2)


def test_images_are_held_for_no_longer_than_a_few_batches(encoder):
    alive = most = 0

    def gone():
        nonlocal alive
        alive -= 1

    def load(number, min_size):
        nonlocal alive, most
        view = np.random.default_rng(number).integers(
            0, 256, (encoder.height, encoder.width, 3), np.uint8)
        weakref.finalize(view, gone)
        alive += 1
        most = max(most, alive)
        return view

    frames = (Frame(number, pose(number), partial(load, number), str(number))
              for number in range(40 * BATCH))
    build_map([nullcontext(Source('long', frames, 40 * BATCH))], encoder, self_calibrate=False)
    assert most <= 5 * BATCH
    assert alive == 0


def test_the_network_runs_while_the_next_images_are_read(model_path):
    read = threading.Event()

    class Waiting(Encoder):
        """An encoder whose first batch waits until an image of the next one was read."""

        def encode_batch(self, batch):
            assert read.wait(10)
            return super().encode_batch(batch)

    def load(number, min_size):
        if number >= BATCH:
            read.set()
        return render(number)

    frames = [Frame(number, pose(number), partial(load, number), str(number))
              for number in range(2 * BATCH)]
    place_map = build_map([nullcontext(Source('drive', frames, len(frames)))],
                          Waiting(model_path, 'cpu', 1), self_calibrate=False)
    assert len(place_map) == 2 * BATCH


@pytest.mark.parametrize('index', ['sq8', 'hnsw'])
def test_the_kind_of_index_is_kept(tmp_path, encoder, index):
    place_map = mapped(write_bag(tmp_path / 'drive'), encoder, index=index)
    assert place_map.manifest.index == index
    assert place_map.search(place_map.vectors()[7:8], 1)[1].tolist() == [[7]]


def test_an_index_that_needs_more_places_says_so(tmp_path, encoder):
    with pytest.raises(ValueError, match='at least 256 places'):
        mapped(write_bag(tmp_path / 'drive'), encoder, index='pq')


def test_without_thumbnails_there_are_none(tmp_path, encoder):
    place_map = mapped(write_bag(tmp_path / 'drive'), encoder, thumbnails=False)
    place_map.save(tmp_path / 'map')
    assert PlaceMap.load(tmp_path / 'map').thumbnail(0) is None
    assert not (tmp_path / 'map' / 'thumbnails').exists()


# Folders of images

@pytest.mark.parametrize('header', ['image,x,y,yaw', 'image,x_m,y_m,yaw_rad', 'Image, X, Y, Yaw'])
def test_a_folder_with_planar_poses(tmp_path, encoder, header):
    folder = write_folder(tmp_path / 'folder', range(5))
    (folder / 'poses.csv').write_text('\n'.join([header, *(
        f'{place:03d}.png,{place},{-place},0.5' for place in range(5))]))
    expected = planar(np.arange(5.0), -np.arange(5.0), np.full(5, 0.5))
    np.testing.assert_allclose(mapped(folder, encoder).poses, expected, atol=1e-12)


def test_a_folder_with_full_poses_in_any_order(tmp_path, encoder):
    folder = write_folder(tmp_path / 'folder', range(5), pose_file='poses.csv')
    header, *rows = (folder / 'poses.csv').read_text().splitlines()
    (folder / 'poses.csv').write_text('\n'.join([header, *reversed(rows)]))
    place_map = mapped(folder, encoder)
    np.testing.assert_array_equal(place_map.poses, [pose(place) for place in range(5)])
    assert np.all(np.diff(place_map.stamps) > 0)


def test_a_folder_with_a_tum_file_goes_by_its_stamps(tmp_path, encoder):
    folder = write_folder(tmp_path / 'folder', range(5), pose_file='poses.tum')
    place_map = mapped(folder, encoder)
    np.testing.assert_allclose(place_map.poses, [pose(place) for place in range(5)], atol=1e-9)
    assert place_map.stamps.tolist() == [stamp(place) for place in range(5)]


def test_a_tum_file_interpolates_and_does_not_extrapolate(tmp_path, encoder, caplog):
    folder = tmp_path / 'folder'
    folder.mkdir()
    for name in ('0.900', '1.500', '2.000', '2.001'):
        cv2.imwrite(str(folder / f'{name}.png'), render(int(float(name) * 1000)))
    (folder / 'poses.tum').write_text('# seconds x y z qx qy qz qw\n'
                                      '1.0 0 0 0 0 0 0 1\n2.0 10 0 0 0 0 0 1\n')
    place_map = mapped(folder, encoder)
    np.testing.assert_allclose(place_map.poses[:, 0], [5, 10], atol=1e-9)
    assert 'no pose for 2 of 4 images' in caplog.text


def test_a_folder_without_poses_is_taken_in_order_of_names(tmp_path, encoder, caplog):
    place_map = mapped(write_folder(tmp_path / 'folder', range(5)), encoder)
    np.testing.assert_array_equal(place_map.poses, [pose(place) for place in range(5)])
    assert 'one metre apart' in caplog.text


def test_images_may_be_in_a_subfolder(tmp_path, encoder):
    write_folder(tmp_path / 'set' / 'images', range(5), pose_file='poses.csv')
    (tmp_path / 'set' / 'images' / 'poses.csv').rename(tmp_path / 'set' / 'poses.csv')
    assert len(mapped(tmp_path / 'set', encoder)) == 5


def test_a_pose_file_from_elsewhere_takes_precedence(tmp_path, encoder):
    folder = write_folder(tmp_path / 'folder', range(5), pose_file='poses.csv')
    (tmp_path / 'survey.csv').write_text('image,x,y,yaw\n' + ''.join(
        f'{place:03d}.png,{10 * place},0,0\n' for place in range(5)))
    place_map = mapped(folder, encoder, pose_file=tmp_path / 'survey.csv')
    assert place_map.poses[:, 0].tolist() == [0, 10, 20, 30, 40]


def test_images_without_a_pose_are_left_out_and_counted(tmp_path, encoder, caplog):
    folder = write_folder(tmp_path / 'folder', range(5), pose_file='poses.csv')
    lines = (folder / 'poses.csv').read_text().splitlines()
    (folder / 'poses.csv').write_text('\n'.join(lines[:3] + lines[5:]))
    assert mapped(folder, encoder).poses[:, 0].tolist() == [0, 1, 4]
    assert 'no pose for 2 of 5 images' in caplog.text


def test_damaged_files_are_left_out_and_counted(tmp_path, encoder, caplog):
    folder = write_folder(tmp_path / 'folder', range(5), pose_file='poses.csv')
    write_damaged(folder / '001.png')
    (folder / '003.png').write_bytes(b'')
    assert mapped(folder, encoder).poses[:, 0].tolist() == [0, 2, 4]
    assert '2 frames left out' in caplog.text


@pytest.mark.parametrize(('text', 'error', 'match'), [
    ('', PoseError, 'is empty'),
    ('image,x,y\n000.png,0,0\n', PoseError, 'columns must be image,x'),
    ('image,x,y,yaw\n000.png,0,zero,0\n', PoseError, 'zero'),
    ('image,x,y,yaw\n000.png,0,0\n', PoseError, '2 numbers where 3'),
    ('image,x,y,yaw\n000.png,nan,0,0\n', PoseError, 'not finite'),
    ('image,x,y,yaw\nother.png,0,0,0\n', SourceError,
     'names none of the 3 images.*it has other.png, the folder '),
    ('image,x,y,yaw\n', SourceError, 'names none of the 3 images'),
])
def test_an_unusable_pose_file_is_one_clear_error(tmp_path, encoder, text, error, match):
    folder = write_folder(tmp_path / 'folder', range(3))
    (folder / 'poses.csv').write_text(text)
    with pytest.raises(error, match=match) as caught:
        mapped(folder, encoder)
    assert 'poses.csv' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_images_not_named_by_time_do_not_go_with_a_tum_file(tmp_path, encoder):
    folder = write_folder(tmp_path / 'folder', range(3))
    (folder / 'poses.tum').write_text('1.0 0 0 0 0 0 0 1\n')
    (folder / '000.png').rename(folder / 'left.png')
    with pytest.raises(PoseError, match='left is not a time'):
        mapped(folder, encoder)


def test_missing_things_are_named(tmp_path, encoder):
    with pytest.raises(FileNotFoundError, match='nothing does not exist'):
        mapped(tmp_path / 'nothing', encoder)
    folder = write_folder(tmp_path / 'folder', range(3))
    with pytest.raises(FileNotFoundError, match=r'none\.csv does not exist'):
        mapped(folder, encoder, pose_file=tmp_path / 'none.csv')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(VprError, match='empty'):
        mapped(tmp_path / 'empty', encoder)


def test_a_file_is_only_read_when_its_place_is_wanted(tmp_path, encoder, caplog):
    folder = write_folder(tmp_path / 'folder', range(5), pose_file='poses.csv')
    write_damaged(folder / '001.png')
    assert len(mapped(folder, encoder, spacing=2.0)) == 3
    assert 'left out' not in caplog.text
