# PYTHON_ARGCOMPLETE_OK
"""
The `vpr` command: the arguments of each subcommand, and what it prints.

The work is done in the other rooms. Each subcommand imports what it needs when it runs, so that
`vpr --help` is instant.
"""

from __future__ import annotations

from importlib import import_module
import logging
import os
import sys
from typing import TYPE_CHECKING

from vpr_ros.cli import bags
from vpr_ros.cli import evaluation
from vpr_ros.cli import maps
from vpr_ros.cli import models
from vpr_ros.cli import visualize
from vpr_ros.cli.parser import Parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a subcommand.

    Returns 0, 1 after an error (printed in one line), 130 after Ctrl-C, and 141 when the reader of
    the output is gone (`vpr ... | head`), as a command that SIGPIPE ends.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        return 141


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    if '_ARGCOMPLETE' in os.environ:  # the shell asks for what could follow
        import argcomplete
        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    _expand_home(options)
    logging.basicConfig(format='%(levelname)s: %(message)s', level=logging.WARNING)
    logging.getLogger('vpr_ros').setLevel(logging.INFO)
    from vpr_ros.core.errors import how_to_install
    from vpr_ros.core.errors import VprError
    try:
        return int(options.run(options) or 0)
    except BrokenPipeError:
        raise
    except (VprError, OSError, ValueError) as error:
        if options.debug:
            raise
        print(f'vpr: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f'vpr: error: this command needs {how_to_install(error.name)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('vpr: interrupted', file=sys.stderr)
        return 130


def _expand_home(options: argparse.Namespace) -> None:
    """Expand ~ in paths: the shell does not in --output=~/map."""
    from vpr_ros.core.files import expanded
    for name, value in vars(options).items():
        if 'topic' in name:
            continue
        if isinstance(value, str):
            setattr(options, name, expanded(value))
        elif isinstance(value, list):
            setattr(options, name, [expanded(item) if isinstance(item, str) else item
                                    for item in value])


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands; each sets `run`, the function that runs it."""
    parser = Parser(
        prog='vpr', description='Visual localisation for ROS 2 by place recognition: build maps '
                                'from camera drives, localise bags on them, evaluate the results, '
                                'train models. "vpr COMMAND --help" shows the options of a '
                                'command.')
    parser.add_argument('--version', action='version',
                        version=f'vpr {import_module("vpr_ros").__version__}')
    parser.add_argument('--debug', action='store_true',
                        help='show the traceback of an error')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for add in (maps.add_build_map, maps.add_calibrate, bags.add_replay, evaluation.add_evaluate,
                maps.add_inspect, maps.add_map_report, visualize.add_visualize, bags.add_play,
                bags.add_street, bags.add_demo, models.add_train, models.add_export,
                models.add_wrap_model, models.add_prepare_engine, models.add_sign):
        add(commands)
    return parser
