"""Which congestion control a link gets."""

from __future__ import annotations

from orthanc_transfers.net.congestion import Losses, Sample

SHORTEST = 100_000


def losses(*samples: tuple[float, int, int], shortest: int = SHORTEST) -> bool:
    """Samples of one connection: seconds, round trip, retransmitted so far."""
    seen = Losses()
    for now, rtt, retransmitted in samples:
        seen.add("a", Sample(rtt, shortest, retransmitted), now)
    return seen.seen


def test_losses_while_no_queue_is_seen_are_those_of_the_link() -> None:
    assert losses((0, 101_000, 0), (1, 102_000, 1), (3, 101_000, 2), (4, 101_000, 5))


def test_losses_in_a_queue_are_the_queue_s() -> None:
    assert not losses(*((now, 150_000, 20 * now) for now in range(20)))
    # The queue is gone at the moment of a look, but was there a moment before.
    assert not losses(*((now, 150_000 if now % 2 else 101_000, 20 * now) for now in range(20)))


def test_what_was_lost_at_first_does_not_count() -> None:
    assert not losses(*((now, 101_000, 500) for now in range(20)))


def test_a_packet_lost_now_and_then_is_not_held_against_the_link() -> None:
    assert not losses((0, 101_000, 0), (5, 101_000, 1), (10, 101_000, 2))


def test_on_a_short_link_nothing_is_to_be_gained() -> None:
    assert not losses(*((now, 1010, 20 * now) for now in range(20)), shortest=1000)


def test_several_connections_are_one_link() -> None:
    seen = Losses()
    for now in range(4):
        for connection in range(3):
            seen.add(connection, Sample(101_000, SHORTEST, now), float(now))
    assert seen.seen
    queued = Losses()
    for now in range(20):
        queued.add("full", Sample(190_000, SHORTEST, 0), float(now))
        queued.add("other", Sample(101_000, SHORTEST, 20 * now), float(now))
    assert not queued.seen
