"""The file that keeps a drive's mean: back as it was, or refused in one line."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize('content', [b'', b'no state', b'PK\x03\x04 cut off'])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'state').write_bytes(content)
    with pytest.raises(VprError, match='state holds no state of a drive'):
        read_state(tmp_path / 'state', 'a model')
