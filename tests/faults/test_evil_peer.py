"""A hostile peer: the job fails with one sentence, and nothing else happens."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import zstandard

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.framing import frame_head
from tests.support import process
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

MB = 1024 * 1024
UNKNOWN_ID = "00000000-00000000-00000000-00000000-00000000"
CAPABILITIES = {
    "Protocols": [1, 2],
    "Version": "1.8.0",
    "Originator": "evil",
    "Codecs": ["none", "zstd"],
    "MaxBodySize": 64 * MB,
}


class EvilPeer:
    """Answers by method and path as ``answers`` says (bytes, or JSON), else by 404; notes what it is asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        """First lines and headers of the requests."""
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                peer.asked.append(f"{self.raw_requestline.decode('latin-1')}{self.headers}")
                self.rfile.read(int(self.headers.get("content-length", 0)))
                answer = peer.answers.get(f"{self.command} {self.path.partition('?')[0]}")
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(404 if answer is None else 200)
                for name, value in {**peer.headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def evil() -> Iterator[EvilPeer]:
    peer = EvilPeer()
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer, evil: EvilPeer) -> OrthancServer:
    """With the peer, and one study."""
    server = make_shared_server(
        "server",
        configuration={
            "OrthancPeers": {"evil": [evil.url]},
            "Transfers": {"MaxHttpRetries": 0, "MaxOutage": 0, "MaxManifestInstances": 1000},
        },
    ).start()
    server.upload_all(small_instances(2))
    return server


@pytest.fixture(autouse=True)
def nothing_asked(evil: EvilPeer) -> None:
    evil.asked.clear()
    evil.headers = {}
    evil.answers = {"GET /transfers/capabilities": CAPABILITIES, "GET /plugins": ["transfers"]}


def failure(server: OrthancServer, kind: str) -> str:
    resources = [resource("Instance", one) for one in server.instances()]
    job = server.wait_for_job(
        server.post(f"transfers/{kind}", {"Resources": resources, "Peer": "evil"})["ID"]
    )
    assert job["State"] == "Failure", job
    said: str = job["Content"]["Error"]
    assert "internal error" not in said
    assert "\n" not in said
    return said


PATHS = [
    "/x HTTP/1.1\r\nX-Evil: 1\r\n\r\nDELETE /patients HTTP/1.1",
    "/x\r\nX-Evil: 1",
    "/x y",
    "/\0",
    "http://127.0.0.1:1/elsewhere",
    "//127.0.0.1:1/elsewhere",
    "@127.0.0.1:1/",
    "../../..",
    "",
    "/é\u202e",
    "/" + "x" * 100_000,
]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("path", PATHS)
def test_the_path_of_a_push_smuggles_nothing_and_leads_nowhere_else(
    server: OrthancServer, evil: EvilPeer, path: str, version: int
) -> None:
    if version == 1:
        evil.answers["GET /transfers/capabilities"] = {}
        evil.answers["POST /transfers/push"] = {"ID": UNKNOWN_ID, "Path": path}
    else:
        missing = [[0, 100]]
        evil.answers["POST /transfers/v2/push"] = {
            "ID": UNKNOWN_ID,
            "Path": path,
            "State": "receiving",
            "Missing": missing,
        }
    failure(server, "send")
    assert len(evil.asked) >= 2
    for asked in evil.asked:
        assert "\nX-Evil" not in asked
        assert not asked.startswith("DELETE /patients")
        assert "elsewhere" not in asked or asked.split(" ")[1].startswith("/")


@pytest.mark.parametrize("cookie", ["a=b\tc; Path=/", "a=" + "x" * 7000, "\x01=\x02", "=", ";;;"])
def test_cookies_of_any_kind_go_back_or_not_but_break_nothing(
    server: OrthancServer, evil: EvilPeer, cookie: str
) -> None:
    evil.headers = {"Set-Cookie": cookie}
    evil.answers["POST /transfers/v2/push"] = {
        "ID": UNKNOWN_ID,
        "Path": "/p",
        "State": "receiving",
        "Missing": [[0, 100]],
    }
    failure(server, "send")


def instances(size: str, count: int = 3) -> list[dict[str, str]]:
    return [
        {"ID": f"{number:08x}" + UNKNOWN_ID[8:], "Size": size, "MD5": "0" * 32} for number in range(count)
    ]


NONSENSE: dict[str, Any] = {
    "sizes beyond everything": {"Originator": "x", "Instances": instances(str(2**63 - 1))},
    "more than the disk has": {"Originator": "x", "Instances": instances(str(2**61), 1)},
    "too many instances": {"Originator": "x", "Instances": instances("1", 1001)},
    "names that are paths": {
        "Originator": "x",
        "Instances": [{"ID": "../../x", "Size": "3", "MD5": "0" * 32}],
    },
    "deep": b"[" * 10_000_000,
    "many values": b"[" + b"[]," * 20_000_000 + b"[]]",
    "hidden depth": b'["]",' * 200_000 + b"1" + b"]" * 200_000,
    "text": b"<html>",
    "another type": [],
    "half a pair": b'{"Originator":"\\ud800","Instances":[]}',
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_list_of_instances_that_makes_no_sense_fails_a_pull_without_taking_memory(
    server: OrthancServer, evil: EvilPeer, name: str
) -> None:
    evil.answers["POST /transfers/lookup"] = NONSENSE[name]
    evil.answers["POST /transfers/v2/chunks"] = bytes(3)
    before = process.memory(server.pid)
    process.forget_peak(server.pid)
    failure(server, "pull")
    assert process.peak_memory(server.pid) - before < 200 * MB
    staging = Path(server.configuration["StorageDirectory"]) / "Transfers"
    # Where a file was begun, it is kept for another attempt.
    assert len(list(staging.glob("*/area"))) <= 1


CARRYING: dict[str, bytes] = {
    "a bomb": frame_head({"Originator": "x", "Instances": instances("4000", 1)}, compress=False)
    + zstandard.compress(bytes(64 * MB)),
    "a list that is one": struct.pack(">I", 30_000) + zstandard.compress(bytes(64 * MB)),
    "other bytes": frame_head({"Originator": "x", "Instances": instances("4000")}, compress=False)
    + bytes(12_000),
    "more than fits": frame_head({"Originator": "x", "Instances": instances("900000000", 1)}, compress=False)
    + zstandard.compress(bytes(64 * MB)),
    "nothing": b"",
}


@pytest.mark.parametrize("codec", ["none", "zstd", "of tomorrow"])
@pytest.mark.parametrize("name", CARRYING)
def test_bytes_that_come_with_a_list_and_make_no_sense_fail_a_pull_without_taking_memory(
    server: OrthancServer, evil: EvilPeer, name: str, codec: str
) -> None:
    evil.answers["GET /transfers/capabilities"] = {**CAPABILITIES, "WholePulls": True}
    evil.answers["POST /transfers/lookup"] = CARRYING[name]
    evil.headers = {"transfers-codec": codec, "transfers-xxh3": xxh3([CARRYING[name]])}
    before = process.memory(server.pid)
    process.forget_peak(server.pid)
    job = server.wait_for_job(server.pull([resource("Study", UNKNOWN_ID)], "evil")["ID"])
    assert job["State"] == "Failure", job
    assert "evil" in job["Content"]["Error"]
    assert any("transfers-whole" in asked for asked in evil.asked)
    assert process.peak_memory(server.pid) - before < 100 * MB


def test_what_a_peer_says_of_its_errors_is_one_line_of_the_log(server: OrthancServer, evil: EvilPeer) -> None:
    evil.answers["POST /transfers/v2/push"] = {
        "ID": UNKNOWN_ID,
        "Path": "/p",
        "State": "failed",
        "Missing": [],
        "Error": "a mistake\nE9999 X-Evil: all patients were deleted\u2028X-Evil",
    }
    resources = [resource("Instance", one) for one in server.instances()]
    job = server.wait_for_job(server.send(resources, "evil")["ID"])
    assert "a mistake" in job["Content"]["Error"]
    wait_until(lambda: "a mistake" in server.log, "the log")
    assert not [line for line in server.log.splitlines() if line.startswith(("E9999", "X-Evil"))]
