"""Pose files of other tools: units, separators, EuRoC, KITTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.core.csv_table import nanoseconds
from vpr_ros.core.errors import PoseError
from vpr_ros.core.pose_files import read_csv
from vpr_ros.core.pose_files import read_pose_file

EUROC = ('#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],'
         'q_RS_z []')


def written(tmp_path, *lines, name='poses.csv'):
    path = tmp_path / name
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


@pytest.mark.parametrize('lines', [
    ('image,x_m,y_m,yaw_deg', 'a.jpg,1.5,-2,90'),
    ('image,x_mm,y_cm,heading_deg', 'a.jpg,1500,-200,90'),
    ('image,x_km,y_m,yaw_rad', 'a.jpg,0.0015,-2,1.5707963267948966'),
    ('image,X [m],Y (mm),yaw [degrees]', 'a.jpg,1.5,-2000,90'),
    ('image,x_millimeters,y_centimetres,yaw_degrees', 'a.jpg,1500,-200,90'),
    ('image,y,x,yaw', 'a.jpg,-2,1.5,1.5707963267948966'),
    ('image;x;y;yaw_deg', 'a.jpg;1,5;-2;90'),
    ('image;x;y;yaw_deg', 'a.jpg;1.5;-2.0;90.0'),
    ('image\tx\ty\tyaw_deg', 'a.jpg\t1.5\t-2\t90'),
    ('image,tx,ty,tz,qx,qy,qz,qw', 'a.jpg,1.5,-2,0,0,0,0.7071067811865476,0.7071067811865476'),
    ('image,x_mm,y_mm,z_mm,qw,qx,qy,qz',
     'a.jpg,1500,-2000,0,0.7071067811865476,0,0,0.7071067811865476'),
])
def test_units_order_and_separators_are_those_of_the_header(tmp_path, lines):
    names, read = read_csv(written(tmp_path, *lines))
    assert names == ['a.jpg']
    np.testing.assert_allclose(read, [poses.planar(1.5, -2.0, np.pi / 2)], atol=1e-12)


@pytest.mark.parametrize(('header', 'message'), [
    ('image,x_ft,y_ft,yaw', "the column x has the unit 'ft', which is not known: use x_m, x_cm"),
    ('image,x_utm,y_utm,yaw', "'utm'"),
    ('image,x,y,yaw_gon', "the column yaw has the unit 'gon'.*yaw_rad, yaw_deg"),
    ('image,x_deg,y_deg,yaw', "x has the unit 'deg'"),
    ('image,x,y,yaw_m', "yaw has the unit 'm'"),
    ('image,lon_deg,lat_deg,yaw', 'columns must be .*not image,lon_deg,lat_deg,yaw'),
    ('image,x,x,yaw', 'columns must be'),
    ('timestamp_h,x,y,yaw', "the unit 'h' of its times"),
    ('image,x,y,yaw\nb.jpg,1,2,90', 'yaw goes to 90, more than a turn.*yaw_deg or yaw_rad'),
    ('image,x,y,yaw\n0,1,2,0', 'more than one pose of 0'),
])
def test_an_unknown_unit_or_column_is_refused_by_name(tmp_path, header, message):
    path = written(tmp_path, header, '0,1,2,0.5')
    with pytest.raises(PoseError, match=rf'poses\.csv.*{message}'):
        read_pose_file(path)


@pytest.mark.parametrize('header', [
    EUROC, EUROC.replace(' [ns]', '').replace(',', ', '),
    EUROC + ',v_RS_R_x [m s^-1],b_w_RS_S_x [rad s^-1]', '# by hand\n' + EUROC,
    'timestamp_ns,x,y,z,qw,qx,qy,qz', 'time [us],x,y,z,qw,qx,qy,qz'])
def test_euroc_has_nanoseconds_and_w_first(tmp_path, header):
    stamp = '1403636579758555' + ('' if '[us]' in header else '392')
    more = ',0.1,0.2' if 'v_RS' in header else ''
    track = read_pose_file(written(tmp_path, header, f'{stamp},4.5,-1.5,0.5,0.6,0.8,0,0{more}'))
    assert track.stamps.tolist() == [int(stamp.ljust(19, '0'))]
    np.testing.assert_allclose(track.poses, [[4.5, -1.5, 0.5, 0.8, 0, 0, 0.6]])


def test_kitti_has_matrices_in_the_order_of_the_images(tmp_path):
    path = written(tmp_path, '1 0 0 0 0 1 0 0 0 0 1 0', '0 0 1 2 0 1 0 -1 -1 0 0 30.5',
                   name='00.txt')
    read = read_pose_file(path)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(read, [[0, 0, 0, 0, 0, 0, 1], [2, -1, 30.5, 0, half, 0, half]],
                               atol=1e-12)


@pytest.mark.parametrize(('lines', 'message'), [
    (('1403636579758555392 4.7 -1.8 0.8 0.5 -0.2 -0.8 -0.1',),
     'is not a time in seconds.*nanoseconds, and quaternions with w first'),
    (('1403636579758555392,4.7,-1.8,0.8,0.5,-0.2,-0.8,-0.1',), 'has no header'),
    (('1 2 3 4 5 6 7 8 9 10 11 12',), r'not the rows of \[R\|t\]'),
    (('1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1',), '15 numbers where 7 are needed'),
    (('#timestamp [ns],filename', '1403636579758555392,a.png'), 'columns must be'),
    (('image,x,y,yaw', 'a.jpg,1,2'), 'a line has 2 numbers where 3 are needed: 1,2'),
    (('image x y yaw', 'a.jpg 1 2 3'), 'columns must be'),
])
def test_what_cannot_be_told_is_refused_by_name(tmp_path, lines, message):
    with pytest.raises(PoseError, match=rf'poses\.txt.*{message}') as caught:
        read_pose_file(written(tmp_path, *lines, name='poses.txt'))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [
    '1.5 1 2 3 0 0 0 1', '# time x y z qx qy qz qw\n1.5\t1\t2\t3\t0\t0\t0\t1'])
def test_tum_is_told_by_its_contents(tmp_path, content):
    track = read_pose_file(written(tmp_path, content, name='groundtruth.txt'))
    assert track.stamps.tolist() == [1_500_000_000]
    assert track.poses[0, :3].tolist() == [1, 2, 3]


@pytest.mark.parametrize('content', [
    '# timestamp tx ty tz qw qx qy qz\n1.5 1 2 3 0.6 0 0 0.8',
    '# by hand\n#time_ms x_cm y_m z_m qx qy qz qw\n1500 100 2 3 0 0 0.8 0.6'])
def test_a_comment_of_tum_that_names_its_columns_counts(tmp_path, content):
    track = read_pose_file(written(tmp_path, content, name='poses.txt'))
    assert track.stamps.tolist() == [1_500_000_000]
    np.testing.assert_allclose(track.poses, [[1, 2, 3, 0, 0, 0.8, 0.6]])


@pytest.mark.parametrize(('encoding', 'right'), [
    ('utf-8', True), ('utf-8-sig', True), ('utf-16', True), ('latin-1', False)])
def test_text_in_another_encoding_is_read_or_called_that(tmp_path, encoding, right):
    path = tmp_path / 'poses.csv'
    path.write_text('image,x,y,yaw [°]\na.jpg,1,2,90\n', encoding=encoding)
    if right:
        names, read = read_csv(path)
        assert names == ['a.jpg']
        np.testing.assert_allclose(read, [poses.planar(1, 2, np.pi / 2)])
    else:
        with pytest.raises(PoseError, match='not text in UTF-8: save it as that'):
            read_csv(path)


@pytest.mark.parametrize(('field', 'unit', 'stamp'), [
    ('1403636579763555584', '', 1403636579763555584),
    ('1403636579763555', '', 1403636579763555000),
    ('1403636579763', '', 1403636579763000000), ('1403636579', '', 1403636579000000000),
    ('12.5', '', 12_500_000_000), ('12.5', 'ms', 12_500_000), ('12', 'ns', 12),
    ('12', 'seconds', 12_000_000_000)])
def test_times_have_a_unit_or_show_it_by_their_size(field, unit, stamp):
    assert nanoseconds(field, 'file', unit) == stamp


@pytest.mark.parametrize(('name', 'text'), [
    ('a.tum', '1 1e308 0 0 0 0 0 1\n2 -1e308 0 0 0 0 0 1\n'), ('a.tum', '1 0 0 0 0 0 0 1e308\n'),
    ('a.tum', '1 inf 0 0 0 0 0 1\n'), ('a.tum', '1 ' + 'x' * 20_000),
    ('a.txt', '1 0 0 1e308 0 1 0 0 0 0 1 0\n'), ('a.txt', '1e308 0 0 1 0 1 0 0 0 0 1 0\n'),
    ('a.txt', 'nan 0 0 1 0 1 0 0 0 0 1 0\n'), ('a.txt', '1 0 0 9e8 0 1 0 0 0 0 1 0\n'),
    ('a.csv', 'image,x_km,y,yaw\na,1e308,1,1\n'), ('a.csv', 'image,x,y,yaw\na,1,1,1e308\n'),
    ('a.csv', 'image,x_km,y,yaw\na,1e6,1,1\n'), ('a.csv', 'image,' + 'y' * 20_000)])
def test_numbers_that_no_pose_has_are_refused_in_one_line(
        tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PoseError, match=name) as refusal:
        read_pose_file(tmp_path / name)
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable()
