"""
CSV files whose header names columns and units, and what text files of numbers share.

Poses are read from them in pose_files.py.
"""

from __future__ import annotations

import codecs
import csv
from decimal import Decimal
from pathlib import Path
import re
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.errors import PoseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_METRES = {'m': 1.0, 'cm': 0.01, 'mm': 0.001, 'km': 1000.0}
_RADIANS = {'rad': 1.0, 'deg': np.pi / 180}
_UNITS = {'x': _METRES, 'y': _METRES, 'z': _METRES, 'yaw': _RADIANS}
_TIMES = {'s': 10 ** 9, 'ms': 10 ** 6, 'us': 1000, 'ns': 1}
_SPELLINGS = {
    **{f'{prefix}{name}': f'{short}m' for name in ('metre', 'metres', 'meter', 'meters')
       for prefix, short in (('', ''), ('centi', 'c'), ('milli', 'm'), ('kilo', 'k'))},
    **dict.fromkeys(('radian', 'radians'), 'rad'),
    **dict.fromkeys(('degree', 'degrees', '°'), 'deg'),
    **dict.fromkeys(('sec', 'second', 'seconds'), 's'), 'nsec': 'ns', 'usec': 'us', 'msec': 'ms'}

_NAMES = {'heading': 'yaw', 'tx': 'x', 'ty': 'y', 'tz': 'z',
          **dict.fromkeys(('time', 'stamp'), 'timestamp')}
_EUROC = re.compile(r'([pq])_(?:\w+_)?([wxyz])')  # p_RS_R_x, q_RS_w

_TURN = 2 * np.pi + 1e-3  # rad

_INT64 = 2 ** 63
_LARGEST = 1e12  # in any unit


class Column(NamedTuple):
    """A column of a table: its name in lower case, and its unit, '' if it has none."""

    name: str
    unit: str


class Table(NamedTuple):
    """The columns of a CSV file, and its rows of as many fields as there are."""

    path: Path
    header: list[Column]
    rows: list[list[str]]

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """
        Return the named columns (N,C) in metres and radians.

        Raises PoseError for a field that is not a number, a row of another length, a unit that is
        not known, or a yaw without a unit that is no angle in radians.
        """
        places = [[column.name for column in self.header].index(name) for name in names]
        factors = [_factor(self.path, self.header[place]) for place in places]
        rows = []
        for row in self.rows:
            if len(row) != len(self.header):
                floats(row[1:], len(self.header) - 1, self.path)
            rows.append(floats([row[place] for place in places], len(places), self.path))
        values = np.array(rows).reshape(-1, len(places)) * factors
        for name, place, column in zip(names, places, values.T, strict=True):
            if name == 'yaw' and not self.header[place].unit and np.any(np.abs(column) > _TURN):
                raise PoseError(f'{self.path}: yaw goes to {column[np.abs(column).argmax()]:g}, '
                                'more than a turn in radians, which it is in without a unit: name '
                                'the column yaw_deg or yaw_rad')
        return values


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file that are not blank; raise PoseError for another file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode('utf-16' if marked else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise PoseError(f'{path} is not text in UTF-8: save it as that, a spreadsheet as CSV '
                        f'(byte {error.start} is not of UTF-8)') from error
    return [line for line in text.splitlines() if line.strip()]


def read_table(path: str | Path) -> Table:
    """
    Read a CSV file with a header: the first line, which may be a comment, as EuRoC's is.

    Fields are separated by commas, tabs or semicolons; with semicolons, numbers may have a decimal
    comma. Other lines that begin with # are comments. Raises FileNotFoundError, or PoseError that
    names the file.
    """
    path = Path(path)
    lines = read_lines(path)
    start = next((n for n, line in enumerate(lines) if not line.startswith('#')), len(lines))
    data = [line for line in lines[start:] if not line.startswith('#')]
    if data and start and is_numeric(data[0]):
        data.insert(0, lines[start - 1])
    if not data:
        raise PoseError(f'{path} is empty: it needs a header line and one line per image')
    delimiter = next((sign for sign in ';\t' if sign in data[0]), ',')
    try:
        header, *rows = csv.reader(data, delimiter=delimiter, skipinitialspace=True)
    except csv.Error as error:
        raise PoseError(f'{path} is not a CSV file: {error}') from error
    if is_numeric(data[0]):
        raise PoseError(f'{path} has no header: its first line must name the columns, such as '
                        'image,x_m,y_m,yaw_deg')
    if delimiter == ';':
        rows = [[row[0], *(field.replace(',', '.') for field in row[1:])] for row in rows]
    return Table(path, [column_of(cell) for cell in header], rows)


def is_numeric(line: str) -> bool:
    """Return whether the first field of a line is a number."""
    try:
        float(re.split(r'[,;\s]', line.strip())[0])
    except ValueError:
        return False
    return True


def floats(fields: Sequence[str], count: int, path: str | Path) -> list[float]:
    """Return `count` fields as numbers; raise PoseError, which names `path` and the fields."""
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise PoseError(f'{path}: {error}, in the line {",".join(fields)}') from error
    if len(values) != count:
        raise PoseError(f'{path}: a line has {len(values)} numbers where {count} are needed: '
                        f'{",".join(fields)}')
    if any(abs(value) > _LARGEST for value in values):
        raise PoseError(f'{path}: no pose has numbers as large as in the line {",".join(fields)}')
    return values


def nanoseconds(field: str, path: str | Path, unit: str = '') -> int:
    """
    Return a time as whole nanoseconds, exactly: a double has too few digits.

    Without a unit (s, ms, us or ns) it is told by the size, as no time between 1973 and 2260 is
    one of these years in another unit. Raises PoseError, which names `path`,
    for a field that is not a time.
    """
    unit = _SPELLINGS.get(unit, unit)
    try:
        time = Decimal(field)
        if not unit:
            unit = next((name for name, least in (('ns', 10 ** 17), ('us', 10 ** 14),
                                                  ('ms', 10 ** 11)) if abs(time) >= least), 's')
        time *= _TIMES[unit]
        if not abs(time) < _INT64:
            raise ValueError(f'{field} does not fit in 64 bits of nanoseconds')
    except KeyError as error:
        raise PoseError(f"{path}: the unit '{unit}' of its times is not known: use "
                        f'{", ".join(_TIMES)}') from error
    except (ArithmeticError, ValueError) as error:
        raise PoseError(f'{path}: {field} is not a time') from error
    return int(time)


def column_of(cell: str) -> Column:
    """Return the name and unit of a header's cell, as in x_m, yaw_deg, 'z [m]', p_RS_R_x."""
    name, unit = cell.strip().lstrip('#').strip().lower(), ''
    bracketed = re.fullmatch(r'(.*?)\s*[\[(](.*)[\])]', name)
    if bracketed:
        name, unit = bracketed[1], bracketed[2].strip()
    euroc = _EUROC.fullmatch(name)
    if euroc:
        name = euroc[2] if euroc[1] == 'p' else f'q{euroc[2]}'
    elif not unit:
        base, _, rest = name.partition('_')
        named = base in ('qx', 'qy', 'qz', 'qw', *_NAMES, 'timestamp')
        if named or _NAMES.get(base, base) in _UNITS:
            name, unit = base, rest
    return Column(_NAMES.get(name, name), _SPELLINGS.get(unit, unit))


def _factor(path: Path, column: Column) -> float:
    units = _UNITS.get(column.name, {})
    if not column.unit:
        return 1.0
    if column.unit not in units:
        known = ', '.join(f'{column.name}_{unit}' for unit in units) or column.name
        raise PoseError(f"{path}: the column {column.name} has the unit '{column.unit}', which is "
                        f'not known: use {known}')
    return units[column.unit]
