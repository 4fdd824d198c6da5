"""The commands that make maps, and look into what is there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from vpr_ros.cli.options import Commands


def add_build_map(commands: Commands) -> None:
    """Add `vpr build-map`."""
    parser = command(commands, 'build-map', _run_build_map,
                     'build a map from bags, or from folders of pictures with poses')
    parser.add_argument('sources', nargs='+', metavar='SOURCE',
                        help='a rosbag2, or a folder of pictures with poses.csv or poses.tum; '
                             'each becomes a session of the map')
    add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='MAP', help='map directory')
    parser.add_argument('--overwrite', action='store_true', help='replace a map that is there')
    parser.add_argument('--spacing', type=number(float, 0), default=defaults.SPACING, metavar='M',
                        help='metres between places')
    parser.add_argument('--index', default=defaults.INDEX,
                        choices=('auto', *defaults.INDEX_KINDS),
                        help="kind of index; 'auto' chooses by the map's size")
    parser.add_argument('--condition', action='append', default=[], metavar='NAME',
                        help="a source's season or light, in the order of the sources")
    parser.add_argument('--image-topic', help='the first image topic if left out')
    parser.add_argument('--pose-topic', help='Odometry, PoseStamped or PoseWithCovarianceStamped')
    parser.add_argument('--pose-file', help='poses of a folder of pictures (CSV or TUM)')
    parser.add_argument('--no-thumbnails', dest='thumbnails', action='store_false',
                        help='keep no pictures of the places')
    parser.add_argument('--jobs', '-j', type=number(int, 1), default=1, metavar='N',
                        help='sources to read at once, each in a process of its own')


def _run_build_map(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import check_output
    from vpr_ros.io.sources import open_source
    from vpr_ros.maps.manifest import MANIFEST
    from vpr_ros.offline.build_map import build_map
    if options.condition and len(options.condition) != len(options.sources):
        raise ValueError(f'{len(options.condition)} conditions for {len(options.sources)} '
                         'sources: give one --condition for each, or none')
    check_output(options.output, MANIFEST, overwrite=options.overwrite)  # before the long work
    sources = [open_source(source, image_topic=options.image_topic,
                           pose_topic=options.pose_topic, pose_file=options.pose_file)
               for source in options.sources]
    place_map = build_map(sources, load_encoder(options), conditions=options.condition,
                          spacing=options.spacing, index=options.index,
                          thumbnails=options.thumbnails, jobs=options.jobs)
    place_map.save(options.output, overwrite=options.overwrite)
    print(f'{options.output}: {len(place_map)} places, one every {options.spacing} m, in frame '
          f"'{place_map.manifest.frame_id}'")


def add_calibrate(commands: Commands) -> None:
    """Add `vpr calibrate`."""
    parser = command(commands, 'calibrate', _run_calibrate,
                     "fit a map's confidence to drives whose true poses are known")
    parser.add_argument('map', metavar='MAP')
    parser.add_argument('bags', nargs='+', metavar='BAG', help='drives over the mapped ground')
    add_localizer_options(parser)
    parser.add_argument('--truth-topic', help='true poses; the best pose topic if left out')
    parser.add_argument('--image-topic', help='the first image topic if left out')
    parser.add_argument('--odometry-topic', help='the first Odometry topic if left out')
    parser.add_argument('--correct-radius', type=number(float, 0.01), metavar='M',
                        default=defaults.CORRECT_RADIUS,
                        help='distance within which a pose counts as right')
    parser.add_argument('--max-speed', type=number(float, 0.01), default=defaults.MAX_SPEED,
                        metavar='M/S', help='fastest that the robot drives')
    parser.add_argument('--dry-run', action='store_true', help='print, and leave the map as it is')


def _run_calibrate(options: argparse.Namespace) -> None:
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.calibrate import calibrate
    from vpr_ros.offline.calibrate import read_drive
    from vpr_ros.offline.calibrate import report
    encoder = load_encoder(options)
    place_map = PlaceMap.load(options.map, encoder)
    drives = [read_drive(bag, encoder, truth_topic=options.truth_topic,
                         image_topic=options.image_topic, odometry_topic=options.odometry_topic)
              for bag in options.bags]
    fit = calibrate(place_map, encoder, drives, correct_radius=options.correct_radius,
                    max_speed=options.max_speed)
    for line in report(fit):
        print(line)
    if not options.dry_run:
        place_map.calibrated(fit.calibration).save(options.map, overwrite=True)
        print(f'{options.map}: calibrated on {fit.calibration.fitted_on}')


def add_inspect(commands: Commands) -> None:
    """Add `vpr inspect`."""
    parser = command(commands, 'inspect', _run_inspect, 'show what a map, a model or a bag holds')
    parser.add_argument('path', metavar='MAP|MODEL|BAG')
    parser.add_argument('--verify', action='store_true',
                        help='also read every byte of a map that is too large to check at start')


def _run_inspect(options: argparse.Namespace) -> None:
    from vpr_ros.offline.inspection import inspect
    for name, value in inspect(options.path, verify=options.verify):
        print(f'{name:>16}  {value}')
