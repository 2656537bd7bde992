from __future__ import annotations

import threading

import pytest

from orthanc_transfers.core.errors import Canceled
from orthanc_transfers.net.bandwidth import BURST, LOOK, Bandwidth, acquire_all, blocks
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.clock import SystemClock
from tests.runtime.fake_time import FakeClock, FakeWaiting

MBIT = 1_000_000


def test_without_a_limit_nothing_waits() -> None:
    clock = FakeClock()
    waiting = FakeWaiting(clock)
    acquire_all([Bandwidth(0, clock)], 10**12, waiting)

    assert waiting.waits == []


@pytest.mark.parametrize("size", [1000, 64 * 1024, 4 * 1024 * 1024])
def test_many_bytes_take_as_long_as_the_limit_says(size: int) -> None:
    clock = FakeClock()
    waiting = FakeWaiting(clock)
    bandwidth = Bandwidth(10 * MBIT, clock)
    started = clock.monotonic()
    total = 0
    while total < 12_500_000:
        acquire_all([bandwidth], size, waiting)
        total += size

    assert clock.monotonic() - started == pytest.approx(total * 8 / (10 * MBIT) - BURST)


def test_time_without_traffic_is_not_saved_up() -> None:
    clock = FakeClock()
    waiting = FakeWaiting(clock)
    bandwidth = Bandwidth(8 * MBIT, clock)
    acquire_all([bandwidth], 1_000_000, waiting)
    clock.advance(100)
    acquire_all([bandwidth], 1_000_000, waiting)

    assert waiting.waits == pytest.approx([1 - BURST, 1 - BURST])


def test_threads_share_the_limit_in_the_order_of_asking() -> None:
    clock = FakeClock()
    first, second = FakeWaiting(FakeClock()), FakeWaiting(FakeClock())
    bandwidth = Bandwidth(8 * MBIT, clock)
    acquire_all([bandwidth], 1_000_000, first)
    acquire_all([bandwidth], 500_000, second)

    assert first.waits == pytest.approx([1 - BURST])
    assert second.waits == pytest.approx([1.5 - BURST])


def test_a_cancellation_ends_a_wait() -> None:
    cancellation = Cancellation()
    threading.Timer(0.01, cancellation.cancel).start()

    with pytest.raises(Canceled):
        acquire_all([Bandwidth(8, SystemClock())], 1_000_000, cancellation)


def test_a_caller_that_cannot_be_canceled_waits_too() -> None:
    clock = SystemClock()
    started = clock.monotonic()
    acquire_all([Bandwidth(8 * MBIT, clock)], 50_000, Cancellation())

    assert clock.monotonic() - started >= 0.05 - BURST


def test_several_limits_hold_at_once() -> None:
    clock = FakeClock()
    waiting = FakeWaiting(clock)
    acquire_all([Bandwidth(8 * MBIT, clock), Bandwidth(16 * MBIT, clock)], 1_000_000, waiting)

    assert sum(waiting.waits) == pytest.approx(1 - BURST)


def test_blocks_are_views_of_the_whole_piece() -> None:
    data = bytearray(b"abcdefg")
    cut = blocks(memoryview(data), 3)
    data[0:1] = b"X"

    assert [bytes(block) for block in cut] == [b"Xbc", b"def", b"g"]
    assert blocks(b"", 3) == []


def test_a_limit_that_changes_holds_for_those_who_wait_already() -> None:
    clock = FakeClock()
    rate = 8_000.0

    class Lifting(FakeWaiting):
        def wait(self, seconds: float) -> None:
            nonlocal rate
            super().wait(seconds)
            rate = 8 * MBIT

    waiting = Lifting(clock)
    started = clock.monotonic()
    acquire_all([Bandwidth(lambda: rate, clock)], 1_000_000, waiting)
    # A thousand seconds at the first rate; nearly one at the second.
    assert clock.monotonic() - started == pytest.approx(LOOK + 1 - LOOK * 1e-3 - BURST, abs=0.01)
    assert max(waiting.waits) <= LOOK


def test_a_limit_may_come_and_go() -> None:
    clock = FakeClock()
    waiting = FakeWaiting(clock)
    rate = 0.0
    bandwidth = Bandwidth(lambda: rate, clock)
    acquire_all([bandwidth], 10**9, waiting)
    assert (waiting.waits, bandwidth.limited) == ([], False)
    rate = 8 * MBIT
    clock.advance(LOOK)
    assert bandwidth.limited
    acquire_all([bandwidth], 1_000_000, waiting)
    assert sum(waiting.waits) == pytest.approx(1 - BURST)
    rate = 0.0
    clock.advance(LOOK)
    acquire_all([bandwidth], 10**9, waiting)
    assert sum(waiting.waits) == pytest.approx(1 - BURST)
