"""Drives whose true poses are the fixes of a GPS, on a map from another such drive."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import render
from small_drive import stamp
from vpr_ros.cli import main
from vpr_ros.io import messages
from vpr_ros.io.bag_writer import BagWriter
from vpr_ros.offline.visualize import read_drives
from vpr_ros.offline.visualize import VisualizeOptions

DEGREES = 9e-6  # of latitude: a metre


def write_drive(path, places, noise):
    """Write a drive to the north, a metre per place."""
    with BagWriter(path) as bag:
        for place in places:
            time = stamp(place)
            bag.write('/fix', bag.types('sensor_msgs/msg/NavSatFix')(
                header=messages.header(bag.types, time, 'gps'),
                status=bag.types('sensor_msgs/msg/NavSatStatus')(status=0, service=1),
                latitude=48.0 + place * DEGREES, longitude=11.0, altitude=0.0,
                position_covariance=np.zeros(9), position_covariance_type=0), time)
            bag.write(IMAGES, messages.image(bag.types, time, 'camera', render(place, noise)),
                      time)
    return path


@pytest.fixture(scope='module')
def site(tmp_path_factory, model_path):
    """Return a folder with a map, and the bag of a drive that begins 8 m from its datum."""
    folder = tmp_path_factory.mktemp('gps')
    drive = write_drive(folder / 'drive.mcap', range(COUNT), 0)
    write_drive(folder / 'other.mcap', range(8, COUNT), 1)
    assert main(['build-map', str(drive), '--model', str(model_path), '-o',
                 str(folder / 'map'), '--spacing', '0']) == 0
    return folder


def test_the_truth_is_in_metres_from_the_datum_of_the_map(site, tmp_path, model_path, capsys,
                                                          caplog):
    place_map, other, model = str(site / 'map'), str(site / 'other.mcap'), str(model_path)
    caplog.set_level(logging.INFO, 'vpr_ros')
    assert main(['replay', other, '--map', place_map, '--model', model, '-o',
                 str(tmp_path / 'out'), '--truth-topic', '/fix']) == 0
    right, median = re.search(r'(\d+) of these correct.*median error ([\d.]+)',
                              capsys.readouterr().out).groups()
    assert int(right) > 20
    assert float(median) < 0.5
    assert caplog.text.count('images from') == 1
    for given in (['--drive', other], ['--replay', str(tmp_path / 'out'), '--truth', other]):
        assert main(['evaluate', '--map', place_map, *given, '--model', model,
                     '--correct-radius', '0.5']) == 0
        assert 'R@1 1.000' in capsys.readouterr().out


def test_calibration_chooses_and_names_topics_once(site, model_path, capsys, caplog):
    caplog.set_level(logging.INFO, 'vpr_ros')
    assert main(['calibrate', str(site / 'map'), str(site / 'other.mcap'), '--model',
                 str(model_path), '--dry-run']) == 0
    assert caplog.text.count('images from') == caplog.text.count('poses from /fix') == 1
    assert 'calibration error' in capsys.readouterr().out


def test_a_drive_is_drawn_from_the_datum_of_the_map_before_it(site, encoder):
    options = VisualizeOptions()
    mapped, drive = read_drives([site / 'map', site / 'other.mcap'], encoder, options)
    np.testing.assert_allclose(drive.positions[:, :2], mapped.positions[8:, :2], atol=0.01)
    alone, = read_drives([site / 'other.mcap'], encoder, options)
    np.testing.assert_allclose(alone.positions[0, :2], 0, atol=0.01)
