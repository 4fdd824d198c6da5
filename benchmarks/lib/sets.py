"""
Image sets: folders with `database/`, and `queries/` with `ground_truth.csv` or `poses.csv`.

And the option `--data` of the benchmarks that run on them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from vpr_ros.core import images
from vpr_ros.core.errors import SourceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from collections.abc import Mapping

NO_DATA = ('real images: skipped, no sets are given; give --data DIR (or VPR_DATA), a folder of '
           'sets with database/, queries/ and ground_truth.csv')


@dataclass(frozen=True)
class ImageSet:
    """One set: its folder, and which parts of a set are in it."""

    path: Path

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.path.name

    @property
    def database(self) -> Path:
        """Return the folder with the images of the map."""
        return self.path / 'database'

    @property
    def queries(self) -> Path:
        """Return the folder with the images to localise."""
        return self.path / 'queries'

    @property
    def ground_truth(self) -> Path:
        """Return the file with a row query,reference for each right answer."""
        return self.path / 'ground_truth.csv'

    @property
    def has_queries(self) -> bool:
        """Return whether recall can be measured."""
        return self.queries.is_dir() and self.ground_truth.is_file()

    @property
    def has_poses(self) -> bool:
        """Return whether the images of the map have poses."""
        return (self.path / 'poses.csv').is_file()

    def answers(self) -> dict[str, set[int]]:
        """Return the right places (numbers in the order of names) of each query that has any."""
        places = {path.name: place for place, path in enumerate(images.list_folder(self.database))}
        answers: dict[str, set[int]] = {}
        with self.ground_truth.open(newline='', encoding='utf-8-sig') as file:
            for row in csv.DictReader(file):
                answers.setdefault(row['query'], set()).add(places[row['reference']])
        return answers


def find_sets(folder: str | Path) -> list[ImageSet]:
    """Return the sets in a folder, by name. Raises SourceError when there is none."""
    folder = Path(folder)
    sets = [ImageSet(path.parent) for path in sorted(folder.glob('*/database'))]
    if not sets:
        raise SourceError(f'{folder} holds no image set: a set is a folder with database/, and '
                          'with queries/ and ground_truth.csv')
    return sets


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, whose default is the environment variable VPR_DATA."""
    parser.add_argument('--data', default=os.environ.get('VPR_DATA'), metavar='DIR',
                        help='folder of real image sets (or VPR_DATA)')


def answer(options: argparse.Namespace, measure: Callable[[], Mapping[str, Any]]) -> int:
    """Answer as `tables.answer` does; without `--data`, print NO_DATA and return 0."""
    if not options.data:
        print(NO_DATA)
        return 0
    return tables.answer(options, measure)
