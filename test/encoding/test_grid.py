"""The grid of a model: a layer that becomes an output, without another file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from thumbnail_model import CELL
from thumbnail_model import HEIGHT
from thumbnail_model import WIDTH
from thumbnail_model import write_thumbnail_model
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.encoder import bundled_model
from vpr_ros.encoding.grid import GridNetwork
from vpr_ros.encoding.model_file import layers
from vpr_ros.encoding.model_file import with_outputs

onnx = pytest.importorskip('onnx')


def test_the_bundled_model_has_a_grid_of_an_eighth_of_its_image() -> None:
    network = GridNetwork(bundled_model(), threads=1)
    assert (network.rows, network.columns, network.channels) == (16, 20, 128)
    blocks = np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    one = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    two = np.roll(one, 8 * 3, axis=1)  # three cells to the right
    first, second = (network.extract(image).reshape(16, 20, 128) for image in (one, two))
    np.testing.assert_allclose(second[5:11, 8:14], first[5:11, 5:11], rtol=0.05, atol=0.05)
    assert np.abs(second - first)[5:11, 8:14].mean() > 0.1


def test_each_cell_is_that_of_its_pixels(tmp_path: Path) -> None:
    network = GridNetwork(write_thumbnail_model(tmp_path / 'm.onnx', grid=True), threads=1)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[2 * CELL:3 * CELL, 5 * CELL:6 * CELL] = 200
    seen = np.flatnonzero(np.abs(network.extract(image)).sum(axis=1))
    assert seen.tolist() == [2 * network.columns + 5]


def test_a_model_without_such_a_layer_is_refused(model_path: Path) -> None:
    with pytest.raises(ModelError, match=r'no layer of an eighth of its image \(6x8\)'):
        GridNetwork(model_path)


def test_layers_are_found_and_become_outputs(tmp_path: Path) -> None:
    model = write_thumbnail_model(tmp_path / 'm.onnx').read_bytes()
    assert layers(model, {'Sub', 'Add'}) == ['rest', 'shifted']
    long = 'a' * 300
    more = onnx.load_from_string(with_outputs(model, ['rest', long]))
    assert [output.name for output in more.graph.output] == ['descriptor', 'rest', long]
    assert len(more.graph.node) == len(onnx.load_from_string(model).graph.node)
