"""What the subcommands share: types of arguments, common options, the layout of their help."""

from __future__ import annotations

import argparse
import math
from typing import Any
from typing import TYPE_CHECKING

from vpr_ros.core import defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.map_poses import PoseOptions

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MODEL_HELP = 'ONNX model (default: the bundled one)'


class HelpFormatter(argparse.HelpFormatter):
    """Help that shows defaults where they say something: not those of flags and empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default in (None, '', argparse.SUPPRESS) or isinstance(default, (bool, list, tuple)):
            return action.help
        return f'{action.help} (default: %(default)s)'


def command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None],
            summary: str, description: str = '') -> argparse.ArgumentParser:
    """
    Add a subcommand that calls `run`; return its parser.

    The `summary` is a phrase for `vpr --help`. It opens the subcommand's own help, where further
    sentences, the `description`, follow.
    """
    parser = commands.add_parser(
        name, help=summary, description=f'{summary[0].upper()}{summary[1:]}. {description}',
        formatter_class=HelpFormatter)
    parser.set_defaults(run=run)
    return parser


def number(kind: type[int] | type[float], low: float, high: float = math.inf
           ) -> Callable[[str], float]:
    """Return a type for argparse: a finite number from `low` to `high`."""
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high or math.isinf(value):
            limits = f'at least {low:g}' if math.isinf(high) else f'from {low:g} to {high:g}'
            raise argparse.ArgumentTypeError(f'{text} is out of range: {limits}')
        return value
    number.__name__ = kind.__name__  # argparse quotes it: 'invalid float value'
    return number


def size(text: str) -> tuple[int, int]:
    """Return (height, width) of a size written as WxH, in pixels."""
    try:
        width, height = (int(side) for side in text.split('x'))
    except ValueError as error:
        raise ValueError(f"--size must be WxH, such as 320x240, not '{text}'") from error
    return height, width


def add_localizer_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that `load_encoder` reads: the model and the provider that runs it."""
    parser.add_argument('--model', metavar='ONNX', help=MODEL_HELP)
    add_provider(parser)


def add_provider(parser: argparse._ActionsContainer) -> None:
    """Add --provider."""
    parser.add_argument('--provider', default='auto', type=_providers, metavar='NAME[,NAME]',
                        help='runtime of the model, or several in order of preference: '
                             f'{", ".join(defaults.PROVIDERS)}; auto takes the first of these '
                             'that loads')


def add_image_topic(parser: argparse._ActionsContainer) -> None:
    """Add --image-topic."""
    parser.add_argument('--image-topic', metavar='TOPIC',
                        help='topic of the camera images (default: the first that looks like '
                             'a view, not depth)')


def add_pose_topic(parser: argparse._ActionsContainer, name: str = '--pose-topic',
                   what: str = 'poses') -> None:
    """Add an option that names a topic of poses."""
    parser.add_argument(name, metavar='TOPIC',
                        help=f'topic of the {what} (default: the best of type '
                             'PoseWithCovarianceStamped, else PoseStamped, Odometry, TFMessage, '
                             'NavSatFix)')


def add_pose_options(parser: argparse._ActionsContainer) -> None:
    """Add --axes and --tf-frames: how the poses of a drive are read."""
    parser.add_argument('--axes', default='', choices=defaults.AXES,
                        help='axes of the poses: of a robot (x ahead, z up); of a camera (x '
                             'right, y down, z ahead), or only their body or world (default: of a '
                             'robot, unless they seem to be others)')
    parser.add_argument('--tf-frames', nargs=2, type=lambda name: name.lstrip('/'),
                        metavar=('PARENT', 'CHILD'),
                        help='with poses from /tf: the frame of the map, and that of the robot in '
                             'it (default: map, or odom, and base_link, or base_footprint)')


def pose_options(options: argparse.Namespace, **others: Any) -> PoseOptions:
    """Return how poses are read by `add_pose_options`, and by `others` of its fields."""
    from vpr_ros.io.map_poses import PoseOptions
    frames = tuple(options.tf_frames) if options.tf_frames else None
    return PoseOptions(axes=options.axes, frames=frames, **others)


def add_odometry_topic(parser: argparse._ActionsContainer) -> None:
    """Add --odometry-topic."""
    parser.add_argument('--odometry-topic', metavar='TOPIC',
                        help='topic of the odometry (default: the first Odometry topic)')


def add_correct_radius(parser: argparse._ActionsContainer) -> None:
    """Add --correct-radius."""
    parser.add_argument('--correct-radius', type=number(float, 0.01), metavar='M',
                        default=defaults.CORRECT_RADIUS,
                        help='a pose within this distance (m) of the true one is correct')


def add_max_speed(parser: argparse._ActionsContainer) -> None:
    """Add --max-speed."""
    parser.add_argument('--max-speed', type=number(float, 0.01), default=defaults.MAX_SPEED,
                        metavar='M/S', help='highest speed of the robot (m/s), for drives without '
                                            'odometry')


def _providers(text: str) -> str:
    from vpr_ros.encoding.engines import provider_names
    try:
        provider_names(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def load_encoder(options: argparse.Namespace) -> Encoder:
    """Return the encoder of `add_localizer_options`, set up for throughput, not for latency."""
    from vpr_ros.encoding.encoder import Encoder
    return Encoder(options.model, options.provider, throughput=True)
