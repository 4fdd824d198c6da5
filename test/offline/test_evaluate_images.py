"""Recall on sets of images, against the plain computation; and sets that cannot be scored."""

from __future__ import annotations

from contextlib import nullcontext
import csv
import math
from pathlib import Path
import re

import numpy as np
import pytest
from small_drive import write_damaged
from small_drive import write_folder
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import images
from vpr_ros.core.defaults import CENTERINGS
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.ground_truth import check_metres
from vpr_ros.io.ground_truth import read_ground_truth
from vpr_ros.io.ground_truth import utm_of
from vpr_ros.offline import evaluate_images
from vpr_ros.offline.localize_queries import EvaluationOptions
from vpr_ros.offline.summary import summary

PLACES = 60
PRIOR = 30


@pytest.fixture
def image_set(tmp_path):
    """Write a database and queries, some of them hard; every third query is not on the map."""
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


def evaluate_set(*arguments, cache=False, use_filter=False, **options):
    options = EvaluationOptions(use_filter=use_filter, **options)
    return summary(evaluate_images.evaluate_set(*arguments, options, cache=cache))


def write_truth(path, rows):
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([('query', 'reference'), *rows])


def plain_recall(database, queries, truth, encoder, *, centering):
    """Return Recall@1/5/10 as one would compute it with a matrix product."""
    d = np.stack([encoder.encode(images.read(file)) for file in images.list_folder(database)])
    mean = 0 * d[0] if centering == 'none' else d.mean(axis=0)
    rows = list(csv.DictReader(truth.read_text().splitlines()))
    hits = {1: 0, 5: 0, 10: 0, 20: 0}
    asked = 0
    running, weight = mean.copy(), PRIOR
    for file in images.list_folder(queries):
        q = encoder.encode(images.read(file))
        if centering == 'running':
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


@pytest.mark.parametrize('centering', CENTERINGS)
def test_the_recall_is_that_of_the_plain_computation(image_set, encoder, centering):
    result = evaluate_set(*image_set, encoder, centering=centering)
    expected, asked = plain_recall(*image_set, encoder, centering=centering)
    assert (result['centering'], result['compensate']) == (centering, centering == 'running')
    assert result['recall'] == pytest.approx(expected)
    assert 0 < result['recall']['1'] < result['recall']['10']
    assert result['evaluated'] == asked == 20
    assert result['unmapped'] == PLACES // 2 - asked
    assert result['places'] == PLACES
    assert result['model'] == encoder.digest


def test_queries_are_verified_by_detail_that_descriptors_do_not_see(tmp_path):
    encoder = Encoder(write_thumbnail_model(tmp_path / 'm.onnx', grid=True), 'cpu', 1)
    random = np.random.default_rng(0)
    alike = np.kron(random.integers(80, 176, (6, 8)), np.ones((20, 20)))
    for folder in ('database', 'queries'):
        (tmp_path / folder).mkdir()
    for place in range(12):
        detail = np.kron(np.random.default_rng(place).integers(-60, 61, (40, 54)),
                         np.ones((3, 3)))[:120, :160]
        for folder in ('database', 'queries'):
            light = np.kron(random.integers(-20, 21, (6, 8)), np.ones((20, 20)))
            shown = alike + light + detail + random.normal(0, 8, alike.shape)
            (tmp_path / folder / f'{place:03d}.jpg').write_bytes(images.encode_jpeg(
                np.repeat(shown.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)))
    names = [f'{place:03d}.jpg' for place in range(8)]  # the others are on no place
    for name in names[8:]:
        (tmp_path / 'database' / name).unlink()
    write_truth(tmp_path / 'truth.csv', zip(names, names, strict=True))
    plain, verified = (evaluate_set(
        tmp_path / 'database', tmp_path / 'queries', tmp_path / 'truth.csv', encoder,
        projection='model', verify=verify) for verify in (False, True))
    assert (plain['verify'], verified['verify']) == (False, True)
    assert verified['recall']['1'] == 1.0 > plain['recall']['1']
    assert verified['auc_pr'] > plain['auc_pr']


def test_every_figure_is_explained(image_set, encoder):
    page = (Path(__file__).resolve().parents[2] / 'docs' / 'metrics.md').read_text()
    explained = set(re.findall(r'`(\w+)`', ''.join(
        line.split('|')[1] for line in page.splitlines() if line.startswith('| `'))))
    assert set(evaluate_set(*image_set, encoder, use_filter=True)) <= explained


def test_a_set_against_itself_has_full_recall(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(PLACES))
    write_truth(tmp_path / 'truth.csv', [(f'{i:03d}.png', f'{i:03d}.png') for i in range(PLACES)])
    result = evaluate_set(database, database, tmp_path / 'truth.csv', encoder)
    assert result['recall'] == {'1': 1.0, '5': 1.0, '10': 1.0, '20': 1.0}
    assert result['unmapped'] == 0


def test_a_database_smaller_than_ten_can_be_scored(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(3))
    write_truth(tmp_path / 'truth.csv', [('000.png', '002.png'), ('001.png', '001.png')])
    recall = evaluate_set(database, database, tmp_path / 'truth.csv', encoder)['recall']
    assert recall == {'1': 0.5}  # there are but three candidates


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
    ('query,reference\n', 'lists no correct pair'),
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


def test_a_damaged_image_is_an_error_since_it_would_change_the_recall(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(3))
    queries = write_folder(tmp_path / 'queries', range(3))
    write_truth(tmp_path / 'truth.csv', [('000.png', '000.png')])
    write_damaged(queries / '001.png')
    with pytest.raises(ImageError, match=r'001\.png is damaged'):
        evaluate_set(database, queries, tmp_path / 'truth.csv', encoder)
    write_damaged(database / '001.png')
    with pytest.raises(ImageError, match=r'001\.png is damaged'):
        evaluate_set(database, database, tmp_path / 'truth.csv', encoder)


def test_recalls_are_no_smaller_with_more_candidates(image_set, encoder):
    recall = evaluate_set(*image_set, encoder)['recall']
    assert recall['1'] <= recall['5'] <= recall['10'] <= recall['20'] <= 1
    assert all(math.isfinite(share) for share in recall.values())


def test_the_filter_finds_a_drive_that_single_frames_do_not(image_set, encoder):
    single = evaluate_set(*image_set, encoder)
    filtered = evaluate_set(*image_set, encoder, use_filter=True, min_confidence=0.5)
    assert filtered['recall'] == single['recall']  # of single frames, in both
    assert filtered['filtered'] > single['recall']['1']
    assert 'filtered' not in single


@pytest.mark.parametrize('use_filter', [True, False])
def test_published_poses_are_counted(image_set, encoder, use_filter):
    every = evaluate_set(*image_set, encoder, use_filter=use_filter, min_confidence=0.0)
    assert every['answered'] == 1
    assert every['false_accepts'] == 1
    assert 0 < every['answered_right'] <= every['evaluated'] / (PLACES // 2)
    assert 0 <= every['ece'] <= 1
    none = evaluate_set(*image_set, encoder, use_filter=use_filter, min_confidence=1.0)
    assert none['answered'] == none['false_accepts'] == 0
    assert none['answered_right'] is None
    assert none['ece'] == every['ece']
    assert none['auc_pr'] == every['auc_pr']


def test_places_a_metre_apart_by_assumption_have_no_error_in_metres(image_set, encoder):
    result = evaluate_set(*image_set, encoder)
    assert result['pose_error'] is None
    assert result['nees'] is None
    assert result['latency_ms']['locate']['p50'] > 0


def test_a_second_evaluation_reads_no_image(image_set, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    first = evaluate_set(*image_set, encoder, cache=True)
    assert 'encode' in first['latency_ms']
    again = evaluate_set(*image_set, encoder, cache=True)
    assert 'encode' not in again['latency_ms']
    assert again['recall'] == first['recall']
    (kept,) = (path for path in (tmp_path / 'cache').rglob('*.npy')
               if np.load(path).shape[0] == PLACES)
    kept.write_bytes(b'damaged')
    assert evaluate_set(*image_set, encoder, cache=True)['recall'] == first['recall']


def test_a_changed_image_is_encoded_again(image_set, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    first = evaluate_set(*image_set, encoder, cache=True)
    for query in images.list_folder(image_set[1])[:20]:
        query.write_bytes((image_set[0] / '059.png').read_bytes())
    changed = evaluate_set(*image_set, encoder, cache=True)
    assert changed['recall']['1'] < first['recall']['1']


def test_file_names_may_say_where_images_are(tmp_path, encoder):
    database = write_folder(tmp_path / 'set' / 'database', range(20))
    queries = write_folder(tmp_path / 'set' / 'queries', range(0, 20, 4), noise=1)
    for folder in (database, queries):
        for file in images.list_folder(folder):
            file.rename(folder / f'@{500000 + 30 * int(file.stem):.2f}@4649776.2@33@T@ü.png')
    result = summary(evaluate_images.evaluate_utm(tmp_path / 'set', encoder, cache=False))
    assert result['evaluated'] == 5
    assert result['recall']['1'] == 1.0
    assert result['tolerance'] == '25 m'
    assert result['pose_error']['p50'] < 30
    (database / 'elsewhere.png').write_bytes(next(database.iterdir()).read_bytes())
    with pytest.raises(SourceError, match=r'elsewhere\.png is not named @utm_east'):
        evaluate_images.evaluate_utm(tmp_path / 'set', encoder, cache=False)


@pytest.mark.parametrize(('names', 'degrees'), [
    (['@11.5700@48.1300@', '@11.5710@48.1310@'], True),
    (['@48.13@11.57@', '@48.14@11.58@'], True),                  # the other way round
    (['@-122.419416@37.774929@', '@151.209296@-33.868820@'], True),
    (['@11.57@48.13@32@U@', '@11.58@48.13@32@U@'], True),
    (['@500000.00@4649776.2@33@T@', '@500001.00@4649776.2@33@T@'], False),
    (['@10.5@20.5@', '@60.5@20.5@'], False),                     # metres of a small site
    (['@10.5@20.5@'], False),
])
def test_names_in_degrees_are_refused(names, degrees):
    positions = np.array([utm_of(name)[:2] for name in names])
    with pytest.raises(SourceError, match='longitude and latitude') if degrees else nullcontext():
        check_metres(names, positions, 'set')


def test_images_of_the_same_name_are_refused(tmp_path):
    files = [tmp_path / 'a' / '1.png', tmp_path / 'b' / '1.png']
    write_truth(tmp_path / 'truth.csv', [('1.png', '1.png')])
    with pytest.raises(SourceError, match='two images have the same name'):
        read_ground_truth(tmp_path / 'truth.csv', files[:1], files)


def test_a_single_query_can_be_scored(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(30))
    queries = write_folder(tmp_path / 'queries', [7])
    write_truth(tmp_path / 'truth.csv', [('007.png', '007.png')])
    result = evaluate_set(database, queries, tmp_path / 'truth.csv', encoder)
    assert result['recall']['1'] == 1.0
    assert result['recall_interval']['1'][0] < 0.5
