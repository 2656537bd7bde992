from __future__ import annotations

import base64
import datetime
import email.utils
import gzip
import logging
import os
import select
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from orthanc_transfers.core.errors import (
    Canceled,
    ConfigurationError,
    PeerError,
    PeerInvalidResponse,
    PeerStatus,
    PeerUnreachable,
    PeerUntrusted,
)
from orthanc_transfers.core.peers import Peer
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net import connections, sockets
from orthanc_transfers.net.bandwidth import Bandwidth
from orthanc_transfers.net.requests_transport import RequestsTransport
from orthanc_transfers.net.sockets import SocketFactory
from orthanc_transfers.runtime.clock import SystemClock
from tests.contract.fake_transport import Asked, Behaviour, Reply
from tests.contract.loopback import LoopbackServer
from tests.net.scripted import OK, Line, ScriptedServer, Serve, well
from tests.support.certificates import make_certificate

Connect = Callable[..., RequestsTransport]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes transports; what a peer has goes to the peer, the rest to the transport."""
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> RequestsTransport:
            of_peer = {key: options.pop(key) for key in list(options) if key in Peer.__slots__}
            defaults: dict[str, Any] = {
                "connections": 4,
                "default_timeout": 30,
                "verify": True,
                "proxy": None,
                "congestion_control": "system",
            }
            transport = RequestsTransport(Peer("far", url, **of_peer), **{**defaults, **options})
            stack.callback(transport.close)
            return transport

        yield make


@pytest.fixture
def serve() -> Iterator[Callable[..., LoopbackServer]]:
    with ExitStack() as stack:

        def make(
            behaviour: Behaviour = lambda asked: Reply(b"{}"), tls: ssl.SSLContext | None = None
        ) -> LoopbackServer:
            return stack.enter_context(LoopbackServer(behaviour, tls))

        yield make


@pytest.fixture
def script() -> Iterator[Callable[..., ScriptedServer]]:
    with ExitStack() as stack:

        def make(*functions: Serve, tls: ssl.SSLContext | None = None) -> ScriptedServer:
            return stack.enter_context(ScriptedServer(functions, tls))

        yield make


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Turnstile(Bandwidth):
    """Lets everything pass, and notes it."""

    def __init__(self) -> None:
        super().__init__(8, SystemClock())
        self.passed: list[int] = []

    def reserve(self, size: int) -> float:
        self.passed.append(size)
        return 0.0


# --- what goes out


def test_a_body_has_a_length_and_does_not_go_in_chunks(serve: Any, connect: Connect) -> None:
    server = serve()
    connect(server.url).send(PeerRequest("PUT", "/", body=[b"abc", memoryview(b"def")]))

    assert server.asked[0].headers["content-length"] == "6"
    assert "transfer-encoding" not in server.asked[0].headers


def test_a_post_without_a_body_says_so(serve: Any, connect: Connect) -> None:
    server = serve()
    connect(server.url).send(PeerRequest("POST", "/"))

    assert server.asked[0].headers["content-length"] == "0"
    assert "content-type" not in server.asked[0].headers


def test_a_body_is_bytes_unless_the_caller_knows_better(serve: Any, connect: Connect) -> None:
    server = serve()
    transport = connect(server.url)
    transport.send(PeerRequest("PUT", "/", body=[b"a"]))
    transport.send(PeerRequest("PUT", "/", body=[b"a"], headers={"content-type": "application/json"}))

    assert [asked.headers["content-type"] for asked in server.asked] == [
        "application/octet-stream",
        "application/json",
    ]


@pytest.mark.parametrize("url", ["/orthanc", "/orthanc/"])
def test_paths_are_below_the_root_of_the_peer(serve: Any, connect: Connect, url: str) -> None:
    server = serve()
    connect(server.url + url).send(PeerRequest("GET", "/transfers/chunks/a.b?offset=0&size=2"))

    assert server.asked[0].path == "/orthanc/transfers/chunks/a.b?offset=0&size=2"


def test_basic_authentication_is_utf_8(serve: Any, connect: Connect) -> None:
    server = serve()
    connect(server.url, username="jürgen", password="geheim€").send(PeerRequest("GET", "/"))

    scheme, credentials = server.asked[0].headers["authorization"].split()
    assert scheme == "Basic"
    assert base64.b64decode(credentials).decode() == "jürgen:geheim€"


@pytest.mark.parametrize(("username", "password"), [("", "x"), ("x", ""), ("", "")])
def test_half_a_user_is_none(serve: Any, connect: Connect, username: str, password: str) -> None:
    server = serve()
    connect(server.url, username=username, password=password).send(PeerRequest("GET", "/"))

    assert "authorization" not in server.asked[0].headers


def test_a_user_in_the_address_is_taken_but_not_shown(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: Reply(status=404))
    transport = connect(server.url.replace("://", "://me:secret@"))

    with pytest.raises(PeerStatus) as raised:
        transport.send(PeerRequest("GET", "/"))

    assert base64.b64decode(server.asked[0].headers["authorization"].split()[1]) == b"me:secret"
    assert "secret" not in transport.url + repr(transport) + str(raised.value)


def test_headers_of_the_peer_go_with_every_request(serve: Any, connect: Connect) -> None:
    server = serve()
    transport = connect(server.url, headers={"Authorization": "Bearer x", "X-Site": "Köln"})
    transport.send(PeerRequest("GET", "/"))
    transport.send(PeerRequest("PUT", "/", body=[b"a"]))

    for asked in server.asked:
        assert asked.headers["authorization"] == "Bearer x"
        assert asked.headers["x-site"].encode("latin-1").decode() == "Köln"


def test_nothing_of_the_environment_changes_a_request(
    serve: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server = serve()
    connect(server.url).send(PeerRequest("GET", "/"))

    assert "authorization" not in server.asked[0].headers


def test_an_environment_with_other_authorities_does_not_override_those_of_the_configuration(
    serve: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path
) -> None:
    other = make_certificate(tmp_path, "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(other))
    server = serve(tls=server_tls(certificate))

    connect(server.url, verify=str(certificate)).send(PeerRequest("GET", "/"))

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with pytest.raises(PeerUntrusted):
        connect(server.url).send(PeerRequest("GET", "/"))


# --- cookies


def test_cookies_of_an_answer_are_sent_back_whatever_their_attributes(serve: Any, connect: Connect) -> None:
    cookies = "route=a; Path=/elsewhere; Secure; HttpOnly\nshard=7; Domain=example.com\nroute=b; Max-Age=0"
    replies = iter([Reply(b"{}", headers={"Set-Cookie": cookies}), Reply(b"{}")])
    server = serve(lambda asked: next(replies))
    transport = connect(server.url)
    transport.send(PeerRequest("POST", "/transfers/push"))
    transport.send(PeerRequest("PUT", "/transfers/push/1/0", body=[b"x"]))

    assert "cookie" not in server.asked[0].headers
    assert server.asked[1].headers["cookie"] == "route=b; shard=7"


def test_cookies_of_the_configuration_stay(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: Reply(b"{}", headers={"Set-Cookie": "route=a"}))
    transport = connect(server.url, headers={"cookie": "mine=1"})
    transport.send(PeerRequest("GET", "/"))
    transport.send(PeerRequest("GET", "/"))

    assert [asked.headers["cookie"] for asked in server.asked] == ["mine=1", "mine=1; route=a"]


def test_the_last_of_several_cookies_is_that_of_the_answer(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: Reply(b"{}", headers={"Set-Cookie": "other=1; Path=/\nroute=a; Path=/"}))

    assert connect(server.url).send(PeerRequest("GET", "/")).headers["set-cookie"] == "route=a; Path=/"


def test_a_cookie_set_over_another_transport_is_sent_until_the_peer_sets_one(
    serve: Any, connect: Connect
) -> None:
    server = serve(lambda asked: Reply(b"{}", headers={"Set-Cookie": "route=b"}))
    transport = connect(server.url, headers={"cookie": "mine=1"})
    for _ in range(2):
        transport.send(PeerRequest("GET", "/", headers={"cookie": "route=a"}))

    assert [asked.headers["cookie"] for asked in server.asked] == ["mine=1; route=a", "mine=1; route=b"]


def test_an_empty_cookie_takes_the_former_back(serve: Any, connect: Connect) -> None:
    values = iter(["route=a", "route=; Max-Age=0", "other=1"])
    server = serve(lambda asked: Reply(b"{}", headers={"Set-Cookie": next(values)}))
    transport = connect(server.url)
    for _ in range(3):
        transport.send(PeerRequest("GET", "/"))

    assert [asked.headers.get("cookie") for asked in server.asked] == [None, "route=a", None]


def test_an_error_sets_no_cookie(serve: Any, connect: Connect) -> None:
    replies = iter([Reply(status=503, headers={"Set-Cookie": "route=sick"}), Reply(b"{}")])
    server = serve(lambda asked: next(replies))
    transport = connect(server.url)
    with pytest.raises(PeerStatus):
        transport.send(PeerRequest("GET", "/"))
    transport.send(PeerRequest("GET", "/"))

    assert "cookie" not in server.asked[1].headers


# --- what comes back


def test_a_redirect_is_not_followed(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: Reply(status=302, headers={"Location": "/login"}))
    with pytest.raises(PeerStatus) as raised:
        connect(server.url).send(PeerRequest("GET", "/"))

    assert raised.value.peer_status == 302
    assert not raised.value.retryable
    assert len(server.asked) == 1


def test_a_compressed_answer_is_not_asked_for_and_not_unpacked(serve: Any, connect: Connect) -> None:
    packed = gzip.compress(b"a" * 1000)
    server = serve(lambda asked: Reply(packed, headers={"Content-Encoding": "gzip"}))

    assert connect(server.url).send(PeerRequest("GET", "/")).body == packed
    assert server.asked[0].headers["accept-encoding"] == "identity"


def answering(data: bytes) -> Serve:
    def serve(line: Line) -> None:
        line.whole()
        line.say(data)

    return serve


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\nabcde"


@pytest.mark.parametrize("data", [CHUNKED, UNTIL_CLOSED])
def test_an_answer_of_unknown_length_is_read_up_to_the_limit(
    script: Any, connect: Connect, data: bytes
) -> None:
    transport = connect(script(answering(data)).url)

    assert transport.send(PeerRequest("GET", "/")).body == b"abcde"
    assert transport.send(PeerRequest("GET", "/", limit=5)).body == b"abcde"
    with pytest.raises(PeerInvalidResponse):
        transport.send(PeerRequest("GET", "/", limit=4))


def test_an_answer_that_announces_too_much_is_not_waited_for(script: Any, connect: Connect) -> None:
    def serve(line: Line) -> None:
        line.whole()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        line.until_closed()

    with pytest.raises(PeerInvalidResponse, match="more than 10 bytes"):
        connect(script(serve).url).send(PeerRequest("GET", "/", limit=10))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", "in the middle of an answer"),
        (CHUNKED[:-8], "in the middle of an answer"),
        (b"", "closed before an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
    ],
)
def test_a_broken_answer_says_what_was_wrong_and_may_be_tried_again(
    script: Any, connect: Connect, data: bytes, reason: str
) -> None:
    server = script(answering(data))
    with pytest.raises(PeerUnreachable, match=reason) as raised:
        connect(server.url).send(PeerRequest("GET", "/"))

    assert raised.value.retryable
    assert f"peer 'far' cannot be reached at 127.0.0.1:{server.port}: " in str(raised.value)


def test_the_words_of_orthanc_are_in_the_error(serve: Any, connect: Connect) -> None:
    said = b'{"HttpStatus": 404, "Message": "Unknown resource", "Details": "no instance 12"}'
    server = serve(lambda asked: Reply(said, 404))

    with pytest.raises(PeerStatus, match="answered GET /x with 404: Unknown resource: no instance 12"):
        connect(server.url).send(PeerRequest("GET", "/x"))


@pytest.mark.parametrize("said", [b"<html>", b"[1]", b"[" * 100_000, b'{"Message": 4}', b"\xff"])
def test_any_other_error_has_the_words_of_its_status(serve: Any, connect: Connect, said: bytes) -> None:
    server = serve(lambda asked: Reply(said, 502))

    with pytest.raises(PeerStatus, match=r"with 502: Bad Gateway$"):
        connect(server.url).send(PeerRequest("GET", "/"))


def test_a_refused_user_is_told_where_to_look(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: Reply(status=401))

    with pytest.raises(PeerStatus, match="check the user and the password"):
        connect(server.url, username="me", password="wrong").send(PeerRequest("GET", "/"))


def test_retry_after_may_be_a_date_by_the_clock_of_the_peer(serve: Any, connect: Connect) -> None:
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    later = then + datetime.timedelta(seconds=90)
    headers = {
        "Date": email.utils.format_datetime(then, usegmt=True),
        "Retry-After": email.utils.format_datetime(later, usegmt=True),
    }
    assert _retry_after(serve, connect, headers) == 90


def test_a_retry_after_that_has_passed_is_now(serve: Any, connect: Connect) -> None:
    assert _retry_after(serve, connect, {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}) == 0


@pytest.mark.parametrize("text", ["", "soon", "-1", "9" * 30, "Wed, 99 Jan 2020"])
def test_a_retry_after_that_is_none_does_no_harm(serve: Any, connect: Connect, text: str) -> None:
    seconds = _retry_after(serve, connect, {"Retry-After": text})
    assert seconds is None or seconds > 100_000_000


def _retry_after(serve: Any, connect: Connect, headers: dict[str, str]) -> float | None:
    def serve_raw(line: Line) -> None:
        line.whole()
        text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        line.say(f"HTTP/1.1 503 Busy\r\n{text}Content-Length: 0\r\n\r\n".encode())

    with ScriptedServer([serve_raw]) as server, pytest.raises(PeerStatus) as raised:
        connect(server.url).send(PeerRequest("GET", "/"))
    return raised.value.retry_after


def test_an_answer_that_comes_before_the_end_of_the_body_is_heard(script: Any, connect: Connect) -> None:
    def serve(line: Line) -> None:
        line.head()
        line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        line.sock.shutdown(socket.SHUT_WR)
        line.until_closed()

    with pytest.raises(PeerStatus) as raised:
        connect(script(serve).url).send(PeerRequest("PUT", "/", body=[b"x" * 5_000_000]))

    assert raised.value.peer_status == 413


# --- connections


def test_idle_connections_are_closed_although_somebody_still_has_an_error(
    script: Any, connect: Connect
) -> None:
    closed = threading.Event()

    def serve(line: Line) -> None:
        line.whole()
        line.say(b"HTTP/1.1 500 Trouble\r\nContent-Length: 0\r\n\r\n")
        line.until_closed()
        closed.set()

    transport = connect(script(serve).url)
    with pytest.raises(PeerStatus) as raised:
        transport.send(PeerRequest("GET", "/"))
    transport.close()

    assert closed.wait(30)
    assert raised.value.peer_status == 500


def test_one_connection_serves_many_requests(serve: Any, connect: Connect) -> None:
    server = serve()
    transport = connect(server.url)
    for _ in range(3):
        transport.send(PeerRequest("PUT", "/", body=[b"x"]))
        transport.send(PeerRequest("POST", "/", body=[b"x"]))
        transport.send(PeerRequest("GET", "/", limit=10))

    assert server.connections == 1


def test_an_error_that_was_read_to_its_end_does_not_cost_the_connection(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: Reply(b"no", 404))
    transport = connect(server.url)
    for _ in range(3):
        with pytest.raises(PeerStatus):
            transport.send(PeerRequest("GET", "/"))

    assert server.connections == 1


@pytest.mark.parametrize(
    ("method", "limit"), [("PUT", "MAX_IDLE"), ("GET", "MAX_IDLE"), ("POST", "MAX_IDLE_UNREPEATABLE")]
)
def test_a_connection_that_idled_for_long_is_not_used_again(
    serve: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch, method: str, limit: str
) -> None:
    monkeypatch.setattr(connections, limit, 0.0)
    server = serve()
    transport = connect(server.url)
    for _ in range(3):
        transport.send(PeerRequest(method, "/"))

    assert server.connections == 3


def test_a_kept_connection_that_the_server_closed_meanwhile_costs_nothing(
    script: Any, connect: Connect
) -> None:
    closed = threading.Event()

    def once(line: Line) -> None:
        line.whole()
        line.say(OK)
        line.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = script(once, well)
    transport = connect(server.url)
    transport.send(PeerRequest("POST", "/1"))
    closed.wait()
    transport.send(PeerRequest("POST", "/2"))

    assert [head.split()[1] for head in server.heads[:2]] == [b"/1", b"/2"]
    assert server.connections == 2


def dies_under_the_second_request(line: Line) -> None:
    line.whole()
    line.say(OK)
    line.head()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_request_that_may_be_done_twice_is_repeated_when_a_kept_connection_dies_under_it(
    script: Any, connect: Connect, certificate: Path, method: str, encrypted: bool
) -> None:
    tls = server_tls(certificate) if encrypted else None
    server = script(dies_under_the_second_request, well, tls=tls)
    transport = connect(server.url, verify=str(certificate))
    body = [b"x" * 3_000_000] if method == "PUT" else []
    transport.send(PeerRequest(method, "/1", body=body))
    transport.send(PeerRequest(method, "/2", body=body))

    assert [head.split()[1] for head in server.heads[:3]] == [b"/1", b"/2", b"/2"]


def test_a_post_that_is_said_to_be_repeatable_is_taken_for_such(
    script: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE_UNREPEATABLE", 0.0)
    server = script(dies_under_the_second_request, well)
    transport = connect(server.url)
    transport.send(PeerRequest("POST", "/1"))
    transport.send(PeerRequest("POST", "/2", repeatable=True))

    assert [head.split()[1] for head in server.heads] == [b"/1", b"/2", b"/2"]


def test_a_post_is_not_repeated_for_it_may_have_been_done(script: Any, connect: Connect) -> None:
    server = script(dies_under_the_second_request, well)
    transport = connect(server.url)
    transport.send(PeerRequest("POST", "/1"))
    with pytest.raises(PeerUnreachable, match="closed before an answer"):
        transport.send(PeerRequest("POST", "/2"))

    assert len(server.heads) == 2


def test_a_repeated_request_is_not_repeated_again(script: Any, connect: Connect) -> None:
    def hangs_up(line: Line) -> None:
        line.whole()

    server = script(dies_under_the_second_request, hangs_up)
    transport = connect(server.url)
    transport.send(PeerRequest("PUT", "/1"))
    with pytest.raises(PeerUnreachable):
        transport.send(PeerRequest("PUT", "/2"))

    assert server.connections == 2


def test_a_request_that_dies_on_a_fresh_connection_is_not_repeated(script: Any, connect: Connect) -> None:
    server = script(lambda line: None)
    with pytest.raises(PeerUnreachable):
        connect(server.url).send(PeerRequest("PUT", "/", body=[b"x"]))

    assert server.connections == 1


def test_more_requests_at_once_than_connections_to_keep_are_no_trouble(
    serve: Any, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    all_there = threading.Barrier(3)

    def behaviour(asked: Asked) -> Reply:
        all_there.wait()
        return Reply(b"{}")

    server = serve(behaviour)
    transport = connect(server.url, connections=1)
    threads = [
        threading.Thread(target=transport.send, args=(PeerRequest("GET", "/"),), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(server.asked) == 3
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_sockets_send_small_pieces_at_once_and_notice_dead_peers(serve: Any) -> None:
    line = SocketFactory("system")
    with line.request(repeatable=False), line.connect("127.0.0.1", serve().port, 5) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="Linux only")
@pytest.mark.parametrize(("wanted", "got"), [("reno", "reno"), ("system", ""), ("auto", "")])
def test_the_congestion_control_is_the_configured_one(serve: Any, wanted: str, got: str) -> None:
    line = SocketFactory(wanted)
    with socket.socket() as plain:
        default = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    with line.request(repeatable=False), line.connect("localhost", serve().port, 5) as sock:
        used = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)

    assert used.rstrip(b"\0") == (got.encode() or default.rstrip(b"\0"))


def test_a_congestion_control_that_the_system_refuses_is_a_warning_once(
    serve: Any, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE", 0.0)
    transport = connect(serve().url, congestion_control="carrier-pigeon")
    transport.send(PeerRequest("GET", "/"))
    transport.send(PeerRequest("GET", "/"))

    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "carrier-pigeon" in warned[0]


# --- time-outs and failures to connect


def test_a_peer_that_does_not_answer_in_time_is_unreachable(script: Any, connect: Connect) -> None:
    transport = connect(script(Line.until_closed).url)
    with pytest.raises(PeerUnreachable, match=r"timed out after 0\.05 s") as raised:
        transport.send(PeerRequest("GET", "/", timeout=0.05))

    assert raised.value.retryable


def test_the_timeout_of_the_peer_is_used_where_the_request_has_none(script: Any, connect: Connect) -> None:
    with pytest.raises(PeerUnreachable, match="timed out after 1 s"):
        connect(script(Line.until_closed).url, timeout=1, default_timeout=1000).send(PeerRequest("GET", "/"))


def test_a_slow_line_that_moves_does_not_time_out(script: Any, connect: Connect) -> None:
    def slow(line: Line) -> None:
        # Much less at once than the body, so that the sender must wait again and again.
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        line.head()
        for _ in range(24):
            line.take(500_000)
            time.sleep(0.05)
        line.say(OK)

    transport = connect(script(slow).url)
    assert transport.send(PeerRequest("PUT", "/", body=[b"x" * 12_000_000], timeout=0.5)).body == b"{}"


def test_a_refused_connection_says_so(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerUnreachable, match=f"'far' .*127.0.0.1:{port}: connection refused$") as raised:
        connect(f"http://127.0.0.1:{port}/x").send(PeerRequest("GET", "/"))

    assert raised.value.retryable


def test_an_unknown_name_says_so(connect: Connect) -> None:
    with pytest.raises(PeerUnreachable, match="its name is unknown") as raised:
        connect("http://nowhere.invalid").send(PeerRequest("GET", "/"))

    assert raised.value.retryable


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port of this machine that lets nobody in: its queue of connections is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_connection_that_does_not_come_about_says_so(
    deaf: int, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CONNECT_TIMEOUT", 0.1)
    with pytest.raises(PeerUnreachable, match=r"no connection after 0\.1 s"):
        connect(f"http://127.0.0.1:{deaf}").send(PeerRequest("GET", "/", timeout=1000))


# --- connections ahead of their requests


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_prepared_connection_carries_the_next_request(
    script: Any, connect: Connect, certificate: Path, encrypted: bool
) -> None:
    server = script(well, tls=server_tls(certificate) if encrypted else None)
    transport = connect(server.url, verify=str(certificate))
    transport.prepare()
    assert transport.round_trip is not None
    for method in ("POST", "PUT"):
        transport.send(PeerRequest(method, "/", body=[b"{}"]))
    assert server.connections == 1


def test_connections_prepared_at_the_same_time_serve_requests_at_the_same_time(
    script: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, asked = threading.Barrier(2), threading.Barrier(2)

    def together(line: Line) -> None:
        line.whole()
        asked.wait(30)
        line.say(OK)

    def twice(function: Callable[[], object]) -> None:
        threads = [threading.Thread(target=function, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def slow(self: SocketFactory, *address: Any) -> socket.socket:
        sock = connect_one(self, *address)
        connected.wait(30)
        return sock

    server = script(together)
    transport = connect(server.url)
    connect_one = SocketFactory.connect
    monkeypatch.setattr(SocketFactory, "connect", slow)
    twice(transport.prepare)
    monkeypatch.undo()
    twice(lambda: transport.send(PeerRequest("PUT", "/", body=[b"x"])))
    assert server.connections == 2


def test_one_that_waits_is_left_to_the_next_request_while_another_is_opened(
    script: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, asked = threading.Event(), threading.Event()

    def slow(self: SocketFactory, *address: Any) -> socket.socket:
        connecting.set()
        asked.wait(30)
        return connect_one(self, *address)

    server = script(well)
    transport = connect(server.url)
    transport.send(PeerRequest("GET", "/"))
    connect_one = SocketFactory.connect
    monkeypatch.setattr(SocketFactory, "connect", slow)
    opening = threading.Thread(target=transport.prepare, daemon=True)
    opening.start()
    connecting.wait(30)
    transport.send(PeerRequest("GET", "/"))
    assert server.connections == 1
    asked.set()
    opening.join()


def test_no_more_connections_are_prepared_than_are_kept(script: Any, connect: Connect) -> None:
    server = script(well)
    transport = connect(server.url, connections=2)
    for _ in range(3):
        transport.prepare()
    transport.send(PeerRequest("GET", "/"))
    assert server.connections == 2


def test_a_prepared_connection_that_was_closed_meanwhile_costs_nothing(script: Any, connect: Connect) -> None:
    closed = threading.Event()

    def leave(line: Line) -> None:
        line.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = script(leave, well)
    transport = connect(server.url)
    transport.prepare()
    closed.wait()
    transport.send(PeerRequest("POST", "/"))
    assert server.connections == 2


def test_a_pool_that_was_closed_meanwhile_opens_nothing(script: Any) -> None:
    server = script(well)
    pool = connections.HTTPPool("127.0.0.1", server.port, sockets=SocketFactory("system"))
    pool.close()
    pool.open(5)
    assert server.connections == 0


def test_what_cannot_be_prepared_is_left_to_the_request(connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        transport = connect(f"http://127.0.0.1:{unused.getsockname()[1]}")
        transport.prepare()
        with pytest.raises(PeerUnreachable, match="refused"):
            transport.send(PeerRequest("GET", "/"))


def test_nothing_is_prepared_through_a_proxy_or_after_an_abort(script: Any, connect: Connect) -> None:
    server = script(well)
    connect("http://far.example:8042", proxy=server.url).prepare()
    transport = connect(server.url)
    transport.abort()
    transport.prepare()
    assert server.connections == 0


# --- abort


def canceled_by_abort(transport: RequestsTransport, waiting: Callable[[], None], **request: Any) -> bool:
    """Whether a request ends with ``Canceled`` once the transport is aborted while it waits."""
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            transport.send(PeerRequest("PUT", "/", **request))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    waiting()
    transport.abort()
    thread.join()
    return [type(error) for error in outcome] == [Canceled]


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("moment", ["answer", "rest of the answer", "body"])
def test_an_abort_ends_a_request_that_waits(
    script: Any, connect: Connect, certificate: Path, encrypted: bool, moment: str
) -> None:
    reached = threading.Event()

    def serve(line: Line) -> None:
        line.head()
        if moment == "rest of the answer":
            # "close" makes http.client give its handle away before the body is read.
            line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nsome")
        reached.set()
        done.wait()

    done = threading.Event()
    server = script(serve, tls=server_tls(certificate) if encrypted else None)
    transport = connect(server.url, verify=str(certificate))
    body = [bytes(50_000_000)] if moment == "body" else []
    try:
        assert canceled_by_abort(transport, reached.wait, body=body)
    finally:
        done.set()


def test_an_abort_ends_a_request_on_a_kept_connection(script: Any, connect: Connect) -> None:
    second = threading.Event()
    done = threading.Event()

    def serve(line: Line) -> None:
        line.whole()
        line.say(OK)
        line.whole()
        second.set()
        done.wait()

    server = script(serve)
    transport = connect(server.url)
    transport.send(PeerRequest("PUT", "/"))
    try:
        assert canceled_by_abort(transport, second.wait)
        assert server.connections == 1
    finally:
        done.set()


def test_an_abort_ends_a_request_that_is_still_connecting(deaf: int, connect: Connect) -> None:
    def connecting() -> None:
        while not _in_syn_sent(deaf):
            time.sleep(0.001)

    assert canceled_by_abort(connect(f"http://127.0.0.1:{deaf}"), connecting)


def _in_syn_sent(port: int) -> int:
    """Whether more connections to a port of this machine are being asked for than the fixture's own."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    sent = [line for line in lines if line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "02"]
    return len(sent) > 1


def test_an_abort_ends_a_tls_handshake(script: Any, connect: Connect) -> None:
    reached = threading.Event()
    done = threading.Event()

    def serve(line: Line) -> None:
        line.sock.recv(1)
        reached.set()
        done.wait()

    server = script(serve)
    try:
        assert canceled_by_abort(connect(server.url.replace("http", "https")), reached.wait)
    finally:
        done.set()


def test_an_abort_ends_a_wait_for_bandwidth(serve: Any, connect: Connect) -> None:
    asked = threading.Event()

    class Slow(Bandwidth):
        def reserve(self, size: int) -> float:
            asked.set()
            return super().reserve(size)

    slow = Slow(8, SystemClock())
    assert canceled_by_abort(connect(serve().url, bandwidth=[slow]), asked.wait, body=[bytes(1000)])


def test_handles_are_not_leaked(serve: Any, connect: Connect) -> None:
    server = serve()
    transport = connect(server.url)
    transport.send(PeerRequest("GET", "/"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        transport.send(PeerRequest("PUT", "/", body=[b"x"]))

    assert len(os.listdir("/proc/self/fd")) <= before + 1


# --- bandwidth


def test_both_directions_pass_every_limit_in_small_blocks(serve: Any, connect: Connect) -> None:
    answer = os.urandom(300_000)
    server = serve(lambda asked: Reply(answer))
    turnstiles = [Turnstile(), Turnstile()]
    received = connect(server.url, bandwidth=turnstiles).send(
        PeerRequest("PUT", "/", body=[bytes(200_000)] * 2)
    )

    assert received.body == answer
    assert server.asked[0].body == bytes(400_000)
    for turnstile in turnstiles:
        assert sum(turnstile.passed) == 700_000
        assert max(turnstile.passed) <= 64 * 1024


# --- TLS


def test_a_certificate_is_checked_with_the_configured_authorities(
    serve: Any, connect: Connect, certificate: Path, tmp_path: Path
) -> None:
    server = serve(tls=server_tls(certificate))
    other = make_certificate(tmp_path, "other")

    assert connect(server.url, verify=str(certificate)).send(PeerRequest("GET", "/")).body == b"{}"
    for verify in (True, str(other)):
        with pytest.raises(PeerUntrusted, match="certificate verify failed: ") as raised:
            connect(server.url, verify=verify).send(PeerRequest("GET", "/"))
        assert not raised.value.retryable
        assert isinstance(raised.value, PeerError)


# An address of the same server that is not in its certificate.
ELSEWHERE = "https://127.1"


def test_a_certificate_for_another_host_is_refused(serve: Any, connect: Connect, certificate: Path) -> None:
    server = serve(tls=server_tls(certificate))
    with pytest.raises(PeerUntrusted, match="mismatch"):
        connect(f"{ELSEWHERE}:{server.port}", verify=str(certificate)).send(PeerRequest("GET", "/"))


def test_without_verification_every_certificate_is_taken_without_a_warning(
    serve: Any, connect: Connect, certificate: Path
) -> None:
    server = serve(tls=server_tls(certificate))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport = connect(f"{ELSEWHERE}:{server.port}", verify=False)
        assert transport.send(PeerRequest("GET", "/")).body == b"{}"


def test_http_where_https_is_expected_is_hopeless(serve: Any, connect: Connect) -> None:
    with pytest.raises(PeerUntrusted, match="wrong version number"):
        connect(serve().url.replace("http", "https")).send(PeerRequest("GET", "/"))


def client_key(certificate: Path, password: str) -> Path:
    """The key of a PEM file, encrypted."""
    key = serialization.load_pem_private_key(certificate.read_bytes(), None)
    file = certificate.with_suffix(".key")
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
    )
    return file


def test_a_client_certificate_with_an_encrypted_key_is_shown_to_the_peer(
    serve: Any, connect: Connect, certificate: Path, tmp_path: Path
) -> None:
    client = make_certificate(tmp_path, "client")
    tls = server_tls(certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(client)
    server = serve(tls=tls)
    key = client_key(client, "swordfish")
    transport = connect(
        server.url,
        verify=str(certificate),
        certificate_file=str(client),
        certificate_key_file=str(key),
        certificate_key_password="swordfish",
    )

    assert transport.send(PeerRequest("GET", "/")).body == b"{}"
    with pytest.raises(PeerUntrusted, match="certificate required"):
        connect(server.url, verify=str(certificate)).send(PeerRequest("GET", "/"))


@pytest.mark.parametrize("password", ["", "marlin"])
def test_a_wrong_password_of_a_key_is_said_without_saying_it(
    connect: Connect, certificate: Path, password: str
) -> None:
    key = client_key(certificate, "swordfish")
    with pytest.raises(ConfigurationError, match="'far'") as raised:
        connect(
            "https://127.0.0.1",
            certificate_file=str(certificate),
            certificate_key_file=str(key),
            certificate_key_password=password,
        )

    assert "marlin" not in str(raised.value)


def test_authorities_that_cannot_be_read_are_named(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.pem.*no such file"):
        connect("https://127.0.0.1", verify=str(tmp_path / "missing.pem"))


def test_what_only_orthanc_can_do_is_refused(connect: Connect) -> None:
    with pytest.raises(ConfigurationError, match="PKCS#11"):
        connect("https://127.0.0.1", pkcs11=True)


# --- proxies


def forwarding(line: Line) -> None:
    """A proxy: answers plain requests itself, and opens tunnels."""
    while head := line.whole():
        method, target = head.split()[:2]
        if method != b"CONNECT":
            line.say(OK)
            continue
        host, _, port = target.decode().partition(":")
        line.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection((host, int(port))) as onward:
            while True:
                for ready in select.select([line.sock, onward], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    (onward if ready is line.sock else line.sock).sendall(data)


@pytest.mark.parametrize("spelling", ["127.0.0.1:{}", "http://me:secret@127.0.0.1:{}"])
def test_plain_requests_go_through_the_proxy(script: Any, connect: Connect, spelling: str) -> None:
    proxy = script(forwarding)
    transport = connect("http://peer.invalid:8042/x", proxy=spelling.format(proxy.port))
    transport.send(PeerRequest("PUT", "/1", body=[b"x"]))
    transport.send(PeerRequest("PUT", "/2", body=[b"x"]))

    assert [head.split()[1] for head in proxy.heads] == [
        b"http://peer.invalid:8042/x/1",
        b"http://peer.invalid:8042/x/2",
    ]
    assert proxy.connections == 1
    assert (b"Proxy-Authorization: Basic" in proxy.heads[0]) == ("secret" in spelling)


def test_encrypted_requests_go_through_a_tunnel(
    script: Any, serve: Any, connect: Connect, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE_UNREPEATABLE", 0.0)
    server = serve(tls=server_tls(certificate))
    proxy = script(forwarding)
    transport = connect(server.url, proxy=f"me:secret@127.0.0.1:{proxy.port}", verify=str(certificate))
    for method in ("PUT", "PUT", "POST"):
        transport.send(PeerRequest(method, "/", body=[b"x"]))

    assert len(server.asked) == 3
    # The POST did not trust the tunnel that had been used.
    assert [head.split()[0] for head in proxy.heads] == [b"CONNECT", b"CONNECT"]
    assert all(b"Proxy-Authorization: Basic" in head for head in proxy.heads)
    assert "proxy-authorization" not in server.asked[0].headers


def test_a_proxy_that_is_away_or_refuses_is_named_as_such(script: Any, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerUnreachable, match="through the proxy: connection refused") as raised:
        connect("http://peer.invalid", proxy=f"me:secret@127.0.0.1:{port}").send(PeerRequest("GET", "/"))
    assert "secret" not in str(raised.value)

    refusing = script(answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"))
    with pytest.raises(PeerUnreachable, match=r"through the proxy: .*407"):
        connect("https://peer.invalid", proxy=f"127.0.0.1:{refusing.port}").send(PeerRequest("GET", "/"))


# --- secrets


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://127.0.0.1", {"headers": {"X-Key": "secret\r\nX: y"}}),
        ("http://127.0.0.1", {"headers": {"X-\nKey": "secret"}}),
        ("http://me:secret@127.0.0.1:port", {}),
        ("http://me:secret@", {}),
        ("gopher://me:secret@127.0.0.1", {}),
    ],
)
def test_a_peer_that_cannot_be_used_is_named_without_its_secrets(
    connect: Connect, url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="'far'") as raised:
        connect(url, **options).send(PeerRequest("GET", "/"))

    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_no_secret_is_shown(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: None)
    transport = connect(server.url, username="me", password="secret", headers={"X-Key": "secret"})
    with pytest.raises(PeerUnreachable) as raised:
        transport.send(PeerRequest("GET", "/"))

    assert "secret" not in repr(transport) + repr(raised.value) + str(vars(raised.value))
