"""Atomic writing of files and folders, digests, and the package's own data files."""

from __future__ import annotations

import ctypes
from functools import partial
import hashlib
import os
from pathlib import Path
import shutil
import subprocess

import pytest
from vpr_ros.core import files
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import check_file
from vpr_ros.core.files import check_output
from vpr_ros.core.files import packaged
from vpr_ros.core.files import sha256
from vpr_ros.core.files import whole_directory
from vpr_ros.core.files import whole_file


def test_a_file_appears_complete_and_its_parent_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'deep' / 'poses.csv'
    with whole_file(path) as part:
        part.write_text('half')
        assert not path.exists()
        assert part.parent == path.parent
        assert part.suffix == path.suffix
        part.write_text('whole')
    assert path.read_text() == 'whole'
    assert _names(path.parent) == ['poses.csv']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary_one(
        tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / 'poses.csv'
    path.write_text('map.yaml')
    with pytest.raises(error), whole_file(path) as part:
        part.write_text('half of the new')
        raise error
    assert path.read_text() == 'map.yaml'
    assert _names(tmp_path) == ['poses.csv']


def test_a_file_that_could_not_be_written_is_told_before(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    check_file(tmp_path / 'file')  # it may be replaced
    check_file(tmp_path / 'new' / 'deep' / 'file')
    assert _names(tmp_path) == ['file']
    with pytest.raises(VprError, match=f'{tmp_path} is a folder'):
        check_file(tmp_path)
    with pytest.raises(VprError, match='file is a file'):
        check_file(tmp_path / 'file' / 'new')
    with pytest.raises(VprError, match='file is a file'):
        check_output(tmp_path / 'file' / 'new', 'map.yaml')


def test_a_failure_before_the_first_byte_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='early'), whole_file(tmp_path / 'poses.csv'):
        raise ValueError('early')
    assert _names(tmp_path) == []


def test_a_file_that_cannot_be_renamed_leaves_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / 'taken'
    (path / 'inside').mkdir(parents=True)
    with pytest.raises(OSError), whole_file(path) as part:
        part.write_text('new')
    assert _names(tmp_path) == ['taken']
    assert _names(path) == ['inside']


@pytest.mark.parametrize('writer', [whole_file, partial(whole_directory, marker='map.yaml')])
def test_a_parent_that_is_a_file_is_named(tmp_path: Path, writer) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(VprError, match='file: cannot create the folder'), \
            writer(tmp_path / 'file' / 'map'):
        pass


def test_a_directory_appears_complete_under_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / 'maps' / 'town'
    with whole_directory(path, 'map.yaml') as part:
        assert part.name == 'town'
        (part / 'map.yaml').write_text('format: 1')
        assert not path.exists()
    assert (path / 'map.yaml').read_text() == 'format: 1'
    assert _names(path.parent) == ['town']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_directory_and_no_temporary_one(
        tmp_path: Path, error: type[BaseException]) -> None:
    path = _old_directory(tmp_path)
    with pytest.raises(error), whole_directory(path, 'map.yaml', overwrite=True) as part:
        (part / 'new').write_text('new')
        raise error
    assert _names(path) == ['map.yaml']
    assert _names(tmp_path) == ['town']


def test_a_directory_that_exists_is_refused_untouched(tmp_path: Path) -> None:
    path = _old_directory(tmp_path)
    with pytest.raises(VprError, match=r'town exists already: .* --overwrite'), \
            whole_directory(path, 'map.yaml'):
        pytest.fail('the body must not run')
    assert _names(path) == ['map.yaml']


def test_overwrite_replaces_all_of_the_old_directory(tmp_path: Path) -> None:
    path = _old_directory(tmp_path)
    with whole_directory(path, 'map.yaml', overwrite=True) as part:
        (part / 'new').write_text('new')
        assert _names(path) == ['map.yaml']
    assert _names(path) == ['new']
    assert _names(tmp_path) == ['town']


def test_a_folder_of_another_program_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home' / 'thesis.txt').write_text('three years of work')
    with pytest.raises(VprError, match='is something else'), \
            whole_directory(tmp_path / 'home', 'map.yaml', overwrite=True):
        pytest.fail('the body must not run')
    assert _names(tmp_path / 'home') == ['thesis.txt']


@pytest.mark.parametrize('existing', ['recording', 'file'])
def test_only_a_directory_of_the_same_kind_is_replaced(tmp_path: Path, existing: str) -> None:
    path = tmp_path / 'drive'
    if existing == 'recording':
        path.mkdir()
        (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: {}')
    else:
        path.write_text('notes')
    with pytest.raises(VprError, match='is not replaced'), \
            whole_directory(path, 'map.yaml', overwrite=True):
        pytest.fail('the body must not run')
    assert _names(tmp_path) == ['drive']
    assert path.is_dir() == (existing == 'recording')


def test_a_failed_rename_puts_the_old_directory_back(tmp_path: Path) -> None:
    path = _old_directory(tmp_path)
    with pytest.raises(FileNotFoundError), \
            whole_directory(path, 'map.yaml', overwrite=True) as part:
        shutil.rmtree(part)
    assert _names(path) == ['map.yaml']
    assert _names(tmp_path) == ['town']


def test_a_directory_created_meanwhile_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / 'town'
    with pytest.raises(OSError, match='not empty'), whole_directory(path, 'map.yaml') as part:
        (part / 'new').write_text('new')
        _old_directory(tmp_path)
    assert _names(path) == ['map.yaml']
    assert _names(tmp_path) == ['town']


def _ended_process() -> int:
    with subprocess.Popen(['true']) as process:
        pass
    return process.pid


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    dead = _ended_process()
    (tmp_path / f'.poses.part-{dead}.csv').write_text('half')
    (tmp_path / f'.poses.part-{os.getppid()}.csv').write_text('of one that still runs')
    (tmp_path / f'.other.part-{dead}.csv').write_text('of another name')
    (tmp_path / f'.town.part-{dead}' / 'town').mkdir(parents=True)
    with whole_file(tmp_path / 'poses.csv') as part:
        part.write_text('whole')
    with whole_directory(tmp_path / 'town', 'map.yaml') as new:
        (new / 'map.yaml').write_text('whole')
    assert _names(tmp_path) == sorted([f'.other.part-{dead}.csv',
                                       f'.poses.part-{os.getppid()}.csv', 'poses.csv', 'town'])


def test_a_directory_that_a_killed_process_moved_aside_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / f'.town.part-{_ended_process()}' / 'town.old'
    aside.parent.mkdir()
    _old_directory(tmp_path).rename(aside)
    with pytest.raises(VprError, match='town exists already'), \
            whole_directory(tmp_path / 'town', 'map.yaml'):
        pytest.fail('the body must not run')
    assert _names(tmp_path / 'town') == ['map.yaml']
    assert _names(tmp_path) == ['town']


def test_there_is_never_no_directory_while_one_replaces_another(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _old_directory(tmp_path)

    def fail(*_: object) -> None:
        raise AssertionError('renamed in two steps')

    with whole_directory(path, 'map.yaml', overwrite=True) as part:
        (part / 'map.yaml').write_text('new')
        monkeypatch.setattr(Path, 'replace', fail)
    assert (path / 'map.yaml').read_text() == 'new'
    assert _names(tmp_path) == ['town']


def test_a_system_that_cannot_exchange_directories_renames_them(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, '_exchange', lambda one, other: False)
    test_overwrite_replaces_all_of_the_old_directory(tmp_path)


def test_files_are_on_the_disk_before_they_have_their_names(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, 'fsync', lambda number: synced.append(
        (Path(f'/proc/self/fd/{number}').resolve(), _names(tmp_path))))
    with whole_directory(tmp_path / 'town', 'map.yaml') as new:
        (new / 'thumbnails').mkdir()
        (new / 'thumbnails' / '0.jpg').write_text('image')
    with whole_file(tmp_path / 'poses.csv') as part:
        part.write_text('whole')
    names = [path.name for path, _ in synced]
    assert sorted(names[:3]) == ['0.jpg', 'thumbnails', 'town']
    assert all('town' not in present for _, present in synced[:3])
    assert names[3:] == [tmp_path.name, part.name, tmp_path.name]
    assert 'poses.csv' not in synced[4][1]


@pytest.mark.parametrize('able', [True, False])
def test_many_files_are_on_the_disk_in_one_go_where_the_system_can(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    alone: list[int] = []
    together: list[list[str]] = []
    monkeypatch.setattr(os, 'fsync', alone.append)
    monkeypatch.setattr(files, '_sync_file_system', lambda folder: (
        together.append(_names(tmp_path)), able)[1])
    with whole_directory(tmp_path / 'town', 'map.yaml') as new:
        for number in range(120):
            (new / f'{number}.jpg').touch()
    assert together == [[f'.town.part-{os.getpid()}']]  # before it has its name
    assert len(alone) == (1 if able else 122)


def test_the_file_system_of_a_folder_is_written_where_the_system_can(tmp_path: Path) -> None:
    assert files._sync_file_system(tmp_path) == hasattr(ctypes.CDLL(None), 'syncfs')


def test_sha256_covers_all_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / 'blob').write_bytes(content)
    assert sha256(tmp_path / 'blob') == hashlib.sha256(content).hexdigest()


def test_packaged_files_are_found_in_the_source_tree() -> None:
    path = packaged('config/localize.yaml')
    assert path.parts[-2:] == ('config', 'localize.yaml')


def test_packaged_files_are_found_in_a_workspace(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'share' / 'vpr_ros' / 'models' / 'only_here.onnx'
    path.parent.mkdir(parents=True)
    path.write_bytes(b'')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path}')
    assert packaged('models/only_here.onnx') == path


def test_the_error_for_a_missing_packaged_file_names_the_folders_searched() -> None:
    with pytest.raises(FileNotFoundError, match=r'no_such\.onnx is not installed: looked in .*/'):
        packaged('models/no_such.onnx')


def _old_directory(parent: Path) -> Path:
    (parent / 'town').mkdir()
    (parent / 'town' / 'map.yaml').write_text('map.yaml')
    return parent / 'town'


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
