"""
What a localizer remembers of the drive so far, from one frame to the next.

The running mean of the descriptors, and the file that keeps it over a restart, are in
running_mean.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from enum import Enum
import math
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.localization.likelihood import Separation
from vpr_ros.localization.odometry import Odometry
from vpr_ros.localization.pace import CHANGES
from vpr_ros.localization.returns import Returns
from vpr_ros.localization.running_mean import DriveState
from vpr_ros.maps.confidence import Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.localization.pace import Anchor
    from vpr_ros.localization.running_mean import RunningMean

    Floats = NDArray[np.float64]

_NOT_NEW = 0.95
"""Cosine similarity of two queries above which the later one shows nothing new: it differs by
camera noise, or a few decimetres."""

_REPEATED = 1 - 1e-6
"""The same above which the camera, or its driver, has sent the same image again."""

_LONGEST_REPEATED = 0.5
"""Seconds for which the same image may only have been sent again: after that the robot stands, or
the camera has frozen."""

_GAP = 4.0
"""How many times longer than usual it must take to the next frame, for that to be a gap."""

_INTERVAL = 0.3
"""Weight of one frame in what is usual."""

_REACTION = 0.5
"""Seconds without a confirmation after which any new view counts nearly as a wholly new one."""

_LONGEST_BLIND = 3.0
"""Seconds for which a pose is trusted while the view does not change, without odometry: longer
where the robot is too slow to get off by a correct radius meanwhile."""

_FEWEST_BLIND = 10
"""Frames in which that may be noticed, of a camera that is slower."""


class View(Enum):
    """What a frame shows: something NEW, the same view UNCHANGED but for noise, or it REPEATED."""

    NEW = 'new'
    UNCHANGED = 'unchanged'
    REPEATED = 'repeated'


@dataclass
class Drive:
    """
    The state of a localizer along one drive; a new drive starts with a new one.

    mean, the running mean of its descriptors; stamp int ns of the last frame; odometry, as it
    comes; latest float32 (D,), the descriptor of the last frame, and repeated_seconds, for how
    long it has been the same; query float32 (D,), the last new view as it was looked up; anchor,
    the view that later ones are compared with; changed, whether the view has changed since the
    belief was last confirmed; separation, how far the right place stands out; agreement, the log-
    likelihood ratio of the latest new view at the belief's mode; pending_motion float64 (3,) and
    pending_seconds, not yet applied to the belief; interval, the usual seconds from frame to
    frame, and after_gap, whether the last were many more; new_metres, driven since the last new
    view; blind_metres and blind_seconds, driven and passed since the belief was last confirmed;
    returns, views that may come back, and seconds_since_return, since one did; pose float64 (7,)
    and pose_stamp int ns, of the last trusted estimate.
    """

    mean: RunningMean
    stamp: int | None = None
    odometry: Odometry = field(default_factory=Odometry)
    latest: NDArray[np.float32] | None = None
    repeated_seconds: float = 0.0
    query: NDArray[np.float32] | None = None
    anchor: Anchor | None = None
    changed: bool = True
    separation: Separation = field(default_factory=Separation)
    agreement: float = 0.0
    pending_motion: Floats = field(default_factory=lambda: np.zeros(3))
    pending_seconds: float = 0.0
    interval: float = 0.0
    after_gap: bool = False
    blind_metres: float = 0.0
    new_metres: float = 0.0
    blind_seconds: float = 0.0
    returns: Returns = field(default_factory=Returns)
    seconds_since_return: float = math.inf
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

    def look(self, descriptor: NDArray[np.float32], query: NDArray[np.float32], seconds: float
             ) -> View:
        """
        Return whether a descriptor (D,), and the query (D,) it makes, show anything new.

        `seconds` have passed since the last one.
        """
        latest, self.latest = self.latest, descriptor
        if latest is not None and float(descriptor @ latest) > _REPEATED:
            self.repeated_seconds += seconds
            if self.repeated_seconds <= _LONGEST_REPEATED:
                return View.REPEATED
        else:
            self.repeated_seconds = 0.0
        if self.query is not None and float(query @ self.query) > _NOT_NEW:
            return View.UNCHANGED
        return View.NEW

    def pass_time(self, seconds: float, view: View, longest: float) -> None:
        """
        Let time pass, for the belief and since it was confirmed.

        A robot whose view does not change has not driven for longer than `longest` seconds; an
        image that is sent again says nothing of the time since it was taken.
        """
        self.after_gap = 0 < _GAP * self.interval < seconds
        self.interval += (seconds - self.interval) * (_INTERVAL if self.interval else 1.0)
        self.blind_seconds += seconds
        self.seconds_since_return += seconds
        pending = self.pending_seconds + seconds
        if view is View.UNCHANGED:
            pending = min(pending, max(self.pending_seconds, longest))
        self.pending_seconds = pending

    def drive_on(self, metres: float, motion: Floats) -> None:
        """
        Take in the metres driven by the belief, and its motion (3,), as in odometry.py.

        Metres below zero were noise before.
        """
        self.blind_metres += metres
        self.new_metres += metres
        self.returns.advance(motion)

    def update_novelty(self, query: NDArray[np.float32]) -> float:
        """
        Return how much of a new view (D,), in [0,1], was not already in the one before it.

        At least as much as the belief has moved on since then says: what is seen has to bear it
        out. Else traffic that passes a robot whose wheels spin would hide that it stands.
        """
        last, self.query = self.query, query
        metres, self.new_metres = self.new_metres, 0.0
        if last is None:
            return 1.0
        return min(1.0, max(metres / CHANGES, 1 - max(0.0, float(query @ last)) ** 2))

    def compare(self, agreement: float, novelty: float) -> None:
        """
        Take in the log-likelihood ratio that a new view has at the belief's mode.

        It counts by how new the view is, and by the time since the belief was last confirmed.
        """
        share = max(novelty, -math.expm1(-self.blind_seconds / _REACTION))
        self.agreement += share * (agreement - self.agreement)
        if agreement > 0:
            self.confirm()

    def forget_views(self) -> None:
        """Forget which views may come back: where they were seen is no longer known."""
        self.returns, self.seconds_since_return = Returns(), math.inf

    def confirm(self) -> None:
        """Say that the belief is right, if the view has changed since that was last said."""
        if self.changed:
            self.changed = False
            self.blind_metres = self.blind_seconds = 0.0

    @property
    def returned(self) -> bool:
        """Return whether a view came back so lately that the robot may still stand there."""
        return self.seconds_since_return < _LONGEST_BLIND

    def sight(self, radius: float, max_speed: float, mode: Mode) -> float:
        """
        Return what is left of the confidence, in [0,1], after driving without seeing anything new.

        Nothing after `radius` metres, or the time in which the robot can have driven them at its
        maximum speed (m/s), but _LONGEST_BLIND at least. Odometry that is believed says that the
        robot stands; without it only the view does, and that may be a camera that has frozen. Nor
        does anything then tell a gap from a wrong stamp. Nothing where a view has come back.
        """
        if self.returned:
            return 0.0
        blind = max(0.0, self.blind_metres) / radius
        if mode is not Mode.ODOMETRY:
            longest = max(_LONGEST_BLIND, _FEWEST_BLIND * self.interval, radius / max_speed)
            blind = max(blind, self.blind_seconds / longest)
            if mode is Mode.SEQUENCE and self.after_gap:
                return 0.0
        return 1 - min(1.0, blind) ** 8
