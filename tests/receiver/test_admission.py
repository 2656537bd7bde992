"""A limited number of places, given in turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from orthanc_transfers.receiver.admission import FifoSemaphore
from tests.receiver.receiving_world import PATIENCE, wait_until


def test_there_are_as_many_places_as_the_limit_says() -> None:
    places = FifoSemaphore(2, max_queued=8)
    assert places.take(0)
    assert places.take(0)
    assert not places.take(0)
    assert not places.take(0.01)
    assert places.available == 0
    places.free()
    assert places.available == 1
    assert places.take(0)


def test_places_are_given_in_the_order_of_asking_and_nobody_overtakes() -> None:
    places = FifoSemaphore(1, max_queued=8)
    assert places.take(0)
    served: list[int] = []

    def ask(number: int) -> None:
        assert places.take(PATIENCE)
        served.append(number)

    with ThreadPoolExecutor(5) as pool:
        for number in range(5):
            pool.submit(ask, number)
            wait_until(lambda expected=number + 1: places.queued == expected)  # type: ignore[misc]
        assert not places.take(0)
        for number in range(5):
            places.free()
            wait_until(lambda expected=number + 1: len(served) == expected)  # type: ignore[misc]
            assert not places.take(0)
    assert served == [0, 1, 2, 3, 4]


def test_who_gave_up_waiting_loses_no_place() -> None:
    places = FifoSemaphore(1, max_queued=8)
    assert places.take(0)
    assert not places.take(0.01)
    places.free()
    assert places.available == 1


def test_only_so_many_may_wait() -> None:
    places = FifoSemaphore(1, max_queued=1)
    assert places.take(0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(places.take, PATIENCE)
        wait_until(lambda: places.queued == 1)
        assert not places.take(PATIENCE)
        places.free()
        assert waiting.result(PATIENCE)


def test_places_taken_before_a_restart_may_exceed_the_limit() -> None:
    places = FifoSemaphore(1, max_queued=8)
    places.occupy()
    places.occupy()
    assert places.available == 0
    places.free()
    assert not places.take(0)
    places.free()
    assert places.take(0)


def test_closing_sends_those_who_wait_away() -> None:
    places = FifoSemaphore(1, max_queued=8)
    assert places.take(0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(places.take, PATIENCE)
        wait_until(lambda: places.queued == 1)
        places.close()
        assert not waiting.result(PATIENCE)
    assert not places.take(0)
