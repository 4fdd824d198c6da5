"""The edge to ROS: bags, messages, the node. The only rooms that know of message types."""
