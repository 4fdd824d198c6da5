"""How often the robot is localised, and how well its confidence is calibrated."""
