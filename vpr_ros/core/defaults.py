"""Defaults and choices that the core, the node and the command line share; nothing is computed."""

TOP_K = 10
"""Candidates reported per frame."""

MIN_CONFIDENCE = 0.95
"""A pose is trusted from this confidence on: the share of right ones that is asked for."""

CORRECT_RADIUS = 5.0
"""Metres from the truth within which a pose counts as right."""

EXCLUSION_RADIUS = 25.0
"""Metres beyond which another place is a different one: places that look alike count as aliases
from there on, and calibration takes so much off the map around a stretch that shall be unknown."""

MAX_SPEED = 15.0
"""Fastest that a robot drives, in m/s."""

ODOMETRY_ERROR = 0.1
"""Error of odometry, in metres per metre driven (1 sigma)."""

SPACING = 1.0
"""Metres between the places of a map."""

PROVIDERS = ('tensorrt', 'cuda', 'openvino', 'cpu')
"""What can run a model, in the order in which 'auto' tries them."""

INDEX_KINDS = ('flat', 'fp16', 'sq8', 'pq', 'opq', 'hnsw', 'ivfpq', 'rerank')
"""flat: exact. fp16: exact but for rounding, in half the memory. sq8: a byte per dimension. pq:
D/8 bytes a place. opq: pq after a learned rotation. hnsw: exact vectors in a graph. ivfpq: pq
within clusters, of which the nearest are searched. rerank: ivfpq, whose best 256 are compared
again with vectors that stay on disk."""

INDEX = 'auto'
"""The kind of index of a new map: what its size asks for, if not one of INDEX_KINDS."""
