"""Requests that another node of the cluster answers: what follows from each response of that one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from orthanc_transfers.core.errors import Busy, Canceled, PeerUnreachable
from orthanc_transfers.net.relay import Relay, Relayed
from orthanc_transfers.receiver.ownership import Fenced, Node, OwnedElsewhere
from orthanc_transfers.receiver.single_server import SingleServer
from orthanc_transfers.rest import handing_on
from orthanc_transfers.rest.handing_on import GOES_ON, HANDED_ON, HandingOn
from orthanc_transfers.rest.http import Request, Response
from orthanc_transfers.runtime.cancellation import Cancellation

OTHER = Node(7, "other", "http://127.0.0.1:7", "")
REQUEST = Request("POST", "/transfers/push/0/commit")
NOW = 1.8e9
"""By the clock of the database, which all nodes know."""
DONE = Relayed(200, b"{}", "application/json", {})
MISDIRECTED = Relayed(424, b"", "", {})
TAKES_ITS_TIME = Relayed(GOES_ON, b"", "", {})


class Others(Relay):
    """The other nodes; each request gets the next answer, or error."""

    def __init__(self, answers: Iterator[Relayed | Exception]) -> None:
        super().__init__(1)
        self._answers = answers
        self.sent: list[Mapping[str, str]] = []

    def send(self, address: str, method: str, path: str, *arguments: Any, **options: Any) -> Relayed:
        assert (address, method, path) == (OTHER.address, REQUEST.method, REQUEST.path)
        self.sent.append(arguments[1])
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Ownership(SingleServer):
    """Nothing is here; counts the doubts."""

    doubts = 0

    def doubt(self, node: Node) -> None:
        self.doubts += 1


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, 20 s later each time when it is read."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 20.0
        return now[0]

    monkeypatch.setattr(handing_on.time, "monotonic", monotonic)
    return now


def node(others: Others, ownership: Ownership | None = None) -> HandingOn:
    return HandingOn(
        ownership or Ownership(), others, b"secret", Cancellation(), list, lambda: NOW, lambda _: None
    )


def elsewhere(request: Request) -> Response:
    raise OwnedElsewhere(OTHER)


def ask(
    handler: Callable[[Request], Response], others: Others, ownership: Ownership | None = None
) -> Response:
    return node(others, ownership).wrap(handler)(REQUEST)


def test_what_takes_its_time_is_waited_for_as_long_as_it_does(seconds: list[float]) -> None:
    ownership = Ownership()
    others = Others(iter([TAKES_ITS_TIME] * 50 + [DONE]))
    response = ask(elsewhere, others, ownership)
    assert (response.status, bytes(response.body)) == (200, b"{}")
    assert len(others.sent) == 51
    assert ownership.doubts == 0


def test_a_node_that_does_not_respond_is_doubted_and_then_it_is_busy(
    seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    ownership = Ownership()
    others = Others(PeerUnreachable("no response", OTHER.address) for _ in range(50))
    with pytest.raises(Busy, match="node other of this cluster, which has the transfer, does not respond"):
        ask(elsewhere, others, ownership)
    assert 0 < ownership.doubts < 5
    assert [one.message for one in caplog.records] == [
        "node other of this cluster, which has the transfer, does not respond: no response;"
        " it is alive by the database: see Address in Cluster of Transfers there"
    ]


def test_it_is_asked_for_again_where_the_other_node_has_lost_it() -> None:
    answers = iter([OwnedElsewhere(OTHER), None])

    def moved(request: Request) -> Response:
        error = next(answers)
        if error is not None:
            raise error
        return Response(b"here now")

    others = Others(iter([MISDIRECTED]))
    assert bytes(ask(moved, others).body) == b"here now"


class Leaving(Ownership):
    """Stays in the cluster for so many checks."""

    stays = 0

    def check(self) -> None:
        if self.stays == 0:
            raise Canceled("this server stops")
        self.stays -= 1


def leaving(others: Others, stays: int) -> Callable[[Callable[[Request], Response]], Response]:
    """Asks a node that is stopping."""
    ownership, closing = Leaving(), Cancellation()
    ownership.stays = stays
    closing.cancel()
    handing = HandingOn(ownership, others, b"secret", closing, lambda: [OTHER], lambda: NOW, lambda _: None)
    return lambda handler: handing.wrap(handler)(REQUEST)


def remembered(request: Request) -> Response:
    return Response(b"of memory")


def test_who_has_left_the_cluster_responds_with_nothing_that_it_remembers() -> None:
    others = Others(iter([DONE]))
    assert bytes(leaving(others, stays=0)(remembered).body) == b"{}"
    assert HANDED_ON not in others.sent[0]


def test_who_stops_responds_by_itself_until_it_has_left() -> None:
    assert bytes(leaving(Others(iter([])), stays=2)(remembered).body) == b"of memory"
    # What was done before it left counts.
    assert bytes(leaving(Others(iter([])), stays=1)(remembered).body) == b"of memory"


def test_a_handler_knows_what_another_node_has_handed_on() -> None:
    asked: list[bool] = []

    def handler(request: Request) -> Response:
        asked.append(request.handed_on)
        return Response()

    others = Others(iter([DONE]))
    ask(elsewhere, others)
    (headers,) = others.sent
    for given in ({}, headers, {HANDED_ON: headers[HANDED_ON][:-1] + "x"}, {HANDED_ON: "1:x"}):
        node(others).wrap(handler)(Request(REQUEST.method, REQUEST.path, headers=given))
    assert asked == [False, True, False, False]


def test_nodes_whose_own_clocks_differ_know_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    others = Others(iter([DONE]))
    ask(elsewhere, others)
    monkeypatch.setattr(time, "time", lambda: NOW + 3600)
    handed_on = Request(REQUEST.method, REQUEST.path, headers=others.sent[0])
    assert node(others).is_handed_on(handed_on)


def test_what_was_handed_on_is_not_handed_on_again() -> None:
    others = Others(iter([DONE]))
    ask(elsewhere, others)
    handed_on = Request(REQUEST.method, REQUEST.path, headers=others.sent[0])
    assert node(others).wrap(elsewhere)(handed_on).status == MISDIRECTED.status
    assert len(others.sent) == 1


class Stopped(Ownership):
    """Stopped for longer than its lease while it served the first request, and learns of it after that."""

    def check(self) -> None:
        raise Fenced


def test_what_a_node_received_after_its_lease_is_no_response() -> None:
    ownership = Stopped()
    served: list[Request] = []

    def here_until_it_knows(request: Request) -> Response:
        served.append(request)
        if len(served) > 1:
            raise OwnedElsewhere(OTHER)
        return Response(b"received")

    others = Others(iter([DONE]))
    assert bytes(ask(here_until_it_knows, others, ownership).body) == DONE.body
    assert (len(served), len(others.sent)) == (2, 1)


def test_what_another_node_has_handed_on_after_the_lease_goes_back() -> None:
    others = Others(iter([DONE]))
    ask(elsewhere, others)
    handed_on = Request(REQUEST.method, REQUEST.path, headers=others.sent[0])
    assert (
        node(others, Stopped()).wrap(lambda _: Response(b"received"))(handed_on).status == MISDIRECTED.status
    )


def test_what_any_node_reads_for_a_pull_needs_no_lease() -> None:
    handler = node(Others(iter([])), Stopped()).wrap(lambda _: Response(b"read"), of_owner=False)
    assert bytes(handler(REQUEST).body) == b"read"
