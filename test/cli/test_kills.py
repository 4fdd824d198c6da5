"""
Commands that are killed: what they write is whole or absent, and the next run cleans up.

One kill in every run of the tests, in the middle of writing; `make chaos` goes on at
random moments.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from small_drive import POSES
from small_drive import write_bag
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.io.bag import Bag
from vpr_ros.maps.place_map import PlaceMap

KILLS = int(os.environ.get('VPR_CHAOS_KILLS', '0'))
SEED = int(os.environ.get('VPR_CHAOS_SEED', '1'))
LIMIT = 120.0


def _map(path: Path) -> None:
    assert len(PlaceMap.load(path, verify=True)) > 0


def _replay(path: Path) -> None:
    assert len((path / 'estimates.csv').read_text().splitlines()) > 1
    assert len((path / 'trajectory.tum').read_text().splitlines()) >= 0
    bag, = path.glob('*.mcap')
    with Bag(bag) as opened:
        assert opened.message_count > 0


def _json(path: Path) -> None:
    assert json.loads(path.read_text())


# What is written, how it is looked at, and the arguments; {} is the folder of the site.
COMMANDS: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    'build-map': ('new', _map, [
        'build-map', '{}/drive.mcap', '--model', '{}/m.onnx', '-o', 'new', '--overwrite']),
    'calibrate': ('map', _map, [
        'calibrate', 'map', '{}/query.mcap', '--model', '{}/m.onnx', '--truth-topic', POSES]),
    'replay': ('out', _replay, [
        'replay', '{}/query.mcap', '--map', '{}/map', '--model', '{}/m.onnx', '-o', 'out',
        '--overwrite']),
    'evaluate': ('e.json', _json, [
        'evaluate', '--map', '{}/map', '--replay', '{}/out', '--truth', '{}/query.mcap',
        '--truth-topic', POSES, '--model', '{}/m.onnx', '--json', 'e.json']),
    'map-report': ('r.json', _json, [
        'map-report', '{}/map', '--model', '{}/m.onnx', '--json', 'r.json']),
}


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with m.onnx, a map, two drives, and a replay of one of them."""
    folder = tmp_path_factory.mktemp('site')
    write_map(folder / 'map', write_thumbnail_model(folder / 'm.onnx'))
    write_bag(folder / 'drive.mcap')
    write_bag(folder / 'query.mcap', noise=1)
    if KILLS:
        _run(_arguments('replay', folder), folder).wait(LIMIT)
    return folder


def _arguments(name: str, site: Path) -> list[str]:
    return [argument.format(site) for argument in COMMANDS[name][2]]


def _run(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, '-m', 'vpr_ros.cli', *arguments], cwd=folder,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _parts(folder: Path) -> list[Path]:
    return list(folder.glob('.*part-*'))


def _killed_while_writing(running: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill a process once it has begun to write."""
    while not _parts(folder) and running.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            running.wait(0.0005)
    running.kill()
    running.wait()


@pytest.mark.parametrize('name', COMMANDS if KILLS else ['build-map'])
def test_a_command_that_is_killed_leaves_its_output_whole_or_absent(
        site: Path, tmp_path: Path, name: str) -> None:
    output, check, _ = COMMANDS[name]
    output_path = tmp_path / output
    if name == 'calibrate':
        shutil.copytree(site / 'map', output_path)
    rng = np.random.default_rng([SEED, len(name)])
    begin, took = time.monotonic(), 0.0
    if KILLS:
        assert _run(_arguments(name, site), tmp_path).wait(LIMIT) == 0
        took = time.monotonic() - begin
    seen = 0
    for number in range(KILLS or 1):
        running = _run(_arguments(name, site), tmp_path)
        if number % 2:  # at any moment
            try:
                running.wait(float(rng.uniform(0, took)))
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
        else:
            _killed_while_writing(running, tmp_path)
        seen += bool(_parts(tmp_path))
        if output_path.exists():
            check(output_path)
    if KILLS:
        print(f'kills: {name}, {KILLS}, {seen} of them left temporary files: no violation',
              file=sys.__stderr__, flush=True)
    # The next run is undisturbed by what is left, and removes it.
    assert _run(_arguments(name, site), tmp_path).wait(LIMIT) == 0
    check(output_path)
    assert _parts(tmp_path) == []
