"""What `ros2 run vpr_ros localizer --help` prints, and what is said of unknown parameters."""

from __future__ import annotations

from difflib import get_close_matches
import textwrap
from typing import TYPE_CHECKING

from vpr_ros.ros import parameters

if TYPE_CHECKING:
    from collections.abc import Iterable

_INTRODUCTION = """\
usage: ros2 run vpr_ros localizer --ros-args -p map:=/path/to/map -p autostart:=true \\
           -r image:=/camera/image_raw -r odom:=/odom

Localises camera images on a map. A lifecycle node: it configures and activates itself with
autostart, else it waits for a lifecycle manager.

topics in, remapped with -r
  image                     sensor_msgs/msg/Image
  image/compressed          sensor_msgs/msg/CompressedImage, with image_transport:=compressed
  camera_info               sensor_msgs/msg/CameraInfo, optional; by default beside the images
  odom                      nav_msgs/msg/Odometry, optional
  initialpose               geometry_msgs/msg/PoseWithCovarianceStamped, optional
  odometry/filtered         nav_msgs/msg/Odometry, with filter_reset_distance

topics out
  /vpr_localizer/pose, ./confidence, ./candidates, ./belief, ./map, ./debug_image/compressed;
  /diagnostics, which says why there is no pose

parameters, set with -p NAME:=VALUE or --params-file FILE
"""


def usage() -> str:
    """Return the usage of the node: its topics and parameters."""
    return _INTRODUCTION + '\n'.join(_described(one) for one in parameters.PARAMETERS) \
        + '\n\nMore: docs/parameters.md and docs/messages.md.'


def unknown_parameters(given: Iterable[str]) -> list[str]:
    """Return a line for each name that is no parameter of the node, with the most similar one."""
    lines = []
    for name in given:
        close = get_close_matches(name, parameters.BY_NAME, 1)
        lines.append(f"unknown parameter '{name}' is ignored"
                     + (f": did you mean '{close[0]}'?" if close else
                        ': localizer --help lists all'))
    return lines


def _described(parameter: parameters.Parameter) -> str:
    default = parameter.default
    value = str(default).lower() if isinstance(default, bool) else default
    text = f'{parameter.description} Default: {value if value != "" else "empty"}.'
    if parameter.bounds:
        text += f' From {parameter.bounds[0]:g} to {parameter.bounds[1]:g}.'
    return textwrap.fill(text, 95, initial_indent=f'  {parameter.name:<25} ',
                         subsequent_indent=' ' * 28)
