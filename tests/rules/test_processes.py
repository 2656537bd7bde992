"""Which Orthanc is behind a peer is asked of it, and not again and again of one that is away."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from orthanc_transfers.core.errors import PeerUnreachable
from orthanc_transfers.rules.processes import PeerProcesses
from tests.runtime.fake_time import FakeClock


def test_peers_are_known_by_what_they_say() -> None:
    clock, asked = FakeClock(), []

    def capabilities(transport: Any) -> Any:
        asked.append(transport.name)
        if transport.name == "away":
            raise PeerUnreachable("peer away does not answer", "away")
        return None if transport.name == "old" else Mock(originator=f"process of {transport.name}")

    def connect(name: str, connections: int) -> Any:
        transport = Mock()
        transport.name = name
        return transport

    peers = Mock(names=lambda: ["a", "away", "old"], connect=connect)
    processes = PeerProcesses(peers, Mock(capabilities=capabilities), clock)
    wanted = ["a", "away", "old", "no peer"]
    assert processes.of(wanted) == processes.of(wanted) == {"process of a"}
    assert (asked.count("a"), asked.count("away")) == (2, 1)
    clock.advance(61)
    processes.of(wanted)
    assert asked.count("away") == 2
