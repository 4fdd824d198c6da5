"""A Refiner in a process of its own, of low priority: it takes only the time that is left over."""

from __future__ import annotations

from contextlib import suppress
import multiprocessing
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from vpr_ros.core.errors import VprError
from vpr_ros.io.parallel import matrix_threads
from vpr_ros.localization.refine import Refiner
from vpr_ros.maps.landmarks import LandmarkedPlaces

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    import numpy as np
    from numpy.typing import NDArray
    from vpr_ros.core.camera import Camera
    from vpr_ros.encoding.features import Extractor
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.maps.landmarks import Landmarked

    Floats = NDArray[np.float64]

LONGEST = 30.0
"""Seconds after which the process is taken to hang; the first image includes its start."""

_NICE = 5
_END = 5.0
"""Seconds that the process has to end by itself."""

_MOST_STARTS = 5


class RefinerProcess:
    """
    Refines poses on places with landmarks by `features`, in another process.

    That process shares no lock with this one and yields to it. It is started with the first image,
    and again when it was killed, perhaps because it hung, until it ends several times without a
    refined image between. One thread uses it; another may close it. Raises MapError for landmarks
    of other features.
    """

    def __init__(self, places: Landmarked, features: Extractor, *, flat: bool = True) -> None:
        if places.landmarks is not None:
            places.landmarks.identity.check(features.digest)
        self._content = LandmarkedPlaces(places.poses, places.landmarks), features, flat
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._starts = 0
        self._closed = False
        self._lock = threading.Lock()  # for which process there is: two threads end it

    @property
    def problem(self) -> str:
        """Return why no pose will be refined any more, '' if one may."""
        if self._closed:
            return 'poses are no longer refined'
        if self._starts == _MOST_STARTS and self._connection is None:
            return f'the process that refines poses has ended {_MOST_STARTS} times'
        return ''

    def refine(self, rgb: NDArray[np.uint8], estimate: Estimate, camera: Camera, mount: Floats
               ) -> Estimate:
        """
        Return what `Refiner.refine` makes of an estimate, from its image uint8 (H,W,3).

        Raises what the Refiner does, and VprError where the process ended or took LONGEST.
        """
        overdue = threading.Timer(LONGEST, self._kill)  # ends a `send` that blocks, too
        overdue.daemon = True
        begin = time.monotonic()
        try:
            connection = self._started()
            overdue.start()
            connection.send((rgb, estimate, camera, mount))
            answer = connection.recv()
        except (EOFError, OSError) as error:
            took = time.monotonic() - begin
            code = self._end()
            why = f'ended with code {code}' if took < LONGEST else f'hung for {took:.0f} s'
            raise VprError(f'the process that refines poses {why}' if not self._closed else
                           self.problem) from error
        finally:
            overdue.cancel()
        if isinstance(answer, Exception):
            raise answer
        self._starts = 1  # that of this process
        refined: Estimate = answer
        return refined

    def close(self) -> None:
        """End a call that waits, and let no other begin."""
        self._closed = True
        self._kill()

    def end(self) -> None:
        """End the process, by the thread that used it."""
        self.close()
        self._end()

    def _started(self) -> Connection:
        if self._connection is not None:
            return self._connection
        with self._lock:
            if self.problem:
                raise VprError(self.problem)
            self._starts += 1
            # A fork would copy locks of other threads.
            context = multiprocessing.get_context('spawn')
            self._connection, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other, *self._content),
                                            daemon=True, name='refine')
            # Starting a process may unblock signals that this thread leaves to another one.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                with matrix_threads(1):
                    self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                other.close()  # the only other end is in the process now
            return self._connection

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None and self._process.pid is not None:
                self._process.kill()

    def _end(self) -> int | None:
        """End the process and return its exit code."""
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None or process.pid is None:
            return None
        process.join(_END)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode


def _serve(connection: Connection, places: Landmarked, features: Extractor, flat: bool) -> None:
    """Refine what comes through a connection, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the node ends, and with it this
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the node's threads block it
    with suppress(OSError):
        os.nice(_NICE)
    refiner: Refiner | None = None
    with suppress(EOFError, OSError):
        while True:
            rgb, estimate, camera, mount = connection.recv()
            try:
                if refiner is None:
                    refiner = Refiner(places, features, camera, mount, flat=flat)
                refiner.camera, refiner.mount = camera, mount
                connection.send(refiner.refine(estimate, refiner.look(rgb)))
            except (EOFError, BrokenPipeError):
                return
            except VprError as error:
                connection.send(error)
            except Exception as error:  # of one image; perhaps none that can be sent
                connection.send(RuntimeError(repr(error)))
