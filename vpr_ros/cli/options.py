"""What the subcommands share: types of arguments, common options, the layout of their help."""

from __future__ import annotations

import argparse
import math
from typing import Any
from typing import TYPE_CHECKING

from vpr_ros.core import defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from vpr_ros.cli.parser import Parser
    from vpr_ros.core.signatures import TrustedKeys
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.bag import Bag
    from vpr_ros.io.map_poses import PoseOptions

    Commands = argparse._SubParsersAction[Parser]

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
    parser.add_argument('--debug', action='store_true', default=argparse.SUPPRESS,
                        help=argparse.SUPPRESS)  # that of `vpr`, in another place
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
        width, height = (int(side) for side in text.lower().split('x'))
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


def add_trusted_keys(parser: argparse._ActionsContainer) -> None:
    """Add --trusted-keys."""
    parser.add_argument('--trusted-keys', metavar='FILE',
                        help='file of public keys: load the map and models only if they are '
                             'signed with one of them (vpr sign; default: load all)')


def trusted_keys(options: argparse.Namespace, *models: str | None) -> TrustedKeys | None:
    """
    Return the keys of --trusted-keys, None without; raise SignatureError where they do not fit.

    What has to be signed with them: --map, --model and other `models`.
    """
    from vpr_ros.core.signatures import TrustedKeys
    from vpr_ros.maps.trust import check_models
    if not options.trusted_keys:
        return None
    trusted = TrustedKeys.read(options.trusted_keys)
    check_models(trusted, options.map, [options.model, *models])
    return trusted


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


def add_camera_pose(parser: argparse._ActionsContainer) -> None:
    """Add --camera-pose and --features: what metric poses need besides CameraInfo."""
    parser.add_argument('--camera-pose', nargs=6, type=number(float, -1000, 1000),
                        metavar=('X', 'Y', 'Z', 'ROLL', 'PITCH', 'YAW'),
                        help='pose of the camera on the robot, in m and rad as in a URDF: of its '
                             'body, x out of the lens, y left, z up (default: from /tf_static)')
    parser.add_argument('--features', metavar='ONNX',
                        help="network that finds landmarks, or 'sift' (default: the bundled "
                             'network; on a map, that or SIFT, whichever found its own)')


def camera_mount(options: argparse.Namespace) -> Any:
    """Return the camera's pose (7,) on the robot, in optical axes, by --camera-pose; or None."""
    from vpr_ros.core.camera import camera_pose
    return None if options.camera_pose is None else camera_pose(*options.camera_pose)


def pose_options(options: argparse.Namespace, **others: Any) -> PoseOptions:
    """Return how poses are read by `add_pose_options`, and by `others` of its fields."""
    from vpr_ros.io.map_poses import PoseOptions
    frames = tuple(options.tf_frames) if options.tf_frames else None
    return PoseOptions(axes=options.axes, frames=frames, **others)


def poses_on_map(options: argparse.Namespace) -> PoseOptions:
    """Return how the poses of drives on the map of the options are read: from its datum."""
    from pathlib import Path

    from vpr_ros.maps.manifest import read_manifest
    manifest, _ = read_manifest(Path(options.map))
    return pose_options(options, datum=manifest.datum)


def add_odometry_options(parser: argparse._ActionsContainer) -> None:
    """Add --odometry-topic and --no-odometry."""
    parser.add_argument('--odometry-topic', metavar='TOPIC',
                        help='topic of the odometry (default: the first Odometry topic)')
    parser.add_argument('--no-odometry', dest='odometry', action='store_false',
                        help='ignore odometry; the motion is bounded by --max-speed only')


def add_correct_radius(parser: argparse._ActionsContainer,
                       default: float | None = defaults.CORRECT_RADIUS, explained: str = ''
                       ) -> None:
    """Add --correct-radius; its other name is not shown. A default of None is `explained`."""
    parser.add_argument('--correct-radius', type=number(float, 0.001), metavar='M',
                        default=default,
                        help='a pose within this distance (m) of the true one is correct'
                             + (f' (default: {explained})' if explained else ''))
    parser.add_argument('--tolerance', type=number(float, 0.001), dest='correct_radius',
                        default=argparse.SUPPRESS, help=argparse.SUPPRESS)


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


def find_topics(bag: Bag, options: argparse.Namespace) -> tuple[str, str | None]:
    """
    Return the topics of a bag's images and odometry, if there is any, before the long work.

    They are named by the options, or chosen. Raises SourceError when there are no images, or no
    odometry on a topic that is named.
    """
    return (bag.image_topic(options.image_topic),
            bag.odometry_topic(options.odometry_topic) if options.odometry else None)


def load_encoder(options: argparse.Namespace) -> Encoder:
    """Return the encoder of `add_localizer_options`, set up for throughput, not for latency."""
    from vpr_ros.encoding.encoder import Encoder
    return Encoder(options.model, options.provider, throughput=True)
