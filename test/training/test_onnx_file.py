"""ONNX files that older versions of ONNX Runtime read."""

from __future__ import annotations

from pathlib import Path

import onnx
from thumbnail_model import write_thumbnail_model
from vpr_ros.training.onnx_file import save


def test_a_model_is_saved_with_the_lowest_version_that_holds_it(tmp_path: Path) -> None:
    model = onnx.load(write_thumbnail_model(tmp_path / 'model.onnx'))
    model.ir_version = 10
    save(model, tmp_path / 'saved.onnx')
    assert onnx.load(tmp_path / 'saved.onnx').ir_version == 8
