"""The edge to ROS: the node and its player. The only room that imports rclpy."""
