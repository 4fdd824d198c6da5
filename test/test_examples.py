"""The examples run: the scripts on a small drive, the notebook from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path
import runpy

import cv2
import pytest
from small_drive import render
from small_drive import write_bag
from small_drive import write_folder
from small_drive import write_map

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'


@pytest.fixture
def run(capsys):
    """Return a function that runs an example and returns what it printed."""
    def run(script, *arguments):
        main = runpy.run_path(str(EXAMPLES / script))['main']
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out
    return run


def test_a_drive_is_mapped_and_another_one_localised(tmp_path, model_path, run):
    folder = write_folder(tmp_path / 'mapping', pose_file='poses.csv')
    bag = write_bag(tmp_path / 'other', noise=1)
    lines = run('build_and_localise.py', folder, bag, '--model', model_path, '--every',
                5).splitlines()
    assert lines[0] == 'map: 40 places, 48 dimensions'
    assert any('x ' in line and 'error ' in line for line in lines)
    localised, count, right, _ = (int(word) for word in lines[-1].split() if word.isdigit())
    assert 0 < localised <= count == 40
    assert right == localised


def test_a_video_is_localised(tmp_path, model_path, run):
    video = cv2.VideoWriter(str(tmp_path / 'drive.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 5.0,
                            (80, 60))
    for place in range(40):
        video.write(cv2.cvtColor(render(place, 1), cv2.COLOR_RGB2BGR))
    video.release()
    place_map = write_map(tmp_path / 'map', model_path)
    out = run('localise_video.py', place_map, tmp_path / 'drive.mp4', '--model', model_path)
    lines = out.splitlines()
    assert len(lines) == 41
    assert lines[-1].endswith(' of 40 frames have a pose')
    assert not lines[-1].startswith('0 ')


def test_a_video_that_is_not_there_is_one_line_and_an_error(tmp_path, model_path, capsys):
    place_map = write_map(tmp_path / 'map', model_path)
    main = runpy.run_path(str(EXAMPLES / 'localise_video.py'))['main']
    with pytest.raises(SystemExit) as end:
        main([str(place_map), str(tmp_path / 'none.mp4'), '--model', str(model_path)])
    assert end.value.code == 1
    assert capsys.readouterr().err.strip() == f'{tmp_path}/none.mp4 cannot be opened as a video'


@pytest.mark.timeout(300)
def test_the_notebook_runs_from_top_to_bottom(monkeypatch):
    nbclient = pytest.importorskip(
        'nbclient', reason='the notebook is NOT tested: nbclient is missing (extra `test`)')
    for name in ('ipykernel', 'matplotlib'):
        pytest.importorskip(name, reason=f'the notebook is NOT tested: {name} is missing')
    import nbformat
    notebook = nbformat.read(EXAMPLES / 'first_map.ipynb', as_version=4)
    assert not any(cell.get('outputs') for cell in notebook.cells), 'committed without outputs'
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(
        [str(EXAMPLES.parent), os.environ.get('PYTHONPATH', '')]))
    monkeypatch.delenv('MPLBACKEND', raising=False)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name='python3',
                            resources={'metadata': {'path': str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 2
    assert 'of them right within 5 m' in ''.join(output.get('text', '') for output in outputs)
