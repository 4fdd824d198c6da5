"""
Real images through the real node: a set becomes a map and a bag, which is played over DDS.

A set with poses is split: the even images are the map, the odd ones the drive. In a set with
queries the images are assumed to be one metre apart, in the order of their names.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
import sys
import tempfile
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import node_run
from benchmarks.lib import tables
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import answer
from benchmarks.lib.sets import find_sets
import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.core.errors import SourceError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.io.frames import Frame
from vpr_ros.io.sources import open_source
from vpr_ros.offline.build_map import build_map

if TYPE_CHECKING:
    from benchmarks.lib.node_run import NodeRun
    from benchmarks.lib.sets import ImageSet
    from numpy.typing import NDArray
    from vpr_ros.io.frames import Source

    Truth = list[NDArray[np.float64] | None]

DEFAULT_SET = 'campus_pose_map'
SPEED = 3.0
"""Metres per second of the drive, by its stamps: the node limits the speed of the robot."""
PACE = 5.0
"""Frames per second that are played, whatever their stamps are."""
START = 1_700_000_000_000_000_000


def real_node(data: str, name: str = DEFAULT_SET, model: str | None = None, pace: float = PACE,
              radius: float = defaults.CORRECT_RADIUS) -> dict[str, Any]:
    """
    Drive one set of the folder `data` through the node; return counts, errors and latency.

    `pace` is in frames per second; `radius` in metres is within which a pose is right, here and in
    the node. Raises SourceError for a set that does not exist or has neither poses nor answers.
    """
    if not node_run.has_ros():
        print(f'real images through the node: {node_run.NO_ROS}')
        return {}
    sets = {image_set.name: image_set for image_set in find_sets(data)}
    if name not in sets:
        raise SourceError(f"{data} has no set '{name}'; it has {', '.join(sets)}")
    encoder = Encoder(model)
    metric = sets[name].has_poses
    mapped, driven, truth = _split(sets[name]) if metric else _in_order(sets[name])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        place_map = build_map([nullcontext(mapped)], encoder, spacing=0.0)
        place_map.save(folder / 'map')
        stamps = _write_bag(folder / 'drive', driven)
        parameters = {'map': folder / 'map', 'model': encoder.path, 'correct_radius': radius}
        places = len(place_map)
        del encoder
        run = node_run.play_to_node(folder / 'drive', parameters, folder,
                                    rate=pace * float(np.median(np.diff(stamps))) / 1e9)
    true = {stamp: pose for stamp, pose in zip(stamps, truth, strict=True) if pose is not None}
    result = {'set': name, 'places': places, **_figures(run, true, radius)}
    unit = ('metres; every second image is the map' if metric else
            'places, to the middle one of the listed answers')
    tables.show(f'Real images through the node over DDS: {name} (errors in {unit})',
                ('figure', 'value'), list(result.items()))
    return result


def _figures(run: NodeRun, true: dict[int, NDArray[np.float64]], radius: float) -> dict[str, Any]:
    """Return counts, errors in m and latencies, given the true poses (7,) by stamp."""
    errors = np.array([poses.distance(run.published[stamp], true[stamp])
                       for stamp in run.published if stamp in true])
    best = np.array([poses.distance(position, true[stamp])
                     for stamp, position in zip(run.stamps.tolist(), run.positions, strict=True)
                     if stamp in true])
    return {
        'sent': run.sent, 'localised': len(run.stamps),
        'with_truth': len(best), 'published': len(run.published), 'radius_m': radius,
        'right': int((errors <= radius).sum()), 'wrong': int((errors > radius).sum()),
        'best_match_right': int((best <= radius).sum()),
        'best_match_median_error_m': float(np.median(best)) if len(best) else None,
        'median_error_m': float(np.median(errors)) if len(errors) else None,
        'largest_error_m': float(errors.max()) if len(errors) else None,
        'total_p50_ms': float(run.latest['total p50 (ms)']),
        'total_p99_ms': float(run.latest['total p99 (ms)'])}


def _split(image_set: ImageSet) -> tuple[Source, list[Frame], Truth]:
    """Return the even images, the odd ones, and the true poses of the odd ones."""
    with open_source(image_set.path) as source:
        frames = list(source.frames)
        even = replace(source, frames=frames[::2], count=len(frames[::2]))
    return even, frames[1::2], [frame.pose for frame in frames[1::2]]


def _in_order(image_set: ImageSet) -> tuple[Source, list[Frame], Truth]:
    """Return the database, the queries, and for each query the pose of its middle answer."""
    if not image_set.has_queries:
        raise SourceError(f'{image_set.path} has neither poses.csv nor queries/ with '
                          'ground_truth.csv: it gives no drive')
    answers = {name: sorted(places) for name, places in image_set.answers().items()}
    with open_source(image_set.database) as source, \
            open_source(image_set.queries) as driven:
        mapped = list(source.frames)
        frames = list(driven.frames)
        source = replace(source, frames=mapped)
    middles = [answers[frame.name][len(answers[frame.name]) // 2] if frame.name in answers
               else None for frame in frames]
    return source, frames, [None if place is None else mapped[place].pose for place in middles]


def _write_bag(path: Path, frames: list[Frame]) -> list[int]:
    """Write a bag of raw images, stamped for a drive at SPEED; return the stamps in ns."""
    track = np.array([frame.pose for frame in frames])
    steps = np.maximum(poses.distance(track[1:], track[:-1]), 0.1)  # stamps must differ
    stamps: list[int] = (START + (np.append(0, np.cumsum(steps)) / SPEED * 1e9).astype(np.int64)
                         ).tolist()
    with BagWriter(path) as bag:
        for stamp, frame in zip(stamps, frames, strict=True):
            bag.write(node_run.IMAGE_TOPIC,
                      messages.image(bag.types, stamp, 'camera', frame.load()), stamp)
    return stamps


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    add_data_option(parser)
    parser.add_argument('--set', default=DEFAULT_SET, help='the set to drive')
    parser.add_argument('--pace', type=float, default=PACE, help='frames per second')
    parser.add_argument('--radius', type=float, default=defaults.CORRECT_RADIUS,
                        help='metres within which a pose is right')
    options = parser.parse_args()
    return answer(options, lambda: real_node(
        options.data, options.set, options.model, options.pace, options.radius))


if __name__ == '__main__':
    sys.exit(main())
