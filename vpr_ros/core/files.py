"""
Atomic writing of files and folders, their digests, and the package's own data files.

Everything that the package writes goes through here; the file formats are defined elsewhere.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextlib import suppress
import ctypes
import errno
import hashlib
import os
from pathlib import Path
import re
import shutil
import stat
import sys
from typing import TYPE_CHECKING

from vpr_ros.core.errors import VprError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20        # bytes that are hashed at a time
_SPOT = 1 << 16         # bytes of a spot that `spot_sha256` reads
_SPOT_COUNT = 64
_MANY = 100             # files from which writing the whole file system is the faster

_OLD = '.old'           # of the directory that is replaced, for a moment
_HERE, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """
    Yield a temporary file beside `path` to write to; on success it is renamed to `path`.

    After an exception (a full disk, an interrupt) the temporary file is removed, and an existing
    file at `path` is untouched; what a process that was killed has left goes with the next one.
    It is on the disk before it is renamed: a power cut leaves one or the other. It keeps the
    suffix, by which some writers choose a format.
    """
    path = Path(path)
    _make_parent(path)
    _remove_leftovers(path, path.stem, path.suffix)
    part = path.with_name(f'.{path.stem}.part-{os.getpid()}{path.suffix}')
    try:
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def check_output(path: str | Path, marker: str, *, overwrite: bool = False) -> None:
    """
    Raise VprError when a directory must not be written to `path`.

    An existing directory is replaced only with `overwrite`, and only when it is empty or of the
    same kind, which means that it has the file `marker`, such as map.yaml: a map never replaces a
    recording.
    """
    path = Path(path)
    if not path.exists() and not path.is_symlink():
        _check_parent(path)
        return
    if not overwrite:
        raise VprError(f'{path} exists already: choose another name, or pass --overwrite')
    if not path.is_dir() or (any(path.iterdir()) and not (path / marker).is_file()):
        raise VprError(f'{path} is something else (it has no {marker}) and is not replaced: '
                       'choose another name')


def check_file(path: str | Path) -> None:
    """Raise VprError when `whole_file` could not write a file to `path`: before long work."""
    path = Path(path)
    if path.is_dir():
        raise VprError(f'{path} is a folder: name a file in it')
    _check_parent(path)


@contextmanager
def whole_directory(path: str | Path, marker: str, *, overwrite: bool = False) -> Iterator[Path]:
    """
    Yield a temporary directory to fill; on success it is renamed to `path`.

    The temporary directory has the final name, inside a hidden parent, for writers that name
    files after their directory. `check_output` decides with `marker` and `overwrite` whether an
    existing directory may be replaced; it is removed only once the new one is complete, on the
    disk, and in its place.
    """
    path = Path(path).absolute()
    _remove_leftovers(path, path.name, '')
    check_output(path, marker, overwrite=overwrite)
    _make_parent(path)
    parent = path.with_name(f'.{path.name}.part-{os.getpid()}')
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir()
    try:
        new = parent / path.name
        new.mkdir()
        yield new
        _sync_all(new)
        if not (overwrite and path.exists() and _exchange(new, path)):
            old = parent / f'{path.name}{_OLD}'
            if overwrite and path.exists():
                path.replace(old)
            try:
                new.replace(path)
            except BaseException:
                if old.exists():
                    old.replace(path)
                raise
        _sync(path.parent)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def read_inside(directory: Path, name: str, most: int) -> bytes:
    """
    Return the bytes of a file of a directory: of `most` bytes at most, no link, pipe or device.

    Raises OSError for any of these, and when there is none.
    """
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(number, 'rb') as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise OSError(f'{name} is no file of at most {most} bytes')
        return file.read(most)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def spot_sha256(path: str | Path) -> str:
    """
    Return the SHA-256 of a file's size and of 64 evenly spaced spots, both ends included.

    For files of gigabytes that must open quickly. It detects a file that was truncated, replaced
    or overwritten, but not a change between the spots, for which `sha256` is needed.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - _SPOT)
    with path.open('rb') as file:
        for spot in range(_SPOT_COUNT):
            file.seek(last * spot // (_SPOT_COUNT - 1))
            digest.update(file.read(_SPOT))
    return digest.hexdigest()


def expanded(path: str) -> str:
    """Return a path with ~ expanded: as it is, where that has no meaning."""
    try:
        return str(Path(path).expanduser()) if path.startswith('~') else path
    except RuntimeError:  # no such user
        return path


def user_cache() -> Path:
    """Return the package's folder in the user's cache directory (XDG_CACHE_HOME, ~/.cache)."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'vpr_ros')


def packaged(name: str) -> Path:
    """
    Return the path of a file that comes with the package, such as 'config/localize.yaml'.

    Searches the source tree first, then `share/vpr_ros` of each ROS workspace and of this Python
    environment. Raises FileNotFoundError that names the folders searched.
    """
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)),
                sys.prefix]
    roots = [Path(__file__).resolve().parents[2],
             *(Path(prefix) / 'share' / 'vpr_ros' for prefix in prefixes)]
    for root in roots:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(f'{name} is not installed: looked in {", ".join(map(str, roots))}')


def _sync(path: Path) -> None:
    """Return once a file, or the list of a directory's files, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a file system that has no use for it
            raise
    finally:
        os.close(number)


def _sync_all(folder: Path) -> None:
    """Return once all in a folder is on the disk: many files in one go, where the system can."""
    paths = [Path(root, name) for root, _, names in os.walk(folder) for name in (*names, '.')]
    if len(paths) < _MANY or not _sync_file_system(folder):
        for path in paths:
            _sync(path)


def _sync_file_system(folder: Path) -> bool:
    """Write all of a folder's file system to the disk; return whether the system could."""
    syncfs = getattr(ctypes.CDLL(None), 'syncfs', None)
    if syncfs is None:
        return False
    number = os.open(folder, os.O_RDONLY)
    try:
        return bool(syncfs(number) == 0)
    finally:
        os.close(number)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; return whether the system could."""
    rename = getattr(ctypes.CDLL(None), 'renameat2', None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other),
                                         _RENAME_EXCHANGE) == 0


def _remove_leftovers(path: Path, stem: str, suffix: str) -> None:
    """
    Remove the temporary files for `path` of processes that were killed.

    Where one was killed after it had moved an old directory aside, that comes back.
    """
    name = re.compile(rf'\.{re.escape(stem)}\.part-([0-9]{{1,9}}){re.escape(suffix)}')
    with suppress(OSError):  # what cannot be removed is in nobody's way
        for part in path.parent.iterdir():
            found = name.fullmatch(part.name)
            if found is None or _is_alive(int(found[1])):
                continue
            old = part / f'{path.name}{_OLD}'
            if old.exists() and not path.exists():
                old.replace(path)
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _check_parent(path: Path) -> None:
    """Raise VprError when no folder for `path` can be made, or nothing written to it."""
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise VprError(f'{path.parent}: cannot create the folder: {parent} is a file')
    if not os.access(parent, os.W_OK | os.X_OK):
        raise VprError(f'{path} cannot be written: no permission to write to {parent}')


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VprError(f'{path.parent}: cannot create the folder: {error.strerror}') from error
