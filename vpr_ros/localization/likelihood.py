"""How likely a view is at a place of the map, by how similar it is to all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.maps.place_map import PlaceMap

    Floats = NDArray[np.float64]
    Descriptor = NDArray[np.float32]

_SAMPLE = 512
"""Places that tell what similarity is usual for a frame."""


class Likelihood:
    """Compares views of a drive, as they are looked up (D,), with the places of a map."""

    def __init__(self, place_map: PlaceMap) -> None:
        sample = np.random.default_rng(0).permutation(len(place_map))[:_SAMPLE]
        self._sample = place_map.vectors(np.sort(sample))
        self._map = place_map

    def ratios(self, query: Descriptor, similarity: Descriptor) -> Floats:
        """
        Return p(view | this place) / p(view | another place) for similarities (k,).

        They are standardised by how similar the query is to a sample of all places.
        """
        # Not BLAS: it would wait for cores that the network keeps busy.
        usual = np.einsum('nd,d->n', self._sample, query)
        scores = (similarity - usual.mean()) / max(float(usual.std()), 1e-3)
        return self._map.manifest.calibration.ratios(scores)
