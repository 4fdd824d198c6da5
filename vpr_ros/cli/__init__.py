"""
The `vpr` command: its arguments, and nothing else.

Each command imports what it needs when it runs, so that `vpr --help` is instant.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from vpr_ros.cli import drives
from vpr_ros.cli import judging
from vpr_ros.cli import looking
from vpr_ros.cli import maps
from vpr_ros.cli import networks

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 after an error that is told in one line, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format='%(levelname)s: %(message)s', level=logging.WARNING)
    logging.getLogger('vpr_ros').setLevel(logging.INFO)
    from vpr_ros.core.errors import VprError
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
    """Add a command that calls `run`; return its parser."""
    parser = argparse.ArgumentParser(
        prog='vpr', description='Visual place recognition for ROS 2: build maps, replay bags, '
                                'evaluate, and try it all on a made-up street.')
    parser.add_argument('--debug', action='store_true', help='show a traceback for an error')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for add in (maps.add_build_map, maps.add_calibrate, drives.add_replay, judging.add_evaluate,
                maps.add_inspect, judging.add_map_report, looking.add_visualize, drives.add_play,
                drives.add_street, drives.add_demo, networks.add_train, networks.add_export,
                networks.add_wrap_model, networks.add_prepare_engine):
        add(commands)
    return parser
