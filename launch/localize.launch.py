"""Start the localiser: `ros2 launch vpr_ros localize.launch.py map:=/path/to/map`."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

# Arguments that are also parameters of the node; they override those in params_file.
PARAMETERS = {'map': str, 'model': str, 'use_sim_time': bool, 'autostart': bool}


def generate_launch_description() -> LaunchDescription:
    """Return the description of the node and its arguments."""
    share = Path(get_package_share_directory('vpr_ros'))
    return LaunchDescription([
        DeclareLaunchArgument('map', description='Directory of the map'),
        DeclareLaunchArgument('model', default_value='',
                              description='ONNX model; empty for the one in params_file, or '
                                          'else the bundled one'),
        DeclareLaunchArgument('namespace', default_value='',
                              description='Namespace of the node and its relative topics'),
        DeclareLaunchArgument('image_topic', default_value='camera/image_raw',
                              description='Topic of the raw images; with image_transport '
                                          'compressed, the same name without /compressed'),
        DeclareLaunchArgument('odom_topic', default_value='odom',
                              description='Topic of odometry, which is optional'),
        DeclareLaunchArgument('filtered_topic', default_value='odometry/filtered',
                              description="Topic of the filter's odometry, read with "
                                          'filter_reset_distance'),
        DeclareLaunchArgument('params_file',
                              default_value=str(share / 'config' / 'localize.yaml'),
                              description='YAML file with the parameters of the node'),
        DeclareLaunchArgument('use_sim_time', default_value='',
                              description='Use /clock as the time (true or false); empty for '
                                          'the value in params_file, or else false'),
        DeclareLaunchArgument('autostart', default_value='true',
                              description='Configure and activate at startup; false under a '
                                          'lifecycle manager'),
        OpaqueFunction(function=localizer)])


def localizer(context: LaunchContext) -> list[LifecycleNode]:
    """Return the node. Raises FileNotFoundError when there is no such params_file."""
    params_file = Path(LaunchConfiguration('params_file').perform(context)).expanduser()
    if not params_file.is_file():  # launch_ros would only warn, and use the defaults
        raise FileNotFoundError(f'{params_file}: no such params_file')
    # An empty argument must not override the file.
    overrides = {name: ParameterValue(LaunchConfiguration(name), value_type=kind)
                 for name, kind in PARAMETERS.items()
                 if LaunchConfiguration(name).perform(context)}
    image_topic = LaunchConfiguration('image_topic')
    return [LifecycleNode(
        package='vpr_ros', executable='localizer', name='vpr_localizer',
        namespace=LaunchConfiguration('namespace'),
        output='screen', parameters=[str(params_file), overrides],
        remappings=[('odom', LaunchConfiguration('odom_topic')), ('image', image_topic),
                    ('image/compressed', [image_topic, '/compressed']),
                    ('odometry/filtered', LaunchConfiguration('filtered_topic')),
                    # Each robot has its own transform tree, as in nav2's bring-up.
                    ('/tf', 'tf'), ('/tf_static', 'tf_static')])]
