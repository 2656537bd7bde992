"""Which version of the protocol a peer speaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import PeerInvalidResponse, PeerStatus, PeerUnreachable
from orthanc_transfers.core.messages_v2 import PROBE_HEADERS, Capabilities
from orthanc_transfers.interfaces import PeerRequest, PeerResponse
from orthanc_transfers.net.capabilities import MAX_AGE, CapabilitiesCache

OURS = Capabilities((1, 2), "1.8.0", "originator", (Codec.NONE, Codec.ZSTD), 1000)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Peer:
    """A peer that answers in one way, and counts how often it was asked.

    ``removed`` are headers of its answers that something removes on their way.
    """

    def __init__(self, answer: Callable[[], bytes], removed: frozenset[str] = frozenset()) -> None:
        self.removed = removed
        self.name, self.url, self.round_trip, self.asked = "there", "http://there/", None, 0
        self.answer = answer

    def send(self, request: PeerRequest) -> PeerResponse:
        assert (request.method, request.path) == ("GET", "/transfers/capabilities")
        assert request.timeout is not None
        assert request.limit is not None
        self.asked += 1
        assert request.headers == PROBE_HEADERS
        headers = {name: value for name, value in PROBE_HEADERS.items() if name not in self.removed}
        return PeerResponse(self.answer(), headers)

    def prepare(self) -> None:
        raise AssertionError

    def abort(self) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


def ours() -> bytes:
    return json.dumps(OURS.to_json()).encode()


def fail(error: Exception) -> Callable[[], bytes]:
    def answer() -> bytes:
        raise error

    return answer


def status(number: int) -> PeerStatus:
    return PeerStatus("no", "there", number)


def test_a_peer_of_ours_says_what_it_can_do() -> None:
    assert CapabilitiesCache(Clock()).capabilities(Peer(ours)) == OURS


@pytest.mark.parametrize(
    "answer",
    [
        fail(status(404)),
        fail(status(401)),
        fail(status(405)),
        fail(status(500)),
        fail(PeerInvalidResponse("too long", "there")),
        lambda: b"",
        lambda: b"<html>",
        lambda: b"\xff",
        lambda: b"[]",
        lambda: b"{}",
        lambda: b"[" * 100_000,
        lambda: json.dumps({**OURS.to_json(), "Protocols": [1]}).encode(),
        lambda: json.dumps({**OURS.to_json(), "Protocols": "2"}).encode(),
        lambda: json.dumps({**OURS.to_json(), "MaxBodySize": "1"}).encode(),
    ],
)
def test_anything_else_is_version_1(answer: Callable[[], bytes]) -> None:
    assert CapabilitiesCache(Clock()).capabilities(Peer(answer)) is None


@pytest.mark.parametrize(
    "error", [PeerUnreachable("connection refused", "there"), status(502), status(503), status(504)]
)
def test_an_unreachable_peer_is_not_taken_for_an_old_one(error: Any) -> None:
    negotiation = CapabilitiesCache(Clock())
    with pytest.raises(type(error)):
        negotiation.capabilities(Peer(fail(error)))
    assert negotiation.capabilities(Peer(ours)) == OURS


@pytest.mark.parametrize("answer", [ours, fail(status(404))])
def test_a_response_is_remembered_for_a_while(answer: Callable[[], bytes]) -> None:
    clock, peer = Clock(), Peer(answer)
    negotiation = CapabilitiesCache(clock)
    for clock.time in (0, 1, MAX_AGE - 1):
        negotiation.capabilities(peer)
    assert peer.asked == 1
    clock.time = MAX_AGE
    negotiation.capabilities(peer)
    assert peer.asked == 2


def test_a_peer_with_which_something_went_wrong_is_asked_again() -> None:
    negotiation, peer = CapabilitiesCache(Clock()), Peer(ours)
    negotiation.capabilities(peer)
    negotiation.forget("another")
    negotiation.capabilities(peer)
    assert peer.asked == 1
    negotiation.forget("there")
    negotiation.capabilities(peer)
    assert peer.asked == 2


def test_a_peer_that_moved_is_asked_again() -> None:
    negotiation, peer = CapabilitiesCache(Clock()), Peer(ours)
    negotiation.capabilities(peer)
    peer.url = "http://elsewhere/"
    negotiation.capabilities(peer)
    assert peer.asked == 2


ALL = frozenset(PROBE_HEADERS)


def with_headers(arrived: frozenset[str]) -> Callable[[], bytes]:
    return lambda: json.dumps(replace(OURS, headers=arrived).to_json()).encode()


def test_a_peer_that_sees_all_our_headers_and_whose_headers_we_see_speaks_version_2() -> None:
    peer = Peer(with_headers(ALL))
    found = CapabilitiesCache(Clock()).capabilities(peer)
    assert found is not None
    assert found.headers == ALL


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("way", ["requests", "responses"])
def test_where_something_removes_our_headers_version_1_is_spoken_with_a_warning(
    caplog: pytest.LogCaptureFixture, name: str, way: str
) -> None:
    removed = frozenset({name})
    asks = way == "requests"
    peer = Peer(with_headers(ALL - removed if asks else ALL), frozenset() if asks else removed)
    cache = CapabilitiesCache(Clock())
    assert cache.capabilities(peer) is None
    assert cache.capabilities(peer) is None
    assert f"in front of peer there removes the headers {name}, so that version 1" in caplog.text
    assert len(caplog.records) == 1
