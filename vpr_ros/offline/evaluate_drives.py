"""
Evaluate drives through a map: frames with true poses, or the output of `vpr replay`.

Sets of images are evaluated in evaluate_images.py, scored in short in drive_score.py.
"""

from __future__ import annotations

from dataclasses import dataclass
import logging
import math
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core import metrics
from vpr_ros.core import pose_track
from vpr_ros.core import poses
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.maps.camera_check import CameraCheck
from vpr_ros.offline.descriptors import describe_frames
from vpr_ros.offline.descriptors import preview
from vpr_ros.offline.descriptors import PREVIEW_HEIGHT
from vpr_ros.offline.evaluation import Evaluation
from vpr_ros.offline.evaluation import nearest_right_places
from vpr_ros.offline.evaluation import References
from vpr_ros.offline.localize_queries import localize_queries
from vpr_ros.offline.localize_queries import ONE_DRIVE
from vpr_ros.offline.replay import read_estimates

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.frames import Source
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.evaluation import Estimates
    from vpr_ros.offline.localize_queries import EvaluationOptions

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

_ROUNDED = 1e-4
"""How exactly the output of a replay has the confidence."""


@dataclass(frozen=True)
class _Tolerance:
    """How far, in metres and in degrees, a right pose may be from the true one."""

    metres: float
    degrees: float

    def __str__(self) -> str:
        return f'{self.metres:g} m' + (f', {self.degrees:g} degrees' if self.degrees < 180 else '')

    def accepts(self, estimated: Floats, true: Floats) -> NDArray[np.bool_]:
        """Return which of the poses (...,7) are right, broadcast against the true ones."""
        return np.asarray((poses.distance(estimated, true) <= self.metres)
                          & (poses.angle(estimated, true) <= math.radians(self.degrees)))

    def right_places(self, places: Floats, true: Floats) -> list[list[int]]:
        """Return, for each true pose (Q,7), the places, of poses (N,7), that are right for it."""
        right = []
        for pose in true:
            near = np.flatnonzero(poses.distance(places, pose) <= self.metres)
            right.append(near[self.accepts(places[near], pose)].tolist())
        return right


def evaluate_drive(place_map: PlaceMap, source: Source, encoder: Encoder,
                   options: EvaluationOptions = ONE_DRIVE, *,
                   tolerance: float = defaults.CORRECT_RADIUS, degrees: float = 180.0
                   ) -> Evaluation:
    """
    Evaluate a drive through a map: a source of frames with poses, a bag or a folder.

    A pose is right within `tolerance` metres and `degrees` of the truth. There is no odometry: for
    a drive with it, replay the bag and evaluate that. Frames of another camera than the map's are
    left out. Raises SourceError when no frame is left, or its poses are in another frame of
    reference than the map's.
    """
    if source.frame_id != place_map.manifest.frame_id:
        raise SourceError(f"{source.name}: its poses are in '{source.frame_id}', the map's in "
                          f"'{place_map.manifest.frame_id}'")
    encoder = encoder.projected(place_map.projection)
    place_map = options.centred(place_map)
    within = _Tolerance(tolerance, degrees)
    check = CameraCheck(place_map.manifest.cameras, source.camera)
    frames, descriptors, seconds = describe_frames(source, encoder, camera_check=check)
    if check.warning:
        log.warning('%s: %s', source.name, check.warning)
    estimates, located = localize_queries(
        place_map, encoder, descriptors, [frame.stamp for frame in frames], options, tolerance,
        source.name)
    return _evaluation(
        place_map, estimates, np.array([frame.pose for frame in frames]), within,
        query_names=tuple(frame.name for frame in frames),
        query_image=lambda query: frames[query].load(),
        min_confidence=options.min_confidence, use_filter=options.use_filter,
        stage_seconds={**seconds, 'locate': located},
        about={'map': f'{len(place_map)} places', 'drive': source.name, 'model': encoder.digest,
               **options.about})


def evaluate_replay(replayed: str | Path, place_map: PlaceMap, truth: pose_track.PoseTrack, *,
                    tolerance: float = defaults.CORRECT_RADIUS, degrees: float = 180.0,
                    min_confidence: float = defaults.MIN_CONFIDENCE,
                    read_frames: Callable[[], Mapping[int, bytes]] = dict) -> Evaluation:
    """
    Evaluate the output of `vpr replay` by the true poses of that drive.

    Frames without a true pose are left out. There is one candidate a frame, and no covariance.
    `read_frames` returns images for a report by their stamp, as `frames_of` does. Raises
    FileNotFoundError or SourceError for a folder that is not one of a replay, and SourceError for
    a replay on another map, or when the truth covers none of its frames.
    """
    estimates = read_estimates(replayed)
    if len(estimates) and estimates.candidates.max() >= len(place_map):
        raise SourceError(f'{replayed} names place {estimates.candidates.max()}, the map has '
                          f'{len(place_map)}: it was replayed on another map')
    true_poses, known = pose_track.interpolate(truth, estimates.stamps)
    if not known.any():
        raise SourceError(f'the ground truth covers none of the frames of {replayed}')
    estimates = estimates.take(np.flatnonzero(known))
    lowest = float(estimates.confidence[estimates.published].min(initial=1.0))
    if lowest < min_confidence - _ROUNDED:
        log.warning('%s was replayed with a lower --min-confidence: what it published, from %.3f '
                    'on, counts as localised', replayed, lowest)
        min_confidence = lowest
    frames = read_frames()
    if frames and not any(stamp in frames for stamp in estimates.stamps.tolist()):
        log.warning('the report shows no frames: the images with the true poses have other stamps '
                    'than %s', replayed)

    def query_image(query: int) -> NDArray[np.uint8] | None:
        jpeg = frames.get(int(estimates.stamps[query]))
        return None if jpeg is None else images.decode(jpeg, 'the frame')

    return _evaluation(
        place_map, estimates, true_poses[known], _Tolerance(tolerance, degrees),
        query_names=tuple(f'{stamp / 1e9:.3f} s' for stamp in estimates.stamps),
        query_image=query_image, min_confidence=min_confidence, use_filter=True,
        about={'replay': str(replayed), 'map': f'{len(place_map)} places',
               'model': place_map.manifest.model.sha256})


def frames_of(path: str | Path, image_topic: str | None = None) -> dict[int, bytes]:
    """
    Return the frames of a bag as small JPEG images by their stamp in ns; none without images.

    Frames that cannot be decoded are left out. Raises SourceError when there are none on the
    `image_topic` that was named.
    """
    frames: dict[int, bytes] = {}
    with Bag(path) as bag:
        try:
            topic = bag.image_topic(image_topic)
        except SourceError:
            if image_topic is not None:
                raise
            return frames
        for stamp, message in tqdm(bag.images(topic), total=bag.count(topic), unit='frame',
                                   desc=f'{Path(path).name}: images', disable=None):
            if stamp in frames:
                continue  # the first one was localised
            try:
                rgb = messages.rgb(message, (PREVIEW_HEIGHT, PREVIEW_HEIGHT))
            except ImageError:
                continue
            frames[stamp] = preview(rgb)
    return frames


def _evaluation(place_map: PlaceMap, estimates: Estimates, true_poses: Floats, within: _Tolerance,
                **rest: Any) -> Evaluation:
    """Compare estimates with the true poses (Q,7); `rest` are the other fields of Evaluation."""
    right_places = within.right_places(place_map.poses, true_poses)
    names = tuple(f'place {number}' for number in range(len(place_map)))
    return Evaluation(
        estimates=estimates,
        references=References(poses=place_map.poses, names=names, image=place_map.thumbnail),
        true_poses=true_poses,
        true_places=nearest_right_places(place_map.poses, true_poses, right_places),
        ranks=metrics.first_right(estimates.candidates, right_places),
        right=within.accepts(estimates.poses, true_poses), tolerance=str(within), **rest)
