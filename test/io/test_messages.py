"""Messages to plain values and back: both kinds of message, every encoding, and bad pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from vpr_ros.core import images
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import PoseError
from vpr_ros.io import messages
from vpr_ros.io.bag import rosbags_types
from vpr_ros.ros.interfaces import rclpy_types

STAMP = 1_700_000_000_123_456_789
HEIGHT, WIDTH = 24, 32




@pytest.fixture(params=[rosbags_types, rclpy_types], ids=['rosbags', 'rclpy'])
def types(request):
    if request.param is rclpy_types:
        pytest.importorskip('rclpy')
    return request.param


@pytest.fixture
def picture():
    """Return a smooth picture: demosaicing and chroma subsampling cannot keep single pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 4 * x, 60 + 5 * y, 200 - 3 * x], axis=-1).astype(np.uint8)


def raw(data, encoding, *, padding=0, big_endian=0, types=rosbags_types):
    """Return rows of pixels (H,W) or (H,W,C) as an Image with so many bytes of padding a row."""
    height, width = data.shape[:2]
    rows = np.ascontiguousarray(data).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = messages.image(types, STAMP, 'camera', np.zeros((height, width, 3), np.uint8))
    message.encoding = encoding
    message.is_bigendian = big_endian
    message.step = rows.shape[1]
    message.data = messages._sequence(type(message), 'B', rows)
    return message


def mosaic(picture, pattern):
    """Return what a sensor sees through a Bayer filter whose first two rows are `pattern`."""
    channel = {'r': 0, 'g': 1, 'b': 2}
    seen = np.empty(picture.shape[:2], np.uint8)
    for place, colour in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        seen[rows, columns] = picture[rows, columns, channel[colour]]
    return seen


def yuv(picture, order):
    """Return a picture as 4:2:2 of BT.601, limited range; `order` of its four bytes a pair."""
    r, g, b = np.moveaxis(picture.astype(np.float64), -1, 0)
    plane = {'y': 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255,
             'u': 128 + (-37.797 * r - 74.203 * g + 112 * b) / 255,
             'v': 128 + (112 * r - 93.786 * g - 18.214 * b) / 255}
    packed = np.empty((*picture.shape[:2], 2), np.uint8)
    for place, name in enumerate(order):
        column = slice((1 if order[:place].count('y') else 0) if name == 'y' else 0, None, 2)
        packed[:, place // 2::2, place % 2] = plane[name][:, column]
    return packed


def encoded(picture):
    """Return the picture in every encoding, and how far it may come back from the original."""
    grey = picture[..., :1]
    alpha = np.full((*picture.shape[:2], 1), 9, np.uint8)
    bgr = picture[..., ::-1]
    wide = grey[..., 0].astype('<u2') * 256 + 13
    return {
        'rgb8': (picture, 0), 'bgr8': (bgr, 0), '8UC3': (bgr, 0),
        'rgba8': (np.concatenate([picture, alpha], -1), 0),
        'bgra8': (np.concatenate([bgr, alpha], -1), 0),
        '8UC4': (np.concatenate([bgr, alpha], -1), 0),
        'mono8': (grey, 0), '8UC1': (grey, 0), 'mono16': (wide, 0), '16UC1': (wide, 0),
        **{f'bayer_{pattern}8': (mosaic(picture, pattern), 6)
           for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')},
        'uyvy': (yuv(picture, 'uyvy'), 6), 'yuv422': (yuv(picture, 'uyvy'), 6),
        'yuyv': (yuv(picture, 'yuyv'), 6), 'yuv422_yuy2': (yuv(picture, 'yuyv'), 6),
    }


@pytest.mark.parametrize('padding', [0, 10])
@pytest.mark.parametrize('encoding', images.ENCODINGS)
def test_an_encoding_gives_the_colours_of_the_scene(picture, encoding, padding, types):
    data, tolerance = encoded(picture)[encoding]
    if '16' in encoding or encoding in ('mono8', '8UC1'):
        picture = np.repeat(picture[..., :1], 3, axis=-1)
    got = messages.rgb(raw(data, encoding, padding=padding, types=types))
    assert got.shape == picture.shape
    assert got.dtype == np.uint8
    error = np.abs(got.astype(int) - picture)[2:-2, 2:-2]
    assert error.max() <= tolerance


def test_the_byte_order_of_16_bit_pixels_is_minded(picture):
    wide = picture[..., 0].astype('>u2') * np.array(256, '>u2')
    got = messages.rgb(raw(wide.astype('>u2'), 'mono16', big_endian=1))
    np.testing.assert_array_equal(got[..., 1], picture[..., 0])


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'bayer_rggb8',
                                      'bayer_bggr8', 'bayer_gbrg8'])
def test_cv_bridge_gives_the_same(picture, encoding):
    cv_bridge = pytest.importorskip('cv_bridge')
    message = raw(encoded(picture)[encoding][0], encoding)
    np.testing.assert_array_equal(messages.rgb(message),
                                  cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8'))


def test_padded_rows_reach_cv_bridge_without_their_padding(picture):
    pytest.importorskip('cv_bridge')
    message = raw(picture[..., ::-1], 'bgr8', padding=5)
    np.testing.assert_array_equal(messages._rgb_by_cv_bridge(message), picture)


@pytest.mark.parametrize('encoding', ['', 'rgb9', 'Format_Y8'])
def test_an_unknown_encoding_is_refused_with_those_that_are_known(picture, encoding):
    with pytest.raises(ImageError, match=f"'{encoding}' is not supported.*bgr8.*rgb8") as caught:
        messages.rgb(raw(picture, encoding))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('encoding', ['rgb8', 'rgb16'])
@pytest.mark.parametrize(('height', 'width'), [(0, 0), (0, 32), (32, 0), (1, 1)])
def test_a_picture_without_size_is_refused(encoding, height, width, types):
    message = messages.image(types, STAMP, 'camera', np.zeros((height, width, 3), np.uint8))
    message.encoding = encoding
    with pytest.raises(ImageError, match=f'{width}x{height}'):
        messages.rgb(message)


@pytest.mark.parametrize('encoding', ['rgb8', 'rgb16'])
def test_a_size_that_lies_is_refused_before_memory_is_taken(picture, encoding):
    message = raw(picture, encoding)
    message.height = message.width = 1 << 20
    with pytest.raises(ImageError, match='megapixels'):
        messages.rgb(message)


@pytest.mark.parametrize('encoding', images.ENCODINGS)
def test_too_few_bytes_are_refused(picture, encoding):
    message = raw(encoded(picture)[encoding][0], encoding)
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match='needs 24 rows'):
        messages.rgb(message)


def test_rows_shorter_than_the_picture_are_refused(picture):
    message = raw(picture, 'rgb8')
    message.step -= 1
    with pytest.raises(ImageError, match='needs 24 rows'):
        messages.rgb(message)


def test_a_jpeg_comes_back_nearly_as_it_was(picture, types):
    message = messages.compressed_image(types, STAMP, 'camera', picture, quality=95)
    assert np.abs(messages.rgb(message).astype(int) - picture).max() < 12


def test_a_png_comes_back_as_it_was(picture):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', picture)
    message.format = 'rgb8; png compressed bgr8'
    message.data = cv2.imencode('.png', picture[..., ::-1])[1]
    np.testing.assert_array_equal(messages.rgb(message), picture)


@pytest.mark.parametrize('data', [b'', b'\xff\xd8\xff\xe0 no jpeg'])
def test_a_damaged_compressed_picture_is_refused(picture, data):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', picture)
    message.data = np.frombuffer(data, np.uint8)
    with pytest.raises(ImageError, match='compressed image'):
        messages.rgb(message)


def test_a_depth_picture_is_refused_by_its_format(picture):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', picture)
    message.format = '16UC1; compressedDepth png'
    with pytest.raises(ImageError, match='depth'):
        messages.rgb(message)


def test_a_picture_keeps_pixels_stamp_and_frame(picture, types):
    message = messages.image(types, STAMP, 'camera', picture[:, ::-1])
    np.testing.assert_array_equal(messages.rgb(message), picture[:, ::-1])
    assert messages.stamp_ns(message.header) == STAMP
    assert message.header.frame_id == 'camera'


POSE = np.array([1.5, -2.0, 0.25, 0.0, 0.0, 0.6, 0.8])


def pose_messages(types, pose):
    return [messages.pose_stamped(types, STAMP, 'map', pose),
            messages.pose_with_covariance(types, STAMP, 'map', pose, np.eye(6)),
            messages.odometry(types, STAMP, 'odom', 'base_link', pose, np.array([2.0, 0.1]))]


def test_every_pose_message_gives_its_pose_back(types):
    for message in pose_messages(types, POSE):
        np.testing.assert_allclose(messages.pose_of(message), POSE, rtol=0, atol=1e-15)


@pytest.mark.parametrize('bad', [[np.nan, 0, 0, 0, 0, 0, 1], [0, np.inf, 0, 0, 0, 0, 1],
                                 [0, 0, 0, 0, 0, 0, 0]])
def test_a_pose_that_is_none_is_refused(types, bad):
    for message in pose_messages(types, np.array(bad, np.float64)):
        with pytest.raises(PoseError):
            messages.pose_of(message)


def test_covariance_and_velocity_are_where_their_readers_look(types):
    covariance = np.arange(36.0).reshape(6, 6)
    message = messages.pose_with_covariance(types, STAMP, 'map', POSE, covariance)
    np.testing.assert_array_equal(message.pose.covariance, np.arange(36.0))
    moving = messages.odometry(types, STAMP, 'odom', 'base_link', POSE, np.array([2.0, 0.1]),
                               twist_covariance=covariance)
    assert (moving.twist.twist.linear.x, moving.twist.twist.angular.z) == (2.0, 0.1)
    assert moving.twist.covariance[7] == 7.0
    assert moving.child_frame_id == 'base_link'


def test_a_cloud_gives_its_columns_back(types):
    columns = {'x': np.arange(5.0), 'y': -np.arange(5), 'probability': np.linspace(0, 1, 5)}
    message = messages.cloud(types, STAMP, 'map', columns)
    assert (message.width, message.height, message.point_step) == (5, 1, 12)
    got = messages.read_cloud(message)
    assert list(got) == list(columns)
    for name, column in columns.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], column.astype(np.float32))


def test_a_cloud_may_be_empty(types):
    message = messages.cloud(types, STAMP, 'map', {'x': np.empty(0), 'y': np.empty(0)})
    assert message.width == 0
    assert len(messages.read_cloud(message)['x']) == 0


def test_times_before_1970_and_of_nine_digits_survive(types):
    for ns in (0, STAMP, -1):
        message = messages.header(types, ns, '')
        assert messages.stamp_ns(message) == ns
    assert messages.clock(types, STAMP).clock.nanosec == 123_456_789


def test_every_message_can_be_serialised_by_its_own_middleware(types, picture):
    built = [messages.image(types, STAMP, 'camera', picture),
             messages.compressed_image(types, STAMP, 'camera', picture),
             messages.camera_info(types, STAMP, 'camera', np.eye(3), WIDTH, HEIGHT),
             messages.cloud(types, STAMP, 'map', {'x': np.arange(3)}),
             messages.float32(types, np.float32(0.5)), messages.clock(types, STAMP),
             *pose_messages(types, POSE)]
    if types is rosbags_types:
        from rosbags.typesys import get_typestore
        from rosbags.typesys import Stores
        store = get_typestore(Stores.ROS2_HUMBLE)
        for message in built:
            kind = message.__msgtype__
            assert store.deserialize_cdr(store.serialize_cdr(message, kind), kind)
    else:
        serialization = pytest.importorskip('rclpy.serialization')
        for message in built:
            data = serialization.serialize_message(message)
            assert serialization.deserialize_message(data, type(message)) == message
