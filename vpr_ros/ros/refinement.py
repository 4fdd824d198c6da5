"""
Refines poses by the landmarks of a map, beside localisation: the newest frame that it can.

It also decides which pose of a frame is published, and when. The work itself is done by another
process (localization/refiner_process.py), for which a thread waits here.
"""

from __future__ import annotations

import threading
import time
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.localization.carry import carried
from vpr_ros.localization.carry import Drift

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from rclpy.node import Node
    from vpr_ros.core.camera import Camera
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.localization.localizer import Localizer
    from vpr_ros.localization.refiner_process import RefinerProcess
    from vpr_ros.ros.health import Health
    from vpr_ros.ros.inputs import OdometryPose
    from vpr_ros.ros.robot_camera import RobotCamera

PATIENCE = 0.5
"""Seconds for which the poses of places wait for a refined one."""

_SETTLE = 2.0
"""Seconds that a reason not to refine has to last to be logged: CameraInfo may come later."""


class TrustedFrame(NamedTuple):
    """
    A frame with a trusted pose: its Image or CompressedImage, its estimate, and who made that.

    `odometry` is the pose by odometry at the stamp, or the latest before, if any; the image was
    received at the time.perf_counter `received`.
    """

    message: Any
    estimate: Estimate
    localizer: Localizer
    odometry: OdometryPose | None
    received: float


class _Start(NamedTuple):
    """A refined estimate from which odometry goes on, and the pose by odometry there."""

    refined: Estimate
    odometry: OdometryPose


class Refinement:
    """
    Takes the frames with a trusted pose, and sends the best pose that there is of each.

    With odometry each frame's pose goes out at once: the last refined one as odometry carries it
    on (carry.py), or that of the place while there is none. The refined pose of a frame follows,
    unless a newer frame's was sent before it: stamps never go back. Odometry that comes later than
    the frame, or was lost or not credible since the last refined pose, carries nothing on.

    Without such odometry a frame waits for its refined pose while poses are being refined, and the
    frames that come meanwhile get none: the next refined pose says more. When an image cannot be
    refined, the newest frame's place is sent, and those of others at once, until one can. So what
    stops refinement delays poses once, and by PATIENCE seconds at most.

    `worker` refines poses. `send` publishes one: it is called with the frame and the estimate to
    send, by one thread at a time. `show` is called after a refined one, with frame, estimate,
    image and mount.
    """

    def __init__(self, node: Node, health: Health, camera: RobotCamera, worker: RefinerProcess, *,
                 uneven_ground: bool, send: Callable[[TrustedFrame, Estimate], object],
                 show: Callable[..., object]) -> None:
        self._node, self._health, self._camera = node, health, camera
        self._worker, self._uneven_ground = worker, uneven_ground
        self._send, self._show = send, show
        self._condition = threading.Condition()
        self._waiting: TrustedFrame | None = None
        self._working: TrustedFrame | None = None
        self._since = 0.0
        self._holds = False
        self._sent = -1
        self._last: _Start | None = None  # what poses are carried on from
        self._mark: _Start | None = None  # what drift is learnt from: further back on a slow robot
        self._lost = -1
        self._drift: Drift | None = None
        self._closed = False
        self.problem = self._logged = 'no frame with a pose yet'
        self._problem_since = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True, name='refine')

    def start(self) -> None:
        """Begin to refine."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its frame; of what is offered later the place's pose is sent."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._worker.close()
        if self._thread.is_alive():
            self._thread.join()

    def start_over(self) -> None:
        """Forget the frames so far: a new drive begins."""
        with self._condition:
            self._start_over()

    def _start_over(self) -> None:
        self._waiting = self._working = self._last = self._mark = self._drift = None
        self._holds, self._sent, self._lost = False, -1, -1

    def lose_odometry(self, stamp: int) -> None:
        """Carry nothing across a frame at this stamp: its odometry is missing or not credible."""
        with self._condition:
            self._last = self._mark = None
            self._lost = stamp

    def offer(self, frame: TrustedFrame) -> None:
        """Take a frame, instead of one that still waits; send its place's pose if it is time."""
        with self._condition:
            if frame.estimate.stamp < self._sent:  # the clock was set back
                self._start_over()
            busy = 0.0 if self._working is None else time.monotonic() - self._since
            if (better := self._carried(frame)) is not None:
                self._health.counts['carried'] += 1
                self._publish(frame, better)
            elif self._closed or not self._holds or busy > PATIENCE:
                self._publish(frame, frame.estimate)
            if self._waiting is not None:
                self._health.counts['overtaken'] += 1
            self._waiting = frame
            self._condition.notify()

    def _carried(self, frame: TrustedFrame) -> Estimate | None:
        """Return the estimate of a frame by the last refined pose and odometry, or None."""
        odometry = _in_time(frame)
        if self._last is None or self._drift is None or odometry is None:
            return None
        if odometry.frame_id != self._last.odometry.frame_id:
            self._last = self._mark = None
            return None
        return carried(self._last.refined, frame.estimate, _motion(self._last, frame, odometry),
                       self._drift.values, flat=not self._uneven_ground)

    def _keep(self, frame: TrustedFrame, refined: Estimate) -> None:
        """Keep a refined pose to be carried on, and learn from it how far odometry is off."""
        if self._drift is None:
            self._drift = Drift(frame.localizer.odometry_error)
        odometry = _in_time(frame)
        if odometry is None or refined.stamp <= self._lost:
            return
        self._last = _Start(refined, odometry)
        if self._mark is None or self._mark.odometry.frame_id != odometry.frame_id \
                or self._drift.compare(self._mark.refined, refined,
                                       _motion(self._mark, frame, odometry)):
            self._mark = self._last

    def _publish(self, frame: TrustedFrame, estimate: Estimate) -> None:
        self._sent = estimate.stamp
        self._send(frame, estimate)

    def _take(self) -> TrustedFrame | None:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting is not None or self._closed)
            self._working, self._waiting = None if self._closed else self._waiting, None
            self._since = time.monotonic()
            return self._working

    def _work(self) -> None:
        while (frame := self._take()) is not None:
            begin, estimate, known = time.perf_counter(), frame.estimate, None
            try:
                if (known := self._known(frame)) is not None:
                    rgb = messages.rgb(frame.message)
                    estimate = self._worker.refine(rgb, estimate, *known)
                    self._health.refined(estimate, time.perf_counter() - begin)
            except Exception as error:  # one frame must not end the thread
                self._failed(error)
            try:
                if self._answer(frame, estimate) and known is not None:
                    self._health.timed({'refined total': time.perf_counter() - frame.received})
                    self._show(frame, estimate, rgb, known[1])
            except Exception as error:
                self._failed(error)
        self._worker.end()

    def _answer(self, frame: TrustedFrame, estimate: Estimate) -> bool:
        """Send what became of a frame, if it is the newest; return whether it was refined."""
        with self._condition:
            if self._closed or self._working is not frame:  # a new drive or map meanwhile
                return False
            self._working, self._holds = None, False  # also if this fails
            in_time = time.monotonic() - self._since <= PATIENCE
            if estimate.refined:
                self._keep(frame, estimate)
                if estimate.stamp >= self._sent:
                    self._publish(frame, estimate)
                self._holds = in_time
                return True
            newest = self._waiting or frame
            if newest.estimate.stamp > self._sent:
                self._publish(newest, newest.estimate)
            return False

    def _known(self, frame: TrustedFrame) -> tuple[Camera, NDArray[np.float64]] | None:
        """Return the lens and the mount that took a frame; None, with a reason, without."""
        try:
            known = self._camera.known(frame.localizer.place_map.manifest.child_frame_id,
                                       frame.message.header.frame_id)
        except VprError as error:
            self._tell(str(error))
            return None
        self._tell(self._worker.problem)
        return None if self._worker.problem else known

    def _tell(self, problem: str) -> None:
        """Keep why poses are not refined, '' if they are; log it, once it has lasted."""
        now, log = time.monotonic(), self._node.get_logger()
        if problem != self.problem:
            self.problem, self._problem_since = problem, now
        if problem == self._logged or (problem and now - self._problem_since < _SETTLE):
            return
        self._logged = problem
        if problem:
            log.warning(f'poses are those of places, not refined: {problem}')
        else:
            log.info(f'poses are refined by landmarks: camera {self._camera.lens}, its pose from '
                     f'{self._camera.source}')

    def _failed(self, error: Exception) -> None:
        self._health.counts['refinement failed'] += 1
        self._node.get_logger().warning(
            f'pose not refined: {error}' if isinstance(error, VprError) else
            f'refinement failed: {error!r}', throttle_duration_sec=5.0)

    def values(self) -> dict[str, str]:
        """Return what the diagnostics show of it."""
        return {'refinement': f'off: {self.problem}' if self.problem else
                f'on, camera pose from {self._camera.source}'}


def _in_time(frame: TrustedFrame) -> OdometryPose | None:
    """Return the pose by odometry when a frame was taken, None if there is only an older one."""
    return None if frame.odometry is None or frame.odometry.late else frame.odometry


def _motion(start: _Start, frame: TrustedFrame, odometry: OdometryPose) -> NDArray[np.float64]:
    """Return how odometry has moved (3,) since a start, in true metres."""
    scale = frame.localizer.odometry_scale
    return poses.relative(start.odometry.pose, odometry.pose) * (scale, scale, 1.0)
