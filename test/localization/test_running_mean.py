"""The file that keeps a drive's mean: back as it was, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vpr_ros.core.errors import VprError
from vpr_ros.localization.running_mean import DriveState
from vpr_ros.localization.running_mean import read_state
from vpr_ros.localization.running_mean import write_state


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = DriveState(np.arange(4, dtype=np.float32), 31.5, 1_700_000_000_123_456_789,
                       np.arange(7.0), 1_700_000_000_000_000_000)
    write_state(tmp_path / 'new' / 'state', state, 'a model')
    back = read_state(tmp_path / 'new' / 'state', 'a model')
    assert back is not None
    np.testing.assert_array_equal(back.mean, state.mean)
    np.testing.assert_array_equal(back.pose, state.pose)
    assert (back.weight, back.stamp) == (state.weight, state.stamp)
    assert back.pose_stamp == state.pose_stamp


def test_no_file_or_one_of_another_model_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / 'none', 'a model') is None
    write_state(tmp_path / 'state', DriveState(np.zeros(4, np.float32), 30.0, 0), 'a model')
    assert read_state(tmp_path / 'state', 'another') is None


def hostile(path: Path, compressed: bool = False, **changed: Any) -> Path:
    """Write a state of which some arrays are others."""
    arrays = {'mean': np.zeros(4, np.float32), 'weight': np.float64(30), 'stamp': np.int64(5),
              'pose': np.full(7, np.nan), 'posed': np.int64(0), 'model': np.array('a model')}
    with path.open('wb') as file:
        (np.savez_compressed if compressed else np.savez)(file, **(arrays | changed))
    return path


def test_a_state_without_a_pose_has_none(tmp_path: Path) -> None:
    state = read_state(hostile(tmp_path / 'state'), 'a model')
    assert state is not None
    assert np.isnan(state.pose).all()


@pytest.mark.parametrize('changed', [
    {'mean': np.full(4, np.nan, np.float32)}, {'mean': np.zeros(4)}, {'weight': np.float64(1e9)},
    {'mean': np.full(4, 1e30, np.float32)}, {'mean': np.zeros((2, 2), np.float32)},
    {'weight': np.float64(np.nan)}, {'weight': np.zeros(3)}, {'stamp': np.int64(-1)},
    {'stamp': np.float64(5)}, {'posed': np.array('5')}, {'pose': np.zeros(7)},
    {'pose': np.array([0, 0, np.nan, 0, 0, 0, 1])}, {'pose': np.full(7, 1e308)},
    {'pose': np.zeros(6)}, {'model': np.array(['a model'])}, {'model': np.array(7)},
    {'mean': np.array([None])}, {'mean': np.zeros(1 << 19, np.float32)},
    {'compressed': True, 'mean': np.zeros(1 << 22, np.float32)}], ids=str)
def test_a_state_that_no_drive_has_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = hostile(tmp_path / 'state', **changed)
    with pytest.raises(VprError, match='state holds no state of a drive'):
        read_state(path, 'a model')


@pytest.mark.parametrize('content', [b'', b'no state', b'PK\x03\x04 cut off'])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'state').write_bytes(content)
    with pytest.raises(VprError, match='state holds no state of a drive'):
        read_state(tmp_path / 'state', 'a model')
