"""Poses in text files: TUM and KITTI trajectories, and CSV with names or stamps."""

from __future__ import annotations

from collections import Counter
import csv
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation
from vpr_ros.core.csv_table import Column
from vpr_ros.core.csv_table import column_of
from vpr_ros.core.csv_table import floats
from vpr_ros.core.csv_table import is_numeric
from vpr_ros.core.csv_table import nanoseconds
from vpr_ros.core.csv_table import read_lines
from vpr_ros.core.csv_table import read_table
from vpr_ros.core.csv_table import Table
from vpr_ros.core.errors import PoseError
from vpr_ros.core.files import whole_file
from vpr_ros.core.pose_track import PoseTrack
from vpr_ros.core.pose_track import track
from vpr_ros.core.poses import checked
from vpr_ros.core.poses import planar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_LATEST = 1e11  # seconds
_FULL = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')
_PLANAR = ('x', 'y', 'yaw')


def read_pose_file(path: str | Path) -> PoseTrack | tuple[list[str], Floats] | Floats:
    """
    Read poses in any of the formats, which is told by the contents.

    Returns a PoseTrack of stamped poses (TUM; CSV that begins with a timestamp, as EuRoC's), names
    and poses (N,7) of images (CSV), or poses (N,7) in the order of the images (KITTI). Raises
    FileNotFoundError, or PoseError that names the file and the line.
    """
    first = next((line for line in read_lines(path) if not line.startswith('#')), '')
    if Path(path).suffix == '.tum' or (is_numeric(first) and not set(first) & set(',;')):
        return read_kitti(path) if len(first.split()) == 12 else read_tum(path)
    table = read_table(path)
    if table.header[0].name != 'timestamp':
        return read_csv(path)
    unit = table.header[0].unit
    return track([nanoseconds(row[0], path, unit) for row in table.rows], _poses(table))


def read_tum(path: str | Path) -> PoseTrack:
    """
    Read a trajectory in the TUM format: lines of `seconds x y z qx qy qz qw`, # comments.

    A comment before them that names these columns in another order, or their units, counts.
    Raises FileNotFoundError, or PoseError that names the file and the line.
    """
    rows = _rows(path)
    table = Table(Path(path), _tum_header(path), rows)
    poses = table.numbers(_FULL)
    unit = table.header[0].unit
    if unit == 's' and rows and is_numeric(rows[0][0]) and float(rows[0][0]) > _LATEST:
        raise PoseError(f'{path}: {rows[0][0]} is not a time in seconds, with which a line of TUM '
                        'begins: EuRoC has nanoseconds, and quaternions with w first; give its '
                        'data.csv, with its header')
    return track([nanoseconds(row[0], path, unit) for row in rows], poses)


def write_tum(path: str | Path, stamps: NDArray[np.int64], poses: Floats) -> None:
    """Write a trajectory in the TUM format, stamps to the nanosecond."""
    with whole_file(path) as part:
        part.write_text(''.join(
            f'{Decimal(stamp).scaleb(-9):.9f} ' + ' '.join(f'{v:.9f}' for v in pose) + '\n'
            for stamp, pose in zip(stamps.tolist(), poses, strict=True)))


def read_kitti(path: str | Path) -> Floats:
    """
    Read the poses (N,7) of a file of KITTI's odometry set: the 12 numbers of [R|t], row by row.

    There are no stamps: the lines are in the order of the images. Raises FileNotFoundError, or
    PoseError that names the file and the line.
    """
    matrices = np.array([floats(row, 12, path) for row in _rows(path)]).reshape(-1, 3, 4)
    turns = matrices[:, :, :3]
    if not np.isfinite(turns).all() \
            or not np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=0.01):
        raise PoseError(f'{path}: its 12 numbers a line are not the rows of [R|t], as in KITTI')
    return checked(np.concatenate([matrices[:, :, 3], Rotation.from_matrix(turns).as_quat()],
                                  axis=1), f'{path}: a pose')


def read_csv(path: str | Path) -> tuple[list[str], Floats]:
    """
    Read the pose of each image from `image,...` rows; return file names and poses (N,7).

    The columns after the name are x,y,z,qx,qy,qz,qw or, for planar poses, x,y,yaw: in metres and
    radians, or in the unit that they name (x_mm, yaw_deg). csv_table.read_table says how fields
    are separated. Raises FileNotFoundError, or PoseError that names the file and the line.
    """
    table = read_table(path)
    poses = _poses(table)
    names = [row[0] for row in table.rows]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise PoseError(f'{path}: it has more than one pose of {twice}')
    for name, pose in zip(names, poses, strict=True):
        checked(pose, f'{path}: the pose of {name}')
    return names, checked(poses)


def write_csv(path: str | Path, names: Sequence[str], poses: Floats, *, header: str = 'image',
              extra: dict[str, Sequence[object]] | None = None) -> None:
    """Write a CSV file with rows of a name, its pose (N,7) and the columns in `extra`."""
    extra = extra or {}
    with whole_file(path) as part, part.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([header, *_FULL, *extra])
        for row in zip(names, poses.tolist(), *extra.values(), strict=True):
            writer.writerow([row[0], *row[1], *row[2:]])


def _poses(table: Table) -> Floats:
    """Return the poses (N,7) of a table, whose first column is something else."""
    names = [column.name for column in table.header[1:]]
    if sorted(names) == sorted(_PLANAR):
        return planar(*table.numbers(_PLANAR).T)
    # Behind a stamped pose EuRoC has velocities and biases.
    if sorted(names if table.header[0].name != 'timestamp' else names[:7]) == sorted(_FULL):
        return table.numbers(_FULL)
    raise PoseError(f'{table.path}: columns must be image,x,y,z,qx,qy,qz,qw or image,x,y,yaw, '
                    f'not {",".join(column.name for column in table.header)}')


def _tum_header(path: str | Path) -> list[Column]:
    """Return the columns of a TUM file: the usual ones, or those that a comment names."""
    for line in takewhile(lambda line: line.startswith('#'), read_lines(path)):
        named = [column_of(cell) for cell in line.strip('#').replace(',', ' ').split()]
        if len(named) == 8 and named[0].name == 'timestamp' \
                and {column.name for column in named[1:]} == set(_FULL):
            return [Column('timestamp', named[0].unit or 's'), *named[1:]]
    return [Column('timestamp', 's'), *(Column(name, '') for name in _FULL)]


def _rows(path: str | Path) -> list[list[str]]:
    return [line.split() for line in read_lines(path) if not line.startswith('#')]
