"""How long to wait, and when to give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.backoff import MAX_RETRY_AFTER, Backoff
from orthanc_transfers.core.errors import BadRequest, Busy, PeerStatus, PeerUnreachable, UnknownPeer

UNREACHABLE = PeerUnreachable("no answer", "hospital")


def test_each_delay_is_twice_the_one_before_up_to_the_ceiling() -> None:
    backoff = Backoff(10, first=0.5, ceiling=3.0)
    assert [backoff.delay(attempt, UNREACHABLE, 1.0) for attempt in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_takes_away_up_to_a_half() -> None:
    backoff = Backoff(3, first=1.0)
    assert backoff.delay(0, UNREACHABLE, 0.0) == 0.5
    assert backoff.delay(0, UNREACHABLE, 0.5) == 0.75


def test_after_the_last_retry_it_gives_up() -> None:
    backoff = Backoff(2)
    assert backoff.delay(1, UNREACHABLE, 0.0) is not None
    assert backoff.delay(2, UNREACHABLE, 0.0) is None


def test_without_retries_it_gives_up_at_once() -> None:
    assert Backoff(0).delay(0, UNREACHABLE, 0.0) is None


@pytest.mark.parametrize("error", [BadRequest("no"), UnknownPeer("who?"), PeerStatus("no", "hospital", 404)])
def test_what_cannot_get_better_is_not_tried_again(error: Exception) -> None:
    assert Backoff(5).delay(0, error, 0.0) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    assert Backoff(5).delay(0, PeerStatus("later", "hospital", status), 1.0) == 0.5


def test_it_waits_at_least_as_long_as_the_peer_asks() -> None:
    asked = PeerStatus("later", "hospital", 503, retry_after=90.0)
    assert Backoff(5, ceiling=60.0).delay(0, asked, 0.0) == 90.0
    assert Backoff(5).delay(0, Busy("full", retry_after=7.0), 0.0) == 7.0


def test_it_may_wait_longer_than_the_peer_asks() -> None:
    asked = PeerStatus("later", "hospital", 503, retry_after=1.0)
    assert Backoff(9).delay(5, asked, 1.0) == 16.0


def test_a_peer_cannot_ask_for_days() -> None:
    asked = PeerStatus("later", "hospital", 503, retry_after=1e9)
    assert Backoff(5).delay(0, asked, 0.0) == MAX_RETRY_AFTER


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_however_many_attempts_the_delay_is_within_bounds(attempt: int, jitter: float) -> None:
    delay = Backoff(10**9 + 1, first=0.5, ceiling=60.0).delay(attempt, UNREACHABLE, jitter)
    assert delay is not None
    assert 0.25 <= delay <= 60.0
