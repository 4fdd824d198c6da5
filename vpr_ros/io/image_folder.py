"""A folder of images with a pose file, as a source of frames."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
import logging
from pathlib import Path
from pathlib import PureWindowsPath
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import fields
from vpr_ros.core import images
from vpr_ros.core import plain_yaml
from vpr_ros.core import pose_files
from vpr_ros.core import pose_track
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.csv_table import nanoseconds
from vpr_ros.core.csv_table import read_table
from vpr_ros.core.errors import SourceError
from vpr_ros.io.frames import Frame
from vpr_ros.io.frames import some_of
from vpr_ros.io.frames import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.io.map_poses import PoseOptions

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

_IMAGE_FOLDERS = (
    '.', 'images', 'database', 'rgb',
    'data', 'cam0/data', 'mav0/cam0/data',         # EuRoC
    'image_2', 'image_0', 'image_02/data')         # KITTI: odometry, raw
_POSE_FILES = ('poses.csv', 'poses.tum', 'poses.txt',
               'groundtruth.txt')                  # TUM RGB-D
_EUROC_POSES = 'state_groundtruth_estimate0/data.csv'


def find_image_folder(path: Path) -> Path | None:
    """Return where the images of a folder lie: in it, or in one of its usual parts; or None."""
    if not path.is_dir() or (path / 'metadata.yaml').exists():
        return None
    for name in _IMAGE_FOLDERS:
        folder = path / name
        if folder.is_dir() and any(entry.suffix.lower() in images.SUFFIXES
                                   for entry in folder.iterdir()):
            return folder
    if not any(path.glob('*.db3*')) and not any(path.glob('*.mcap*')):
        raise SourceError(f'{path} is neither a rosbag2, with a metadata.yaml, nor a folder of '
                          'images: there are none in it, nor in its '
                          f'{", ".join(_IMAGE_FOLDERS[1:])}')
    return None


def folder_source(path: Path, folder: Path, pose_file: str | Path | None, options: PoseOptions,
                  *, in_order: bool) -> Source:
    """
    Return the source `path` whose images lie in `folder`; see open_source for its poses.

    Raises SourceError when the pose file names none of the images, PoseError for a bad one.
    """
    files = images.list_folder(folder)
    if pose_file is None and not in_order:
        usual = [path / name for name in _POSE_FILES]
        pose_file = next((file for file in (*usual, folder.absolute().parents[1] / _EUROC_POSES)
                          if file.is_file()), None)
        if pose_file is None:
            log.warning('%s has no pose file: its images are assumed to be one metre apart', path)
    if pose_file is None:
        metres = np.arange(len(files), dtype=np.float64)
        return _source(path, files, _seconds(files), poses.planar(metres, 0 * metres, 0 * metres))
    found = _found(pose_file, folder, files, options.max_gap)
    missing = [file.name for file, known in zip(found.files, found.known, strict=True)
               if not known]
    if len(missing) == len(files):
        raise SourceError(f'{pose_file} names none of the {len(files)} images of {folder}'
                          + (f': {found.why}' if found.why else ''))
    if missing:
        log.warning('%s has no pose for %d of %d images, which are left out%s (%s)', pose_file,
                    len(missing), len(files), f': {found.why}' if found.why else '',
                    some_of(missing))
    kept = [file for file, known in zip(found.files, found.known, strict=True) if known]
    stamps = found.stamps[found.known]
    return _source(path, kept, stamps,
                   options.apply(stamps, found.poses[found.known], str(pose_file)))


class _Found(NamedTuple):
    """N image files in order, with stamps (N,) ns, poses (N,7), which are known, and why not."""

    files: Sequence[Path]
    stamps: NDArray[np.int64]
    poses: Floats
    known: NDArray[np.bool_]
    why: str = ''


def _found(pose_file: str | Path, folder: Path, files: Sequence[Path], max_gap: float) -> _Found:
    """Return the images of a folder with their poses in a file: by stamp, by name or in order."""
    read = pose_files.read_pose_file(pose_file)
    if isinstance(read, pose_track.PoseTrack):
        stamps = _stamps(folder, files)
        order = np.argsort(stamps, kind='stable')
        stamps = stamps[order]
        between, known = pose_track.interpolate(read, stamps, max_gap)
        return _Found([files[number] for number in order], stamps, between, known,
                      pose_track.why_unknown(read, stamps[~known], max_gap))
    if isinstance(read, tuple):
        by_name = dict(zip(*read, strict=True))
        if not any(file.name in by_name for file in files):
            # Names with their folders, if these are not needed to tell them apart.
            short = {PureWindowsPath(name).name: pose for name, pose in by_name.items()}
            by_name = short if len(short) == len(by_name) else by_name
        known = np.array([file.name in by_name for file in files])
        why = (f'it has {some_of(read[0], 2)}, the folder {some_of([f.name for f in files], 2)}'
               if read[0] and not known.any() else '')
        return _Found(files, _seconds(files), np.array(
            [by_name.get(file.name, poses.IDENTITY) for file in files]), known, why)
    if len(read) != len(files):
        raise SourceError(f'{pose_file} has {len(read)} poses without a name or stamp, as KITTI '
                          f'has them, and {folder} has {len(files)} images: there must be one for '
                          'each')
    return _Found(files, _seconds(files), read, np.ones(len(files), np.bool_))


def folder_camera(path: Path) -> Camera | None:
    """
    Return the camera of a folder's camera.yaml, as camera_calibration writes it; None without one.

    A file of that name that is no calibration is warned about.
    """
    file = path / 'camera.yaml'
    if not file.is_file():
        return None
    try:
        raw = fields.mapping(plain_yaml.load(file.read_text(encoding='utf-8')), 'its content')
        matrix = fields.numbers(_data(raw['k' if 'k' in raw else 'camera_matrix']),
                                'camera_matrix', 9)
        if len(matrix) != 9:
            raise ValueError(f'camera_matrix has {len(matrix)} numbers, not 9')
        return Camera.from_dict({
            'width': raw['image_width'], 'height': raw['image_height'],
            'k': [matrix[0], matrix[4], matrix[2], matrix[5]] if matrix[0] > 0 else [],
            'distortion_model': raw['distortion_model'],
            'd': _data(raw['distortion_coefficients'])})
    except (KeyError, ValueError, OSError) as error:
        reason = f'no {error}' if isinstance(error, KeyError) else error
        log.warning('%s is not used: it is no calibration of a camera, as camera_calibration '
                    'writes it (%s)', file, reason)
        return None


def _data(value: Any) -> Any:
    """Return the numbers of a matrix, which OpenCV writes as a mapping."""
    return value['data'] if isinstance(value, Mapping) else value


def _source(path: Path, files: Sequence[Path], stamps: NDArray[np.int64], given: Floats
            ) -> Source:
    frames = [Frame(int(stamp), pose, partial(images.read, file), file.name)
              for file, stamp, pose in zip(files, stamps, given, strict=True)]
    return Source(path.name, frames, len(frames), camera=folder_camera(path))


def _seconds(files: Sequence[Path]) -> NDArray[np.int64]:
    """Return stamps (N,) ns a second apart, for images without."""
    return np.arange(len(files), dtype=np.int64) * 10**9


def _stamps(folder: Path, files: Sequence[Path]) -> NDArray[np.int64]:
    """Return the stamps (N,) ns of files named by them, or listed in EuRoC's data.csv."""
    listed = folder.parent / 'data.csv'
    if folder.name == 'data' and listed.is_file():
        table = read_table(listed)
        if [column.name for column in table.header] == ['timestamp', 'filename']:
            by_name = {name.strip(): stamp for stamp, name in table.rows}
            unit = table.header[0].unit
            return np.array([nanoseconds(by_name.get(file.name, file.stem), listed, unit)
                             for file in files])
    return np.array([nanoseconds(file.stem, folder) for file in files])
