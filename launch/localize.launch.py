"""Start the localiser: `ros2 launch vpr_ros localize.launch.py map:=/path/to/map`."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    """Return the description of one node, with its few arguments."""
    share = Path(get_package_share_directory('vpr_ros'))
    arguments = [
        DeclareLaunchArgument('map', description='Directory of the map'),
        DeclareLaunchArgument('model', default_value='',
                              description='ONNX model; empty for the bundled one'),
        DeclareLaunchArgument('image_topic', default_value='/camera/image_raw',
                              description='Raw images; with image_transport compressed, '
                                          'this name without /compressed'),
        DeclareLaunchArgument('odom_topic', default_value='/odom',
                              description='Odometry; the node also runs without'),
        DeclareLaunchArgument('params_file',
                              default_value=str(share / 'config' / 'localize.yaml'),
                              description='Parameters of the node'),
        DeclareLaunchArgument('use_sim_time', default_value='false',
                              description='Follow /clock, as when a bag is played'),
        DeclareLaunchArgument('autostart', default_value='true',
                              description='Configure and activate at once; false under a '
                                          'lifecycle manager'),
    ]
    image_topic = LaunchConfiguration('image_topic')
    node = LifecycleNode(
        package='vpr_ros', executable='localizer', name='vpr_localizer', namespace='',
        output='screen',
        parameters=[LaunchConfiguration('params_file'), {
            'map': ParameterValue(LaunchConfiguration('map'), value_type=str),
            'model': ParameterValue(LaunchConfiguration('model'), value_type=str),
            'use_sim_time': ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool),
            'autostart': ParameterValue(LaunchConfiguration('autostart'), value_type=bool),
        }],
        remappings=[('image', image_topic), ('odom', LaunchConfiguration('odom_topic')),
                    ('image/compressed', [image_topic, '/compressed'])])
    return LaunchDescription([*arguments, node])
