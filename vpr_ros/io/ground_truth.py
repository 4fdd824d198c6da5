"""Which places are right for a query: lists of answers, and file names that hold a position."""

from __future__ import annotations

import csv
import math
from pathlib import Path
import re
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_TOWN = 2.0  # degrees of longitude and latitude, or as many metres


def read_ground_truth(path: str | Path, queries: Sequence[Path], references: Sequence[Path]
                      ) -> list[list[int]]:
    """
    Return the correct places of each query, as indices into `references`; none for some queries.

    `path` is a CSV file with the columns query,reference: file names, a row for each correct pair.
    Raises FileNotFoundError, or SourceError for a name that none or two of the images have, or
    when there is no row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    reference_index, query_index = _index_by_name(references), _index_by_name(queries)
    truth: list[list[int]] = [[] for _ in queries]
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.DictReader(file)
        if not {'query', 'reference'} <= set(reader.fieldnames or ()):
            raise SourceError(f'{path} needs the columns query,reference')
        for row in reader:
            for name, index in ((row['query'], query_index),
                                (row['reference'], reference_index)):
                if name not in index:
                    raise SourceError(f'{path} names {name}, which is not among the images')
            truth[query_index[row['query']]].append(reference_index[row['reference']])
    if not any(truth):
        raise SourceError(f'{path} lists no correct pair')
    return truth


def _index_by_name(files: Sequence[Path]) -> dict[str, int]:
    index = {file.name: number for number, file in enumerate(files)}
    if len(index) < len(files):
        raise SourceError(f'{files[0].parent}: two images have the same name')
    return index


def utm_of(name: str) -> tuple[float, float, float, str] | None:
    """
    Return east and north (m), heading (radians about z, or nan) and UTM zone in a file name.

    Names are those of the geo-localisation benchmarks, @east@north@zone@letter@...: fields 1 and 2
    in metres, 3 and 4 the UTM zone, 9 a compass heading in degrees or empty. None for other names.
    """
    fields = name.split('@')
    if len(fields) < 3 or fields[0]:
        return None
    east, north = _number(fields[1]), _number(fields[2])
    if math.isnan(east + north):
        return None
    zone, band = (fields[3], fields[4]) if len(fields) > 4 else ('', '')
    compass = _number(fields[9]) if len(fields) > 9 else math.nan
    # Bands C to M are south of the equator, where northings have another origin.
    hemisphere = 'south' if 'C' <= band.upper() < 'N' else 'north'
    return east, north, math.radians(90.0 - compass), f'{zone} {hemisphere}'


def check_metres(names: Sequence[str], positions: NDArray[np.float64], folder: str | Path) -> None:
    """
    Raise SourceError when positions (N,2) in file names are degrees of longitude and latitude.

    They are in degrees when all could be, and either lie within two metres or have four and more
    decimals: in metres, no survey has so many.
    """
    largest = np.abs(positions).max(axis=0)
    if largest.max() > 180 or largest.min() > 90:
        return
    fine = all(re.match(r'@-?[0-9]+\.[0-9]{4,}@-?[0-9]+\.[0-9]{4,}', name) for name in names)
    if fine or (len(names) > 1 and np.ptp(positions, axis=0).max() < _TOWN):
        raise SourceError(
            f'{folder}: {names[0]} seems to hold longitude and latitude in degrees: rename the '
            'files to @utm_east@utm_north@..., in metres (the packages utm and pyproj convert '
            'them)')


def _number(field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
