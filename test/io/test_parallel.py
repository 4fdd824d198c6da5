"""Work in processes: results in order, the first error ends it all, and none is left behind."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import VprError
from vpr_ros.io.parallel import in_processes


def doubled(number, report):
    report(number)
    return 2 * number, os.getpid()


def wrong(number, report):
    if number == 1:
        raise MapError('the first map is damaged')
    signal.pause()


def strange(number, report):
    raise ZeroDivisionError('by nothing')


def killed(number, report):
    os.kill(os.getpid(), signal.SIGKILL)


def endless(number, report):
    report(number)
    signal.pause()


def children():
    return [child for child in psutil.Process().children()
            if 'resource_tracker' not in ' '.join(child.cmdline())]


def test_results_are_in_the_order_of_the_items_from_other_processes() -> None:
    steps = []
    found = in_processes(doubled, [5, 6, 7], 2, steps.append)
    assert [number for number, _ in found] == [10, 12, 14]
    assert os.getpid() not in {process for _, process in found}
    assert sorted(steps) == [5, 6, 7]
    assert not children()


def test_the_first_error_comes_as_it_was_and_ends_the_others() -> None:
    with pytest.raises(MapError, match='the first map is damaged'):
        in_processes(wrong, [0, 1], 2, lambda steps: None)
    assert not children()


def test_an_error_of_another_kind_names_the_item() -> None:
    with pytest.raises(VprError, match=r'^7: ZeroDivisionError: by nothing$'):
        in_processes(strange, [7], 1, lambda steps: None)


def test_a_process_that_was_killed_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(VprError, match=r'ended with code -9; .* fewer jobs'):
        in_processes(killed, ['drive'], 1, lambda steps: None)


def test_an_interrupt_ends_the_processes() -> None:
    def interrupted(steps):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        in_processes(endless, [1, 2], 2, interrupted)
    assert not children()
