"""The hardware: usable cores, and names that may be unavailable."""

from __future__ import annotations

import os

import pytest
from vpr_ros.encoding import hardware


def test_no_more_cores_than_this_process_may_use() -> None:
    assert 1 <= hardware.cores() <= len(os.sched_getaffinity(0))


def test_a_process_on_one_core_has_one() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert hardware.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(('line', 'granted'), [
    ('max 100000', 8), ('', 8), ('200000 100000', 2), ('150000 100000', 2), ('50000 100000', 1),
    ('9900000 100000', 8), ('0 0', 8)])
def test_a_quota_grants_whole_cores(line: str, granted: int) -> None:
    assert hardware.quota(line, 8) == granted


def test_names_are_never_empty_even_without_drivers() -> None:
    assert hardware.processor()
    assert hardware.gpu_name()
    assert hardware.tensorrt_version()
