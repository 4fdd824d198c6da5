"""The `vpr` command: its arguments, and nothing else.

Each command imports what it needs when it runs, so that `vpr --help` is instant.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from typing import TYPE_CHECKING

from vpr_ros import defaults

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from vpr_ros.encoder import Encoder

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MODEL_HELP = 'ONNX model; the bundled one if left out'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 after an error that is told in one line, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format='%(levelname)s: %(message)s', level=logging.WARNING)
    logging.getLogger('vpr_ros').setLevel(logging.INFO)
    from vpr_ros.errors import VprError
    try:
        return int(options.run(options) or 0)
    except (VprError, OSError, ValueError) as error:
        if options.debug:
            raise
        print(f'vpr: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f'vpr: error: {error.name} is not installed, and this command needs it: see the '
              'README on what to install for what', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('vpr: interrupted', file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='vpr', description='Visual place recognition for ROS 2: build maps, replay bags, '
                                'evaluate, and try it all on a made-up street.')
    parser.add_argument('--debug', action='store_true', help='show a traceback for an error')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for add in (_build_map, _calibrate, _replay, _evaluate, _inspect, _play, _street, _demo,
                _train, _export, _wrap_model):
        add(commands)
    return parser


def _command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None],
             summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + '.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.set_defaults(run=run)
    return parser


def _number(kind: type[int] | type[float], low: float, high: float = math.inf
            ) -> Callable[[str], float]:
    """Return what argparse calls for an option that takes `low` to `high`, and never nan."""
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high or math.isinf(value):
            limits = f'at least {low:g}' if math.isinf(high) else f'from {low:g} to {high:g}'
            raise argparse.ArgumentTypeError(f'{text} is out of range: {limits}')
        return value
    number.__name__ = kind.__name__  # argparse's word for it: 'invalid float value'
    return number


def _add_localizer_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--model', help=MODEL_HELP)
    parser.add_argument('--provider', default='auto',
                        choices=('auto', *defaults.PROVIDERS),
                        help='what runs the model')


def _encoder(options: argparse.Namespace) -> Encoder:
    from vpr_ros.encoder import bundled_model
    from vpr_ros.encoder import Encoder
    return Encoder(options.model or bundled_model(), options.provider)


def _build_map(commands: Commands) -> None:
    parser = _command(commands, 'build-map', _run_build_map,
                      'build a map from bags, or from folders of pictures with poses')
    parser.add_argument('sources', nargs='+', metavar='SOURCE',
                        help='a rosbag2, or a folder of pictures with poses.csv or poses.tum; '
                             'each becomes a session of the map')
    _add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='MAP', help='map directory')
    parser.add_argument('--overwrite', action='store_true', help='replace a map that is there')
    parser.add_argument('--spacing', type=_number(float, 0), default=defaults.SPACING, metavar='M',
                        help='metres between places')
    parser.add_argument('--index', default='flat',
                        choices=defaults.INDEX_KINDS, help='kind of index')
    parser.add_argument('--condition', action='append', default=[], metavar='NAME',
                        help="a source's season or light, in the order of the sources")
    parser.add_argument('--image-topic', help='the first image topic if left out')
    parser.add_argument('--pose-topic', help='Odometry, PoseStamped or PoseWithCovarianceStamped')
    parser.add_argument('--pose-file', help='poses of a folder of pictures (CSV or TUM)')
    parser.add_argument('--no-thumbnails', dest='thumbnails', action='store_false',
                        help='keep no pictures of the places')


def _run_build_map(options: argparse.Namespace) -> None:
    from vpr_ros.files import check_output
    from vpr_ros.offline.build_map import build_map
    from vpr_ros.place_map import MANIFEST
    from vpr_ros.sources import open_source
    if options.condition and len(options.condition) != len(options.sources):
        raise ValueError(f'{len(options.condition)} conditions for {len(options.sources)} '
                         'sources: give one --condition for each, or none')
    check_output(options.output, MANIFEST, overwrite=options.overwrite)  # before the long work
    sources = [open_source(source, image_topic=options.image_topic,
                           pose_topic=options.pose_topic, pose_file=options.pose_file)
               for source in options.sources]
    place_map = build_map(sources, _encoder(options), conditions=options.condition,
                          spacing=options.spacing, index=options.index,
                          thumbnails=options.thumbnails)
    place_map.save(options.output, overwrite=options.overwrite)
    print(f'{options.output}: {len(place_map)} places, one every {options.spacing} m, in frame '
          f"'{place_map.manifest.frame_id}'")


def _calibrate(commands: Commands) -> None:
    parser = _command(commands, 'calibrate', _run_calibrate,
                      "fit a map's confidence to drives whose true poses are known")
    parser.add_argument('map', metavar='MAP')
    parser.add_argument('bags', nargs='+', metavar='BAG', help='drives over the mapped ground')
    _add_localizer_options(parser)
    parser.add_argument('--truth-topic', help='true poses; the best pose topic if left out')
    parser.add_argument('--image-topic', help='the first image topic if left out')
    parser.add_argument('--odometry-topic', help='the first Odometry topic if left out')
    parser.add_argument('--correct-radius', type=_number(float, 0.01), metavar='M',
                        default=defaults.CORRECT_RADIUS,
                        help='distance within which a pose counts as right')
    parser.add_argument('--max-speed', type=_number(float, 0.01), default=defaults.MAX_SPEED,
                        metavar='M/S', help='fastest that the robot drives')
    parser.add_argument('--dry-run', action='store_true', help='print, and leave the map as it is')


def _run_calibrate(options: argparse.Namespace) -> None:
    from vpr_ros.offline.calibrate import calibrate
    from vpr_ros.offline.calibrate import read_drive
    from vpr_ros.offline.calibrate import report
    from vpr_ros.place_map import PlaceMap
    encoder = _encoder(options)
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


def _replay(commands: Commands) -> None:
    parser = _command(commands, 'replay', _run_replay,
                      'localise every frame of a bag as the node would, as fast as it goes')
    parser.add_argument('bag', metavar='BAG')
    parser.add_argument('--map', required=True, help='map directory')
    _add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='OUT',
                        help='directory for trajectory.tum, estimates.csv and a bag of the poses')
    parser.add_argument('--overwrite', action='store_true', help='replace an output that is there')
    parser.add_argument('--image-topic', help='the first image topic if left out')
    parser.add_argument('--odometry-topic', help='the first Odometry topic if left out')
    parser.add_argument('--no-odometry', dest='odometry', action='store_false',
                        help='do without it: any place within reach may be next')
    parser.add_argument('--truth-topic', help='compare with the poses on this topic of the bag')
    parser.add_argument('--min-confidence', type=_number(float, 0, 1), metavar='P',
                        default=defaults.MIN_CONFIDENCE,
                        help='a pose is written from this confidence on')
    parser.add_argument('--top-k', type=_number(int, 1), default=defaults.TOP_K, metavar='K',
                        help='candidates kept per frame')
    parser.add_argument('--correct-radius', type=_number(float, 0.01), metavar='M',
                        default=defaults.CORRECT_RADIUS,
                        help='distance within which a pose counts as right')
    parser.add_argument('--no-compensate', dest='compensate', action='store_false',
                        help='do not centre descriptors on the running mean of the drive')
    parser.add_argument('--no-filter', dest='filter', action='store_false',
                        help='take each frame for itself')
    parser.add_argument('--max-speed', type=_number(float, 0.01), default=defaults.MAX_SPEED,
                        metavar='M/S',
                        help='fastest that the robot drives, for a bag without odometry')


def _run_replay(options: argparse.Namespace) -> None:
    from vpr_ros.files import check_output
    from vpr_ros.localizer import Localizer
    from vpr_ros.offline.evaluate import score_drive
    from vpr_ros.offline.replay import ESTIMATES
    from vpr_ros.offline.replay import replay
    from vpr_ros.offline.replay import write_drive
    from vpr_ros.place_map import PlaceMap
    from vpr_ros.ros.bag import Bag
    check_output(options.output, ESTIMATES, overwrite=options.overwrite)  # before the long work
    encoder = _encoder(options)
    place_map = PlaceMap.load(options.map, encoder)
    localizer = Localizer(encoder, place_map, top_k=options.top_k,
                          min_confidence=options.min_confidence,
                          correct_radius=options.correct_radius, compensate=options.compensate,
                          filter=options.filter, max_speed=options.max_speed)
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


def _evaluate(commands: Commands) -> None:
    parser = _command(commands, 'evaluate', _run_evaluate,
                      'measure the recall of a model on a set of pictures')
    parser.add_argument('--database', required=True, metavar='DIR', help='pictures of the map')
    parser.add_argument('--queries', required=True, metavar='DIR', help='pictures to find on it')
    parser.add_argument('--ground-truth', required=True, metavar='CSV',
                        help='file names query,reference: a row for each right answer')
    _add_localizer_options(parser)
    parser.add_argument('--no-compensate', dest='compensate', action='store_false',
                        help='do not centre queries on their running mean')
    parser.add_argument('--filter', action=argparse.BooleanOptionalAction, default=False,
                        help='take the queries in the order of their names for a drive')
    parser.add_argument('--min-confidence', type=_number(float, 0, 1), metavar='P',
                        default=defaults.MIN_CONFIDENCE,
                        help='a query counts as answered from this confidence on')
    parser.add_argument('--json', metavar='OUT', help='write the result to this file')


def _run_evaluate(options: argparse.Namespace) -> None:
    from vpr_ros.files import whole_file
    from vpr_ros.offline.evaluate import evaluate_set
    result = evaluate_set(options.database, options.queries, options.ground_truth,
                          _encoder(options), compensate=options.compensate,
                          filter=options.filter, min_confidence=options.min_confidence)
    if options.json:
        with whole_file(options.json) as part:
            part.write_text(json.dumps(result, indent=2) + '\n')
    recalls = ', '.join(f'R@{n} {share:.3f}' for n, share in result['recall'].items())
    print(f'{recalls}  ({result["evaluated"]} queries, {result["unmapped"]} without an answer, '
          f'{result["places"]} places; tolerance {result["tolerance"]})')
    filtered = f'filtered R@1 {result["filtered"]:.3f}, ' if options.filter else ''
    print(f'{filtered}{result["answered"]} answered at confidence {options.min_confidence:g}, '
          f'{result["answered_right"]} of them right, {result["false_accepts"]} where nothing is '
          f'right; calibration error {result["ece"]:.3f}')


def _inspect(commands: Commands) -> None:
    parser = _command(commands, 'inspect', _run_inspect, 'show what a map, a model or a bag holds')
    parser.add_argument('path', metavar='MAP|MODEL|BAG')


def _run_inspect(options: argparse.Namespace) -> None:
    from vpr_ros.offline.inspect import inspect
    for name, value in inspect(options.path):
        print(f'{name:>16}  {value}')


def _play(commands: Commands) -> None:
    parser = _command(commands, 'play', _run_play,
                      'publish a bag over ROS 2, where there is no `ros2 bag play`')
    parser.add_argument('bag', metavar='BAG')
    parser.add_argument('--rate', type=_number(float, 0.001), default=1.0,
                        help='times the recorded pace')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC', help='only these')
    parser.add_argument('--loop', action='store_true', help='begin again at the end')
    parser.add_argument('--no-clock', dest='clock', action='store_false',
                        help='do not publish /clock')
    parser.add_argument('--wait', type=_number(int, 0), default=0, metavar='N',
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


def _street(commands: Commands) -> None:
    parser = _command(commands, 'street', _run_street,
                      'drive through a made-up town and record the bag')
    parser.add_argument('--seed', type=int, default=7, help='which town')
    parser.add_argument('--season', default='spring',
                        choices=('spring', 'winter', 'night', 'rain'), help='season or light')
    parser.add_argument('--drive', type=int, default=0, metavar='SEED',
                        help='which drive: its wobble, traffic and noise')
    parser.add_argument('--route', default='main', choices=('main', 'other'), help='which streets')
    parser.add_argument('--length', type=_number(float, 0.01), metavar='M',
                        help='metres; the whole route if left out')
    parser.add_argument('--start', type=_number(float, 0), default=0.0, metavar='M',
                        help='where to begin')
    parser.add_argument('--speed', type=_number(float, 0.1, 50), default=8.0, metavar='M/S',
                        help='mean speed')
    parser.add_argument('--lateral-offset', type=_number(float, -5, 5), default=0.0, metavar='M',
                        help='metres to the left of the lane')
    parser.add_argument('--rate', type=_number(float, 0.1, 1000), default=10.0, metavar='HZ',
                        help='frames per second')
    parser.add_argument('--size', default='320x240', metavar='WxH', help='size of the pictures')
    parser.add_argument('--compressed', action='store_true', help='record JPEG pictures')
    parser.add_argument('--output', '-o', required=True, metavar='BAG',
                        help='a name that ends in .mcap is written as mcap, others as sqlite3')
    parser.add_argument('--overwrite', action='store_true', help='replace a bag that is there')


def _run_street(options: argparse.Namespace) -> None:
    from tqdm import tqdm
    from vpr_ros.street import drive
    from vpr_ros.street import Town
    from vpr_ros.street.record import record
    height, width = _size(options.size)
    frames = drive(Town(options.seed), condition=options.season, seed=options.drive,
                   route=options.route, speed=options.speed, length=options.length,
                   start=options.start, lateral_offset=options.lateral_offset, rate=options.rate,
                   width=width, height=height)
    count = record(options.output, tqdm(frames, desc=options.season, unit='frame', disable=None),
                   compressed=options.compressed, overwrite=options.overwrite)
    print(f'{options.output}: {count} frames')


def _demo(commands: Commands) -> None:
    parser = _command(commands, 'demo', _run_demo,
                      'map a street in winter and find the way in spring, with the real node')
    parser.add_argument('--output', '-o', default='demo', metavar='DIR',
                        help='folder for the bags, the map and the picture')
    parser.add_argument('--seed', type=int, default=7, help='which town')
    parser.add_argument('--model', help=MODEL_HELP)
    parser.add_argument('--offline', action='store_true',
                        help='replay the bag without ROS (so it is where there is none)')


def _run_demo(options: argparse.Namespace) -> int:
    from vpr_ros.offline.demo import demo
    return demo(options.output, seed=options.seed, model=options.model, offline=options.offline)


def _train(commands: Commands) -> None:
    parser = _command(commands, 'train', _run_train,
                      'train a network: one YAML per experiment (docs/training.md)')
    parser.add_argument('experiment', metavar='EXPERIMENT.yaml')
    parser.add_argument('--output', '-o', metavar='DIR',
                        help='folder for checkpoints and logs; runs/EXPERIMENT if left out')
    parser.add_argument('--set', action='append', default=[], dest='changes', metavar='NAME=VALUE',
                        help='change a value of the experiment, such as training.epochs=5')
    parser.add_argument('--resume', action='store_true',
                        help='go on from the last checkpoint in the output')
    parser.add_argument('--accelerator', default='auto', help='cpu, gpu, ... (Lightning)')
    parser.add_argument('--devices', default='auto', help='how many, or which (Lightning)')
    parser.add_argument('--nodes', type=_number(int, 1), default=1, help='machines (Lightning)')
    parser.add_argument('--strategy', default='auto', help='ddp, ... (Lightning)')


def _run_train(options: argparse.Namespace) -> None:
    from pathlib import Path

    from vpr_ros.training.experiment import read_experiment
    experiment = read_experiment(options.experiment, options.changes)
    from vpr_ros.training.train import train
    print(train(experiment, options.output or Path('runs', Path(options.experiment).stem),
                resume=options.resume,
                trainer_options={'accelerator': options.accelerator, 'devices': options.devices,
                                 'num_nodes': options.nodes, 'strategy': options.strategy}))


def _export(commands: Commands) -> None:
    parser = _command(commands, 'export', _run_export,
                      'write a checkpoint as the ONNX model that the robot runs, and compare both')
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    parser.add_argument('--output', '-o', required=True, metavar='ONNX')
    parser.add_argument('--precision', default='fp32', choices=('fp32', 'fp16', 'int8'),
                        help='of the backbone; norms stay fp32')
    parser.add_argument('--pictures', nargs='+', default=[], metavar='DIR',
                        help='folders of pictures, a drive each, to compare on, to calibrate int8 '
                             'on and to fit --dimension to')
    parser.add_argument('--validation', metavar='DIR',
                        help='folder of database/, queries/ and ground_truth.csv: nothing is '
                             'written when Recall@1 on it falls by more than 0.5 points')
    parser.add_argument('--dimension', type=_number(int, 1), metavar='D',
                        help='shorten the descriptors to so many values, by PCA-whitening')
    parser.add_argument('--size', metavar='WxH', help="the experiment's if left out")
    parser.add_argument('--dynamic-size', action='store_true', help='take pictures of any size')
    parser.add_argument('--no-half-weights', dest='half_weights', action='store_false',
                        help='store weights as float32: twice the size, no rounding')
    parser.add_argument('--license', default='', help='of the weights, for the metadata')


def _run_export(options: argparse.Namespace) -> None:
    from vpr_ros.training.checkpoint import load_network
    from vpr_ros.training.export import CALIBRATED_ON
    from vpr_ros.training.export import export
    from vpr_ros.training.export import metadata_of
    from vpr_ros.training.export import PROJECTED_FROM
    from vpr_ros.training.export import read_pictures
    from vpr_ros.training.projection import fold_projection
    from vpr_ros.training.recall import ValidationSet
    network, experiment = load_network(options.checkpoint)
    described = experiment.network
    height, width = (_size(options.size) if options.size else (described.height, described.width))
    validation = ValidationSet.read(options.validation) if options.validation else None
    if (options.dimension or options.precision == 'int8') and not options.pictures:
        raise ValueError('--dimension and --precision int8 need --pictures to fit to')
    if options.dimension:
        network = fold_projection(
            network, *read_pictures(options.pictures, height, width, PROJECTED_FROM),
            options.dimension)
    pictures = None
    if options.pictures:
        pictures, _ = read_pictures(options.pictures, height, width, CALIBRATED_ON)
    report = export(network, options.output, height=height, width=width,
                    metadata=metadata_of(experiment, options.checkpoint, options.license),
                    precision=options.precision, dynamic_size=options.dynamic_size,
                    half_weights=options.half_weights, pictures=pictures, validation=validation)
    print(f'{options.output}: {report}')


def _size(text: str) -> tuple[int, int]:
    """Return (height, width) of a size that is written WxH."""
    try:
        width, height = (int(side) for side in text.split('x'))
    except ValueError as error:
        raise ValueError(f"--size is WxH, such as 320x240, not '{text}'") from error
    return height, width


def _wrap_model(commands: Commands) -> None:
    parser = _command(commands, 'wrap-model', _run_wrap_model,
                      'make a published place-recognition network (ONNX) one that the robot runs')
    parser.add_argument('third', metavar='THIRD.onnx')
    parser.add_argument('--output', '-o', required=True, metavar='ONNX')
    parser.add_argument('--mean', nargs=3, type=float, default=(0.485, 0.456, 0.406),
                        help="of the network's training, per channel, in units of --scale")
    parser.add_argument('--std', nargs=3, type=float, default=(0.229, 0.224, 0.225),
                        help='likewise')
    parser.add_argument('--scale', type=_number(float, 1e-6), default=255.0,
                        help='what pixels are divided by before that; 1 for none')
    parser.add_argument('--size', metavar='WxH', help='where the network takes any size')
    parser.add_argument('--layout', default='nchw', choices=('nchw', 'nhwc'),
                        help='order of its input')
    parser.add_argument('--colour', default='rgb', choices=('rgb', 'bgr'),
                        help='order of its channels')
    parser.add_argument('--output-name', default='', help='which of several outputs')
    parser.add_argument('--name', default='', help='for the metadata')
    parser.add_argument('--license', default='', help='for the metadata')


def _run_wrap_model(options: argparse.Namespace) -> None:
    from vpr_ros.training.wrap import wrap_model
    report = wrap_model(options.third, options.output, mean=options.mean, std=options.std,
                        size=_size(options.size) if options.size else None,
                        layout=options.layout, colour=options.colour, scale=options.scale,
                        output_name=options.output_name, name=options.name,
                        license_name=options.license)
    print(f'{options.output}: {report}')


if __name__ == '__main__':
    sys.exit(main())
