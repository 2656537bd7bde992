"""How many requests run at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orthanc_transfers.pipeline.concurrency import (
    FIRST_TOGETHER,
    LARGEST,
    LAST,
    MOST,
    SMALLEST,
    TOGETHER,
    BucketSize,
    Concurrency,
)


class Line:
    """A clock, and a line on which requests take a while."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def round(self, connections: Concurrency, rate: float, wire: int = 4_000_000) -> None:
        """One request on each connection, all of them at ``rate`` bytes a second together."""
        count = connections()
        seconds = count * wire / rate
        self.time += seconds
        for _ in range(count):
            connections.settle(wire, seconds)


def test_each_connection_that_brings_more_is_followed_by_others() -> None:
    line = Line()
    connections = Concurrency(4, line)
    for _ in range(8):
        line.round(connections, rate=1_000_000.0 * connections())

    assert connections() == 16


def test_where_requests_last_long_others_send_while_one_waits_for_its_answer() -> None:
    line = Line()
    connections = Concurrency(4, line)
    connections.settle(1000, 0.3)
    assert connections() == 8


def test_on_a_long_line_that_carries_much_there_are_at_once_as_many_as_may_be() -> None:
    connections = Concurrency(4, Line())
    connections.settle(1_000_000, 0.3)
    assert connections() == 16


def test_for_a_near_peer_there_are_more_only_if_they_bring_more() -> None:
    line = Line()
    connections = Concurrency(4, line, lambda: 0.0005)
    seen = []
    for _ in range(12):
        line.round(connections, rate=4_000_000.0)
        seen.append(connections())
    assert set(seen) == {4, 8}
    assert seen.count(8) <= 2
    for _ in range(20):
        line.round(connections, rate=1_000_000.0 * connections())
    assert connections() == 16


def test_on_a_line_known_to_be_long_all_begin_at_once_with_small_buckets() -> None:
    connections = Concurrency(4, Line(), lambda: 0.1)
    bucket_size = BucketSize(LARGEST, connections)
    assert connections() == 16
    assert bucket_size(10**12) * 16 == FIRST_TOGETHER


def test_on_a_long_and_slow_line_fewer_are_left() -> None:
    connections = Concurrency(4, Line(), lambda: 0.1)
    assert connections() == 16
    connections.settle(256_000, 30.0)
    assert connections() == 8


def test_connections_that_bring_nothing_are_given_up_again() -> None:
    line = Line()
    connections = Concurrency(4, line)
    seen = []
    for _ in range(8):
        line.round(connections, rate=1_000_000.0)
        seen.append(connections())
    assert 16 in seen
    assert seen[-3:] == [8, 8, 8]


def test_where_requests_are_short_there_is_nothing_to_gain() -> None:
    line = Line()
    connections = Concurrency(4, line)
    for _ in range(20):
        line.round(connections, rate=1e9)

    assert connections() == 4


def test_there_are_never_more_than_the_other_side_can_bear() -> None:
    line = Line()
    connections = Concurrency(10, line)
    for _ in range(8):
        line.round(connections, rate=1_000_000.0 * connections())

    assert connections() == MOST


def test_more_threads_than_the_most_are_taken_as_configured() -> None:
    assert Concurrency(64, Line())() == 64


# --- how large a bucket is

MB = 1024 * 1024


def carry(bucket_size: BucketSize, rate: float, latency: float = 0.0, times: int = 12) -> int:
    """Buckets one after the other, on a line of so many bytes a second; what the next one should have."""
    for _ in range(times):
        size = bucket_size(10**12)
        bucket_size.settle(size, latency + size / rate)
    return bucket_size(10**12)


def test_the_first_bucket_is_small_and_the_next_ones_as_configured() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    assert bucket_size(10**12) == MB
    assert carry(bucket_size, rate=1e9, times=2) == 4 * MB
    assert carry(bucket_size, rate=1e9) == 4 * MB


def test_on_a_long_fast_line_buckets_grow() -> None:
    assert carry(BucketSize(4 * MB, lambda: 4), rate=50e6, latency=0.2) == LARGEST


def test_on_a_long_line_a_request_lasts_several_round_trips() -> None:
    def last(round_trip: float | None) -> float:
        """Seconds of the last request but for its answer, on a line of 2 MB/s whose round trip takes 0.2 s."""
        bucket_size = BucketSize(4 * MB, lambda: 4, LARGEST, lambda: round_trip)
        return carry(bucket_size, rate=2e6, latency=0.2) / 2e6

    assert last(None) < 0.6
    assert last(0.2) == pytest.approx(1.2)


def test_where_round_trips_are_most_of_a_request_buckets_grow_quickly() -> None:
    # As TCP begins: each request takes a few round trips, whatever it carries.
    bucket_size = BucketSize(4 * MB, lambda: 4, LARGEST, lambda: 0.2)
    for _ in range(3):
        bucket_size.settle(bucket_size(10**12), 0.6)
    assert bucket_size(10**12) == LARGEST


def test_on_a_slow_line_buckets_shrink_until_requests_are_short() -> None:
    size = carry(BucketSize(4 * MB, lambda: 4), rate=1e6)
    assert 0.5e6 < size < 0.7e6
    assert carry(BucketSize(4 * MB, lambda: 4), rate=1000) == SMALLEST


def test_buckets_that_shrank_grow_again() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    carry(bucket_size, rate=1e5)
    assert carry(bucket_size, rate=1e9) == 4 * MB


def test_many_connections_carry_smaller_buckets_so_that_all_fit_into_memory() -> None:
    assert carry(BucketSize(4 * MB, lambda: 24), rate=50e6, latency=0.2) == TOGETHER // 24
    assert carry(BucketSize(8 * MB, lambda: 24), rate=50e6, latency=0.2) == 8 * MB


def test_a_peer_may_set_a_limit() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4, most=2 * MB)
    assert carry(bucket_size, rate=50e6, latency=0.2) == 2 * MB


def test_the_rest_of_a_range_says_nothing_of_the_line() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    carry(bucket_size, rate=1e9)
    bucket_size.settle(1000, 10.0)
    assert bucket_size(10**12) == 4 * MB


def test_the_last_buckets_are_small_so_that_all_connections_end_together() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    usual = carry(bucket_size, rate=10e6, latency=0.2)
    assert usual > 3 * MB
    assert bucket_size(1000 * MB) == usual
    assert bucket_size(24 * MB) == 3 * MB
    assert MB < bucket_size(2 * MB) < 2 * MB


def test_on_slow_connections_the_last_ones_are_smaller_than_any_before() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    assert carry(bucket_size, rate=50e3) == SMALLEST
    assert bucket_size(64 * 1024) == LAST


def test_a_worker_with_a_slow_connection_takes_less_than_the_others() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    usual = carry(bucket_size, rate=10e6, latency=0.2)
    with ThreadPoolExecutor(1) as slow:
        small = slow.submit(carry, bucket_size, rate=1e6).result()
        assert small < usual / 4
        assert slow.submit(bucket_size, 24 * MB).result() < MB
    assert bucket_size(1000 * MB) == usual
