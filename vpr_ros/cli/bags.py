"""Commands that replay, play or record bags, and the demo."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
import os
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_camera_pose
from vpr_ros.cli.options import add_correct_radius
from vpr_ros.cli.options import add_image_topic
from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import add_max_speed
from vpr_ros.cli.options import add_odometry_options
from vpr_ros.cli.options import add_pose_options
from vpr_ros.cli.options import add_trusted_keys
from vpr_ros.cli.options import camera_mount
from vpr_ros.cli.options import command
from vpr_ros.cli.options import find_topics
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import MODEL_HELP
from vpr_ros.cli.options import number
from vpr_ros.cli.options import poses_on_map
from vpr_ros.cli.options import size
from vpr_ros.cli.options import trusted_keys
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from vpr_ros.cli.options import Commands


def add_replay(commands: Commands) -> None:
    """Add `vpr replay`."""
    parser = command(commands, 'replay', _run_replay,
                     'localise every frame of a bag as the node would, without ROS',
                     'It runs as fast as the machine allows.')
    parser.set_defaults(refuse=parser.error)
    parser.add_argument('bag', metavar='BAG', help='bag (rosbag2) with images')
    parser.add_argument('--map', required=True, metavar='MAP', help='map directory')
    add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='DIR',
                        help='folder for trajectory.tum, estimates.csv and a bag of the poses')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace an earlier output of this command')
    add_image_topic(parser)
    add_odometry_options(parser)
    parser.add_argument('--truth-topic', metavar='TOPIC',
                        help='compare with the true poses on this topic of the bag (default: no '
                             'comparison)')
    add_pose_options(parser)
    parser.add_argument('--min-confidence', type=number(float, 0, 1), metavar='P',
                        default=defaults.MIN_CONFIDENCE,
                        help='write a pose from this confidence on')
    parser.add_argument('--top-k', type=number(int, 1), default=defaults.TOP_K, metavar='K',
                        help='candidate places per frame')
    add_correct_radius(parser)
    parser.add_argument('--no-compensate', dest='compensate', action='store_false',
                        help='do not subtract the running mean of the drive from its descriptors')
    parser.add_argument('--no-filter', dest='filter', action='store_false',
                        help='localise each frame on its own, without the frames before it')
    parser.add_argument('--smooth', action='store_true',
                        help='localise each frame by those after it, too: for mapping, labelling '
                             'and ground truth (a robot cannot)')
    add_max_speed(parser)
    add_camera_pose(parser)
    parser.add_argument('--no-refine', dest='refine', action='store_false',
                        help='keep the poses of places where the map has landmarks')
    parser.add_argument('--uneven-ground', action='store_true',
                        help='refine height, roll and pitch, too, which otherwise are those of '
                             'the map')
    add_trusted_keys(parser)


def _run_replay(options: argparse.Namespace) -> None:
    # Before numpy is imported. Its small matrices gain nothing from threads that take the cores
    # from the network.
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    from vpr_ros.core.files import check_output
    from vpr_ros.io.bag import Bag
    from vpr_ros.io.map_poses import bag_poses
    from vpr_ros.localization.localizer import Localizer
    from vpr_ros.localization.smooth import Smoother
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.drive_score import score_drive
    from vpr_ros.offline.replay import bag_refiner
    from vpr_ros.offline.replay import ESTIMATES
    from vpr_ros.offline.replay import replay
    from vpr_ros.offline.replay import write_drive
    if options.smooth and not options.filter:
        options.refuse('--smooth is of the filter: leave out --no-filter')
    check_output(options.output, ESTIMATES, overwrite=options.overwrite)  # before the long work
    trusted = trusted_keys(options, options.features)
    poses = poses_on_map(options)
    with Bag(options.bag) as bag:
        image_topic, odometry_topic = find_topics(bag, options)
        truth = bag_poses(bag, options.truth_topic, poses) if options.truth_topic else None
    encoder = load_encoder(options)
    place_map = PlaceMap.load(options.map, encoder, trusted=trusted)
    localizer = (Smoother if options.smooth else Localizer)(
        encoder, place_map, top_k=options.top_k, min_confidence=options.min_confidence,
        correct_radius=options.correct_radius, compensate=options.compensate,
        use_filter=options.filter, max_speed=options.max_speed)
    refiner = bag_refiner(options.bag, place_map, image_topic=image_topic,
                          features=options.features, mount=camera_mount(options),
                          uneven_ground=options.uneven_ground) if options.refine else None
    drive = replay(options.bag, localizer, image_topic=image_topic,
                   odometry_topic=odometry_topic, odometry=options.odometry, refiner=refiner)
    write_drive(drive, options.output, place_map.manifest.frame_id, overwrite=options.overwrite)
    count = len(drive.estimates)
    refined = sum(estimate.trusted and estimate.refined for estimate in drive.estimates)
    print(f'{options.output}: {count} frames, {drive.trusted.sum()} poses'
          f'{f" ({refined} refined)" if refiner else ""}, '
          f'{drive.dropped.total()} dropped, {count / drive.seconds:.1f} frames/s '
          f'on {encoder.provider}')
    if truth is not None:
        score = score_drive(drive.stamps, drive.poses, drive.trusted, truth,
                            options.correct_radius)
        print(f'{score.frames} frames with ground truth: {score.published} localised, '
              f'{score.right} of these correct (within {options.correct_radius:g} m), '
              f'{score.wrong} wrong, median error {score.median_error:.2f} m')


def add_play(commands: Commands) -> None:
    """Add `vpr play`."""
    parser = command(commands, 'play', _run_play,
                     'publish a bag over ROS 2, on machines without `ros2 bag play`')
    parser.add_argument('bag', metavar='BAG', help='bag (rosbag2)')
    parser.add_argument('--rate', type=number(float, 0.001), default=1.0, metavar='FACTOR',
                        help='speed relative to the recording')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC',
                        help='topics to publish (default: all)')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--no-clock', dest='clock', action='store_false',
                        help='do not publish /clock')
    parser.add_argument('--wait', type=number(int, 0), default=0, metavar='N',
                        help='start once each image topic has N subscribers')
    parser.add_argument('--wait-limit', type=float, metavar='S',
                        help='with --wait: give up after this time (s) (default: never)')
    parser.add_argument('--best-effort', action='store_true',
                        help='publish images with best-effort QoS, as most camera drivers do, '
                             'instead of reliable QoS')


def _run_play(options: argparse.Namespace) -> int:
    from vpr_ros.ros.play import play
    from vpr_ros.ros.play import PlayOptions
    played = play(options.bag, PlayOptions(
        rate=options.rate, topics=options.topics, loop=options.loop, clock=options.clock,
        wait_for_subscribers=options.wait, wait_limit=options.wait_limit,
        image_reliability='best_effort' if options.best_effort else 'reliable'))
    for topic, count in played.counts.items():
        print(f'{count:>8}  {topic}')
    for topic, reason in played.skipped.items():
        print(f' skipped  {topic}: {reason}')
    return 0 if played.complete else 130


def add_street(commands: Commands) -> None:
    """Add `vpr street`."""
    parser = command(commands, 'street', _run_street,
                     'record a bag of a simulated drive through a procedural town',
                     'The bag has images, odometry and true poses.')
    parser.add_argument('--seed', type=int, default=7, metavar='N', help='random seed of the town')
    parser.add_argument('--season', default='spring',
                        choices=('spring', 'winter', 'night', 'rain'), help='season or light')
    parser.add_argument('--drive', type=int, default=0, metavar='N',
                        help='random seed of the drive: its wobble, traffic and noise')
    parser.add_argument('--route', default='main', choices=('main', 'other'),
                        help='route through the town; other takes streets that main never enters')
    parser.add_argument('--length', type=number(float, 0.01), metavar='M',
                        help='length of the drive in m (default: to the end of the route)')
    parser.add_argument('--start', type=number(float, 0), default=0.0, metavar='M',
                        help='distance of the start along the route in m')
    parser.add_argument('--speed', type=number(float, 0.1, 50), default=8.0, metavar='M/S',
                        help='mean speed in m/s')
    parser.add_argument('--lateral-offset', type=number(float, -5, 5), default=0.0, metavar='M',
                        help='offset to the left of the lane in m')
    parser.add_argument('--rate', type=number(float, 0.1, 1000), default=10.0, metavar='HZ',
                        help='frames per second')
    parser.add_argument('--size', default='320x240', metavar='WxH',
                        help='size of the images in pixels')
    parser.add_argument('--compressed', action='store_true',
                        help='record JPEG (CompressedImage) instead of raw images')
    parser.add_argument('--output', '-o', required=True, metavar='BAG',
                        help='bag to write: an mcap file if the name ends in .mcap, else an '
                             'sqlite3 folder')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing bag')


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
                     'map a simulated street in winter and localise a drive in spring on it',
                     'The ROS 2 node runs where rclpy is installed; elsewhere the bag is '
                     'replayed without ROS.')
    parser.add_argument('--output', '-o', default='demo', metavar='DIR',
                        help='folder for the bags, the map and the plot')
    parser.add_argument('--seed', type=int, default=7, metavar='N', help='random seed of the town')
    parser.add_argument('--model', metavar='ONNX', help=MODEL_HELP)
    parser.add_argument('--offline', action='store_true',
                        help='replay without ROS even where rclpy is installed')


def _run_demo(options: argparse.Namespace) -> int:
    from vpr_ros.offline.demo import demo
    if options.offline or find_spec('rclpy') is None:
        return demo(options.output, seed=options.seed, model=options.model)
    from vpr_ros.ros.node_process import play_to_node
    return demo(options.output, seed=options.seed, model=options.model, play_to_node=play_to_node)
