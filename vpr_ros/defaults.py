"""The defaults that the core, the node and the command line share. Nothing is computed here."""

TOP_K = 10
"""Candidates reported per frame."""

MIN_CONFIDENCE = 0.9
"""A pose is trusted from this confidence on."""

CORRECT_RADIUS = 5.0
"""Metres from the truth within which a pose counts as right."""

MAX_SPEED = 15.0
"""Fastest that a robot drives, in m/s."""

SPACING = 1.0
"""Metres between the places of a map."""
