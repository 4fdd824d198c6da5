"""An argument parser whose errors say what was probably meant."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
import sys
from typing import Any
from typing import NoReturn
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence


class Parser(argparse.ArgumentParser):
    """
    A parser of `vpr`, or of one of its commands, which suggests a name for one that it lacks.

    The suggest_on_error of Python 3.14 knows choices, but no options.
    """

    def parse_known_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                         namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse arguments; those that are unknown are this command's error, not that of `vpr`."""
        given = sys.argv[1:] if args is None else list(args)
        self._check_options(given)
        known, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self.error(f'unrecognized arguments: {" ".join(unknown)}')
        return known, unknown

    def _check_options(self, given: Sequence[str]) -> None:
        """Exit at an option that does not exist: before one that is required is missed."""
        known = [option for action in self._actions for option in action.option_strings]
        for argument in given:
            if argument == '--' or (self._subparsers and not argument.startswith('-')):
                return  # what follows are values, or options of the command
            name = argument.partition('=')[0]
            if f'-{name}' in known and name.startswith('-'):  # -output would be -o with a value
                self.error(f"there is no option '{name}': did you mean '-{name}'?")
            if name.startswith('--') and ' ' not in name \
                    and not any(option.startswith(name) for option in known):
                shown = [option for action in self._actions if action.help != argparse.SUPPRESS
                         for option in action.option_strings]
                self._refuse(f"there is no option '{name}'", name, shown,
                             f'{self.prog} --help lists the options')

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Exit at a value that is none of the action's choices."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            problem = f"there is no command '{value}'"
        else:
            name = '/'.join(action.option_strings) or action.metavar or action.dest
            problem = f"{name} cannot be '{value}'"
        self._refuse(problem, str(value), choices, f'choose from {", ".join(choices)}')

    def _refuse(self, problem: str, name: str, known: Iterable[str], otherwise: str) -> NoReturn:
        meant = get_close_matches(name, known, 1)
        self.error(f'{problem}: ' + (f"did you mean '{meant[0]}'?" if meant else otherwise))
