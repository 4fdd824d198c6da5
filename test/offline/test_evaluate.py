"""Recall on a set of pictures, against the plain computation; and sets that cannot be scored."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from small_drive import write_damaged
from small_drive import write_folder
from vpr_ros import images
from vpr_ros.errors import ImageError
from vpr_ros.errors import SourceError
from vpr_ros.offline.evaluate import evaluate_set

PLACES = 60
PRIOR = 30


@pytest.fixture
def pictures(tmp_path):
    """Write a database and queries, some of them hard, of which every third has no answer."""
    database = write_folder(tmp_path / 'database', range(PLACES))
    queries = write_folder(tmp_path / 'queries', range(0, PLACES, 2), noise=1)
    random = np.random.default_rng(3)
    for place in range(0, PLACES, 4):
        hard = images.read(queries / f'{place:03d}.png').astype(np.float64)
        other = images.read(database / f'{(7 * place + 1) % PLACES:03d}.png')
        mixed = 0.45 * hard + 0.55 * other + random.normal(0, 30, hard.shape)
        (queries / f'{place:03d}.png').unlink()
        (queries / f'{place:03d}.jpg').write_bytes(
            images.encode_jpeg(mixed.clip(0, 255).astype(np.uint8)))
    files = images.list_folder(queries)
    truth = {file.name: [p for p in (int(file.stem) + step for step in (-1, 0, 1))
                         if 0 <= p < PLACES]
             for number, file in enumerate(files) if number % 3}
    write_truth(tmp_path / 'truth.csv', [(query, f'{place:03d}.png')
                                         for query, places in truth.items() for place in places])
    return database, queries, tmp_path / 'truth.csv'


def write_truth(path, rows):
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([('query', 'reference'), *rows])


def plain_recall(database, queries, truth, encoder, *, compensate):
    """Return Recall@1/5/10 as one would compute it with a matrix product."""
    d = np.stack([encoder.encode(images.read(file)) for file in images.list_folder(database)])
    mean = d.mean(axis=0)
    rows = list(csv.DictReader(truth.read_text().splitlines()))
    hits = {1: 0, 5: 0, 10: 0}
    asked = 0
    running, weight = mean.copy(), PRIOR
    for file in images.list_folder(queries):
        q = encoder.encode(images.read(file))
        if compensate:
            weight += 1
            running += (q - running) / weight
        right = {int(row['reference'][:3]) for row in rows if row['query'] == file.name}
        if not right:
            continue
        asked += 1
        a, b = d - mean, q - running
        cosine = a @ b / np.linalg.norm(a, axis=1) / np.linalg.norm(b)
        best = np.argsort(-cosine).tolist()
        for n in hits:
            hits[n] += bool(right & set(best[:n]))
    return {str(n): count / asked for n, count in hits.items()}, asked


@pytest.mark.parametrize('compensate', [True, False])
def test_the_recall_is_that_of_the_plain_computation(pictures, encoder, compensate):
    result = evaluate_set(*pictures, encoder, compensate=compensate)
    expected, asked = plain_recall(*pictures, encoder, compensate=compensate)
    assert result['recall'] == pytest.approx(expected)
    assert 0 < result['recall']['1'] < result['recall']['10']
    assert result['evaluated'] == asked == 20
    assert result['unmapped'] == PLACES // 2 - asked
    assert result['places'] == PLACES
    assert result['model'] == encoder.digest


def test_a_set_against_itself_has_full_recall(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(PLACES))
    write_truth(tmp_path / 'truth.csv', [(f'{i:03d}.png', f'{i:03d}.png') for i in range(PLACES)])
    result = evaluate_set(database, database, tmp_path / 'truth.csv', encoder)
    assert result['recall'] == {'1': 1.0, '5': 1.0, '10': 1.0}
    assert result['unmapped'] == 0


def test_a_database_smaller_than_ten_can_be_scored(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(3))
    write_truth(tmp_path / 'truth.csv', [('000.png', '002.png'), ('001.png', '001.png')])
    recall = evaluate_set(database, database, tmp_path / 'truth.csv', encoder)['recall']
    assert recall == {'1': 0.5, '5': 1.0, '10': 1.0}


@pytest.mark.parametrize(('rows', 'missing'), [
    ([('000.png', '000.png'), ('nine.png', '000.png')], r'nine\.png'),
    ([('000.png', 'ten.png')], r'ten\.png'),
])
def test_a_ground_truth_that_names_a_missing_file_is_refused(tmp_path, encoder, rows, missing):
    database = write_folder(tmp_path / 'database', range(3))
    write_truth(tmp_path / 'truth.csv', rows)
    with pytest.raises(SourceError, match=rf'truth\.csv names {missing}'):
        evaluate_set(database, database, tmp_path / 'truth.csv', encoder)


@pytest.mark.parametrize(('text', 'match'), [
    ('', 'needs the columns query,reference'),
    ('query,database\n000.png,000.png\n', 'needs the columns query,reference'),
    ('query,reference\n', 'lists no right answer'),
])
def test_a_ground_truth_without_answers_is_refused(tmp_path, encoder, text, match):
    database = write_folder(tmp_path / 'database', range(3))
    (tmp_path / 'truth.csv').write_text(text)
    with pytest.raises(SourceError, match=match):
        evaluate_set(database, database, tmp_path / 'truth.csv', encoder)


def test_missing_folders_and_files_are_named(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(3))
    write_truth(tmp_path / 'truth.csv', [('000.png', '000.png')])
    with pytest.raises(FileNotFoundError, match=r'none\.csv does not exist'):
        evaluate_set(database, database, tmp_path / 'none.csv', encoder)
    with pytest.raises(SourceError, match='nothing is not a folder'):
        evaluate_set(database, tmp_path / 'nothing', tmp_path / 'truth.csv', encoder)


def test_a_damaged_picture_is_an_error_since_it_would_move_the_figure(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(3))
    queries = write_folder(tmp_path / 'queries', range(3))
    write_truth(tmp_path / 'truth.csv', [('000.png', '000.png')])
    write_damaged(queries / '001.png')
    with pytest.raises(ImageError, match=r'001\.png is damaged'):
        evaluate_set(database, queries, tmp_path / 'truth.csv', encoder)
    write_damaged(database / '001.png')
    with pytest.raises(SourceError, match='1 of its pictures cannot be used'):
        evaluate_set(database, database, tmp_path / 'truth.csv', encoder)


def test_recalls_are_no_smaller_with_more_candidates(pictures, encoder):
    recall = evaluate_set(*pictures, encoder)['recall']
    assert recall['1'] <= recall['5'] <= recall['10'] <= 1
    assert all(math.isfinite(share) for share in recall.values())


def test_the_filter_finds_a_drive_that_single_frames_do_not(pictures, encoder):
    single = evaluate_set(*pictures, encoder)
    carried = evaluate_set(*pictures, encoder, filter=True, min_confidence=0.5)
    assert carried['recall'] == single['recall']  # of single frames, in both
    assert carried['filtered'] > single['recall']['1']
    assert 'filtered' not in single
    assert carried['max_speed'] == 2.0


@pytest.mark.parametrize('carried', [True, False])
def test_what_is_answered_is_counted(pictures, encoder, carried):
    every = evaluate_set(*pictures, encoder, filter=carried, min_confidence=0.0)
    assert every['answered'] == PLACES // 2
    assert every['false_accepts'] == every['unmapped']
    assert 0 < every['answered_right'] <= every['evaluated']
    assert 0 <= every['ece'] <= 1
    some = evaluate_set(*pictures, encoder, filter=carried, min_confidence=1.0)
    assert some['answered'] == some['answered_right'] == some['false_accepts'] == 0
    assert some['ece'] == every['ece']
