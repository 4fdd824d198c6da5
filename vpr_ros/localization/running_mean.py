"""
The running mean of a drive's descriptors, and the file that keeps a drive over a restart.

Where and why it is subtracted is in localizer.py and place_map.py; the rest of a drive's state is
in drive.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import whole_file
from vpr_ros.core.poses import usable
from vpr_ros.maps.arrays import read_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.maps.arrays import Layout

MEAN_MAX_AGE_NS = 600_000_000_000
"""Age up to which the mean of a drive is worth keeping over a restart."""

POSE_MAX_AGE_NS = 10_000_000_000
"""Age up to which the last pose says where the robot is after a restart: nobody has moved it."""

_PRIOR_FRAMES = 30.0
_MEMORY_FRAMES = 600.0
_LARGEST = 10.0  # in a mean of vectors of unit norm, with much to spare
_MOST_BYTES = 1 << 20  # of a state: a mean of 200,000 numbers


class RunningMean:
    """
    The running mean of a drive's descriptors, float32 (D,), started from the map's own.

    A season or the light shifts all descriptors of a drive together; the mean follows that shift.
    It starts as if it were of 30 frames, and counts as of 600 at most, so that old frames fade.
    """

    def __init__(self, value: NDArray[np.float32], weight: float = _PRIOR_FRAMES) -> None:
        self.value = value.astype(np.float32)
        self.weight = weight

    def copy(self) -> RunningMean:
        """Return an independent copy."""
        return RunningMean(self.value, self.weight)

    def feed(self, descriptor: NDArray[np.float32]) -> None:
        """Take one more descriptor (D,) in."""
        self.weight = min(self.weight + 1, _MEMORY_FRAMES)
        self.value += (descriptor - self.value) / self.weight


@dataclass(frozen=True)
class DriveState:
    """
    What outlasts a restart: the mean, float32 (D,), its weight, and the last stamp in ns.

    `pose`: float64 (7,) of the last trusted estimate in the map's frame, NaN where there was none,
    and `pose_stamp`, its stamp.
    """

    mean: NDArray[np.float32]
    weight: float
    stamp: int
    pose: NDArray[np.float64] = field(default_factory=lambda: np.full(7, np.nan))
    pose_stamp: int = 0


def write_state(path: str | Path, state: DriveState, model: str) -> None:
    """
    Write a state, and the digest of the model it is of, to an .npz file: whole, or not at all.

    Raises OSError or VprError when it cannot be written.
    """
    with whole_file(path) as part, part.open('wb') as file:
        np.savez(file, mean=state.mean, weight=np.float64(state.weight),
                 stamp=np.int64(state.stamp), pose=state.pose, posed=np.int64(state.pose_stamp),
                 model=np.array(model))


def read_state(path: str | Path, model: str) -> DriveState | None:
    """
    Read a state; None when there is no file, or one of another model.

    Raises VprError when the file is damaged, or holds values that no drive has.
    """
    path = Path(path)
    if not path.is_file():
        return None
    layouts: dict[str, Layout] = {
        'model': (f'U{len(model)}', ()), 'mean': (np.float32, (None,)), 'weight': (np.float64, ()),
        'stamp': (np.int64, ()), 'pose': (np.float64, (7,)), 'posed': (np.int64, ())}
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f'it is larger than {_MOST_BYTES} bytes')
        kept = read_arrays(path, layouts, unset=('pose',))
        if str(kept['model']) != model:
            return None
        if (not (np.abs(kept['mean']) <= _LARGEST).all()
                or not 1 <= kept['weight'] <= _MEMORY_FRAMES
                or min(kept['stamp'], kept['posed']) < 0
                or not (np.isnan(kept['pose']).all() or usable(kept['pose']))):
            raise ValueError('its mean, weight, stamps or pose are out of range')
        return DriveState(kept['mean'], float(kept['weight']), int(kept['stamp']), kept['pose'],
                          int(kept['posed']))
    except Exception as error:  # zipfile and numpy each raise their own
        raise VprError(f'{path} holds no state of a drive ({first_line(error)}): remove it'
                       ) from error
