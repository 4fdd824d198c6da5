"""
Start the localiser and an EKF that fuses its poses with wheel odometry: docs/navigation.md.

The arguments are those of localize.launch.py and the ones declared here.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    """Return the description of the localiser and of robot_localization's ekf_node."""
    share = Path(get_package_share_directory('vpr_ros'))
    odom_topic = ParameterValue(LaunchConfiguration('odom_topic'), value_type=str)
    use_sim_time = ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)
    return LaunchDescription([
        # Declared again: an argument without a default has to be passed to the included file.
        DeclareLaunchArgument('map', description='Directory of the map'),
        DeclareLaunchArgument('ekf_params_file', default_value=str(share / 'config' / 'ekf.yaml'),
                              description='YAML file with the parameters of the EKF'),
        # Never empty, unlike in the included file: both nodes need the same clock.
        DeclareLaunchArgument('use_sim_time', default_value='false',
                              description='Use /clock as the time of both nodes (true or '
                                          'false)'),
        # Its arguments (namespace, odom_topic) also apply to the node below.
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            str(share / 'launch' / 'localize.launch.py')),
            launch_arguments=[('map', LaunchConfiguration('map')),
                              ('filtered_topic', 'odometry/map')]),
        Node(package='robot_localization', executable='ekf_node', name='ekf_map',
             namespace=LaunchConfiguration('namespace'), output='screen',
             parameters=[LaunchConfiguration('ekf_params_file'),
                         {'odom0': odom_topic, 'use_sim_time': use_sim_time}],
             remappings=[('odometry/filtered', 'odometry/map'),
                         ('/tf', 'tf'), ('/tf_static', 'tf_static')])])
