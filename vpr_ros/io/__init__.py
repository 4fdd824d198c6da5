"""Reading and writing data without ROS: bags, messages, image folders, and parallel work."""
