"""Prefetching: read and decode the next frames in threads while the network runs."""

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
"""Items that are prefetched by default."""


def prefetch(work: Callable[[Item], Result], items: Iterable[Item], depth: int = DEPTH,
             threads: int = 1) -> Iterator[tuple[Item, Future[Result]]]:
    """
    Yield each item and the Future of `work(item)`, in order, up to `depth` items in advance.

    Items are drawn in the caller's thread and worked on in `threads` others, which run in parallel
    where OpenCV and ONNX Runtime release the interpreter lock. `result()` raises the exception of
    the work. When the caller stops early, work that has not begun is cancelled.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix='prefetch') as pool:
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
