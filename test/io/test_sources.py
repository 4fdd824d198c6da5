"""Sources: folders of other tools, the checks of their poses, gaps; without building a map."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from small_drive import stamp
from small_drive import write_bag
from small_drive import write_folder
from vpr_ros.core import images
from vpr_ros.core import pose_files
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.camera import camera_pose
from vpr_ros.core.errors import PoseError
from vpr_ros.core.errors import SourceError
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag import rosbags_types
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.io.map_poses import PoseOptions
from vpr_ros.io.pose_messages import fixed_pose
from vpr_ros.io.sources import open_source

EUROC = ('#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],'
         'q_RS_z []\n')
GREY = np.zeros((8, 8), np.uint8)


def frames(path, pose_file=None, **options):
    with open_source(path, pose_file=pose_file, poses=PoseOptions(**options)) as source:
        return list(source.frames)


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelname == 'WARNING']


def write_images(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / name), GREY)
    return folder


def circle(count=60):
    angle = np.linspace(0, 2 * np.pi, count)
    return poses.planar(9 * np.sin(angle), 9 - 9 * np.cos(angle), angle)


@pytest.fixture
def euroc(tmp_path):
    """Return the folder `mav0` of a set of EuRoC: images named by ns, poses with w first."""
    start = 1403636579763555584
    stamps = [start + n * 50_000_000 for n in range(3)]
    data = write_images(tmp_path / 'set' / 'mav0' / 'cam0' / 'data',
                        [f'{stamp}.png' for stamp in stamps])
    (data.parent / 'data.csv').write_text('#timestamp [ns],filename\n' + ''.join(
        f'{stamp},{stamp}.png\n' for stamp in stamps))
    truth = tmp_path / 'set' / 'mav0' / 'state_groundtruth_estimate0'
    truth.mkdir()
    (truth / 'data.csv').write_text(EUROC + ''.join(
        f'{start + n * 100_000_000 - 10_000_000},{n},0,0,1,0,0,0\n' for n in range(3)))
    return tmp_path / 'set' / 'mav0'


@pytest.mark.parametrize('below', ['..', '.', 'cam0', 'cam0/data'])
def test_a_set_of_euroc_is_read_from_any_of_its_folders(euroc, below):
    found = frames((euroc / below).resolve())
    np.testing.assert_allclose([frame.pose[0] for frame in found], [0.1, 0.6, 1.1])
    assert [frame.stamp for frame in found] == [int(frame.name[:-4]) for frame in found]


def test_the_stamps_of_images_are_those_of_the_list_of_a_camera(euroc):
    data = euroc / 'cam0' / 'data'
    listed = (euroc / 'cam0' / 'data.csv').read_text()
    for number, image in enumerate(images.list_folder(data)):
        image.rename(data / f'{number}.png')
        listed = listed.replace(f',{image.name}', f',{number}.png')
    (euroc / 'cam0' / 'data.csv').write_text(listed)
    assert [frame.pose[0].round(3) for frame in frames(euroc)] == [0.1, 0.6, 1.1]


def test_kitti_is_read_in_order_once_its_axes_are_named(tmp_path):
    sequence = tmp_path / '00'
    track = circle()
    write_images(sequence / 'image_2', [f'{n:06d}.png' for n in range(60)])
    optical = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0.0]])
    with (tmp_path / '00.txt').open('w') as file:
        for x, y, *_ in track:
            heading = np.arctan2(x, 9 - y)
            turn = np.array([[np.cos(heading), -np.sin(heading), 0],
                             [np.sin(heading), np.cos(heading), 0], [0, 0, 1]])
            matrix = np.column_stack([optical @ turn @ optical.T, optical @ [x, y, 0]])
            file.write(' '.join(f'{value:e}' for value in matrix.ravel()) + '\n')
    with pytest.raises(PoseError, match=r'00\.txt: the track is .* --axes camera,'):
        frames(sequence, tmp_path / '00.txt')
    found = np.array([frame.pose for frame in frames(sequence, tmp_path / '00.txt',
                                                     axes='camera')])
    np.testing.assert_allclose(found[:, :3], track[:, :3], atol=1e-5)
    assert poses.angle(found, track).max() < 1e-3
    (sequence / 'image_2' / '000059.png').unlink()
    with pytest.raises(SourceError, match=r'60 poses without a name.*59 images'):
        frames(sequence, tmp_path / '00.txt', axes='camera')


def test_a_folder_of_another_layout_says_where_it_was_looked_for_images(tmp_path):
    write_images(tmp_path / 'set' / 'left' / 'pics', ['1.png'])
    with pytest.raises(SourceError, match=r'nor a folder of images: there are none in it, nor '
                                          r'in its images, .*cam0/data.*image_2') as caught:
        frames(tmp_path / 'set')
    assert 'reindex' not in str(caught.value)


def test_a_bag_that_lost_its_metadata_is_still_a_bag(tmp_path):
    path = write_bag(tmp_path / 'bag', range(2))
    (path / 'metadata.yaml').unlink()
    with pytest.raises(SourceError, match='reindex'):
        frames(path)


@pytest.mark.parametrize('names', [
    ['1.png', '2.png', '10.png'], ['frame9_2.png', 'frame10_1.png', 'frame10_10.png'],
    ['a2.png', 'a10.png', 'b1.png'],
    ['1700000000.25.png', '1700000000.5.png', '1700000001.0.png'], ['1.5.png', '1.25.png']])
def test_images_are_in_the_order_of_their_numbers(tmp_path, names):
    folder = write_images(tmp_path / 'set', names)
    assert [frame.name for frame in frames(folder)] == names


@pytest.mark.parametrize('prefix', ['images/', './', 'C:\\drive\\'])
def test_names_may_have_folders(tmp_path, prefix):
    folder = write_images(tmp_path / 'set', ['a.png', 'b.png'])
    (folder / 'poses.csv').write_text(f'image,x,y,yaw\n{prefix}a.png,1,2,0\n{prefix}b.png,3,2,0\n')
    assert [frame.pose[0] for frame in frames(folder)] == [1, 3]


def test_images_named_by_stamps_are_in_the_order_of_time(tmp_path):
    folder = write_images(tmp_path / 'set', ['1.25.png', '1.5.png', '10.png', '2.125.png'])
    pose_files.write_tum(folder / 'poses.tum', np.arange(20) * 10**9,
                         poses.planar(np.arange(20.0), np.zeros(20), np.zeros(20)))
    assert [frame.pose[0] for frame in frames(folder)] == [1.25, 1.5, 2.125, 10]


# What is done about poses that seem wrong

def write_track(path, track, seconds=0.1):
    with BagWriter(path) as bag:
        image = messages.image(bag.types, stamp(0), 'camera', np.zeros((8, 8, 3), np.uint8))
        bag.write('/image', image, stamp(0))
        for number, each in enumerate(track):
            time = stamp(0) + int(number * seconds * 1e9)
            bag.write('/pose', messages.pose_stamped(bag.types, time, 'map', each), time)
    return path


def test_a_constant_orientation_is_replaced_by_the_direction_of_travel(tmp_path, caplog):
    positions = circle() * [1, 1, 1, 0, 0, 0, 0] + poses.IDENTITY
    positions[:, :3] -= positions[20, :3]
    bag = write_track(tmp_path / 'bag', np.roll(positions, -20, axis=0))
    found = frames(bag)[0].pose
    assert poses.angle(found, circle()[20]) < 0.2
    assert '/pose: the orientation of the poses is constant' in caplog.text
    assert '--heading from-track' in caplog.text
    caplog.clear()
    assert poses.heading(frames(bag, heading='poses')[0].pose) == 0
    assert poses.angle(frames(bag, heading='from-track')[0].pose, found) == 0
    assert not warnings(caplog)


def test_a_robot_that_drives_sideways_is_warned_about_once(tmp_path, caplog):
    sideways = circle()
    sideways = poses.planar(*sideways.T[:2], poses.heading(sideways) + np.pi / 2)
    bag = write_track(tmp_path / 'bag', sideways)
    np.testing.assert_allclose(frames(bag)[0].pose, sideways[0], atol=1e-9)
    assert len(warnings(caplog)) == 1
    assert '90 degrees to the right of the x axis' in caplog.text
    caplog.clear()
    frames(bag, heading='poses')
    frames(bag, heading='from-track')
    assert not warnings(caplog)


def test_axes_that_are_named_are_not_questioned(tmp_path, caplog):
    climb = np.tile(poses.IDENTITY, (60, 1))
    climb[:, 2] = np.arange(60)
    bag = write_track(tmp_path / 'bag', climb)
    with pytest.raises(PoseError, match=r'runs along the z axis.* --axes camera, or keep them'):
        frames(bag)
    assert len(frames(bag, axes='robot')) == 1
    assert not warnings(caplog)


@pytest.mark.parametrize('options', [{'axes': 'optical'}, {'heading': 'track'}])
def test_another_option_is_refused_with_the_choices(options):
    with pytest.raises(ValueError, match=r"'(optical|track)' is not one of (robot|poses), "):
        PoseOptions(**options)


# Gaps between poses

def write_slow(path, seconds):
    """Write images at 5 Hz for 6 s, and poses that many seconds apart from one second on."""
    with BagWriter(path) as bag:
        for number in range(31):
            time = stamp(number)
            bag.write('/image', messages.image(bag.types, time, 'camera',
                                               np.zeros((8, 8, 3), np.uint8)), time)
        for number in range(int(5.1 / seconds) + 1):
            time = stamp(5) + int(number * seconds * 1e9)
            bag.write('/pose', messages.pose_stamped(
                bag.types, time, 'map', poses.planar(number, 0.0, 0.0)), time)
    return path


def test_poses_at_one_hertz_serve_even_late(tmp_path, caplog):
    assert len(frames(write_slow(tmp_path / 'bag', 1.002))) == 26
    assert '5 frames left out: 5 are before the first pose or after the last' in caplog.text


def test_the_gap_is_an_option_and_the_reason_why_frames_are_left_out(tmp_path, caplog):
    bag = write_slow(tmp_path / 'bag', 2.5)
    assert len(frames(bag, max_gap=2.5)) == 26
    caplog.clear()
    assert len(frames(bag)) == 2
    assert ('29 frames left out: 5 are before the first pose or after the last; the poses around '
            '24 are up to 2.500 s apart, more than 1.5 (--max-pose-gap)') in caplog.text


def test_images_of_a_folder_in_a_gap_are_left_out_for_that_reason(tmp_path, caplog):
    folder = write_folder(tmp_path / 'folder', range(20), pose_file='poses.tum')
    lines = (folder / 'poses.tum').read_text().splitlines()
    (folder / 'poses.tum').write_text('\n'.join([*lines[:5], *lines[15:]]))
    assert len(frames(folder)) == 10
    assert 'the poses around 10 are up to 2.200 s apart, more than 1.5' in caplog.text


def test_a_folder_may_have_a_calibrated_camera(tmp_path, caplog):
    write_folder(tmp_path / 'drive')
    written = tmp_path / 'drive' / 'camera.yaml'
    with open_source(tmp_path / 'drive') as source:
        assert source.camera is None
        with pytest.raises(SourceError, match='give --camera-pose'):
            source.mount()
    written.write_text('image_width: 80\nimage_height: 60\ncamera_name: narrow\n'
                       'camera_matrix: {rows: 3, cols: 3, data: [50, 0, 40, 0, 51, 30, 0, 0, 1]}\n'
                       'distortion_model: plumb_bob\n'
                       'distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}\n')
    mount = camera_pose(0.5, 0, 1, 0, 0, 0)
    with open_source(tmp_path / 'drive', mount=mount) as source:
        assert source.camera == Camera(80, 60, (50, 51, 40, 30), 'plumb_bob', (0.1, 0, 0, 0, 0))
        assert source.mount() is mount
    for wrong in ('image_width: 80', 'image_width: [', written.read_text().replace('51', 'x')):
        written.write_text(wrong)
        caplog.clear()
        with open_source(tmp_path / 'drive') as source:
            assert source.camera is None
            assert source.count == 40
        assert [line for line in caplog.messages if 'camera.yaml' in line] == [
            line for line in caplog.messages if 'is no calibration of a camera' in line]
        assert 'camera.yaml is not used' in caplog.text


@pytest.mark.parametrize(('topic', 'rectified'), [
    ('/camera/image_raw', False), ('/camera/image_rect', True), ('/c/image_rect_color', True),
    ('/camera/image_rect/compressed', True), ('/rect/image_raw/compressed', False)])
def test_rectified_images_have_the_camera_of_their_projection(tmp_path, topic, rectified):
    with BagWriter(tmp_path / 'bag') as bag:
        info = messages.camera_info(bag.types, 1, 'camera', np.diag([50.0, 50.0, 1.0]), 80, 60)
        info.d[0], info.p[0], info.p[5] = 0.1, 45.0, 46.0
        bag.write(messages.camera_info_topic(topic), info, 1)
    with Bag(tmp_path / 'bag') as bag:
        camera = bag.camera(topic)
    assert (camera.k[:2], len(camera.d)) == ((45, 46), 0) if rectified else ((50, 50), 5)


@pytest.mark.parametrize(('tree', 'robot', 'found'), [
    ([('base_link', 'mast'), ('mast', 'eye')], 'base_link', True),
    ([('base_link', 'mast'), ('mast', 'eye')], '/base_link', True),
    ([('odom', 'mast'), ('mast', 'eye')], 'base_link', False), ([], 'base_link', False)])
def test_the_camera_pose_is_a_chain_of_fixed_transforms(tree, robot, found):
    types = rosbags_types
    half = np.sqrt(0.5)
    up = np.array([0, 0, 1, 0, 0, half, half])       # turned to the left
    chain = [messages.transforms(types, [messages.transform(types, 0, parent, child, pose)])
             for (parent, child), pose in zip(tree, ([1, 0, 1, 0, 0, half, half], up),
                                              strict=False)]
    pose = fixed_pose([(0, message) for message in chain], robot, 'eye')
    if not found:
        assert pose is None
    else:
        np.testing.assert_allclose(pose[:3], [1, 0, 2], atol=1e-12)
        np.testing.assert_allclose(poses.heading(pose), np.pi, atol=1e-6)


def test_transforms_with_loops_and_long_chains_come_to_an_end():
    names = [f'frame_{number}' for number in range(1500)]
    loops = [(one, other) for one in names[:30] for other in names[:30] if one != other]
    chain = list(pairwise(names))
    for tree, found in ((loops, False), (chain + loops, True)):
        transforms = messages.transforms(rosbags_types, [messages.transform(
            rosbags_types, 0, parent, child, poses.IDENTITY) for parent, child in tree])
        pose = fixed_pose([(0, transforms)], 'frame_0' if found else 'base_link', names[-1])
        assert (pose is not None) == found


def test_axes_of_a_robot_are_no_optical_axes(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write('/tf_static', messages.transforms(bag.types, [messages.transform(
            bag.types, 1, 'base_link', 'camera_link', poses.IDENTITY)]), 1)
        bag.write('/image', messages.image(bag.types, 1, 'camera_link',
                                           np.zeros((6, 8, 3), np.uint8)), 1)
    with Bag(tmp_path / 'bag') as bag, \
            pytest.raises(SourceError, match=r"z axis of 'camera_link' points up.*--camera-pose"):
        bag.mount('/image', 'base_link')
