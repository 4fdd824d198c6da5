"""
Where frames with poses come from: a rosbag2, or a folder of pictures with a pose file.

A source gives frames in order and decodes none that is not asked for.
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
"""A frame shows a new place also when the robot has turned by this much since the last one."""

_PICTURE_FOLDERS = ('.', 'images', 'database', 'rgb')
_POSE_FILES = ('poses.csv', 'poses.tum', 'poses.txt')


@dataclass(frozen=True)
class Frame:
    """
    One picture of a drive: stamp int ns, pose float64 (7,), and how to get its pixels.

    `load(min_size)` gives them uint8 (H,W,3), smaller where that is quicker and `min_size`
    (height, width) of them are left; whole without (see images.decode). `raw` says that its
    pixels wait in memory uncompressed for as long as the frame is kept.
    """

    stamp: int
    pose: NDArray[np.float64]
    load: Callable[..., NDArray[np.uint8]]
    name: str
    raw: bool = False


@dataclass(frozen=True)
class Source:
    """The frames of one drive, in order, and the frames of reference of their poses."""

    name: str
    frames: Iterable[Frame]
    count: int
    frame_id: str = 'map'
    child_frame_id: str = 'base_link'


class SourceAt(AbstractContextManager['Source']):
    """
    A source that is opened by a `with` block.

    Unlike an open one it can be sent to another process. Its text is its path.
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
                in_order: bool = False) -> SourceAt:
    """
    Return a bag or a folder of pictures, to be opened as a source of frames with poses.

    A bag gives each picture the pose that lies between the two messages around its stamp. A
    folder takes `pose_file`, or its own poses.csv (image,x,y,z,qx,qy,qz,qw or image,x,y,yaw) or
    poses.tum (pictures named by their stamp in seconds); without any, or when `in_order` asks for
    it, pictures stand one metre apart in the order of their names. Opening raises SourceError,
    PoseError or FileNotFoundError.
    """
    return SourceAt(path, image_topic=image_topic, pose_topic=pose_topic, pose_file=pose_file,
                    in_order=in_order)


@contextmanager
def _opened(path: Path, *, image_topic: str | None, pose_topic: str | None,
            pose_file: str | Path | None, in_order: bool) -> Iterator[Source]:
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    folder = _picture_folder(path)
    if folder is not None:
        yield _folder_source(path, folder, pose_file, in_order=in_order)
        return
    with Bag(path) as bag:
        topic = bag.image_topic(image_topic)
        chosen = bag.pose_topic(pose_topic)
        track = bag.poses(chosen)
        log.info('%s: images from %s, poses from %s', path, topic, chosen)
        if track.dropped:
            log.warning('%s: %d poses left out (not finite, or back in time)', path, track.dropped)
        yield Source(path.name, _bag_frames(bag, topic, track), bag.count(topic),
                     track.frame_id, track.child_frame_id)


def is_new_place(pose: NDArray[np.float64], last: NDArray[np.float64] | None, spacing: float
                 ) -> bool:
    """
    Return whether a pose (7,) is `spacing` metres, or TURN, from the last one that was kept.

    Without a last one it is new.
    """
    # The small slack keeps rounding from doubling the gap of pictures `spacing` apart.
    return (last is None or bool(poses.distance(pose, last) >= spacing - 1e-6)
            or bool(poses.angle(pose, last) >= TURN))


def check_same_frames(frames: Collection[tuple[str, str]]) -> None:
    """Raise SourceError when there is more than one pair of frame_id and child_frame_id."""
    if len(frames) > 1:
        raise SourceError('the sources have poses in different frames: ' + ', '.join(
            f'{child} in {frame}' for frame, child in sorted(frames)))


def some_of(names: Sequence[str], most: int = 10) -> str:
    """Return names as a list for a message: the first `most`, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def read_ground_truth(path: str | Path, queries: Sequence[Path], references: Sequence[Path]
                      ) -> list[list[int]]:
    """
    Return the right places of each query: numbers in `references`, none or more.

    `path` is a CSV with the columns query,reference: file names, a row for each right answer.
    Raises FileNotFoundError, or SourceError for a name that is not among the pictures, or is that
    of two of them, or when no right answer is listed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    place, number = _numbers_of(references), _numbers_of(queries)
    truth: list[list[int]] = [[] for _ in queries]
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.DictReader(file)
        if not {'query', 'reference'} <= set(reader.fieldnames or ()):
            raise SourceError(f'{path} needs the columns query,reference')
        for row in reader:
            for name, known in ((row['query'], number), (row['reference'], place)):
                if name not in known:
                    raise SourceError(f'{path} names {name}, which is not among the pictures')
            truth[number[row['query']]].append(place[row['reference']])
    if not any(truth):
        raise SourceError(f'{path} lists no right answer')
    return truth


def _numbers_of(files: Sequence[Path]) -> dict[str, int]:
    numbers = {file.name: number for number, file in enumerate(files)}
    if len(numbers) < len(files):
        raise SourceError(f'{files[0].parent}: two pictures have the same name')
    return numbers


def utm_of(name: str) -> tuple[float, float, float, str] | None:
    """
    Return east, north (m), heading (radians about z, or nan) and zone that a name says.

    The layout of the geo-localisation benchmarks, @east@north@zone@letter@...: fields 1 and 2 are
    metres, 3 and 4 the UTM zone, 9 a compass heading in degrees or empty. None for other names.
    """
    fields = name.split('@')
    if len(fields) < 3 or fields[0]:
        return None
    east, north = _number(fields[1]), _number(fields[2])
    if math.isnan(east + north):
        return None
    zone, band = (fields[3], fields[4]) if len(fields) > 4 else ('', '')
    compass = _number(fields[9]) if len(fields) > 9 else math.nan
    # Bands C to M lie south of the equator, where northings start over.
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


def _picture_folder(path: Path) -> Path | None:
    if not path.is_dir() or (path / 'metadata.yaml').exists():
        return None
    for name in _PICTURE_FOLDERS:
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
        if not in_order:
            log.warning('%s has no pose file: its pictures are taken to be one metre apart', path)
        steps = np.arange(len(files), dtype=np.float64)
        all_poses, known = poses.planar(steps, 0 * steps, 0 * steps), np.ones(len(files), np.bool_)
        stamps = (steps * 1e9).astype(np.int64)
    elif Path(pose_file).suffix.lower() == '.csv':
        names, listed = poses.read_csv(pose_file)
        by_name = dict(zip(names, listed, strict=True))
        known = np.array([file.name in by_name for file in files])
        all_poses = np.array([by_name.get(file.name, poses.IDENTITY) for file in files])
        stamps = np.arange(len(files), dtype=np.int64) * 10**9
    else:
        stamps = np.array([poses.nanoseconds(file.stem, folder) for file in files])
        all_poses, known = poses.interpolate(poses.read_tum(pose_file), stamps)
    if not known.any():
        raise SourceError(f'{pose_file} names none of the {len(files)} pictures of {folder}')
    if not known.all():
        log.warning('%s has no pose for %d of %d pictures: they are left out (%s)', pose_file,
                    int((~known).sum()), len(files),
                    some_of([files[i].name for i in np.flatnonzero(~known)]))
    frames = [Frame(int(stamps[i]), all_poses[i], partial(images.read, files[i]),
                    files[i].name) for i in np.flatnonzero(known)]
    return Source(path.name, frames, len(frames))
