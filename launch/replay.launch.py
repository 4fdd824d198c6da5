"""
Play a bag to the localiser and show it: `ros2 launch vpr_ros replay.launch.py bag:=B map:=M`.

The arguments are those of localize.launch.py and the ones declared here.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.actions import ExecuteProcess
from launch.actions import IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage


def generate_launch_description() -> LaunchDescription:
    """Return the description of the localiser, RViz and a player, on the clock of the bag."""
    share = Path(get_package_share_directory('vpr_ros'))
    return LaunchDescription([
        DeclareLaunchArgument('bag', description='Bag to play'),
        # Declared again: an argument without a default has to be passed to the included file.
        DeclareLaunchArgument('map', description='Directory of the map'),
        DeclareLaunchArgument('rate', default_value='1.0',
                              description='Playback speed, as a factor of the recorded one'),
        DeclareLaunchArgument('rviz', default_value='true', description='Open RViz'),
        DeclareLaunchArgument('rviz_config', default_value=str(share / 'config' / 'vpr.rviz'),
                              description='RViz configuration file'),
        DeclareLaunchArgument('use_sim_time', default_value='true',
                              description='Use the clock of the bag'),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            str(share / 'launch' / 'localize.launch.py')),
            launch_arguments=[('map', LaunchConfiguration('map'))]),
        Node(package='rviz2', executable='rviz2', name='rviz', output='screen',
             arguments=['-d', LaunchConfiguration('rviz_config')],
             parameters=[{'use_sim_time': True}], condition=IfCondition(
                 LaunchConfiguration('rviz'))),
        # Not `ros2 bag play`: this player waits for a subscriber before the first image, and the
        # localiser takes a second or two to load.
        ExecuteProcess(cmd=[ExecutableInPackage('vpr', 'vpr_ros'), 'play',
                            LaunchConfiguration('bag'), '--rate', LaunchConfiguration('rate'),
                            '--wait', '1', '--wait-limit', '120'],
                       name='player', output='screen')])
