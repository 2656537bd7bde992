"""Our routes in a real Orthanc."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import threading
from typing import Any

import pytest

from tests.support.orthanc_client import StatusError
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

# What a handler raises, the status it must have, and the code of Orthanc in the body.
ERRORS = [
    ("BadRequest", 400, 3),
    ("BadFile", 400, 15),
    ("NotFound", 404, 17),
    ("UnknownTransaction", 404, 17),
    ("Conflict", 409, 6),
    ("TooLarge", 413, 4),
    ("WrongSize", 500, 9),
    ("Corrupted", 500, 20),
    ("ImportRefused", 500, 1),
    ("Busy", 503, 36),
    ("NoSpace", 507, 19),
    ("Canceled", 500, 37),
    ("HostError", 500, 17),
    ("PeerUnreachable", 500, 9),
]


def ask(
    host: OrthancServer, method: str, path: str, body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request, with nothing between it and the wire."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", host.http_port, timeout=30)
    ) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_a_get_request_comes_with_its_groups_query_and_headers(host: OrthancServer) -> None:
    seen = host.get("host/echo/abc/12?offset=5&size=7&size=8", headers={"Sender-Transfer-ID": "Me"})
    assert seen["method"] == "GET"
    assert seen["path"] == "/host/echo/abc/12"
    assert seen["groups"] == ["abc", "12"]
    assert seen["query"] == {"offset": "5", "size": "8"}
    assert seen["headers"]["sender-transfer-id"] == "Me"
    assert seen["size"] == 0


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_arrives_whole_and_read_only(host: OrthancServer, method: str) -> None:
    body = os.urandom(3_000_001)
    seen = host.request(method, "host/echo/a", data=body).json()
    assert seen["method"] == method
    assert (seen["size"], seen["md5"]) == (len(body), hashlib.md5(body).hexdigest())
    assert seen["readonly"] is True


def test_an_empty_body_is_empty(host: OrthancServer) -> None:
    assert host.post("host/echo/a", b"")["size"] == 0


def test_delete_is_served(host: OrthancServer) -> None:
    assert host.delete("host/echo/a")["method"] == "DELETE"


def test_a_path_with_a_doubled_slash_in_front_is_the_same_path(host: OrthancServer) -> None:
    status, _, body = ask(host, "POST", "//host/echo/abc", b"x")
    assert status == 200
    assert json.loads(body)["groups"] == ["abc", ""]


def test_a_handler_is_told_when_its_response_is_written(host: OrthancServer) -> None:
    assert ask(host, "GET", "/host/written")[2] == b"0"
    wait_until(lambda: int(ask(host, "GET", "/host/written")[2]) > 1, "the first ones are written")


def test_a_wrong_method_is_told_the_right_ones(host: OrthancServer) -> None:
    answer = host.request("DELETE", "host/two-methods")
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "PUT"}


def test_headers_content_type_and_bytes_are_answered_as_given(host: OrthancServer) -> None:
    answer = host.request("GET", "host/headers")
    assert answer.content == b"ytes"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert (answer.headers["x-one"], answer.headers["x-two"]) == ("1", "zwei")


@pytest.mark.parametrize(("error", "status", "code"), ERRORS)
def test_an_error_is_answered_with_its_status_and_orthancs_json(
    host: OrthancServer, error: str, status: int, code: int
) -> None:
    answered, _, body = ask(host, "GET", f"/host/errors/{error}")
    said = json.loads(body)
    assert answered == status
    assert set(said) == {
        "Details",
        "HttpError",
        "HttpStatus",
        "Message",
        "Method",
        "OrthancError",
        "OrthancStatus",
        "Uri",
    }
    assert (said["Details"], said["HttpStatus"], said["OrthancStatus"]) == ("a sentence", status, code)
    assert (said["Method"], said["Uri"]) == ("GET", f"/host/errors/{error}")


def test_who_must_wait_is_told_how_long(host: OrthancServer) -> None:
    _, headers, _ = ask(host, "GET", "/host/errors/Busy")
    assert headers["Retry-After"] == "5"


def test_a_mistake_in_a_handler_is_answered_by_500_and_logged_once_with_its_traceback(
    host: OrthancServer,
) -> None:
    with pytest.raises(StatusError, match="a mistake in a handler") as raised:
        host.get("host/mistake")
    assert raised.value.status == 500
    assert host.log.count("ValueError: a mistake in a handler") == 1
    assert "in fail" in host.log


def test_a_client_that_reads_slowly_keeps_no_other_waiting(host: OrthancServer) -> None:
    reader = _SlowReader(host, rate=100_000)
    with reader:
        for _ in range(50):
            assert host.get("host/echo/a")["method"] == "GET"
        # 16 MB at 100 KB/s take minutes: had the others waited for that, it would be over.
        assert reader.is_reading
        assert 0 < reader.received < 16 << 20


def test_a_client_that_disconnects_during_its_response_costs_nothing(host: OrthancServer) -> None:
    with _SlowReader(host, rate=100_000):
        pass
    assert host.get("host/echo/a")["method"] == "GET"
    assert len(host.download("host/large")) == 16 << 20


class _SlowReader:
    """Reads ``/host/large`` at so many bytes a second, in a thread, until left."""

    def __init__(self, host: OrthancServer, rate: int) -> None:
        self.received = 0
        self._rate = rate
        self._first = threading.Event()
        self._stop = threading.Event()
        self._socket = socket.socket()
        # A small window, so that the rest stays with the server.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._socket.connect(("127.0.0.1", host.http_port))
        self._thread = threading.Thread(target=self._read, daemon=True)

    @property
    def is_reading(self) -> bool:
        return self._thread.is_alive()

    def _read(self) -> None:
        while not self._stop.is_set():
            data = self._socket.recv(8192)
            if not data:
                return
            self.received += len(data)
            self._first.set()
            self._stop.wait(len(data) / self._rate)

    def __enter__(self) -> _SlowReader:
        self._socket.sendall(b"GET /host/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._thread.start()
        assert self._first.wait(30)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()
