"""Fixtures of several tests of training."""

from __future__ import annotations

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='session')
def validation(tmp_path_factory):
    """Return a set of colourful squares: queries are the places, a little brighter."""
    folder = tmp_path_factory.mktemp('set')
    places = np.random.default_rng(3).integers(0, 200, (12, 3, 4, 3), dtype=np.uint8)
    rows = ['query,reference']
    for part, light in (('database', 0), ('queries', 20)):
        (folder / part).mkdir()
        for i, place in enumerate(places):
            image = cv2.resize(place + np.uint8(light), (64, 48),
                               interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(folder / part / f'{i:02}.png'), image)
            if light:
                rows.append(f'{i:02}.png,{i:02}.png')
    (folder / 'ground_truth.csv').write_text('\n'.join(rows) + '\n')
    return folder
