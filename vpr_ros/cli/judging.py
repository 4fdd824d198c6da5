"""The commands that judge a model or a map."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from vpr_ros import defaults
from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number

if TYPE_CHECKING:
    from vpr_ros.cli.options import Commands


def add_evaluate(commands: Commands) -> None:
    """Add `vpr evaluate`."""
    parser = command(commands, 'evaluate', _run_evaluate,
                     'measure the recall of a model on a set of pictures')
    parser.add_argument('--database', required=True, metavar='DIR', help='pictures of the map')
    parser.add_argument('--queries', required=True, metavar='DIR', help='pictures to find on it')
    parser.add_argument('--ground-truth', required=True, metavar='CSV',
                        help='file names query,reference: a row for each right answer')
    add_localizer_options(parser)
    parser.add_argument('--no-compensate', dest='compensate', action='store_false',
                        help='do not centre queries on their running mean')
    parser.add_argument('--filter', action=argparse.BooleanOptionalAction, default=False,
                        help='take the queries in the order of their names for a drive')
    parser.add_argument('--min-confidence', type=number(float, 0, 1), metavar='P',
                        default=defaults.MIN_CONFIDENCE,
                        help='a query counts as answered from this confidence on')
    parser.add_argument('--json', metavar='OUT', help='write the result to this file')


def _run_evaluate(options: argparse.Namespace) -> None:
    from vpr_ros.files import whole_file
    from vpr_ros.offline.evaluate import evaluate_set
    result = evaluate_set(options.database, options.queries, options.ground_truth,
                          load_encoder(options), compensate=options.compensate,
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
