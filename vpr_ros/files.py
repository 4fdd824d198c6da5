"""Files and folders that are whole or absent, their digests, and where the package keeps its own.

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

from vpr_ros.errors import VprError

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = ('map.yaml', 'metadata.yaml', 'estimates.csv')
"""What a directory holds that may be replaced: a map, a bag or a replay."""

_BLOCK = 1 << 20


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to; on success it becomes `path`.

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


@contextmanager
def whole_directory(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary directory to fill; on success it becomes `path`.

    The directory that is yielded has the final name inside a hidden parent, so that writers which
    name files after their directory get it right. Raises VprError when `path` exists already and
    `overwrite` is false; with it, the old directory goes only once the new one is complete.
    """
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise VprError(f'{path} exists already: choose another name, or pass --overwrite')
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in OURS):
        raise VprError(f'{path} is not something this program wrote, and is not replaced: choose '
                       'another name')
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


def packaged(name: str) -> Path:
    """Return the path of a file that the package carries, such as 'models/street_netvlad.onnx'.

    Looks in the source tree first, then in the `share/vpr_ros` of each ROS workspace and of this
    Python. Raises FileNotFoundError naming those places.
    """
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)),
                sys.prefix]
    roots = [Path(__file__).resolve().parents[1],
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
