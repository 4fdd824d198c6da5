"""
Checks of the values that a file of somebody else holds: types, ranges, and text that can be shown.

All raise ValueError, which names the field; the reader of the file says which file it is.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import re
import reprlib
from typing import Any
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def text(value: Any, name: str, longest: int = 255, shortest: int = 0) -> str:
    """Return a string of one printable line, of `shortest` to `longest` characters."""
    if (not isinstance(value, str) or not shortest <= len(value) <= longest
            or not value.isprintable()):
        raise _invalid(name, value, f'one line of {shortest} to {longest} characters')
    return value


def number(value: Any, name: str, least: float, most: float) -> float:
    """Return a number from `least` to `most`, both included, as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) \
            or not least <= value <= most:
        raise _invalid(name, value, f'a number from {least:g} to {most:g}')
    return float(value)


def integer(value: Any, name: str, least: int, most: int) -> int:
    """Return a whole number from `least` to `most`, both included."""
    if type(value) is not int or not least <= value <= most:
        raise _invalid(name, value, f'a whole number from {least} to {most}')
    return value


def numbers(value: Any, name: str, most: int, bound: float = math.inf) -> tuple[float, ...]:
    """Return a list of up to `most` finite numbers, none beyond `bound`, as a tuple."""
    bound = min(bound, 1e300)
    return tuple(number(item, name, -bound, bound) for item in items(value, name, most))


def items(value: Any, name: str, most: int) -> list[Any]:
    """Return a list of up to `most` items."""
    if not isinstance(value, list | tuple) or len(value) > most:
        raise _invalid(name, value, f'a list of {most} at most')
    return list(value)


def mapping(value: Any, name: str, known: Collection[str] = ()) -> Mapping[str, Any]:
    """Return a mapping whose keys are strings, and only `known` ones if these are given."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _invalid(name, value, 'a mapping')
    unknown = next((key for key in value if known and key not in known), None)
    if unknown is not None:
        raise ValueError(f'{name} has {reprlib.repr(unknown)}, which is not known')
    return value


def sha256_digits(value: Any, name: str) -> str:
    """Return the 64 hexadecimal digits of a SHA-256."""
    if not isinstance(value, str) or not re.fullmatch('[0-9a-f]{64}', value):
        raise _invalid(name, value, 'a SHA-256')
    return value


def printable(value: str) -> str:
    """Return text with escapes for what `text` refuses, such as a file name that is no UTF-8."""
    return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in value)


def _invalid(name: str, value: Any, wanted: str) -> ValueError:
    return ValueError(f'{name} is {reprlib.repr(value)}, not {wanted}')
