"""Default values and choices that the algorithm, the node and the command line share."""

TOP_K = 10
"""Candidates reported per frame."""

MIN_CONFIDENCE = 0.95
"""A pose is published from this confidence on: the probability that it is correct."""

CORRECT_RADIUS = 5.0
"""Metres from the ground truth within which a pose counts as correct."""

EXCLUSION_RADIUS = 25.0
"""Metres beyond which two places are different ones. Places that look alike and are further apart
are aliases; calibration masks the map within this distance of a stretch that it simulates as
unmapped."""

MAX_SPEED = 15.0
"""The robot's maximum speed, in m/s."""

ODOMETRY_ERROR = 0.1
"""Standard deviation of the odometry, in metres per metre driven."""

SPACING = 1.0
"""Distance between neighbouring places of a map, in metres."""

CENTERINGS = ('none', 'map', 'running')
"""What an evaluation subtracts from the descriptors of queries: nothing (nor from those of the
map), the mean of the map, or the running mean of the drive."""

CENTERING = 'running'
"""What the robot does: one of CENTERINGS."""

MAX_POSE_GAP = 1.5
"""Seconds between two true poses up to which those between are interpolated: 1 Hz with jitter. On
the line between them a robot that turns with 2 m/s2 is half a metre off at most."""

AXES = ('robot', 'camera', 'camera-body', 'camera-world')
"""Axes of poses. robot: x ahead, y left, z up. camera: the optical ones, x right, y down, z ahead,
of the world and the body, or of only one of them."""

HEADINGS = ('poses', 'from-track')
"""Where headings come from: the orientations of the poses, or the direction of travel."""

PROJECTIONS = ('auto', 'model', 'none')
"""What makes a map's descriptors: a projection fitted to its images if it has enough different
places; the model alone; or a projection of the aggregates without whitening."""

PROJECTION = 'auto'
"""The projection of a new map: one of PROJECTIONS."""

PROVIDERS = ('tensorrt', 'cuda', 'openvino', 'cpu')
"""The execution providers, in the order in which 'auto' tries them."""

INDEX_KINDS = ('flat', 'fp16', 'sq8', 'pq', 'opq', 'hnsw', 'ivfpq', 'rerank')
"""flat: exact search. fp16: half the memory, exact but for rounding. sq8: one byte per dimension.
pq: product quantisation, D/8 bytes per place. opq: pq after a learned rotation. hnsw: exact
vectors in a graph. ivfpq: pq in clusters, of which only the nearest are searched. rerank: ivfpq,
whose best 256 candidates are compared again with the full vectors on disk."""

INDEX = 'auto'
"""The index kind of a new map: one of INDEX_KINDS, or 'auto' to choose by the map's size."""
