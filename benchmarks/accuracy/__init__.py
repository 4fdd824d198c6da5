"""How often the robot is found, and how honest its confidence is."""
