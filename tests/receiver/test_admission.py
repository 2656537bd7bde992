"""The slots of pushes: a FIFO semaphore."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from orthanc_transfers.receiver.admission import FifoSemaphore
from tests.receiver.memory_receiver import PATIENCE, wait_until


def test_there_are_as_many_slots_as_the_limit_says() -> None:
    slots = FifoSemaphore(2, max_queued=8)
    assert slots.take(0)
    assert slots.take(0)
    assert not slots.take(0)
    assert not slots.take(0.01)
    assert slots.available == 0
    slots.free()
    assert slots.available == 1
    assert slots.take(0)


def test_slots_are_given_in_the_order_of_asking() -> None:
    slots = FifoSemaphore(1, max_queued=8)
    assert slots.take(0)
    served: list[int] = []

    def ask(number: int) -> None:
        assert slots.take(PATIENCE)
        served.append(number)

    with ThreadPoolExecutor(5) as pool:
        for number in range(5):
            pool.submit(ask, number)
            wait_until(lambda expected=number + 1: slots.queued == expected)  # type: ignore[misc]
        assert not slots.take(0)
        for number in range(5):
            slots.free()
            wait_until(lambda expected=number + 1: len(served) == expected)  # type: ignore[misc]
            assert not slots.take(0)
    assert served == [0, 1, 2, 3, 4]


def test_a_caller_that_gave_up_waiting_takes_no_slot() -> None:
    slots = FifoSemaphore(1, max_queued=8)
    assert slots.take(0)
    assert not slots.take(0.01)
    slots.free()
    assert slots.available == 1


def test_only_so_many_may_wait() -> None:
    slots = FifoSemaphore(1, max_queued=1)
    assert slots.take(0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slots.take, PATIENCE)
        wait_until(lambda: slots.queued == 1)
        assert not slots.take(PATIENCE)
        slots.free()
        assert waiting.result(PATIENCE)


def test_slots_taken_before_a_restart_may_exceed_the_limit() -> None:
    slots = FifoSemaphore(1, max_queued=8)
    slots.occupy()
    slots.occupy()
    assert slots.available == 0
    slots.free()
    assert not slots.take(0)
    slots.free()
    assert slots.take(0)


def test_closing_turns_waiting_callers_away() -> None:
    slots = FifoSemaphore(1, max_queued=8)
    assert slots.take(0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slots.take, PATIENCE)
        wait_until(lambda: slots.queued == 1)
        slots.close()
        assert not waiting.result(PATIENCE)
    assert not slots.take(0)
