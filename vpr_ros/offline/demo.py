"""
The demo: map a street in winter, drive it again in spring, and find the way.

The caller says how the spring drive is played: to the real node, a process of its own, over DDS.
Without that the same Localizer replays the bag.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.drive_plot import draw_drive
from vpr_ros.offline.evaluate import DriveScore
from vpr_ros.offline.evaluate import score_drive
from vpr_ros.offline.replay import replay
from vpr_ros.street import drive
from vpr_ros.street import Town
from vpr_ros.street.record import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.street import DriveFrame

IMAGES = '/camera/image_raw'
ODOMETRY = '/odom'
PLAY_RATE = 2.5
"""Times the pace at which the spring drive was recorded (5 Hz)."""


class Recorder(Protocol):
    """What a node said of a drive (ros/node_process.py)."""

    diagnostics: list[dict[str, str]]

    def drive(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return stamps (N,), poses (N,7), and which of them were published (N,)."""


def demo(output: str | Path, *, seed: int = 7, model: str | None = None,
         play_to_node: Callable[..., Recorder] | None = None) -> int:
    """
    Run the demo in the folder `output`; print what came of it and draw demo.png.

    `play_to_node` is that of ros/node_process.py; without it the bag is replayed offline. Returns
    0 when most of the published poses were right, else 1. Raises VprError when a step fails.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    winter, spring, map_path = (output / name for name in ('winter.mcap', 'spring.mcap', 'map'))
    town = Town(seed)
    print(f'1/4 drive through town {seed}: in winter for the map, in spring to find the way')
    record(winter, _shown(drive(town, condition='winter', seed=1, speed=8.0, rate=8.0), 'winter'),
           overwrite=True)
    record(spring, _shown(drive(town, condition='spring', seed=2, speed=6.0, rate=5.0,
                                lateral_offset=1.0), 'spring'), overwrite=True)
    print('2/4 build the map from the winter drive')
    encoder = Encoder(model, throughput=True)
    place_map = build_map([open_source(winter)], encoder, conditions=['winter'])
    place_map.save(map_path, overwrite=True)
    del encoder
    with Bag(spring) as bag:
        truth = bag.poses('/ground_truth/pose')
        frames = bag.count(IMAGES)
    if play_to_node is None:
        print('3/4 without ROS 2: replay the spring drive, no middleware')
        stamps, estimated, trusted, latency = _replay(spring, map_path, model)
    else:
        print('3/4 start the node and play the spring drive to it over DDS')
        stamps, estimated, trusted, latency = _play(play_to_node, spring, map_path, model, frames,
                                                    output)
    score = score_drive(stamps, estimated, trusted, truth, defaults.CORRECT_RADIUS)
    print('4/4 compare with the truth')
    draw_drive(output / 'demo.png', place_map, stamps, estimated, trusted, score,
               defaults.CORRECT_RADIUS, _pictures_at(spring, stamps))
    _tell(score, frames, latency)
    print(f'picture: {output / "demo.png"}')
    return 0 if score.right > score.wrong else 1


def _shown(frames: Iterator[DriveFrame], name: str) -> Iterator[DriveFrame]:
    return iter(tqdm(frames, desc=name, unit='frame', disable=None))


def _replay(bag: Path, map_path: Path, model: str | None
            ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], str]:
    encoder = Encoder(model, throughput=True)
    came = replay(bag, Localizer(encoder, PlaceMap.load(map_path, encoder)))
    # As a subscriber sees it: a frame without a pose has its best candidate.
    seen = np.array([e.pose if e.trusted else e.candidates.poses[0] for e in came.estimates])
    return (came.stamps, seen, came.trusted,
            f'{1e3 * came.seconds / len(came.estimates):.1f} ms a frame, offline')


def _play(play_to_node: Callable[..., Recorder], bag: Path, map_path: Path, model: str | None,
          frames: int, output: Path
          ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], str]:
    parameters = {'map': map_path, **({'model': Path(model)} if model else {})}
    with tqdm(total=frames, desc='localised', unit='frame', disable=None) as bar:
        recorder = play_to_node(
            bag, parameters, output, image_topic=IMAGES,
            topics=(IMAGES, ODOMETRY), rate=PLAY_RATE,
            progress=lambda count: bar.update(count - bar.n))
    latest = recorder.diagnostics[-1]
    latency = (f'p50 {latest["total p50 (ms)"]} ms, p99 {latest["total p99 (ms)"]} ms from image '
               f'to pose (network {latest["encode p50 (ms)"]} ms on {latest["provider"]})')
    return (*recorder.drive(), latency)


def _pictures_at(bag_path: Path, stamps: NDArray[np.int64]) -> dict[int, NDArray[np.uint8]]:
    """Return three pictures of the bag, spread over the drive, by their stamps."""
    wanted = set(stamps[np.linspace(0, len(stamps) - 1, 5).astype(int)[1:-1]].tolist())
    with Bag(bag_path) as bag:
        return {stamp: messages.rgb(message).copy() for stamp, message in bag.images(IMAGES)
                if stamp in wanted}


def _tell(score: DriveScore, frames: int, latency: str) -> None:
    """Print the figures as a small table."""
    rows = (
        ('frames', f'{frames} sent, {score.frames} localised'),
        ('poses published', f'{score.published} ({score.published / frames:.0%} of frames)'),
        (f'right within {defaults.CORRECT_RADIUS:.0f} m',
         f'{score.right / max(score.published, 1):.1%} of poses, {score.right / frames:.1%} of '
         f'frames'),
        ('wrong poses', f'{score.wrong}'),
        ('best match right', f'{score.best_right / frames:.1%} of frames, published or not'),
        ('median error', f'{score.median_error:.2f} m'),
        ('latency', latency),
    )
    for name, value in rows:
        print(f'  {name:<20} {value}')
