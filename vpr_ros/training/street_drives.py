"""
Drives through the procedural street, for training: rendered, compressed, cached on disk.

Imports no torch, because every rendering process imports this module. datasets.py makes a table of
training images from the drives.
"""

from __future__ import annotations

from concurrent.futures import as_completed
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from dataclasses import dataclass
from functools import lru_cache
import hashlib
from itertools import product
import json
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from typing import TYPE_CHECKING
import zipfile

import cv2
import numpy as np
from tqdm import tqdm
from vpr_ros import street
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import SourceError
from vpr_ros.core.files import whole_file
from vpr_ros.core.images import encode_jpeg
from vpr_ros.core.images import resize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import NDArray

FIRST_TRAINING_TOWN = 100
"""Town seeds below this one are reserved for tests and demos, and never used for training."""

SPEED = 8.0
"""Speed of the drives in m/s. Frames are taken by time, so their spacing varies with the speed."""

JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class StreetDrives:
    """
    Which drives to render: every town under each condition along each route, `drives` times.

    A drive covers `length` metres (None: the whole route), `lanes` metres at random to the left of
    the centre of its lane, with an image about every `spacing` metres. It depends on `seed` and on
    its own town, condition, route and number, not on which other drives there are. Images are
    rendered at `drawn` (width, height), the size of the demo's camera, and stored at `size` as
    JPEG, about 8 kB each. `jobs` processes render; `cache` is a folder that stores the drives for
    the next time. Raises ValueError for a town seed below FIRST_TRAINING_TOWN, an unknown
    condition, or when there would be no image.
    """

    towns: Sequence[int]
    conditions: Sequence[str] = street.CONDITIONS
    seed: int
    spacing: float = 4.0
    lanes: tuple[float, float] = (-1.0, 1.0)
    drives: int = 1
    routes: Sequence[str] = ('main',)
    length: float | None = None
    size: tuple[int, int] = (160, 128)
    drawn: tuple[int, int] = (320, 240)
    jobs: int = 2
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.towns or min(self.towns) < FIRST_TRAINING_TOWN:
            raise ValueError(f'towns to train on have seeds of {FIRST_TRAINING_TOWN} or more: '
                             'those below are kept for tests and demos')
        if not self.conditions or not set(self.conditions) <= set(street.CONDITIONS):
            raise ValueError(f'conditions {", ".join(self.conditions) or "(none)"}: choose some '
                             f'of {", ".join(street.CONDITIONS)}')
        if (self.drives < 1 or not self.routes or self.spacing <= 0
                or (self.length is not None and self.length <= 0)):
            raise ValueError(f'{self.drives} drives along {len(self.routes)} routes of '
                             f'{self.length} m with an image every {self.spacing} m: all must be '
                             'above zero')


@dataclass(frozen=True)
class DrivePlan:
    """All that determines one drive; sizes are (width, height) in pixels, distances in metres."""

    town: int
    condition: str
    route: str
    number: int
    seed: int
    offset: float
    spacing: float
    length: float | None
    size: tuple[int, int]
    drawn: tuple[int, int]

    @property
    def name(self) -> str:
        """Name of the drive in messages and files."""
        return f'town{self.town}-{self.condition}-{self.route}{self.number}'


class DrawnDrive(NamedTuple):
    """The images of a drive as the bytes of JPEG files, and the pose (N,7) of each."""

    jpegs: tuple[bytes, ...]
    poses: NDArray[np.float64]


def plan(drives: StreetDrives) -> list[DrivePlan]:
    """Return the plan of each drive, with its random seed and its offset in the lane."""
    plans = []
    for town, condition, route, number in product(
            dict.fromkeys(drives.towns), dict.fromkeys(drives.conditions),
            dict.fromkeys(drives.routes), range(drives.drives)):
        random = np.random.default_rng(
            (drives.seed, town, street.CONDITIONS.index(condition), *route.encode(), number))
        plans.append(DrivePlan(
            town, condition, route, number, int(random.integers(2**31)),
            float(random.uniform(*drives.lanes)), drives.spacing, drives.length, drives.size,
            drives.drawn))
    return plans


def draw(plans: Sequence[DrivePlan], *, jobs: int, cache: Path | None) -> list[DrawnDrive]:
    """
    Render drives in `jobs` processes, and return them in the order of their plans.

    The result does not depend on `jobs`. With `cache`, a folder, each drive is stored there as one
    .npz, and loaded instead of rendered while its plan and the street's code are unchanged. Raises
    SourceError when a file in the cache is damaged, ValueError when `jobs` is less than one.
    """
    if jobs < 1:
        raise ValueError(f'{jobs} processes: at least one must draw')
    drawn: dict[int, DrawnDrive] = {}
    # Drives of one town under one condition share the ground, which takes long to render.
    groups: dict[tuple[int, str], list[int]] = {}
    for number, planned in enumerate(plans):
        stored = None if cache is None else _cache_file(planned, cache)
        if stored is not None and stored.is_file():
            drawn[number] = _load_drive(stored)
        else:
            groups.setdefault((planned.town, planned.condition), []).append(number)
    with tqdm(total=len(plans), initial=len(drawn), desc='street', unit='drive',
              disable=None) as bar:
        for numbers, drives in _draw_groups(plans, list(groups.values()), jobs, cache):
            drawn.update(zip(numbers, drives, strict=True))
            bar.update(len(numbers))
    return [drawn[number] for number in range(len(plans))]


def _draw_groups(plans: Sequence[DrivePlan], groups: list[list[int]], jobs: int,
                 cache: Path | None) -> Iterator[tuple[list[int], list[DrawnDrive]]]:
    """Yield groups of drives, each with its numbers, as they are finished."""
    if min(jobs, len(groups)) <= 1:
        for numbers in groups:
            for number in numbers:
                yield [number], [_draw_and_store(plans[number], cache)]
        return
    # Not forked: a fork of a process with threads (torch's, rclpy's) may hang.
    pool = ProcessPoolExecutor(min(jobs, len(groups)), get_context('spawn'),
                               cv2.setNumThreads, (1,))
    try:
        pending = {pool.submit(_draw_group, [plans[number] for number in numbers], cache): numbers
                   for numbers in groups}
        for done in as_completed(pending):
            yield pending[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_group(plans: Sequence[DrivePlan], cache: Path | None) -> list[DrawnDrive]:
    return [_draw_and_store(planned, cache) for planned in plans]


def _cache_file(planned: DrivePlan, cache: Path) -> Path:
    """Return the path of this drive in the cache, whether or not it exists."""
    key = json.dumps([asdict(planned), SPEED, JPEG_QUALITY, street_code()], sort_keys=True)
    return cache / f'{planned.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz'


def _draw_and_store(planned: DrivePlan, cache: Path | None) -> DrawnDrive:
    drive = _draw_drive(planned)
    if cache is not None:
        with whole_file(_cache_file(planned, cache)) as part:
            np.savez(part, jpegs=np.frombuffer(b''.join(drive.jpegs), np.uint8),
                     lengths=np.array([len(jpeg) for jpeg in drive.jpegs], np.int64),
                     poses=drive.poses)
    return drive


def _load_drive(path: Path) -> DrawnDrive:
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
            ends = np.cumsum(arrays['lengths'])
            data, poses = arrays['jpegs'].tobytes(), arrays['poses']
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f'{path} is damaged ({first_line(error)}): delete it to render its '
                          'drive again') from error
    starts = [0, *ends[:-1].tolist()]
    return DrawnDrive(tuple(data[start:end] for start, end in zip(starts, ends.tolist(),
                                                                  strict=True)), poses)


def _draw_drive(planned: DrivePlan) -> DrawnDrive:
    width, height = planned.size
    frames = street.drive(
        street.Town(planned.town), condition=planned.condition, seed=planned.seed,
        speed=SPEED, lateral_offset=planned.offset, length=planned.length,
        rate=SPEED / planned.spacing,
        options=street.DriveOptions(route=planned.route, width=planned.drawn[0],
                                    height=planned.drawn[1]))
    jpegs, poses = [], []
    for frame in frames:
        jpegs.append(encode_jpeg(resize(frame.image, height, width), JPEG_QUALITY))
        poses.append(frame.pose)
    return DrawnDrive(tuple(jpegs), np.array(poses))


@lru_cache(maxsize=1)
def street_code() -> str:
    """Return the SHA-256 of the street's modules: changed code renders another street."""
    digest = hashlib.sha256()
    for path in sorted(Path(street.__file__).parent.glob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()
