"""
Run a bag through the Localizer as fast as it goes, without middleware.

What `vpr replay` writes is written here, and read again.
"""

from __future__ import annotations

from collections import Counter
import csv
from dataclasses import dataclass
import logging
import math
from pathlib import Path
import time
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import pose_files
from vpr_ros.core import pose_track
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import OutOfOrderError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.files import whole_directory
from vpr_ros.encoding.features import open_features
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.localization.refine import Refiner
from vpr_ros.localization.smooth import Smoother
from vpr_ros.maps.camera_check import CameraCheck
from vpr_ros.offline.descriptors import encoded
from vpr_ros.offline.evaluation import Estimates
from vpr_ros.offline.odometry import read_odometry
from vpr_ros.offline.odometry import warn_if_not_credible
from vpr_ros.offline.odometry import warn_if_unused

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.localization.localizer import Localizer
    from vpr_ros.localization.refine import View
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]

ESTIMATES = 'estimates.csv'

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplayedDrive:
    """
    A drive that was replayed from a bag: an estimate per usable frame.

    `dropped` counts the frames that could not be used, by error class; `seconds` is the time that
    the whole replay took.
    """

    estimates: list[Estimate]
    dropped: Counter[str]
    seconds: float

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Return the stamp of each frame (N,), in ns."""
        return np.array([e.stamp for e in self.estimates], np.int64)

    @property
    def poses(self) -> NDArray[np.float64]:
        """Return the estimated pose of each frame (N,7), trusted or not."""
        return np.array([e.pose for e in self.estimates])

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """Return whether each of the estimates (N,) is trusted."""
        return np.array([e.trusted for e in self.estimates])


def replay(bag_path: str | Path, localizer: Localizer, *, image_topic: str | None = None,
           odometry_topic: str | None = None, odometry: bool = True,
           refiner: Refiner | None = None) -> ReplayedDrive:
    """
    Localise every frame of a bag, in order; unusable frames are counted by cause, and logged.

    Odometry comes from `odometry_topic`, by default from the first such topic of the bag, if there
    is one; none is used if `odometry` is false, or, after a warning, if none is usable. A Smoother
    localises each frame by the whole drive. With a `refiner` the poses are refined where the
    images allow it. Raises SourceError when the bag has no images, or none can be used.
    """
    estimates: list[Estimate] = []
    views: list[View | None] = []  # memory for those of a whole drive, only if it is smoothed
    smoother = localizer if isinstance(localizer, Smoother) else None
    dropped: Counter[str] = Counter()
    last: dict[str, Exception] = {}
    problems: Counter[str] = Counter()
    begin = time.perf_counter()
    with Bag(bag_path) as bag:
        topic = bag.image_topic(image_topic)
        track = read_odometry(bag, odometry_topic) if odometry else None
        check = CameraCheck(localizer.place_map.manifest.cameras, bag.camera(topic))
        frames = bag.images(topic) if refiner is None else bag.images_and_cameras(topic)
        for stamp, future in tqdm(encoded(frames, localizer.encoder, check, refiner),
                                  total=bag.count(topic), desc=Path(bag_path).name,
                                  unit='frame', disable=None):
            try:
                seen = future.result()
                estimate = localizer.locate(seen.descriptor, stamp, pose_track.at(track, stamp))
                if smoother is None:
                    estimate = _refined(estimate, seen.view, refiner)
                else:
                    views.append(seen.view)
                estimates.append(estimate)
                problems[localizer.odometry_problem] += 1
            except (ImageError, OutOfOrderError) as error:
                dropped[type(error).__name__] += 1
                last[type(error).__name__] = error
        warn_if_unused(bag, track, np.array([e.stamp for e in estimates], np.int64))
        warn_if_not_credible(bag, problems, localizer.odometry_scale)
    if smoother is not None:
        estimates = [_refined(estimate, view, refiner)
                     for estimate, view in zip(smoother.smoothed(), views, strict=True)]
    if check.warning and estimates:
        log.warning('%s: %s', bag_path, check.warning)
    for cause, count in dropped.items():
        log.warning('%s: %d frames dropped (%s), the last one: %s', bag_path, count, cause,
                    last[cause])
    if not estimates:
        raise SourceError(f'{bag_path}: no frame on {topic} can be used: '
                          f'{next(iter(last.values()), "it has no frames")}')
    return ReplayedDrive(estimates, dropped, time.perf_counter() - begin)


def _refined(estimate: Estimate, view: View | None, refiner: Refiner | None) -> Estimate:
    """Return the estimate with its pose refined by a view of its image, if there are both."""
    return estimate if refiner is None or view is None else refiner.refine(estimate, view)


def bag_refiner(bag_path: str | Path, place_map: PlaceMap, *, image_topic: str | None = None,
                features: str | Path | None = None, mount: Floats | None = None,
                uneven_ground: bool = False) -> Refiner | None:
    """
    Return what refines the poses of a bag on a map; None, with one line in the log, without it.

    `features` is the network of the map's landmarks, by default the bundled one, or SIFT for a
    map of SIFT's; `mount` the camera's pose on the robot (7,) in optical axes, by default that of
    /tf_static. On `uneven_ground` height, roll and pitch are refined, too. Raises MapError when
    the map's landmarks are of other features.
    """
    if place_map.landmarks is None:
        return None
    with Bag(bag_path) as bag:
        topic = bag.image_topic(image_topic)
        camera = bag.camera(topic)
        problem = 'it has no CameraInfo' if camera is None else camera.problem
        if mount is None and not problem:
            try:
                mount = bag.mount(topic, place_map.manifest.child_frame_id)
            except SourceError as error:
                problem = str(error)
    if camera is None or mount is None or problem:
        log.info('%s: poses are those of places, not refined by the landmarks of the map: %s',
                 bag_path, problem)
        return None
    found_by = open_features(features, known=place_map.landmarks.identity.features)
    return Refiner(place_map, found_by, camera, mount, flat=not uneven_ground)


def write_drive(drive: ReplayedDrive, output: str | Path, frame_id: str, *, overwrite: bool = False
                ) -> None:
    """
    Write a drive to the directory `output`, whole or not at all.

    trajectory.tum holds the trusted poses; estimates.csv has every frame, trusted or not; poses/
    is a rosbag2 with `/vpr_localizer/pose` and `/vpr_localizer/confidence` as the node would
    publish them.
    """
    estimates = drive.estimates
    with whole_directory(output, ESTIMATES, overwrite=overwrite) as part:
        pose_files.write_tum(part / 'trajectory.tum', drive.stamps[drive.trusted],
                             drive.poses[drive.trusted])
        pose_files.write_csv(
            part / ESTIMATES, [str(e.stamp) for e in estimates], drive.poses,
            header='stamp_ns', extra={
                'confidence': [f'{e.confidence:.4f}' for e in estimates],
                'place': [int(e.candidates.places[0]) for e in estimates],
                'similarity': [f'{e.candidates.similarity[0]:.4f}' for e in estimates],
                'inliers': [e.inliers for e in estimates],
                **_place_columns(estimates),
                'protection_level': [f'{e.protection_level:.3f}' for e in estimates],
                'reason': [e.reason.value if e.reason else '' for e in estimates]})
        with BagWriter(part / 'poses') as bag:
            for estimate in estimates:
                if estimate.trusted:
                    bag.write('/vpr_localizer/pose', messages.pose_with_covariance(
                        bag.types, estimate.stamp, frame_id, estimate.pose, estimate.covariance),
                        estimate.stamp)
                bag.write('/vpr_localizer/confidence',
                          messages.float32(bag.types, estimate.confidence), estimate.stamp)


def _place_columns(estimates: list[Estimate]) -> dict[str, list[str]]:
    """Return the columns of the poses before they were refined, as numbers in metres."""
    before = [e.pose if e.place_pose is None else e.place_pose for e in estimates]
    return {f'place_{axis}': [f'{pose[number]:.4f}' for pose in before]
            for number, axis in enumerate('xyz')}


def read_estimates(replayed: str | Path) -> Estimates:
    """
    Read the estimates.csv of a directory that `write_drive` wrote; covariances are not in it.

    Raises FileNotFoundError when there is none, SourceError when it is damaged.
    """
    path = Path(replayed) / ESTIMATES
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: {replayed} is no output of vpr replay')
    with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    try:
        return Estimates(
            stamps=np.array([int(row['stamp_ns']) for row in rows], np.int64),
            poses=np.array([[float(row[axis]) for axis in ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')]
                            for row in rows]),
            covariances=np.full((len(rows), 6, 6), np.nan),
            confidence=np.array([float(row['confidence']) for row in rows]),
            reasons=tuple(row['reason'] for row in rows),
            inliers=np.array([int(row.get('inliers', 0)) for row in rows], np.int64),
            place_positions=np.array([[float(row.get(f'place_{axis}', row[axis]))
                                       for axis in ('x', 'y', 'z')] for row in rows]),
            protection_levels=np.array([float(row.get('protection_level', math.inf))
                                        for row in rows]),
            candidates=np.array([[int(row['place'])] for row in rows], np.int64),
            similarity=np.array([[float(row['similarity'])] for row in rows], np.float32))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f'{path} is damaged or not of vpr replay ({error})') from error
