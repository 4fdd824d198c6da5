"""A folder of images with a pose file, as a source of frames."""

from __future__ import annotations

from functools import partial
import logging
from pathlib import Path
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images
from vpr_ros.core import pose_files
from vpr_ros.core import pose_track
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.io.frames import Frame
from vpr_ros.io.frames import some_of
from vpr_ros.io.frames import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_IMAGE_FOLDERS = ('.', 'images', 'database', 'rgb')

_POSE_FILES = ('poses.csv', 'poses.tum', 'poses.txt')


def find_image_folder(path: Path) -> Path | None:
    """Return where the images of a folder lie: in it, or in one of its usual parts; or None."""
    if not path.is_dir() or (path / 'metadata.yaml').exists():
        return None
    for name in _IMAGE_FOLDERS:
        folder = path / name
        if folder.is_dir() and any(entry.suffix.lower() in images.SUFFIXES
                                   for entry in folder.iterdir()):
            return folder
    return None


def folder_source(path: Path, folder: Path, pose_file: str | Path | None, *, in_order: bool
                  ) -> Source:
    """
    Return the source `path` whose images lie in `folder`; see open_source for its poses.

    Raises SourceError when the pose file names none of the images, PoseError for a bad one.
    """
    files = images.list_folder(folder)
    if pose_file is None and not in_order:
        pose_file = next((path / name for name in _POSE_FILES if (path / name).is_file()), None)
        if pose_file is None:
            log.warning('%s has no pose file: its images are assumed to be one metre apart', path)
    track = _folder_poses(folder, files, pose_file)
    if not track.known.any():
        raise SourceError(f'{pose_file} names none of the {len(files)} images of {folder}')
    if not track.known.all():
        log.warning('%s has no pose for %d of %d images: they are left out (%s)', pose_file,
                    int((~track.known).sum()), len(files),
                    some_of([files[i].name for i in np.flatnonzero(~track.known)]))
    frames = [Frame(int(track.stamps[i]), track.poses[i], partial(images.read, files[i]),
                    files[i].name) for i in np.flatnonzero(track.known)]
    return Source(path.name, frames, len(frames))


class _FolderPoses(NamedTuple):
    """The stamps int64 (N,) ns and poses float64 (N,7) of N image files, and which are known."""

    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    known: NDArray[np.bool_]


def _folder_poses(folder: Path, files: Sequence[Path], pose_file: str | Path | None
                  ) -> _FolderPoses:
    """Read the poses of image files; without a pose file they are a metre and a second apart."""
    seconds = np.arange(len(files), dtype=np.int64) * 10**9
    if pose_file is None:
        metres = np.arange(len(files), dtype=np.float64)
        return _FolderPoses(seconds, poses.planar(metres, 0 * metres, 0 * metres),
                            np.ones(len(files), np.bool_))
    if Path(pose_file).suffix.lower() == '.csv':
        by_name = dict(zip(*pose_files.read_csv(pose_file), strict=True))
        return _FolderPoses(
            seconds, np.array([by_name.get(file.name, poses.IDENTITY) for file in files]),
            np.array([file.name in by_name for file in files]))
    stamps = np.array([pose_files.nanoseconds(file.stem, folder) for file in files])
    return _FolderPoses(stamps, *pose_track.interpolate(pose_files.read_tum(pose_file), stamps))
