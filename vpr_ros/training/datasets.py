"""
Readers of training data: one function per layout, each of which returns an ImageTable.

Folders of places, drives through one world, file names with UTM coordinates, unlabelled images,
and the procedural street.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
import logging
from pathlib import Path
import re
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import images
from vpr_ros.core import poses
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.io.frames import check_same_frames
from vpr_ros.io.frames import is_new_place
from vpr_ros.io.frames import some_of
from vpr_ros.io.ground_truth import check_metres
from vpr_ros.io.ground_truth import utm_of
from vpr_ros.io.map_poses import PoseOptions
from vpr_ros.io.sources import open_source
from vpr_ros.training.image_table import ImageTable
from vpr_ros.training.street_drives import draw
from vpr_ros.training.street_drives import JPEG_QUALITY
from vpr_ros.training.street_drives import plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.io.frames import Frame
    from vpr_ros.io.frames import Source
    from vpr_ros.training.street_drives import StreetDrives

log = logging.getLogger(__name__)

GSV_CITIES_NAME = re.compile(r'(?P<city>[A-Za-z]+)_(?P<place>\d{7})_(?P<month>\d{4}_\d{2})_\d{3}'
                             r'_-?[\d.]+_-?[\d.]+_.*')


def folders_of_places(folder: str | Path) -> ImageTable:
    """
    Return the images FOLDER/PLACE/*: each subfolder is one place, in a world of its own.

    A place with one image takes no part in the training; the log says how many there are. Raises
    SourceError for a folder without places, a place without images, and the layouts of GSV-Cities
    and MSLS, whose folders are cities.
    """
    places = sorted(path for path in _existing_folder(folder).iterdir()
                    if path.is_dir() and not path.name.startswith('.'))
    if not places:
        raise SourceError(f'{folder} has no subfolders: put the images of each place into one')
    for place in places:
        if (place / 'database' / 'images').is_dir() or (place / 'query' / 'images').is_dir():
            raise SourceError(f'{place} is a city of MSLS (Mapillary), not a place: convert MSLS '
                              "to names with UTM coordinates, and read it with 'kind: utm'")
    files = [images.list_folder(place) for place in places]
    cities = [place.name for place, of_place in zip(places, files, strict=True)
              if all(GSV_CITIES_NAME.fullmatch(file.stem) for file in of_place)]
    if cities:
        raise SourceError(f'{folder}: {some_of(cities)} are cities of GSV-Cities, not places: '
                          "read them with 'kind: gsv-cities'")
    counts = [len(of_place) for of_place in files]
    single = [place.name for place, count in zip(places, counts, strict=True) if count == 1]
    if single:
        log.warning('%s: %d of %d places have one image, and take no part: %s',
                    folder, len(single), len(places), some_of(single))
    return _table_of_files(list(chain.from_iterable(files)),
                           np.repeat(np.arange(len(places)), counts))


def gsv_cities(folder: str | Path) -> ImageTable:
    """
    Return the images of GSV-Cities, below its folder Images or a city's folder.

    Their names are CITY_PLACE_YEAR_MONTH_BEARING_LAT_LON_PANORAMA. Each place of a city is a world
    of its own, as its images share no exact position; a month is a session. Raises SourceError
    for images with other names.
    """
    files = _images_below(folder)
    names = [GSV_CITIES_NAME.fullmatch(file.stem) for file in files]
    others = [file.name for file, name in zip(files, names, strict=True) if name is None]
    if others:
        raise SourceError(f'{folder}: {len(others)} of {len(files)} images are not named as in '
                          f'GSV-Cities: {some_of(others)}')
    found = [name for name in names if name is not None]
    return _table_of_files(
        files, _label_numbers([f'{name["city"]} {name["place"]}' for name in found]),
        session=_label_numbers([name['month'] for name in found]))


def traverses(sources: Sequence[str | Path], *, spacing: float = 1.0,
              image_topic: str | None = None, pose_topic: str | None = None,
              pose_file: str | Path | None = None, in_order: bool = False, axes: str = '',
              heading: str = '') -> ImageTable:
    """
    Return the images of drives through one world: bags, or folders of images with poses.

    Each source is a session, and all poses are in one metric frame. Images and poses are found as
    by `vpr build-map` (`vpr_ros.io.sources.open_source`), with its `axes` and `heading`. Frames
    nearer than `spacing` metres to the previous one kept are dropped, because images of a bag are
    held in memory: compressed ones as recorded, raw ones as JPEG of quality 95, some tens of
    kilobytes each. Images without a pose in the pose file are left out, named and counted in the
    log. Raises SourceError when a source has no usable frame or the coordinate frames differ,
    PoseError or FileNotFoundError.
    """
    options = PoseOptions(axes, heading)
    frames: list[Frame] = []
    names: list[str] = []
    sessions: list[int] = []
    references: set[tuple[str, str]] = set()
    for number, path in enumerate(sources):
        with open_source(path, image_topic=image_topic, pose_topic=pose_topic,
                         pose_file=pose_file, in_order=in_order, poses=options) as source:
            options = replace(options, datum=source.datum or options.datum)
            references.add((source.frame_id, source.child_frame_id))
            check_same_frames(references)
            spaced = list(_spaced_frames(source, spacing))
        if not spaced:
            raise SourceError(f'{path} has no usable frame')
        frames += spaced
        names += [f'{path}: {frame.name}' for frame in spaced]
        sessions += [number] * len(spaced)
    if not frames:
        raise SourceError('there is no traverse: list at least one bag or folder')
    pose = np.array([frame.pose for frame in frames])
    return ImageTable(tuple(frame.load for frame in frames), tuple(names),
                      np.zeros(len(frames), np.int64), pose[:, :2], poses.heading(pose),
                      np.array(sessions, np.int64), np.zeros(len(frames), np.bool_))


def utm_folder(folder: str | Path) -> ImageTable:
    """
    Return the images below a folder whose file names are @east@north@zone@letter@...

    The layout of the geo-localisation benchmarks (Pitts30k, SF-XL, MSLS as converted for them):
    fields 1 and 2 are metres, 3 and 4 the UTM zone (each a world), 9 a compass heading in degrees
    or empty. Each folder of images is a session. Files with other names are left out, named and
    counted in the log. Raises SourceError when no file has such a name.
    """
    located: list[tuple[Path, tuple[float, float, float, str]]] = []
    unlocated: list[str] = []
    for path in _images_below(folder):
        place = utm_of(path.stem)
        if place is None:
            unlocated.append(path.name)
        else:
            located.append((path, place))
    if not located:
        raise SourceError(f'{folder}: no image is named @utm_east@utm_north@...@')
    if unlocated:
        log.warning('%s: %d of %d images are not named @utm_east@utm_north@...@ and are left '
                    'out: %s', folder, len(unlocated), len(unlocated) + len(located),
                    some_of(unlocated))
    files, places = zip(*located, strict=True)
    east, north, heading, zones = zip(*places, strict=True)
    check_metres([path.name for path in files], np.column_stack([east, north]), folder)
    return _table_of_files(
        files, _label_numbers(zones), position=np.column_stack([east, north]),
        heading=np.array(heading), session=_label_numbers([str(path.parent) for path in files]))


def single_images(folder: str | Path) -> ImageTable:
    """
    Return all images below a folder, each a place of its own (self-supervision).

    Raises SourceError when there is none.
    """
    files = _images_below(folder)
    return _table_of_files(files, np.arange(len(files)), alone=True)


def street_images(drives: StreetDrives) -> ImageTable:
    """
    Return images of drives through the procedural street: a world per town, a session per drive.

    They are held in memory as JPEG of quality 95. Raises ValueError for an unknown route.
    """
    plans = plan(drives)
    cache = None if drives.cache is None else Path(drives.cache)
    drawn = draw(plans, jobs=drives.jobs, cache=cache)
    counts = [len(drive.jpegs) for drive in drawn]
    names = [f'{planned.name} frame {i}' for planned, count in zip(plans, counts, strict=True)
             for i in range(count)]
    jpegs = [jpeg for drive in drawn for jpeg in drive.jpegs]
    pose = np.concatenate([drive.poses for drive in drawn])
    return ImageTable(
        tuple(partial(images.decode, jpeg, name)
              for jpeg, name in zip(jpegs, names, strict=True)), tuple(names),
        np.repeat(_label_numbers([str(planned.town) for planned in plans]), counts),
        pose[:, :2], poses.heading(pose), np.repeat(np.arange(len(plans)), counts),
        np.zeros(len(names), np.bool_))


def _table_of_files(files: Sequence[Path], world: NDArray[np.int64], *,
                    position: NDArray[np.float64] | None = None,
                    heading: NDArray[np.float64] | None = None,
                    session: NDArray[np.int64] | None = None, alone: bool = False) -> ImageTable:
    N = len(files)
    return ImageTable(
        tuple(partial(images.read, file) for file in files), tuple(str(file) for file in files),
        world, np.zeros((N, 2)) if position is None else position,
        np.full(N, np.nan) if heading is None else heading,
        np.zeros(N, np.int64) if session is None else session, np.full(N, alone))


def _spaced_frames(source: Source, spacing: float) -> Iterator[Frame]:
    """Yield a source's frames at least `spacing` metres apart, raw pixels compressed to JPEG."""
    last: NDArray[np.float64] | None = None
    damaged = 0
    for frame in tqdm(source.frames, total=source.count, desc=source.name, unit='frame',
                      disable=None):
        if not is_new_place(frame.pose, last, spacing):
            continue
        if frame.raw:
            try:
                jpeg = images.encode_jpeg(frame.load(), JPEG_QUALITY)
            except ImageError as error:
                damaged += 1
                log.debug('%s: %s', frame.name, error)
                continue
            frame = replace(frame, load=partial(images.decode, jpeg, frame.name), raw=False)
        last = frame.pose
        yield frame
    if damaged:
        log.warning('%s: %d frames left out: their images are damaged or of a wrong size',
                    source.name, damaged)


def _existing_folder(folder: str | Path) -> Path:
    if not Path(folder).is_dir():
        raise SourceError(f'{folder} is not a folder')
    return Path(folder)


def _images_below(folder: str | Path) -> list[Path]:
    files = sorted((path for path in _existing_folder(folder).rglob('*')
                    if path.suffix.lower() in images.SUFFIXES and path.is_file()),
                   key=images.by_number)
    if not files:
        raise SourceError(f'{folder} and its subfolders have no images '
                          f'({", ".join(sorted(images.SUFFIXES))})')
    return files


def _label_numbers(labels: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each label, equal for equal labels, in the order of the labels."""
    return np.unique(np.array(labels), return_inverse=True)[1].reshape(-1).astype(np.int64)
