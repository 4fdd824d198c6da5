"""Prefetching: in order, bounded, and with the errors of the work."""

from __future__ import annotations

import threading

import pytest
from vpr_ros.io.prefetch import prefetch


def test_results_come_in_order_with_their_items() -> None:
    assert [(item, future.result()) for item, future in prefetch(str, range(50), depth=4)] == [
        (number, str(number)) for number in range(50)]


def test_the_work_is_done_in_another_thread() -> None:
    threads = {future.result()
               for _, future in prefetch(lambda _: threading.get_ident(), range(9))}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_several_threads_work_in_parallel_and_results_stay_in_order() -> None:
    barrier = threading.Barrier(2, timeout=10)

    def work(number):
        barrier.wait()  # passes only when two threads wait
        return number

    assert [future.result() for _, future in prefetch(work, range(10), threads=2)] == [*range(10)]


def test_no_more_items_than_the_depth_are_prefetched() -> None:
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    work = prefetch(lambda number: number, items(), depth=5)
    next(work)
    assert len(taken) == 6
    work.close()
    assert len(taken) == 6


def test_an_error_is_raised_by_the_future_of_its_item() -> None:
    futures = [future for _, future in prefetch(lambda number: 1 / number, [1, 0, 2])]
    assert futures[0].result() == 1
    with pytest.raises(ZeroDivisionError):
        futures[1].result()
    assert futures[2].result() == 0.5
