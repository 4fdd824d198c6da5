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

# The arguments that are parameters of the node too, where they win over params_file.
PARAMETERS = {'map': str, 'model': str, 'use_sim_time': bool, 'autostart': bool}


def generate_launch_description() -> LaunchDescription:
    """Return the description of one node, with its few arguments."""
    share = Path(get_package_share_directory('vpr_ros'))
    return LaunchDescription([
        DeclareLaunchArgument('map', description='Directory of the map'),
        DeclareLaunchArgument('model', default_value='',
                              description='ONNX model; empty for that of params_file, and '
                                          'without one there for the bundled one'),
        DeclareLaunchArgument('namespace', default_value='',
                              description='Of the robot; topics without a leading / are in it'),
        DeclareLaunchArgument('image_topic', default_value='camera/image_raw',
                              description='Raw images; with image_transport compressed, '
                                          'this name without /compressed'),
        DeclareLaunchArgument('odom_topic', default_value='odom',
                              description='Odometry; the node also runs without'),
        DeclareLaunchArgument('params_file',
                              default_value=str(share / 'config' / 'localize.yaml'),
                              description='Parameters of the node'),
        DeclareLaunchArgument('use_sim_time', default_value='',
                              description='Follow /clock (true or false), as when a bag is '
                                          'played; empty for what params_file says, or false'),
        DeclareLaunchArgument('autostart', default_value='true',
                              description='Configure and activate at once; false under a '
                                          'lifecycle manager'),
        OpaqueFunction(function=localizer)])


def localizer(context: LaunchContext) -> list[LifecycleNode]:
    """Return the node. Raises FileNotFoundError for a params_file that is not there."""
    params_file = LaunchConfiguration('params_file').perform(context)
    if not Path(params_file).is_file():  # launch_ros would warn and go on with the defaults
        raise FileNotFoundError(f'{params_file}: no such params_file')
    # An empty argument must not wipe out what the file says.
    given = {name: ParameterValue(LaunchConfiguration(name), value_type=kind)
             for name, kind in PARAMETERS.items() if LaunchConfiguration(name).perform(context)}
    image_topic = LaunchConfiguration('image_topic')
    return [LifecycleNode(
        package='vpr_ros', executable='localizer', name='vpr_localizer',
        namespace=LaunchConfiguration('namespace'),
        output='screen', parameters=[params_file, given],
        remappings=[('odom', LaunchConfiguration('odom_topic')), ('image', image_topic),
                    ('image/compressed', [image_topic, '/compressed']),
                    # Each robot has a tree of its own, as under nav2's bring-up.
                    ('/tf', 'tf'), ('/tf_static', 'tf_static')])]
