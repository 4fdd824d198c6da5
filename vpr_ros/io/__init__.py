"""Data in and out, without ROS: bags, messages, image folders."""  # noqa: A005 (as vpr_ros.io)
