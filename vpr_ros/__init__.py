"""Onboard visual localisation by visual place recognition, for ROS 2."""
