"""
Sources of frames with poses: a rosbag2, or a folder of images with a pose file.

A source yields its frames in order, and decodes an image only when it is loaded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextlib import contextmanager
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
import logging
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import pose_track
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.frames import Frame
from vpr_ros.io.frames import Source
from vpr_ros.io.image_folder import find_image_folder
from vpr_ros.io.image_folder import folder_source
from vpr_ros.io.map_poses import bag_poses
from vpr_ros.io.map_poses import CHECKED
from vpr_ros.io.map_poses import PoseOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray
    from vpr_ros.core.geodesy import Datum

log = logging.getLogger(__name__)


class LazySource(AbstractContextManager['Source']):
    """
    A source that a `with` block opens.

    Until then it can be pickled and sent to another process. Its string is its path.
    """

    def __init__(self, path: str | Path, **options: Any) -> None:
        self._path, self._options = Path(path), options
        self._opened: AbstractContextManager[Source] | None = None
        self._checked: AbstractContextManager[Source] | None = None

    def __str__(self) -> str:
        return str(self._path)

    def __enter__(self) -> Source:
        self._opened = self._checked or _opened(self._path, **self._options)
        return self._opened.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> bool | None:
        opened, self._opened = self._opened, None
        return opened.__exit__(kind, error, trace) if opened is not None else None

    def from_datum(self, datum: Datum | None) -> LazySource:
        """Return the source, which reads the fixes of a GPS as metres from `datum`."""
        self._options['poses'] = replace(self._options['poses'], datum=datum)
        return self

    def check(self) -> None:
        """
        Raise now what opening would raise, before long work on other sources.

        Of a bag only the topics are chosen: to read its poses may take as long as the work.
        """
        if self._path.exists() and find_image_folder(self._path) is None:
            with Bag(self._path) as bag:
                self._options |= {
                    'image_topic': bag.image_topic(self._options['image_topic']),
                    'pose_topic': bag.pose_topic(self._options['pose_topic'])}
            return
        with self as source:
            self._checked = nullcontext(source)


def open_source(path: str | Path, *, image_topic: str | None = None,
                pose_topic: str | None = None, pose_file: str | Path | None = None,
                in_order: bool = False, poses: PoseOptions = CHECKED,
                mount: NDArray[np.float64] | None = None) -> LazySource:
    """
    Return a bag or a folder of images as a source of frames with poses, to open by `with`.

    In a bag the pose of each image is interpolated at its stamp. In a folder the poses are those
    of `pose_file`, by default of its poses.csv (image,x,y,z,qx,qy,qz,qw or image,x,y,yaw) or its
    poses.tum (with images named by their stamp in seconds). Without a pose file, or with
    `in_order` instead of the default ones, the images are assumed to be one metre apart in the
    order of their names. `poses` says how they are read, and what is done about wrong ones.
    `mount` is the camera's pose on the robot (7,), in optical axes; by default that of /tf_static.
    Opening raises SourceError, PoseError or FileNotFoundError.
    """
    return LazySource(path, image_topic=image_topic, pose_topic=pose_topic, pose_file=pose_file,
                      in_order=in_order, poses=poses, mount=mount)


@contextmanager
def _opened(path: Path, *, image_topic: str | None, pose_topic: str | None,
            pose_file: str | Path | None, in_order: bool, poses: PoseOptions,
            mount: NDArray[np.float64] | None) -> Iterator[Source]:
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    folder = find_image_folder(path)
    if folder is not None:
        source = folder_source(path, folder, pose_file, poses, in_order=in_order)
        yield source if mount is None else replace(source, mount=lambda: mount)
        return
    with Bag(path) as bag:
        topic = bag.image_topic(image_topic)
        track = bag_poses(bag, pose_topic, poses)
        yield Source(path.name, _bag_frames(bag, topic, track, poses.max_gap), bag.count(topic),
                     track.frame_id, track.child_frame_id, bag.camera(topic), track.datum,
                     partial(bag.mount, topic, track.child_frame_id) if mount is None
                     else lambda: mount)


def _bag_frames(bag: Bag, topic: str, track: pose_track.PoseTrack, max_gap: float
                ) -> Iterator[Frame]:
    unknown: list[int] = []
    raw = bag.topics[topic] == messages.RAW_IMAGE
    for stamp, message in bag.images(topic):
        pose = pose_track.at(track, stamp, max_gap)
        if pose is None:
            unknown.append(stamp)
            continue
        yield Frame(stamp, pose, partial(messages.rgb, message),
                    f'frame at {stamp / 1e9:.3f} s', raw)
    if unknown:
        log.warning('%s: %d frames left out: %s', bag.path, len(unknown),
                    pose_track.why_unknown(track, np.array(unknown, np.int64), max_gap))
