"""When the index is fsynced for new jobs. That they stay is shown by ``faults/test_power_cut.py``."""

from __future__ import annotations

import threading

import pytest

from orthanc_transfers.host.job_durability import JobDurability
from tests.support.waiting import wait_until


class Disk:
    def __init__(self, error: OSError | None = None) -> None:
        self.count = 0
        self.threads: set[str] = set()
        self._error = error

    def force(self) -> None:
        self.count += 1
        self.threads.add(threading.current_thread().name)
        if self._error is not None:
            raise self._error


def is_over(name: str = "submitted-jobs") -> bool:
    return all(thread.name != name for thread in threading.enumerate())


def test_the_index_is_forced_to_disk_after_each_moment_by_a_thread_that_ends() -> None:
    disk = Disk()
    jobs = JobDurability(disk.force, (0.01, 0.02))
    jobs.add()
    wait_until(is_over, "the thread has ended")
    assert disk.count == 2
    assert disk.threads == {"submitted-jobs"}
    jobs.add()
    wait_until(is_over, "the thread has ended again")
    assert disk.count == 4


def test_many_jobs_at_once_have_it_forced_few_times() -> None:
    disk = Disk()
    jobs = JobDurability(disk.force, (0.3, 0.4))
    for _ in range(100):
        jobs.add()
    wait_until(is_over, "the thread has ended")
    # The first ones may have been seen before the last was added.
    assert 2 <= disk.count <= 4


def test_a_job_that_comes_while_another_is_looked_after_is_looked_after_too() -> None:
    disk = Disk()
    jobs = JobDurability(disk.force, (0.05, 0.1))
    jobs.add()
    wait_until(lambda: disk.count > 0, "the first time")
    jobs.add()
    wait_until(is_over, "the thread has ended")
    assert disk.count == 4


def test_an_index_that_cannot_be_forced_to_disk_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(OSError(5, "Input/output error"))
    JobDurability(disk.force, (0.01,)).add()
    wait_until(lambda: "Input/output error" in caplog.text, "the warning")
    assert "power failure" in caplog.text


def test_at_the_end_nothing_is_waited_for() -> None:
    disk = Disk()
    jobs = JobDurability(disk.force, (600.0,))
    jobs.add()
    jobs.close()
    wait_until(is_over, "the thread has ended")
    assert disk.count == 0
