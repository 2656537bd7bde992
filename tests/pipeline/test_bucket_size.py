"""How large the next bucket is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orthanc_transfers.pipeline.bucket_size import (
    MAX_IN_FLIGHT,
    MAX_SIZE,
    MIN_LAST_SIZE,
    MIN_SIZE,
    BucketSize,
)

MB = 1024 * 1024


def move(bucket_size: BucketSize, rate: float, latency: float = 0.0, times: int = 12) -> int:
    """Buckets one after the other, on a link of so many bytes a second; what the next one should have."""
    for _ in range(times):
        size = bucket_size(10**12)
        bucket_size.record(size, latency + size / rate)
    return bucket_size(10**12)


def test_the_first_bucket_is_small_and_the_next_ones_as_configured() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    assert bucket_size(10**12) == MB
    assert move(bucket_size, rate=1e9, times=2) == 4 * MB
    assert move(bucket_size, rate=1e9) == 4 * MB


def test_on_a_long_fast_link_buckets_grow() -> None:
    assert move(BucketSize(4 * MB, lambda: 4), rate=50e6, latency=0.2) == MAX_SIZE


def test_on_a_long_link_a_request_lasts_several_round_trips() -> None:
    def last(round_trip: float | None) -> float:
        """Seconds of the last request but for its answer, on a link of 2 MB/s whose round trip takes 0.2 s."""
        bucket_size = BucketSize(4 * MB, lambda: 4, MAX_SIZE, lambda: round_trip)
        return move(bucket_size, rate=2e6, latency=0.2) / 2e6

    assert last(None) < 0.6
    assert last(0.2) == pytest.approx(1.2)


def test_where_round_trips_are_most_of_a_request_buckets_grow_quickly() -> None:
    # As TCP begins: each request takes a few round trips, whatever it carries.
    bucket_size = BucketSize(4 * MB, lambda: 4, MAX_SIZE, lambda: 0.2)
    for _ in range(3):
        bucket_size.record(bucket_size(10**12), 0.6)
    assert bucket_size(10**12) == MAX_SIZE


def test_on_a_slow_link_buckets_shrink_until_requests_are_short() -> None:
    size = move(BucketSize(4 * MB, lambda: 4), rate=1e6)
    assert 0.5e6 < size < 0.7e6
    assert move(BucketSize(4 * MB, lambda: 4), rate=1000) == MIN_SIZE


def test_buckets_that_shrank_grow_again() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    move(bucket_size, rate=1e5)
    assert move(bucket_size, rate=1e9) == 4 * MB


def test_many_connections_carry_smaller_buckets_so_that_all_fit_into_memory() -> None:
    assert move(BucketSize(4 * MB, lambda: 24), rate=50e6, latency=0.2) == MAX_IN_FLIGHT // 24
    assert move(BucketSize(8 * MB, lambda: 24), rate=50e6, latency=0.2) == 8 * MB


def test_a_peer_may_set_a_limit() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4, max_size=2 * MB)
    assert move(bucket_size, rate=50e6, latency=0.2) == 2 * MB


def test_the_rest_of_a_range_says_nothing_of_the_link() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    move(bucket_size, rate=1e9)
    bucket_size.record(1000, 10.0)
    assert bucket_size(10**12) == 4 * MB


def test_the_last_buckets_are_small_so_that_all_connections_end_together() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    usual = move(bucket_size, rate=10e6, latency=0.2)
    assert usual > 3 * MB
    assert bucket_size(1000 * MB) == usual
    assert bucket_size(24 * MB) == 3 * MB
    assert MB < bucket_size(2 * MB) < 2 * MB


def test_on_slow_connections_the_last_ones_are_smaller_than_any_before() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    assert move(bucket_size, rate=50e3) == MIN_SIZE
    assert bucket_size(64 * 1024) == MIN_LAST_SIZE


def test_a_worker_with_a_slow_connection_takes_less_than_the_others() -> None:
    bucket_size = BucketSize(4 * MB, lambda: 4)
    usual = move(bucket_size, rate=10e6, latency=0.2)
    with ThreadPoolExecutor(1) as slow:
        small = slow.submit(move, bucket_size, rate=1e6).result()
        assert small < usual / 4
        assert slow.submit(bucket_size, 24 * MB).result() < MB
    assert bucket_size(1000 * MB) == usual
