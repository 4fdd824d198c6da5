"""
The lifecycle node: images in, poses with confidence out.

A thin edge around the Localizer. Here are its parameters, topics, services and transitions; what a
configured node does with frames and requests is in operations.py.
"""

from __future__ import annotations

from functools import partial
import traceback
from typing import Any
from typing import TYPE_CHECKING

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import HistoryPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import VprError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import open_features
from vpr_ros.io import messages
from vpr_ros.maps.trust import check_models
from vpr_ros.ros import health
from vpr_ros.ros import parameters
from vpr_ros.ros.bond import start_bond
from vpr_ros.ros.bond import stop_bond
from vpr_ros.ros.filter_reset import FilterReset
from vpr_ros.ros.initial_pose import InitialPose
from vpr_ros.ros.input_watch import InputWatch
from vpr_ros.ros.input_watch import TRANSPORTS
from vpr_ros.ros.interfaces import rclpy_types
from vpr_ros.ros.operations import load_localizer
from vpr_ros.ros.operations import Operations
from vpr_ros.ros.publishers import Publishers
from vpr_ros.ros.robot_camera import RobotCamera
from vpr_ros.ros.transform import HeldTransform
from vpr_ros.ros.transform import transform_broadcaster
from vpr_ros.ros.usage import unknown_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rcl_interfaces.msg import SetParametersResult
    from rclpy.lifecycle import LifecycleState
    from rclpy.parameter import Parameter
    from vpr_ros.ros.pose_output import PoseOutput

_NOT_CONFIGURED = 'not configured'


class LocalizerNode(LifecycleNode):
    """
    `vpr_localizer`: see docs/messages.md for its topics and services.

    `operations` is there while the node is configured, else None.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__('vpr_localizer', **options)
        self.operations: Operations | None = None
        self._health = health.Health()
        self._inputs: list[Any] = []
        self._watch: InputWatch | None = None
        self._bond: Any = None
        self._state = 'unconfigured'
        self._problem = ''
        self._progress = ''
        self._refuse_wrong_transitions()
        # Before the declaration, so that the values at start are checked as well.
        self.add_on_set_parameters_callback(self._on_parameters)
        parameters.declare(self)
        for line in unknown_parameters(
                name for name in self._parameter_overrides
                if not self.has_parameter(name) and not name.startswith('qos_overrides.')):
            self.get_logger().warning(line)
        self._diagnostics = self.create_publisher(
            rclpy_types('diagnostic_msgs/msg/DiagnosticArray'), '/diagnostics', 10)
        self.create_timer(1.0, self._publish_diagnostics)
        trigger = rclpy_types('std_srvs/srv/Trigger')
        self.create_service(trigger, '~/relocalize', self._on_relocalize)
        # A coroutine occupies its callback group until it ends: images need another one.
        self._reload_group = ReentrantCallbackGroup()
        self.create_service(trigger, '~/reload_map', self._on_reload_map,
                            callback_group=self._reload_group)

    # Lifecycle

    def start(self) -> None:
        """Configure and activate, as a lifecycle manager would."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and the map, and create the publishers."""
        try:
            if trusted := parameters.trusted_keys(self):
                check_models(trusted, parameters.map_of(self),
                             [self._value('model'), self._value('features')])
            encoder = Encoder(self._value('model'), self._value('provider'),
                              self._value('threads'), engine_cache=self._value('engine_cache'),
                              report=self._report_progress)
            localizer = load_localizer(self, encoder)
            landmarks = localizer.place_map.landmarks
            features = open_features(self._value('features'), self._value('threads'),
                                     known=landmarks.identity.features if landmarks else ''
                                     ) if self._value('refine') else None
            publishers = Publishers(self, flat=self._value('flat'),
                                    non_negative=self._value('non_negative_covariance'),
                                    outputs=self._pose_outputs())
        except (VprError, OSError, ValueError) as error:
            self._problem = str(error)
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            return self._unexpected(error)
        finally:
            self._progress = ''
        self.operations = Operations(self, localizer, publishers, self._health,
                                     RobotCamera(self._value('camera_pose')), features)
        place_map = localizer.place_map
        self.get_logger().info(
            f'{encoder.path.name} on {encoder.provider}, {encoder.width}x{encoder.height}; '
            f'{len(place_map)} places in {place_map.manifest.frame_id} from '
            f'{self._value("map")}')
        self._problem = ''
        self._state = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe to its inputs."""
        assert self.operations is not None
        super().on_activate(state)
        try:
            self.operations.start()
            self._subscribe(self.operations)
            self._bond = start_bond(self, self._value('bond_heartbeat_period'))
            self.operations.publish_map()
        except Exception as error:
            return self._unexpected(error)
        self._state = 'active'
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and let the worker finish its frame."""
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

    def _pose_outputs(self) -> list[PoseOutput]:
        """Return what gets each trusted pose beside `~/pose`, by the parameters."""
        outputs: list[PoseOutput] = []
        if self._value('publish_tf'):
            outputs.append(HeldTransform(self, transform_broadcaster(self),
                                         tolerance=self._value('transform_tolerance'),
                                         timeout=self._value('transform_timeout')))
        if topic := self._value('initialpose_topic'):
            outputs.append(InitialPose(self, topic))
        if distance := self._value('filter_reset_distance'):
            outputs.append(FilterReset(self, distance))
        return outputs

    def _unexpected(self, error: Exception) -> TransitionCallbackReturn:
        """Log an exception, which rclpy would not, and return that the transition failed."""
        self._problem = repr(error)
        self.get_logger().error(traceback.format_exc())
        return TransitionCallbackReturn.ERROR

    def _refuse_wrong_transitions(self) -> None:
        """Answer false where the state does not allow a transition: rclpy raises in `spin`."""
        service = next(service for service in self.services
                       if service.srv_name.endswith('/change_state'))
        change_state = service.callback

        def change_or_refuse(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except RuntimeError:  # rclpy's RCLError
                self.get_logger().warning(
                    f'transition {request.transition.label or request.transition.id} refused: '
                    f'the node is {self._state}')
                response.success = False
                return response
        service.callback = change_or_refuse

    def _subscribe(self, operations: Operations) -> None:
        transport = self._value('image_transport')
        topic, kind = TRANSPORTS[transport]
        reliable = self._value('image_reliable')
        image = self.create_subscription(
            rclpy_types(kind), topic, operations.on_image,
            QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST,
                       reliability=ReliabilityPolicy.RELIABLE if reliable
                       else ReliabilityPolicy.BEST_EFFORT))
        odometry = self.create_subscription(
            rclpy_types('nav_msgs/msg/Odometry'), 'odom', operations.on_odometry,
            QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT))
        initial_pose = self.create_subscription(
            rclpy_types('geometry_msgs/msg/PoseWithCovarianceStamped'), 'initialpose',
            operations.on_initial_pose, 1)
        camera = self.create_subscription(
            rclpy_types(messages.CAMERA_INFO), self._camera_info_topic(image.topic_name),
            partial(operations.on_camera_info,
                    rectified=messages.is_rectified(image.topic_name)),
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
        self._inputs = [image, odometry, initial_pose, camera]
        if self._value('refine'):
            self._inputs += operations.camera.listen(self)
        self._watch = InputWatch(self, self._health, transport, image, odometry)
        self.get_logger().info(f'listening to {image.topic_name}')

    def _camera_info_topic(self, image_topic: str) -> str:
        """Return the topic `camera_info` if it is remapped, or the one beside the images."""
        own = self.resolve_topic_name('camera_info')
        plain = f'{self.get_namespace().rstrip("/")}/camera_info'
        return own if own != plain else messages.camera_info_topic(image_topic)

    def _stop(self) -> None:
        if self._bond is not None:
            stop_bond(self, self._bond)
            self._bond = None
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._watch = None
        if self.operations is not None:
            self.operations.stop()

    def _free(self) -> None:
        if self.operations is not None:
            self.operations.close()
            self.operations = None

    # Services and parameters, in every state

    def _on_relocalize(self, request: Any, response: Any) -> Any:
        response.success, response.message = False, _NOT_CONFIGURED
        if self.operations is not None:
            response.success, response.message = True, self.operations.relocalize()
        return response

    async def _on_reload_map(self, request: Any, response: Any) -> Any:
        response.success, response.message = False, _NOT_CONFIGURED
        if self.operations is not None:
            response.success, response.message = await self.operations.reload_map()
        return response

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        result = rclpy_types('rcl_interfaces/msg/SetParametersResult')
        attributes = {}
        for change in changed:
            parameter = parameters.BY_NAME.get(change.name)
            if parameter is None:  # one of rclpy's own
                continue
            if reason := self._refusal(parameter, change.value):
                return result(successful=False, reason=reason)
            if parameter.live:
                attributes[parameter.attribute] = change.value
        if self.operations is not None:
            self.operations.adjust(attributes)
        return result(successful=True)

    def _refusal(self, parameter: parameters.Parameter, value: parameters.Value) -> str:
        """Return why a parameter cannot take a value now, '' if it can."""
        problem = parameter.problem(value)
        # Another map may be named at any time: `~/reload_map` loads it.
        if problem or parameter.live or parameter.name == 'map' or self.operations is None:
            return problem
        if self.get_parameter(parameter.name).value == value:
            return ''
        return f'{parameter.name} takes effect in configure: clean up first'

    # Diagnostics

    def _publish_diagnostics(self) -> None:
        if self.operations is not None and self.operations.crash:
            self._unload_after_crash(self.operations.crash)
        level, summary = health.WARN, self._progress or self._state
        if self._problem and not self._progress:
            level, summary = health.ERROR, self._problem
        elif self._watch is not None:
            level, summary = self._watch.check()
            if self.operations is not None and (problem := self.operations.camera_problem()):
                level, summary = health.ERROR, problem
        values = {'state': self._state}
        if self.operations is not None:
            values |= self.operations.description()
        if self._watch is not None:
            values |= self._watch.values()
        self._diagnostics.publish(health.diagnostics(
            rclpy_types, self.get_clock().now().nanoseconds, self.get_fully_qualified_name(),
            self.get_name(), level, summary, {**values, **self._health.values()}))

    def _unload_after_crash(self, problem: str) -> None:
        """Go back to unconfigured, where `configure` can load the model again."""
        self.get_logger().error(problem)
        try:
            if self._state == 'active':
                self.trigger_deactivate()
            self.trigger_cleanup()
        except RuntimeError as error:  # rclpy's RCLError: the node is in another state by now
            self.get_logger().warning(f'not unloaded: {first_line(error)}')
        self._problem = problem

    def _report_progress(self, line: str) -> None:
        """Log and publish a long step of `configure`, during which no timer fires."""
        self.get_logger().info(line)
        self._progress = line
        self._publish_diagnostics()

    def _value(self, name: str) -> Any:
        return parameters.value_of(self, name)
