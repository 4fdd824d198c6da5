"""Saving ONNX models so that the ONNX Runtime of a robot, often an older one, reads them."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper


def save(model: onnx.ModelProto, path: Path) -> None:
    """
    Save a model with the lowest version of ONNX's file format (IR) that holds its operators.

    ONNX Runtime 1.17 reads versions up to 9, and exporters write 10. Raises ValueError for a model
    of more than 2 GB.
    """
    lowest = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.ir_version = min(model.ir_version, lowest)
    onnx.save(model, path)
