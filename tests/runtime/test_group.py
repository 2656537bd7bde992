"""Callers that come while a call is under way share the next one."""

from __future__ import annotations

import threading

import pytest

from orthanc_transfers.runtime.group import SharedCall
from tests.support.waiting import wait_until


class Disk:
    """What is slow: each call waits until it may go on."""

    def __init__(self) -> None:
        self.began = 0
        self.go_on = threading.Semaphore(0)
        self.error: OSError | None = None

    def sync(self) -> None:
        self.began += 1
        self.go_on.acquire()
        if self.error is not None:
            raise self.error


def test_those_who_come_while_it_is_busy_share_one_call_that_begins_later() -> None:
    disk = Disk()
    shared = SharedCall(disk.sync)
    done: list[int] = []

    def ask(number: int) -> None:
        shared.call()
        done.append(number)

    first = threading.Thread(target=ask, args=(0,), daemon=True)
    first.start()
    wait_until(lambda: disk.began == 1, "the first call")
    others = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(1, 9)]
    for thread in others:
        thread.start()
    wait_until(lambda: shared._next is not None, "somebody who waits")
    assert done == []
    disk.go_on.release()
    first.join()
    disk.go_on.release(8)
    for thread in others:
        thread.join()
    assert sorted(done) == list(range(9))
    assert 2 <= disk.began <= 9


def test_nobody_is_served_by_a_call_that_had_begun_before() -> None:
    disk = Disk()
    shared = SharedCall(disk.sync)
    for number in range(1, 4):
        disk.go_on.release()
        shared.call()
        assert disk.began == number


def test_an_error_is_raised_for_all_who_share_it_and_for_no_other() -> None:
    disk = Disk()
    shared = SharedCall(disk.sync)
    disk.go_on.release(2)
    disk.error = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        shared.call()
    disk.error = None
    shared.call()
