"""Encode many images: all of them into descriptors, or as fast as the processor can."""

from __future__ import annotations

from itertools import islice
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.io.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder

_BATCH = 8


def descriptors(encoder: Encoder, frames: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Encode N images uint8 (H,W,3), few of which are in memory at once; return (N,D)."""
    remaining = iter(frames)
    batches = iter(lambda: list(islice(remaining, _BATCH)), [])
    return np.concatenate([encoder.encode_batch(batch) for batch in batches])


def encode_all(encoder: Encoder, call: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Call a method of an encoder with each of the items, as many at once as suits it."""
    for _, future in prefetch(call, items, depth=encoder.concurrency,
                              threads=encoder.concurrency):
        future.result()
