"""Where the robot is: the localizer, its belief and the running mean of its descriptors."""
