"""
Build a map from the drives of one or more sources, one after another or side by side.

Where frames come from is in sources.py, what a map is in place_map.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from functools import partial
import logging
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import images
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.encoding import hardware
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.parallel import in_processes
from vpr_ros.io.prefetch import prefetch
from vpr_ros.io.sources import check_same_frames
from vpr_ros.io.sources import is_new_place
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.descriptors import BATCH
from vpr_ros.offline.self_calibrate import self_calibrated

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.io.sources import Frame
    from vpr_ros.io.sources import Source

log = logging.getLogger(__name__)

_THUMBNAIL_HEIGHT = 120
_REPORT = 32
"""Frames after which a process says how far it is."""


@dataclass(frozen=True)
class Places:
    """
    The places of one drive.

    descriptors float32 (N,D) of unit norm; stamps int64 (N,) ns; poses float64 (N,7); thumbnails
    N JPEG files, or none.
    """

    source: str
    frames: tuple[str, str]
    descriptors: NDArray[np.float32]
    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    thumbnails: list[bytes]

    def __len__(self) -> int:
        return len(self.stamps)


def build_map(sources: Sequence[AbstractContextManager[Source]], encoder: Encoder, *,
              conditions: Sequence[str] = (), spacing: float = defaults.SPACING,
              index: str = defaults.INDEX, thumbnails: bool = True, self_calibrate: bool = True,
              jobs: int = 1) -> PlaceMap:
    """
    Make a map of all sources, each a session, with a place every `spacing` metres.

    Its confidence is fitted to drives simulated on the map itself (self_calibrate.py), unless
    `self_calibrate` is false. `conditions` names each session's season or light. With more `jobs`
    than one, as many sources are read at once, each in a process with an encoder of its own; they
    must then come from `open_source`, and the map is the same. Images are kept for no longer than
    a few batches take, however long the sources are.

    Frames whose picture is bad are left out, counted and logged. Raises SourceError when no place
    is left or the sources' frames of reference differ.
    """
    drives: list[Places] = []
    if min(jobs, len(sources)) > 1:
        drives = _in_parallel(sources, encoder, spacing, jobs, thumbnails=thumbnails)
    else:
        for opened in sources:
            drives.append(_places(opened, encoder, spacing, thumbnails=thumbnails,
                                  before=[drive.frames for drive in drives]))
    check_same_frames({drive.frames for drive in drives})
    frame_id, child_frame_id = drives[0].frames
    sessions = tuple(Session(drive.source, conditions[number] if conditions else 'unknown')
                     for number, drive in enumerate(drives))
    manifest = Manifest(ModelIdentity.of(encoder), sessions, frame_id, child_frame_id,
                        spacing, index)
    place_map = PlaceMap.build(
        np.concatenate([drive.descriptors for drive in drives]),
        np.concatenate([drive.stamps for drive in drives]),
        np.concatenate([drive.poses for drive in drives]),
        np.repeat(np.arange(len(drives), dtype=np.int32), [len(drive) for drive in drives]),
        manifest, [jpeg for drive in drives for jpeg in drive.thumbnails])
    if not self_calibrate:
        return place_map
    return place_map.calibrated(self_calibrated(place_map, encoder))


def _in_parallel(sources: Sequence[AbstractContextManager[Source]], encoder: Encoder,
                 spacing: float, jobs: int, *, thumbnails: bool) -> list[Places]:
    jobs = min(jobs, len(sources))
    threads = max(1, hardware.cores() // jobs)
    work = partial(_places_in_process, model=(encoder.path, encoder.provider, threads),
                   spacing=spacing, thumbnails=thumbnails)
    with tqdm(desc=f'{len(sources)} sources', unit='frame', disable=None) as bar:
        return in_processes(work, sources, jobs, bar.update)


def _places_in_process(opened: AbstractContextManager[Source], report: Callable[[int], object], *,
                       model: tuple[Path, str, int], spacing: float, thumbnails: bool) -> Places:
    return _places(opened, Encoder(*model, throughput=True), spacing, thumbnails=thumbnails,
                   report=report)


def _places(opened: AbstractContextManager[Source], encoder: Encoder, spacing: float, *,
            thumbnails: bool, report: Callable[[int], object] | None = None,
            before: Sequence[tuple[str, str]] = ()) -> Places:
    """
    Read one source to its end; what is read goes to `report`, or to a bar of its own.

    Raises SourceError at once when its frames of reference are not those of the sources `before`.
    """
    stamps: list[int] = []
    places: list[NDArray[np.float64]] = []
    descriptors: list[NDArray[np.float32]] = []
    jpegs: list[bytes] = []
    with opened as source:
        references = source.frame_id, source.child_frame_id
        check_same_frames({*before, references})
        frames: Iterable[Frame] = (
            _reported(source.frames, report) if report is not None
            else tqdm(source.frames, total=source.count, desc=source.name, unit='frame',
                      disable=None))
        batches = _batches(source.name, frames, encoder, spacing, thumbnails=thumbnails)
        # Reading and decoding go on here while the network is at the batches before.
        for batch, future in prefetch(lambda batch: encoder.encode_batch(batch.pictures), batches,
                                      depth=encoder.concurrency + 1, threads=encoder.concurrency):
            descriptors.append(future.result())
            stamps += batch.stamps
            places += batch.poses
            jpegs += batch.thumbnails
        if not stamps:
            raise SourceError(f'{source.name} gives no place: it has no usable frame')
        return Places(source.name, references, np.concatenate(descriptors),
                      np.array(stamps, np.int64), np.array(places), jpegs)


@dataclass
class _Batch:
    """Frames that become places, their pictures uint8 (H,W,3) of the model's size."""

    stamps: list[int] = field(default_factory=list)
    poses: list[NDArray[np.float64]] = field(default_factory=list)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)


def _batches(name: str, frames: Iterable[Frame], encoder: Encoder, spacing: float, *,
             thumbnails: bool) -> Iterator[_Batch]:
    """Yield batches of frames `spacing` metres apart."""
    batch = _Batch()
    last: NDArray[np.float64] | None = None
    min_size = max(encoder.height, _THUMBNAIL_HEIGHT), encoder.width
    bad = 0
    for frame in frames:
        if not is_new_place(frame.pose, last, spacing):
            continue
        try:
            picture = frame.load(min_size=min_size)
        except ImageError as error:
            bad += 1
            log.debug('%s: %s', frame.name, error)
            continue
        batch.stamps.append(frame.stamp)
        batch.poses.append(frame.pose)
        batch.pictures.append(images.resize(picture, *encoder.size))
        if thumbnails:
            batch.thumbnails.append(
                images.encode_jpeg(images.to_height(picture, _THUMBNAIL_HEIGHT), 80))
        last = frame.pose
        if len(batch.stamps) == BATCH:
            yield batch
            batch = _Batch()
    if batch.stamps:
        yield batch
    if bad:
        log.warning('%s: %d frames left out: their pictures are damaged or of a wrong size',
                    name, bad)


def _reported(frames: Iterable[Frame], report: Callable[[int], object]) -> Iterator[Frame]:
    for number, frame in enumerate(frames, 1):
        yield frame
        if number % _REPORT == 0:
            report(_REPORT)
