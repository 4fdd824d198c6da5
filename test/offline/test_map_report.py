"""The report of a map: gaps, places that look alike, and the advice that follows."""

from __future__ import annotations

from dataclasses import replace
import json

import numpy as np
import pytest
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.cli import main
from vpr_ros.core import poses
from vpr_ros.maps.landmarks import Landmarks
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.map_report import find_aliases
from vpr_ros.offline.map_report import map_report
from vpr_ros.offline.map_report import report_lines

DIMENSION = 64


def site(x, vectors, sessions=None, conditions=('winter',), kind='flat'):
    """Return a map of places along x (m), 1 m spacing."""
    x = np.asarray(x, np.float64)
    sessions = np.zeros(len(x), np.int32) if sessions is None else np.asarray(sessions, np.int32)
    manifest = Manifest(ModelIdentity('0' * 64, 'm.onnx', DIMENSION, 8, 8), tuple(
        Session(f'drive {n}', condition) for n, condition in enumerate(conditions)),
        spacing=1.0, index=kind)
    return PlaceMap.build(vectors, np.arange(len(x)) * 10**9, poses.planar(x, 0 * x, 0 * x),
                          sessions, manifest)


def report_of(place_map):
    return map_report(place_map, *find_aliases(place_map))


def views(count, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_copied_streets_look_alike_and_are_reported_once():
    vectors = views(200)
    vectors[120:134] = vectors[20:34]
    report = report_of(site(range(200), vectors))
    assert report['aliasing'] == pytest.approx(28 / 200, abs=0.02)
    stretches = {(stretch['first'], stretch['last'], stretch['like'])
                 for stretch in report['stretches'][:2]}
    assert stretches == {(20, 33, 120), (120, 133, 20)}
    assert [line for line in report['advice'] if 'look alike' in line] == [
        'places 20-33 (at x 20.0, y 0.0) and 120-133 (at x 120.0, y 0.0) look alike: use '
        'odometry here']


def test_streets_that_are_all_alike_are_reported_together():
    vectors = views(300)
    for copy in (110, 210):
        vectors[copy:copy + 20] = vectors[20:40]
    vectors[118] = views(1, seed=5)  # a stretch that is broken is no second one
    report = report_of(site(range(300), vectors))
    assert len(report['stretches']) > 3
    assert [group['places'] for group in report['alike']] == [[[20, 39], [110, 129], [210, 229]]]
    assert [line for line in report['advice'] if 'look alike' in line] == [
        'places 20-39 (at x 20.0, y 0.0), 110-129 (at x 110.0, y 0.0) and 210-229 (at x 210.0, '
        'y 0.0) look alike: use odometry here']


def test_two_sessions_are_not_told_the_same_twice():
    """Two drives along the same road, with the same alias and the same gap."""
    vectors = views(120)
    vectors[80:94] = vectors[20:34]
    x = np.array([*range(50), *range(90, 160)])
    both = np.concatenate([vectors, vectors + 0.1 * views(120, seed=1)])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    report = report_of(site([*x, *x], both, [0] * 120 + [1] * 120, ('winter', 'spring')))
    assert [gap['metres'] for gap in report['gaps']] == [41.0]
    assert len([line for line in report['advice'] if 'gap of' in line]) == 1
    assert [line for line in report['advice'] if 'look alike' in line] == [
        'places 20-33 (at x 20.0, y 0.0) and 80-93 (at x 120.0, y 0.0) look alike: use odometry '
        'here']


def test_many_places_that_look_alike_are_one_short_line():
    vectors = np.tile(views(20), (10, 1))
    x = np.arange(200) + 60 * (np.arange(200) // 20)
    alike = [line for line in report_of(site(x, vectors))['advice'] if 'look alike' in line]
    assert len(alike) == 1
    assert alike[0].endswith('and 6 more look alike: use odometry here')


def test_different_streets_do_not():
    report = report_of(site(range(200), views(200)))
    assert report['aliasing'] < 0.03
    assert not any('look alike' in line for line in report['advice'])


def test_a_gap_is_reported_with_its_ends():
    report = report_of(site([*range(50), *range(90, 140)], views(100)))
    assert [(gap['metres'], gap['after']) for gap in report['gaps']] == [(41.0, 49)]
    assert report['advice'][0] == ('gap of 41 m without places from x 49.0, y 0.0 to x 90.0, '
                                   'y 0.0: record this stretch again')


def test_many_short_gaps_are_counted_each():
    report = report_of(site(np.arange(100) + 4 * (np.arange(100) // 10), views(100)))
    assert [gap['metres'] for gap in report['gaps']] == [5.0] * 9


def test_two_sessions_over_the_same_ground_make_no_gap():
    x = [*range(50), *range(50)]
    report = report_of(site(x, views(100), [0] * 50 + [1] * 50, ('winter', 'spring')))
    assert report['gaps'] == []
    assert report['seen_twice'] == 1
    assert report['redundant'] == 0
    assert [session['metres'] for session in report['sessions']] == [49.0, 49.0]
    assert not any('all sessions have the condition' in line for line in report['advice'])


def test_a_single_condition_and_unknown_conditions_are_reported():
    def advice(*conditions):
        x, sessions = np.tile(np.arange(20), len(conditions)), np.arange(len(conditions))
        return report_of(site(x, views(len(x)), np.repeat(sessions, 20), conditions))['advice']
    assert any("all sessions have the condition 'winter'" in line
               for line in advice('winter', 'winter'))
    unknown = advice('unknown', 'unknown')
    assert any('the season or light of the sessions is unknown' in line for line in unknown)
    assert not any('all sessions have the condition' in line for line in unknown)


def test_places_too_close_together_are_redundant():
    report = report_of(site(np.arange(100) / 4, views(100)))
    assert report['redundant'] > 0.9
    assert any('a map with a larger --spacing will do as well' in line
               for line in report['advice'])


def test_the_page_shows_aliasing_pairs_and_the_estimate(tmp_path, capsys):
    model = write_thumbnail_model(tmp_path / 'm.onnx')
    write_map(tmp_path / 'map', model)
    assert main(['map-report', str(tmp_path / 'map'), '--model', str(model), '--json',
                 str(tmp_path / 'r.json'), '--html', str(tmp_path / 'r.html')]) == 0
    expected = json.loads((tmp_path / 'r.json').read_text())['expected']
    assert 0 <= expected['published'] <= 1
    printed = capsys.readouterr().out
    assert f'frames localised, {expected["right"]:.1%} of these correct' in printed
    page = (tmp_path / 'r.html').read_text()
    assert page.count('data:image/png') >= 2
    assert 'not validated: run vpr calibrate' in page


@pytest.mark.parametrize('kind', ['flat', 'hnsw'])
@pytest.mark.parametrize('vectors', [views(1), np.repeat(views(1), 2, axis=0),
                                     np.repeat(views(1), 60, axis=0)])
def test_small_and_uniform_maps_can_be_reported(vectors, kind):
    report = report_of(site(range(len(vectors)), vectors, kind=kind))
    assert report['places'] == len(vectors)
    json.dumps(report, allow_nan=False)


def test_stretches_with_few_landmarks_or_rough_poses_are_named():
    counts = np.full(60, 40)
    counts[10:20], counts[[30, 40]] = 5, 0
    errors = np.full(60, np.radians(0.1))
    errors[45:50] = np.radians(0.3)
    errors[[30, 40]] = 0
    place_map = site(range(60), views(60))
    assert report_of(place_map)['landmarks'] is None
    landmarks = Landmarks.of('sift', [np.zeros((count, 3)) for count in counts],
                             [np.zeros((count, 8), np.int8) for count in counts], errors)
    report = report_of(place_map.with_landmarks(landmarks))
    found = report['landmarks']
    assert json.loads(json.dumps(found)) == found
    assert (found['per_place'], found['few']) == (40, 12 / 60)
    assert found['error_degrees'] == pytest.approx({'p50': 0.1, 'p90': 0.1})
    (weak,), (rough,) = found['weak'], found['rough']
    assert (weak['first'], weak['last'], weak['metres'], weak['landmarks']) == (10, 19, 9, 5)
    assert (rough['first'], rough['last']) == (45, 49)
    assert ('landmarks: 40 a place (median); 20% of the places have fewer than 20; the mapping '
            'poses leave a reprojection error of 0.10 degrees (median; 0.10 at 90 %)'
            ) in report_lines(report)
    assert [line for line in report['advice'] if 'landmarks' in line] == [
        'places 10-19 (from x 10.0, y 0.0 on, 9 m) have few landmarks (5): poses are hardly '
        'refined there; map this stretch again, in better light or with more images',
        'places 45-49 (from x 45.0, y 0.0 on, 4 m) have landmarks that miss by 0.30 degrees, 3.0 '
        'times the usual: are the mapping poses wrong there?']
    unknown = report_of(place_map.with_landmarks(replace(landmarks, errors=None)))['landmarks']
    assert (unknown['error_degrees'], unknown['rough']) == (None, [])
