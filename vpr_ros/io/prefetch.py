"""Work ahead: read and decode in a thread while the network is at the frames before."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from typing import TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Iterator
    from concurrent.futures import Future

Item = TypeVar('Item')
Result = TypeVar('Result')

DEPTH = 16


def prefetch(work: Callable[[Item], Result], items: Iterable[Item], depth: int = DEPTH,
          threads: int = 1) -> Iterator[tuple[Item, Future[Result]]]:
    """
    Yield each item and its work's Future, in order; at most `depth` are worked on ahead.

    Items are taken in the caller's thread, the work is done in `threads` others: OpenCV and ONNX
    Runtime leave the interpreter free meanwhile. `result()` raises what the work raised. When the
    caller stops early, what has not begun is cancelled.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix='ahead') as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > depth:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()
