"""What the node counts and times: the stages of a frame, as diagnostics show them."""

from __future__ import annotations

import time

import pytest
from vpr_ros.ros.health import Health
from vpr_ros.ros.health import Stopwatch


def test_the_stages_before_the_answer_add_up_to_the_total():
    watch = Stopwatch(time.perf_counter() - 1.0)
    for stage in ('encode', 'search'):
        with watch.stage(stage):
            time.sleep(0.01)
    watch.answered()
    with watch.stage('rest'):
        time.sleep(0.01)
    seconds = watch.seconds
    assert list(seconds) == ['wait', 'encode', 'search', 'total', 'beside encode', 'rest']
    assert seconds['wait'] >= 1.0
    assert min(seconds['encode'], seconds['search'], seconds['rest']) >= 0.01
    assert seconds['total'] >= seconds['wait'] + seconds['encode'] + seconds['search']
    assert seconds['beside encode'] == pytest.approx(seconds['total'] - seconds['encode'])


def test_a_stage_that_fails_is_not_counted():
    watch = Stopwatch(time.perf_counter())
    with pytest.raises(ZeroDivisionError), watch.stage('encode'):
        raise ZeroDivisionError
    assert 'encode' not in watch.seconds


def test_a_failed_frame_is_counted_with_its_reason():
    health = Health()
    assert 'last failure' not in health.values()
    health.failed('image is 0x0')
    assert health.values()['failed'] == '1'
    assert health.values()['last failure'] == 'image is 0x0'
