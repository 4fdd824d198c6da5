"""
What a configured node does: it localises frames, and it carries out what its operator asks for.

Callbacks only put frames into a slot; one worker thread takes the newest, localises it and
publishes the result. Every published stamp is the image's. When this starts and ends is in
node.py.
"""

from __future__ import annotations

import math
import threading
from typing import Any
from typing import TYPE_CHECKING

from rclpy.task import Future
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import VprError
from vpr_ros.io import messages
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.refiner_process import RefinerProcess
from vpr_ros.localization.running_mean import read_state
from vpr_ros.localization.running_mean import write_state
from vpr_ros.maps.camera_check import CameraCheck
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.ros import parameters
from vpr_ros.ros.health import Stopwatch
from vpr_ros.ros.inputs import FrameSlot
from vpr_ros.ros.inputs import OdometryBuffer
from vpr_ros.ros.refinement import Refinement
from vpr_ros.ros.refinement import TrustedFrame

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from rclpy.lifecycle import LifecycleNode
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.ros.health import Health
    from vpr_ros.ros.publishers import Publishers
    from vpr_ros.ros.robot_camera import RobotCamera

_SAVE_PERIOD = 2.0
"""Seconds between two writes of the state file: what a crash may lose."""


def load_localizer(node: LifecycleNode, encoder: Encoder) -> Localizer:
    """
    Return a localizer on the map that the node's parameter `map` names, with its live parameters.

    Raises VprError, OSError or ValueError when there is no such map, or it cannot be used.
    """
    place_map = PlaceMap.load(parameters.map_of(node), encoder,
                              trusted=parameters.trusted_keys(node))
    return Localizer(encoder, place_map, **{
        parameter.attribute: node.get_parameter(parameter.name).value
        for parameter in parameters.PARAMETERS if parameter.live})


class Operations:
    """
    The localizer of a configured node, the worker that feeds it, and the operator's requests.

    Poses are refined with `features` from images of the robot's `camera`; None to refine none.
    `localizer` is replaced when a new map is loaded. `crash` says why the model failed in the
    worker, '' while it has not. Callbacks and transitions run in the executor's thread, which also
    replaces the localizer; the lock keeps them and the worker from using it at the same time.
    """

    def __init__(self, node: LifecycleNode, localizer: Localizer, publishers: Publishers,
                 health: Health, camera: RobotCamera, features: Extractor | None) -> None:
        self.localizer = localizer
        self.crash = ''
        self._node = node
        self._publishers = publishers
        self._health = health
        self._lock = threading.Lock()
        self._slot = FrameSlot()
        self._odometry = OdometryBuffer()
        self._worker: threading.Thread | None = None
        self._save_timer: Any = None
        self._saved_stamp: int | None = None
        self._closed = False
        self._camera_check = CameraCheck(localizer.place_map.manifest.cameras)
        self.camera, self._features = camera, features
        self._refinement: Refinement | None = None
        self._unrefined = 'the node is not active'

    def start(self) -> None:
        """Begin to localise frames, with the drive of the state file if it is recent."""
        self._resume()
        self._publishers.start()
        self._health.activated()
        self._refinement = self._new_refinement(self.localizer)
        self._worker = threading.Thread(target=self._work, daemon=True, name='localize')
        self._worker.start()
        self._save_timer = self._node.create_timer(_SAVE_PERIOD, self._save_state)

    def stop(self) -> None:
        """Let the worker finish its frame and end it, and write the state file."""
        if self._worker is None:
            return
        self._node.destroy_timer(self._save_timer)
        if self._slot.close():
            self._health.counts['dropped'] += 1
        self._worker.join()
        self._worker = None
        if self._refinement is not None:
            self._refinement.stop()
            self._refinement, self._unrefined = None, 'the node is not active'
        self._publishers.stop()
        self._slot, self._odometry = FrameSlot(), OdometryBuffer()
        self._save_state()

    def close(self) -> None:
        """Remove the publishers; a map that is being loaded is discarded."""
        self._closed = True
        self._publishers.close()

    # Frames

    def on_image(self, message: Any) -> None:
        """Leave an Image or CompressedImage to the worker, in place of one that still waits."""
        self._health.counts['received'] += 1
        if self._slot.put(message):
            self._health.counts['dropped'] += 1

    def on_odometry(self, message: Any) -> None:
        """Keep a nav_msgs/Odometry for the frames around it."""
        self._odometry.put(message)
        self._publishers.odometry_came(self._odometry)

    def on_camera_info(self, message: Any, *, rectified: bool = False) -> None:
        """Note which camera takes the images, `rectified` ones or not, from a CameraInfo."""
        self.camera.lens = messages.camera_of(message, rectified=rectified)
        self._camera_check.camera = self.camera.lens

    def camera_problem(self) -> str:
        """Return why frames of this camera are not localised, '' if they are."""
        return self._camera_check.warning if self._camera_check.refuses else ''

    def _work(self) -> None:
        while (frame := self._slot.take()) is not None:
            message, received = frame
            try:
                self._localize(message, received)
            except VprError as error:
                self._health.failed(str(error))
                self._node.get_logger().warning(f'frame dropped: {error}',
                                                throttle_duration_sec=5.0)
            except Exception as error:  # one frame must not end the worker
                self._health.failed(str(error))
                self._node.get_logger().error(f'frame failed: {error!r}',
                                              throttle_duration_sec=5.0)

    def _localize(self, message: Any, received: float) -> None:
        """Localise an image, received at a time.perf_counter, and publish the result."""
        watch = Stopwatch(received)
        stamp = messages.stamp_ns(message.header)
        if now := self._node.get_clock().now().nanoseconds:  # 0: a simulated one has not begun
            self._health.image_age = (now - stamp) / 1e9
        with watch.stage('convert'):
            rgb = messages.rgb(message, self.localizer.encoder.size)
            self._check_camera(rgb.shape[0], rgb.shape[1])
        with watch.stage('odometry'):
            odometry = self._odometry.at(stamp)
            unused = '' if odometry is not None else self._odometry.why_not(stamp)
        with watch.stage('encode'):  # without the lock: callbacks would wait for the network
            space = self.localizer.encoder.space
            descriptor = self._encode(rgb)
        with watch.stage('search'), self._lock:
            localizer = self.localizer
            if localizer.encoder.space != space:
                raise VprError('the map was exchanged while the frame was encoded')
            refinement = self._refinement
            estimate = localizer.locate(descriptor, stamp, odometry and odometry.pose)
            if localizer.odometry_problem:
                unused = f'not credible: {localizer.odometry_problem}'
        with watch.stage('publish'):
            if unused and refinement is not None:
                refinement.lose_odometry(stamp)
            if estimate.trusted:
                frame = TrustedFrame(message, estimate, localizer, odometry, received)
                if refinement is None:
                    self._send(frame, estimate)
                else:
                    refinement.offer(frame)
        watch.answered()
        with watch.stage('rest'):
            with self._lock:
                modes = localizer.modes()
            self._publishers.publish_details(estimate, modes, localizer, rgb)
        self._health.odometry(unused, self._odometry.age(stamp))
        self._health.processed(estimate, watch.seconds)

    def _send(self, frame: TrustedFrame, estimate: Estimate) -> None:
        """Publish the pose of a frame: that of its place, or a refined one."""
        self._health.counts['poses'] += 1
        self._publishers.publish_pose(estimate, frame.localizer, frame.odometry)

    def _show(self, frame: TrustedFrame, estimate: Estimate, rgb: NDArray[np.uint8],
              mount: NDArray[np.float64]) -> None:
        """Publish what there is to see of a refined pose."""
        self._publishers.publish_refined(estimate, frame.localizer, rgb, mount)

    def _new_refinement(self, localizer: Localizer) -> Refinement | None:
        """Return what refines poses on the map of a localizer, at work; None if nothing does."""
        self._unrefined = ''
        if self._features is None:
            self._unrefined = 'refine is false'
        elif localizer.place_map.landmarks is None:
            self._unrefined = 'the map has no landmarks'
        if self._features is None or self._unrefined:
            return None
        uneven_ground = parameters.value_of(self._node, 'uneven_ground')
        try:
            worker = RefinerProcess(localizer.place_map, self._features, flat=not uneven_ground)
        except MapError as error:
            self._unrefined = str(error)
            self._node.get_logger().warning(f'poses are those of places, not refined: {error}')
            return None
        refinement = Refinement(self._node, self._health, self.camera, worker, send=self._send,
                                show=self._show, uneven_ground=uneven_ground)
        refinement.start()
        return refinement

    def _check_camera(self, height: int, width: int) -> None:
        """Raise ImageError when the camera of images of this size is another one; warn once."""
        check, before = self._camera_check, self._camera_check.warning
        check.check(height, width)
        if check.warning not in ('', before):
            self._node.get_logger().warning(check.warning)

    def _encode(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Return the descriptor (D,) of an image, and note a crash of the model.

        VprError is about this one image; anything else the engine raises will come again.
        """
        try:
            return self.localizer.encoder.encode(rgb)
        except VprError:
            raise
        except Exception as error:
            self.crash = f'model failed: {first_line(error)}'
            raise

    # The operator's requests

    def on_initial_pose(self, message: Any) -> None:
        """Start the belief over around a PoseWithCovarianceStamped in the map's frame."""
        if self._publishers.sent(message):
            return
        log = self._node.get_logger()
        frame_id = self.localizer.place_map.manifest.frame_id
        if message.header.frame_id not in ('', frame_id):
            log.warning(f"initialpose ignored: its frame is '{message.header.frame_id}', that of "
                        f"the map is '{frame_id}'")
            return
        try:
            pose = messages.pose_of(message)
            variances = message.pose.covariance[0], message.pose.covariance[7]
            if not min(variances) >= 0:  # nor NaN
                raise ValueError('a deviation is the root of the variances in x and y, which are '
                                 f'{variances[0]:g} and {variances[1]:g}: give both (m^2)')
            deviation = math.sqrt(max(variances))
            with self._lock:
                self.localizer.expect(pose, deviation)
                self._discard_frames()
        except (VprError, ValueError) as error:
            log.warning(f'initialpose ignored: {error}')
        else:
            log.info(f'initialpose accepted: x {pose[0]:.1f}, y {pose[1]:.1f}')

    def relocalize(self) -> str:
        """Forget the drive so far; return the answer to the operator."""
        with self._lock:
            self.localizer.forget()
            self._discard_frames()
        self._publishers.start_over()
        return 'localisation starts over: belief, odometry and running mean are reset'

    def _discard_frames(self) -> None:
        """Let no pose be sent of the frames so far."""
        if self._refinement is not None:
            self._refinement.start_over()

    async def reload_map(self) -> tuple[bool, str]:
        """
        Load the map that the parameter names, while frames are localised on the old one.

        Returns whether it is in use now, and the answer to the operator.
        """
        old = self.localizer
        try:
            new = await self._load_in_thread(old.encoder)
        except Exception as error:  # a damaged map may raise anything: answer all the same
            answer = f'the old map stays in use: {error}'
            self._node.get_logger().error(answer)
            return False, answer
        with self._lock:
            if self._closed or self.localizer is not old:
                return False, 'the node was cleaned up, or another map was loaded, meanwhile'
            new.take_over(old)
            self.localizer = new
            self._discard_frames()
            before = self._refinement
            if self._worker is not None:
                self._refinement = self._new_refinement(new)
            self._camera_check = CameraCheck(new.place_map.manifest.cameras,
                                             self._camera_check.camera)
        if before is not None:
            before.stop()
        self._publishers.start_over()
        self.publish_map()
        return True, f'{len(new.place_map)} places'

    async def _load_in_thread(self, encoder: Encoder) -> Localizer:
        outcome: list[Localizer | Exception] = []
        loaded: Future = Future(executor=self._node.executor)
        # The executor's thread sets the future: rclpy may miss one that another thread sets.
        done = self._node.create_guard_condition(
            lambda: loaded.done() or loaded.set_result(None))

        def load() -> None:
            try:
                outcome.append(load_localizer(self._node, encoder))
            except Exception as error:  # raised below, in the thread that waits for it
                outcome.append(error)
            done.trigger()

        threading.Thread(target=load, daemon=True, name='load map').start()
        await loaded
        self._node.destroy_guard_condition(done)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def adjust(self, attributes: Mapping[str, parameters.Value]) -> None:
        """Set attributes of the localizer, from the next frame on."""
        with self._lock:
            for attribute, value in attributes.items():
                setattr(self.localizer, attribute, value)

    def publish_map(self) -> None:
        """Publish the places, and landmarks in use, of the map, if the node is active."""
        if self._worker is not None:
            self._publishers.publish_map(self.localizer.place_map)
            self._publishers.publish_landmarks(self.localizer.place_map,
                                               used=self._refinement is not None)

    def description(self) -> dict[str, str]:
        """Return which model and map are in use, as values for the diagnostics."""
        encoder = self.localizer.encoder
        return {'provider': encoder.provider, 'model': encoder.digest[:12],
                'map': parameters.value_of(self._node, 'map'),
                'places': str(len(self.localizer.place_map)),
                'calibration': self.localizer.calibration.origin,
                'camera': str(self._camera_check),
                **self._refinement_values(),
                **self._publishers.values()}

    def _refinement_values(self) -> dict[str, str]:
        if self._refinement is not None:
            return self._refinement.values()
        return {'refinement': f'off: {self._unrefined}'}

    # The state file

    def _save_state(self) -> None:
        """Write the state of the drive, if there is a state file and a frame since the last."""
        path = parameters.value_of(self._node, 'state_file')
        if not path:
            return
        with self._lock:
            drive = self.localizer.state
        if drive is None or drive.stamp == self._saved_stamp:
            return
        try:
            write_state(path, drive, self.localizer.encoder.space)
            self._saved_stamp = drive.stamp
        except (VprError, OSError) as error:
            self._node.get_logger().warning(f'state_file cannot be written: {error}',
                                            throttle_duration_sec=60.0)

    def _resume(self) -> None:
        """Hand the drive in the state file to a localizer that has seen no frame yet."""
        path = parameters.value_of(self._node, 'state_file')
        if not path or self.localizer.state is not None:
            return
        try:
            drive = read_state(path, self.localizer.encoder.space)
            if drive is not None:
                self.localizer.resume(drive)
        except (VprError, OSError, ValueError) as error:
            self._node.get_logger().warning(f'state_file ignored, a new drive begins: {error}')
