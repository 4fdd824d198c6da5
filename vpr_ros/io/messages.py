"""
Conversions between ROS messages and plain values, for the messages of rclpy and of rosbags.

ROS is not imported here: functions that build a message take `types`, which maps a name such as
'geometry_msgs/msg/PoseStamped' to a message class.
"""

from __future__ import annotations

import array
from collections.abc import Callable
import importlib
from types import SimpleNamespace
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core import raw_images
from vpr_ros.core.camera import Camera
from vpr_ros.core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Types = Callable[[str], Any]
"""Maps the name of a message type, 'package/msg/Name', to its class."""

RAW_IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
CLOUD = 'sensor_msgs/msg/PointCloud2'

_SECOND = 1_000_000_000

_VIDEO = ('h264', 'h.264', 'avc1', 'h265', 'h.265', 'hevc', 'vp8', 'vp9', 'av1', 'ffmpeg',
          'theora')
"""What the format of a compressed image has in it when it is a frame of a video."""

# The datatypes of sensor_msgs/PointField.
_FIELD_DTYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}
_FLOAT32, _FLOAT64 = 7, 8

_EXACT = '_exact'
_LARGEST_FLOAT32 = 16_384.0
"""Metres above which two float32 are more than a millimetre apart."""


def stamp_ns(header: Any) -> int:
    """Return the stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * _SECOND + int(header.stamp.nanosec)


def time_message(types: Types, ns: int) -> Any:
    """Return nanoseconds as a builtin_interfaces/Time."""
    sec, nanosec = divmod(int(ns), _SECOND)
    return types('builtin_interfaces/msg/Time')(sec=sec, nanosec=nanosec)


def header(types: Types, stamp: int, frame_id: str) -> Any:
    """Return a std_msgs/Header with a stamp in nanoseconds."""
    return types('std_msgs/msg/Header')(stamp=time_message(types, stamp), frame_id=frame_id)


def clock(types: Types, ns: int) -> Any:
    """Return nanoseconds as a rosgraph_msgs/Clock."""
    return types('rosgraph_msgs/msg/Clock')(clock=time_message(types, ns))


def float32(types: Types, value: float) -> Any:
    """Return a number as a std_msgs/Float32."""
    return types('std_msgs/msg/Float32')(data=float(value))


def rgb(message: Any, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """
    Convert an Image or a CompressedImage to uint8 (H,W,3) RGB.

    A JPEG much larger than `min_size` (height, width) is decoded at half its size, as in
    images.decode. Raises ImageError when it cannot be converted.
    """
    if hasattr(message, 'encoding'):
        return rgb_from_image(message)
    return rgb_from_compressed(message, min_size)


def rgb_from_image(message: Any) -> NDArray[np.uint8]:
    """
    Convert a sensor_msgs/Image to uint8 (H,W,3) RGB, which may be a view of its data.

    Row padding is removed. raw_images.ENCODINGS are converted here, others by cv_bridge where it
    is installed. Raises ImageError for an unsupported encoding or size, or too few bytes.
    """
    if message.encoding not in raw_images.ENCODINGS:
        return _rgb_by_cv_bridge(message)
    return raw_images.from_raw(message.data, message.height, message.width, message.encoding,
                               message.step, big_endian=bool(message.is_bigendian))


def rgb_from_compressed(message: Any, min_size: tuple[int, int] | None = None
                        ) -> NDArray[np.uint8]:
    """
    Convert a sensor_msgs/CompressedImage to uint8 (H,W,3) RGB; `min_size` as in `rgb`.

    Raises ImageError for a depth image, a video, or one that is damaged or cannot be decoded.
    """
    kind = message.format.lower()
    if 'compresseddepth' in kind:
        raise ImageError(f"format '{message.format}' is a depth image: choose the topic of a "
                         'colour or grey camera')
    if any(codec in kind for codec in _VIDEO):
        raise ImageError(f"format '{message.format}' is not supported: a frame of a video needs "
                         'those before it; publish or record JPEG (image_transport compressed)')
    rgb = images.decode(message.data, f"compressed image ({message.format or 'no format'})",
                        min_size)
    # compressed_image_transport's word for a node that gave RGB to a JPEG encoder that takes BGR.
    # Its subscriber takes such an image as it is, so red and blue change places.
    return np.ascontiguousarray(rgb[..., ::-1]) if 'compressed rgb' in kind else rgb


def camera_of(message: Any, *, rectified: bool = False) -> Camera | None:
    """
    Return the camera of a sensor_msgs/CameraInfo, of its region of interest if it has one.

    Of `rectified` images, that of its projection matrix, which has no distortion. None for a
    message without a size: the driver has no calibration.
    """
    if not (message.width and message.height):
        return None
    fx, _, cx, *_ = message.p if rectified else message.k
    fy, cy = (message.p[5:7] if rectified else message.k[4:6])
    roi = message.roi
    k = (float(fx), float(fy), float(cx - roi.x_offset), float(cy - roi.y_offset))
    calibrated = min(fx, fy) > 0 and np.isfinite(k).all()
    return Camera(int(roi.width or message.width), int(roi.height or message.height),
                  k if calibrated else (), message.distortion_model,
                  tuple(map(float, message.d)) if calibrated and not rectified else ())


def is_rectified(image_topic: str) -> bool:
    """Return whether an image topic is named as image_proc names rectified images."""
    return 'rect' in image_topic.removesuffix('/compressed').rpartition('/')[2].split('_')


def camera_info_topic(image_topic: str) -> str:
    """Return where the camera of an image topic has its CameraInfo, by the convention of ROS."""
    base = image_topic.removesuffix('/compressed')
    return f'{base.rpartition("/")[0]}/camera_info'


def pose_of(message: Any) -> Floats:
    """
    Return the pose (7,) of an Odometry, PoseStamped or PoseWithCovarianceStamped.

    Raises PoseError when it is not finite or its quaternion is zero.
    """
    return poses.checked(raw_pose(message))


def raw_pose(message: Any) -> Floats:
    """Return the pose (7,) of a message unchecked: it may not be finite."""
    pose = message.pose
    if not hasattr(pose, 'position'):
        pose = pose.pose
    position, q = pose.position, pose.orientation
    return np.array([position.x, position.y, position.z, q.x, q.y, q.z, q.w], np.float64)


def transform_pose(message: Any) -> Floats:
    """Return the pose (7,) of the child of a TransformStamped in its frame, unchecked."""
    position, q = message.transform.translation, message.transform.rotation
    return np.array([position.x, position.y, position.z, q.x, q.y, q.z, q.w], np.float64)


def pose_stamped(types: Types, stamp: int, frame_id: str, pose: Floats) -> Any:
    """Return a pose (7,) as a geometry_msgs/PoseStamped."""
    return types('geometry_msgs/msg/PoseStamped')(header=header(types, stamp, frame_id),
                                                  pose=_pose(types, pose))


def pose_with_covariance(types: Types, stamp: int, frame_id: str, pose: Floats,
                         covariance: Floats) -> Any:
    """Return a pose (7,) and its covariance (6,6) as a PoseWithCovarianceStamped."""
    return types('geometry_msgs/msg/PoseWithCovarianceStamped')(
        header=header(types, stamp, frame_id), pose=_with_covariance(types, pose, covariance))


def transform(types: Types, stamp: int, frame_id: str, child_frame_id: str, pose: Floats) -> Any:
    """Return the pose (7,) of a frame in another as a geometry_msgs/TransformStamped."""
    x, y, z = map(float, pose[:3])
    return types('geometry_msgs/msg/TransformStamped')(
        header=header(types, stamp, frame_id), child_frame_id=child_frame_id,
        transform=types('geometry_msgs/msg/Transform')(
            translation=types('geometry_msgs/msg/Vector3')(x=x, y=y, z=z),
            rotation=_pose(types, pose).orientation))


def transforms(types: Types, stamped: Sequence[Any]) -> Any:
    """Return TransformStamped messages as a tf2_msgs/TFMessage."""
    return types('tf2_msgs/msg/TFMessage')(transforms=list(stamped))


def odometry(types: Types, stamp: int, frame_id: str, child_frame_id: str, pose: Floats,
             velocity: Floats, *, pose_covariance: Floats | None = None,
             twist_covariance: Floats | None = None) -> Any:
    """
    Return a pose (7,) and a velocity (2,) as a nav_msgs/Odometry.

    The velocity is m/s forward and rad/s of yaw, in the child frame. The covariances are (6,6);
    the default is zero, which filters take for certainty.
    """
    vector = types('geometry_msgs/msg/Vector3')
    twist = types('geometry_msgs/msg/Twist')(
        linear=vector(x=float(velocity[0]), y=0.0, z=0.0),
        angular=vector(x=0.0, y=0.0, z=float(velocity[1])))
    return types('nav_msgs/msg/Odometry')(
        header=header(types, stamp, frame_id), child_frame_id=child_frame_id,
        pose=_with_covariance(types, pose, pose_covariance),
        twist=types('geometry_msgs/msg/TwistWithCovariance')(
            twist=twist, covariance=_flat(twist_covariance, 36)))


def image(types: Types, stamp: int, frame_id: str, pixels: NDArray[np.uint8]) -> Any:
    """Return RGB pixels uint8 (H,W,3) as a sensor_msgs/Image of encoding rgb8."""
    height, width = pixels.shape[:2]
    cls = types(RAW_IMAGE)
    return cls(header=header(types, stamp, frame_id), height=height, width=width, encoding='rgb8',
               is_bigendian=0, step=3 * width, data=_sequence(cls, 'B', pixels))


def compressed_image(types: Types, stamp: int, frame_id: str, pixels: NDArray[np.uint8],
                     quality: int = 90) -> Any:
    """Return RGB pixels uint8 (H,W,3) as a sensor_msgs/CompressedImage in JPEG."""
    cls = types(COMPRESSED_IMAGE)
    data = np.frombuffer(images.encode_jpeg(pixels, quality), np.uint8)
    return cls(header=header(types, stamp, frame_id), format='jpeg',
               data=_sequence(cls, 'B', data))


def camera_info(types: Types, stamp: int, frame_id: str, camera_matrix: Floats, width: int,
                height: int) -> Any:
    """
    Return the sensor_msgs/CameraInfo of a pinhole camera without distortion.

    `camera_matrix` (3,3) holds focal lengths and principal point in pixels.
    """
    cls = types('sensor_msgs/msg/CameraInfo')
    projection = np.zeros((3, 4))
    projection[:, :3] = camera_matrix
    return cls(header=header(types, stamp, frame_id), height=int(height), width=int(width),
               distortion_model='plumb_bob', d=_sequence(cls, 'd', np.zeros(5)),
               k=_flat(camera_matrix, 9), r=_flat(np.eye(3), 9), p=_flat(projection, 12),
               binning_x=0, binning_y=0,
               roi=types('sensor_msgs/msg/RegionOfInterest')(
                   x_offset=0, y_offset=0, height=0, width=0, do_rectify=False))


def cloud(types: Types, stamp: int, frame_id: str, fields: Mapping[str, NDArray[Any]]) -> Any:
    """
    Return columns (N,) by name as a sensor_msgs/PointCloud2 of N points, in float32.

    Where float32 is not exact to millimetres for x, y and z (UTM), their exact values follow the
    other fields as `x_exact`, `y_exact` and `z_exact`, float64; RViz draws only float32.
    """
    columns = {name: np.asarray(column, '<f4') for name, column in fields.items()}
    place = [name for name in 'xyz' if name in fields]
    if any(np.abs(fields[name]).max(initial=0) > _LARGEST_FLOAT32 for name in place):
        columns |= {f'{name}{_EXACT}': np.asarray(fields[name], '<f8') for name in place}
    table = np.empty(len(next(iter(columns.values()))),
                     [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    cls, field = types(CLOUD), types('sensor_msgs/msg/PointField')
    step = table.dtype.itemsize
    layout: Any = table.dtype.fields
    return cls(header=header(types, stamp, frame_id), height=1, width=len(table),
               fields=[field(name=name, offset=layout[name][1], count=1,
                             datatype=_FLOAT32 if column.itemsize == 4 else _FLOAT64)
                       for name, column in columns.items()],
               is_bigendian=False, point_step=step, row_step=step * len(table),
               data=_sequence(cls, 'B', table),
               is_dense=all(bool(np.isfinite(column).all()) for column in columns.values()))


def read_cloud(message: Any) -> dict[str, NDArray[Any]]:
    """
    Return the fields of a sensor_msgs/PointCloud2 without row padding as columns (N,).

    x, y and z are the exact ones, where it has these (`cloud`).
    """
    order = '>' if message.is_bigendian else '<'
    layout = np.dtype({'names': [field.name for field in message.fields],
                       'formats': [order + _FIELD_DTYPES[field.datatype]
                                   for field in message.fields],
                       'offsets': [field.offset for field in message.fields],
                       'itemsize': message.point_step})
    points = np.frombuffer(message.data, layout)
    columns = {name: points[name] for name in layout.names or ()}
    for name in [name for name in columns if name.endswith(_EXACT)]:
        columns[name.removesuffix(_EXACT)] = columns.pop(name)
    return columns


def _pose(types: Types, pose: Floats) -> Any:
    x, y, z, qx, qy, qz, qw = (float(value) for value in pose)
    return types('geometry_msgs/msg/Pose')(
        position=types('geometry_msgs/msg/Point')(x=x, y=y, z=z),
        orientation=types('geometry_msgs/msg/Quaternion')(x=qx, y=qy, z=qz, w=qw))


def _with_covariance(types: Types, pose: Floats, covariance: Floats | None) -> Any:
    return types('geometry_msgs/msg/PoseWithCovariance')(pose=_pose(types, pose),
                                                         covariance=_flat(covariance, 36))


def _flat(matrix: Floats | None, size: int) -> Floats:
    # rclpy and rosbags both store a fixed-size array as a numpy array of float64.
    return np.zeros(size) if matrix is None else np.array(matrix, np.float64).reshape(size)


def _sequence(cls: Any, code: str, values: NDArray[Any]) -> Any:
    """
    Return an array in the type that a message class stores for a sequence, without a conversion.

    rosbags stores numpy arrays. rclpy stores an array.array as it is, and converts anything else
    number by number.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if hasattr(cls, '__msgtype__'):
        return flat.view('u1' if code == 'B' else 'f8')
    sequence = array.array(code)
    sequence.frombytes(flat.view('u1').data)
    return sequence


def _rgb_by_cv_bridge(message: Any) -> NDArray[np.uint8]:
    images.check_size(message.height, message.width)
    unsupported = (f"encoding '{message.encoding}' is not supported; use one of "
                   f'{", ".join(raw_images.ENCODINGS)}')
    try:
        cv_bridge = importlib.import_module('cv_bridge')
    except ImportError as error:
        raise ImageError(f'{unsupported}, or install cv_bridge') from error
    bridge = cv_bridge.CvBridge()
    try:
        dtype, channels = bridge.encoding_to_dtype_with_channels(message.encoding)
        # Some releases of cv_bridge ignore the step and fail on big-endian data.
        plain = _unpadded(message, np.dtype(dtype), channels)
        pixels = bridge.imgmsg_to_cv2(plain, 'rgb8')
    except ImageError:
        raise
    except Exception as error:
        # By release: CvBridgeError, KeyError, cv2.error or AttributeError.
        raise ImageError(unsupported) from error
    return np.ascontiguousarray(pixels, np.uint8)


def _unpadded(message: Any, dtype: np.dtype[Any], channels: int) -> SimpleNamespace:
    """Return the fields of an Image that cv_bridge reads, little-endian and without padding."""
    row_bytes = message.width * channels * dtype.itemsize
    rows = raw_images.unpadded(message.data, message.height, row_bytes, message.step,
                               f'{message.width}x{message.height} {message.encoding}')
    values = np.ascontiguousarray(rows).view(dtype.newbyteorder(
        '>' if message.is_bigendian else '<'))
    return SimpleNamespace(height=message.height, width=message.width, step=row_bytes,
                           encoding=message.encoding, is_bigendian=0,
                           data=values.astype(dtype.newbyteorder('<')).tobytes())
