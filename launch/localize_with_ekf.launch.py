"""
Start the localiser and a filter that fuses its poses with wheel odometry.

The arguments are those of localize.launch.py and the ones declared here; docs/navigation.md.
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
        # Once more, for it has no default: an include wants to be handed such a one.
        DeclareLaunchArgument('map', description='Directory of the map'),
        DeclareLaunchArgument('ekf_params_file', default_value=str(share / 'config' / 'ekf.yaml'),
                              description='Parameters of the filter'),
        # Not empty, as it is there: the two have to live in one time.
        DeclareLaunchArgument('use_sim_time', default_value='false',
                              description='Both follow /clock (true or false)'),
        # What this declares (namespace, odom_topic) holds for the node below, too.
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            str(share / 'launch' / 'localize.launch.py')),
            launch_arguments=[('map', LaunchConfiguration('map'))]),
        Node(package='robot_localization', executable='ekf_node', name='ekf_map',
             namespace=LaunchConfiguration('namespace'), output='screen',
             parameters=[LaunchConfiguration('ekf_params_file'),
                         {'odom0': odom_topic, 'use_sim_time': use_sim_time}],
             remappings=[('odometry/filtered', 'odometry/map'),
                         ('/tf', 'tf'), ('/tf_static', 'tf_static')])])
