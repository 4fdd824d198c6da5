"""
Descriptors of many images, which are decoded ahead, and encoded in batches or one by one.

Those of image files are cached. What they are used for is not in here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
import hashlib
import logging
import time
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import images
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.files import user_cache
from vpr_ros.core.files import whole_file
from vpr_ros.io import messages
from vpr_ros.io.frames import LeftOut
from vpr_ros.io.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Container
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.frames import Frame
    from vpr_ros.io.frames import Source
    from vpr_ros.localization.refine import Refiner
    from vpr_ros.localization.refine import View
    from vpr_ros.maps.camera_check import CameraCheck

log = logging.getLogger(__name__)

BATCH = 8
"""Images in one call of the network."""

PREVIEW_HEIGHT = 240
"""Pixels of images that are kept to be shown."""


def describe(loads: Sequence[Callable[..., NDArray[np.uint8]]], encoder: Encoder, name: str,
             files: Sequence[Path] | None = None
             ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """
    Return the descriptors float32 (N,D) of N images, and the seconds of each, (N,), by stage.

    With the `files` that `loads` read, descriptors are cached in the user's cache directory, by
    model and by the files' names, sizes and times. There are no seconds of those that come from
    there. Raises ImageError for an image that cannot be read.
    """
    cache = None if files is None else _cache_path(files, encoder)
    if cache is not None:
        descriptors = _from_cache(cache, (len(loads), encoder.dimension))
        if descriptors is not None:
            return descriptors, {}
    bar = tqdm(loads, desc=name, unit='image', disable=None)
    descriptors, seconds = _in_batches(
        (future.result() for _, future in prefetch(partial(_timed, encoder.size), bar)), encoder)
    if cache is not None:
        try:
            with whole_file(cache) as part, part.open('wb') as file:
                np.save(file, descriptors, allow_pickle=False)
        except OSError as error:
            log.warning('descriptors are not cached: %s', error)
    return descriptors, seconds


class Seen(NamedTuple):
    """A frame's descriptor, float32 (D,), and the view that a Refiner has of it, if any."""

    descriptor: NDArray[np.float32]
    view: View | None


def encoded(frames: Iterable[tuple[Any, ...]], encoder: Encoder,
            camera_check: CameraCheck | None = None, refiner: Refiner | None = None
            ) -> Iterator[tuple[int, Future[Seen]]]:
    """
    Yield the stamp of each frame and the Future of its descriptor and its view, in order.

    `frames` are stamps in ns, each with an Image or a CompressedImage, and perhaps with the Camera
    that took it, by which it is seen, or None for the refiner's own. They are read in the
    caller's thread, decoded in a second and encoded in others; one by one, as the node does, so
    that the descriptors are the same. `result()` raises ImageError for a bad frame, with a
    `camera_check` also for one of another camera than the map's.
    """
    told: set[str] = set()

    def decode(frame: tuple[Any, ...]) -> NDArray[np.uint8]:
        rgb = messages.rgb(frame[1], encoder.size)
        if camera_check is not None:
            camera_check.check(*rgb.shape[:2])
        return images.resize(rgb, *encoder.size)

    def encode(decoded: tuple[tuple[Any, ...], Future[NDArray[np.uint8]]]) -> Seen:
        (_, message, *camera), resized = decoded
        descriptor = encoder.encode(resized.result())
        if refiner is None:
            return Seen(descriptor, None)
        try:
            return Seen(descriptor, refiner.look(messages.rgb(message), *camera))
        except (ImageError, ValueError) as error:  # of features or lens: the place is still right
            if str(error) not in told:
                told.add(str(error))
                log.warning('some poses are not refined: %s', error)
            return Seen(descriptor, None)

    # The frames behind the Futures may be raw images: only a few are held in memory.
    for ((stamp, *_), _), future in prefetch(encode, prefetch(decode, frames, depth=4),
                                             depth=encoder.concurrency + 2,
                                             threads=encoder.concurrency):
        yield stamp, future


def describe_frames(source: Source, encoder: Encoder, wanted: Container[int] | None = None,
                    camera_check: CameraCheck | None = None
                    ) -> tuple[list[Frame], NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """
    Return a source's frames, their descriptors (N,D), and the seconds of each (N,) by stage.

    Only the frames of `wanted` numbers, if given. Frames whose image is bad, or with a
    `camera_check` of another camera than the map's, are left out, counted and logged. Frames that
    would keep raw pixels in memory load a JPEG of PREVIEW_HEIGHT instead. Raises SourceError when
    no frame is left.
    """
    kept: list[Frame] = []
    left_out = LeftOut()
    chosen = (frame for number, frame in enumerate(tqdm(
        source.frames, total=source.count, desc=source.name, unit='frame', disable=None))
        if wanted is None or number in wanted)

    def readable() -> Iterator[tuple[NDArray[np.uint8], float]]:
        for frame, future in prefetch(lambda frame: _timed(encoder.size, frame.load), chosen):
            try:
                rgb, seconds = future.result()
                if camera_check is not None:
                    camera_check.check(*rgb.shape[:2])
                fitted = encoder.fitted(rgb)
            except ImageError as error:
                left_out.add(error)
                log.debug('%s: %s', frame.name, error)
                continue
            kept.append(_with_jpeg(frame, rgb) if frame.raw else frame)
            yield fitted, seconds

    descriptors, seconds = _in_batches(readable(), encoder)
    if not kept:
        raise SourceError(f'{source.name} has no frame with a pose and an image'
                          + (f': {left_out}' if left_out else ''))
    if left_out:
        log.warning('%s: %s', source.name, left_out)
    return kept, descriptors, seconds


def _in_batches(decoded: Iterable[tuple[NDArray[np.uint8], float]], encoder: Encoder
                ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """
    Return the descriptors (N,D) of images, and the seconds of each (N,) by stage.

    The images come with the seconds that it took to decode them.
    """
    parts: list[NDArray[np.float32]] = []
    decoding: list[float] = []
    encoding: list[float] = []

    def batches() -> Iterator[list[NDArray[np.uint8]]]:
        batch = []
        for rgb, seconds in decoded:
            batch.append(images.resize(rgb, *encoder.size))  # takes less memory while it waits
            decoding.append(seconds)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def encode(batch: list[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], float]:
        begin = time.perf_counter()
        return encoder.encode_batch(batch), time.perf_counter() - begin

    for batch, future in prefetch(encode, batches(), depth=encoder.concurrency + 1,
                                  threads=encoder.concurrency):
        descriptors, seconds = future.result()
        parts.append(descriptors)
        encoding += [seconds / len(batch)] * len(batch)
    return (np.concatenate(parts) if parts else np.empty((0, 0), np.float32),
            {'decode': np.array(decoding), 'encode': np.array(encoding)})


def _with_jpeg(frame: Frame, rgb: NDArray[np.uint8]) -> Frame:
    """Return a frame that loads a small JPEG, so that its raw pixels can be freed."""
    return replace(frame, load=partial(images.decode, preview(rgb), frame.name), raw=False)


def preview(rgb: NDArray[np.uint8]) -> bytes:
    """Return an image uint8 (H,W,3) as a JPEG of at most PREVIEW_HEIGHT, to be shown later."""
    return images.encode_jpeg(images.to_height(rgb, min(PREVIEW_HEIGHT, len(rgb))))


def _timed(min_size: tuple[int, int], load: Callable[..., NDArray[np.uint8]]
           ) -> tuple[NDArray[np.uint8], float]:
    begin = time.perf_counter()
    return load(min_size=min_size), time.perf_counter() - begin


def _from_cache(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return descriptors of a shape from a file; None when there are none."""
    if not path.is_file():
        return None
    try:
        descriptors: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        log.warning('%s is damaged (%s): the descriptors are computed again', path, error)
        return None
    fits = descriptors.shape == shape and descriptors.dtype == np.float32
    return descriptors if fits else None


def _cache_path(files: Sequence[Path], encoder: Encoder) -> Path:
    digest = hashlib.sha256(encoder.space.encode())
    for file in files:
        status = file.stat()
        digest.update(f'{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0'.encode())
    return user_cache() / 'descriptors' / f'{digest.hexdigest()}.npy'
