"""The commands that drive: bags replayed or played, made-up streets, the demo."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import MODEL_HELP
from vpr_ros.cli.options import number
from vpr_ros.cli.options import size
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from vpr_ros.cli.options import Commands


def add_replay(commands: Commands) -> None:
    """Add `vpr replay`."""
    parser = command(commands, 'replay', _run_replay,
                     'localise every frame of a bag as the node would, as fast as it goes')
    parser.add_argument('bag', metavar='BAG')
    parser.add_argument('--map', required=True, help='map directory')
    add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='OUT',
                        help='directory for trajectory.tum, estimates.csv and a bag of the poses')
    parser.add_argument('--overwrite', action='store_true', help='replace an output that is there')
    parser.add_argument('--image-topic', help='the first image topic if left out')
    parser.add_argument('--odometry-topic', help='the first Odometry topic if left out')
    parser.add_argument('--no-odometry', dest='odometry', action='store_false',
                        help='do without it: any place within reach may be next')
    parser.add_argument('--truth-topic', help='compare with the poses on this topic of the bag')
    parser.add_argument('--min-confidence', type=number(float, 0, 1), metavar='P',
                        default=defaults.MIN_CONFIDENCE,
                        help='a pose is written from this confidence on')
    parser.add_argument('--top-k', type=number(int, 1), default=defaults.TOP_K, metavar='K',
                        help='candidates kept per frame')
    parser.add_argument('--correct-radius', type=number(float, 0.01), metavar='M',
                        default=defaults.CORRECT_RADIUS,
                        help='distance within which a pose counts as right')
    parser.add_argument('--no-compensate', dest='compensate', action='store_false',
                        help='do not centre descriptors on the running mean of the drive')
    parser.add_argument('--no-filter', dest='filter', action='store_false',
                        help='take each frame for itself')
    parser.add_argument('--max-speed', type=number(float, 0.01), default=defaults.MAX_SPEED,
                        metavar='M/S',
                        help='fastest that the robot drives, for a bag without odometry')


def _run_replay(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import check_output
    from vpr_ros.io.bag import Bag
    from vpr_ros.localization.localizer import Localizer
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.evaluate import score_drive
    from vpr_ros.offline.replay import ESTIMATES
    from vpr_ros.offline.replay import replay
    from vpr_ros.offline.replay import write_drive
    check_output(options.output, ESTIMATES, overwrite=options.overwrite)  # before the long work
    encoder = load_encoder(options)
    place_map = PlaceMap.load(options.map, encoder)
    localizer = Localizer(encoder, place_map, top_k=options.top_k,
                          min_confidence=options.min_confidence,
                          correct_radius=options.correct_radius, compensate=options.compensate,
                          use_filter=options.filter, max_speed=options.max_speed)
    drive = replay(options.bag, localizer, image_topic=options.image_topic,
                   odometry_topic=options.odometry_topic, odometry=options.odometry)
    write_drive(drive, options.output, place_map.manifest.frame_id, overwrite=options.overwrite)
    count = len(drive.estimates)
    print(f'{options.output}: {count} frames, {drive.trusted.sum()} poses, '
          f'{drive.dropped.total()} dropped, {count / drive.seconds:.1f} frames/s '
          f'on {encoder.provider}')
    if options.truth_topic:
        with Bag(options.bag) as bag:
            truth = bag.poses(bag.pose_topic(options.truth_topic))
        score = score_drive(drive.stamps, drive.poses, drive.trusted, truth,
                            options.correct_radius)
        print(f'of {score.frames} frames with a true pose, {score.published} have a pose: '
              f'{score.right} right within {options.correct_radius:g} m, {score.wrong} wrong, '
              f'median error {score.median_error:.2f} m')


def add_play(commands: Commands) -> None:
    """Add `vpr play`."""
    parser = command(commands, 'play', _run_play,
                     'publish a bag over ROS 2, where there is no `ros2 bag play`')
    parser.add_argument('bag', metavar='BAG')
    parser.add_argument('--rate', type=number(float, 0.001), default=1.0,
                        help='times the recorded pace')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC', help='only these')
    parser.add_argument('--loop', action='store_true', help='begin again at the end')
    parser.add_argument('--no-clock', dest='clock', action='store_false',
                        help='do not publish /clock')
    parser.add_argument('--wait', type=number(int, 0), default=0, metavar='N',
                        help='begin once each image topic has N subscribers')
    parser.add_argument('--wait-limit', type=float, metavar='S',
                        help='give up waiting after so many seconds')
    parser.add_argument('--best-effort', action='store_true',
                        help='send images as a camera driver does, not reliably')


def _run_play(options: argparse.Namespace) -> int:
    from vpr_ros.ros.play import play
    played = play(options.bag, rate=options.rate, topics=options.topics, loop=options.loop,
                  clock=options.clock, wait_for_subscribers=options.wait,
                  wait_limit=options.wait_limit,
                  image_reliability='best_effort' if options.best_effort else 'reliable')
    for topic, count in played.counts.items():
        print(f'{count:>8}  {topic}')
    for topic, reason in played.skipped.items():
        print(f' skipped  {topic}: {reason}')
    return 0 if played.complete else 130


def add_street(commands: Commands) -> None:
    """Add `vpr street`."""
    parser = command(commands, 'street', _run_street,
                     'drive through a made-up town and record the bag')
    parser.add_argument('--seed', type=int, default=7, help='which town')
    parser.add_argument('--season', default='spring',
                        choices=('spring', 'winter', 'night', 'rain'), help='season or light')
    parser.add_argument('--drive', type=int, default=0, metavar='SEED',
                        help='which drive: its wobble, traffic and noise')
    parser.add_argument('--route', default='main', choices=('main', 'other'), help='which streets')
    parser.add_argument('--length', type=number(float, 0.01), metavar='M',
                        help='metres; the whole route if left out')
    parser.add_argument('--start', type=number(float, 0), default=0.0, metavar='M',
                        help='where to begin')
    parser.add_argument('--speed', type=number(float, 0.1, 50), default=8.0, metavar='M/S',
                        help='mean speed')
    parser.add_argument('--lateral-offset', type=number(float, -5, 5), default=0.0, metavar='M',
                        help='metres to the left of the lane')
    parser.add_argument('--rate', type=number(float, 0.1, 1000), default=10.0, metavar='HZ',
                        help='frames per second')
    parser.add_argument('--size', default='320x240', metavar='WxH', help='size of the pictures')
    parser.add_argument('--compressed', action='store_true', help='record JPEG pictures')
    parser.add_argument('--output', '-o', required=True, metavar='BAG',
                        help='a name that ends in .mcap is written as mcap, others as sqlite3')
    parser.add_argument('--overwrite', action='store_true', help='replace a bag that is there')


def _run_street(options: argparse.Namespace) -> None:
    from tqdm import tqdm
    from vpr_ros.street import drive
    from vpr_ros.street import DriveOptions
    from vpr_ros.street import Town
    from vpr_ros.street.record import record
    height, width = size(options.size)
    frames = drive(Town(options.seed), condition=options.season, seed=options.drive,
                   speed=options.speed, length=options.length, rate=options.rate,
                   lateral_offset=options.lateral_offset, options=DriveOptions(
                       options.route, options.start, width=width, height=height))
    count = record(options.output, tqdm(frames, desc=options.season, unit='frame', disable=None),
                   compressed=options.compressed, overwrite=options.overwrite)
    print(f'{options.output}: {count} frames')


def add_demo(commands: Commands) -> None:
    """Add `vpr demo`."""
    parser = command(commands, 'demo', _run_demo,
                     'map a street in winter and find the way in spring, with the real node')
    parser.add_argument('--output', '-o', default='demo', metavar='DIR',
                        help='folder for the bags, the map and the picture')
    parser.add_argument('--seed', type=int, default=7, help='which town')
    parser.add_argument('--model', help=MODEL_HELP)
    parser.add_argument('--offline', action='store_true',
                        help='replay the bag without ROS (so it is where there is none)')


def _run_demo(options: argparse.Namespace) -> int:
    from vpr_ros.offline.demo import demo
    if options.offline or find_spec('rclpy') is None:
        return demo(options.output, seed=options.seed, model=options.model)
    from vpr_ros.ros.node_process import play_to_node
    return demo(options.output, seed=options.seed, model=options.model, play_to_node=play_to_node)
