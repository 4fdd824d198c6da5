"""
What a localizer remembers of the drive so far, from one frame to the next.

The running mean of the descriptors, and the file that keeps it over a restart, are in
running_mean.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import poses
from vpr_ros.localization.running_mean import DriveState

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.localization.running_mean import RunningMean

    Floats = NDArray[np.float64]

STANDSTILL = 0.99
"""Cosine similarity of two descriptors above which they differ by no more than camera noise."""

_STILL = 0.002
"""Metres, or radians, from frame to frame below which odometry says that the robot stands."""


@dataclass
class Drive:
    """
    The state of a localizer along one drive; a new drive starts with a new one.

    mean, the running mean of its descriptors; stamp int ns of the last frame; odometry float64
    (7,) of the last frame; view float32 (D,), the last descriptor that was not seen standing;
    query float32 (D,), the last one that was looked up; agreement, the log-likelihood ratio of the
    latest frame at the belief's mode; pending_motion float64 (3,) and pending_seconds, not yet
    applied to the belief; pose float64 (7,) and pose_stamp int ns, of the last trusted estimate.
    """

    mean: RunningMean
    stamp: int | None = None
    odometry: Floats | None = None
    view: NDArray[np.float32] | None = None
    query: NDArray[np.float32] | None = None
    agreement: float = 0.0
    pending_motion: Floats = field(default_factory=lambda: np.zeros(3))
    pending_seconds: float = 0.0
    pose: Floats = field(default_factory=lambda: np.full(7, np.nan))
    pose_stamp: int = 0

    @property
    def state(self) -> DriveState | None:
        """Return what to keep over a restart; None before the first frame."""
        if self.stamp is None:
            return None
        return DriveState(self.mean.value.copy(), self.mean.weight, self.stamp, self.pose,
                          self.pose_stamp)

    def on_another_map(self) -> Drive:
        """Return what of it holds on another map of the same model: its mean and its clock."""
        return Drive(self.mean.copy(), self.stamp)

    def advance_odometry(self, odometry: Floats | None) -> Floats | None:
        """Return the motion (3,) since the last frame by odometry (7,); None without both."""
        last, self.odometry = self.odometry, odometry
        return None if last is None or odometry is None else poses.relative(last, odometry)

    def update_standstill(self, descriptor: NDArray[np.float32], step: Floats | None) -> bool:
        """
        Return whether the robot stands still: then the belief is not moved forward.

        By odometry's step (3,), or without it when the view is that of the last frame that moved.
        """
        if step is not None:
            return bool(np.hypot(*step[:2]) < _STILL and abs(step[2]) < _STILL)
        if self.view is not None and float(descriptor @ self.view) > STANDSTILL:
            return True
        self.view = descriptor
        return False

    def update_novelty(self, query: NDArray[np.float32]) -> float:
        """Return how much of a frame, in [0,1], was not already in the one before it."""
        last, self.query = self.query, query
        return 1.0 if last is None else 1 - max(0.0, float(query @ last)) ** 2

    def discard_pending(self) -> None:
        """Discard pending motion: the next frame is the first that moves."""
        self.query = self.odometry = None
        self.pending_applied()

    def pending_applied(self) -> None:
        """Start over with pending motion, after the belief has moved by it."""
        self.pending_motion, self.pending_seconds = np.zeros(3), 0.0
