"""Recall of descriptors, and the folder that a validation set is read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from vpr_ros.core.errors import SourceError
from vpr_ros.training.recall import recall_at
from vpr_ros.training.recall import validate
from vpr_ros.training.recall import ValidationSet

if TYPE_CHECKING:
    from pathlib import Path


def by_loop(database, queries, truth, n):
    """Say the same in a plain loop."""
    database = database - database.mean(axis=0)
    queries = queries - queries.mean(axis=0)
    found = []
    for query, right in zip(queries, truth, strict=True):
        if not len(right):
            continue
        similar = [query @ d / np.linalg.norm(query) / np.linalg.norm(d) for d in database]
        best = np.argsort(similar)[::-1][:n]
        found.append(bool(set(best.tolist()) & set(right)))
    return np.mean(found)


def test_recall_is_that_of_a_plain_loop():
    random = np.random.default_rng(0)
    database = random.normal(size=(40, 6)).astype(np.float32)
    queries = (database + random.normal(scale=0.8, size=database.shape)).astype(np.float32)
    truth = [[i] if i % 5 else [] for i in range(39)] + [[39, 0]]
    recall = recall_at(database, queries, truth, (1, 3, 40))
    assert 0.1 < recall[1] < recall[3] < 1.0
    assert recall == {n: pytest.approx(by_loop(database, queries, truth, n)) for n in (1, 3, 40)}


def test_a_shift_of_a_whole_drive_changes_nothing():
    random = np.random.default_rng(0)
    database = random.normal(size=(20, 8)).astype(np.float32)
    truth = [[i] for i in range(20)]
    assert recall_at(database, database + 7.0, truth)[1] == 1.0


def test_descriptors_all_alike_find_nothing():
    same = np.ones((10, 4), np.float32)
    assert recall_at(same, same, [[i] for i in range(10)], (1, 5)) == {1: 0.0, 5: 0.0}


def test_what_has_no_recall_is_refused():
    values = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match='not finite'):
        recall_at(values * np.nan, values, [[0], [1], [2]])
    with pytest.raises(ValueError, match='no query has a correct place'):
        recall_at(values, values, [[], [], []])
    with pytest.raises(ValueError, match='as many entries'):
        recall_at(values, values, [[0]])


def write_set(folder: Path, rows: str = 'a.png,a.png\nb.png,b.png\n') -> Path:
    random = np.random.default_rng(0)
    for part, names in (('database', 'abc'), ('queries', 'ab')):
        (folder / part).mkdir(parents=True)
        for name in names:
            cv2.imwrite(str(folder / part / f'{name}.png'),
                        random.integers(0, 256, (16, 20, 3), dtype=np.uint8))
    (folder / 'ground_truth.csv').write_text('query,reference\n' + rows)
    return folder


def test_a_validation_set_is_read_and_measured(tmp_path):
    validation = ValidationSet.read(write_set(tmp_path / 'set', 'a.png,a.png\na.png,c.png\n'))
    assert [path.name for path in validation.database] == ['a.png', 'b.png', 'c.png']
    assert [right.tolist() for right in validation.truth] == [[0, 2], []]
    assert validate(validation, lambda batch: np.stack(
        [image.mean(axis=(0, 1)) for image in batch]).astype(np.float32), (3,)) == {3: 1.0}


@pytest.mark.parametrize(('rows', 'message'), [
    ('a.png,z.png\n', 'names z.png, which is not'),
    ('c.png,a.png\n', 'names c.png, which is not'),
    ('', 'lists no correct pair'),
])
def test_a_ground_truth_that_does_not_fit_is_refused(tmp_path, rows, message):
    with pytest.raises(SourceError, match=message):
        ValidationSet.read(write_set(tmp_path / 'set', rows))


def test_a_set_without_its_table_is_refused(tmp_path):
    (write_set(tmp_path / 'set') / 'ground_truth.csv').unlink()
    with pytest.raises(FileNotFoundError, match=r'ground_truth.csv does not exist'):
        ValidationSet.read(tmp_path / 'set')
