"""What a consumer of trusted poses beside `~/pose` has in common: when it starts, and its end."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
from typing import Any
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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

    @abstractmethod
    def pose(self, message: Any, odometry: tuple[str, NDArray[np.float64]] | None) -> None:
        """
        Take a trusted pose, as a PoseWithCovarianceStamped.

        `odometry` is the frame of odometry and its pose (7,) at the message's stamp, if any.
        """
