"""Frames with poses, and the sources that give them in order; sources.py opens them."""

from __future__ import annotations

from dataclasses import dataclass
import math
import re
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Collection
    from collections.abc import Iterable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.core.errors import ImageError
    from vpr_ros.core.geodesy import Datum

TURN = math.radians(15)
"""A frame is also a new place when the robot has turned by this angle (rad) since the last."""


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


def _no_mount() -> NDArray[np.float64]:
    raise SourceError('give --camera-pose')


@dataclass(frozen=True)
class Source:
    """
    The frames of one drive in order, and the frame_id and child_frame_id of their poses.

    `camera` is what a CameraInfo says of their camera, None without one; `datum` the origin of
    frame_id, if it is known. `mount()` returns the pose (7,) of the camera, in optical axes, in
    child_frame_id; it raises SourceError where that is not known.
    """

    name: str
    frames: Iterable[Frame]
    count: int
    frame_id: str = 'map'
    child_frame_id: str = 'base_link'
    camera: Camera | None = None
    datum: Datum | None = None
    mount: Callable[[], NDArray[np.float64]] = _no_mount


class LeftOut:
    """Frames that were left out because of their images: how many for which reason."""

    def __init__(self) -> None:
        self._causes: dict[str, tuple[int, str]] = {}

    def add(self, error: ImageError) -> None:
        """Count a frame. Errors that differ in numbers only are one cause."""
        cause = re.sub(r'\d+', '0', str(error))
        count, _ = self._causes.get(cause, (0, ''))
        self._causes[cause] = count + 1, str(error)

    def __bool__(self) -> bool:
        return bool(self._causes)

    def __str__(self) -> str:
        """Return the number of frames, and of each cause its number and its last error."""
        causes = sorted(self._causes.values(), reverse=True)
        total = sum(count for count, _ in causes)
        return f'{total} frames left out: ' + some_of(
            [f'{count} as {error}' for count, error in causes], 3, '; ')


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


def some_of(names: Sequence[str], limit: int = 10, separator: str = ', ') -> str:
    """Return the first `limit` names as text for a message, and how many more there are."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return separator.join(names[:limit]) + more
