"""Localise the queries of an evaluation with the Localizer that robots run."""

from __future__ import annotations

from dataclasses import dataclass
import time
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.core import defaults
from vpr_ros.core.metrics import RECALLS
from vpr_ros.localization.localizer import Localizer
from vpr_ros.offline.evaluation import Estimates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.maps.place_map import PlaceMap


@dataclass(frozen=True)
class EvaluationOptions:
    """
    How queries are localised: options of the Localizer (see there).

    With `use_filter` the queries are taken, in their order, for the frames of a drive without
    odometry, at up to `max_speed` (m/s); without, each is localised for itself.
    """

    use_filter: bool
    compensate: bool = True
    min_confidence: float = defaults.MIN_CONFIDENCE
    max_speed: float = defaults.MAX_SPEED


SINGLE_FRAMES = EvaluationOptions(use_filter=False)
ONE_DRIVE = EvaluationOptions(use_filter=True)


def localize_queries(place_map: PlaceMap, encoder: Encoder, descriptors: NDArray[np.float32],
                     stamps: Sequence[int], options: EvaluationOptions, correct_radius: float,
                     name: str) -> tuple[Estimates, NDArray[np.float64]]:
    """
    Return the estimates of Q queries, and the seconds (Q,) that each of them took.

    descriptors float32 (Q,D) of unit norm; stamps in ns, ascending; correct_radius in metres;
    `name` is for the progress bar.
    """
    localizer = Localizer(encoder, place_map, top_k=max(RECALLS), compensate=options.compensate,
                          use_filter=options.use_filter, min_confidence=options.min_confidence,
                          correct_radius=correct_radius, max_speed=options.max_speed)
    estimates, seconds = [], []
    for descriptor, stamp in tqdm(zip(descriptors, stamps, strict=True), total=len(stamps),
                                  desc=f'{name}: locate', unit='frame', disable=None):
        begin = time.perf_counter()
        estimates.append(localizer.locate(descriptor, stamp))
        seconds.append(time.perf_counter() - begin)
    return Estimates.of(estimates), np.array(seconds)
