"""Bags: written and read back, compressed, damaged, empty, and with topics missing."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.interfaces import Qos
from rosbags.interfaces import QosDurability
from rosbags.interfaces import QosHistory
from rosbags.interfaces import QosLiveliness
from rosbags.interfaces import QosReliability
from rosbags.interfaces import QosTime
from rosbags.rosbag2 import CompressionFormat
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag import rosbags_types
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.street import camera_matrix
from vpr_ros.street.record import MOUNT
from vpr_ros.street.record import record

START = 1_700_000_000_000_000_000
STEP = 100_000_000
COUNT = 5


def image(place):
    return np.random.default_rng(place).integers(0, 256, (24, 32, 3), np.uint8)


def pose(place):
    return np.array([place, -0.5 * place, 0, 0, 0, 0, 1], np.float64)


def stamp(place):
    return START + place * STEP


def contents(types=rosbags_types, count=COUNT):
    """Yield the (topic, message, stamp) of a small drive."""
    for place in range(count):
        time = stamp(place)
        yield '/odom', messages.odometry(types, time, 'odom', 'base_link', pose(place),
                                         np.array([1.0, 0.0])), time
        yield '/camera/image_raw', messages.image(types, time, 'camera', image(place)), time


def write(path, records=None):
    with BagWriter(path) as bag:
        for topic, message, time in contents() if records is None else records:
            bag.write(topic, message, time)
    return path


def write_with(path, records, *, mode=CompressionMode.NONE, storage=StoragePlugin.SQLITE3,
               profiles=(), version=9):
    """Write a bag with the settings that BagWriter does not use."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer(path, version=version, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, message, time in records:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store,
                                                           offered_qos_profiles=profiles)
            writer.write(connections[topic], time, store.serialize_cdr(message, kind))
    return path


def check(path):
    with Bag(path) as bag:
        assert bag.topics == {'/camera/image_raw': 'sensor_msgs/msg/Image',
                              '/odom': 'nav_msgs/msg/Odometry'}
        assert bag.message_count == 2 * COUNT
        assert bag.count('/odom') == COUNT
        assert bag.duration == pytest.approx(0.4)
        frames = list(bag.images(bag.image_topic()))
        track = bag.poses(bag.pose_topic())
    assert [time for time, _ in frames] == [stamp(place) for place in range(COUNT)]
    for place, (_, message) in enumerate(frames):
        np.testing.assert_array_equal(messages.rgb(message), image(place))
    assert track.stamps.tolist() == [stamp(place) for place in range(COUNT)]
    np.testing.assert_array_equal(track.poses, [pose(place) for place in range(COUNT)])
    assert (track.frame_id, track.child_frame_id, track.dropped) == ('odom', 'base_link', 0)


@pytest.mark.parametrize('name', ['drive', 'drive.mcap'])
def test_a_bag_gives_back_what_was_written(tmp_path, name):
    path = write(tmp_path / name)
    check(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(('name', 'file'), [('drive', 'drive.db3'),
                                            ('drive.mcap', 'drive.mcap.mcap')])
def test_a_single_file_of_a_bag_can_be_read(tmp_path, name, file):
    check(write(tmp_path / name) / file)


@pytest.mark.parametrize(('mode', 'storage'), [
    (CompressionMode.FILE, StoragePlugin.SQLITE3), (CompressionMode.MESSAGE,
                                                    StoragePlugin.SQLITE3),
    (CompressionMode.FILE, StoragePlugin.MCAP), (CompressionMode.STORAGE, StoragePlugin.MCAP)])
def test_a_bag_may_be_compressed(tmp_path, mode, storage):
    check(write_with(tmp_path / 'drive', contents(), mode=mode, storage=storage))


def test_a_pose_topic_is_preferred_to_odometry(tmp_path):
    records = list(contents())
    for place in range(COUNT):
        message = messages.pose_stamped(rosbags_types, stamp(place), 'map', pose(place))
        records.append(('/truth', message, stamp(place)))
    with Bag(write(tmp_path / 'drive', records)) as bag:
        assert bag.pose_topic() == '/truth'
        assert bag.pose_topic('/odom') == '/odom'
        assert bag.poses('/truth').frame_id == 'map'


def test_a_stamp_of_zero_is_replaced_by_the_time_of_recording(tmp_path):
    message = messages.image(rosbags_types, 0, 'camera', image(0))
    with Bag(write(tmp_path / 'drive', [('/image', message, stamp(3))])) as bag:
        assert [time for time, _ in bag.images('/image')] == [stamp(3)]


def test_a_depth_topic_is_not_the_default(tmp_path):
    depth = messages.compressed_image(rosbags_types, START, 'camera', image(0))
    depth.format = '16UC1; compressedDepth png'
    records = [('/a/compressedDepth', depth, START), *contents()]
    with Bag(write(tmp_path / 'drive', records)) as bag:
        assert bag.image_topic() == '/camera/image_raw'


def test_a_missing_topic_is_refused_with_a_list_of_the_topics(tmp_path):
    with Bag(write(tmp_path / 'drive')) as bag:
        with pytest.raises(SourceError, match=r"no images on '/cam'.*/camera/image_raw"):
            bag.image_topic('/cam')
        with pytest.raises(SourceError, match=r"no poses on '/pose'.*/odom"):
            bag.pose_topic('/pose')
        with pytest.raises(SourceError, match=r"no topic '/x'.*/odom \(nav_msgs/msg/Odometry\)"):
            list(bag.raw(['/x']))


def test_a_bag_without_poses_or_images_is_refused_with_its_topics(tmp_path):
    records = list(contents())
    with Bag(write(tmp_path / 'blind', records[::2])) as bag, \
            pytest.raises(SourceError, match=r'has no images.*/odom'):
        bag.image_topic()
    with Bag(write(tmp_path / 'lost', records[1::2])) as bag, \
            pytest.raises(SourceError, match=r'has no poses.*/camera/image_raw'):
        bag.pose_topic()


def test_invalid_poses_are_left_out_and_counted(tmp_path):
    records = [record for record in contents() if record[0] == '/odom']
    records[1][1].pose.pose.position.x = np.nan
    records[3][1].pose.pose.orientation.w = 0.0
    with Bag(write(tmp_path / 'drive', records)) as bag:
        track = bag.poses('/odom')
    assert track.stamps.tolist() == [stamp(0), stamp(2), stamp(4)]
    assert track.dropped == 2


def test_a_topic_of_invalid_poses_is_refused(tmp_path):
    bad = messages.pose_stamped(rosbags_types, START, 'map', np.full(7, np.nan))
    with Bag(write(tmp_path / 'drive', [('/pose', bad, START)])) as bag, \
            pytest.raises(SourceError, match='not one of the 1 poses on /pose'):
        bag.poses('/pose')


def test_poses_are_sorted_and_a_stamp_counts_once(tmp_path):
    order = [0, 2, 1, 2, 3]
    records = [('/pose', messages.pose_stamped(rosbags_types, stamp(place), 'map', pose(place)),
                stamp(time)) for time, place in enumerate(order)]
    with Bag(write(tmp_path / 'drive', records)) as bag:
        track = bag.poses('/pose')
    assert track.stamps.tolist() == [stamp(place) for place in range(4)]
    assert track.poses[:, 0].tolist() == [0, 1, 2, 3]
    assert track.dropped == 1


def test_poses_in_two_frames_are_refused(tmp_path):
    records = [('/pose', messages.pose_stamped(rosbags_types, stamp(place), frame, pose(place)),
                stamp(place)) for place, frame in enumerate(('map', 'odom'))]
    with Bag(write(tmp_path / 'drive', records)) as bag, \
            pytest.raises(SourceError, match='more than one frame'):
        bag.poses('/pose')


@pytest.mark.parametrize('name', ['drive', 'drive.mcap'])
def test_an_empty_bag_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match='empty bag'):
        Bag(write(tmp_path / name, []))


def test_a_path_that_is_not_a_bag_is_refused(tmp_path):
    with pytest.raises(SourceError, match='does not exist'):
        Bag(tmp_path / 'nothing')
    with pytest.raises(SourceError, match=r'no metadata\.yaml'):
        Bag(tmp_path)
    (tmp_path / 'notes.txt').write_text('text')
    with pytest.raises(SourceError, match='not a bag'):
        Bag(tmp_path / 'notes.txt')
    (tmp_path / 'old.bag').write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(SourceError, match='rosbags-convert'):
        Bag(tmp_path / 'old.bag')


@pytest.mark.parametrize('name', ['drive', 'drive.mcap'])
@pytest.mark.parametrize('fraction', [0.0, 0.3, 0.9])
def test_a_truncated_bag_is_one_clear_error(tmp_path, name, fraction):
    path = write(tmp_path / name, contents(count=40))
    file = next(entry for entry in path.iterdir() if entry.suffix in ('.db3', '.mcap'))
    file.write_bytes(file.read_bytes()[:int(file.stat().st_size * fraction)])
    with pytest.raises(SourceError) as caught, Bag(path) as bag:
        for _ in bag.raw():
            pass
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_invalid_metadata_is_one_clear_error(tmp_path):
    path = write(tmp_path / 'drive')
    (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: {version: [')
    with pytest.raises(SourceError, match='damaged') as caught:
        Bag(path)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['drive', 'drive.mcap'])
def test_an_interrupted_write_leaves_nothing(tmp_path, name):
    def interrupted():
        yield from list(contents())[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, interrupted())
    assert list(tmp_path.iterdir()) == []


def test_a_bag_is_overwritten_only_on_request_and_only_by_a_complete_one(tmp_path):
    path = write(tmp_path / 'drive')
    with pytest.raises(VprError, match='exists already'):
        write(path)
    with pytest.raises(ZeroDivisionError), BagWriter(path, overwrite=True) as bag:
        bag.write(*next(contents()))
        raise ZeroDivisionError
    check(path)
    with BagWriter(path, overwrite=True) as bag:
        bag.write(*next(contents()))
    with Bag(path) as bag:
        assert bag.message_count == 1


def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(VprError, match='file'):
        write(tmp_path / 'file' / 'drive')


def test_a_topic_has_one_type(tmp_path):
    with pytest.raises(ValueError, match='/odom holds'), BagWriter(tmp_path / 'drive') as bag:
        for _, message, time in contents():
            bag.write('/odom', message, time)


def test_raw_messages_come_in_time_order_with_their_types(tmp_path):
    with Bag(write(tmp_path / 'drive')) as bag:
        records = list(bag.raw())
        odometry = list(bag.raw(['/odom']))
    times = [time for _, _, time, _ in records]
    assert times == sorted(times)
    kinds = {(topic, kind) for topic, kind, _, _ in odometry}
    assert kinds == {('/odom', 'nav_msgs/msg/Odometry')}
    assert len(records) == 2 * COUNT
    assert len(odometry) == COUNT


@pytest.mark.parametrize('storage', [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize('identifier', ["''", 'null'])
def test_a_bag_that_was_reindexed_on_humble_is_read(tmp_path, storage, identifier):
    described = write_with(tmp_path / 'drive', contents(), storage=storage) / 'metadata.yaml'
    described.write_text(re.sub('storage_identifier: .*', f'storage_identifier: {identifier}',
                                described.read_text()))
    check(tmp_path / 'drive')


def mcap_of(path, profile):
    """Write a drive as a single mcap file whose header has another profile."""
    whole = write_with(path.with_suffix(''), contents(), storage=StoragePlugin.MCAP)
    data = bytearray(next(whole.glob('*.mcap')).read_bytes())
    assert data[17:25] == b'\4\0\0\0ros2'
    data[17:25] = profile.ljust(8, b'\0')  # the rest becomes part of the library's name
    path.write_bytes(data)
    return path


def test_an_mcap_file_without_profile_is_read(tmp_path):
    with Bag(mcap_of(tmp_path / 'drive.mcap', b'\0\0\0\0')) as bag:
        assert bag.topics['/odom'] == 'nav_msgs/msg/Odometry'
        assert len(list(bag.images('/camera/image_raw'))) == COUNT


def test_an_mcap_file_of_ros_1_is_refused_with_the_way_to_convert_it(tmp_path):
    with pytest.raises(SourceError, match=r'holds messages of ROS 1: .*rosbags-convert'):
        Bag(mcap_of(tmp_path / 'drive.mcap', b'\4\0\0\0ros1'))


@pytest.mark.parametrize(('changed', 'why'), [
    (('version: ', 'version: 9'), 'cannot be read: Rosbag2 version 98 not supported'),
    (('storage_identifier: sqlite3', 'storage_identifier: rocks'),
     "cannot be read: Storage plugin 'rocks' not supported"),
    (('.db3', '.db4'), 'cannot be read: Some database files are missing')])
def test_a_bag_that_is_whole_is_not_called_damaged(tmp_path, changed, why):
    described = write(tmp_path / 'drive') / 'metadata.yaml'
    described.write_text(described.read_text().replace(*changed))
    with pytest.raises(SourceError, match=why):
        Bag(tmp_path / 'drive')


def test_a_folder_that_is_no_bag_gets_no_advice_about_bags(tmp_path):
    (tmp_path / 'mav0').mkdir()
    with pytest.raises(SourceError, match=r'is no bag .* and no folder of images'):
        Bag(tmp_path)
    (tmp_path / 'part.mcap').write_bytes(b'')
    with pytest.raises(SourceError, match=r'no metadata\.yaml: its recording was cut off'):
        Bag(tmp_path)


def test_a_latched_topic_is_recognised_by_its_offered_durability(tmp_path):
    never = QosTime(0, 0)
    latched = Qos(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
                  never, never, QosLiveliness.AUTOMATIC, never, False)
    for version in (8, 9):
        path = write_with(tmp_path / str(version), contents(), profiles=[latched], version=version)
        with Bag(path) as bag:
            assert bag.is_latched('/odom')
    with Bag(write(tmp_path / 'plain')) as bag:
        assert not bag.is_latched('/odom')


@pytest.mark.parametrize('compressed', [False, True])
def test_a_recorded_drive_has_images_odometry_camera_and_ground_truth(tmp_path, compressed):
    drive = [SimpleNamespace(stamp=stamp(place), image=image(place), pose=pose(place),
                             odometry=pose(place) * [1.01, 1, 1, 1, 1, 1, 1],
                             velocity=np.array([10.0, 0.0])) for place in range(COUNT)]
    assert record(tmp_path / 'd.mcap', iter(drive), compressed=compressed) == COUNT
    with Bag(tmp_path / 'd.mcap') as bag:
        topic = '/camera/image_raw' + ('/compressed' if compressed else '')
        assert bag.image_topic() == topic
        np.testing.assert_allclose(bag.mount(topic, 'base_link'), MOUNT)
        with pytest.raises(SourceError, match="where 'camera_optical_frame' is in 'x'"):
            bag.mount(topic, 'x')
        assert bag.pose_topic() == '/ground_truth/pose'
        np.testing.assert_array_equal(bag.poses('/ground_truth/pose').poses,
                                      [frame.pose for frame in drive])
        np.testing.assert_array_equal(bag.poses('/odom').poses,
                                      [frame.odometry for frame in drive])
        _, first = next(bag.images(topic))
        assert messages.rgb(first).shape == (24, 32, 3)
        info = next(message for _, message in bag._messages('/camera/camera_info'))
        np.testing.assert_allclose(info.k, camera_matrix(32, 24).reshape(-1))
        deviation = [np.sqrt(message.pose.covariance[0])
                     for _, message in bag._messages('/odom')]
        assert deviation == sorted(deviation)
        assert deviation[0] > 0


def test_a_drive_without_frames_is_not_written(tmp_path):
    with pytest.raises(SourceError, match='no frames'):
        record(tmp_path / 'd.mcap', iter(()))
    assert not list(tmp_path.iterdir())


def test_a_topic_of_goals_is_not_the_default(tmp_path):
    with BagWriter(tmp_path / 'd') as bag:
        bag.write('/goal_pose', messages.pose_stamped(bag.types, stamp(0), 'map', pose(3)),
                  stamp(0))
        for place in range(40):
            bag.write('/odom', messages.odometry(bag.types, stamp(place), 'odom', 'base_link',
                                                 pose(place), np.zeros(2)), stamp(place))
    with Bag(tmp_path / 'd') as bag:
        assert bag.pose_topic() == '/odom'
        assert bag.pose_topic('/goal_pose') == '/goal_pose'
