"""
The demo: map a street in winter, drive it again in spring, and localise that drive on the map.

The spring drive is played to the real node, a process of its own, over DDS, if the caller passes a
function that does so; otherwise the same Localizer replays the bag offline.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from typing import Protocol
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import poses
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.encoding.features import open_features
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.localization.refined_image import refined_image
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.drive_plot import draw_drive
from vpr_ros.offline.drive_score import DriveScore
from vpr_ros.offline.drive_score import score_drive
from vpr_ros.offline.replay import bag_refiner
from vpr_ros.offline.replay import replay
from vpr_ros.street import drive
from vpr_ros.street import Town
from vpr_ros.street.record import CAMERA_POSE
from vpr_ros.street.record import MOUNT
from vpr_ros.street.record import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from vpr_ros.street import DriveFrame

IMAGES = '/camera/image_raw'
ODOMETRY, CAMERA = '/odom', '/camera/camera_info'
_FEW = 5  # refined images, up to which others are shown

PLAY_RATE = 2.0
"""How many times faster than recorded (5 Hz) the spring drive is played."""


class Recorder(Protocol):
    """What a node published during a drive (ros/node_process.py)."""

    diagnostics: list[dict[str, str]]

    def drive(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return stamps (N,), poses (N,7), and which of them were published (N,)."""

    def places(self) -> NDArray[np.float64]:
        """Return the poses (N,7) of the places that the frames are most likely at."""

    def refined(self) -> dict[int, NDArray[np.float64]]:
        """Return the landmarks x, y, z and their pixels u, v (I,5) in refined images, by stamp."""


class _Localised(NamedTuple):
    """
    A drive of N frames: stamps (N,), poses (N,7), which of them are published (N,).

    places (N,7) are the poses before they were refined; `refined` has, by the stamps of refined
    images, the landmarks x, y, z and pixels u, v (I,5) that agree; `told` and `latency` are lines
    for the user.
    """

    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    trusted: NDArray[np.bool_]
    places: NDArray[np.float64]
    refined: dict[int, NDArray[np.float64]]
    told: str
    latency: str


def demo(output: str | Path, *, seed: int = 7, model: str | None = None,
         play_to_node: Callable[..., Recorder] | None = None) -> int:
    """
    Run the demo in the folder `output`; print its results and plot them in demo.png.

    `play_to_node` is that of ros/node_process.py; without it the bag is replayed offline. Returns
    0 when more of the published poses are right than wrong, else 1. Raises VprError when a step
    fails.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    winter, spring, map_path = (output / name for name in ('winter.mcap', 'spring.mcap', 'map'))
    town = Town(seed)
    print(f'1/4 simulate two drives through town {seed}: one in winter to map, one in spring to '
          'localise')
    _record(winter, drive(town, condition='winter', seed=1, speed=8.0, rate=8.0))
    _record(spring, drive(town, condition='spring', seed=2, speed=6.0, rate=5.0,
                          lateral_offset=1.0))
    print('2/4 build the map from the winter drive')
    encoder = Encoder(model, throughput=True)
    place_map = build_map([open_source(winter)], encoder, conditions=['winter'],
                          features=open_features())
    place_map.save(map_path, overwrite=True)
    del encoder
    with Bag(spring) as bag:
        truth = bag.poses('/ground_truth/pose')
        frames = bag.count(IMAGES)
    if play_to_node is None:
        print('3/4 replay the spring drive offline, without ROS 2')
        localised = _replay(spring, map_path, model)
    else:
        print('3/4 start the node and play the spring drive to it over DDS')
        localised = _play(play_to_node, spring, map_path, model, frames, output)
    stamps, estimated, trusted = localised[:3]
    score = score_drive(stamps, estimated, trusted, truth, defaults.CORRECT_RADIUS)
    print('4/4 compare with the ground truth')
    draw_drive(output / 'demo.png', place_map, stamps, estimated, trusted, score,
               defaults.CORRECT_RADIUS, _queries(spring, localised, place_map))
    _print_score(score, frames, localised)
    print(f'plot: {output / "demo.png"}')
    return 0 if score.right > score.wrong else 1


def _record(bag: Path, frames: Iterator[DriveFrame]) -> None:
    record(bag, iter(tqdm(frames, desc=bag.stem, unit='frame', disable=None)), overwrite=True)


def _replay(bag: Path, map_path: Path, model: str | None) -> _Localised:
    encoder = Encoder(model, throughput=True)
    place_map = PlaceMap.load(map_path, encoder)
    replayed = replay(bag, Localizer(encoder, place_map), refiner=bag_refiner(bag, place_map))
    # As a subscriber of the node sees it: the best candidate where no pose is published.
    estimated = np.array([e.pose if e.trusted else e.candidates.poses[0]
                          for e in replayed.estimates])
    places = np.array([e.pose if e.place_pose is None else e.place_pose
                       for e in replayed.estimates])
    refined = {e.stamp: np.hstack([e.landmarks, e.keypoints]) for e in replayed.estimates
               if e.trusted and e.landmarks is not None and e.keypoints is not None}
    return _Localised(replayed.stamps, estimated, replayed.trusted, places, refined,
                      f'{len(refined)} poses',
                      f'{1e3 * replayed.seconds / len(replayed.estimates):.1f} ms per frame, '
                      'offline')


def _play(play_to_node: Callable[..., Recorder], bag: Path, map_path: Path, model: str | None,
          frames: int, output: Path) -> _Localised:
    # The wheels of ROS 2 have no tf2_msgs, so that /tf_static of the bag cannot be played.
    parameters = {'map': map_path, 'camera_pose': ' '.join(map(str, CAMERA_POSE)),
                  **({'model': Path(model)} if model else {})}
    with tqdm(total=frames, desc='localised', unit='frame', disable=None) as bar:
        recorder = play_to_node(
            bag, parameters, output, image_topic=IMAGES,
            topics=(IMAGES, CAMERA, ODOMETRY), rate=PLAY_RATE,
            progress=lambda count: bar.update(count - bar.n))
    latest = recorder.diagnostics[-1]
    told = (f'{latest.get("refined", 0)} images, p50 {latest.get("refine p50 (ms)", "-")} ms; '
            f'{latest.get("carried", 0)} poses carried on by odometry')
    latency = (f'p50 {latest["total p50 (ms)"]} ms, p99 {latest["total p99 (ms)"]} ms from image '
               f'to pose (network {latest["encode p50 (ms)"]} ms on {latest["provider"]})')
    return _Localised(*recorder.drive(), recorder.places(), recorder.refined(), told, latency)


def _queries(bag_path: Path, localised: _Localised, place_map: PlaceMap
             ) -> dict[int, tuple[NDArray[np.uint8], int]]:
    """Return images of the bag, spread over the drive, by their stamps, and the inliers."""
    stamps = localised.stamps
    refined = np.intersect1d(stamps, list(localised.refined))
    among = refined if len(refined) > _FEW else stamps
    wanted = set(among[np.linspace(0, len(among) - 1, 5).astype(int)[1:-1]].tolist())
    found = {}
    with Bag(bag_path) as bag:
        for stamp, message in bag.images(IMAGES):
            if stamp not in wanted:
                continue
            rgb, agreeing = messages.rgb(message).copy(), localised.refined.get(stamp)
            if agreeing is not None:
                pose = localised.poses[np.flatnonzero(stamps == stamp)[0]]
                rgb = refined_image(rgb, agreeing[:, 3:], agreeing[:, :3], pose,
                                    place_map=place_map, mount=MOUNT, height=len(rgb))
            found[stamp] = rgb, 0 if agreeing is None else len(agreeing)
    return found


def _print_score(score: DriveScore, frames: int, localised: _Localised) -> None:
    """Print the score of the drive as a small table."""
    known = np.isfinite(score.errors)
    published = known & localised.trusted
    before = poses.distance(localised.places, score.truth)
    rows = (
        ('frames', f'{frames} sent, {score.frames} processed'),
        ('poses published', f'{score.published} ({score.published / frames:.0%} of frames)'),
        (f'right within {defaults.CORRECT_RADIUS:.0f} m',
         f'{score.right / max(score.published, 1):.1%} of published poses, '
         f'{score.right / frames:.1%} of frames'),
        ('wrong poses', f'{score.wrong}'),
        ('best match right', f'{score.best_right / frames:.1%} of frames, published or not'),
        ('median error', f'{_median(before[published])} m by place -> {score.median_error:.2f} m'),
        ('refined', localised.told),
        ('latency', localised.latency),
    )
    for name, value in rows:
        print(f'  {name:<20} {value}')


def _median(errors: NDArray[np.float64]) -> str:
    return f'{np.median(errors):.2f}' if len(errors) else 'no'
