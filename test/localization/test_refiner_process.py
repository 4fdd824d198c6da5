"""Refinement in another process: the same poses, and an end that is told."""

from __future__ import annotations

from contextlib import nullcontext
import signal
import threading
import time

from landmark_world import DRIVE
from landmark_world import estimate_at
from landmark_world import landmark_map
from landmark_world import World
import numpy as np
import psutil
import pytest
from vpr_ros.core import poses
from vpr_ros.core.camera import Camera
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import VprError
from vpr_ros.encoding.features import Features
from vpr_ros.localization import refiner_process
from vpr_ros.localization.refiner_process import RefinerProcess
from vpr_ros.maps.place_map import PlaceMap

BESIDE = np.array([poses.moved(DRIVE[n], np.array([0.3, 1.1, 0.05])) for n in range(20)])


class Moody(World):
    """A world whose images of some numbers are bad, or end the process, or hold it up."""

    def extract(self, rgb: np.ndarray) -> Features:
        number = int(rgb[0, 0, 0])
        if number == 17:
            raise ImageError('a bad image')
        if number == 18:
            psutil.Process().send_signal(signal.SIGKILL)
        if number == 19:
            threading.Event().wait()
        return super().extract(rgb)


@pytest.fixture(scope='module')
def place_map(tmp_path_factory: pytest.TempPathFactory) -> PlaceMap:
    folder = tmp_path_factory.mktemp('site') / 'map'
    landmark_map(World()).save(folder)
    return PlaceMap.load(folder)


def workers() -> list[psutil.Process]:
    """Return the processes that this one has spawned, without multiprocessing's own."""
    return [child for child in psutil.Process().children()
            if any('spawn_main' in part for part in child.cmdline())]


def test_poses_are_refined_by_another_process_until_its_end(place_map: PlaceMap) -> None:
    world = Moody(BESIDE)
    worker = RefinerProcess(place_map, world)

    def refined(number: int, camera: Camera = world.camera) -> float:
        found = worker.refine(world.image(number), estimate_at(DRIVE[number]), camera,
                              world.mount)
        assert found.refined
        return float(poses.distance(found.pose, BESIDE[number]))
    assert refined(8) < 0.1
    child, = workers()
    assert child.nice() > psutil.Process().nice()
    with pytest.raises(ImageError, match='a bad image'):
        refined(17)
    with pytest.raises(RuntimeError, match='not calibrated'):
        refined(8, Camera(640, 480))
    assert refined(9) < 0.1
    with pytest.raises(VprError, match='that refines poses ended with code -9'):
        refined(18)
    assert refined(10) < 0.1
    threading.Timer(0.1, worker.close).start()
    with pytest.raises(VprError, match='no longer refined'):
        refined(19)
    worker.end()
    assert not workers()
    with pytest.raises(VprError, match='no longer refined'):
        refined(9)


@pytest.mark.parametrize('hangs', ['with an image', 'before it'])
def test_a_process_that_hangs_is_ended(place_map: PlaceMap, monkeypatch: pytest.MonkeyPatch,
                                       hangs: str) -> None:
    world = Moody(BESIDE)
    worker = RefinerProcess(place_map, world)
    known = estimate_at(DRIVE[9]), world.camera, world.mount
    image = world.image(9)
    assert worker.refine(image, *known).refined
    if hangs == 'before it':
        child, = workers()
        child.suspend()
        image = np.zeros((2000, 2000, 3), np.uint8)  # more than a pipe holds
    else:
        image = world.image(19)
    monkeypatch.setattr(refiner_process, 'LONGEST', 0.1)
    with pytest.raises(VprError, match='hung for 0 s'):
        worker.refine(image, *known)
    assert not workers()
    monkeypatch.undo()
    if hangs == 'before it':
        threading.Timer(0.1, worker.close).start()
        monkeypatch.setattr(refiner_process, '_serve', _idle)
        begin = time.monotonic()
        with pytest.raises(VprError, match='no longer refined'):
            worker.refine(image, *known)
        assert time.monotonic() - begin < refiner_process.LONGEST
    worker.end()
    assert not workers()


def _idle(*_: object) -> None:
    threading.Event().wait()


def test_a_process_that_ends_is_started_again_until_it_does_nothing_else(
        place_map: PlaceMap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refiner_process, '_MOST_STARTS', 2)
    world = Moody(BESIDE)
    worker = RefinerProcess(place_map, world)
    known = estimate_at(DRIVE[8]), world.camera, world.mount
    for number in (18, 8, 18, 18):
        assert worker.problem == ''
        with nullcontext() if number == 8 else pytest.raises(VprError, match='code -9'):
            worker.refine(world.image(number), *known)
    assert worker.problem == 'the process that refines poses has ended 2 times'
    with pytest.raises(VprError, match='ended 2 times'):
        worker.refine(world.image(8), *known)


def test_landmarks_of_other_features_are_refused(place_map: PlaceMap) -> None:
    world = World()
    world.digest = 'ef' * 32  # type: ignore[misc]
    with pytest.raises(MapError, match="'world', not 'efefefefefef'"):
        RefinerProcess(place_map, world)
