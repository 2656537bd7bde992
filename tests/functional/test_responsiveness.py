"""A slow client, or a large commit, delays no other client."""

from __future__ import annotations

import hashlib
import secrets
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.dicom_data import multi_frame, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

MB = 1024 * 1024
REQUESTS = 50

MEDIAN = 0.020
"""Seconds: the most that the middle one of many requests may take meanwhile; or three times what it takes without."""

ATTEMPTS = 3
"""The best of a few counts: the machine may be doing something else."""

INSTANCES = 400


@pytest.fixture
def server(make_server: MakeServer) -> OrthancServer:
    return make_server("a", configuration={"Transfers": {"CommitThreadsCount": 1}}).start()


def median(server: OrthancServer) -> float:
    """Seconds of one of many requests, one after the other."""
    times = []
    for _ in range(REQUESTS):
        begin = time.perf_counter()
        assert server.get("transfers/peers") == {}
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def longest(server: OrthancServer) -> float:
    """``MEDIAN``, or more on a machine that is busy or slow; to be asked while the server has nothing else to do."""
    return max(MEDIAN, 3 * median(server))


def assert_responsive(server: OrthancServer, most: float, busy: Callable[[], bool]) -> None:
    """The requests are quick, and ``busy`` still after the last of them."""
    found: list[float] = []
    while len(found) < ATTEMPTS:
        found.append(median(server))
        assert busy()
        if found[-1] < most:
            return
    pytest.fail(too_slow(found))


def too_slow(found: list[float]) -> str:
    return f"medians of {[round(one * 1000, 1) for one in found]} ms"


class SlowReader(threading.Thread):
    """Reads the answer to a GET at 100 KB a second, until it is told to stop."""

    def __init__(self, server: OrthancServer, path: str) -> None:
        super().__init__(daemon=True)
        self.received = 0
        self.head = b""
        self._stop_now = threading.Event()
        self._socket = socket.socket()
        # A small window: otherwise the kernel takes megabytes at once.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self._socket.connect(("127.0.0.1", server.http_port))
        self._socket.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())

    def run(self) -> None:
        with self._socket:
            # Ten times a second, which is what makes it slow.
            while not self._stop_now.wait(0.1):
                data = self._socket.recv(10 * 1024)
                self.head = self.head or data[:200]
                self.received += len(data)
                if not data:
                    return

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


@contextmanager
def read_slowly(server: OrthancServer, path: str) -> Iterator[SlowReader]:
    reader = SlowReader(server, path)
    reader.start()
    wait_until(lambda: reader.received > 0, "the answer begins")
    try:
        yield reader
    finally:
        reader.stop()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_slow_reader_of_chunks_delays_no_other_client(server: OrthancServer, compression: str) -> None:
    stored = server.upload(multi_frame(40 * MB))
    most = longest(server)
    with read_slowly(server, f"transfers/chunks/{stored['ID']}?compression={compression}") as reader:
        assert b" 200 OK" in reader.head
        assert_responsive(server, most, busy=lambda: reader.is_alive() and reader.received < 8 * MB)


def test_several_slow_readers_at_once_delay_no_other_client(server: OrthancServer) -> None:
    path = f"transfers/chunks/{server.upload(multi_frame(16 * MB))['ID']}"
    most = longest(server)
    with (
        read_slowly(server, path) as one,
        read_slowly(server, path) as two,
        read_slowly(server, path) as three,
    ):
        readers = (one, two, three)
        assert_responsive(server, most, busy=lambda: all(reader.is_alive() for reader in readers))


def test_a_long_commit_delays_no_other_client(server: OrthancServer) -> None:
    files = list(small_instances(INSTANCES))
    stored = {item["ID"]: data for item, data in zip(server.upload_all(files), files, strict=True)}
    listed = [
        {"ID": name, "Size": str(len(stored[name])), "MD5": hashlib.md5(stored[name]).hexdigest()}
        for name in sorted(stored)
    ]
    body = b"".join(stored[name] for name in sorted(stored))
    most = longest(server)
    found: list[float] = []
    while not found or found[-1] >= most:
        assert len(found) < ATTEMPTS, too_slow(found)
        server.clear()
        path = server.post("transfers/v2/push", {"Token": secrets.token_hex(16), "Instances": listed})["Path"]
        server.put(f"{path}/0/{len(body)}", body)
        assert server.post(f"{path}/commit")["State"] == "committing"
        took = median(server)
        # A time after the end of the commit would say nothing.
        found.append(took if server.get(path)["State"] == "committing" else float("inf"))
        wait_until(lambda path=path: server.get(path)["State"] != "committing", "the commit ends")
        assert server.get(path)["State"] == "committed"
        assert server.instances() == sorted(stored)
