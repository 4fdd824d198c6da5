"""
YAML of somebody else: plain values only, and no more of them than the text is long.

PyYAML's safe loader makes no objects, but it follows aliases, with which a kilobyte becomes
gigabytes, and nests as deep as it is told to.
"""

from __future__ import annotations

from typing import Any

import yaml

_DEEPEST = 16
_LONGEST = 4096  # characters of a value: the time to read a number grows with their square


def load(text: str) -> Any:
    """
    Return what a YAML document holds, without aliases, deep nesting or long values.

    Raises ValueError, of one line, for these and for anything else that is no YAML.
    """
    try:
        return yaml.load(text, _PlainLoader)  # nosec B506
    except yaml.MarkedYAMLError as error:
        line = f' in line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise ValueError(f'{error.problem}{line}') from error
    except (yaml.YAMLError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f'it is no YAML: {type(error).__name__}') from error


class _PlainLoader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        problem = ('an alias' if isinstance(event, yaml.AliasEvent) else
                   'deep nesting' if self.depth == _DEEPEST else
                   'a long value' if len(getattr(event, 'value', '')) > _LONGEST else '')
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1
