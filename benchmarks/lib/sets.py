"""
Folders of real pictures: `database/`, and `queries/` with `ground_truth.csv` or `poses.csv`.

What is measured on them is in real_sets.py and real_node.py.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from vpr_ros.core import images
from vpr_ros.core.errors import SourceError

NO_DATA = ('real pictures: skipped, for none are named; give --data DIR (or VPR_DATA), a folder '
           'of sets with database/, queries/ and ground_truth.csv')


@dataclass(frozen=True)
class PictureSet:
    """One set: its folder, and which of its parts are there."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def database(self) -> Path:
        """The pictures of the map."""
        return self.path / 'database'

    @property
    def queries(self) -> Path:
        """The pictures to find on it."""
        return self.path / 'queries'

    @property
    def ground_truth(self) -> Path:
        """The file with a row query,reference for each right answer."""
        return self.path / 'ground_truth.csv'

    @property
    def has_queries(self) -> bool:
        """Whether recall can be measured."""
        return self.queries.is_dir() and self.ground_truth.is_file()

    @property
    def has_poses(self) -> bool:
        """Whether the pictures of the map have poses."""
        return (self.path / 'poses.csv').is_file()

    def answers(self) -> dict[str, set[int]]:
        """Return the right places (numbers in the order of names) of each query that has any."""
        places = {path.name: place for place, path in enumerate(images.list_folder(self.database))}
        answers: dict[str, set[int]] = {}
        with self.ground_truth.open(newline='', encoding='utf-8-sig') as file:
            for row in csv.DictReader(file):
                answers.setdefault(row['query'], set()).add(places[row['reference']])
        return answers


def find_sets(folder: str | Path) -> list[PictureSet]:
    """Return the sets in a folder, by name. Raises SourceError when there is none."""
    folder = Path(folder)
    found = [PictureSet(path.parent) for path in sorted(folder.glob('*/database'))]
    if not found:
        raise SourceError(f'{folder} holds no picture set: folders with database/, and queries/ '
                          'with ground_truth.csv, are looked for')
    return found
