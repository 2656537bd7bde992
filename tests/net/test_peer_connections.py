"""Connections that a job leaves to the next one with the same peer."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from orthanc_transfers.core.errors import Canceled
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net import connections, peer_connections
from orthanc_transfers.net.peer_connections import KeptConnections
from orthanc_transfers.net.tls import MAX_AGE
from tests.net.peers import Connect
from tests.net.scripted import OK, Connection, well
from tests.support.waiting import wait_until

GET = PeerRequest("GET", "/")


class Watch:
    """The monotonic clock, which can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, nothing is idle for too long."""
    for module in (connections, peer_connections):
        monkeypatch.setattr(module, "MAX_IDLE", 600.0)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def kept(watch: Watch) -> KeptConnections:
    return KeptConnections(watch)


def test_the_next_transport_goes_on_with_the_same_connection(
    script: Any, connect: Connect, kept: KeptConnections
) -> None:
    server = script(well)
    for _ in range(3):
        transport = connect(server.url, kept=kept)
        transport.send(GET)
        transport.abort()
        transport.close()
    assert server.connections == 1


def test_transports_at_the_same_time_have_nothing_in_common(
    script: Any, connect: Connect, kept: KeptConnections
) -> None:
    server = script(well)
    first, second = (connect(server.url, kept=kept) for _ in range(2))
    for transport in (first, second):
        transport.send(GET)
    first.abort()
    second.send(GET)
    assert server.connections == 2


def test_a_transport_that_was_closed_sends_nothing_and_cuts_nothing(
    script: Any, connect: Connect, kept: KeptConnections
) -> None:
    server = script(well)
    former = connect(server.url, kept=kept)
    former.send(GET)
    former.close()
    transport = connect(server.url, kept=kept)
    former.abort()
    with pytest.raises(Canceled):
        former.send(GET)
    transport.send(GET)
    assert (server.connections, len(server.heads)) == (1, 2)


def test_what_is_still_being_cut_is_left_to_no_other(
    script: Any, connect: Connect, kept: KeptConnections
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def serve(connection: Connection) -> None:
        connection.request()
        reached.set()
        go_on.wait()
        connection.send(OK)

    server = script(serve, well)
    busy = connect(server.url, kept=kept)
    sent: list[object] = []
    sending = threading.Thread(target=lambda: sent.append(busy.send(GET)), daemon=True)
    sending.start()
    reached.wait()
    busy.close()
    transport = connect(server.url, kept=kept)
    transport.send(GET)
    go_on.set()
    sending.join()
    assert len(sent) == 1, "a request in progress ends by itself"
    assert server.connections == 2


def test_a_peer_that_was_changed_gets_new_connections_and_the_old_are_closed(
    script: Any, connect: Connect, kept: KeptConnections
) -> None:
    closed = threading.Event()

    def serve(connection: Connection) -> None:
        well(connection)
        closed.set()

    server = script(serve)
    former = connect(server.url, kept=kept)
    former.send(GET)
    former.close()
    connect(server.url, kept=kept, headers={"Token": "new"}).send(GET)
    assert server.connections == 2
    wait_until(closed.is_set, "the end of the former connection")


def test_idle_connections_are_closed(
    script: Any, connect: Connect, kept: KeptConnections, watch: Watch
) -> None:
    closed = threading.Event()

    def serve(connection: Connection) -> None:
        well(connection)
        closed.set()

    transport = connect(script(serve).url, kept=kept)
    transport.send(GET)
    transport.close()
    kept.close_idle()
    assert not closed.is_set()
    watch.ahead = 601.0
    kept.close_idle()
    wait_until(closed.is_set, "the end of the idle connection")


def test_what_was_prepared_long_ago_is_prepared_anew(
    script: Any, connect: Connect, kept: KeptConnections, watch: Watch
) -> None:
    server = script(well)
    former = connect(server.url, kept=kept)
    former.send(GET)
    former.close()
    watch.ahead = MAX_AGE
    connect(server.url, kept=kept).send(GET)
    assert server.connections == 2


def test_only_one_of_several_connections_is_kept(
    script: Any, connect: Connect, kept: KeptConnections
) -> None:
    ended: list[int] = []

    def serve(connection: Connection) -> None:
        well(connection)
        ended.append(1)

    server = script(serve)
    kept.limits.of(server.url).refused()  # it has responded before
    transport = connect(server.url, kept=kept)
    for _ in range(3):
        transport.prepare()
    assert server.connections == 3 or wait_until(lambda: server.connections == 3, "three connections")
    transport.close()
    wait_until(lambda: len(ended) == 2, "the end of two of them")
    connect(server.url, kept=kept).send(GET)
    assert (server.connections, len(ended)) == (3, 2)
