"""Recall on a set of pictures, against the plain computation; and sets that cannot be scored."""

from __future__ import annotations

import csv
from dataclasses import replace
import json
import math
from pathlib import Path
import re

import numpy as np
import pytest
from small_drive import POSES
from small_drive import write_bag
from small_drive import write_damaged
from small_drive import write_folder
from vpr_ros.cli import main
from vpr_ros.core import images
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError
from vpr_ros.io.bag import Bag
from vpr_ros.io.sources import open_source
from vpr_ros.io.sources import read_ground_truth
from vpr_ros.localization.localizer import Localizer
from vpr_ros.offline import evaluate
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.evaluate import summary
from vpr_ros.offline.replay import replay
from vpr_ros.offline.replay import write_drive

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


def evaluate_set(*arguments, cache=False, **options):
    return summary(evaluate.evaluate_set(*arguments, cache=cache, **options))


def write_truth(path, rows):
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([('query', 'reference'), *rows])


def plain_recall(database, queries, truth, encoder, *, compensate):
    """Return Recall@1/5/10 as one would compute it with a matrix product."""
    d = np.stack([encoder.encode(images.read(file)) for file in images.list_folder(database)])
    mean = d.mean(axis=0)
    rows = list(csv.DictReader(truth.read_text().splitlines()))
    hits = {1: 0, 5: 0, 10: 0, 20: 0}
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


def test_every_figure_is_explained(pictures, encoder):
    page = (Path(__file__).resolve().parents[2] / 'docs' / 'metrics.md').read_text()
    explained = set(re.findall(r'`(\w+)`', ''.join(
        line.split('|')[1] for line in page.splitlines() if line.startswith('| `'))))
    assert set(evaluate_set(*pictures, encoder, use_filter=True)) <= explained


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


def test_a_damaged_picture_is_an_error_since_it_would_move_the_figure(tmp_path, encoder):
    database = write_folder(tmp_path / 'database', range(3))
    queries = write_folder(tmp_path / 'queries', range(3))
    write_truth(tmp_path / 'truth.csv', [('000.png', '000.png')])
    write_damaged(queries / '001.png')
    with pytest.raises(ImageError, match=r'001\.png is damaged'):
        evaluate_set(database, queries, tmp_path / 'truth.csv', encoder)
    write_damaged(database / '001.png')
    with pytest.raises(ImageError, match=r'001\.png is damaged'):
        evaluate_set(database, database, tmp_path / 'truth.csv', encoder)


def test_recalls_are_no_smaller_with_more_candidates(pictures, encoder):
    recall = evaluate_set(*pictures, encoder)['recall']
    assert recall['1'] <= recall['5'] <= recall['10'] <= recall['20'] <= 1
    assert all(math.isfinite(share) for share in recall.values())


def test_the_filter_finds_a_drive_that_single_frames_do_not(pictures, encoder):
    single = evaluate_set(*pictures, encoder)
    carried = evaluate_set(*pictures, encoder, use_filter=True, min_confidence=0.5)
    assert carried['recall'] == single['recall']  # of single frames, in both
    assert carried['filtered'] > single['recall']['1']
    assert 'filtered' not in single


@pytest.mark.parametrize('carried', [True, False])
def test_what_is_answered_is_counted(pictures, encoder, carried):
    every = evaluate_set(*pictures, encoder, use_filter=carried, min_confidence=0.0)
    assert every['answered'] == 1
    assert every['false_accepts'] == 1
    assert 0 < every['answered_right'] <= every['evaluated'] / (PLACES // 2)
    assert 0 <= every['ece'] <= 1
    some = evaluate_set(*pictures, encoder, use_filter=carried, min_confidence=1.0)
    assert some['answered'] == some['false_accepts'] == 0
    assert some['answered_right'] is None
    assert some['ece'] == every['ece']
    assert some['auc_pr'] == every['auc_pr']


def test_places_a_metre_apart_by_assumption_have_no_error_in_metres(pictures, encoder):
    result = evaluate_set(*pictures, encoder)
    assert result['pose_error'] is None
    assert result['nees'] is None
    assert result['latency_ms']['locate']['p50'] > 0


def test_a_second_evaluation_reads_no_picture(pictures, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    first = evaluate_set(*pictures, encoder, cache=True)
    assert 'encode' in first['latency_ms']
    again = evaluate_set(*pictures, encoder, cache=True)
    assert 'encode' not in again['latency_ms']
    assert again['recall'] == first['recall']
    (kept,) = (path for path in (tmp_path / 'cache').rglob('*.npy')
               if np.load(path).shape[0] == PLACES)
    kept.write_bytes(b'damaged')
    assert evaluate_set(*pictures, encoder, cache=True)['recall'] == first['recall']


def test_a_changed_picture_is_encoded_anew(pictures, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    first = evaluate_set(*pictures, encoder, cache=True)
    for query in images.list_folder(pictures[1])[:20]:
        query.write_bytes((pictures[0] / '059.png').read_bytes())
    changed = evaluate_set(*pictures, encoder, cache=True)
    assert changed['recall']['1'] < first['recall']['1']


def test_file_names_may_say_where_pictures_are(tmp_path, encoder):
    database = write_folder(tmp_path / 'set' / 'database', range(20))
    queries = write_folder(tmp_path / 'set' / 'queries', range(0, 20, 4), noise=1)
    for folder in (database, queries):
        for file in images.list_folder(folder):
            file.rename(folder / f'@{500000 + 30 * int(file.stem):.2f}@4649776.2@33@T@ü.png')
    found = evaluate.evaluate_utm(tmp_path / 'set', encoder, cache=False)
    result = summary(found)
    assert result['evaluated'] == 5
    assert result['recall']['1'] == 1.0
    assert result['tolerance'] == '25 m'
    assert result['pose_error']['p50'] < 30
    (database / 'elsewhere.png').write_bytes(next(database.iterdir()).read_bytes())
    with pytest.raises(SourceError, match=r'elsewhere\.png is not named @utm_east'):
        evaluate.evaluate_utm(tmp_path / 'set', encoder, cache=False)


def test_a_drive_is_held_against_a_map(tmp_path, encoder):
    bag = write_bag(tmp_path / 'drive')
    place_map = build_map([open_source(bag)], encoder, spacing=0.5)
    with open_source(bag) as source:
        found = evaluate.evaluate_drive(place_map, source, encoder, tolerance=2.0,
                                        use_filter=False, min_confidence=0.5)
    result = summary(found)
    assert result['recall']['1'] == 1.0
    assert result['unmapped'] == 0
    assert result['pose_error']['p90'] < 2.0
    assert result['nees'] > 0
    assert found.query_picture(3).ndim == 3
    assert found.place_picture(0).ndim == 3
    with open_source(bag) as source, pytest.raises(SourceError, match=r'its poses are in'):
        evaluate.evaluate_drive(place_map, replace(source, frame_id='elsewhere'), encoder)


@pytest.mark.parametrize('way', ['--filter', '--no-filter'])
def test_a_drive_that_is_nowhere_on_the_map_has_no_recall(tmp_path, encoder, way, capsys):
    bag = write_bag(tmp_path / 'drive')
    place_map = build_map([open_source(bag)], encoder, spacing=0.5)
    away = place_map.poses.copy()
    away[:, 0] += 1000
    replace(place_map, poses=away).save(tmp_path / 'map')
    arguments = ['evaluate', '--map', str(tmp_path / 'map'), '--drive', str(bag), '--model',
                 str(encoder.path), '--json', str(tmp_path / 'out.json'), '--html',
                 str(tmp_path / 'out.html'), way]
    assert main(arguments) == 0
    assert 'nothing of it is on the map: there is no recall' in capsys.readouterr().out
    result = json.loads((tmp_path / 'out.json').read_text())
    assert result['evaluated'] == 0
    assert result['recall']['1'] is None
    assert result['false_accepts'] == result['answered']
    assert 'Recall@1 of single frames' not in (tmp_path / 'out.html').read_text()


def test_a_replay_is_judged_by_its_true_poses(tmp_path, encoder):
    bag = write_bag(tmp_path / 'drive')
    place_map = build_map([open_source(bag)], encoder, spacing=0.5)
    drive = replay(bag, Localizer(encoder, place_map, use_filter=False, min_confidence=0.5))
    write_drive(drive, tmp_path / 'out', 'map')
    with Bag(bag) as opened:
        truth = opened.poses(opened.pose_topic(POSES))
    found = evaluate.evaluate_replay(tmp_path / 'out', place_map, truth, tolerance=2.0,
                                     min_confidence=0.5)
    assert summary(found)['recall'] == {'1': 1.0}
    assert summary(found)['answered'] == pytest.approx(drive.trusted.mean(), abs=0.1)
    with pytest.raises(FileNotFoundError, match=r'is no output of vpr replay'):
        evaluate.evaluate_replay(tmp_path, place_map, truth)
    with pytest.raises(SourceError, match='replayed on another map'):
        evaluate.evaluate_replay(tmp_path / 'out', place_map.select(np.arange(2)), truth)


def test_pictures_of_the_same_name_are_refused(tmp_path):
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
