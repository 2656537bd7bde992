"""A transport that follows its peer."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from orthanc_transfers.core.errors import Canceled, UnknownPeer
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net.current_transport import CurrentTransport
from tests.contract.fake_transport import FakeTransport, Reply

GET = PeerRequest("GET", "/x")


class Configuration:
    """``interfaces.Peers`` of one peer, at the address ``far``, which may change, or be gone (``None``)."""

    def __init__(self) -> None:
        self.far: str | None = "old"
        self.made: list[FakeTransport] = []

    def names(self) -> list[str]:
        return ["far"]

    def remote_self(self, name: str) -> str | None:
        return None

    def known(self, name: str) -> Known:
        if self.far is None:
            raise UnknownPeer("there is no such peer")
        return Known(self.far, self.made)

    def connect(self, name: str, connections: int) -> FakeTransport:
        return self.known(name).connect(connections)


@dataclass(frozen=True)
class Known:
    """``interfaces.KnownPeer``."""

    address: str
    made: list[FakeTransport] = field(compare=False)

    def connect(self, connections: int) -> FakeTransport:
        assert connections == 7
        transport = FakeTransport(lambda asked: Reply(self.address.encode()), peer=self.address)
        self.made.append(transport)
        return transport


def test_nothing_is_connected_anew_without_a_change() -> None:
    peers = Configuration()
    transport = CurrentTransport(peers, "far", 7)
    assert not transport.renew()
    assert len(peers.made) == 1
    assert transport.send(GET).body == b"old"


def test_a_change_is_followed_by_requests_that_come_later() -> None:
    peers = Configuration()
    transport = CurrentTransport(peers, "far", 7)
    peers.far = "new"
    assert transport.renew()
    assert not transport.renew()
    assert transport.send(GET).body == b"new"
    assert (transport.name, transport.url) == ("far", "http://new")


def test_a_deleted_peer_is_named_with_what_to_do() -> None:
    peers = Configuration()
    transport = CurrentTransport(peers, "far", 7)
    peers.far = None
    with pytest.raises(UnknownPeer) as raised:
        transport.renew()
    assert str(raised.value) == (
        "peer 'far' was deleted while this job waited for it: configure it again, then resubmit the job"
    )


def test_an_abort_reaches_requests_of_before_and_after_the_change() -> None:
    peers = Configuration()
    transport = CurrentTransport(peers, "far", 7)
    peers.far = "new"
    transport.renew()
    transport.abort()
    for made in peers.made:
        with pytest.raises(Canceled):
            made.send(GET)
    peers.far = "newer"
    assert not transport.renew(), "what is over connects no more"
    transport.close()
