"""
Drives that are not as they should be, in towns that nothing was fitted to: poses and wrong ones.

Cameras faster than the robot, frames sent again, frozen or covered images, a stamp that is ahead,
wheels that spin, and odometry that stands, jumps, turns wrongly or counts wrongly; with odometry
and without.
"""

from __future__ import annotations

from collections import defaultdict
import sys
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.encoding import descriptors
from benchmarks.lib.town_drives import Frames
from benchmarks.lib.town_drives import town_drive
from benchmarks.lib.town_drives import town_map
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.errors import OutOfOrderError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.localization.localizer import Localizer
from vpr_ros.street import DriveOptions
from vpr_ros.street import Town

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOWNS = tuple(range(51, 61))
"""Seeds of towns that nothing was fitted to and no setting was selected on."""

BEGIN, LASTS = 300, 300
"""Frames of the usual drive after which something goes wrong, and for how many."""

SLOW = {'speed': 1.0, 'length': 60.0}
FAST = {'speed': 8.0, 'length': 150.0}
_DRIVE = {'condition': 'spring', 'seed': 2, 'lateral_offset': 1.0}
_PERIOD = 100_000_000


class Odd(NamedTuple):
    """
    A drive that is odd: its frames, the robot's maximum speed, and what it is held against.

    `usual` is the drive whose share of poses it should have, '' where there is none: from frame
    BEGIN to `end` it sees nothing new, and should be silent.
    """

    frames: Frames
    usual: str = ''
    max_speed: float = defaults.MAX_SPEED
    end: int = 0


class Outcome(NamedTuple):
    """The frames of a drive, its poses, wrong ones, and the last pose (s) of a blind stretch."""

    frames: int
    poses: int
    wrong: int
    silent_after: float


def odd_drives(model: str | None = None, towns: Sequence[int] = TOWNS) -> dict[str, Any]:
    """Print, for each odd drive, the poses and wrong ones in all towns, and in the worst one."""
    encoder = Encoder(model)
    outcomes: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    usual: dict[str, str] = {}
    for seed in tqdm(towns, desc='towns', disable=None):
        town = Town(seed)
        place_map = town_map(encoder, [town_drive(
            encoder, town, condition='winter', seed=1, speed=8.0, rate=8.0)])
        for name, odd in _odd_drives(encoder, town):
            usual[name] = odd.usual
            for odometry in (True, False):
                if odometry or not name.startswith('odometry'):
                    outcomes[name, 'odometry' if odometry else 'none'].append(
                        _run(Localizer(encoder, place_map, max_speed=odd.max_speed), odd,
                             odometry=odometry))
    rows = [_row(name, mode, parts, outcomes.get((usual[name], mode)),
                 outcomes.get((usual[name], 'none')) if name.startswith('odometry') else None)
            for (name, mode), parts in outcomes.items()]
    header = ['drive', 'odometry', 'frames', 'poses', 'of the usual', 'wrong', 'most in a town',
              'silent after s']
    tables.show(f'wrong: off by more than {defaults.CORRECT_RADIUS:g} m, towns '
                f'{", ".join(map(str, towns))}', header, rows)
    print('  of the usual: the share of frames with a pose, over that of the same drive without '
          'the oddity (odometry that is wrong: of the drive without odometry). silent after: the '
          'longest time to the last pose of a stretch in which nothing new is seen')
    return {'header': header[2:], 'rows': {f'{row[0]}, {row[1]}': row[2:] for row in rows}}


def _row(name: str, mode: str, parts: list[Outcome], usual: list[Outcome] | None,
         without: list[Outcome] | None) -> list[Any]:
    frames, found, wrong = (sum(part[column] for part in parts) for column in range(3))
    share = np.nan
    held = without or usual
    if held:
        share = found / frames / (sum(part.poses for part in held)
                                  / sum(part.frames for part in held))
    silent = [part.silent_after for part in parts]
    return [name, mode, frames, found, float(share), wrong, max(part.wrong for part in parts),
            float(max(silent))]


def _run(localizer: Localizer, odd: Odd, *, odometry: bool) -> Outcome:
    found = wrong = 0
    silent_after = 0.0 if odd.end else np.nan
    for number, (descriptor, stamp, true, wheels) in enumerate(zip(*odd.frames, strict=True)):
        try:
            estimate = localizer.locate(descriptor, int(stamp), wheels if odometry else None)
        except OutOfOrderError:
            continue
        if not estimate.trusted:
            continue
        found += 1
        off = float(poses.distance(estimate.pose, true)) > defaults.CORRECT_RADIUS
        wrong += off
        # A right pose is no mistake, be it found in what seems old.
        if off and BEGIN <= number < odd.end:
            silent_after = (number - BEGIN) * _PERIOD / 1e9
    return Outcome(len(odd.frames.stamps), found, wrong, silent_after)


def _odd_drives(encoder: Encoder, town: Town) -> Iterator[tuple[str, Odd]]:
    """Yield all drives of one town, with their names."""
    for name, rate, speed, highest in (('slow', 30, SLOW, 1.5), ('fast', 100, FAST, 15.0)):
        often = town_drive(encoder, town, rate=float(rate), **speed, **_DRIVE)
        usual = f'{name}, 10 Hz'
        yield usual, Odd(_part(often, np.s_[::rate // 10]), max_speed=highest)
        yield f'{name}, {rate} Hz', Odd(often, usual, highest)
    usual = 'usual'
    frames = town_drive(encoder, town, speed=6.0, rate=10.0, **_DRIVE)
    yield usual, Odd(frames)
    yield 'each frame three times', Odd(_three_times(frames), usual)
    ahead = frames.stamps.copy()
    ahead[BEGIN] += 900_000_000
    yield 'a stamp .9 s ahead', Odd(frames._replace(stamps=ahead), usual)
    blind = slice(BEGIN, BEGIN + LASTS)
    for name, views in (('frozen', frames.descriptors[BEGIN:BEGIN + 1]), *_covers(encoder, town)):
        seen = frames.descriptors.copy()
        seen[blind] = views[np.arange(LASTS) % len(views)]
        yield name, Odd(frames._replace(descriptors=seen), end=blind.stop)
    yield 'wheels spin on the spot', Odd(_spinning(encoder, town, frames), end=blind.stop)
    for name, odometry in _wrong_odometry(frames.odometry):
        yield f'odometry {name}', Odd(frames._replace(odometry=odometry), usual)


def _part(frames: Frames, selected: slice | NDArray[np.int64]) -> Frames:
    return Frames(*(column[selected] for column in frames))


def _three_times(frames: Frames) -> Frames:
    """Return a drive whose driver sends each image three times, with stamps of its own."""
    thrice = _part(frames, np.repeat(np.arange(len(frames.stamps)), 3))
    later = np.tile(np.arange(3), len(frames.stamps)) * (_PERIOD // 3)
    return thrice._replace(stamps=thrice.stamps + later)


def _covers(encoder: Encoder, town: Town) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield names and descriptors (n,D) of covered cameras: grey, dark, and a hand."""
    rng = np.random.default_rng(town.seed)
    rows, columns = np.mgrid[:240, :320]
    glow = 50 * np.exp(-((columns - 160) ** 2 + (rows - 120) ** 2) / 2 / 90 ** 2)
    for name, cover in (('uniform', 120.0), ('dark', 8.0), ('covered', 60 + glow[..., None])):
        yield name, descriptors(encoder, (
            np.clip(cover + rng.normal(0, 3, (240, 320, 3)), 0, 255).astype(np.uint8)
            for _ in range(20)))


def _spinning(encoder: Encoder, town: Town, frames: Frames) -> Frames:
    """Return a drive that stands for LASTS frames while its odometry goes on."""
    seconds = LASTS * _PERIOD / 1e9
    along = float(np.linalg.norm(np.diff(frames.truth[:BEGIN + 1, :2], axis=0), axis=1).sum())
    standing = town_drive(encoder, town, speed=1e-6, rate=1e9 / _PERIOD, length=seconds * 1e-6,
                          options=DriveOptions(start=along), **_DRIVE)
    count = len(standing.stamps)
    step = poses.relative(frames.odometry[BEGIN - 1], frames.odometry[BEGIN]) * (1, 0, 0)
    wheels = list(frames.odometry[:BEGIN])
    for _ in range(count):
        wheels.append(poses.moved(wheels[-1], step))
    for last, pose in zip(frames.odometry[BEGIN - 1:-1], frames.odometry[BEGIN:], strict=True):
        wheels.append(poses.moved(wheels[-1], poses.relative(last, pose)))
    total = len(frames.stamps) + count

    def joined(first: NDArray[Any], middle: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([first[:BEGIN], middle, first[BEGIN:]])
    return Frames(joined(frames.descriptors, standing.descriptors),
                  frames.stamps[0] + np.arange(total) * _PERIOD,
                  joined(frames.truth, standing.truth), np.array(wheels))


def _wrong_odometry(right: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield names and odometry (N,7) that is wrong."""
    stands = [*right[:BEGIN + 1]]
    for number in range(BEGIN + 1, len(right)):
        stands.append(stands[-1] if number < BEGIN + 100 else poses.moved(
            stands[-1], poses.relative(right[number - 1], right[number])))
    yield 'stands for 10 s', np.array(stands)
    yield 'freezes', np.concatenate([right[:BEGIN], np.repeat(
        right[BEGIN:BEGIN + 1], len(right) - BEGIN, axis=0)])
    for factor in (0.6, 1.2, 1.35, 1.5, 1000.0):
        yield f'x {factor:g}', right * ([factor] * 3 + [1] * 4)
    without = right.copy()
    without[:, 3:] = [0, 0, 0, 1]
    yield 'has no heading', without
    yield 'has x and y exchanged', right[:, [1, 0, 2, 3, 4, 5, 6]]
    for name, last in (('jumps and back', BEGIN + 1), ('jumps', len(right))):
        jumps = right.copy()
        jumps[BEGIN:last, 0] += 5000.0
        yield name, jumps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    parser.add_argument('--towns', type=int, nargs='+', default=TOWNS, metavar='SEED')
    options = parser.parse_args(arguments)
    return tables.answer(options, lambda: odd_drives(options.model, options.towns))


if __name__ == '__main__':
    sys.exit(main())
