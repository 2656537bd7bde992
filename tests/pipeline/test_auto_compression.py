"""Whether encoding pays."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.pipeline.auto_compression import AutoCompression
from tests.runtime.fake_time import FakeClock

CONNECTIONS = 4
SIZE = 1_000_000


class Line:
    """Four workers that carry buckets; encoding takes its time, and so does the network."""

    def __init__(self, wanted: Compression = Compression.AUTO, round_trip: float | None = None) -> None:
        self.clock = FakeClock()
        self.encoding = AutoCompression(wanted, lambda: CONNECTIONS, self.clock, lambda: round_trip)

    def carry(self, count: int, *, encoding: float, ratio: float, rate: float) -> list[Compression]:
        """``rate``: bytes a second on the network, of all workers together. Answers how each was carried."""
        ways = []
        for _ in range(count):
            way = self.encoding()
            ways.append(way)
            plain = way is Compression.NONE
            wire = SIZE if plain else SIZE / ratio
            spent = 0.0 if plain else encoding
            each = max(CONNECTIONS * wire / rate, spent)  # the network of one, while others encode
            self.clock.advance(each / CONNECTIONS)
            self.encoding.settle(SIZE, each, spent)
        return ways


def test_on_a_slow_line_bytes_are_encoded_and_nothing_is_tried() -> None:
    line = Line()
    assert set(line.carry(500, encoding=0.01, ratio=2.5, rate=10e6)) == {Compression.AUTO}


def test_on_a_fast_line_plain_bytes_are_tried_and_kept() -> None:
    line = Line()
    ways = line.carry(500, encoding=0.01, ratio=2.5, rate=5e9)
    assert ways[0] is Compression.AUTO
    assert ways[-400:].count(Compression.AUTO) < 20


@pytest.mark.parametrize("round_trip", [None, 0.02])
def test_where_requests_last_long_nothing_is_tried_however_long_encoding_takes(
    round_trip: float | None,
) -> None:
    line = Line(round_trip=round_trip)
    assert set(line.carry(500, encoding=1.0, ratio=2.5, rate=5e9)) == {Compression.AUTO}


def test_where_busy_processors_make_requests_last_long_plain_bytes_are_tried_for_a_near_peer() -> None:
    line = Line(round_trip=0.0005)
    ways = line.carry(500, encoding=1.0, ratio=2.5, rate=5e9)
    assert ways[0] is Compression.AUTO
    assert ways[-400:].count(Compression.AUTO) < 20


def test_where_plain_bytes_bring_less_encoding_goes_on() -> None:
    line = Line()
    ways = line.carry(1000, encoding=0.01, ratio=2.5, rate=300e6)
    assert Compression.NONE in ways
    assert ways.count(Compression.NONE) < 100
    assert ways[-1] is Compression.AUTO


def test_a_line_that_becomes_slow_is_given_encoded_bytes_again() -> None:
    line = Line()
    line.carry(200, encoding=0.01, ratio=2.5, rate=5e9)
    assert line.encoding() is Compression.NONE
    ways = line.carry(200, encoding=0.01, ratio=2.5, rate=10e6)
    assert set(ways[50:]) == {Compression.AUTO}


def test_when_processors_are_free_again_encoded_bytes_are_sent_again() -> None:
    line = Line(round_trip=0.0005)
    busy = line.carry(300, encoding=0.06, ratio=2.5, rate=117e6)
    assert busy[-1] is Compression.NONE
    free = line.carry(1000, encoding=0.005, ratio=2.5, rate=117e6)
    assert free[-400:].count(Compression.NONE) < 40


@pytest.mark.parametrize("wanted", [Compression.GZIP, Compression.ZSTD, Compression.NONE])
def test_what_a_user_asks_for_is_not_put_in_question(wanted: Compression) -> None:
    line = Line(wanted)
    assert set(line.carry(200, encoding=0.01, ratio=2.5, rate=5e9)) == {wanted}
