"""The node in operation: its rate, its faults, and the navigation stack around it."""
