"""Commands about maps: build, calibrate, inspect, report."""

from __future__ import annotations

import argparse
from importlib import import_module
import json
from statistics import median
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_camera_pose
from vpr_ros.cli.options import add_correct_radius
from vpr_ros.cli.options import add_image_topic
from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import add_max_speed
from vpr_ros.cli.options import add_odometry_options
from vpr_ros.cli.options import add_pose_options
from vpr_ros.cli.options import add_pose_topic
from vpr_ros.cli.options import camera_mount
from vpr_ros.cli.options import command
from vpr_ros.cli.options import find_topics
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number
from vpr_ros.cli.options import pose_options
from vpr_ros.cli.options import poses_on_map
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from vpr_ros.cli.options import Commands


def add_build_map(commands: Commands) -> None:
    """Add `vpr build-map`."""
    parser = command(commands, 'build-map', _run_build_map,
                     'build a map from bags, or from folders of images with poses',
                     'Each source becomes a session of the map.')
    parser.add_argument('sources', nargs='+', metavar='SOURCE',
                        help='a bag (rosbag2), or a folder of images with poses.csv or poses.tum')
    add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='MAP', help='map directory')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing map')
    parser.add_argument('--spacing', type=number(float, 0), default=defaults.SPACING, metavar='M',
                        help='distance between places in m; 0 keeps every frame')
    parser.add_argument('--index', default=defaults.INDEX,
                        choices=('auto', *defaults.INDEX_KINDS),
                        help='kind of search index; auto chooses by the size of the map')
    parser.add_argument('--condition', action='append', default=[], metavar='NAME',
                        help='season or light of a source, one option for each source, in their '
                             'order')
    parser.add_argument('--projection', default=defaults.PROJECTION, choices=defaults.PROJECTIONS,
                        help='what makes the descriptors: auto fits a projection to the map if it '
                             'has enough different places; model, the model alone; none, '
                             'no whitening')
    add_image_topic(parser)
    add_pose_topic(parser)
    parser.add_argument('--pose-file', metavar='FILE',
                        help='poses of a folder of images: CSV, TUM, EuRoC or KITTI (default: the '
                             'file in the folder)')
    add_pose_options(parser)
    parser.add_argument('--heading', default='', choices=defaults.HEADINGS,
                        help='where headings come from: the poses, or the direction of travel '
                             '(default: the poses, unless their orientation never changes)')
    parser.add_argument('--max-pose-gap', type=number(float, 0), metavar='S',
                        default=defaults.MAX_POSE_GAP,
                        help='seconds between two poses up to which those between are '
                             'interpolated')
    parser.add_argument('--no-thumbnails', dest='thumbnails', action='store_false',
                        help='keep no small images of the places')
    add_camera_pose(parser)
    parser.add_argument('--no-landmarks', dest='landmarks', action='store_false',
                        help='keep no landmarks, with which poses are exact to decimetres')
    parser.add_argument('--jobs', '-j', type=number(int, 1), default=1, metavar='N',
                        help='sources to read in parallel, each in its own process')


def _run_build_map(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import check_output
    from vpr_ros.encoding.features import open_features
    from vpr_ros.io.sources import open_source
    from vpr_ros.maps.manifest import MANIFEST
    from vpr_ros.offline.build_map import build_map
    if options.condition and len(options.condition) != len(options.sources):
        raise ValueError(f'{len(options.condition)} conditions for {len(options.sources)} '
                         'sources: give one --condition for each, or none')
    check_output(options.output, MANIFEST, overwrite=options.overwrite)  # before the long work
    poses = pose_options(options, heading=options.heading, max_gap=options.max_pose_gap)
    sources = [open_source(source, image_topic=options.image_topic,
                           pose_topic=options.pose_topic, pose_file=options.pose_file,
                           poses=poses, mount=camera_mount(options))
               for source in options.sources]
    for source in sources:
        source.check()
    place_map = build_map(sources, load_encoder(options), conditions=options.condition,
                          spacing=options.spacing, index=options.index,
                          thumbnails=options.thumbnails, jobs=options.jobs,
                          projection=options.projection,
                          features=open_features(options.features) if options.landmarks else None)
    place_map.save(options.output, overwrite=options.overwrite)
    steps = place_map.steps()
    apart = (f'{median(steps):.2f} m apart (median; {max(steps):.2f} m at most), '
             if len(steps) else '')
    print(f'{options.output}: {len(place_map)} places, {apart}in frame '
          f"'{place_map.manifest.frame_id}'")


def add_calibrate(commands: Commands) -> None:
    """Add `vpr calibrate`."""
    parser = command(commands, 'calibrate', _run_calibrate,
                     "calibrate a map's confidence on drives with true poses",
                     'The map is changed in place. Use other drives than those it was built from.')
    parser.add_argument('map', metavar='MAP', help='map directory')
    parser.add_argument('bags', nargs='+', metavar='BAG', help='drives through the mapped site')
    add_localizer_options(parser)
    add_pose_topic(parser, '--truth-topic', 'true poses')
    add_pose_options(parser)
    add_image_topic(parser)
    add_odometry_options(parser)
    add_correct_radius(parser)
    add_max_speed(parser)
    parser.add_argument('--dry-run', action='store_true',
                        help='print the result, but do not change the map')


def _run_calibrate(options: argparse.Namespace) -> None:
    from vpr_ros.io.bag import Bag
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.calibrate import calibrate
    from vpr_ros.offline.calibrate import read_drive
    from vpr_ros.offline.calibrate import report
    poses = poses_on_map(options)
    topics = []
    for path in options.bags:
        with Bag(path) as bag:
            topics.append((*find_topics(bag, options), bag.pose_topic(options.truth_topic)))
    encoder = load_encoder(options)
    place_map = PlaceMap.load(options.map, encoder)
    encoder = encoder.projected(place_map.projection)
    drives = [read_drive(path, encoder, image_topic=image, odometry_topic=odometry,
                         truth_topic=truth, use_odometry=options.odometry, poses=poses,
                         cameras=place_map.manifest.cameras)
              for path, (image, odometry, truth) in zip(options.bags, topics, strict=True)]
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
    parser.add_argument('path', metavar='MAP|MODEL|BAG', help='map directory, ONNX model or bag')
    parser.add_argument('--verify', action='store_true',
                        help='check the hashes of all files of a map, even of those too large to '
                             'be checked at every start')


def _run_inspect(options: argparse.Namespace) -> None:
    from vpr_ros.offline.inspection import inspect
    for name, value in inspect(options.path, verify=options.verify):
        print(f'{name:>16}  {value}')


def add_map_report(commands: Commands) -> None:
    """Add `vpr map-report`."""
    parser = command(commands, 'map-report', _run_map_report,
                     'find gaps and places that look alike in a map, and say what to do')
    parser.add_argument('map', metavar='MAP', help='map directory')
    add_localizer_options(parser)
    parser.add_argument('--json', metavar='FILE', help='write all findings to this file')
    parser.add_argument('--html', metavar='FILE', help='write a page with figures to this file')


def _run_map_report(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import check_file
    from vpr_ros.core.files import whole_file
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.map_report import find_aliases
    from vpr_ros.offline.map_report import map_report
    from vpr_ros.offline.map_report import report_lines
    from vpr_ros.offline.self_calibrate import expected
    for output in filter(None, (options.json, options.html)):
        check_file(output)
    if options.html:
        import_module('matplotlib')  # before the long work
    encoder = load_encoder(options)
    place_map = PlaceMap.load(options.map, encoder)
    score, other = find_aliases(place_map)
    report = map_report(place_map, score, other)
    report['expected'] = expected(place_map, encoder, defaults.MIN_CONFIDENCE)
    lines = list(report_lines(report))
    if options.json:
        with whole_file(options.json) as part:
            part.write_text(json.dumps(report, indent=2) + '\n')
    if options.html:
        from vpr_ros.offline.map_page import write_map_page
        write_map_page(options.html, place_map, score, other, report, lines)
    for line in lines:
        print(line)
