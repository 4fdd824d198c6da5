"""Maps with a projection of their own, through all that is done with maps."""

from __future__ import annotations

import csv
import logging

import numpy as np
import pytest
from small_drive import COUNT
from small_drive import POSES
from small_drive import write_bag
from small_drive import write_folder
from thumbnail_model import AGGREGATE
from thumbnail_model import DIMENSION
from thumbnail_model import write_thumbnail_model
from vpr_ros.cli import main
from vpr_ros.core import defaults
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.sources import open_source
from vpr_ros.localization.localizer import Localizer
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.build_map import build_map
from vpr_ros.offline.evaluate_drives import evaluate_drive
from vpr_ros.offline.evaluate_images import evaluate_set
from vpr_ros.offline.localize_queries import EvaluationOptions
from vpr_ros.offline.localize_queries import ONE_DRIVE
from vpr_ros.offline.replay import replay
from vpr_ros.offline.summary import summary

ROWS = (COUNT - 1) // 8 * 8


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Return a folder with m.onnx, which gives an aggregate, and the bags winter and query."""
    folder = tmp_path_factory.mktemp('projected')
    write_thumbnail_model(folder / 'm.onnx', aggregate=True)
    write_bag(folder / 'winter.mcap')
    write_bag(folder / 'query.mcap', noise=1)
    return folder


@pytest.fixture(scope='module')
def projecting(site):
    return Encoder(site / 'm.onnx', 'cpu', 1)


def mapped(site, encoder, **options):
    return build_map([open_source(site / 'winter.mcap')], encoder,
                     **{'self_calibrate': False, **options})


@pytest.mark.parametrize(('kind', 'dimension'), [
    ('auto', DIMENSION + ROWS), ('none', ROWS), ('model', DIMENSION)])
def test_a_bag_is_replayed_on_a_map_of_each_kind(site, projecting, tmp_path, kind, dimension):
    mapped(site, projecting, projection=kind, self_calibrate=True).save(tmp_path / 'map')
    place_map = PlaceMap.load(tmp_path / 'map', projecting)
    assert place_map.manifest.dimension == place_map.vectors().shape[1] == dimension
    assert (place_map.projection is None) == (kind == 'model')
    replayed = replay(site / 'query.mcap', Localizer(projecting, place_map))
    assert replayed.trusted.mean() > 0.8
    best = np.array([estimate.candidates.places[0] for estimate in replayed.estimates])
    assert np.abs(best - np.arange(COUNT)).max() <= 2


@pytest.mark.parametrize('index', ['flat', 'fp16', 'sq8', 'hnsw'])
def test_every_kind_of_index_holds_projected_descriptors(site, projecting, tmp_path, index):
    place_map = mapped(site, projecting, index=index)
    place_map.save(tmp_path / 'map')
    loaded = PlaceMap.load(tmp_path / 'map', projecting)
    similarity, places = loaded.search(place_map.vectors(), 1)
    assert places[:, 0].tolist() == list(range(COUNT))
    assert similarity.min() > 0.99


def test_several_sessions_share_a_projection(site, projecting):
    place_map = build_map([open_source(site / 'winter.mcap'), open_source(site / 'query.mcap')],
                          projecting, self_calibrate=False)
    assert place_map.means.shape == (2, place_map.manifest.dimension)
    assert place_map.manifest.projection.columns == AGGREGATE
    places = place_map.search(place_map.vectors(), 2)[1]
    assert (places % COUNT == np.arange(2 * COUNT)[:, None] % COUNT).all()


def test_a_calibration_keeps_the_projection(site, projecting, tmp_path):
    mapped(site, projecting).save(tmp_path / 'map')
    assert main(['calibrate', str(tmp_path / 'map'), str(site / 'query.mcap'), '--model',
                 str(site / 'm.onnx'), '--provider', 'cpu', '--truth-topic', POSES]) == 0
    place_map = PlaceMap.load(tmp_path / 'map', projecting)
    assert place_map.manifest.calibration.fitted_on.endswith(f'query.mcap: {COUNT} frames')
    assert place_map.manifest.projection.rows == ROWS


def test_a_drive_is_evaluated_on_a_map_with_a_projection(site, projecting):
    with open_source(site / 'query.mcap') as source:
        result = summary(evaluate_drive(mapped(site, projecting), source, projecting, ONE_DRIVE))
    assert result['recall']['1'] == 1


@pytest.mark.parametrize('kind', defaults.PROJECTIONS)
def test_image_sets_are_evaluated_with_each_kind(tmp_path, projecting, kind, caplog):
    write_folder(tmp_path / 'database')
    write_folder(tmp_path / 'queries', noise=1)
    with (tmp_path / 'truth.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('query', 'reference'), *(
            (f'{place:03d}.png', f'{place:03d}.png') for place in range(COUNT))])
    with caplog.at_level(logging.INFO):
        result = summary(evaluate_set(
            tmp_path / 'database', tmp_path / 'queries', tmp_path / 'truth.csv', projecting,
            EvaluationOptions(use_filter=False, projection=kind), cache=False))
    assert result['recall']['1'] == 1
    assert (f'{ROWS} directions' in caplog.text) == (kind != 'model')


def test_the_command_says_what_it_decided(site, tmp_path, caplog, capsys):
    with caplog.at_level(logging.INFO):
        assert main(['build-map', str(site / 'winter.mcap'), '--model', str(site / 'm.onnx'),
                     '--output', str(tmp_path / 'map')]) == 0
    lines = [line for line in caplog.messages if line.startswith('projection: ')]
    assert len(lines) == 1
    assert f'fitted to the map, {ROWS} directions' in lines[0]
    assert main(['inspect', str(tmp_path / 'map')]) == 0
    assert (f"projection  {ROWS} of {AGGREGATE} directions beside the model's descriptor"
            in capsys.readouterr().out)
