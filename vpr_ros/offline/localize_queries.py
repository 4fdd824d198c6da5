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
from vpr_ros.localization.smooth import Smoother
from vpr_ros.offline.evaluation import Estimates

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.localization.verify import Verify
    from vpr_ros.maps.place_map import PlaceMap


@dataclass(frozen=True)
class EvaluationOptions:
    """
    How queries are localised: options of the Localizer (see there).

    With `use_filter` the queries are taken, in their order, for the frames of a drive without
    odometry, at up to `max_speed` (m/s); without, each is localised for itself; with `smooth`, by
    the whole drive, and not only by what was before (Smoother). `centering` is what is subtracted
    from the descriptors before they are compared: from those of the map its mean, from those of
    the queries their running mean ('running', as on the robot) or the map's ('map'); or nothing at
    all ('none').
    `projection`, one of defaults.PROJECTIONS, is that of a map that is made of an image set; with
    `verify`, each of its queries is compared with the images of the most similar places, too.
    """

    use_filter: bool
    centering: str = defaults.CENTERING
    min_confidence: float = defaults.MIN_CONFIDENCE
    max_speed: float = defaults.MAX_SPEED
    projection: str = defaults.PROJECTION
    smooth: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        if self.centering not in defaults.CENTERINGS:
            raise ValueError(f"there is no centering '{self.centering}': choose from "
                             f'{", ".join(defaults.CENTERINGS)}')

    @property
    def compensate(self) -> bool:
        """Return whether the running mean is subtracted, as the Localizer names it."""
        return self.centering == 'running'

    @property
    def about(self) -> dict[str, str | bool]:
        """Return how the queries were localised, for the summary."""
        return {'centering': self.centering, 'compensate': self.compensate,
                'smooth': self.smooth, 'verify': self.verify}

    def centred(self, place_map: PlaceMap) -> PlaceMap:
        """Return the map to localise on, with descriptors that are centred as the queries' are."""
        return place_map.uncentred() if self.centering == 'none' else place_map


SINGLE_FRAMES = EvaluationOptions(use_filter=False)
ONE_DRIVE = EvaluationOptions(use_filter=True)


def localize_queries(place_map: PlaceMap, encoder: Encoder, descriptors: NDArray[np.float32],
                     stamps: Sequence[int], options: EvaluationOptions, correct_radius: float,
                     name: str, verify: Callable[[int], Verify] | None = None
                     ) -> tuple[Estimates, NDArray[np.float64]]:
    """
    Return the estimates of Q queries, and the seconds (Q,) that each of them took.

    descriptors float32 (Q,D) of unit norm; stamps in ns, ascending; correct_radius in metres;
    `name` is for the progress bar; `verify` returns what compares the image of a query, by its
    number.
    """
    localizer = (Smoother if options.smooth else Localizer)(
        encoder, place_map, top_k=max(RECALLS), compensate=options.compensate,
        use_filter=options.use_filter, min_confidence=options.min_confidence,
        correct_radius=correct_radius, max_speed=options.max_speed)
    estimates, seconds = [], []
    for number, (descriptor, stamp) in enumerate(tqdm(
            zip(descriptors, stamps, strict=True), total=len(stamps), desc=f'{name}: locate',
            unit='frame', disable=None)):
        begin = time.perf_counter()
        if verify is not None:
            localizer.verify = verify(number)
        estimates.append(localizer.locate(descriptor, stamp))
        seconds.append(time.perf_counter() - begin)
    if isinstance(localizer, Smoother):
        begin = time.perf_counter()
        estimates = localizer.smoothed()
        seconds = [each + (time.perf_counter() - begin) / len(seconds) for each in seconds]
    return Estimates.of(estimates), np.array(seconds)
