"""
The node's parameters: each name, default, meaning and range, once.

config/localize.yaml and docs/parameters.md repeat them; a test holds the three together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from vpr_ros.core import defaults
from vpr_ros.encoding.engines import provider_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rclpy.node import Node

Value = str | bool | int | float


@dataclass(frozen=True)
class Parameter:
    """
    One parameter of the node; `live` ones take effect at once, others at the next configure.

    `check` raises ValueError for a value that cannot be taken, where `choices` are not all.
    """

    name: str
    default: Value
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    check: Callable[[Any], object] | None = None

    def problem(self, value: Value) -> str:
        """Return why `value` cannot be taken, '' if it can. ROS itself checks type and range."""
        if self.check is not None:
            try:
                self.check(value)
            except ValueError as error:
                return str(error)
        elif self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}, not '{value}'"
        return ''


PARAMETERS = (
    Parameter('map', '', 'Directory of the map, as written by `vpr build-map`.'),
    Parameter('model', '', 'ONNX model that the map was built with; empty for the bundled one.'),
    Parameter('provider', 'auto', 'What runs the model: auto, or names with commas between; the '
              'first that loads serves.', choices=('auto', *defaults.PROVIDERS),
              check=provider_names),
    Parameter('threads', 0, 'Threads of the model on a CPU; 0 for one per core.', (0, 256)),
    Parameter('engine_cache', '', 'Folder of the engines that configure builds; empty for '
              '~/.cache/vpr_ros/engines.'),
    Parameter('image_transport', 'raw', 'raw subscribes to `image`, compressed to '
              '`image/compressed`.', choices=('raw', 'compressed')),
    Parameter('image_reliable', False, 'Ask for reliable delivery of images; false also takes '
              'what a best-effort camera driver sends.'),
    Parameter('top_k', defaults.TOP_K, 'Candidates published per frame.', (1, 1000), live=True),
    Parameter('min_confidence', defaults.MIN_CONFIDENCE,
              'A pose is published from this confidence on.', (0, 1), live=True),
    Parameter('correct_radius', defaults.CORRECT_RADIUS,
              'Distance in metres within which a pose counts as right.', (0.01, 1000), live=True),
    Parameter('compensate', True, 'Centre descriptors on the running mean of the drive, which '
              'takes out season and light.', live=True),
    Parameter('filter', True, 'Carry the belief from frame to frame (Bayes filter); false takes '
              'each frame for itself.', live=True),
    Parameter('max_speed', defaults.MAX_SPEED, 'Fastest that the robot drives, in m/s.',
              (0.01, 1000), live=True),
    Parameter('odometry_error', defaults.ODOMETRY_ERROR, 'Error of odometry, in metres per metre '
              'driven (1 sigma).', (0.001, 1), live=True),
    Parameter('flat', False, 'For robots on the ground: z, roll and pitch are zero, with a small '
              'variance.'),
    Parameter('non_negative_covariance', False, 'Publish no negative covariance, which nav2 '
              'refuses: variances grow by as much.'),
    Parameter('initialpose_topic', '', 'Topic that gets the first trusted pose after each '
              'activation and after each ~/relocalize (for AMCL); empty for none.'),
    Parameter('publish_tf', False, 'Publish the transform from the map to the frame of odom; '
              'needs odom, and nobody else who does.'),
    Parameter('state_file', '', 'File that keeps the drive over a restart or a crash of the '
              'node: its running mean, for seconds its place; empty for none.'),
    Parameter('bond_heartbeat_period', 0.1, "Seconds between heartbeats to nav2's lifecycle "
              'manager, where bondpy is installed; 0 for none.', (0, 10)),
    Parameter('autostart', False, 'Configure and activate by itself at start; false under a '
              'lifecycle manager.'),
)


def declare(node: Node) -> None:
    """Declare every parameter on a node, with its descriptor and range."""
    for parameter in PARAMETERS:
        descriptor = ParameterDescriptor(
            description=parameter.description,
            additional_constraints=('One of ' + ', '.join(parameter.choices)
                                    if parameter.choices else ''))
        if parameter.bounds and isinstance(parameter.default, int):
            descriptor.integer_range = [IntegerRange(
                from_value=int(parameter.bounds[0]), to_value=int(parameter.bounds[1]))]
        elif parameter.bounds:
            descriptor.floating_point_range = [FloatingPointRange(
                from_value=float(parameter.bounds[0]), to_value=float(parameter.bounds[1]))]
        node.declare_parameter(parameter.name, parameter.default, descriptor)
