"""Replaying a bag: the right places, the same twice, bad frames counted, and what is written."""

from __future__ import annotations

import csv
import filecmp
from pathlib import Path
import threading

import numpy as np
import pytest
from small_drive import COUNT
from small_drive import FOCAL
from small_drive import IMAGES
from small_drive import pose
from small_drive import POSES
from small_drive import render
from small_drive import stamp
from small_drive import write_bag
from small_drive import write_map
from vpr_ros.core import images
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.core.pose_files import read_tum
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.localization.estimate import NoPose
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.smooth import Smoother
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.descriptors import encoded
from vpr_ros.offline.drive_score import score_drive
from vpr_ros.offline.replay import read_estimates
from vpr_ros.offline.replay import replay
from vpr_ros.offline.replay import write_drive


@pytest.fixture(scope='module')
def site(tmp_path_factory, encoder):
    """Return an encoder and a map of the drive."""
    place_map = write_map(tmp_path_factory.mktemp('site') / 'map', encoder.path)
    return encoder, PlaceMap.load(place_map, encoder)


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp('bag') / 'query.mcap', noise=1)


def test_every_frame_of_the_mapped_street_is_found(site, bag):
    drive = replay(bag, Localizer(*site))
    assert drive.stamps.tolist() == [stamp(place) for place in range(COUNT)]
    assert not drive.dropped
    assert drive.seconds > 0
    settled = slice(6, None)
    assert drive.trusted[settled].all()
    np.testing.assert_allclose(drive.poses[settled], [pose(place) for place in range(6, COUNT)],
                               atol=0.5)


def test_a_smoothed_replay_knows_the_first_frames_too(site, bag):
    drive = replay(bag, Smoother(*site))
    assert drive.stamps.tolist() == [stamp(place) for place in range(COUNT)]
    assert drive.trusted.all()
    np.testing.assert_allclose(drive.poses, [pose(place) for place in range(COUNT)], atol=0.5)


@pytest.mark.parametrize(('focal', 'warned', 'refused'), [
    (FOCAL, False, False), (FOCAL / 0.92, True, False), (FOCAL / 0.8, True, True)])
def test_another_lens_than_the_maps_is_said_and_above_a_difference_refused(
        site, tmp_path, monkeypatch, caplog, focal, warned, refused):
    monkeypatch.chdir(write_bag(tmp_path / 'drive', range(20), noise=1, focal=focal).parent)
    drive = Path('drive')
    if refused:
        with pytest.raises(SourceError, match=r"another lens or crop than the map's: .*80x60, "
                                              r'65x51 degrees.*80x60, 77x62 degrees.*than 88%'):
            replay(drive, Localizer(*site))
        return
    assert not replay(drive, Localizer(*site)).dropped
    assert ("another lens or crop than the map's" in caplog.text) == warned


def test_without_camera_info_another_size_of_the_images_is_said(site, tmp_path, caplog):
    for name, size in (('half', (30, 40)), ('cropped', (45, 60))):
        with BagWriter(tmp_path / name) as bag:
            for place in range(3):
                bag.write(IMAGES, messages.image(bag.types, stamp(place), 'camera',
                                                 images.resize(render(place), *size)),
                          stamp(place))
        assert not replay(tmp_path / name, Localizer(*site)).dropped
        assert ('those of the map 80x60' in caplog.text) == (name == 'cropped')


def test_frames_that_show_nothing_are_dropped_with_the_reason(site, tmp_path, caplog):
    with BagWriter(tmp_path / 'drive') as bag:
        for place in range(8):
            view = render(place) if place < 4 else np.full((60, 80, 3), 3, np.uint8)
            bag.write(IMAGES, messages.image(bag.types, stamp(place), 'camera', view),
                      stamp(place))
    assert replay(tmp_path / 'drive', Localizer(*site)).dropped == {'ImageError': 4}
    assert 'the image shows nothing: all black' in caplog.text


def test_images_of_another_ratio_than_the_maps_are_refused(site, tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        for place in range(3):
            bag.write(IMAGES, messages.image(bag.types, stamp(place), 'camera',
                                             render(place)[:, :60]), stamp(place))
    with pytest.raises(SourceError, match='another lens or crop'):
        replay(tmp_path / 'drive', Localizer(*site))


def test_a_replay_is_what_the_localizer_says_frame_by_frame(site, bag):
    localizer = Localizer(*site)
    with Bag(bag) as recorded:
        expected = [localizer.localize(messages.rgb(message), time)
                    for time, message in recorded.images(IMAGES)]
    drive = replay(bag, Localizer(*site))
    np.testing.assert_array_equal(drive.poses, [estimate.pose for estimate in expected])
    assert [e.confidence for e in drive.estimates] == [e.confidence for e in expected]


def test_frames_are_read_and_decoded_while_the_network_runs(site, model_path, bag):
    decoded = threading.Event()

    class Waiting(Encoder):
        """An encoder whose first frame waits until a later one was read."""

        def encode(self, rgb):
            assert decoded.wait(10)
            return super().encode(rgb)

    def frames(recorded):
        for number, frame in enumerate(recorded.images(IMAGES)):
            if number == 3:
                decoded.set()
            yield frame

    with Bag(bag) as recorded:
        found = [time for time, future in encoded(frames(recorded), Waiting(
            model_path, 'cpu', 1)) if future.result() is not None]
    assert found == [stamp(place) for place in range(COUNT)]


def test_places_off_the_map_are_not_trusted(site, tmp_path):
    drive = replay(write_bag(tmp_path / 'away', range(1000, 1020)),
                   Localizer(*site, min_confidence=0.95))
    assert len(drive.estimates) == 20
    assert drive.trusted.mean() <= 0.1
    assert {estimate.reason for estimate in drive.estimates} <= {None, *NoPose}


def test_compressed_images_give_the_same_places(site, bag, tmp_path):
    drive = replay(write_bag(tmp_path / 'jpeg', noise=1, compressed=True), Localizer(*site))
    np.testing.assert_allclose(drive.poses, replay(bag, Localizer(*site)).poses, atol=0.05)


def test_bad_frames_are_dropped_and_counted_by_cause(site, tmp_path, caplog):
    with BagWriter(tmp_path / 'bag') as bag:
        for place in range(12):
            message = messages.image(bag.types, stamp(place), 'camera', render(place))
            if place == 2:
                message.encoding = 'smell8'
            elif place == 4:
                message.data = message.data[:100]
            elif place == 6:
                message.height = message.width = 10_000
            elif place == 8:
                message.header = messages.header(bag.types, stamp(7), 'camera')
            bag.write(IMAGES, message, stamp(place))
    drive = replay(tmp_path / 'bag', Localizer(*site))
    assert drive.dropped == {'ImageError': 3, 'OutOfOrderError': 1}
    assert drive.stamps.tolist() == [stamp(p) for p in (0, 1, 3, 5, 7, 9, 10, 11)]
    assert '3 frames dropped (ImageError)' in caplog.text


def test_a_clock_that_was_set_back_starts_a_new_drive(site, tmp_path):
    path = tmp_path / 'bag'
    with BagWriter(path) as bag:
        for number, place in enumerate([*range(10), *range(10)]):
            bag.write(IMAGES, messages.image(bag.types, stamp(place), 'camera', render(place)),
                      stamp(number))
    drive = replay(path, Localizer(*site))
    assert len(drive.estimates) == 20
    np.testing.assert_array_equal(drive.poses[10:], drive.poses[:10])


def test_a_bag_without_a_usable_frame_is_one_clear_error(site, tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write(IMAGES, messages.image(bag.types, stamp(0), 'camera',
                                         np.zeros((1, 1, 3), np.uint8)), stamp(0))
    with pytest.raises(SourceError, match=r'bag: no frame on /camera/image_raw.*1x1'):
        replay(tmp_path / 'bag', Localizer(*site))


def test_a_topic_that_is_not_there_is_one_clear_error(site, bag, tmp_path):
    with pytest.raises(SourceError, match=f"'/rear'; choose {IMAGES}"):
        replay(bag, Localizer(*site), image_topic='/rear')
    blind = write_bag(tmp_path / 'blind', with_images=False)
    with pytest.raises(SourceError, match=f'no images; its topics are {POSES}'):
        replay(blind, Localizer(*site))


def test_the_three_outputs_agree(site, bag, tmp_path):
    drive = replay(bag, Localizer(*site, min_confidence=0.9))
    drive.estimates[3:6] = replay(bag, Localizer(*site, min_confidence=1.1)).estimates[3:6]
    trusted = [place for place in range(COUNT) if drive.trusted[place]]
    assert 3 not in trusted
    write_drive(drive, tmp_path / 'out', 'map')

    tum = read_tum(tmp_path / 'out' / 'trajectory.tum')
    assert tum.stamps.tolist() == [stamp(place) for place in trusted]
    np.testing.assert_allclose(tum.poses, drive.poses[trusted], atol=1e-8)

    with (tmp_path / 'out' / 'estimates.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['stamp_ns']) for row in rows] == drive.stamps.tolist()
    assert [row['reason'] == '' for row in rows] == drive.trusted.tolist()
    np.testing.assert_array_equal([[float(row[axis]) for axis in ('x', 'y', 'z')]
                                   for row in rows], drive.poses[:, :3])

    with Bag(tmp_path / 'out' / 'poses') as written:
        track = written.poses('/vpr_localizer/pose')
        assert written.count('/vpr_localizer/confidence') == COUNT
        assert track.frame_id == 'map'
    assert track.stamps.tolist() == tum.stamps.tolist()
    np.testing.assert_allclose(track.poses, drive.poses[trusted], atol=1e-12)


def test_estimates_are_read_back(site, bag, tmp_path):
    drive = replay(bag, Localizer(*site))
    write_drive(drive, tmp_path / 'out', 'map')
    estimates = read_estimates(tmp_path / 'out')
    np.testing.assert_array_equal(estimates.stamps, drive.stamps)
    np.testing.assert_allclose(estimates.poses, drive.poses, atol=1e-8)
    np.testing.assert_array_equal(estimates.published, drive.trusted)
    np.testing.assert_allclose(estimates.protection_levels,
                               [e.protection_level for e in drive.estimates], atol=1e-3)
    assert np.isfinite(estimates.protection_levels).any()
    assert estimates.candidates[:, 0].tolist() == [
        e.candidates.places[0] for e in drive.estimates]
    lines = (tmp_path / 'out' / 'estimates.csv').read_text().splitlines()
    (tmp_path / 'out' / 'estimates.csv').write_text('\n'.join([*lines[:3], lines[3][:20]]))
    with pytest.raises(SourceError, match=r'estimates\.csv is damaged'):
        read_estimates(tmp_path / 'out')


def test_a_second_run_writes_the_same(site, bag, tmp_path):
    for name in ('one', 'two'):
        write_drive(replay(bag, Localizer(*site)), tmp_path / name, 'map')
    for name in ('trajectory.tum', 'estimates.csv', 'poses/poses.db3'):
        assert filecmp.cmp(tmp_path / 'one' / name, tmp_path / 'two' / name, shallow=False), name


def test_an_existing_output_is_replaced_only_when_asked(site, bag, tmp_path):
    drive = replay(bag, Localizer(*site))
    write_drive(drive, tmp_path / 'out', 'map')
    with pytest.raises(VprError, match='exists already'):
        write_drive(drive, tmp_path / 'out', 'map')
    write_drive(drive, tmp_path / 'out', 'map', overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_a_drive_is_scored_by_its_published_poses(site, bag):
    drive = replay(bag, Localizer(*site))
    with Bag(bag) as recorded:
        truth = recorded.poses(POSES)
    estimated, trusted = drive.poses.copy(), np.ones(COUNT, np.bool_)
    estimated[:4, 0] += 50
    trusted[3:5] = False
    score = score_drive(drive.stamps, estimated, trusted, truth, 5.0)
    assert (score.frames, score.published, score.right, score.wrong) == (COUNT, 38, 35, 3)
    assert score.best_right == COUNT - 4
    assert score.errors[0] == pytest.approx(50, abs=2)
    nowhere = score_drive(drive.stamps, estimated, np.zeros(COUNT, np.bool_), truth, 5.0)
    assert nowhere.published == 0
    assert np.isnan(nowhere.median_error)
    with pytest.raises(SourceError, match='covers none of the frames'):
        score_drive(drive.stamps + 10**12, estimated, trusted, truth, 5.0)
