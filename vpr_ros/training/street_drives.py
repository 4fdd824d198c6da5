"""
Drives of the procedural street for training: drawn, compressed, and kept on disk.

Knows nothing of torch, since every process that draws imports this module. What the pictures
are to training is said in pictures.py.
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
    from collections.abc import Sequence

    from numpy.typing import NDArray

FIRST_TRAINING_TOWN = 100
"""Town seeds below this one belong to tests and demos: nothing is ever fitted to them."""

SPEED = 8.0
"""Speed of the drives in m/s. Frames are taken by time, so their spacing sways with the speed."""

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Plan:
    """Everything a drive follows from; sizes are (width, height) in pixels, distances metres."""

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
        """What to call the drive in messages and files."""
        return f'town{self.town}-{self.condition}-{self.route}{self.number}'


class Drive(NamedTuple):
    """The pictures of a drive as the bytes of JPEG files, and the pose (N,7) of each."""

    jpegs: tuple[bytes, ...]
    poses: NDArray[np.float64]


def plan(towns: Sequence[int], conditions: Sequence[str], *, seed: int, spacing: float,
         lanes: tuple[float, float], drives: int, routes: Sequence[str], length: float | None,
         size: tuple[int, int], drawn: tuple[int, int]) -> list[Plan]:
    """
    Return the plans of all drives; each depends on `seed` and on what it is, on no other.

    The arguments are those of `vpr_ros.training.datasets.street`. Raises ValueError.
    """
    if not towns or min(towns) < FIRST_TRAINING_TOWN:
        raise ValueError(f'towns to train on have seeds of {FIRST_TRAINING_TOWN} or more: those '
                         'below are kept for tests and demos')
    if not conditions or not set(conditions) <= set(street.CONDITIONS):
        raise ValueError(f'conditions {", ".join(conditions) or "(none)"}: choose some of '
                         f'{", ".join(street.CONDITIONS)}')
    if drives < 1 or not routes or spacing <= 0 or (length is not None and length <= 0):
        raise ValueError(f'{drives} drives along {len(routes)} routes of {length} m with a '
                         f'picture every {spacing} m: all must be above zero')
    plans = []
    for town, condition, route, number in product(
            dict.fromkeys(towns), dict.fromkeys(conditions), dict.fromkeys(routes),
            range(drives)):
        random = np.random.default_rng(
            (seed, town, street.CONDITIONS.index(condition), *route.encode(), number))
        plans.append(Plan(town, condition, route, number, int(random.integers(2**31)),
                          float(random.uniform(*lanes)), spacing, length, size, drawn))
    return plans


def draw(plans: Sequence[Plan], *, jobs: int, cache: Path | None) -> list[Drive]:
    """
    Draw drives in `jobs` processes, and return them in the order of their plans.

    The result does not depend on `jobs`. With `cache`, a folder, each drive is kept there as one
    .npz and is not drawn again while its plan and the street's own code are the same. Raises
    SourceError when a file in the cache is damaged, ValueError when `jobs` is less than one.
    """
    if jobs < 1:
        raise ValueError(f'{jobs} processes: at least one must draw')
    # Drives of one town under one condition share the ground, which takes long to draw.
    groups: dict[tuple[int, str], list[int]] = {}
    drives: dict[int, Drive] = {}
    for number, one in enumerate(plans):
        kept = None if cache is None else _kept(one, cache)
        if kept is not None and kept.is_file():
            drives[number] = _load(kept)
        else:
            groups.setdefault((one.town, one.condition), []).append(number)
    with tqdm(total=len(plans), initial=len(drives), desc='street', unit='drive',
              disable=None) as bar:
        if min(jobs, len(groups)) <= 1:
            for number in (number for group in groups.values() for number in group):
                drives[number] = _draw_and_keep(plans[number], cache)
                bar.update()
            return [drives[number] for number in range(len(plans))]
        # Not forked: a fork of a process with threads (torch's, rclpy's) may hang.
        pool = ProcessPoolExecutor(min(jobs, len(groups)), get_context('spawn'),
                                   cv2.setNumThreads, (1,))
        try:
            waiting = {pool.submit(_group, [plans[number] for number in group], cache): group
                       for group in groups.values()}
            for done in as_completed(waiting):
                drives.update(zip(waiting[done], done.result(), strict=True))
                bar.update(len(waiting[done]))
        finally:
            pool.shutdown(cancel_futures=True)
    return [drives[number] for number in range(len(plans))]


def _group(plans: Sequence[Plan], cache: Path | None) -> list[Drive]:
    return [_draw_and_keep(plan, cache) for plan in plans]


def _kept(plan: Plan, cache: Path) -> Path:
    """Return where the cache has this drive, or would have it."""
    key = json.dumps([asdict(plan), SPEED, JPEG_QUALITY, _street_code()], sort_keys=True)
    return cache / f'{plan.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz'


def _draw_and_keep(plan: Plan, cache: Path | None) -> Drive:
    drive = _draw(plan)
    if cache is not None:
        with whole_file(_kept(plan, cache)) as part:
            np.savez(part, jpegs=np.frombuffer(b''.join(drive.jpegs), np.uint8),
                     lengths=np.array([len(jpeg) for jpeg in drive.jpegs], np.int64),
                     poses=drive.poses)
    return drive


def _load(path: Path) -> Drive:
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
            ends = np.cumsum(arrays['lengths'])
            data, poses = arrays['jpegs'].tobytes(), arrays['poses']
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f'{path} is damaged ({first_line(error)}): delete it, and its drive is '
                          'drawn again') from error
    starts = [0, *ends[:-1].tolist()]
    return Drive(tuple(data[start:end] for start, end in zip(starts, ends.tolist(), strict=True)),
                 poses)


def _draw(plan: Plan) -> Drive:
    width, height = plan.size
    frames = street.drive(
        street.Town(plan.town), condition=plan.condition, seed=plan.seed, speed=SPEED,
        lateral_offset=plan.offset, length=plan.length, rate=SPEED / plan.spacing,
        options=street.DriveOptions(route=plan.route, width=plan.drawn[0], height=plan.drawn[1]))
    jpegs, poses = [], []
    for frame in frames:
        jpegs.append(encode_jpeg(resize(frame.image, height, width), JPEG_QUALITY))
        poses.append(frame.pose)
    return Drive(tuple(jpegs), np.array(poses))


@lru_cache(maxsize=1)
def _street_code() -> str:
    """Return the SHA-256 of the street's modules: what draws differently is another street."""
    digest = hashlib.sha256()
    for path in sorted(Path(street.__file__).parent.glob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()
