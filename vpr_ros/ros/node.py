"""The lifecycle node: images in, poses with confidence out.

A thin edge around the Localizer. Callbacks only put frames into a slot; one worker thread takes
the newest, localises and publishes. Every published stamp is the image's.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from typing import Any
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy
from rclpy.qos import HistoryPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from vpr_ros import images
from vpr_ros.drive_mean import read_state
from vpr_ros.drive_mean import write_state
from vpr_ros.encoder import bundled_model
from vpr_ros.encoder import Encoder
from vpr_ros.errors import MapError
from vpr_ros.errors import VprError
from vpr_ros.localizer import Localizer
from vpr_ros.place_map import PlaceMap
from vpr_ros.ros import health
from vpr_ros.ros import messages
from vpr_ros.ros import parameters
from vpr_ros.ros.inputs import FrameSlot
from vpr_ros.ros.inputs import OdometryBuffer
from vpr_ros.ros.messages import rclpy_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rcl_interfaces.msg import SetParametersResult
    from rclpy.lifecycle import LifecycleState
    from rclpy.parameter import Parameter
    from vpr_ros.localizer import Estimate

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_DEBUG_HEIGHT = 240


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
        self._outputs: list[Any] = []
        self._odometry = OdometryBuffer()
        self._state = 'unconfigured'
        self._problem = ''
        self._diagnostics = self.create_publisher(
            rclpy_types('diagnostic_msgs/msg/DiagnosticArray'), '/diagnostics', 10)
        self.create_timer(1.0, self._publish_diagnostics)
        trigger = rclpy_types('std_srvs/srv/Trigger')
        self.create_service(trigger, '~/relocalize', self._on_relocalize)
        self.create_service(trigger, '~/reload_map', self._on_reload_map)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and the map, and make the publishers."""
        try:
            encoder = Encoder(self._value('model') or bundled_model(),
                              self._value('provider'), self._value('threads'))
            self._localizer = self._new_localizer(encoder)
        except (VprError, OSError, ValueError) as error:
            self._problem = str(error)
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy would keep it to itself
            self._problem = repr(error)
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        place_map = self._localizer.place_map
        self.get_logger().info(
            f'{encoder.path.name} on {encoder.provider}, {encoder.width}x{encoder.height}; '
            f'{len(place_map)} places in {place_map.manifest.frame_id} from '
            f'{self._value("map")}')
        publisher = self._output
        self._pose = publisher(rclpy_types('geometry_msgs/msg/PoseWithCovarianceStamped'),
                               '~/pose', 10)
        self._confidence = publisher(rclpy_types('std_msgs/msg/Float32'), '~/confidence', 10)
        self._candidates = publisher(rclpy_types(messages.CLOUD), '~/candidates', 10)
        self._map = publisher(rclpy_types(messages.CLOUD), '~/map', _LATCHED)
        self._debug = publisher(rclpy_types(messages.COMPRESSED_IMAGE),
                                '~/debug_image/compressed', 1)
        self._problem = ''
        self._state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to images and start the worker."""
        super().on_activate(state)
        self._resume()
        self._publish_map()
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
        self._state = 'active'
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
        """Write the drive's running mean to the state file, if there is to be one."""
        path = self._value('state_file')
        drive = None if self._localizer is None else self._localizer.state
        if not path or drive is None or self._localizer is None:
            return
        try:
            write_state(path, drive, self._localizer.encoder.digest)
        except (VprError, OSError) as error:
            self.get_logger().warning(f'the running mean is not kept: {error}')

    def _resume(self) -> None:
        """Go on with the running mean of the run before, if the state file holds a young one."""
        path = self._value('state_file')
        if not path or self._localizer is None or self._localizer.state is not None:
            return
        try:
            drive = read_state(path, self._localizer.encoder.digest)
            if drive is not None:
                self._localizer.resume(drive)
        except (VprError, OSError, ValueError) as error:
            self.get_logger().warning(f'the running mean starts anew: {error}')

    def _free(self) -> None:
        if self._localizer is None:
            return
        self._localizer = None
        for publisher in self._outputs:
            self.destroy_publisher(publisher)
        self._outputs = []

    def _output(self, kind: Any, topic: str, qos: QoSProfile | int) -> Any:
        publisher = self.create_lifecycle_publisher(kind, topic, qos)
        self._outputs.append(publisher)
        return publisher

    def _new_localizer(self, encoder: Encoder) -> Localizer:
        path = self._value('map')
        if not path:
            raise VprError("the parameter 'map' is empty: give it the directory of a map")
        return Localizer(encoder, PlaceMap.load(path, encoder),
                         **{name: self._value(name) for name in _LIVE})

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
                if not self.context.ok():  # shut down in the middle of it
                    continue
                self._health.failed(str(error))
                self.get_logger().error(f'frame failed: {error!r}', throttle_duration_sec=5.0)

    def _localize(self, message: Any, received: float) -> None:
        begin = time.perf_counter()
        picture = messages.rgb(message)
        stamp = messages.stamp_ns(message.header)
        converted = time.perf_counter()
        odometry = self._odometry.at(stamp)
        ready = time.perf_counter()
        localizer = self._localizer
        if localizer is None:
            return
        descriptor = localizer.encoder.encode(picture)
        encoded = time.perf_counter()
        with self._turn:  # not held while the network runs: callbacks wait for it
            localizer = self._localizer
            if localizer is None:
                return
            estimate = localizer.locate(descriptor, stamp, odometry)
        found = time.perf_counter()
        self._publish(estimate, localizer)
        if self._debug.get_subscription_count():
            self._publish_debug(estimate, localizer, picture)
        done = time.perf_counter()
        self._health.processed(estimate, {
            'wait': begin - received, 'convert': converted - begin,
            'odometry': ready - converted, 'encode': encoded - ready, 'search': found - encoded,
            'publish': done - found, 'total': done - received})

    def _publish(self, estimate: Estimate, localizer: Localizer) -> None:
        frame_id = localizer.place_map.manifest.frame_id
        if estimate.trusted:
            self._health.counts['poses'] += 1
            self._pose.publish(messages.pose_with_covariance(
                rclpy_types, estimate.stamp, frame_id, estimate.pose, estimate.covariance))
        self._confidence.publish(messages.float32(rclpy_types, estimate.confidence))
        modes = estimate.modes
        x, y, z = modes.poses[:, :3].T
        self._candidates.publish(messages.cloud(rclpy_types, estimate.stamp, frame_id, {
            'x': x, 'y': y, 'z': z, 'probability': modes.probability,
            'similarity': modes.similarity, 'place': modes.places}))

    def _publish_debug(self, estimate: Estimate, localizer: Localizer,
                       picture: NDArray[Any]) -> None:
        try:
            match = localizer.place_map.thumbnail(int(estimate.candidates.places[0]))
        except MapError as error:  # of no weight: the place was found by its descriptor
            match = None
            self.get_logger().warning(f'debug image: {error}', throttle_duration_sec=5.0)
        pictures = [picture] if match is None else [picture, match]
        canvas = images.captioned(images.side_by_side(pictures, _DEBUG_HEIGHT),
                                  f'{estimate.confidence:.2f} {estimate.reason}',
                                  (0, 255, 0) if estimate.trusted else (255, 64, 0))
        self._debug.publish(messages.compressed_image(
            rclpy_types, estimate.stamp, localizer.place_map.manifest.frame_id, canvas))

    def _publish_map(self) -> None:
        if self._localizer is None:
            return
        place_map = self._localizer.place_map
        x, y, z = place_map.poses[:, :3].T
        self._map.publish(messages.cloud(
            rclpy_types, self.get_clock().now().nanoseconds, place_map.manifest.frame_id,
            {'x': x, 'y': y, 'z': z, 'session': place_map.sessions}))

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
        response.success = self._localizer is not None
        response.message = 'forgot the drive so far' if response.success else 'not configured'
        return response

    def _on_reload_map(self, request: Any, response: Any) -> Any:
        localizer = self._localizer
        if localizer is None:
            response.success, response.message = False, 'not configured'
            return response
        try:
            fresh = self._new_localizer(localizer.encoder)
        except (VprError, OSError, ValueError) as error:
            response.success, response.message = False, f'the old map stays: {error}'
            self.get_logger().error(response.message)
            return response
        with self._turn:
            self._localizer = fresh
        if self._state == 'active':
            self._publish_map()
        response.success, response.message = True, f'{len(fresh.place_map)} places'
        return response

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
                    setattr(self._localizer, name, value)
        return result

    def _publish_diagnostics(self) -> None:
        level, line = health.WARN, self._state
        values = {'state': self._state}
        localizer = self._localizer
        if self._problem:
            level, line = health.ERROR, self._problem
        elif self._state == 'active':
            level, line = self._health.verdict()
        if localizer is not None:
            values |= {'provider': localizer.encoder.provider,
                       'model': localizer.encoder.digest[:12],
                       'map': self._value('map'), 'places': str(len(localizer.place_map)),
                       'calibration': localizer.calibration.fitted_on or 'none: defaults'}
        self._diagnostics.publish(health.diagnostics(
            rclpy_types, self.get_clock().now().nanoseconds, self.get_fully_qualified_name(),
            self.get_name(), level, line, {**values, **self._health.values()}))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


_LIVE = tuple(parameter.name for parameter in parameters.PARAMETERS if parameter.live)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; return 0, or 1 when a parameter is refused."""
    rclpy.init(args=args)
    try:
        node = LocalizerNode()
    except ParameterException as error:
        print(f'vpr_localizer: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if (node.get_parameter('autostart').value
                and node.trigger_configure() == TransitionCallbackReturn.SUCCESS):
            node.trigger_activate()
        executor.spin()
    except KeyboardInterrupt:
        pass
    except Exception:
        # A signal shuts the context down in the middle of whatever rclpy is doing.
        if node.context.ok():
            raise
    finally:
        node.on_shutdown(None)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
