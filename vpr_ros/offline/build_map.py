"""Build a map from the drives of one or more sources."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros import defaults
from vpr_ros import images
from vpr_ros.errors import ImageError
from vpr_ros.errors import SourceError
from vpr_ros.offline.rehearse import rehearsed
from vpr_ros.place_map import Manifest
from vpr_ros.place_map import ModelIdentity
from vpr_ros.place_map import PlaceMap
from vpr_ros.place_map import Session
from vpr_ros.sources import check_same_frames
from vpr_ros.sources import is_new_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from vpr_ros.encoder import Encoder
    from vpr_ros.sources import Frame
    from vpr_ros.sources import Source

log = logging.getLogger(__name__)

BATCH = 8
_THUMBNAIL_HEIGHT = 120


def build_map(sources: Sequence[AbstractContextManager[Source]], encoder: Encoder, *,
              conditions: Sequence[str] = (), spacing: float = defaults.SPACING,
              index: str = 'flat', thumbnails: bool = True, rehearse: bool = True) -> PlaceMap:
    """Make a map of all sources, each a session, with a place every `spacing` metres.

    Its confidence is fitted by rehearsing on the map itself (calibrate.py), unless `rehearse` is
    false.

    `conditions` names each session's season or light. Frames whose picture is bad are left out,
    counted and logged. Raises SourceError when no place is left or the sources' frames of
    reference differ.
    """
    descriptors: list[NDArray[np.float32]] = []
    stamps: list[int] = []
    places: list[NDArray[np.float64]] = []
    sessions: list[int] = []
    jpegs: list[bytes] = []
    names: list[Session] = []
    references: set[tuple[str, str]] = set()
    for number, opened in enumerate(sources):
        with opened as source:
            references.add((source.frame_id, source.child_frame_id))
            check_same_frames(references)
            names.append(Session(source.name, conditions[number] if conditions else 'unknown'))
            for frames, pictures in _batches(source, spacing):
                descriptors.append(encoder.encode_batch(pictures))
                stamps += [frame.stamp for frame in frames]
                places += [frame.pose for frame in frames]
                sessions += [number] * len(frames)
                if thumbnails:
                    jpegs += [images.encode_jpeg(images.to_height(picture, _THUMBNAIL_HEIGHT), 80)
                              for picture in pictures]
        if number not in sessions[-1:]:
            raise SourceError(f'{names[-1].source} gives no place: it has no usable frame')
    frame_id, child_frame_id = references.pop()
    manifest = Manifest(ModelIdentity.of(encoder), tuple(names), frame_id, child_frame_id,
                        spacing, index)
    place_map = PlaceMap.build(np.concatenate(descriptors), np.array(stamps), np.array(places),
                               np.array(sessions, np.int32), manifest, jpegs)
    if not rehearse:
        return place_map
    return place_map.calibrated(rehearsed(place_map, encoder))


def _batches(source: Source, spacing: float
             ) -> Iterator[tuple[list[Frame], list[NDArray[np.uint8]]]]:
    """Yield batches of frames `spacing` metres apart and their pictures."""
    frames: list[Frame] = []
    pictures: list[NDArray[np.uint8]] = []
    last: NDArray[np.float64] | None = None
    bad = 0
    for frame in tqdm(source.frames, total=source.count, desc=source.name, unit='frame',
                      disable=None):
        if not is_new_place(frame.pose, last, spacing):
            continue
        try:
            pictures.append(frame.load())
        except ImageError as error:
            bad += 1
            log.debug('%s: %s', frame.name, error)
            continue
        frames.append(frame)
        last = frame.pose
        if len(frames) == BATCH:
            yield frames, pictures
            frames, pictures = [], []
    if frames:
        yield frames, pictures
    if bad:
        log.warning('%s: %d frames left out: their pictures are damaged or of a wrong size',
                    source.name, bad)
