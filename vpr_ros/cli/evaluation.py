"""`vpr evaluate`: its arguments, and the figures that it prints."""

from __future__ import annotations

import argparse
from functools import partial
import json
from typing import Any
from typing import NoReturn
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_correct_radius
from vpr_ros.cli.options import add_image_topic
from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import add_pose_options
from vpr_ros.cli.options import add_pose_topic
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number
from vpr_ros.cli.options import poses_on_map
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from vpr_ros.cli.options import Commands
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.offline.evaluation import Evaluation
    from vpr_ros.offline.localize_queries import EvaluationOptions

    Evaluate = Callable[[Encoder], Evaluation]


def add_evaluate(commands: Commands) -> None:
    """Add `vpr evaluate`."""
    parser = command(
        commands, 'evaluate', _run_evaluate,
        'measure recall, confidence and position error on queries with ground truth',
        'It takes one of four inputs: folders of images (--database, --queries, --ground-truth), '
        'a folder with positions in its file names (--utm), a drive on a map (--map, --drive), '
        'or the output of vpr replay (--map, --replay, --truth).')
    parser.set_defaults(refuse=parser.error)
    _add_inputs(parser)
    _add_model(parser.add_argument_group('model'))
    _add_localization(parser.add_argument_group('localisation and scoring'))
    group = parser.add_argument_group('output')
    group.add_argument('--json', metavar='FILE', help='write all figures to this file')
    group.add_argument('--html', metavar='FILE', help='write a report with images to this file')


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('input: folders of images')
    group.add_argument('--database', metavar='DIR', help='images of the mapped places')
    group.add_argument('--queries', metavar='DIR', help='images to localise')
    group.add_argument('--ground-truth', metavar='CSV',
                       help='file with the columns query,reference (file names), a row for each '
                            'correct match')
    group = parser.add_argument_group('input: a folder with positions in its file names')
    group.add_argument('--utm', metavar='DIR',
                       help='folder with database/ and queries/, files named '
                            '@utm_east@utm_north@...')
    group = parser.add_argument_group('input: a drive, or its replay, on a map')
    group.add_argument('--map', metavar='MAP', help='map directory')
    group.add_argument('--drive', metavar='SOURCE',
                       help='drive to localise: a bag or a folder of images, with true poses')
    group.add_argument('--replay', metavar='DIR', help='output folder of vpr replay on this map')
    group.add_argument('--truth', metavar='BAG|TUM', help='true poses of the replayed drive')
    add_image_topic(group)
    add_pose_topic(group, '--truth-topic', 'true poses')
    add_pose_options(group)


def _add_model(group: argparse._ActionsContainer) -> None:
    add_localizer_options(group)
    group.add_argument('--no-cache', dest='cache', action='store_false',
                       help='encode all images again, even if their descriptors are cached')


def _add_localization(group: argparse._ActionsContainer) -> None:
    group.add_argument('--filter', action=argparse.BooleanOptionalAction,
                       help='treat the queries as consecutive frames of a drive, or each on its '
                            'own (default: --filter with --drive, --no-filter for images)')
    group.add_argument('--smooth', action='store_true',
                       help='treat them as frames of a drive, and localise each by those after '
                            'it, too')
    group.add_argument('--verify', action='store_true',
                       help='compare each query with the images of the ten most similar places, '
                            'too (folders of images)')
    group.add_argument('--centering', choices=defaults.CENTERINGS, default=defaults.CENTERING,
                       help='what is subtracted from the descriptors of the queries: the running '
                            'mean of the drive, as on the robot, the mean of the map, or nothing '
                            '(nor from those of the map)')
    group.add_argument('--projection', choices=defaults.PROJECTIONS, default=defaults.PROJECTION,
                       help='of a map that is made of --database or --utm: fitted to it (auto), '
                            "the model's own, or without whitening (none)")
    group.add_argument('--no-compensate', dest='centering', action='store_const', const='map',
                       help=argparse.SUPPRESS)  # its name until 0.3
    group.add_argument('--min-confidence', type=number(float, 0, 1), metavar='P',
                       default=defaults.MIN_CONFIDENCE,
                       help='a query counts as localised from this confidence on')
    add_correct_radius(group, None, f'{defaults.CORRECT_RADIUS:g}, or 25 with --utm')
    group.add_argument('--degrees', type=number(float, 0, 180), metavar='DEG', default=180.0,
                       help='largest error of the heading (degrees) of a correct pose, with --map')


def _run_evaluate(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import check_file
    from vpr_ros.core.files import whole_file
    from vpr_ros.offline.summary import summary
    for output in filter(None, (options.json, options.html)):
        check_file(output)
    if options.smooth and (options.filter is False or options.replay):
        options.refuse('--smooth is of the filter: leave out --no-filter' if not options.replay
                       else '--smooth is an option of vpr replay, where the drive is localised')
    if options.verify and (options.map or options.smooth):
        options.refuse('--verify compares folders of images (--database or --utm)'
                       if options.map else '--verify does not go with --smooth')
    evaluate = _chosen_input(options)
    evaluation = evaluate(load_encoder(options))
    result = summary(evaluation)
    if options.json:
        with whole_file(options.json) as part:
            part.write_text(json.dumps(result, indent=2) + '\n')
    if options.html:
        from vpr_ros.offline.report import write_report
        write_report(evaluation, options.html)
    for line in _lines(result):
        print(line)


def _chosen_input(options: argparse.Namespace) -> Evaluate:
    """
    Return the function that evaluates the input named by the options; exit if there is none.

    Topics and true poses are looked up here, before the model is loaded and images are encoded.
    """
    if options.database and options.queries and options.ground_truth:
        return _image_set(options)
    if options.utm:
        return _utm(options)
    if options.map and options.drive:
        return _drive(options)
    if options.map and options.replay and options.truth:
        return _replay(options)
    refuse: Callable[[str], NoReturn] = options.refuse
    return refuse('name --database, --queries and --ground-truth; or --utm; or --map and --drive; '
                  'or --map, --replay and --truth')


def _image_set(options: argparse.Namespace) -> Evaluate:
    from vpr_ros.offline.evaluate_images import evaluate_set
    return lambda encoder: evaluate_set(
        options.database, options.queries, options.ground_truth, encoder,
        _evaluation_options(options, use_filter=False), cache=options.cache)


def _utm(options: argparse.Namespace) -> Evaluate:
    from vpr_ros.offline.evaluate_images import evaluate_utm
    from vpr_ros.offline.evaluate_images import UTM_TOLERANCE
    return lambda encoder: evaluate_utm(
        options.utm, encoder, _evaluation_options(options, use_filter=False),
        tolerance=options.correct_radius or UTM_TOLERANCE, cache=options.cache)


def _drive(options: argparse.Namespace) -> Evaluate:
    from vpr_ros.io.sources import open_source
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.evaluate_drives import evaluate_drive
    opened = open_source(options.drive, image_topic=options.image_topic,
                         pose_topic=options.truth_topic, poses=poses_on_map(options))
    opened.check()

    def evaluate(encoder: Encoder) -> Evaluation:
        place_map = PlaceMap.load(options.map, encoder)
        with opened as source:
            return evaluate_drive(
                place_map, source, encoder, _evaluation_options(options, use_filter=True),
                tolerance=options.correct_radius or defaults.CORRECT_RADIUS,
                degrees=options.degrees)
    return evaluate


def _replay(options: argparse.Namespace) -> Evaluate:
    from vpr_ros.core import pose_files
    from vpr_ros.io.bag import Bag
    from vpr_ros.io.map_poses import bag_poses
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.evaluate_drives import evaluate_replay
    from vpr_ros.offline.evaluate_drives import frames_of
    poses = poses_on_map(options)
    read_frames: Callable[[], dict[int, bytes]] = dict
    if options.truth.endswith(('.tum', '.txt')):
        truth = pose_files.read_tum(options.truth)
        truth = truth._replace(poses=poses.apply(truth.stamps, truth.poses, options.truth))
    else:
        with Bag(options.truth) as bag:
            truth = bag_poses(bag, options.truth_topic, poses)
            if options.html and options.image_topic:
                bag.image_topic(options.image_topic)
        if options.html:
            read_frames = partial(frames_of, options.truth, options.image_topic)
    return lambda encoder: evaluate_replay(
        options.replay, PlaceMap.load(options.map, encoder), truth,
        tolerance=options.correct_radius or defaults.CORRECT_RADIUS, degrees=options.degrees,
        min_confidence=options.min_confidence, read_frames=read_frames)


def _evaluation_options(options: argparse.Namespace, *, use_filter: bool) -> EvaluationOptions:
    """Return how the queries are localised; `use_filter` is the default of --filter."""
    from vpr_ros.offline.localize_queries import EvaluationOptions
    return EvaluationOptions(
        use_filter=options.smooth or (use_filter if options.filter is None else options.filter),
        smooth=options.smooth, verify=options.verify,
        centering=options.centering, min_confidence=options.min_confidence,
        projection=options.projection)


def _lines(result: dict[str, Any]) -> list[str]:
    counts = (f'mapped queries: {result["evaluated"]}, unmapped queries: {result["unmapped"]}, '
              f'places: {result["places"]}, tolerance: {result["tolerance"]}')
    if result['evaluated']:
        recalls = ', '.join(f'R@{n} {share:.3f}' for n, share in result['recall'].items())
        low, high = result['recall_interval']['1']
        at = result['recall_at_precision']
        filtered = f'R@1 with filter {result["filtered"]:.3f}, ' if 'filtered' in result else ''
        lines = [f'{recalls} (95% interval of R@1: {low:.3f} to {high:.3f}; {counts})',
                 f'{filtered}AUC-PR {result["auc_pr"]:.3f}, recall {at["0.99"]:.3f} at 99% '
                 f'precision, {at["1.0"]:.3f} at 100%']
    else:
        lines = [f'no query shows a mapped place, so there is no recall ({counts})']
    correct, false = result['answered_right'], result['false_accepts']
    lines.append(
        f'localised (confidence >= {result["min_confidence"]:g}): {result["answered"]:.1%} of the '
        'queries'
        + (f', {correct:.1%} of these correct' if correct is not None else '')
        + (f'; false poses for {false:.1%} of the unmapped queries' if false is not None else '')
        + f'; calibration error (ECE, lower is better) {result["ece"]:.3f}')
    if result['pose_error']:
        error = result['pose_error']
        nees = '' if result['nees'] is None else f', NEES {result["nees"]:.2f}'
        lines.append(f'position error of the localised queries: median {error["p50"]:.2f} m, '
                     f'90% within {error["p90"]:.2f} m{nees}')
    if result['protection']:
        level = result['protection']
        lines.append(f'protection level (holds the truth in 99.9%): {level["share"]:.1%} of the '
                     f'queries have one, median {level["p50"]:.1f} m; broken by '
                     f'{level["broken"]:.2%} of all')
    if result['refined']:
        refined = result['refined']
        lines.append(
            f'refined: {refined["share"]:.0%} of these, median error '
            f'{refined["before"]["p50"]:.2f} -> {refined["after"]["p50"]:.2f} m '
            f'(90% within {refined["after"]["p90"]:.2f} m), '
            f'{refined["degrees"]["p50"]:.2f} degrees; within 0.25 m and 2 degrees: '
            f'{refined["within"]:.0%}')
    if result['latency_ms']:
        lines.append('median time per query: ' + ', '.join(
            f'{stage} {each["p50"]:.2f} ms' for stage, each in result['latency_ms'].items()))
    return lines
