"""What a ``RequestsTransport`` sends, what it makes of responses, and which errors it raises."""

from __future__ import annotations

import base64
import datetime
import email.utils
import gzip
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.errors import (
    ConfigurationError,
    PeerInvalidResponse,
    PeerStatus,
    PeerUnreachable,
    PeerUntrusted,
)
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net import sockets
from tests.contract.fake_transport import Reply
from tests.net.peers import Connect, Turnstile, server_tls
from tests.net.scripted import OK, Connection, ScriptedServer, answering
from tests.support.certificates import make_certificate

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


def test_cookies_of_a_response_are_sent_back_whatever_their_attributes(serve: Any, connect: Connect) -> None:
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


def test_the_last_of_several_cookies_is_that_of_the_response(serve: Any, connect: Connect) -> None:
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


def test_a_compressed_response_is_not_asked_for_and_not_unpacked(serve: Any, connect: Connect) -> None:
    packed = gzip.compress(b"a" * 1000)
    server = serve(lambda asked: Reply(packed, headers={"Content-Encoding": "gzip"}))

    assert connect(server.url).send(PeerRequest("GET", "/")).body == packed
    assert server.asked[0].headers["accept-encoding"] == "identity"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\nabcde"


@pytest.mark.parametrize("data", [CHUNKED, UNTIL_CLOSED])
def test_a_response_of_unknown_length_is_read_up_to_the_limit(
    script: Any, connect: Connect, data: bytes
) -> None:
    transport = connect(script(answering(data)).url)

    assert transport.send(PeerRequest("GET", "/")).body == b"abcde"
    assert transport.send(PeerRequest("GET", "/", limit=5)).body == b"abcde"
    with pytest.raises(PeerInvalidResponse):
        transport.send(PeerRequest("GET", "/", limit=4))


def test_a_response_that_announces_too_much_is_not_waited_for(script: Any, connect: Connect) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        connection.until_closed()

    with pytest.raises(PeerInvalidResponse, match="more than 10 bytes"):
        connect(script(serve).url).send(PeerRequest("GET", "/", limit=10))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", "in the middle of a response"),
        (CHUNKED[:-8], "in the middle of a response"),
        (b"", "closed before a response"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
    ],
)
def test_a_broken_response_says_what_was_wrong_and_may_be_tried_again(
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
    def serve_raw(connection: Connection) -> None:
        connection.request()
        text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.send(f"HTTP/1.1 503 Busy\r\n{text}Content-Length: 0\r\n\r\n".encode())

    with ScriptedServer([serve_raw]) as server, pytest.raises(PeerStatus) as raised:
        connect(server.url).send(PeerRequest("GET", "/"))
    return raised.value.retry_after


def test_a_response_that_comes_before_the_end_of_the_body_is_read(script: Any, connect: Connect) -> None:
    def serve(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.sock.shutdown(socket.SHUT_WR)
        connection.until_closed()

    with pytest.raises(PeerStatus) as raised:
        connect(script(serve).url).send(PeerRequest("PUT", "/", body=[b"x" * 5_000_000]))

    assert raised.value.peer_status == 413


# --- timeouts and failures to connect


def test_a_peer_that_does_not_respond_in_time_is_unreachable(script: Any, connect: Connect) -> None:
    transport = connect(script(Connection.until_closed).url)
    with pytest.raises(PeerUnreachable, match=r"timed out after 0\.05 s") as raised:
        transport.send(PeerRequest("GET", "/", timeout=0.05))

    assert raised.value.retryable


def test_the_timeout_of_the_peer_is_used_where_the_request_has_none(script: Any, connect: Connect) -> None:
    with pytest.raises(PeerUnreachable, match=r"timed out after 0\.1 s"):
        connect(script(Connection.until_closed).url, timeout=0.1, default_timeout=1000).send(
            PeerRequest("GET", "/")
        )


def test_a_slow_link_that_moves_does_not_time_out(script: Any, connect: Connect) -> None:
    def slow(connection: Connection) -> None:
        # Much less at once than the body, so that the sender must wait again and again.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.head()
        for _ in range(24):
            connection.take(500_000)
            time.sleep(0.1)
        connection.send(OK)

    transport = connect(script(slow).url)
    assert transport.send(PeerRequest("PUT", "/", body=[b"x" * 12_000_000], timeout=1.0)).body == b"{}"


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


def test_a_connection_that_does_not_come_about_says_so(
    deaf: int, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CONNECT_TIMEOUT", 0.1)
    with pytest.raises(PeerUnreachable, match=r"no connection after 0\.1 s"):
        connect(f"http://127.0.0.1:{deaf}").send(PeerRequest("GET", "/", timeout=1000))


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
