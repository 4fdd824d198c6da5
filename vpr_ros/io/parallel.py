"""
Parallel work: one function applied to several items, each in a process of its own.

A thread of concurrent.futures serves each process. ProcessPoolExecutor does not fit: it cannot end
running work before Python 3.14, and does not say which item a killed process was working on.
"""

from __future__ import annotations

from concurrent.futures import as_completed
from concurrent.futures import CancelledError
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import multiprocessing
from multiprocessing import resource_tracker
import os
import signal
import threading
from typing import TYPE_CHECKING
from typing import TypeVar

from vpr_ros.core.errors import VprError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    Report = Callable[[int], object]

Item = TypeVar('Item')
Result = TypeVar('Result')

_THREADS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')


def in_processes(work: Callable[[Item, Report], Result], items: Sequence[Item], jobs: int,
                 progress: Report, *, threads: int | None = None) -> list[Result]:
    """
    Return `work(item, report)` for each item, in their order, up to `jobs` at a time.

    Each process has `threads` for matrices, or one for each core. The steps that a process
    reports are passed on to `progress`, in one thread at a time. Work, items and results must be
    picklable. The first error ends all processes and is raised here, and so does Ctrl-C. A process
    that was killed is a VprError that names its item.
    """
    # A fork would copy locks that threads of this process hold, ONNX Runtime's among them.
    context = multiprocessing.get_context('spawn')
    lock = threading.Lock()
    processes: list[SpawnProcess] = []
    stopped = False

    def run(item: Item) -> Result:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(sender, work, item), daemon=True)
        with lock:
            if stopped:
                raise CancelledError
            with matrix_threads(threads):
                process.start()
            processes.append(process)
        sender.close()  # the only other end is in the process now: the pipe ends with it
        with receiver:
            while True:
                try:
                    kind, value = receiver.recv()
                except (EOFError, OSError) as error:
                    with lock:  # `start` in another thread would take the exit code
                        process.join()
                    raise VprError(f'{item}: its process ended with code {process.exitcode}; if '
                                   'memory is short, try fewer jobs') from error
                if kind == 'steps':
                    with lock:
                        progress(value)
                    continue
                if kind == 'error':
                    raise value
                process.join()
                result: Result = value
                return result

    # A terminal sends Ctrl-C to all processes. They do not see it, since they inherit the signal
    # mask of the thread that starts them; starting the resource tracker would unblock it again.
    resource_tracker.ensure_running()
    pool = ThreadPoolExecutor(jobs, initializer=signal.pthread_sigmask,
                              initargs=(signal.SIG_BLOCK, {signal.SIGINT}))
    try:
        futures = [pool.submit(run, item) for item in items]
        for future in as_completed(futures):
            future.result()
        return [future.result() for future in futures]
    finally:
        with lock:
            stopped = True
            for process in processes:
                process.terminate()
        pool.shutdown(cancel_futures=True)
        for process in processes:
            process.join()


@contextmanager
def matrix_threads(count: int | None) -> Iterator[None]:
    """
    Let a process that is started have `count` threads for matrices, as it reads with numpy.

    Several threads would mostly wait for each other, at the cost of the cores. What the
    environment says already counts; None changes nothing.
    """
    added = [name for name in _THREADS if name not in os.environ and count is not None]
    os.environ.update(dict.fromkeys(added, str(count)))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _run(pipe: Connection, work: Callable[[Item, Report], Result], item: Item) -> None:
    """Do the work in the new process; send its steps, and then the result or the error."""
    try:
        pipe.send(('result', work(item, lambda steps: pipe.send(('steps', steps)))))
    except BrokenPipeError:
        pass  # the receiver has gone
    except (VprError, OSError, ValueError) as error:
        pipe.send(('error', error))
    except Exception as error:  # the exception class of a library may not be picklable
        pipe.send(('error', VprError(f'{item}: {type(error).__name__}: {error}')))
