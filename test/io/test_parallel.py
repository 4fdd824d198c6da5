"""Work in processes: results in order, the first error ends all, no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import VprError
from vpr_ros.io.parallel import in_processes


def doubled(number, report):
    report(number)
    return 2 * number, os.getpid()


def threads_of(number, report):
    return os.environ['OMP_NUM_THREADS']


def failing(number, report):
    if number == 1:
        raise MapError('the first map is damaged')
    signal.pause()


def dividing(number, report):
    raise ZeroDivisionError('by zero')


def killed(number, report):
    os.kill(os.getpid(), signal.SIGKILL)


def waiting(number, report):
    report(number)
    signal.pause()


def children():
    return [child for child in psutil.Process().children()
            if 'resource_tracker' not in ' '.join(child.cmdline())]


def test_results_from_other_processes_are_in_the_order_of_the_items() -> None:
    steps = []
    results = in_processes(doubled, [5, 6, 7], 2, steps.append)
    assert [number for number, _ in results] == [10, 12, 14]
    assert os.getpid() not in {process for _, process in results}
    assert sorted(steps) == [5, 6, 7]
    assert not children()


@pytest.mark.parametrize(('given', 'expected'), [(None, '1'), ('3', '3')])
def test_each_process_has_its_share_of_threads(monkeypatch, given, expected) -> None:
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if given is not None:
        monkeypatch.setenv('OMP_NUM_THREADS', given)
    assert in_processes(threads_of, [0], 1, lambda steps: None, threads=1) == [expected]
    assert os.environ.get('OMP_NUM_THREADS') == given


def test_the_first_error_is_raised_unchanged_and_ends_the_others() -> None:
    with pytest.raises(MapError, match='the first map is damaged'):
        in_processes(failing, [0, 1], 2, lambda steps: None)
    assert not children()


def test_an_error_of_another_kind_names_the_item() -> None:
    with pytest.raises(VprError, match=r'^7: ZeroDivisionError: by zero$'):
        in_processes(dividing, [7], 1, lambda steps: None)


def test_a_killed_process_is_an_error_that_names_the_item() -> None:
    with pytest.raises(VprError, match=r'^drive: .* ended with code -9; .* fewer jobs'):
        in_processes(killed, ['drive'], 1, lambda steps: None)


def test_an_interrupt_ends_the_processes() -> None:
    def interrupted(steps):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        in_processes(waiting, [1, 2], 2, interrupted)
    assert not children()


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_processes(tmp_path) -> None:
    # In an interpreter of its own: what starts with the first process would undo the blocking.
    script = tmp_path / 'script.py'
    script.write_text(
        'import signal\n'
        'from vpr_ros.io.parallel import in_processes\n'
        'def blocked(number, report):\n'
        '    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())\n'
        'if __name__ == "__main__":\n'
        '    print(in_processes(blocked, [1, 2, 3], 2, print))\n')
    result = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    assert result.stdout == '[True, True, True]\n'
