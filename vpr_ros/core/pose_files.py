"""Poses in text files: the TUM format, and CSV with a name for each pose."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.errors import PoseError
from vpr_ros.core.files import whole_file
from vpr_ros.core.pose_track import track
from vpr_ros.core.poses import checked
from vpr_ros.core.poses import planar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.core.pose_track import PoseTrack

    Floats = NDArray[np.float64]

_MAX_SECONDS = 9_223_372_036  # in int64 nanoseconds

_CSV_COLUMNS = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')


def read_tum(path: str | Path) -> PoseTrack:
    """
    Read a trajectory in the TUM format: lines of `seconds x y z qx qy qz qw`, # comments.

    Raises FileNotFoundError, or PoseError that names the file and the line.
    """
    rows = _rows(Path(path), delimiter=' ')
    return track([nanoseconds(row[0], path) for row in rows],
                 np.array([_numbers(row[1:], 7, path) for row in rows]))


def write_tum(path: str | Path, stamps: NDArray[np.int64], poses: Floats) -> None:
    """Write a trajectory in the TUM format, stamps to the nanosecond."""
    with whole_file(path) as part:
        part.write_text(''.join(
            f'{Decimal(stamp).scaleb(-9):.9f} ' + ' '.join(f'{v:.9f}' for v in pose) + '\n'
            for stamp, pose in zip(stamps.tolist(), poses, strict=True)))


def read_csv(path: str | Path) -> tuple[list[str], Floats]:
    """
    Read the pose of each image from `image,...` rows; return file names and poses (N,7).

    The columns after the name are x,y,z,qx,qy,qz,qw or, for planar poses, x,y,yaw (radians); a
    suffix as in x_m or yaw_rad is ignored. Raises FileNotFoundError, or PoseError that names the
    file and the line.
    """
    path = Path(path)
    rows = _rows(path, delimiter=',')
    if not rows:
        raise PoseError(f'{path} is empty: it needs a header line and one line per image')
    header = [column.strip().lower().split('_')[0] for column in rows[0]]
    if header[1:] == list(_CSV_COLUMNS):
        poses = np.array([_numbers(row[1:], 7, path) for row in rows[1:]]).reshape(-1, 7)
    elif header[1:] == ['x', 'y', 'yaw']:
        x, y, yaw = np.array([_numbers(row[1:], 3, path) for row in rows[1:]]).reshape(-1, 3).T
        poses = planar(x, y, yaw)
    else:
        raise PoseError(f'{path}: columns must be image,x,y,z,qx,qy,qz,qw or image,x,y,yaw, '
                        f'not {",".join(rows[0])}')
    names = [row[0] for row in rows[1:]]
    for name, pose in zip(names, poses, strict=True):
        checked(pose, f'{path}: the pose of {name}')
    return names, checked(poses)


def write_csv(path: str | Path, names: Sequence[str], poses: Floats, *, header: str = 'image',
              extra: dict[str, Sequence[object]] | None = None) -> None:
    """Write a CSV file with rows of a name, its pose (N,7) and the columns in `extra`."""
    extra = extra or {}
    with whole_file(path) as part, part.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([header, *_CSV_COLUMNS, *extra])
        for row in zip(names, poses.tolist(), *extra.values(), strict=True):
            writer.writerow([row[0], *row[1], *row[2:]])


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise PoseError(f'{path} is not a text file') from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
    if delimiter == ' ':
        return [line.split() for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise PoseError(f'{path} is not a CSV file: {error}') from error


def _numbers(fields: Sequence[str], count: int, path: str | Path) -> list[float]:
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise PoseError(f'{path}: {error}, in the line {",".join(fields)}') from error
    if len(values) != count:
        raise PoseError(f'{path}: a line has {len(values)} numbers where {count} are needed: '
                        f'{",".join(fields)}')
    return values


def nanoseconds(field: str, path: str | Path) -> int:
    """
    Return decimal seconds as whole nanoseconds, exactly: a double has too few digits.

    Raises PoseError, which names `path`, for a field that is not a time.
    """
    try:
        seconds = Decimal(field)
        if not abs(seconds) < _MAX_SECONDS:
            raise ValueError(f'{field} does not fit in 64 bits of nanoseconds')
    except (ArithmeticError, ValueError) as error:
        raise PoseError(f'{path}: {field} is not a time in seconds') from error
    return int(seconds.scaleb(9))
