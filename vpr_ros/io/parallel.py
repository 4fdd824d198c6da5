"""
The same work on several things at once, each in a process of its own.

What the work is, is the callers'. Threads that overlap the stages of one work are in ahead.py.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
import multiprocessing
from multiprocessing.connection import wait
import signal
import threading
from typing import Any
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


def in_processes(work: Callable[[Item, Report], Result], items: Sequence[Item], jobs: int,
                 progress: Report) -> list[Result]:
    """
    Return `work(item, report)` for each item, in their order, `jobs` of them at a time.

    What a process reports, a number of steps, is passed on to `progress`. The work, the items and
    the results are pickled on their way. The first error ends all processes and is raised here,
    and so does an interrupt; a process that was killed is a VprError.
    """
    # A fork would copy locks that threads of this process hold, ONNX Runtime's among them.
    context = multiprocessing.get_context('spawn')
    waiting = deque(enumerate(items))
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    results: dict[int, Result] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, item = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_run, args=(theirs, work, item), daemon=True)
                with _undisturbed():
                    process.start()
                    running[ours] = number, process
                theirs.close()  # else its end would not be seen here
            for ready in wait(list(running)):
                number, process = running[ready]  # type: ignore[index]  # only ours were asked
                kind, value = _received(ready, process, items[number])
                if kind == 'steps':
                    progress(value)
                    continue
                if kind == 'error':
                    raise value
                results[number] = value
                del running[ready]  # type: ignore[arg-type]
                process.join()
    finally:
        for _, process in running.values():
            process.terminate()
        for pipe, (_, process) in running.items():
            process.join()
            pipe.close()
    return [results[number] for number in range(len(items))]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """
    Put a Ctrl-C off, and keep it from processes that are started meanwhile.

    The terminal sends it to all of them. Blocked here it may still reach another thread, and would
    then be raised in the middle of what this one does: so it is only noted.
    """
    came: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.getsignal(signal.SIGINT)
    noted = handler is not None and threading.current_thread() is threading.main_thread()
    if noted:
        signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        if noted:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came:
        raise KeyboardInterrupt


def _received(pipe: Any, process: SpawnProcess, item: object) -> tuple[str, Any]:
    try:
        return pipe.recv()
    except EOFError as error:
        process.join()
        raise VprError(f'{item}: its process ended with code {process.exitcode}; where memory is '
                       'short, try fewer jobs') from error


def _run(pipe: Connection, work: Callable[[Item, Report], Result], item: Item) -> None:
    try:
        pipe.send(('result', work(item, lambda steps: pipe.send(('steps', steps)))))
    except BrokenPipeError:
        pass  # nobody is there to be told
    except (VprError, OSError, ValueError) as error:
        pipe.send(('error', error))
    except Exception as error:  # of a library's own class, which may not survive the way
        pipe.send(('error', VprError(f'{item}: {type(error).__name__}: {error}')))
