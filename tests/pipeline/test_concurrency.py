"""How many requests run at once."""

from __future__ import annotations

from orthanc_transfers.pipeline.bucket_size import FIRST_TOTAL, MAX_SIZE, BucketSize
from orthanc_transfers.pipeline.concurrency import MAX_REQUESTS, Concurrency


class Link:
    """A clock, and a link on which requests take a while."""

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
            connections.record(wire, seconds)


def test_each_connection_that_brings_more_is_followed_by_others() -> None:
    link = Link()
    connections = Concurrency(4, link)
    for _ in range(8):
        link.round(connections, rate=1_000_000.0 * connections())

    assert connections() == 16


def test_where_requests_last_long_others_send_while_one_waits_for_its_response() -> None:
    link = Link()
    connections = Concurrency(4, link)
    connections.record(1000, 0.3)
    assert connections() == 8


def test_on_a_long_link_that_carries_much_there_are_at_once_as_many_as_may_be() -> None:
    connections = Concurrency(4, Link())
    connections.record(1_000_000, 0.3)
    assert connections() == 16


def test_for_a_near_peer_there_are_more_only_if_they_bring_more() -> None:
    link = Link()
    connections = Concurrency(4, link, lambda: 0.0005)
    seen = []
    for _ in range(12):
        link.round(connections, rate=4_000_000.0)
        seen.append(connections())
    assert set(seen) == {4, 8}
    assert seen.count(8) <= 2
    for _ in range(20):
        link.round(connections, rate=1_000_000.0 * connections())
    assert connections() == 16


def test_on_a_link_known_to_be_long_all_begin_at_once_with_small_buckets() -> None:
    connections = Concurrency(4, Link(), lambda: 0.1)
    bucket_size = BucketSize(MAX_SIZE, connections)
    assert connections() == 16
    assert bucket_size(10**12) * 16 == FIRST_TOTAL


def test_on_a_long_and_slow_link_fewer_are_left() -> None:
    connections = Concurrency(4, Link(), lambda: 0.1)
    assert connections() == 16
    connections.record(256_000, 30.0)
    assert connections() == 8


def test_connections_that_bring_nothing_are_given_up_again() -> None:
    link = Link()
    connections = Concurrency(4, link)
    seen = []
    for _ in range(8):
        link.round(connections, rate=1_000_000.0)
        seen.append(connections())
    assert 16 in seen
    assert seen[-3:] == [8, 8, 8]


def test_where_requests_are_short_there_is_nothing_to_gain() -> None:
    link = Link()
    connections = Concurrency(4, link)
    for _ in range(20):
        link.round(connections, rate=1e9)

    assert connections() == 4


def test_there_are_never_more_than_the_peer_can_serve() -> None:
    link = Link()
    connections = Concurrency(10, link)
    for _ in range(8):
        link.round(connections, rate=1_000_000.0 * connections())

    assert connections() == MAX_REQUESTS


def test_more_threads_than_the_maximum_are_taken_as_configured() -> None:
    assert Concurrency(64, Link())() == 64


def test_there_are_no_more_than_the_peer_can_spare_at_the_moment() -> None:
    spare = [2]
    connections = Concurrency(4, Link(), lambda: 0.2, lambda: spare[0])
    assert connections() == 2
    connections.record(1_000_000, 0.3)
    assert connections() == 2
    spare[0] = 0
    assert connections() == 1
    spare[0] = 100
    assert connections() == 16
