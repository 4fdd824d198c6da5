"""The first model from a short drive, through to the encoder's runtime."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('onnxscript')

import onnxruntime  # noqa: E402
from vpr_ros.training.first_model import make_first_model  # noqa: E402
from vpr_ros.training.first_model import street_pictures  # noqa: E402


def test_a_model_is_made_of_two_short_drives(tmp_path):
    path = tmp_path / 'model.onnx'
    parity = make_first_model(path, towns=(100,), conditions=('spring', 'winter'), length=80.0,
                              clusters=4, dimension=8, height=60, width=80)
    assert parity.worst > 0.999
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    result = session.run(['descriptor'], {'image': np.zeros((2, 60, 80, 3), np.uint8)})[0]
    assert result.shape == (2, 8)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts['input_height'] == '60'
    assert 'towns 100 to 100, spring, winter' in facts['training']


def test_towns_of_tests_and_demos_are_refused():
    with pytest.raises(ValueError, match='kept for tests and demos'):
        street_pictures((7, 100), ('spring',), seed=0, length=10.0, height=60, width=80)
