"""Run a bag through the Localizer as fast as it goes, without middleware."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import logging
from pathlib import Path
import time
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import poses
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import OutOfOrderError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.files import whole_directory
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag import BagWriter
from vpr_ros.offline.descriptors import encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.localization.localizer import Localizer

ESTIMATES = 'estimates.csv'

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drive:
    """What came of a bag: an estimate per usable frame, and the seconds it all took."""

    estimates: list[Estimate]
    dropped: Counter[str]
    seconds: float

    @property
    def stamps(self) -> NDArray[np.int64]:
        """The stamps (N,) of the frames, in ns."""
        return np.array([e.stamp for e in self.estimates], np.int64)

    @property
    def poses(self) -> NDArray[np.float64]:
        """The estimated poses (N,7), trusted or not."""
        return np.array([e.pose for e in self.estimates])

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """Which of the estimates (N,) are trusted."""
        return np.array([e.trusted for e in self.estimates])


def replay(bag_path: str | Path, localizer: Localizer, *, image_topic: str | None = None,
           odometry_topic: str | None = None, odometry: bool = True) -> Drive:
    """
    Localise every frame of a bag, in order; bad frames are counted by cause, and logged.

    Odometry comes from `odometry_topic`, or the first one of the bag, if it has any and unless
    `odometry` is false. Raises SourceError when the bag has no images, or none can be used.
    """
    estimates: list[Estimate] = []
    dropped: Counter[str] = Counter()
    last: dict[str, Exception] = {}
    begin = time.perf_counter()
    with Bag(bag_path) as bag:
        topic = bag.image_topic(image_topic)
        track = bag.odometry(odometry_topic) if odometry else None
        for stamp, descriptor in tqdm(encoded(bag.images(topic), localizer.encoder),
                                      total=bag.count(topic), desc=Path(bag_path).name,
                                      unit='frame', disable=None):
            try:
                estimates.append(localizer.locate(
                    descriptor.result(), stamp, poses.at(track, stamp)))
            except (ImageError, OutOfOrderError) as error:
                dropped[type(error).__name__] += 1
                last[type(error).__name__] = error
    for cause, count in dropped.items():
        log.warning('%s: %d frames dropped (%s), the last because: %s', bag_path, count, cause,
                    last[cause])
    if not estimates:
        raise SourceError(f'{bag_path}: not one frame on {topic} can be used: '
                          f'{next(iter(last.values()), "it has none")}')
    return Drive(estimates, dropped, time.perf_counter() - begin)


def write_drive(drive: Drive, output: str | Path, frame_id: str, *, overwrite: bool = False
                ) -> None:
    """
    Write a drive to the directory `output`, whole or not at all.

    trajectory.tum holds the trusted poses; estimates.csv every frame, trusted or not; poses/ is
    a rosbag2 with `/vpr_localizer/pose` and `/vpr_localizer/confidence` as the node would send.
    """
    every = drive.estimates
    with whole_directory(output, ESTIMATES, overwrite=overwrite) as part:
        poses.write_tum(part / 'trajectory.tum', drive.stamps[drive.trusted],
                        drive.poses[drive.trusted])
        poses.write_csv(
            part / ESTIMATES, [str(e.stamp) for e in every], drive.poses,
            header='stamp_ns', extra={
                'confidence': [f'{e.confidence:.4f}' for e in every],
                'place': [int(e.candidates.places[0]) for e in every],
                'similarity': [f'{e.candidates.similarity[0]:.4f}' for e in every],
                'reason': [e.reason.value if e.reason else '' for e in every]})
        with BagWriter(part / 'poses') as bag:
            for estimate in every:
                if estimate.trusted:
                    bag.write('/vpr_localizer/pose', messages.pose_with_covariance(
                        bag.types, estimate.stamp, frame_id, estimate.pose, estimate.covariance),
                        estimate.stamp)
                bag.write('/vpr_localizer/confidence',
                          messages.float32(bag.types, estimate.confidence), estimate.stamp)
