"""
From similarity to likelihood, and how far robots are from their place: a map's calibration.

How belief becomes confidence is in confidence.py. Nothing here knows of frames or of time, nor
where the examples come from (offline/calibration_examples.py).
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import fields
from vpr_ros.maps.confidence import ConfidenceModel
from vpr_ros.maps.confidence import DEFAULT_MODELS
from vpr_ros.maps.confidence import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SIMULATED = 'simulated drives on the map itself'
"""`Calibration.fitted_on` of a map that no real drive has been held against."""

_LONGEST = 4096  # characters of `fitted_on`

# What map.yaml called things in 0.1: read until 0.3.
_RENAMED = {'curves': 'confidence', 'filter': 'sequence', 'mass': 'probability',
            'support': 'evidence'}


@dataclass(frozen=True)
class Calibration:
    """
    Similarity statistics of matching and of other places, and the confidence models.

    A frame's similarities are first standardised by its own similarities to a sample of the map's
    places, so that dusk, which lowers them all, changes nothing. `separation`: how many standard
    deviations the same place stands above the others. `outliers`: the share of frames in which it
    does not (something is in the way). `largest`: the greatest likelihood ratio of one frame.
    `deviation`: how far (metres ahead, metres aside, radians; 1 sigma) a robot is from the right
    place, for it never drives exactly where it drove before: half a lane aside, unless a drive
    shows better. `confidence`: a model by mode; the default one where a mode is left out.
    `fitted_on` says what all these come from; '' means that they are defaults. Raises ValueError
    for numbers out of bounds.
    """

    separation: float = 3.0
    outliers: float = 0.05
    largest: float = 10_000.0
    deviation: tuple[float, float, float] = (0.2, 0.8, 0.05)
    confidence: Mapping[Mode, ConfidenceModel] = field(default_factory=lambda: DEFAULT_MODELS)
    fitted_on: str = ''

    def __post_init__(self) -> None:
        fields.number(self.separation, 'separation', 0, 100)
        fields.number(self.outliers, 'outliers', 1e-9, 1)
        fields.number(self.largest, 'largest', 1, 1e30)
        if len(self.deviation) != 3:
            raise ValueError(f'a deviation is three numbers, not {len(self.deviation)}')
        for value, most in zip(self.deviation, (1000, 1000, 2 * math.pi), strict=True):
            fields.number(value, 'deviation', 0.001, most)
        object.__setattr__(self, 'confidence', DEFAULT_MODELS | {
            Mode(mode): model for mode, model in self.confidence.items()})

    @property
    def origin(self) -> str:
        """Return where these numbers come from, as printed in reports."""
        return self.fitted_on or 'none: defaults'

    @property
    def validated(self) -> bool:
        """Return whether real drives with known poses were used."""
        return self.fitted_on not in ('', SIMULATED)

    @classmethod
    def from_dict(cls, numbers: Any) -> Calibration:
        """
        Return the calibration that map.yaml holds; what it leaves out has its default.

        Raises TypeError or ValueError for invalid content.
        """
        numbers = _renamed(fields.mapping(numbers, 'calibration'))
        if 'deviation' in numbers:
            numbers['deviation'] = fields.numbers(numbers['deviation'], 'deviation', 3)
        if 'fitted_on' in numbers:
            fields.text(numbers['fitted_on'], 'fitted_on', _LONGEST)
        if 'confidence' in numbers:
            models = _renamed(fields.mapping(numbers['confidence'], 'confidence'))
            numbers['confidence'] = {Mode(mode): _confidence_model(model)
                                     for mode, model in models.items()}
        return cls(**numbers)

    def as_dict(self) -> dict[str, Any]:
        """Return what map.yaml keeps of it."""
        return {**asdict(self), 'deviation': list(self.deviation),
                'fitted_on': fields.printable(self.fitted_on)[:_LONGEST],
                'confidence': {mode.value: asdict(model)
                               for mode, model in self.confidence.items()}}

    def ratios(self, scores: Floats, separation: float | None = None) -> Floats:
        """
        Return p(score | same place) / p(score | other place) for standardised scores (k,).

        Both are normal with unit variance, `separation` apart, or as far as a drive has shown:
        their ratio is exponential in the score. The greatest is `largest` at most, and what all
        others are to it remains; to each, `outliers` adds that something may be in the way: no one
        frame rules a place out or in.
        """
        apart = self.separation if separation is None else separation
        exponent = apart * (scores - apart / 2)
        exponent -= max(0.0, float(exponent.max(initial=0.0)) - math.log(self.largest))
        return np.asarray(self.outliers + (1 - self.outliers) * np.exp(exponent))


def _confidence_model(raw: Any) -> ConfidenceModel:
    numbers = _renamed(fields.mapping(raw, 'a confidence model'))
    return ConfidenceModel(**{name: fields.number(value, name, -1e6, 1e6)
                              for name, value in numbers.items()})


def _renamed(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dictionary of map.yaml with the names of today for its keys."""
    return {_RENAMED.get(name, name): value for name, value in dict(numbers).items()}
