"""Groups of places that look alike and are far apart."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.training.mining import hard_groups


def test_groups_are_of_similar_places_far_apart_and_hold_each_once():
    random = np.random.default_rng(0)
    kinds = np.repeat(np.eye(5, 8), 4, axis=0)  # four places of each of five looks
    descriptors = (kinds + random.normal(0, 0.05, kinds.shape)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    position = np.column_stack([100.0 * np.arange(20), np.zeros(20)])
    groups = hard_groups(descriptors, np.zeros(20, int), position, 15.0, 4, random)
    assert sorted(groups.flat) == list(range(20))
    assert all(len(set(group // 4)) == 1 for group in groups)
    near = hard_groups(descriptors, np.zeros(20, int), position / 1000, 15.0, 4, random)
    assert sorted(near.flat) == list(range(20))  # no negatives: any others
    with pytest.raises(ValueError, match='cannot be grouped'):
        hard_groups(descriptors, np.zeros(20, int), position, 15.0, 3, random)
