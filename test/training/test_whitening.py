"""PCA-whitening, and the mean of each drive."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.training.whitening import centre_per_drive
from vpr_ros.training.whitening import pca_whitening


def correlated(count: int, dimension: int) -> np.ndarray:
    random = np.random.default_rng(0)
    mixed = random.normal(size=(count, dimension)) @ random.normal(size=(dimension, dimension))
    return (mixed - mixed.mean(axis=0)).astype(np.float32)


def test_whitening_gives_unit_covariance_on_its_fitting_data():
    centred = correlated(count=60, dimension=100)
    white = centred @ pca_whitening(centred, 10).T
    np.testing.assert_allclose(white.T @ white / 60, np.eye(10), atol=1e-3)


def test_whitening_keeps_the_strongest_directions():
    centred = correlated(count=200, dimension=30)
    white = centred @ pca_whitening(centred, 5).T
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ (directions[:5].T / strengths[:5]) * np.sqrt(200)
    np.testing.assert_allclose(np.abs(white), np.abs(expected), atol=1e-2)


def test_shrinkage_gives_weak_directions_less_weight():
    centred = correlated(count=200, dimension=30)
    variances = [(centred @ pca_whitening(centred, 20, shrinkage=s).T).var(axis=0)
                 for s in (0.0, 0.5)]
    np.testing.assert_allclose(variances[0], 1.0, atol=1e-3)
    assert variances[1][-1] < 0.8
    assert np.all(np.diff(variances[1]) <= 1e-6)


def test_whitening_to_more_directions_than_the_images_span_is_refused():
    with pytest.raises(ValueError, match='needs more images: 8 of them span 7 directions'):
        pca_whitening(correlated(count=8, dimension=30), 10)
    with pytest.raises(ValueError, match='needs more images'):
        pca_whitening(correlated(count=8, dimension=30), 8)


def test_each_drive_is_centred_on_its_own_mean():
    random = np.random.default_rng(0)
    drives = np.repeat([0, 1, 2], 10)
    vectors = random.normal(size=(30, 4)).astype(np.float32) + 5.0 * drives[:, None]
    centred = centre_per_drive(vectors.astype(np.float32), drives)
    for drive in range(3):
        np.testing.assert_allclose(centred[drives == drive].mean(axis=0), 0.0, atol=1e-5)
