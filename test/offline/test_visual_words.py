"""The visual words of the bundled model, and models that have none."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from small_drive import render
from thumbnail_model import write_thumbnail_model
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.offline.visual_words import assign_words
from vpr_ros.offline.visual_words import first_filters
from vpr_ros.offline.visual_words import PATCHES_PER_WORD
from vpr_ros.offline.visual_words import strongest_cells


@pytest.fixture(scope='module')
def encoder():
    return Encoder(provider='cpu')


@pytest.fixture(scope='module')
def words(encoder):
    return assign_words(encoder, [render(place) for place in range(20)])


def test_the_assignment_of_each_cell_adds_up_to_one(words):
    assert words.assignment.shape == (20, 32, 8, 10)
    np.testing.assert_allclose(words.assignment.sum(axis=1), 1, atol=1e-5)
    assert words.energy.shape == (20, 32)
    assert (words.energy >= 0).all()


def test_the_first_layer_is_returned_if_its_input_is_rgb(encoder, tmp_path):
    assert first_filters(encoder).shape == (64, 3, 7, 7)
    assert first_filters(encoder).std() > 0
    assert first_filters(Encoder(write_thumbnail_model(tmp_path / 'm.onnx'), 'cpu')) is None


def test_the_words_are_those_of_the_descriptor(encoder):
    """The whitening takes the residuals of each word, normalised."""
    model = onnx.load(str(encoder.path))
    whitening = next(node for node in model.graph.node if node.op_type == 'Gemm')
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(whitening.input[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=['CPUExecutionProvider'])
    noise = np.random.default_rng(0).integers(0, 255, (1, encoder.height, encoder.width, 3),
                                              np.uint8)
    vector = session.run([whitening.input[0]], {session.get_inputs()[0].name: noise})[0]
    result = assign_words(encoder, list(noise))
    lengths = np.linalg.norm(vector.reshape(32, -1), axis=1)
    # Normalisation leaves a word with next to no residuals shorter than the others.
    full = result.energy[0] > 1e-6
    assert full.sum() > 10
    np.testing.assert_allclose(lengths[full], lengths[full][0], rtol=1e-3)


def test_the_strongest_cells_are_of_different_images(words):
    for word in range(32):
        cells = strongest_cells(words, word)
        assert len({number for number, _, _ in cells}) == len(cells) == PATCHES_PER_WORD
        shares = [words.assignment[number, word, row, column] for number, row, column in cells]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == words.assignment[:, word].max()


def test_unused_words_dominate_no_cell(words):
    dominant = set(words.assignment.argmax(axis=1).ravel().tolist())
    assert set(words.unused.tolist()) == set(range(32)) - dominant


def test_a_model_without_words_is_refused(tmp_path):
    model = Encoder(write_thumbnail_model(tmp_path / 'm.onnx'), 'cpu')
    with pytest.raises(ModelError, match='has no visual words'):
        assign_words(model, [render(0)])
