"""
Training pictures: a table of how to read each, where it was taken and on which drive.

One function per kind of source makes such a table. Which pictures meet in a batch is the
sampler's business, how they are changed that of the augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import partial
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING
import zlib

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.io.frames import check_same_frames
from vpr_ros.io.frames import is_new_place
from vpr_ros.io.frames import some_of
from vpr_ros.io.ground_truth import utm_of
from vpr_ros.io.sources import open_source
from vpr_ros.street import CONDITIONS
from vpr_ros.training.street_drives import draw
from vpr_ros.training.street_drives import JPEG_QUALITY
from vpr_ros.training.street_drives import plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from vpr_ros.io.frames import Frame
    from vpr_ros.io.frames import Source

    Read = Callable[[], NDArray[np.uint8]]

log = logging.getLogger(__name__)

SAME_VIEW = math.radians(60)
"""Two pictures taken from one spot show the same place up to this angle between headings."""

_MOST_NAMED = 10


@dataclass(frozen=True, eq=False)
class Pictures:
    """
    Pictures to train with; row i of every field is about picture i.

    `reads` gives uint8 (H,W,3) RGB of any size, when called; `names` are for messages. Pictures of
    different `world` (int64) never show the same place; `position` (N,2) float64 is x y in metres
    within the world, `heading` float64 radians about z, NaN where it is unknown. `session` (int64)
    is the drive or season, numbered over the whole table. A picture that is `alone` is its own
    place: only views of itself are its positives. Raises ValueError when lengths differ.
    """

    reads: tuple[Read, ...]
    names: tuple[str, ...]
    world: NDArray[np.int64]
    position: NDArray[np.float64]
    heading: NDArray[np.float64]
    session: NDArray[np.int64]
    alone: NDArray[np.bool_]

    def __post_init__(self) -> None:
        N = len(self.reads)
        shapes = [field.shape for field in (self.world, self.heading, self.session, self.alone)]
        if len(self.names) != N or shapes != [(N,)] * 4 or self.position.shape != (N, 2):
            raise ValueError(f'a table of {N} pictures needs as many names, worlds, positions '
                             '(x, y), headings, sessions and alone flags')

    def __len__(self) -> int:
        return len(self.reads)

    @staticmethod
    def join(tables: Sequence[Pictures]) -> Pictures:
        """
        Return one table of all pictures; worlds and sessions of different tables stay apart.

        Raises ValueError without a table.
        """
        if not tables:
            raise ValueError('there are no tables of pictures to join')
        return Pictures(
            tuple(read for table in tables for read in table.reads),
            tuple(name for table in tables for name in table.names),
            _numbered_on([table.world for table in tables]),
            np.concatenate([table.position for table in tables]),
            np.concatenate([table.heading for table in tables]),
            _numbered_on([table.session for table in tables]),
            np.concatenate([table.alone for table in tables]))

    def select(self, indices: NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]) -> Pictures:
        """
        Return the pictures of these indices, in this order, or of the true ones of a mask.

        Worlds and sessions keep their numbers.
        """
        chosen = np.arange(len(self))[np.asarray(indices, None if len(indices) else np.int64)]
        return Pictures(
            tuple(self.reads[i] for i in chosen), tuple(self.names[i] for i in chosen),
            self.world[chosen], self.position[chosen], self.heading[chosen],
            self.session[chosen], self.alone[chosen])

    def read(self, index: int) -> NDArray[np.uint8]:
        """
        Return a picture as uint8 (H,W,3) RGB; raise SourceError, naming it, when it cannot be.

        What cannot be read can be left out beforehand: `check_readable`.
        """
        try:
            return self.reads[index]()
        except (ImageError, OSError) as error:
            reason, name = first_line(error), self.names[index]
            reason = reason if name in reason else f'{name}: {reason}'
            raise SourceError(f'{reason}; mend or remove that picture') from error

    def relations(self, indices: Sequence[int] | NDArray[np.int64], within: float, beyond: float
                  ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """
        Return which pictures of a batch of B are positives and negatives of which: two (B,B).

        Positives are of one world, at most `within` metres and SAME_VIEW apart (an unknown
        heading agrees with all), whatever their sessions; two views of one picture are, but no
        entry is its own. Negatives are of another world, or more than `beyond` metres away. The
        rest is neither. Raises ValueError when `beyond` is less than `within`.
        """
        if not 0 <= within <= beyond:
            raise ValueError(f'positives within {within} m and negatives beyond {beyond} m: the '
                             'first must not be negative, nor more than the second')
        index = np.asarray(indices, np.int64)
        world, position, heading = self.world[index], self.position[index], self.heading[index]
        same_world = world[:, None] == world
        x, y = position.T
        squared = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
        view = np.stack([np.cos(heading), np.sin(heading)], axis=1)
        turned = view @ view.T < math.cos(SAME_VIEW)  # never, where a heading is NaN
        positive = same_world & (squared <= within ** 2) & ~turned
        np.fill_diagonal(positive, False)
        return positive, ~same_world | (squared > beyond ** 2)


class PictureSet(Dataset):
    """
    The pictures as torch reads them, scaled to height x width.

    Item i is (uint8 tensor (3,H,W) RGB, i). `augmentation` changes such a tensor into another of
    that shape; its chance follows from `seed` and from which pictures are in the batch, so it is
    the same in any number of workers, and in a training that was interrupted. Raises SourceError,
    naming the picture, when one cannot be read.
    """

    def __init__(self, pictures: Pictures, height: int, width: int,
                 augmentation: Callable[[Tensor], Tensor] | None = None, seed: int = 0) -> None:
        self.pictures = pictures
        self._height, self._width = height, width
        self._augmentation = augmentation
        self._seed = seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        scaled = images.resize(self.pictures.read(index), self._height, self._width)
        # Copied, since pixels of a recording are read-only, which torch does not know.
        tensor = torch.from_numpy(scaled.transpose(2, 0, 1).copy())
        return (self._augmentation(tensor) if self._augmentation else tensor), index

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Return the items of a batch: what a DataLoader asks for."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed + zlib.crc32(np.asarray(indices, np.int64).tobytes()))
            return [self[index] for index in indices]


def check_readable(pictures: Pictures) -> Pictures:
    """
    Read every picture once and return the table without those that cannot be read.

    The first ten are named in the log, all are counted. Raises SourceError when none is left.
    """
    readable = np.ones(len(pictures), np.bool_)
    for index in tqdm(range(len(pictures)), desc='checking', unit='picture', disable=None):
        try:
            pictures.read(index)
        except SourceError as error:
            readable[index] = False
            if len(pictures) - readable.sum() <= _MOST_NAMED:
                log.warning('left out: %s', error)
    unreadable = int((~readable).sum())
    if unreadable == len(pictures):
        raise SourceError(f'not one of the {len(pictures)} pictures can be read')
    if unreadable:
        log.warning('%d of %d pictures cannot be read and are left out', unreadable,
                    len(pictures))
    return pictures.select(readable)


def folders_of_places(folder: str | Path) -> Pictures:
    """
    Return the pictures FOLDER/PLACE/*: each folder below is one place, a world of its own.

    A place with one picture can only be a negative; how many are such is logged. Raises
    SourceError for a folder without places and a place without pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f'{folder} is not a folder')
    places = sorted(path for path in folder.iterdir()
                    if path.is_dir() and not path.name.startswith('.'))
    if not places:
        raise SourceError(f'{folder} has no folders: give each place one, with its pictures')
    files = [images.list_folder(place) for place in places]
    single = [place.name for place, shots in zip(places, files, strict=True) if len(shots) == 1]
    if single:
        log.warning('%s: %d of %d places have one picture, and are only what others are not: %s',
                    folder, len(single), len(places), some_of(single))
    return _from_files([file for shots in files for file in shots],
                       np.repeat(np.arange(len(files)), [len(shots) for shots in files]))


def traverses(sources: Sequence[str | Path], *, spacing: float = 1.0,
              image_topic: str | None = None, pose_topic: str | None = None,
              pose_file: str | Path | None = None, in_order: bool = False) -> Pictures:
    """
    Return the pictures of drives through one world: bags, or folders of pictures with poses.

    Each source is a session, its poses are in the same metric frame as all others', and what
    `vpr build-map` takes is taken (`vpr_ros.io.sources.open_source`). Frames nearer than `spacing`
    metres to the last one kept are left out, because a bag's pictures are kept in memory: as they
    were compressed, or raw ones as JPEG of quality 95, some tens of kilobytes each. Pictures that
    a pose file does not name are left out, named and counted in the log. Raises SourceError when
    a source gives nothing or the frames differ, PoseError or FileNotFoundError.
    """
    frames: list[Frame] = []
    names: list[str] = []
    sessions: list[int] = []
    references: set[tuple[str, str]] = set()
    for number, path in enumerate(sources):
        with open_source(path, image_topic=image_topic, pose_topic=pose_topic,
                         pose_file=pose_file, in_order=in_order) as source:
            references.add((source.frame_id, source.child_frame_id))
            check_same_frames(references)
            kept = list(_kept(source, spacing))
        if not kept:
            raise SourceError(f'{path} gives no picture: it has no usable frame')
        frames += kept
        names += [f'{path}: {frame.name}' for frame in kept]
        sessions += [number] * len(kept)
    if not frames:
        raise SourceError('there is no traverse: give one bag or folder at least')
    pose = np.array([frame.pose for frame in frames])
    return Pictures(tuple(frame.load for frame in frames), tuple(names),
                    np.zeros(len(frames), np.int64), pose[:, :2], poses.heading(pose),
                    np.array(sessions, np.int64), np.zeros(len(frames), np.bool_))


def utm_folder(folder: str | Path) -> Pictures:
    """
    Return the pictures below a folder whose names say where: @east@north@zone@letter@...

    The layout of the geo-localisation benchmarks (Pitts30k, SF-XL, MSLS as converted for them):
    fields 1 and 2 are metres, 3 and 4 the UTM zone (worlds apart), 9 a compass heading in degrees
    or empty. Each folder of pictures is a session. Names of another form are left out, named and
    counted in the log. Raises SourceError when there is none of this form.
    """
    read: list[tuple[Path, tuple[float, float, float, str]]] = []
    bad: list[str] = []
    for path in _pictures_below(folder):
        place = utm_of(path.stem)
        if place is None:
            bad.append(path.name)
        else:
            read.append((path, place))
    if not read:
        raise SourceError(f'{folder}: not one picture is named @utm_east@utm_north@...@')
    if bad:
        log.warning('%s: %d of %d pictures are not named @utm_east@utm_north@...@ and are left '
                    'out: %s', folder, len(bad), len(bad) + len(read), some_of(bad))
    places = [place for _, place in read]
    return _from_files(
        [path for path, _ in read], _numbered([place[3] for place in places]),
        position=np.array([place[:2] for place in places]),
        heading=np.array([place[2] for place in places]),
        session=_numbered([str(path.parent) for path, _ in read]))


def single_pictures(folder: str | Path) -> Pictures:
    """
    Return all pictures below a folder, each a place of its own (self-supervision).

    Raises SourceError when there is none.
    """
    files = _pictures_below(folder)
    return _from_files(files, np.arange(len(files)), alone=True)


def street(towns: Sequence[int], conditions: Sequence[str] = CONDITIONS, *, seed: int,
           spacing: float = 4.0, lanes: tuple[float, float] = (-1.0, 1.0), drives: int = 1,
           routes: Sequence[str] = ('main',), length: float | None = None,
           size: tuple[int, int] = (160, 128), drawn: tuple[int, int] = (320, 240),
           jobs: int = 2, cache: str | Path | None = None) -> Pictures:
    """
    Return pictures of drives through the procedural street: a world per town.

    Every town is driven `drives` times under each condition along each route, for `length` metres
    (None: the whole route), `lanes` metres at random to the left of the lane's middle, with a
    picture about every `spacing` metres. A drive depends on `seed` and on what it is, not on which
    others there are. Pictures are drawn at `drawn` (width, height), the size of the demo's camera,
    and kept in memory at `size` as JPEG of quality 95, about 8 kB each. `jobs` processes draw;
    `cache` is a folder where drives are kept for the next time. Raises ValueError for a town of a
    seed below FIRST_TRAINING_TOWN, an unknown condition or route, or when there is nothing to do.
    """
    plans = plan(towns, conditions, seed=seed, spacing=spacing, lanes=lanes, drives=drives,
                 routes=routes, length=length, size=size, drawn=drawn)
    driven = draw(plans, jobs=jobs, cache=None if cache is None else Path(cache))
    counts = [len(drive.jpegs) for drive in driven]
    names = [f'{one.name} frame {i}' for one, count in zip(plans, counts, strict=True)
             for i in range(count)]
    jpegs = [jpeg for drive in driven for jpeg in drive.jpegs]
    pose = np.concatenate([drive.poses for drive in driven])
    return Pictures(
        tuple(partial(images.decode, jpeg, name)
              for jpeg, name in zip(jpegs, names, strict=True)), tuple(names),
        np.repeat(_numbered([str(one.town) for one in plans]), counts), pose[:, :2],
        poses.heading(pose), np.repeat(np.arange(len(plans)), counts),
        np.zeros(len(names), np.bool_))


def _from_files(files: Sequence[Path], world: NDArray[np.int64], *,
                position: NDArray[np.float64] | None = None,
                heading: NDArray[np.float64] | None = None,
                session: NDArray[np.int64] | None = None, alone: bool = False) -> Pictures:
    N = len(files)
    return Pictures(
        tuple(partial(images.read, file) for file in files), tuple(str(file) for file in files),
        world, np.zeros((N, 2)) if position is None else position,
        np.full(N, np.nan) if heading is None else heading,
        np.zeros(N, np.int64) if session is None else session, np.full(N, alone))


def _kept(source: Source, spacing: float) -> Iterator[Frame]:
    """Yield the frames to keep of a source, none of them with raw pixels."""
    last: NDArray[np.float64] | None = None
    bad = 0
    for frame in tqdm(source.frames, total=source.count, desc=source.name, unit='frame',
                      disable=None):
        if not is_new_place(frame.pose, last, spacing):
            continue
        if frame.raw:
            try:
                jpeg = images.encode_jpeg(frame.load(), JPEG_QUALITY)
            except ImageError as error:
                bad += 1
                log.debug('%s: %s', frame.name, error)
                continue
            frame = replace(frame, load=partial(images.decode, jpeg, frame.name), raw=False)
        last = frame.pose
        yield frame
    if bad:
        log.warning('%s: %d frames left out: their pictures are damaged or of a wrong size',
                    source.name, bad)


def _pictures_below(folder: str | Path) -> list[Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f'{folder} is not a folder')
    files = sorted(path for path in folder.rglob('*')
                   if path.suffix.lower() in images.SUFFIXES and path.is_file())
    if not files:
        raise SourceError(f'{folder} and the folders below have no pictures '
                          f'({", ".join(sorted(images.SUFFIXES))})')
    return files


def _numbered(labels: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each label, the same for the same, in the order of the labels."""
    return np.unique(np.array(labels), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _numbered_on(tables: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the numbers of all tables as new ones that no two tables share."""
    numbered, first = [], 0
    for numbers in tables:
        own = np.unique(numbers, return_inverse=True)[1].reshape(-1)
        numbered.append(own + first)
        first += int(own.max(initial=-1)) + 1
    return np.concatenate(numbered).astype(np.int64)
