"""
The lifecycle node: images in, poses with confidence out.

A thin edge around the Localizer. Callbacks only put frames into a slot; one worker thread takes
the newest, localises and publishes. Every published stamp is the image's.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from typing import Any
from typing import TYPE_CHECKING

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import HistoryPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.task import Future
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import VprError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.running_mean import read_state
from vpr_ros.localization.running_mean import write_state
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.ros import health
from vpr_ros.ros import parameters
from vpr_ros.ros.bond import bonded
from vpr_ros.ros.bond import unbond
from vpr_ros.ros.inputs import FrameSlot
from vpr_ros.ros.inputs import OdometryBuffer
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.outputs import Outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from rcl_interfaces.msg import SetParametersResult
    from rclpy.lifecycle import LifecycleState
    from rclpy.parameter import Parameter


class LocalizerNode(LifecycleNode):
    """`vpr_localizer`: see docs/messages.md for its topics and services."""

    def __init__(self, **options: Any) -> None:
        super().__init__('vpr_localizer', **options)
        self._health = health.Health()
        self._localizer: Localizer | None = None
        self._turn = threading.Lock()
        # Before the declaration, which then checks the values that the node is started with too.
        self.add_on_set_parameters_callback(self._on_parameters)
        parameters.declare(self)
        self._slot: FrameSlot | None = None
        self._worker: threading.Thread | None = None
        self._inputs: list[Any] = []
        self._outputs: Outputs | None = None
        self._bond: Any = None
        self._crash = ''
        self._odometry = OdometryBuffer()
        self._state = 'unconfigured'
        self._problem = ''
        self._busy = ''
        self._kept: int | None = None
        self._diagnostics = self.create_publisher(
            rclpy_types('diagnostic_msgs/msg/DiagnosticArray'), '/diagnostics', 10)
        self.create_timer(1.0, self._publish_diagnostics)
        self.create_timer(_KEEP_EVERY, self._keep)
        trigger = rclpy_types('std_srvs/srv/Trigger')
        self.create_service(trigger, '~/relocalize', self._on_relocalize)
        # A coroutine holds its group until it is done: here it must not be that of the images.
        self._aside = ReentrantCallbackGroup()
        self.create_service(trigger, '~/reload_map', self._on_reload_map,
                            callback_group=self._aside)

    # Lifecycle

    def start(self) -> None:
        """Configure and activate, as a lifecycle manager would."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and the map, and make the publishers."""
        try:
            encoder = Encoder(self._value('model'),
                              self._value('provider'), self._value('threads'),
                              engine_cache=self._value('engine_cache'),
                              report=self._report)
            self._localizer = self._new_localizer(encoder)
            self._outputs = Outputs(self, flat=self._value('flat'),
                                    non_negative=self._value('non_negative_covariance'),
                                    initialpose_topic=self._value('initialpose_topic'),
                                    publish_tf=self._value('publish_tf'))
        except (VprError, OSError, ValueError) as error:
            self._localizer = None
            self._problem = str(error)
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy would keep it to itself
            self._problem = repr(error)
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        finally:
            self._busy = ''
        place_map = self._localizer.place_map
        self.get_logger().info(
            f'{encoder.path.name} on {encoder.provider}, {encoder.width}x{encoder.height}; '
            f'{len(place_map)} places in {place_map.manifest.frame_id} from '
            f'{self._value("map")}')
        self._problem = ''
        self._state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to images and start the worker."""
        super().on_activate(state)
        self._resume()
        if self._outputs is not None:
            self._outputs.tell_again()
        self._health.activated()
        self._slot = FrameSlot()
        self._worker = threading.Thread(target=self._work, args=(self._slot,), daemon=True,
                                        name='localize')
        self._worker.start()
        compressed = self._value('image_transport') == 'compressed'
        reliable = self._value('image_reliable')
        image = self.create_subscription(
            rclpy_types(messages.COMPRESSED_IMAGE if compressed else messages.RAW_IMAGE),
            'image/compressed' if compressed else 'image', self._on_image,
            QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST,
                       reliability=ReliabilityPolicy.RELIABLE if reliable
                       else ReliabilityPolicy.BEST_EFFORT))
        self._inputs = [
            image, self.create_subscription(
                rclpy_types('nav_msgs/msg/Odometry'), 'odom', self._odometry.put,
                QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)),
            self.create_subscription(
                rclpy_types('geometry_msgs/msg/PoseWithCovarianceStamped'), 'initialpose',
                self._on_initial_pose, 1)]
        self.get_logger().info(f'listening to {image.topic_name}')
        self._bond = bonded(self, self._value('bond_heartbeat_period'))
        self._state = 'active'
        self._publish_map()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and let the worker finish its frame."""
        self._stop()
        super().on_deactivate(state)
        self._state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the map."""
        self._free()
        self._state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._stop()
        self._free()
        self._state = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        self._stop()
        self._free()
        self._state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        if self._bond is not None:
            unbond(self, self._bond)
            self._bond = None
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._odometry = OdometryBuffer()
        if self._slot is not None and self._worker is not None:
            if self._slot.close():
                self._health.counts['dropped'] += 1
            self._worker.join()
            self._slot = self._worker = None
            self._keep()

    def _keep(self) -> None:
        """Write where the drive is to the state file, if there is to be one."""
        path, localizer = self._value('state_file'), self._localizer
        if not path or localizer is None:
            return
        with self._turn:
            drive = localizer.state
        if drive is None or drive.stamp == self._kept:
            return
        try:
            write_state(path, drive, localizer.encoder.digest)
            self._kept = drive.stamp
        except (VprError, OSError) as error:
            self.get_logger().warning(f'the state of the drive is not kept: {error}',
                                      throttle_duration_sec=60.0)

    def _resume(self) -> None:
        """Go on with the drive of the run before, if the state file holds a young one."""
        path = self._value('state_file')
        if not path or self._localizer is None or self._localizer.state is not None:
            return
        try:
            drive = read_state(path, self._localizer.encoder.digest)
            if drive is not None:
                self._localizer.resume(drive)
        except (VprError, OSError, ValueError) as error:
            self.get_logger().warning(f'the drive starts anew: {error}')

    def _free(self) -> None:
        if self._localizer is None:
            return
        self._localizer = None
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None

    def _new_localizer(self, encoder: Encoder) -> Localizer:
        path = self._value('map')
        if not path:
            raise VprError("the parameter 'map' is empty: give it the directory of a map")
        return Localizer(encoder, PlaceMap.load(path, encoder),
                         **{attribute: self._value(name) for name, attribute in _LIVE.items()})

    # Frames

    def _on_image(self, message: Any) -> None:
        self._health.counts['received'] += 1
        if self._slot is not None and self._slot.put(message):
            self._health.counts['dropped'] += 1

    def _work(self, slot: FrameSlot) -> None:
        while (frame := slot.take()) is not None:
            message, received = frame
            try:
                self._localize(message, received)
            except VprError as error:
                self._health.failed(str(error))
                self.get_logger().warning(f'frame dropped: {error}', throttle_duration_sec=5.0)
            except Exception as error:  # the worker must outlive whatever one frame does
                self._health.failed(str(error))
                self.get_logger().error(f'frame failed: {error!r}', throttle_duration_sec=5.0)

    def _localize(self, message: Any, received: float) -> None:
        begin = time.perf_counter()
        stamp = messages.stamp_ns(message.header)
        localizer, outputs = self._localizer, self._outputs
        if localizer is None or outputs is None:
            return
        picture = messages.rgb(message, localizer.encoder.size)
        converted = time.perf_counter()
        odometry = self._odometry.at(stamp)
        ready = time.perf_counter()
        descriptor = self._encoded(localizer, picture)
        encoded = time.perf_counter()
        with self._turn:  # not held while the network runs: callbacks wait for it
            localizer = self._localizer
            if localizer is None:
                return
            estimate = localizer.locate(descriptor, stamp, odometry)
        found = time.perf_counter()
        if estimate.trusted:
            self._health.counts['poses'] += 1
            outputs.publish_pose(estimate, localizer, None if odometry is None else (
                self._odometry.frame_id, odometry))
        posed = time.perf_counter()
        with self._turn:
            modes = localizer.modes()
        outputs.publish_rest(estimate, modes, localizer, picture)
        done = time.perf_counter()
        self._health.processed(estimate, {
            'wait': begin - received, 'convert': converted - begin,
            'odometry': ready - converted, 'encode': encoded - ready, 'search': found - encoded,
            'publish': posed - found, 'total': posed - received,
            'beside encode': posed - received - (encoded - ready), 'rest': done - posed})

    def _encoded(self, localizer: Localizer, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Return the descriptor (D,) of a picture; a model that crashes is given up.

        Bad pictures raise VprError; whatever else the engine raises, it will again.
        """
        try:
            return localizer.encoder.encode(picture)
        except VprError:
            raise
        except Exception as error:
            self._crash = f'model failed: {first_line(error)}'
            raise

    def _leave_after_crash(self) -> None:
        """Go back to unconfigured, from where `configure` loads the model anew."""
        problem, self._crash = self._crash, ''
        self.get_logger().error(problem)
        self.trigger_deactivate()
        self.trigger_cleanup()
        self._problem = problem

    # Being operated

    def _on_initial_pose(self, message: Any) -> None:
        with self._turn:
            localizer = self._localizer
            if localizer is None:
                return
            frame_id = localizer.place_map.manifest.frame_id
            if message.header.frame_id not in ('', frame_id):
                self.get_logger().warning(f"initialpose is in '{message.header.frame_id}', the "
                                          f"map in '{frame_id}': ignored")
                return
            try:
                pose = messages.pose_of(message)
                localizer.expect(pose, math.sqrt(max(message.pose.covariance[0],
                                                     message.pose.covariance[7])))
            except (VprError, ValueError) as error:
                self.get_logger().warning(f'initialpose ignored: {error}')
                return
        self.get_logger().info(f'expected at x {pose[0]:.1f}, y {pose[1]:.1f}')

    def _on_relocalize(self, request: Any, response: Any) -> Any:
        with self._turn:
            if self._localizer is not None:
                self._localizer.forget()
        if self._outputs is not None:
            self._outputs.tell_again()
        response.success = self._localizer is not None
        response.message = 'forgot the drive so far' if response.success else 'not configured'
        return response

    async def _on_reload_map(self, request: Any, response: Any) -> Any:
        """Load the map that the parameter names, while frames are localised on the old one."""
        localizer = self._localizer
        if localizer is None:
            response.success, response.message = False, 'not configured'
            return response
        loaded: Future = Future(executor=self.executor)
        outcome: list[Localizer | Exception] = []
        # The future is set in the executor's thread: rclpy may lose one that another thread sets.
        done = self.create_guard_condition(lambda: loaded.done() or loaded.set_result(None),
                                           callback_group=self._aside)
        threading.Thread(target=self._load_aside, args=(localizer.encoder, outcome, done),
                         daemon=True, name='load map').start()
        await loaded
        self.destroy_guard_condition(done)
        try:
            fresh = outcome[0]
            if isinstance(fresh, Exception):
                raise fresh
        except (VprError, OSError, ValueError) as error:
            response.success, response.message = False, f'the old map stays: {error}'
            self.get_logger().error(response.message)
            return response
        with self._turn:
            if self._localizer is not localizer:  # cleaned up, or reloaded, meanwhile
                response.success, response.message = False, 'the old map is gone, too'
                return response
            fresh.take_over(localizer)
            self._localizer = fresh
        self._publish_map()
        response.success, response.message = True, f'{len(fresh.place_map)} places'
        return response

    def _load_aside(self, encoder: Encoder, outcome: list[Localizer | Exception], done: Any
                    ) -> None:
        try:
            outcome.append(self._new_localizer(encoder))
        except Exception as error:  # raised where it is waited for
            outcome.append(error)
        done.trigger()

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        known = {parameter.name: parameter for parameter in parameters.PARAMETERS}
        result = rclpy_types('rcl_interfaces/msg/SetParametersResult')(successful=True)
        live: dict[str, Any] = {}
        for parameter in changed:
            own = known.get(parameter.name)
            if own is None:
                continue
            problem = own.problem(parameter.value)
            if own.live:
                live[own.name] = parameter.value
            elif self._localizer is not None and self._value(own.name) != parameter.value:
                # A new map may be named at any time: `~/reload_map` takes it.
                problem = problem or ('' if own.name == 'map' else
                                      f'{own.name} takes effect in configure: clean up first')
            if problem:
                result.successful, result.reason = False, problem
                return result
        with self._turn:
            for name, value in live.items():
                if self._localizer is not None:
                    setattr(self._localizer, _LIVE[name], value)
        return result

    def _publish_map(self) -> None:
        if self._localizer is not None and self._outputs is not None and self._state == 'active':
            self._outputs.publish_map(self._localizer.place_map)

    def _publish_diagnostics(self) -> None:
        if self._crash:
            self._leave_after_crash()
        level, line = health.WARN, self._busy or self._state
        values = {'state': self._state}
        localizer = self._localizer
        if self._problem and not self._busy:
            level, line = health.ERROR, self._problem
        elif self._state == 'active':
            level, line = self._health.verdict()
        if localizer is not None:
            values |= {'provider': localizer.encoder.provider,
                       'model': localizer.encoder.digest[:12],
                       'map': self._value('map'), 'places': str(len(localizer.place_map)),
                       'calibration': localizer.calibration.origin}
        self._diagnostics.publish(health.diagnostics(
            rclpy_types, self.get_clock().now().nanoseconds, self.get_fully_qualified_name(),
            self.get_name(), level, line, {**values, **self._health.values()}))

    def _report(self, line: str) -> None:
        """Log what takes long in configure, and publish it: no timer runs meanwhile."""
        self.get_logger().info(line)
        self._busy = line
        self._publish_diagnostics()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


_KEEP_EVERY = 2.0
"""Seconds after which the state file is written again: what a crash may cost."""

_LIVE = {parameter.name: 'use_filter' if parameter.name == 'filter' else parameter.name
         for parameter in parameters.PARAMETERS if parameter.live}
