"""What is kept of a site: the place map, its index and its calibration."""
