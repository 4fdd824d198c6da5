"""
A stand-in for robot_localization's ekf_node that republishes every pose unfiltered.

It has the parameters, topics and qualities of service of that node.
"""

from contextlib import suppress

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import qos_profile_sensor_data

rclpy.init()
node = rclpy.create_node('ekf', automatically_declare_parameters_from_overrides=True)
value = {name: node.get_parameter(name).value for name in (
    'pose0', 'odom0', 'world_frame', 'base_link_frame')}
out = node.create_publisher(Odometry, 'odometry/filtered', 10)


def republish(message):
    filtered = Odometry(header=message.header, child_frame_id=value['base_link_frame'])
    filtered.header.frame_id = value['world_frame']
    filtered.pose = message.pose
    out.publish(filtered)


node.create_subscription(PoseWithCovarianceStamped, value['pose0'], republish,
                         qos_profile_sensor_data)
node.create_subscription(Odometry, value['odom0'], lambda message: None, qos_profile_sensor_data)
with suppress(KeyboardInterrupt, ExternalShutdownException):
    rclpy.spin(node)
