"""
Sources of frames with poses: a rosbag2, or a folder of images with a pose file.

A source yields its frames in order, and decodes an image only when it is loaded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextlib import contextmanager
import csv
from dataclasses import dataclass
from functools import partial
import logging
import math
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Collection
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

TURN = math.radians(15)
"""A frame is also a new place when the robot has turned by this angle (rad) since the last."""

_IMAGE_FOLDERS = ('.', 'images', 'database', 'rgb')
_POSE_FILES = ('poses.csv', 'poses.tum', 'poses.txt')


@dataclass(frozen=True)
class Frame:
    """
    A frame of a drive: its stamp in ns, its pose float64 (7,), and a function to load its image.

    `load()` returns the image uint8 (H,W,3) RGB; `load(min_size)` may return it at half its size,
    as images.decode does. `raw`: the frame holds the uncompressed image in memory.
    """

    stamp: int
    pose: NDArray[np.float64]
    load: Callable[..., NDArray[np.uint8]]
    name: str
    raw: bool = False


@dataclass(frozen=True)
class Source:
    """The frames of one drive in order, and the frame_id and child_frame_id of their poses."""

    name: str
    frames: Iterable[Frame]
    count: int
    frame_id: str = 'map'
    child_frame_id: str = 'base_link'


class LazySource(AbstractContextManager['Source']):
    """
    A source that a `with` block opens.

    Until then it can be pickled and sent to another process. Its string is its path.
    """

    def __init__(self, path: str | Path, **options: Any) -> None:
        self._path, self._options = Path(path), options
        self._opened: AbstractContextManager[Source] | None = None

    def __str__(self) -> str:
        return str(self._path)

    def __enter__(self) -> Source:
        self._opened = _opened(self._path, **self._options)
        return self._opened.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> bool | None:
        opened, self._opened = self._opened, None
        return opened.__exit__(kind, error, trace) if opened is not None else None


def open_source(path: str | Path, *, image_topic: str | None = None,
                pose_topic: str | None = None, pose_file: str | Path | None = None,
                in_order: bool = False) -> LazySource:
    """
    Return a bag or a folder of images as a source of frames with poses, to open by `with`.

    In a bag the pose of each image is interpolated at its stamp. In a folder the poses are those
    of `pose_file`, by default of its poses.csv (image,x,y,z,qx,qy,qz,qw or image,x,y,yaw) or its
    poses.tum (with images named by their stamp in seconds). Without a pose file, or with
    `in_order` instead of the default ones, the images are assumed to be one metre apart in the
    order of their names. Opening raises SourceError, PoseError or FileNotFoundError.
    """
    return LazySource(path, image_topic=image_topic, pose_topic=pose_topic, pose_file=pose_file,
                      in_order=in_order)


@contextmanager
def _opened(path: Path, *, image_topic: str | None, pose_topic: str | None,
            pose_file: str | Path | None, in_order: bool) -> Iterator[Source]:
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    folder = _image_folder(path)
    if folder is not None:
        yield _folder_source(path, folder, pose_file, in_order=in_order)
        return
    with Bag(path) as bag:
        topic = bag.image_topic(image_topic)
        track_topic = bag.pose_topic(pose_topic)
        track = bag.poses(track_topic)
        log.info('%s: images from %s, poses from %s', path, topic, track_topic)
        if track.dropped:
            log.warning('%s: %d poses left out (not finite, or back in time)', path, track.dropped)
        yield Source(path.name, _bag_frames(bag, topic, track), bag.count(topic),
                     track.frame_id, track.child_frame_id)


def is_new_place(pose: NDArray[np.float64], last: NDArray[np.float64] | None, spacing: float
                 ) -> bool:
    """
    Return whether a pose (7,) is `spacing` metres or the angle TURN away from the last place.

    The first pose, with `last` None, is always a new place.
    """
    # The tolerance keeps rounding from halving the places of frames `spacing` apart.
    return (last is None or bool(poses.distance(pose, last) >= spacing - 1e-6)
            or bool(poses.angle(pose, last) >= TURN))


def check_same_frames(frames: Collection[tuple[str, str]]) -> None:
    """Raise SourceError when there is more than one pair of frame_id and child_frame_id."""
    if len(frames) > 1:
        raise SourceError('the sources have poses in different frames: ' + ', '.join(
            f'{child} in {frame}' for frame, child in sorted(frames)))


def some_of(names: Sequence[str], limit: int = 10) -> str:
    """Return the first `limit` names as text for a message, and how many more there are."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


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


def _number(field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _bag_frames(bag: Bag, topic: str, track: poses.PoseTrack) -> Iterator[Frame]:
    unknown = 0
    raw = bag.topics[topic] == messages.RAW_IMAGE
    for stamp, message in bag.images(topic):
        pose = poses.at(track, stamp)
        if pose is None:
            unknown += 1
            continue
        yield Frame(stamp, pose, partial(messages.rgb, message),
                    f'frame at {stamp / 1e9:.3f} s', raw)
    if unknown:
        log.warning('%d frames left out: no pose before and after them', unknown)


def _image_folder(path: Path) -> Path | None:
    if not path.is_dir() or (path / 'metadata.yaml').exists():
        return None
    for name in _IMAGE_FOLDERS:
        folder = path / name
        if folder.is_dir() and any(entry.suffix.lower() in images.SUFFIXES
                                   for entry in folder.iterdir()):
            return folder
    return None


def _folder_source(path: Path, folder: Path, pose_file: str | Path | None, *, in_order: bool
                   ) -> Source:
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
        by_name = dict(zip(*poses.read_csv(pose_file), strict=True))
        return _FolderPoses(
            seconds, np.array([by_name.get(file.name, poses.IDENTITY) for file in files]),
            np.array([file.name in by_name for file in files]))
    stamps = np.array([poses.nanoseconds(file.stem, folder) for file in files])
    return _FolderPoses(stamps, *poses.interpolate(poses.read_tum(pose_file), stamps))
