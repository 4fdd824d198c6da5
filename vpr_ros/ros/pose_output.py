"""What a consumer of trusted poses beside `~/pose` has in common: when it starts, and its end."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from typing import Any
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpr_ros.ros.inputs import OdometryBuffer
    from vpr_ros.ros.inputs import OdometryPose


class PoseOutput(ABC):
    """
    Something that is done with each trusted pose while the node is active.

    `pose` is called by one of the workers at a time, all else by the executor's thread.
    """

    @abstractmethod
    def start(self) -> None:
        """Begin, when the node is activated."""

    @abstractmethod
    def stop(self) -> None:
        """Pause, when the node is deactivated."""

    @abstractmethod
    def start_over(self) -> None:
        """Forget the poses so far: a new drive begins."""

    @abstractmethod
    def close(self) -> None:
        """Remove its parts from the node."""

    def values(self) -> dict[str, str]:
        """Return what the diagnostics show of it."""
        return {}

    def sent(self, stamp: int) -> bool:
        """Return whether it sent the pose with a stamp (ns) as an `initialpose`."""
        return False

    def odometry_came(self, buffer: OdometryBuffer) -> None:  # noqa: B027 (nothing by default)
        """Take note of new odometry, which may be that at the stamp of an earlier pose."""

    @abstractmethod
    def pose(self, message: Any, odometry: OdometryPose | None) -> None:
        """
        Take a trusted pose, as a PoseWithCovarianceStamped.

        `odometry` is that at the message's stamp, or the latest before it, if any.
        """
