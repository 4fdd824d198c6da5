"""The commands that judge a model or a map."""

from __future__ import annotations

import argparse
import json
from typing import Any
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vpr_ros.cli.options import Commands
    from vpr_ros.offline.evaluation import Evaluation


def add_evaluate(commands: Commands) -> None:
    """Add `vpr evaluate`."""
    parser = command(commands, 'evaluate', _run_evaluate,
                     'measure a model or a map by queries whose truth is known')
    of = parser.add_argument_group('what is judged: pictures, a drive, or a replay')
    of.add_argument('--database', metavar='DIR', help='pictures of the places')
    of.add_argument('--queries', metavar='DIR', help='pictures to find among them')
    of.add_argument('--ground-truth', metavar='CSV',
                    help='file names query,reference: a row for each right answer')
    of.add_argument('--utm', metavar='DIR',
                    help='folder of database/ and queries/ named @utm_east@utm_north@...')
    of.add_argument('--map', metavar='MAP', help='a map, with --drive or --replay')
    of.add_argument('--drive', metavar='SOURCE', help='a bag, or a folder of pictures with poses')
    of.add_argument('--replay', metavar='OUT', help='what `vpr replay` wrote')
    of.add_argument('--truth', metavar='BAG|TUM', help='true poses of the replayed drive')
    of.add_argument('--image-topic', help='the first image topic if left out')
    of.add_argument('--truth-topic', help='the best pose topic if left out')
    add_localizer_options(parser)
    parser.add_argument('--tolerance', type=number(float, 0.001), metavar='M',
                        help='metres within which an answer is right; by default '
                             f'{defaults.CORRECT_RADIUS:g}, and 25 for --utm')
    parser.add_argument('--degrees', type=number(float, 0, 180), metavar='DEG', default=180.0,
                        help='and degrees')
    parser.add_argument('--no-compensate', dest='compensate', action='store_false',
                        help='do not centre queries on their running mean')
    parser.add_argument('--filter', action=argparse.BooleanOptionalAction,
                        help='take the queries in their order for a drive; by default for '
                             '--drive only')
    parser.add_argument('--min-confidence', type=number(float, 0, 1), metavar='P',
                        default=defaults.MIN_CONFIDENCE,
                        help='a query counts as answered from this confidence on')
    parser.add_argument('--no-cache', dest='cache', action='store_false',
                        help='encode the pictures anew')
    parser.set_defaults(refuse=parser.error)
    parser.add_argument('--json', metavar='OUT', help='write the figures to this file')
    parser.add_argument('--html', metavar='OUT', help='write a report to look at')


def _run_evaluate(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import whole_file
    from vpr_ros.offline.summary import summary
    evaluation = _evaluation(options)
    result = summary(evaluation)
    if options.json:
        with whole_file(options.json) as part:
            part.write_text(json.dumps(result, indent=2) + '\n')
    if options.html:
        from vpr_ros.offline.report import write_report
        write_report(evaluation, options.html)
    for line in _lines(result):
        print(line)


def _evaluation(options: argparse.Namespace) -> Evaluation:
    from vpr_ros.offline import evaluate_drives
    from vpr_ros.offline import evaluate_images
    from vpr_ros.offline.localise import EvaluationOptions
    pictures = options.database and options.queries and options.ground_truth
    drive = options.map and options.drive
    replay = options.map and options.replay and options.truth
    if not (pictures or options.utm or drive or replay):
        options.refuse('name --database, --queries and --ground-truth; or --utm; or --map and '
                       '--drive; or --map, --replay and --truth')
    encoder = load_encoder(options)
    localised = EvaluationOptions(
        use_filter=bool(drive) if options.filter is None else options.filter,
        compensate=options.compensate, min_confidence=options.min_confidence)
    if pictures:
        return evaluate_images.evaluate_set(options.database, options.queries,
                                            options.ground_truth, encoder, localised,
                                            cache=options.cache)
    if options.utm:
        return evaluate_images.evaluate_utm(
            options.utm, encoder, localised,
            tolerance=options.tolerance or evaluate_images.UTM_TOLERANCE, cache=options.cache)
    where = {'tolerance': options.tolerance or defaults.CORRECT_RADIUS,
             'degrees': options.degrees}
    from vpr_ros.maps.place_map import PlaceMap
    place_map = PlaceMap.load(options.map, encoder)
    if drive:
        from vpr_ros.io.sources import open_source
        with open_source(options.drive, image_topic=options.image_topic,
                         pose_topic=options.truth_topic) as source:
            return evaluate_drives.evaluate_drive(place_map, source, encoder, localised, **where)
    return evaluate_drives.evaluate_replay(
        options.replay, place_map, _true_poses(options.truth, options.truth_topic),
        min_confidence=options.min_confidence, **where)


def _true_poses(path: str, topic: str | None) -> Any:
    from pathlib import Path

    from vpr_ros.core import poses
    from vpr_ros.io.bag import Bag
    if Path(path).suffix in ('.tum', '.txt'):
        return poses.read_tum(path)
    with Bag(path) as bag:
        return bag.poses(bag.pose_topic(topic))


def add_map_report(commands: Commands) -> None:
    """Add `vpr map-report`."""
    parser = command(commands, 'map-report', _run_map_report,
                     'say where a map has gaps or places that look alike, and what to do')
    parser.add_argument('map', metavar='MAP')
    add_localizer_options(parser)
    parser.add_argument('--json', metavar='OUT', help='write all that was found to this file')
    parser.add_argument('--html', metavar='OUT', help='write a page with pictures of it')


def _run_map_report(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import whole_file
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.map_report import look_alikes
    from vpr_ros.offline.map_report import map_report
    from vpr_ros.offline.self_calibrate import expected
    encoder = load_encoder(options)
    place_map = PlaceMap.load(options.map, encoder)
    score, other = look_alikes(place_map)
    report = map_report(place_map, score, other)
    report['expected'] = expected(place_map, encoder, defaults.MIN_CONFIDENCE)
    lines = list(_map_lines(report))
    if options.json:
        with whole_file(options.json) as part:
            part.write_text(json.dumps(report, indent=2) + '\n')
    if options.html:
        from vpr_ros.offline.map_page import write_map_page
        write_map_page(options.html, place_map, score, other, report, lines)
    for line in lines:
        print(line)


def _map_lines(report: dict[str, Any]) -> Iterator[str]:
    yield (f'{report["places"]} places, one every {report["spacing"]:g} m; calibrated on '
          f'{report["calibration"]}')
    for session in report['sessions']:
        yield (f'  {session["source"]} ({session["condition"]}): {session["places"]} places, '
              f'{session["metres"]:.0f} m')
    yield (f'{len(report["gaps"])} gaps; {report["seen_twice"]:.0%} of the places seen by another '
          f'session, {report["redundant"]:.0%} redundant')
    yield (f'{report["aliasing"]:.1%} of the places look like one far away as much as places look '
          'like themselves in another season')
    expected = report['expected']
    if expected:
        yield (f'expected of drives without odometry: {expected["published"]:.0%} of the frames '
               f'get a pose, {expected["right"]:.1%} of these right'
               + (f'; {expected["off_map"]:.1%} of those off the map' if 'off_map' in expected
                  else '') + ' (simulated drives: a guess)')
    for line in report['advice']:
        yield f'- {line}'


def _lines(result: dict[str, Any]) -> list[str]:
    asked = (f'mapped queries: {result["evaluated"]}, unmapped queries: {result["unmapped"]}, '
             f'places: {result["places"]}; tolerance {result["tolerance"]}')
    if result['evaluated']:
        recalls = ', '.join(f'R@{n} {share:.3f}' for n, share in result['recall'].items())
        low, high = result['recall_interval']['1']
        at = result['recall_at_precision']
        filtered = f'filtered R@1 {result["filtered"]:.3f}, ' if 'filtered' in result else ''
        lines = [f'{recalls}  (R@1 {low:.3f} to {high:.3f} at 95 %; {asked})',
                 f'{filtered}AUC-PR {result["auc_pr"]:.3f}, recall {at["0.99"]:.3f} at 99 % '
                 f'precision, {at["1.0"]:.3f} at 100 %']
    else:
        lines = [f'nothing of it is on the map: there is no recall ({asked})']
    right, false = result['answered_right'], result['false_accepts']
    lines.append(
        f'answered at confidence {result["min_confidence"]:g}: {result["answered"]:.1%}'
        + (f', {right:.1%} of them right' if right is not None else '')
        + (f'; {false:.1%} of the queries where nothing is right' if false is not None else '')
        + f'; calibration error {result["ece"]:.3f}')
    if result['pose_error']:
        error = result['pose_error']
        nees = '' if result['nees'] is None else f', NEES {result["nees"]:.2f}'
        lines.append(f'error of the answers: median {error["p50"]:.2f} m, 90 % within '
                     f'{error["p90"]:.2f} m{nees}')
    if result['latency_ms']:
        lines.append(', '.join(f'{stage} {each["p50"]:.2f} ms'
                               for stage, each in result['latency_ms'].items()) + ' a query')
    return lines
