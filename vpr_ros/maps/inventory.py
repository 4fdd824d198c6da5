"""The digests of the files of a map: which files belong to it, and whether they are unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from vpr_ros.core import fields
from vpr_ros.core.errors import MapError
from vpr_ros.core.files import sha256
from vpr_ros.core.files import spot_sha256

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PLACES = 1 << 28


@dataclass(frozen=True)
class Inventory:
    """
    The number of places of a map, and the digests of the files beside map.yaml, by name.

    `sha256` is of all bytes; `spots` of sampled blocks (files.spot_sha256), for files of gigabytes
    that have to open at once.
    """

    places: int
    sha256: Mapping[str, str]
    spots: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, directory: Path, places: int, names: list[str], sampled: list[str]) -> Inventory:
        """Return the inventory of files just written; of `sampled` ones with their blocks."""
        return cls(places, {name: sha256(directory / name) for name in (*names, *sampled)},
                   {name: spot_sha256(directory / name) for name in sampled})

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Inventory:
        """Return what map.yaml holds; raise KeyError or ValueError for what is none."""
        digests = [{name: fields.sha256_digits(digest, f'the SHA-256 of {name[:40]}')
                    for name, digest in fields.mapping(table, 'a table of SHA-256').items()}
                   for table in (raw['sha256'], raw.get('spots', {}))]
        return cls(fields.integer(raw['places'], 'places', 1, MOST_PLACES), *digests)

    def check(self, directory: Path, names: Mapping[str, int], sampled: Mapping[str, int], *,
              verify: bool = False) -> None:
        """
        Raise MapError unless the files are those; of `sampled` all bytes only on `verify`.

        Both name the files with their largest sizes in bytes: a file of another's map may have no
        end.
        """
        for name, most in names.items():
            _check_file(directory, name, most, self.sha256.get(name), sha256)
        for name, most in sampled.items():
            _check_file(directory, name, most, self.spots.get(name), spot_sha256)
            if verify:
                _check_file(directory, name, most, self.sha256.get(name), sha256)


def _check_file(directory: Path, name: str, most: int, digest: str | None,
                digest_of: Callable[[Path], str]) -> None:
    file = directory / name
    if not file.is_file():
        raise MapError(f'{directory} is not whole: {name} is missing; build the map again')
    if file.resolve().parent != directory.resolve():
        raise MapError(f'{file} leads out of the map: a map holds its own files')
    if file.stat().st_size > most:
        raise MapError(f'{file} is larger than map.yaml says: build the map again')
    if digest_of(file) != digest:
        raise MapError(f'{file} is truncated or was changed after the map was written: '
                       'build the map again')
