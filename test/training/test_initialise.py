"""Statistics and layers that are initialised from images."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from vpr_ros.training.initialise import calibrate_batch_norm  # noqa: E402
from vpr_ros.training.initialise import set_whitening  # noqa: E402
from vpr_ros.training.model import PlaceNetwork  # noqa: E402


def test_the_whitening_layer_subtracts_the_mean_first():
    network = PlaceNetwork(clusters=2, dimension=3)
    random = np.random.default_rng(0)
    matrix = random.normal(size=(3, 512)).astype(np.float32)
    mean, vector = random.normal(size=(2, 512)).astype(np.float32)
    set_whitening(network, matrix, mean)
    result = network.whitening(torch.from_numpy(vector)).detach().numpy()
    np.testing.assert_allclose(result, matrix @ (vector - mean), rtol=1e-3, atol=1e-3)


def test_a_whitening_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'\(3, 512\)'):
        set_whitening(PlaceNetwork(clusters=2, dimension=3), np.zeros((4, 512), np.float32),
                      np.zeros(512, np.float32))


def test_calibration_normalises_each_channel_over_the_images_and_ends_in_eval_mode():
    network = PlaceNetwork(clusters=2, dimension=3)
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
    calibrate_batch_norm(network, images)
    assert not any(module.training for module in network.modules())
    with torch.no_grad():
        first = network.backbone[:2](network.normalise(torch.from_numpy(images)))
    mean = first.mean(dim=(0, 2, 3))
    torch.testing.assert_close(mean, network.backbone[1].bias, atol=1e-3, rtol=0.0)
    torch.testing.assert_close(first.std(dim=(0, 2, 3)), torch.ones(64), atol=1e-2, rtol=0.0)
