"""
Files and folders that are whole or absent, their digests, and where the package keeps its own.

Everything the project writes goes through here. What the files mean is not known here.
"""

from __future__ import annotations

from contextlib import contextmanager
import hashlib
import os
from pathlib import Path
import shutil
import sys
from typing import TYPE_CHECKING

from vpr_ros.core.errors import VprError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20
_SPOT = 1 << 16
_SPOTS = 64


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """
    Yield a temporary sibling of `path` to write to; on success it becomes `path`.

    After an exception (a full disk, an interrupt) the sibling is removed and what was at `path`
    before is untouched. The sibling keeps the suffix, since some writers choose a format by it.
    """
    path = Path(path)
    _make_parent(path)
    sibling = path.with_name(f'.{path.stem}.part-{os.getpid()}{path.suffix}')
    try:
        yield sibling
        sibling.replace(path)
    finally:
        sibling.unlink(missing_ok=True)


def check_output(path: str | Path, marker: str, *, overwrite: bool = False) -> None:
    """
    Raise VprError when a directory must not be written to `path`.

    What is there is replaced only when `overwrite` says so and it is empty or of the same kind:
    it holds the file `marker`, such as map.yaml. A recording is never replaced by a map.
    """
    path = Path(path)
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise VprError(f'{path} exists already: choose another name, or pass --overwrite')
    if not path.is_dir() or (any(path.iterdir()) and not (path / marker).is_file()):
        raise VprError(f'{path} is something else (it has no {marker}), and is not replaced: '
                       'choose another name')


@contextmanager
def whole_directory(path: str | Path, marker: str, *, overwrite: bool = False) -> Iterator[Path]:
    """
    Yield a temporary directory to fill; on success it becomes `path`.

    The directory that is yielded has the final name inside a hidden parent, so that writers which
    name files after their directory get it right. `marker` is the file that tells its kind: what
    may be replaced is `check_output`'s to say, and the old directory goes only once the new one is
    complete.
    """
    path = Path(path).absolute()
    check_output(path, marker, overwrite=overwrite)
    _make_parent(path)
    parent = path.with_name(f'.{path.name}.part-{os.getpid()}')
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir()
    try:
        new = parent / path.name
        new.mkdir()
        yield new
        old = parent / f'{path.name}.old'
        if overwrite and path.exists():
            path.replace(old)
        try:
            new.replace(path)
        except BaseException:
            if old.exists():
                old.replace(path)
            raise
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def spot_sha256(path: str | Path) -> str:
    """
    Return the SHA-256 of a file's size and of 64 parts, the first and the last among them.

    For files of gigabytes that have to open at once. It tells a file that was cut off, exchanged
    or written over, but not one whose bytes were changed elsewhere: only `sha256` does.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - _SPOT)
    with path.open('rb') as file:
        for spot in range(_SPOTS):
            file.seek(last * spot // (_SPOTS - 1))
            digest.update(file.read(_SPOT))
    return digest.hexdigest()


def user_cache() -> Path:
    """Return the package's folder in the user's cache directory (XDG_CACHE_HOME, ~/.cache)."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'vpr_ros')


def packaged(name: str) -> Path:
    """
    Return the path of a file that the package carries, such as 'models/resnet18_netvlad.onnx'.

    Looks in the source tree first, then in the `share/vpr_ros` of each ROS workspace and of this
    Python. Raises FileNotFoundError naming those places.
    """
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)),
                sys.prefix]
    roots = [Path(__file__).resolve().parents[2],
             *(Path(prefix) / 'share' / 'vpr_ros' for prefix in prefixes)]
    for root in roots:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(f'{name} is not installed: looked in {", ".join(map(str, roots))}')


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VprError(f'{path.parent}: cannot be made a folder: {error.strerror}') from error
