"""Messages to plain values and back: rclpy and rosbags, every encoding, damaged images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from vpr_ros.core import raw_images
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
def rgb():
    """Return a smooth image: demosaicing and chroma subsampling cannot keep single pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 4 * x, 60 + 5 * y, 200 - 3 * x], axis=-1).astype(np.uint8)


def raw(data, encoding, *, padding=0, big_endian=0, types=rosbags_types):
    """Return pixels (H,W) or (H,W,C) as an Image with `padding` bytes at the end of each row."""
    height, width = data.shape[:2]
    rows = np.ascontiguousarray(data).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = messages.image(types, STAMP, 'camera', np.zeros((height, width, 3), np.uint8))
    message.encoding = encoding
    message.is_bigendian = big_endian
    message.step = rows.shape[1]
    message.data = messages._sequence(type(message), 'B', rows)
    return message


def mosaic(rgb, pattern):
    """Return the output of a sensor with a Bayer filter whose first two rows are `pattern`."""
    channel = {'r': 0, 'g': 1, 'b': 2}
    pixels = np.empty(rgb.shape[:2], np.uint8)
    for cell, colour in enumerate(pattern):
        rows, columns = slice(cell // 2, None, 2), slice(cell % 2, None, 2)
        pixels[rows, columns] = rgb[rows, columns, channel[colour]]
    return pixels


def yuv(rgb, order):
    """Return an image in YUV 4:2:2 (BT.601, limited range), a pixel pair's bytes in `order`."""
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    plane = {'y': 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255,
             'u': 128 + (-37.797 * r - 74.203 * g + 112 * b) / 255,
             'v': 128 + (112 * r - 93.786 * g - 18.214 * b) / 255}
    packed = np.empty((*rgb.shape[:2], 2), np.uint8)
    for byte, name in enumerate(order):
        column = slice((1 if order[:byte].count('y') else 0) if name == 'y' else 0, None, 2)
        packed[:, byte // 2::2, byte % 2] = plane[name][:, column]
    return packed


def encoded(rgb):
    """Return an image in every encoding, with the tolerance of its conversion back."""
    grey = rgb[..., :1]
    alpha = np.full((*rgb.shape[:2], 1), 9, np.uint8)
    bgr = rgb[..., ::-1]
    shallow = {
        'rgb8': (rgb, 0), 'bgr8': (bgr, 0), '8UC3': (bgr, 0),
        'rgba8': (np.concatenate([rgb, alpha], -1), 0),
        'bgra8': (np.concatenate([bgr, alpha], -1), 0),
        '8UC4': (np.concatenate([bgr, alpha], -1), 0),
        'mono8': (grey, 0), '8UC1': (grey, 0),
        **{f'bayer_{pattern}8': (mosaic(rgb, pattern), 6)
           for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')},
        'uyvy': (yuv(rgb, 'uyvy'), 6), 'yuv422': (yuv(rgb, 'uyvy'), 6),
        'yuyv': (yuv(rgb, 'yuyv'), 6), 'yuv422_yuy2': (yuv(rgb, 'yuyv'), 6),
    }
    deep = {name.replace('8', '16'): (pixels.astype('<u2') * 256 + 13, tolerance)
            for name, (pixels, tolerance) in shallow.items()
            if 'yu' not in name and 'uy' not in name}
    return shallow | deep


@pytest.mark.parametrize('padding', [0, 10])
@pytest.mark.parametrize('encoding', raw_images.ENCODINGS)
def test_an_encoding_gives_the_colours_of_the_scene(rgb, encoding, padding, types):
    data, tolerance = encoded(rgb)[encoding]
    if 'mono' in encoding or 'UC1' in encoding:
        rgb = np.repeat(rgb[..., :1], 3, axis=-1)
    result = messages.rgb(raw(data, encoding, padding=padding, types=types))
    assert result.shape == rgb.shape
    assert result.dtype == np.uint8
    error = np.abs(result.astype(int) - rgb)[2:-2, 2:-2]
    assert error.max() <= tolerance


def test_the_byte_order_of_16_bit_pixels_is_respected(rgb):
    wide = rgb[..., 0].astype('>u2') * np.array(256, '>u2')
    result = messages.rgb(raw(wide.astype('>u2'), 'mono16', big_endian=1))
    np.testing.assert_array_equal(result[..., 1], rgb[..., 0])


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'bayer_rggb8',
                                      'bayer_bggr8', 'bayer_gbrg8'])
def test_cv_bridge_gives_the_same_pixels(rgb, encoding):
    cv_bridge = pytest.importorskip('cv_bridge')
    message = raw(encoded(rgb)[encoding][0], encoding)
    np.testing.assert_array_equal(messages.rgb(message),
                                  cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8'))


def test_cv_bridge_gets_rows_without_their_padding(rgb):
    pytest.importorskip('cv_bridge')
    message = raw(rgb[..., ::-1], 'bgr8', padding=5)
    np.testing.assert_array_equal(messages._rgb_by_cv_bridge(message), rgb)


@pytest.mark.parametrize('encoding', ['', 'rgb9', 'Format_Y8'])
def test_an_unknown_encoding_is_refused_with_a_list_of_the_supported(rgb, encoding):
    with pytest.raises(ImageError, match=f"'{encoding}' is not supported.*bgr8.*rgb8") as caught:
        messages.rgb(raw(rgb, encoding))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('encoding', ['rgb8', 'rgb16'])
@pytest.mark.parametrize(('height', 'width'), [(0, 0), (0, 32), (32, 0), (1, 1)])
def test_an_empty_or_tiny_image_is_refused(encoding, height, width, types):
    message = messages.image(types, STAMP, 'camera', np.zeros((height, width, 3), np.uint8))
    message.encoding = encoding
    with pytest.raises(ImageError, match=f'{width}x{height}'):
        messages.rgb(message)


@pytest.mark.parametrize('encoding', ['rgb8', 'rgb16'])
def test_a_huge_declared_size_is_refused_before_memory_is_allocated(rgb, encoding):
    message = raw(rgb, encoding)
    message.height = message.width = 1 << 20
    with pytest.raises(ImageError, match='megapixels'):
        messages.rgb(message)


@pytest.mark.parametrize('encoding', raw_images.ENCODINGS)
def test_too_few_bytes_are_refused(rgb, encoding):
    message = raw(encoded(rgb)[encoding][0], encoding)
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match='needs 24 rows'):
        messages.rgb(message)


def test_rows_shorter_than_the_width_are_refused(rgb):
    message = raw(rgb, 'rgb8')
    message.step -= 1
    with pytest.raises(ImageError, match='needs 24 rows'):
        messages.rgb(message)


def test_a_jpeg_message_nearly_keeps_the_pixels(rgb, types):
    message = messages.compressed_image(types, STAMP, 'camera', rgb, quality=95)
    assert np.abs(messages.rgb(message).astype(int) - rgb).max() < 12


@pytest.mark.parametrize('quality', [95, None])
@pytest.mark.parametrize(('kind', 'swapped'), [
    ('jpeg', False), ('rgb8; jpeg compressed bgr8', False), ('bgr8; jpeg compressed bgr8', False),
    ('rgb8; jpeg compressed rgb8', True), ('bgr8; png compressed rgb8', True),
    ('mono8; jpeg compressed ', False)])
def test_channels_are_in_the_order_of_compressed_image_transport(rgb, kind, swapped, quality):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', rgb)
    message.format = kind
    # What compressed_image_transport gives to OpenCV, which takes its input for BGR.
    given = rgb if swapped else rgb[..., ::-1]
    message.data = cv2.imencode('.png' if quality is None else '.jpg', given)[1]
    assert np.abs(messages.rgb(message).astype(int) - rgb).max() < 16


@pytest.mark.parametrize('kind', ['h264', 'bgr8; H265 compressed', 'ffmpeg'])
def test_a_frame_of_a_video_is_refused_by_its_format(rgb, kind):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', rgb)
    message.format = kind
    with pytest.raises(ImageError, match=f"format '{kind}' is not supported: a frame of a video"):
        messages.rgb(message)


def test_a_png_message_keeps_the_pixels(rgb):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', rgb)
    message.format = 'rgb8; png compressed bgr8'
    message.data = cv2.imencode('.png', rgb[..., ::-1])[1]
    np.testing.assert_array_equal(messages.rgb(message), rgb)


@pytest.mark.parametrize('data', [b'', b'\xff\xd8\xff\xe0 no jpeg'])
def test_a_damaged_compressed_image_is_refused(rgb, data):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', rgb)
    message.data = np.frombuffer(data, np.uint8)
    with pytest.raises(ImageError, match='compressed image'):
        messages.rgb(message)


def test_a_depth_image_is_refused_by_its_format(rgb):
    message = messages.compressed_image(rosbags_types, STAMP, 'camera', rgb)
    message.format = '16UC1; compressedDepth png'
    with pytest.raises(ImageError, match='depth'):
        messages.rgb(message)


def test_an_image_keeps_pixels_stamp_and_frame(rgb, types):
    message = messages.image(types, STAMP, 'camera', rgb[:, ::-1])
    np.testing.assert_array_equal(messages.rgb(message), rgb[:, ::-1])
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
def test_an_invalid_pose_is_refused(types, bad):
    for message in pose_messages(types, np.array(bad, np.float64)):
        with pytest.raises(PoseError):
            messages.pose_of(message)


def test_covariance_and_velocity_are_in_their_fields(types):
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
    result = messages.read_cloud(message)
    assert list(result) == list(columns)
    for name, column in columns.items():
        assert result[name].dtype == np.float32
        np.testing.assert_array_equal(result[name], column.astype(np.float32))


def test_a_cloud_of_large_coordinates_is_exact(types):
    x = np.array([447_123.257, 447_124.001])
    message = messages.cloud(types, STAMP, 'utm', {'x': x, 'y': 5e6 + x, 'place': [3, 4]})
    assert [field.name for field in message.fields] == ['x', 'y', 'place', 'x_exact', 'y_exact']
    assert message.point_step == 3 * 4 + 2 * 8
    result = messages.read_cloud(message)
    assert list(result) == ['x', 'y', 'place']
    np.testing.assert_array_equal(result['x'], x)
    np.testing.assert_array_equal(result['y'], 5e6 + x)
    np.testing.assert_array_equal(result['place'], [3, 4])
    # As RViz reads it.
    first = np.frombuffer(bytes(message.data)[:4], '<f4')
    assert first[0] == np.float32(x[0])


def test_a_cloud_may_be_empty(types):
    message = messages.cloud(types, STAMP, 'map', {'x': np.empty(0), 'y': np.empty(0)})
    assert message.width == 0
    assert len(messages.read_cloud(message)['x']) == 0


def test_times_before_1970_and_with_nine_decimals_are_kept(types):
    for ns in (0, STAMP, -1):
        message = messages.header(types, ns, '')
        assert messages.stamp_ns(message) == ns
    assert messages.clock(types, STAMP).clock.nanosec == 123_456_789


def test_every_message_can_be_serialised_by_its_library(types, rgb):
    built = [messages.image(types, STAMP, 'camera', rgb),
             messages.compressed_image(types, STAMP, 'camera', rgb),
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
