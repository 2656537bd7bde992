"""Whether compression pays."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.pipeline.auto_compression import AutoCompression
from orthanc_transfers.pipeline.near_compression import NearCompression
from tests.runtime.fake_time import FakeClock

CONNECTIONS = 4
SIZE = 1_000_000


class Link:
    """Four workers that move buckets; encoding takes its time, and so does the network."""

    def __init__(self, wanted: Compression = Compression.AUTO, round_trip: float | None = None) -> None:
        self.clock = FakeClock()
        self.near_peer = NearCompression()
        self.round_trip = round_trip
        self.wanted = wanted
        self.new_job()

    def new_job(self) -> None:
        self.compression = AutoCompression(
            self.wanted, lambda: CONNECTIONS, self.clock, lambda: self.round_trip, self.near_peer
        )

    def move(self, count: int, *, encoding: float, ratio: float, rate: float) -> list[Compression]:
        """``rate``: bytes a second on the network, of all workers together. Returns the compression of each."""
        ways = []
        for _ in range(count):
            way = self.compression()
            ways.append(way)
            plain = way is Compression.NONE
            wire = SIZE if plain else SIZE / ratio
            spent = 0.0 if plain else encoding
            each = max(CONNECTIONS * wire / rate, spent)  # the network of one, while others encode
            self.clock.advance(each / CONNECTIONS)
            self.compression.record(SIZE, each, spent, encoded=not plain)
        return ways


def test_on_a_slow_link_bytes_are_encoded_and_nothing_is_tried() -> None:
    link = Link()
    assert set(link.move(500, encoding=0.01, ratio=2.5, rate=10e6)) == {Compression.AUTO}


def test_on_a_fast_link_plain_bytes_are_tried_and_kept() -> None:
    link = Link()
    ways = link.move(500, encoding=0.01, ratio=2.5, rate=5e9)
    assert ways[0] is Compression.AUTO
    assert ways[-400:].count(Compression.AUTO) < 20


@pytest.mark.parametrize("round_trip", [None, 0.02])
def test_where_requests_last_long_nothing_is_tried_however_long_encoding_takes(
    round_trip: float | None,
) -> None:
    link = Link(round_trip=round_trip)
    assert set(link.move(500, encoding=1.0, ratio=2.5, rate=5e9)) == {Compression.AUTO}


def test_a_near_peer_gets_plain_bytes_from_the_first_one_on_though_requests_last_long() -> None:
    link = Link(round_trip=0.0005)
    ways = link.move(500, encoding=1.0, ratio=2.5, rate=5e9)
    assert set(ways[:60]) == {Compression.NONE}
    assert ways.count(Compression.AUTO) < 20


def test_a_near_peer_behind_a_slow_network_gets_encoded_bytes_after_a_few_buckets() -> None:
    link = Link(round_trip=0.0005)
    ways = link.move(500, encoding=0.01, ratio=2.5, rate=10e6)
    assert set(ways[10:50]) == {Compression.AUTO}
    assert ways.count(Compression.NONE) < 30


def test_what_was_learned_of_a_near_peer_is_known_to_the_next_job() -> None:
    link = Link(round_trip=0.0005)
    link.move(10, encoding=0.01, ratio=2.5, rate=10e6)
    link.new_job()
    assert set(link.move(5, encoding=0.01, ratio=2.5, rate=10e6)) == {Compression.AUTO}


def test_a_slow_network_to_a_near_peer_is_noticed_by_jobs_of_one_bucket() -> None:
    link = Link(round_trip=0.0005)
    ways = []
    for _ in range(100):
        link.new_job()
        ways += link.move(1, encoding=0.01, ratio=2.5, rate=10e6)
    assert set(ways[10:50]) == {Compression.AUTO}


def test_data_that_no_codec_shrinks_is_not_tried_for_long_with_a_near_peer() -> None:
    near_peer = NearCompression()
    tried = 0
    for _ in range(1000):
        tried += near_peer()
        near_peer.record(False, SIZE, 1.0)
    assert tried < 80


def test_where_plain_bytes_bring_less_encoding_goes_on() -> None:
    link = Link()
    ways = link.move(1000, encoding=0.01, ratio=2.5, rate=300e6)
    assert Compression.NONE in ways
    assert ways.count(Compression.NONE) < 100
    assert ways[-1] is Compression.AUTO


def test_a_link_that_becomes_slow_is_given_encoded_bytes_again() -> None:
    link = Link()
    link.move(200, encoding=0.01, ratio=2.5, rate=5e9)
    assert link.compression() is Compression.NONE
    ways = link.move(200, encoding=0.01, ratio=2.5, rate=10e6)
    assert set(ways[50:]) == {Compression.AUTO}


def test_when_cpus_are_free_again_encoded_bytes_are_sent_again() -> None:
    link = Link(round_trip=0.0005)
    busy = link.move(300, encoding=0.06, ratio=2.5, rate=117e6)
    assert busy[-1] is Compression.NONE
    free = link.move(1000, encoding=0.005, ratio=2.5, rate=117e6)
    assert free[-400:].count(Compression.NONE) < 40


@pytest.mark.parametrize("wanted", [Compression.GZIP, Compression.ZSTD, Compression.NONE])
def test_what_a_user_asks_for_is_not_put_in_question(wanted: Compression) -> None:
    link = Link(wanted)
    assert set(link.move(200, encoding=0.01, ratio=2.5, rate=5e9)) == {wanted}
