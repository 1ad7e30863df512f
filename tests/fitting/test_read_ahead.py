"""Reading ahead: in order, no more than asked for at once, errors where they belong, threads put back."""

from __future__ import annotations

import os
import threading
from itertools import count

import pytest
import torch

from hist2scrna.fitting.read_ahead import read_ahead


@pytest.mark.parametrize("workers", [1, 3])
def test_all_come_in_order_and_few_wait(workers):
    started = []

    def read(item):
        started.append(item)
        return item**2

    for number, (item, result) in enumerate(read_ahead(count(), read, workers=workers)):
        assert (item, result) == (number, number**2)
        assert len(started) <= number + workers + 2
        if number == 20:
            break
    assert list(read_ahead([], read)) == []


def test_the_next_is_read_while_one_is_used():
    second = threading.Event()

    def read(item):
        if item == 1:
            second.set()

    for item, _ in read_ahead(range(2), read):
        if item == 0:
            assert second.wait(10)


def test_an_error_comes_in_its_place_and_ends_the_threads():
    before = threading.active_count()
    seen = []
    with pytest.raises(ZeroDivisionError):
        for item, _ in read_ahead([1, 2, 0, 4], lambda item: 1 / item, workers=2):
            seen.append(item)
    assert seen == [1, 2]
    assert threading.active_count() == before


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the threads of the process on Linux")
def test_readers_compute_with_one_thread_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        table = torch.ones(1000, 1000)

        def read(_):
            table.exp()
            return len(os.listdir("/proc/self/task"))

        found = [(n, torch.get_num_threads(), len(os.listdir("/proc/self/task"))) for _, n in read_ahead("abc", read)]
        assert [(during, threads) for during, threads, _ in found] == [(after, 4) for _, _, after in found]
    finally:
        torch.set_num_threads(before)
