"""The visual words of the bundled model, and of models that have none."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from small_drive import picture
from small_drive import write_bag
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.cli import main
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.offline.visual_words import first_filters
from vpr_ros.offline.visual_words import look_inside
from vpr_ros.offline.visual_words import STRONGEST
from vpr_ros.offline.visual_words import strongest


@pytest.fixture(scope='module')
def encoder():
    return Encoder(provider='cpu')


@pytest.fixture(scope='module')
def words(encoder):
    return look_inside(encoder, [picture(place) for place in range(20)])


def test_words_share_out_each_cell(words):
    assert words.assignment.shape == (20, 32, 8, 10)
    np.testing.assert_allclose(words.assignment.sum(axis=1), 1, atol=1e-5)
    assert words.energy.shape == (20, 32)
    assert (words.energy >= 0).all()


def test_the_first_layer_is_seen_where_it_sees_colours(encoder, tmp_path):
    assert first_filters(encoder).shape == (64, 3, 7, 7)
    assert first_filters(encoder).std() > 0
    assert first_filters(Encoder(write_thumbnail_model(tmp_path / 'm.onnx'), 'cpu')) is None


def test_the_words_are_those_that_the_descriptor_comes_of(encoder):
    """The residuals, brought to one length each, are what the whitening takes in."""
    model = onnx.load(str(encoder.path))
    whitening = next(node for node in model.graph.node if node.op_type == 'Gemm')
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(whitening.input[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=['CPUExecutionProvider'])
    one = np.random.default_rng(0).integers(0, 255, (1, encoder.height, encoder.width, 3),
                                            np.uint8)
    vector = session.run([whitening.input[0]], {session.get_inputs()[0].name: one})[0]
    found = look_inside(encoder, list(one))
    lengths = np.linalg.norm(vector.reshape(32, -1), axis=1)
    # A word that summed up next to nothing keeps its length below that of the others.
    full = found.energy[0] > 1e-6
    assert full.sum() > 10
    np.testing.assert_allclose(lengths[full], lengths[full][0], rtol=1e-3)


def test_the_strongest_patches_are_of_different_pictures(words):
    for word in range(32):
        found = strongest(words, word)
        assert len({number for number, _, _ in found}) == len(found) == STRONGEST
        shares = [words.assignment[number, word, row, column] for number, row, column in found]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == words.assignment[:, word].max()


def test_unused_words_are_those_that_are_never_first(words):
    firsts = set(words.assignment.argmax(axis=1).ravel().tolist())
    assert set(words.unused.tolist()) == set(range(32)) - firsts


def test_a_model_without_words_is_told(tmp_path):
    model = Encoder(write_thumbnail_model(tmp_path / 'm.onnx'), 'cpu')
    with pytest.raises(ModelError, match='has no visual words'):
        look_inside(model, [picture(0)])


def test_two_seasons_become_a_page(tmp_path, capsys):
    bags = [str(write_bag(tmp_path / name, noise=noise)) for noise, name in enumerate('ab')]
    command = ['visualize', *bags, '--condition', 'winter', '--condition', 'spring',
               '--output', str(tmp_path / 'out'), '--most', '30', '--pictures', '10']
    assert main(command) == 0
    figures = json.loads((tmp_path / 'out' / 'figures.json').read_text())
    assert figures['together']['centred'] > 0.9
    assert figures['tsne']['together']['each drive centred'] > 0.5
    assert figures['words'] == 32
    page = (tmp_path / 'out' / 'index.html').read_text()
    files = {file.stem for file in (tmp_path / 'out').glob('*.png')}
    assert {'tsne', 'words', 'assignment', 'energy', 'filters'} <= files
    assert page.count('data:image/png') == len(files)
    assert main(command) == 1
    assert 'exists already' in capsys.readouterr().err


def test_one_drive_of_a_model_without_words_still_has_its_descriptors(tmp_path, capsys):
    model = write_thumbnail_model(tmp_path / 'm.onnx')
    bag = write_bag(tmp_path / 'a')
    assert main(['visualize', str(bag), '--model', str(model), '--output',
                 str(tmp_path / 'out')]) == 0
    assert 'no pictures of the visual words' in capsys.readouterr().out
    assert (tmp_path / 'out' / 'tsne.png').is_file()
    assert not (tmp_path / 'out' / 'words.png').exists()


def test_a_map_is_looked_at_beside_a_bag(tmp_path, capsys):
    small = write_thumbnail_model(tmp_path / 'm.onnx')
    places = write_map(tmp_path / 'map', small)
    bag = write_bag(tmp_path / 'spring', noise=2)
    command = ['visualize', str(places), str(bag), '--model', str(small), '--output',
               str(tmp_path / 'out'), '--radius', '0.5', '--condition', 'spring']
    assert main(command) == 0
    said = capsys.readouterr().out
    assert '100% of the frames' in said
    assert 'before each drive is centred' not in said  # a map does not know
    assert main([*command, '--condition', 'winter', '--overwrite']) == 1
    assert '2 conditions for 1 bags and folders' in capsys.readouterr().err
