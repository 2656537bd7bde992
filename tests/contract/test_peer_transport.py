"""What every ``PeerTransport`` promises: the one in memory that other tests use, and the real one."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import Canceled, PeerInvalidResponse, PeerStatus, PeerUnreachable
from orthanc_transfers.core.peers import Peer
from orthanc_transfers.interfaces import PeerRequest, PeerTransport
from orthanc_transfers.net.requests_transport import RequestsTransport
from tests.contract.fake_transport import Asked, Behaviour, FakeTransport, Reply
from tests.contract.http_server import BehaviourServer
from tests.support.certificates import make_certificate

Connect = Callable[[Behaviour], PeerTransport]


@pytest.fixture(params=["fake", "http", "https"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Makes a transport to a behaviour."""
    with ExitStack() as stack:

        def make(behaviour: Behaviour) -> PeerTransport:
            if request.param == "fake":
                return FakeTransport(behaviour)
            tls, verify = None, ""
            if request.param == "https":
                verify = str(make_certificate(tmp_path))
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                tls.load_cert_chain(verify)
            server = stack.enter_context(BehaviourServer(behaviour, tls))
            transport = RequestsTransport(
                Peer("real", server.url),
                connections=4,
                default_timeout=30,
                verify=verify or True,
                proxy=None,
                congestion_control="system",
            )
            stack.callback(transport.close)
            return transport

        yield make


def test_the_response_to_a_request_is_its_body_and_its_headers_in_lower_case(connect: Connect) -> None:
    def behaviour(asked: Asked) -> Reply:
        return Reply(f"{asked.method} {asked.path}".encode(), headers={"Transfers-XXH3": "abc"})

    answer = connect(behaviour).send(PeerRequest("GET", "/transfers/chunks/a.b?offset=1&size=2"))

    assert bytes(answer.body) == b"GET /transfers/chunks/a.b?offset=1&size=2"
    assert answer.headers["transfers-xxh3"] == "abc"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_the_pieces_of_a_body_arrive_end_to_end(connect: Connect, method: str) -> None:
    pieces = [b"one", memoryview(b"_two_")[1:4], bytearray(b""), b"x" * 700_000, memoryview(b"end")]

    answer = connect(lambda asked: Reply(asked.body)).send(PeerRequest(method, "/", body=pieces))

    assert bytes(answer.body) == b"onetwo" + b"x" * 700_000 + b"end"


def test_the_headers_of_a_request_arrive(connect: Connect) -> None:
    def behaviour(asked: Asked) -> Reply:
        return Reply(asked.headers["sender-transfer-id"].encode())

    answer = connect(behaviour).send(PeerRequest("DELETE", "/", headers={"sender-transfer-id": "4711"}))

    assert bytes(answer.body) == b"4711"


@pytest.mark.parametrize("status", [201, 202, 204, 302, 400, 404, 409, 500, 503])
def test_anything_but_200_is_an_error_that_carries_what_the_peer_said(connect: Connect, status: int) -> None:
    said = b"" if status == 204 else b"no"
    transport = connect(lambda asked: Reply(said, status, {"Retry-After": "7", "Location": "/elsewhere"}))

    with pytest.raises(PeerStatus) as raised:
        transport.send(PeerRequest("POST", "/transfers/push"))

    assert raised.value.peer_status == status
    assert raised.value.peer == transport.name
    assert raised.value.body == said
    assert raised.value.retry_after == 7
    assert raised.value.headers["location"] == "/elsewhere"
    assert transport.name in str(raised.value)
    assert str(status) in str(raised.value)


def test_a_peer_that_hangs_up_is_unreachable_and_may_be_tried_again(connect: Connect) -> None:
    replies = iter([None, Reply(b"back")])
    transport = connect(lambda asked: next(replies))

    with pytest.raises(PeerUnreachable) as raised:
        transport.send(PeerRequest("POST", "/"))

    assert raised.value.retryable
    assert raised.value.peer == transport.name
    assert bytes(transport.send(PeerRequest("POST", "/")).body) == b"back"


def test_a_response_may_have_as_many_bytes_as_its_limit_and_no_more(connect: Connect) -> None:
    transport = connect(lambda asked: Reply(b"12345"))

    assert bytes(transport.send(PeerRequest("GET", "/", limit=5)).body) == b"12345"
    with pytest.raises(PeerInvalidResponse) as raised:
        transport.send(PeerRequest("GET", "/", limit=4))

    assert raised.value.retryable
    assert bytes(transport.send(PeerRequest("GET", "/")).body) == b"12345"


def test_requests_of_several_threads_do_not_disturb_each_other(connect: Connect) -> None:
    transport = connect(lambda asked: Reply(asked.body))
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            body = str(number).encode() * 1000
            if bytes(transport.send(PeerRequest("PUT", "/", body=[body])).body) != body:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_request_under_way_when_the_transport_is_aborted_is_canceled(connect: Connect) -> None:
    transport: PeerTransport
    arrived = threading.Event()

    def behaviour(asked: Asked) -> Reply:
        arrived.set()
        transport.abort()
        return Reply(b"too late")

    transport = connect(behaviour)

    with pytest.raises(Canceled):
        transport.send(PeerRequest("POST", "/"))

    assert arrived.is_set()


def test_after_an_abort_nothing_is_sent(connect: Connect) -> None:
    asked: list[Asked] = []

    def behaviour(request: Asked) -> Reply:
        asked.append(request)
        return Reply()

    transport = connect(behaviour)
    transport.abort()
    transport.abort()

    with pytest.raises(Canceled):
        transport.send(PeerRequest("GET", "/"))
    assert asked == []


def test_its_address_has_no_password(connect: Connect) -> None:
    transport = connect(lambda asked: Reply())

    assert transport.url.startswith("http")
    assert "@" not in transport.url
