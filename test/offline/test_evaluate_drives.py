"""Evaluating drives through a map, and replays, by their true poses."""

from __future__ import annotations

from dataclasses import replace
import json

import numpy as np
import pytest
from small_drive import POSES
from small_drive import render
from small_drive import write_bag
from vpr_ros.cli import main
from vpr_ros.core.errors import SourceError
from vpr_ros.io.bag import Bag
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.evaluate_drives import evaluate_drive
from vpr_ros.offline.evaluate_drives import evaluate_replay
from vpr_ros.offline.evaluate_drives import frames_of
from vpr_ros.offline.localize_queries import EvaluationOptions
from vpr_ros.offline.replay import replay
from vpr_ros.offline.replay import write_drive
from vpr_ros.offline.summary import summary


def test_a_drive_is_evaluated_on_a_map(tmp_path, encoder):
    bag = write_bag(tmp_path / 'drive')
    place_map = build_map([open_source(bag)], encoder, spacing=0.5)
    with open_source(bag) as source:
        evaluation = evaluate_drive(
            place_map, source, encoder,
            EvaluationOptions(use_filter=False, min_confidence=0.5), tolerance=2.0)
    result = summary(evaluation)
    assert result['recall']['1'] == 1.0
    assert result['unmapped'] == 0
    assert result['pose_error']['p90'] < 2.0
    assert result['nees'] > 0
    assert result['protection'] is None or result['protection']['broken'] == 0
    assert evaluation.query_image(3).ndim == 3
    assert evaluation.references.image(0).ndim == 3
    with open_source(bag) as source, pytest.raises(SourceError, match=r'its poses are in'):
        evaluate_drive(place_map, replace(source, frame_id='elsewhere'), encoder)


def test_a_drive_with_another_lens_than_the_maps_is_said_and_above_a_difference_refused(
        tmp_path, encoder, caplog):
    with_lens = {focal: open_source(write_bag(tmp_path / f'{focal}', range(5), focal=focal))
                 for focal in (50, 54, 62)}
    place_map = build_map([with_lens[50]], encoder, self_calibrate=False)
    with with_lens[54] as source:
        evaluate_drive(place_map, source, encoder)
    assert "another lens or crop than the map's" in caplog.text
    with with_lens[62] as source, pytest.raises(SourceError, match='another lens or crop'):
        evaluate_drive(place_map, source, encoder)


@pytest.mark.parametrize('mode', ['--filter', '--no-filter'])
def test_a_drive_that_is_nowhere_on_the_map_has_no_recall(tmp_path, encoder, mode, capsys):
    bag = write_bag(tmp_path / 'drive')
    place_map = build_map([open_source(bag)], encoder, spacing=0.5)
    away = place_map.poses.copy()
    away[:, 0] += 1000
    replace(place_map, poses=away).save(tmp_path / 'map')
    arguments = ['evaluate', '--map', str(tmp_path / 'map'), '--drive', str(bag), '--model',
                 str(encoder.path), '--json', str(tmp_path / 'out.json'), '--html',
                 str(tmp_path / 'out.html'), mode]
    assert main(arguments) == 0
    assert 'no query shows a mapped place, so there is no recall' in capsys.readouterr().out
    result = json.loads((tmp_path / 'out.json').read_text())
    assert result['evaluated'] == 0
    assert result['recall']['1'] is None
    assert result['false_accepts'] == result['answered']
    assert 'single-frame Recall@1' not in (tmp_path / 'out.html').read_text()


def test_a_replay_is_judged_by_its_true_poses(tmp_path, encoder, caplog):
    bag = write_bag(tmp_path / 'drive')
    place_map = build_map([open_source(bag)], encoder, spacing=0.5)
    drive = replay(bag, Localizer(encoder, place_map, use_filter=False, min_confidence=0.5))
    write_drive(drive, tmp_path / 'out', 'map')
    with Bag(bag) as opened:
        truth = opened.poses(opened.pose_topic(POSES))
    evaluation = evaluate_replay(tmp_path / 'out', place_map, truth, tolerance=2.0,
                                 min_confidence=0.5)
    assert summary(evaluation)['recall'] == {'1': 1.0}
    assert summary(evaluation)['answered'] == pytest.approx(drive.trusted.mean(), abs=0.1)
    assert evaluation.query_image(0) is None
    frames = frames_of(bag)
    shown = evaluate_replay(tmp_path / 'out', place_map, truth, read_frames=lambda: frames)
    for query in (0, 7):
        difference = shown.query_image(query).astype(float) - render(query)
        assert np.abs(difference).mean() < 8
    assert frames_of(write_bag(tmp_path / 'blind', with_images=False)) == {}
    assert 'the report' not in caplog.text
    evaluate_replay(tmp_path / 'out', place_map, truth, read_frames=lambda: {1: b''})
    assert 'the report shows no frames' in caplog.text
    assert 'lower --min-confidence' not in caplog.text
    unlike = evaluate_replay(tmp_path / 'out', place_map, truth, min_confidence=1.0)
    assert unlike.min_confidence == unlike.estimates.confidence[unlike.estimates.published].min()
    assert 'lower --min-confidence' in caplog.text
    with pytest.raises(FileNotFoundError, match=r'is no output of vpr replay'):
        evaluate_replay(tmp_path, place_map, truth)
    with pytest.raises(SourceError, match='replayed on another map'):
        evaluate_replay(tmp_path / 'out', place_map.select(np.arange(2)), truth)
