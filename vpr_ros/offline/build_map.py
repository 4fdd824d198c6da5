"""
Build a map from one or more sources, one after another or in parallel.

Where frames come from is in io/sources.py, what a map is in maps/place_map.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
import logging
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core import geodesy
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.encoding import hardware
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.frames import check_same_frames
from vpr_ros.io.frames import is_new_place
from vpr_ros.io.frames import LeftOut
from vpr_ros.io.frames import some_of
from vpr_ros.io.parallel import in_processes
from vpr_ros.io.prefetch import prefetch
from vpr_ros.maps.camera_check import camera_of_images
from vpr_ros.maps.camera_check import CameraCheck
from vpr_ros.maps.landmarks import Landmarks
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.projection import possible
from vpr_ros.maps.projection import projected
from vpr_ros.offline.descriptors import BATCH
from vpr_ros.offline.self_calibrate import self_calibrated
from vpr_ros.offline.triangulate import triangulator_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.core.geodesy import Datum
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.io.frames import Frame
    from vpr_ros.io.frames import Source
    from vpr_ros.offline.triangulate import Triangulator

log = logging.getLogger(__name__)

_THUMBNAIL_HEIGHT = 120
_STANDING = 0.02  # m between frames
_MANY = 20
"""Steps without motion that make poses suspect: in degrees or km, or of a robot that stands."""
_REPORT = 32
"""Frames after which a process reports its progress."""


@dataclass(frozen=True)
class Places:
    """
    The places of one source.

    `frames` are the frame_id and child_frame_id of its poses; descriptors float32 (N,D) of unit
    norm; stamps int64 (N,) ns; poses float64 (N,7); thumbnails N JPEG files, or none. Of the
    `camera` at least the ratio of its sides is known; `datum` is the origin of the positions, if
    that is known. aggregates float16 (N,A), A = 0 where no projection is to be fitted to them.
    Landmarks are points (L,3), descriptors int8 (L,D) and an error in rad of each place, or none
    at all.
    """

    source: str
    frames: tuple[str, str]
    descriptors: NDArray[np.float32]
    aggregates: NDArray[np.float16]
    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    thumbnails: list[bytes]
    camera: Camera
    datum: Datum | None = None
    landmark_points: list[NDArray[np.float64]] = field(default_factory=list)
    landmark_descriptors: list[NDArray[np.int8]] = field(default_factory=list)
    landmark_errors: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stamps)


@dataclass(frozen=True)
class Kept:
    """
    What is kept of each place beside its descriptor.

    A thumbnail, the aggregate, and landmarks of some features, or None for none.
    """

    thumbnails: bool
    aggregates: bool
    features: Extractor | None


def build_map(sources: Sequence[AbstractContextManager[Source]], encoder: Encoder, *,
              conditions: Sequence[str] = (), spacing: float = defaults.SPACING,
              index: str = defaults.INDEX, thumbnails: bool = True, self_calibrate: bool = True,
              jobs: int = 1, projection: str = defaults.PROJECTION,
              features: Extractor | None = None) -> PlaceMap:
    """
    Build a map of all sources, each a session, with a place every `spacing` metres.

    Its confidence is calibrated on simulated drives (self_calibrate.py), unless `self_calibrate`
    is false. `conditions` names each session's season or light. With `jobs` above 1, that many
    sources are read at once, each in a process with an encoder of its own; they must then come
    from `open_source`, and the map is the same. Few batches of images are in memory at a time,
    however long the sources are. With `features` the map has landmarks, for metric poses, if all
    sources have a calibrated camera whose pose on the robot is known.

    `projection` is one of defaults.PROJECTIONS (maps/projection.py); to fit one takes 4 A bytes of
    memory for each place, with A values of the model's aggregate. A model without has none.

    Frames whose image is bad are left out, counted and logged. Raises SourceError when no place
    is left or the sources' frames of reference differ.
    """
    if spacing > defaults.CORRECT_RADIUS:
        log.warning('places %g m apart: images between them may look like none of them, and poses '
                    'are as far off: take 1 to 2 m, and at most 5 m for a long road', spacing)
    encoder = encoder.projected(None)
    projection = possible(projection, encoder)
    kept = Kept(thumbnails, projection != 'model', features)
    if min(jobs, len(sources)) > 1:
        sessions = _in_parallel(sources, encoder, spacing, jobs, kept)
    else:
        sessions = _in_turn(sources, encoder, spacing, kept)
    check_same_frames({places.frames for places in sessions})
    sessions = _with_one_datum(sessions)
    _warn_of_cameras(sessions)
    frame_id, child_frame_id = sessions[0].frames
    names = conditions or ['unknown'] * len(sessions)
    manifest = Manifest(
        ModelIdentity.of(encoder),
        tuple(Session(places.source, name) for places, name in zip(sessions, names, strict=True)),
        frame_id, child_frame_id, spacing, index, datum=sessions[0].datum,
        cameras=tuple(dict.fromkeys(places.camera for places in sessions)))
    place_map = _joined(sessions, manifest, projection)
    without = [places.source for places in sessions if not places.landmark_points]
    if features is not None and 0 < len(without) < len(sessions):
        log.warning('the map has no landmarks: %s has none', some_of(without))
    if features is not None and not without:
        place_map = place_map.with_landmarks(Landmarks.of(
            features.digest, [points for places in sessions for points in places.landmark_points],
            [each for places in sessions for each in places.landmark_descriptors],
            [error for places in sessions for error in places.landmark_errors]))
    if not self_calibrate:
        return place_map
    return place_map.calibrated(self_calibrated(place_map, encoder))


def _with_one_datum(sessions: list[Places]) -> list[Places]:
    """Return sessions with positions from the first one's datum, which all or none must have."""
    first = sessions[0].datum
    if any((places.datum is None) != (first is None) for places in sessions):
        raise SourceError('the sources have poses in different frames: some are from the fixes of '
                          'a GPS, others are not')
    moved = []
    for places in sessions:
        if places.datum is not None and first is not None and places.datum != first:
            # Within a site, north is the same direction for both, to a hundredth of a degree.
            position = geodesy.moved(places.poses[:, :3], places.datum, first)
            places = replace(
                places, datum=first,
                poses=np.concatenate([position, places.poses[:, 3:]], axis=1),
                landmark_points=[geodesy.moved(points, places.datum, first)
                                 for points in places.landmark_points])
        moved.append(places)
    return moved


def _warn_of_cameras(sessions: Sequence[Places]) -> None:
    check = CameraCheck([sessions[0].camera])
    for places in sessions[1:]:
        if problem := check.problem(places.camera):
            log.warning('%s: %s', places.source, problem)


def _joined(sessions: Sequence[Places], manifest: Manifest, kind: str) -> PlaceMap:
    numbers = np.repeat(np.arange(len(sessions), dtype=np.int32),
                        [len(places) for places in sessions])
    descriptors, projection = projected(
        np.concatenate([places.descriptors for places in sessions]),
        np.concatenate([places.aggregates for places in sessions]), numbers, kind)
    return PlaceMap.build(
        descriptors, np.concatenate([places.stamps for places in sessions]),
        np.concatenate([places.poses for places in sessions]), numbers, manifest,
        [jpeg for places in sessions for jpeg in places.thumbnails], projection)


def _in_turn(sources: Sequence[AbstractContextManager[Source]], encoder: Encoder, spacing: float,
             kept: Kept) -> list[Places]:
    sessions: list[Places] = []
    for source in sources:
        sessions.append(_places(source, encoder, spacing, kept,
                                before=[places.frames for places in sessions]))
    return sessions


def _in_parallel(sources: Sequence[AbstractContextManager[Source]], encoder: Encoder,
                 spacing: float, jobs: int, kept: Kept) -> list[Places]:
    jobs = min(jobs, len(sources))
    threads = max(1, hardware.cores() // jobs)
    if kept.features is not None:
        kept = replace(kept, features=kept.features.limited(threads))
    work = partial(_places_in_process, model=(encoder.path, encoder.provider, threads),
                   spacing=spacing, kept=kept)
    with tqdm(desc=f'{len(sources)} sources', unit='frame', disable=None) as bar:
        return in_processes(work, sources, jobs, bar.update, threads=threads)


def _places_in_process(opened: AbstractContextManager[Source], report: Callable[[int], object], *,
                       model: tuple[Path, str, int], spacing: float, kept: Kept) -> Places:
    cv2.setNumThreads(model[2])
    return _places(opened, Encoder(*model, throughput=True), spacing, kept, report=report)


def _places(opened: AbstractContextManager[Source], encoder: Encoder, spacing: float, kept: Kept,
            *, report: Callable[[int], object] | None = None,
            before: Sequence[tuple[str, str]] = ()) -> Places:
    """
    Return the places of one source; progress goes to `report`, or to a bar of its own.

    Raises SourceError at once when its frames of reference are not those of the sources `before`.
    """
    stamps: list[int] = []
    places: list[NDArray[np.float64]] = []
    descriptors: list[NDArray[np.float32]] = []
    aggregates: list[NDArray[np.float16]] = []
    jpegs: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    with opened as source:
        references = source.frame_id, source.child_frame_id
        check_same_frames({*before, references})
        frames: Iterable[Frame] = (
            _reported(source.frames, report) if report is not None
            else tqdm(source.frames, total=source.count, desc=source.name, unit='frame',
                      disable=None))
        left_out = LeftOut()
        triangulator = (None if kept.features is None
                        else triangulator_of(source, kept.features))
        batches = _batches(source.name, frames, encoder, spacing, left_out,
                           thumbnails=kept.thumbnails, triangulator=triangulator)
        network = encoder.with_aggregate() if kept.aggregates else encoder

        def encode(batch: _Batch) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
            vectors = network.encode_batch(batch.rgb)
            return (vectors[:, :encoder.dimension].copy(),
                    vectors[:, encoder.dimension:].astype(np.float16))

        # The next batches are read and decoded here while the network runs in other threads.
        for batch, future in prefetch(encode, batches, depth=encoder.concurrency + 1,
                                      threads=encoder.concurrency):
            own, aggregate = future.result()
            descriptors.append(own)
            aggregates.append(aggregate)
            stamps += batch.stamps
            places += batch.poses
            jpegs += batch.thumbnails
            sizes += batch.sizes
        if not stamps:
            raise SourceError(f'{source.name} gives no place: '
                              f'{left_out or "it has no usable frame"}')
        if left_out:
            log.warning('%s: %s', source.name, left_out)
        landmarks = triangulator.finish(source.name) if triangulator else ([], [], [])
        return Places(source.name, references, np.concatenate(descriptors),
                      np.concatenate(aggregates), np.array(stamps, np.int64), np.array(places),
                      jpegs, camera_of_images(source.camera, sizes[0]), source.datum, *landmarks)


@dataclass
class _Batch:
    """
    Frames that become places; their images uint8 (H,W,3), of the model's input size.

    `sizes` are the images' own heights and widths, perhaps both halved.
    """

    stamps: list[int] = field(default_factory=list)
    poses: list[NDArray[np.float64]] = field(default_factory=list)
    rgb: list[NDArray[np.uint8]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)


def _batches(name: str, frames: Iterable[Frame], encoder: Encoder, spacing: float,
             left_out: LeftOut, *, thumbnails: bool, triangulator: Triangulator | None
             ) -> Iterator[_Batch]:
    """
    Yield batches of frames `spacing` metres apart; those with a bad image are `left_out`.

    The triangulator, if any, is fed their images as they are.
    """
    batch = _Batch()
    last: NDArray[np.float64] | None = None
    previous: NDArray[np.float64] | None = None
    steps: list[float] = []
    min_size = max(encoder.height, _THUMBNAIL_HEIGHT), encoder.width
    for frame in frames:
        if previous is not None:
            steps.append(float(poses.distance(frame.pose, previous)))
        previous = frame.pose
        if not is_new_place(frame.pose, last, spacing):
            continue
        try:
            rgb = frame.load(min_size=min_size)
            fitted = encoder.fitted(rgb)
            if triangulator is not None:
                triangulator.add(frame.load(), frame.pose)
        except ImageError as error:
            left_out.add(error)
            log.debug('%s: %s', frame.name, error)
            continue
        batch.stamps.append(frame.stamp)
        batch.poses.append(frame.pose)
        batch.rgb.append(fitted)
        batch.sizes.append((rgb.shape[0], rgb.shape[1]))
        if thumbnails:
            batch.thumbnails.append(
                images.encode_jpeg(images.to_height(rgb, _THUMBNAIL_HEIGHT), 80))
        last = frame.pose
        if len(batch.stamps) == BATCH:
            yield batch
            batch = _Batch()
    if batch.stamps:
        yield batch
    moving = [step for step in steps if step > _STANDING]
    if len(steps) >= _MANY and not moving:
        log.warning('%s: its %d poses never move: they are of a robot that stands, or not in '
                    'metres', name, len(steps) + 1)
    if spacing > 0 and moving and np.median(moving) > 1.2 * spacing:
        log.warning('%s: its images are %.2f m apart (median), more than the spacing of %g m: '
                    'drive slower, or record more images a second', name, np.median(moving),
                    spacing)


def _reported(frames: Iterable[Frame], report: Callable[[int], object]) -> Iterator[Frame]:
    for number, frame in enumerate(frames, 1):
        yield frame
        if number % _REPORT == 0:
            report(_REPORT)
