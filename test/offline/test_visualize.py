"""The page about a network: figures of drives and maps, and notes on what is missing."""

from __future__ import annotations

import json

import pytest
from small_drive import write_bag
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.cli import main
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.offline.visualize import visualize
from vpr_ros.offline.visualize import VisualizeOptions


def test_two_seasons_become_a_page(tmp_path, capsys):
    bags = [str(write_bag(tmp_path / name, noise=noise)) for noise, name in enumerate('ab')]
    command = ['visualize', *bags, '--condition', 'winter', '--condition', 'spring',
               '--output', str(tmp_path / 'out'), '--most', '30', '--images', '10']
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
    assert 'no figures of the visual words' in capsys.readouterr().out
    assert (tmp_path / 'out' / 'tsne.png').is_file()
    assert not (tmp_path / 'out' / 'words.png').exists()


def test_a_map_is_compared_with_a_bag(tmp_path, capsys):
    small = write_thumbnail_model(tmp_path / 'm.onnx')
    places = write_map(tmp_path / 'map', small)
    bag = write_bag(tmp_path / 'spring', noise=2)
    command = ['visualize', str(places), str(bag), '--model', str(small), '--output',
               str(tmp_path / 'out'), '--radius', '0.5', '--condition', 'spring']
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert 'Recall@1 between drives: 100% with each drive centred, ' in printed
    assert 'without centring' not in printed  # a map has centred descriptors only
    assert main([*command, '--condition', 'winter', '--overwrite']) == 1
    assert '2 conditions for 1 bags and folders' in capsys.readouterr().err


def test_the_result_names_the_page_and_what_is_on_it(tmp_path):
    encoder = Encoder(write_thumbnail_model(tmp_path / 'm.onnx'), 'cpu')
    bags = [write_bag(tmp_path / name, noise=noise) for noise, name in enumerate('ab')]
    result = visualize(bags, encoder, tmp_path / 'out',
                       VisualizeOptions(conditions=['winter', 'spring'], max_frames=20))
    assert result.page == tmp_path / 'out' / 'index.html'
    page = result.page.read_text()
    assert page.count('data:image/png') == result.panels
    assert 'm.onnx on winter, spring' in page
    assert json.loads((tmp_path / 'out' / 'figures.json').read_text()) == result.figures
    assert set(result.figures['together']) == {'frames', 'share', 'centred', 'chance'}


def test_a_wrong_number_of_conditions_is_refused_before_anything_is_read(tmp_path):
    encoder = Encoder(write_thumbnail_model(tmp_path / 'm.onnx'), 'cpu')
    with pytest.raises(ValueError, match='1 conditions for 2 bags and folders'):
        visualize(['a', 'b'], encoder, tmp_path / 'out', VisualizeOptions(conditions=['winter']))
    assert not (tmp_path / 'out').exists()
