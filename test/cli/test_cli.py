"""The `vpr` command: end to end, help for every command, errors in one line with exit codes."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import pose
from small_drive import POSES
from small_drive import render
from small_drive import write_bag
from small_drive import write_folder
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.cli import main
from vpr_ros.core.pose_files import read_tum
from vpr_ros.io import messages
from vpr_ros.io.bag import Bag
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.maps.place_map import PlaceMap

ROOT = str(Path(__file__).resolve().parents[2])
COMMANDS = ('build-map', 'calibrate', 'replay', 'evaluate', 'inspect', 'map-report', 'visualize',
            'play', 'street', 'demo', 'train', 'export', 'wrap-model', 'prepare-engine', 'sign')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Return a folder with m.onnx, other.onnx, a map of m.onnx, and the bag query.mcap."""
    folder = tmp_path_factory.mktemp('site')
    write_thumbnail_model(folder / 'm.onnx')
    write_thumbnail_model(folder / 'other.onnx', gain=2.0)
    write_map(folder / 'map', folder / 'm.onnx')
    write_bag(folder / 'query.mcap', noise=1)
    return folder


@pytest.fixture
def vpr(capsys):
    """Run a command; return its exit code, stdout and stderr."""
    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()
    return run


def is_one_line(code, out, err, *parts):
    """Check that a command failed with one line on stderr that contains all parts."""
    lines = [line for line in err.splitlines() if line.startswith('vpr: error: ')]
    assert code == 1
    assert len(lines) == 1
    assert 'Traceback' not in err
    for part in parts:
        assert str(part) in lines[0]
    return True


def test_every_command_has_help(vpr):
    code, out, _ = vpr('--help')
    assert code == 0
    for command in COMMANDS:
        assert command in out
        code, its_help, _ = vpr(command, '--help')
        assert code == 0
        assert its_help.startswith(f'usage: vpr {command}')


def test_help_of_all_commands_is_fast_and_loads_no_library():
    # Processor time, the best of three: what else runs on this machine does not count.
    code = ('import sys, time\n'
            'from vpr_ros.cli import main\n'
            'for command in sys.argv[1:]:\n'
            '    try:\n        main([*command.split(), "--help"])\n    except SystemExit:\n'
            '        pass\n'
            'heavy = {"numpy", "cv2", "scipy", "faiss", "onnx", "onnxruntime", "rosbags", "rclpy",'
            ' "torch", "tqdm"}\n'
            'print(*sorted(heavy & set(sys.modules)), file=sys.stderr)\n'
            'print(time.process_time(), file=sys.stderr)')
    seconds = []
    for _ in range(3):
        result = subprocess.run([sys.executable, '-c', code, '', *COMMANDS], capture_output=True,
                                text=True, check=True)
        loaded, spent = result.stderr.splitlines()[-2:]
        assert loaded == ''
        seconds.append(float(spent))
    assert min(seconds) < 0.5


def test_an_interrupt_leaves_no_map_and_no_process(tmp_path, site):
    for name in ('one', 'two'):
        write_folder(tmp_path / name, range(3), pose_file='poses.csv')
        (tmp_path / name / '001.png').unlink()
        os.mkfifo(tmp_path / name / '001.png')  # the reader waits for a writer
    before = {path.name for path in tmp_path.iterdir()}
    # As a terminal does, send the signal to all processes of the session.
    command = subprocess.Popen(
        [sys.executable, '-m', 'vpr_ros.cli', 'build-map', tmp_path / 'one', tmp_path / 'two',
         '--jobs', '2', '--model', site / 'm.onnx', '-o', tmp_path / 'map'],
        stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        limit = time.monotonic() + 30
        processes = []
        while len(processes) < 2 and time.monotonic() < limit:
            processes = [child for child in psutil.Process(command.pid).children()
                         if 'spawn_main' in ' '.join(child.cmdline())]
        assert len(processes) == 2
        os.killpg(command.pid, signal.SIGINT)
        error = command.communicate(timeout=20)[1]
        psutil.wait_procs(processes, timeout=20)
        assert not any(process.is_running() for process in processes)
    finally:
        command.kill()
    assert command.returncode == 130
    assert error.splitlines()[-1] == 'vpr: interrupted'
    assert 'Traceback' not in error
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_installed_command_runs():
    command = Path(sys.executable).with_name('vpr')
    if not command.exists():
        pytest.skip('the package is not installed in this Python')
    result = subprocess.run([command, 'inspect', 'nothing'], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 1
    assert result.stderr == 'vpr: error: nothing does not exist\n'


@pytest.mark.parametrize('arguments', [
    [], ['fly'], ['build-map'], ['build-map', 'drive'], ['replay', 'drive', '--map', 'map'],
    ['evaluate', '--database', 'd'], ['inspect'], ['build-map', 'd', '-o', 'm', '--index', 'tree'],
    ['build-map', 'd', '-o', 'm', '--spacing', '-1'],
    ['build-map', 'd', '-o', 'm', '--spacing', 'nan'],
    ['build-map', 'd', '-o', 'm', '--correct-radius', '0'],
    ['replay', 'd', '--map', 'm', '-o', 'o', '--top-k', '0'],
    ['replay', 'd', '--map', 'm', '-o', 'o', '--top-k', '2.5'],
    ['replay', 'd', '--map', 'm', '-o', 'o', '--min-confidence', '2'],
    ['replay', 'd', '--map', 'm', '-o', 'o', '--provider', 'abacus'],
    ['replay', 'd', '--map', 'm', '-o', 'o', '--smooth', '--no-filter'],
    ['evaluate', '--map', 'm', '--drive', 'd', '--smooth', '--no-filter'],
    ['evaluate', '--map', 'm', '--replay', 'r', '--truth', 't', '--smooth'],
    ['evaluate', '--map', 'm', '--drive', 'd', '--verify'],
    ['evaluate', '--utm', 'd', '--verify', '--smooth'],
    ['street', '-o', 's', '--season', 'monsoon'], ['street', '-o', 's', '--length', '0'],
])
def test_wrong_usage_exits_with_2(vpr, arguments):
    code, out, err = vpr(*arguments)
    assert code == 2
    assert 'usage: vpr' in err
    assert out == ''


# End to end: build a map, replay, compare, inspect

def test_a_map_is_built_and_a_bag_replayed_on_it(site, tmp_path, vpr):
    folder = write_folder(tmp_path / 'folder', pose_file='poses.csv')
    code, out, _ = vpr('build-map', folder, write_bag(tmp_path / 'drive'), '--model',
                       site / 'm.onnx', '--output', tmp_path / 'map', '--spacing', 2,
                       '--condition', 'winter', '--condition', 'night', '--index', 'hnsw',
                       '--no-thumbnails')
    assert code == 0
    assert out == (f"{tmp_path / 'map'}: {COUNT} places, 2.00 m apart (median; 2.00 m at most), "
                   "in frame 'map'\n")
    manifest = PlaceMap.load(tmp_path / 'map').manifest
    assert [session.condition for session in manifest.sessions] == ['winter', 'night']
    assert manifest.index == 'hnsw'

    code, out, _ = vpr('replay', site / 'query.mcap', '--map', tmp_path / 'map', '--model',
                       site / 'm.onnx', '--output', tmp_path / 'out', '--truth-topic', POSES,
                       '--min-confidence', 0.3)
    assert code == 0
    first, second = out.splitlines()
    assert f'{COUNT} frames, ' in first
    assert second.startswith(f'{COUNT} frames with ground truth: ')
    published, correct = re.search(r'(\d+) localised, (\d+) of these correct \(within 5 m\)',
                                   second).groups()
    assert len(read_tum(tmp_path / 'out' / 'trajectory.tum').stamps) == int(published)
    assert 0 < int(correct) <= int(published)
    with Bag(tmp_path / 'out' / 'poses') as bag:
        assert bag.count('/vpr_localizer/confidence') == COUNT

    code, out, _ = vpr('evaluate', '--map', tmp_path / 'map', '--replay', tmp_path / 'out',
                       '--truth', site / 'query.mcap', '--truth-topic', POSES, '--model',
                       site / 'm.onnx', '--json', tmp_path / 'e.json', '--html',
                       tmp_path / 'e.html', '--tolerance', 3)
    assert code == 0
    result = json.loads((tmp_path / 'e.json').read_text())
    assert (result['filter'], result['tolerance']) == (True, '3 m')
    page = (tmp_path / 'e.html').read_text()
    shown = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>',
                                 page, re.DOTALL)[1])
    assert len(shown['query_images']) == COUNT
    assert all(shown['query_images'])

    code, out, _ = vpr('inspect', tmp_path / 'map')
    assert code == 0
    assert 'session 1  drive (night), 20 places' in out


def test_recall_is_written_to_a_file(site, tmp_path, vpr):
    database = write_folder(tmp_path / 'database', range(12))
    queries = write_folder(tmp_path / 'queries', range(12), noise=1)
    with (tmp_path / 'truth.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('query', 'reference'), *(
            (f'{place:03d}.png', f'{place:03d}.png') for place in range(10))])
    code, out, _ = vpr('evaluate', '--database', database, '--queries', queries, '--ground-truth',
                       tmp_path / 'truth.csv', '--model', site / 'm.onnx',
                       '--json', tmp_path / 'sub' / 'recall.json')
    assert code == 0
    assert out.startswith('R@1 1.000, R@5 1.000, R@10 1.000 (95% interval of R@1: 0.722 to 1.000; '
                          'mapped queries: 10, unmapped queries: 2')
    result = json.loads((tmp_path / 'sub' / 'recall.json').read_text())
    assert result['recall'] == {'1': 1.0, '5': 1.0, '10': 1.0}
    assert (result['evaluated'], result['unmapped'], result['places']) == (10, 2, 12)


def test_a_street_is_recorded_mapped_and_localised(tmp_path, vpr):
    model = write_thumbnail_model(tmp_path / 'm.onnx')
    for drive, name in enumerate(('first.mcap', 'second')):
        code, out, _ = vpr('street', '--seed', 3, '--drive', drive, '--length', 20, '--rate', 5,
                           '--size', '160x120', '--compressed', '--output', tmp_path / name)
        assert code == 0
        assert out.startswith(f'{tmp_path / name}: ')
    assert vpr('build-map', tmp_path / 'first.mcap', '--model', model, '-o',
               tmp_path / 'map')[0] == 0
    assert vpr('replay', tmp_path / 'second', '--map', tmp_path / 'map', '--model', model,
               '-o', tmp_path / 'out')[0] == 0
    assert len((tmp_path / 'out' / 'estimates.csv').read_text().splitlines()) > 5


# Errors, in one line each

def test_folders_of_others_are_never_replaced(site, tmp_path, vpr):
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home' / 'mine').write_text('mine')
    assert is_one_line(*vpr('build-map', site / 'query.mcap', '--model', site / 'm.onnx', '-o',
                            tmp_path / 'home', '--overwrite'), tmp_path / 'home', 'not replaced')
    assert (tmp_path / 'home' / 'mine').read_text() == 'mine'


def test_an_existing_output_is_kept_without_overwrite(site, tmp_path, vpr):
    write_map(tmp_path / 'map', site / 'm.onnx', range(5))
    arguments = ('build-map', site / 'query.mcap', '--model', site / 'm.onnx', '-o',
                 tmp_path / 'map')
    assert is_one_line(*vpr(*arguments), tmp_path / 'map', '--overwrite')
    assert len(PlaceMap.load(tmp_path / 'map')) == 5
    assert vpr(*arguments, '--overwrite')[0] == 0
    assert len(PlaceMap.load(tmp_path / 'map')) == COUNT
    assert is_one_line(*vpr('replay', tmp_path / 'no bag yet', '--map', site / 'map', '-o',
                            tmp_path / 'map'), 'exists already')


def test_conditions_must_match_the_sources(site, tmp_path, vpr):
    assert is_one_line(*vpr('build-map', 'a', 'b', '-o', tmp_path / 'm', '--condition', 'rain'),
                       '1 conditions for 2 sources')


def test_bags_that_cannot_be_mapped(site, tmp_path, vpr):
    def failed(source, *parts, more=()):
        result = vpr('build-map', source, '--model', site / 'm.onnx', '-o', tmp_path / 'm', *more)
        assert not (tmp_path / 'm').exists()
        return is_one_line(*result, source, *parts)

    assert failed(tmp_path / 'nothing', 'does not exist')
    with BagWriter(tmp_path / 'empty'):
        pass
    assert failed(tmp_path / 'empty', 'empty bag')
    assert failed(write_bag(tmp_path / 'lost', with_poses=False), 'no poses', IMAGES)
    assert failed(write_bag(tmp_path / 'blind', with_images=False), 'no images', POSES)
    assert failed(site / 'query.mcap', "no images on '/rear'", IMAGES,
                  more=['--image-topic', '/rear'])
    assert failed(site / 'query.mcap', "no poses on '/gps'", POSES, more=['--pose-topic', '/gps'])
    (tmp_path / 'cut').mkdir()
    for file in write_bag(tmp_path / 'whole').iterdir():
        shutil.copy(file, tmp_path / 'cut' / file.name.replace('whole', 'cut'))
    (tmp_path / 'cut' / 'metadata.yaml').write_text(
        (tmp_path / 'whole' / 'metadata.yaml').read_text().replace('whole', 'cut'))
    (tmp_path / 'cut' / 'cut.db3').write_bytes((tmp_path / 'whole' / 'whole.db3').read_bytes()[:9])
    assert failed(tmp_path / 'cut', 'damaged or cut off')


def test_home_is_expanded_in_paths_but_not_in_topics(site, tmp_path, vpr, monkeypatch):
    monkeypatch.setenv('HOME', str(site))
    code, out, _ = vpr('build-map', '~/query.mcap', '--model=~/m.onnx',
                       f'--output=~/{tmp_path.name}')
    assert code == 0, out
    assert (site / tmp_path.name / 'map.yaml').is_file()
    assert vpr('inspect', f'~/{tmp_path.name}')[0] == 0
    assert "'~/image'" in vpr('build-map', '~/query.mcap', '--model=~/m.onnx', '--output=~/other',
                              '--image-topic', '~/image')[2]


@pytest.mark.parametrize('arguments', [['inspect', 'query.mcap'], ['inspect', 'map'], ['--help'],
                                       ['map-report', 'map', '--model', 'm.onnx']],
                         ids=' '.join)
def test_a_reader_of_the_output_may_leave(site, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([sys.executable, '-m', 'vpr_ros.cli', *arguments], cwd=site,
                            stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
                            env={**os.environ, 'PYTHONPATH': ROOT})
    os.close(writing)
    assert result.returncode in (0, 141)  # argparse says 0
    assert result.stderr == ''


def test_bags_that_cannot_be_replayed(site, tmp_path, vpr):
    def failed(bag, *parts, more=()):
        return is_one_line(*vpr('replay', bag, '--map', site / 'map', '--model', site / 'm.onnx',
                                '-o', tmp_path / 'out', *more), bag, *parts)

    assert failed(tmp_path / 'nothing', 'does not exist')
    assert failed(site / 'query.mcap', "no images on '/rear'", IMAGES,
                  more=['--image-topic', '/rear'])
    assert failed(write_bag(tmp_path / 'blind', with_images=False), 'no images', POSES)
    assert not (tmp_path / 'out').exists()


@pytest.fixture(scope='module')
def lacking(tmp_path_factory, site):
    """Return a folder with a map and two bags, of which the second has no images on /left."""
    folder = tmp_path_factory.mktemp('lacking')
    (folder / 'm').symlink_to(site / 'map')
    with BagWriter(folder / 'good.mcap') as bag:
        for topic in ('/left', IMAGES):
            bag.write(topic, messages.image(bag.types, 1, 'camera', render(0)), 1)
        bag.write(POSES, messages.pose_stamped(bag.types, 1, 'map', pose(0)), 1)
    write_bag(folder / 'other.mcap', range(2))
    write_folder(folder / 'images', range(2))
    (folder / 'images' / 'poses.csv').write_text('image,x,y\n')
    (folder / 'file').write_text('')
    return folder


@pytest.mark.parametrize(('arguments', 'said'), [
    ('build-map good.mcap other.mcap -o o --image-topic /left',
     "other.mcap has no images on '/left'"),
    ('build-map good.mcap other.mcap -o o --pose-topic /gps', "good.mcap has no poses on '/gps'"),
    ('build-map good.mcap images -o o', 'poses.csv'),
    ('build-map good.mcap -o file/m', 'file is a file'),
    ('replay good.mcap --map m -o o --truth-topic /gps', "good.mcap has no poses on '/gps'"),
    ('replay good.mcap --map m -o o --odometry-topic /w', 'good.mcap has no odometry'),
    ('replay good.mcap --map m -o file/o', 'file is a file'),
    ('replay good.mcap --map images -o o', 'images is not a map'),
    ('calibrate nothing good.mcap', 'nothing: no such map'),
    ('calibrate m good.mcap other.mcap --image-topic /left',
     "other.mcap has no images on '/left'"),
    ('calibrate m good.mcap other.mcap --truth-topic /gps', "good.mcap has no poses on '/gps'"),
    ('evaluate --map m --drive good.mcap --truth-topic /gps', "good.mcap has no poses on '/gps'"),
    ('evaluate --map m --drive good.mcap --image-topic /rear', 'good.mcap has no images on'),
    ('evaluate --map m --replay o --truth good.mcap --truth-topic /gps', 'has no poses on'),
    ('evaluate --map m --replay o --truth lost.tum', 'lost.tum'),
    ('evaluate --map m --replay o --truth good.mcap --html r.html --image-topic /rear',
     "no images on '/rear'"),
    ('evaluate --map m --drive good.mcap --json images', 'images is a folder'),
    ('evaluate --map m --drive good.mcap --html file/r.html', 'file is a file'),
    ('map-report m --json file/r.json', 'file is a file'),
])
def test_wrong_names_are_told_before_the_model_is_loaded(lacking, monkeypatch, vpr, arguments,
                                                         said):
    monkeypatch.chdir(lacking)
    assert is_one_line(*vpr(*arguments.split(), '--model', 'absent.onnx'), said)


def test_maps_that_cannot_be_used(site, tmp_path, vpr):
    def failed(place_map, *parts, model='m.onnx'):
        return is_one_line(*vpr('replay', site / 'query.mcap', '--map', place_map, '--model',
                                site / model, '-o', tmp_path / 'out'), place_map, *parts)

    assert failed(tmp_path / 'nothing', 'no such map')
    (tmp_path / 'empty').mkdir()
    assert failed(tmp_path / 'empty', 'not a map')
    assert failed(site / 'map', 'built with the model m.onnx', 'vpr build-map',
                  model='other.onnx')
    for name in ('index.faiss', 'places.npz'):
        damaged = tmp_path / f'truncated {name}'
        shutil.copytree(site / 'map', damaged)
        data = (site / 'map' / name).read_bytes()
        (damaged / name).write_bytes(data[:len(data) // 2])
        assert failed(damaged, name, 'build the map again')
        tampered = tmp_path / f'tampered {name}'
        shutil.copytree(site / 'map', tampered)
        (tampered / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert failed(tampered, name, 'changed after the map was written')
        missing = tmp_path / f'missing {name}'
        shutil.copytree(site / 'map', missing)
        (missing / name).unlink()
        assert failed(missing, name, 'missing')
    for text in ('', 'format: 99', '[', 'format: 1\nplaces: many'):
        damaged = tmp_path / f'manifest {text[:9].strip()!r}'
        shutil.copytree(site / 'map', damaged)
        (damaged / 'map.yaml').write_text(text)
        assert failed(damaged, 'build the map again')


def test_models_that_cannot_be_used(site, tmp_path, vpr):
    def failed(model, *parts):
        return is_one_line(*vpr('build-map', site / 'query.mcap', '--model', model, '-o',
                                tmp_path / 'm'), model, *parts)

    assert failed(tmp_path / 'nothing.onnx', 'no such model')
    (tmp_path / 'text.onnx').write_text('not a model')
    assert failed(tmp_path / 'text.onnx', 'not an ONNX model')
    (tmp_path / 'cut.onnx').write_bytes((site / 'm.onnx').read_bytes()[:300])
    assert failed(tmp_path / 'cut.onnx', 'not an ONNX model')
    other = write_thumbnail_model(tmp_path / 'input.onnx', input_name='pixels')
    assert failed(other, 'not a model of this package', 'pixels')


def test_folders_that_cannot_be_mapped(site, tmp_path, vpr):
    folder = write_folder(tmp_path / 'folder', range(3))
    (folder / 'poses.csv').write_text('image,x,y\n')
    arguments = ('build-map', folder, '--model', site / 'm.onnx', '-o', tmp_path / 'm')
    assert is_one_line(*vpr(*arguments), 'poses.csv', 'columns must be')
    assert is_one_line(*vpr(*arguments, '--pose-file', tmp_path / 'none.csv'), 'does not exist')


def test_paths_that_cannot_be_inspected(tmp_path, vpr):
    assert is_one_line(*vpr('inspect', tmp_path / 'nothing'), 'does not exist')
    (tmp_path / 'notes.txt').write_text('text')
    assert is_one_line(*vpr('inspect', tmp_path / 'notes.txt'), 'not a bag')


@pytest.mark.parametrize('arguments', ['--debug inspect nothing', 'inspect nothing --debug'])
def test_debug_raises_the_error(arguments):
    with pytest.raises(FileNotFoundError):
        main(arguments.split())


def test_a_malformed_size_is_one_line(tmp_path, vpr):
    assert is_one_line(*vpr('street', '--size', 'large', '-o', tmp_path / 's'), 'WxH', 'large')


def test_a_map_is_calibrated_in_place_and_stays_whole(site, vpr, tmp_path):
    folder = tmp_path / 'map'
    shutil.copytree(site / 'map', folder)
    arguments = ('calibrate', folder, site / 'query.mcap', '--model', site / 'm.onnx',
                 '--provider', 'cpu', '--truth-topic', POSES)
    before = (folder / 'map.yaml').read_bytes()
    code, out, _ = vpr(*arguments, '--dry-run')
    assert code == 0
    assert 'calibration error' in out
    assert (folder / 'map.yaml').read_bytes() == before
    code, out, _ = vpr(*arguments)
    assert code == 0
    assert f'{COUNT} frames' in out
    after, old = PlaceMap.load(folder), PlaceMap.load(site / 'map')
    assert after.manifest.calibration.fitted_on.endswith(f'query.mcap: {COUNT} frames')
    assert (after.vectors() == old.vectors()).all()
    assert after.thumbnail(3) is not None


def test_the_cpu_needs_no_engine(vpr, site, tmp_path):
    code, out, err = vpr('prepare-engine', site / 'm.onnx', '--provider', 'cpu', '--engine-cache',
                         tmp_path / 'cache')
    assert (code, err) == (0, '')
    assert out == f'{site / "m.onnx"}: cpu, fp32, no engine to build\n'
    assert not (tmp_path / 'cache').exists()


def test_an_engine_for_a_missing_provider_is_refused(vpr, site):
    import onnxruntime
    if 'TensorrtExecutionProvider' in onnxruntime.get_available_providers():
        pytest.skip('TensorRT is installed')
    assert is_one_line(*vpr('prepare-engine', site / 'm.onnx', '--provider', 'tensorrt'),
                       "'tensorrt' does not load here")
    code, _, err = vpr('prepare-engine', site / 'm.onnx', '--provider', 'tensorrt,abacus')
    assert code == 2
    assert "'abacus' is not known" in err


def test_only_what_its_owner_signed_is_replayed(site, tmp_path, vpr):
    pytest.importorskip('cryptography')
    key, place_map = tmp_path / 'key', tmp_path / 'map'
    shutil.copytree(site / 'map', place_map)
    code, out, _ = vpr('sign', '--new-key', key)
    assert code == 0
    assert out.strip().endswith(f'{key}.pub')
    replay = ('replay', site / 'query.mcap', '--map', place_map, '-o', tmp_path / 'out',
              '--trusted-keys', f'{key}.pub', '--model')
    assert is_one_line(*vpr(*replay, site / 'm.onnx'), 'map.yaml is not signed')
    code, out, _ = vpr('sign', place_map, '--key', key)
    assert (code, out[:len(str(place_map))]) == (0, str(place_map))
    assert is_one_line(*vpr(*replay, site / 'other.onnx'), 'other.onnx is not signed')
    assert not (tmp_path / 'out').exists()
    assert vpr(*replay, site / 'm.onnx')[0] == 0
    assert 'signed  by the key' in vpr('inspect', place_map)[1]
    for wrong in (['sign', '--key', key], ['sign', place_map, '--new-key', key], ['sign']):
        assert vpr(*wrong)[0] == 2
