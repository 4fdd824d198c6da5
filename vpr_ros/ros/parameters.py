"""
The node's parameters: each name, default, meaning and range, once.

config/localize.yaml and docs/parameters.md repeat them; tests compare the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from vpr_ros.core import defaults
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import expanded
from vpr_ros.core.signatures import TrustedKeys
from vpr_ros.encoding.engines import provider_names
from vpr_ros.ros.robot_camera import mount_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

Value = str | bool | int | float


@dataclass(frozen=True)
class Parameter:
    """
    One parameter of the node.

    `attribute` is the attribute of the Localizer that it sets, '' if it sets none: with one, it
    takes effect on the next frame, without one at the next configure. `check` raises ValueError
    for a value that cannot be taken, where more values than `choices` can. In one that `is_path`
    ~ is expanded. One that is `fixed` has the value that the process was started with.
    """

    name: str
    default: Value
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    attribute: str = ''
    is_path: bool = False
    check: Callable[[Any], object] | None = None
    fixed: bool = False

    @property
    def live(self) -> bool:
        """Whether a change takes effect on the next frame."""
        return bool(self.attribute)

    def problem(self, value: Value) -> str:
        """Return why `value` cannot be taken, '' if it can; rclpy checks type and range."""
        if self.check is not None:
            try:
                self.check(value)
            except ValueError as error:
                return str(error)
        elif self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}, not '{value}'"
        return ''


PARAMETERS = (
    Parameter('map', '', 'Directory of the map, as written by `vpr build-map`.', is_path=True),
    Parameter('model', '', 'ONNX model that the map was built with; empty for the bundled one.',
              is_path=True),
    Parameter('trusted_keys', '', 'File of public keys: only maps and models that are signed with '
              'one of them are loaded; empty for all.', is_path=True, fixed=True),
    Parameter('provider', 'auto', 'Runs the model: auto, or the first that loads of a list such '
              'as tensorrt,cuda,openvino,cpu.', choices=('auto', *defaults.PROVIDERS),
              check=provider_names),
    Parameter('threads', 0, 'CPU threads for the model; 0 for one per core.', (0, 256)),
    Parameter('engine_cache', '', 'Directory of the engines that configure builds; empty for '
              '~/.cache/vpr_ros/engines.', is_path=True),
    Parameter('image_transport', 'raw', 'raw subscribes to `image`, compressed to '
              '`image/compressed`.', choices=('raw', 'compressed')),
    Parameter('image_reliable', False, 'Subscribe to images with reliable QoS; false also '
              'receives from best-effort camera drivers.'),
    Parameter('top_k', defaults.TOP_K, 'Maximum number of candidates published per frame.',
              (1, 1000), attribute='top_k'),
    Parameter('min_confidence', defaults.MIN_CONFIDENCE,
              'Minimum confidence at which a pose is published.', (0, 1),
              attribute='min_confidence'),
    Parameter('correct_radius', defaults.CORRECT_RADIUS,
              'Position error in metres up to which a pose counts as correct.', (0.01, 1000),
              attribute='correct_radius'),
    Parameter('compensate', True, 'Subtract the running mean of the drive from its descriptors, '
              'which removes the effect of season and light.', attribute='compensate'),
    Parameter('filter', True, 'Track the belief from frame to frame (Bayes filter); false '
              'localises each frame on its own.', attribute='use_filter'),
    Parameter('max_speed', defaults.MAX_SPEED, 'Maximum speed of the robot in m/s.', (0.01, 1000),
              attribute='max_speed'),
    Parameter('odometry_error', defaults.ODOMETRY_ERROR, 'Error of odometry in metres per metre '
              'driven (1 sigma).', (0.001, 1), attribute='odometry_error'),
    Parameter('refine', True, 'Refine poses by the landmarks of the map, if it has any; false '
              'publishes the poses of places alone.'),
    Parameter('features', '', 'What found the landmarks of the map: an ONNX network or "sift"; '
              'empty for the bundled network, or SIFT where it found them.', is_path=True),
    Parameter('camera_pose', '', 'Pose of the camera on the robot, as the six numbers x y z roll '
              'pitch yaw of a URDF; empty for that of /tf_static.', check=mount_of),
    Parameter('uneven_ground', False, 'Refine height, roll and pitch, too; false for ground as '
              'even as that of the map.'),
    Parameter('flat', False, 'For ground robots: publish zero z, roll and pitch, with a small '
              'variance.'),
    Parameter('non_negative_covariance', False, 'Publish covariances without negative entries, '
              'which nav2 rejects from ROS 2 Lyrical on; variances grow accordingly.'),
    Parameter('initialpose_topic', '', 'Topic that also gets the first trusted pose after each '
              'activation, each ~/relocalize and each new subscriber (for AMCL); empty for none.'),
    Parameter('publish_tf', False, 'Publish the transform from the map to the odometry frame; '
              'needs odom, and no other node may publish it.'),
    Parameter('transform_tolerance', 0.1, "Seconds by which that transform's stamp is ahead of "
              'the present time, as for AMCL.', (0, 10)),
    Parameter('transform_timeout', 30.0, 'Seconds after the last trusted pose for which that '
              'transform is repeated.', (0, 86400)),
    Parameter('filter_reset_distance', 0.0, 'Distance in metres between odometry/filtered and all '
              'poses of 3 s at which set_pose resets the filter (robot_localization); 0 for '
              'never.', (0, 1000000)),
    Parameter('state_file', '', "File that preserves the drive's running mean and, for 10 s, "
              'its position across a restart or crash; empty for none.', is_path=True),
    Parameter('bond_heartbeat_period', 0.1, "Seconds between heartbeats to nav2's lifecycle "
              'manager, if bondpy is installed; 0 for none.', (0, 10)),
    Parameter('autostart', False, 'Configure and activate at startup; false under a lifecycle '
              'manager.'),
)

BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def value_of(node: Node, name: str) -> Any:
    """Return a parameter of a node, a path with ~ expanded."""
    value = node.get_parameter(name).value
    return expanded(value) if BY_NAME[name].is_path else value


def map_of(node: Node) -> str:
    """Return the directory of the map, or raise VprError when none is named."""
    path: str = value_of(node, 'map')
    if not path:
        raise VprError("the parameter 'map' is empty: give it the directory of a map")
    return path


def trusted_keys(node: Node) -> TrustedKeys | None:
    """Return the keys that maps and models have to be signed with, None where they need not."""
    path = value_of(node, 'trusted_keys')
    return TrustedKeys.read(path) if path else None


def declare(node: Node) -> None:
    """Declare every parameter on a node, with its descriptor and range."""
    for parameter in PARAMETERS:
        descriptor = ParameterDescriptor(
            description=parameter.description, read_only=parameter.fixed,
            additional_constraints=('One of ' + ', '.join(parameter.choices)
                                    if parameter.choices else ''))
        if parameter.bounds and isinstance(parameter.default, int):
            descriptor.integer_range = [IntegerRange(
                from_value=int(parameter.bounds[0]), to_value=int(parameter.bounds[1]))]
        elif parameter.bounds:
            descriptor.floating_point_range = [FloatingPointRange(
                from_value=float(parameter.bounds[0]), to_value=float(parameter.bounds[1]))]
        node.declare_parameter(parameter.name, parameter.default, descriptor)
