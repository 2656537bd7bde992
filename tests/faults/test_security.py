"""Hostile clients: without a password, with paths for names, with decompression bombs."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import zstandard

from orthanc_transfers.rest.http import RouteTable
from orthanc_transfers.rest.routes import routes
from tests.support import process
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import ENTRY, OrthancServer
from tests.support.raw_http import raw_request
from tests.support.raw_push import RawPush
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

MB = 1024 * 1024
UNKNOWN_ID = "00000000-00000000-00000000-00000000-00000000"
ID, NUMBER, RANGES = "([.0-9a-f-]+)", "([0-9]+)", "((?:/[0-9]+/[0-9]+)+)"

INSTANCES = 1000
"""Of MaxManifestInstances: memory is promised to so many."""

# Writes down whatever this Python does to the file system (PEP 578).
SCRIPT = f"""
import os
import runpy
import sys

journal = os.open({{journal!r}}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def hook(event, arguments):
    if event == "open" or event.split(".")[0] in ("os", "shutil", "glob", "tempfile", "subprocess", "sqlite3"):
        os.write(journal, repr((event, arguments)).encode() + b"\\n")

runpy.run_path({str(ENTRY)!r})
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> OrthancServer:
    folder = tmp_path_factory.mktemp("security")
    script = folder / "script.py"
    script.write_text(SCRIPT.replace("{journal!r}", repr(str(folder / "journal"))))
    configuration = {
        "OrthancPeers": {"a": ["http://127.0.0.1:1/"]},
        "Transfers": {
            "StagingDirectory": str(folder / "staging"),
            "MaxManifestInstances": INSTANCES,
            "MaxPushTransactions": 10_000,
            "MaxHttpRetries": 0,
            "MaxOutage": 0,
        },
    }
    server = make_shared_server("server", script=script, configuration=configuration)
    before = os.umask(0)  # nothing is private by itself
    try:
        return server.start()
    finally:
        os.umask(before)


@pytest.fixture
def server(shared: OrthancServer) -> OrthancServer:
    """One Orthanc for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


@pytest.fixture
def staging(server: OrthancServer) -> Path:
    return Path(server.configuration["Transfers"]["StagingDirectory"])


def table() -> RouteTable:
    """All routes, of which only patterns and methods are looked at."""
    return routes(*(Mock() for _ in inspect.signature(routes).parameters))


def requests(identifier: str = UNKNOWN_ID, number: str = "0") -> Iterator[tuple[str, str]]:
    """Method and path of a request to every route."""
    for route in table():
        # What a path may have or not, it has.
        pattern = re.sub(r"\(\?:([^()]*)\)\?", r"\1", route.pattern)
        path = (
            pattern.replace(ID, identifier)
            .replace(NUMBER, number)
            .replace(RANGES, f"/{number}/{number}")
            .replace("([0-9]{1,9})", number)
            .replace("([^/]+)", "none")
            .replace("(patients|studies|series|instances)", "studies")
        )
        assert "([" not in path
        for method in route.methods:
            yield method, path


# --- passwords


def test_every_route_needs_the_password(make_server: MakeServer) -> None:
    server = make_server("private", user="alice", password="wonderland").start()
    right, wrong, half = ("alice", "wonderland"), ("alice", "looking-glass"), ("alice", "")
    asked = list(requests())
    assert len(asked) >= 20
    for method, path in asked:
        assert raw_request(server, method, path)[0] == 401, path
        for login in (wrong, half, ("", ""), ("bob", "wonderland")):
            assert server.request(method, path, auth=login).status_code == 401, path
        assert server.request(method, path, auth=right, data=b"{}").status_code != 401, path


# --- nothing from the network names a file

EVIL = [
    "..",
    "../../../../../../../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "....//....//etc/passwd",
    "..\\..\\etc\\passwd",
    "lock",
    "reports",
    "-",
    ".",
    "0" * 32 + "/area",
    "a%00b",
    "%0d%0aX-Evil:%201",
    "~root",
    "$(id)",
    "0" * 5000,
    "..-" * 1000,
    "\u202e\u00e9",
    "0/0" + "/0/0" * 1000 + "/x",
]
IN_JSON = [*EVIL, "a\0b", "a\r\nX-Evil: 1", "", "\u0000", "x" * 100_000]


def tree(folder: Path) -> dict[str, int]:
    """All files below a folder, but for Orthanc's database and log, and the list of past transfers."""
    return {
        str(path): path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith(("index", "orthanc.log", "journal", "transfers.sqlite"))
    }


READ = {"/dev/urandom", "/proc/sys/net/ipv4/tcp_available_congestion_control"}


@contextmanager
def watched(server: OrthancServer, staging: Path) -> Iterator[None]:
    """Nothing is made or changed but in the staging directory, and nothing read but there and in Python's own."""
    folder = staging.parent
    journal = folder / "journal"
    before = tree(folder), tree(server.folder), sorted(os.listdir("/"))
    position = journal.stat().st_size
    yield
    own = str(staging)
    # Opened to be fsynced when something was imported (host/durability.py), and never for writing.
    index = server.folder / "storage"
    fsynced = {
        f"('open', ('{path}', None, {os.O_RDONLY | os.O_CLOEXEC}))" for path in (index, index / "index-wal")
    }
    # Looked through for folders that are another user's (host/storage_check.py).
    listed = f"('os.scandir', ('{index}',))"
    # Made and deleted before an import, with a name of our own (host/storage_check.py).
    probe = re.compile(re.escape(str(index)) + r"/\.transfers-[0-9a-f]{32}(/1)?")
    for line in journal.read_text(errors="replace")[position:].splitlines():
        for named in re.findall(r"'(/[^']*)'", line):
            absolute = os.path.normpath(named)
            read_only = (
                line.startswith("('open'") and "'r'" in line and absolute.endswith((".py", ".pyc", ".so"))
            )
            allowed = absolute.startswith(own) or absolute in READ or probe.fullmatch(absolute)
            assert allowed or read_only or line in fsynced or line == listed, line
            assert ".." not in named, line
            assert "passwd" not in named, line
    after = tree(folder), tree(server.folder), sorted(os.listdir("/"))
    for one, other in zip(before, after, strict=True):
        assert {name for name in one if own not in name} == {name for name in other if own not in name}


def test_no_identifier_in_an_address_reaches_the_file_system(server: OrthancServer, staging: Path) -> None:
    push = RawPush(server, 2, list(small_instances(1)))
    push.create()
    with watched(server, staging):
        kept = tree(staging)
        plain = set(requests())
        for evil in EVIL:
            for address in (requests(evil), requests(f"{UNKNOWN_ID}/{evil}"), requests(number=evil)):
                for method, path in address:
                    # What is no identifier of a job is Orthanc's own business: it logs it as it is.
                    if (method, path) not in plain and not path.startswith("/jobs/"):
                        status, said = raw_request(server, method, path, b"{}")
                        assert status in (0, 301, 307, 400, 404, 405, 413, 414, 415, 500), (path[:100], said)
                        assert b"root:" not in said
                        assert b"\nX-Evil" not in said
        assert tree(staging) == kept
    assert push.drop().status_code == 200


def bodies(evil: str) -> Iterator[tuple[str, Any]]:
    """Path and body of requests that name something everywhere."""
    resources = [{"Level": "Study", "ID": evil}, {"Level": "Instance", "ID": evil}]
    instances = [{"ID": evil, "Size": "3", "MD5": hashlib.md5(b"abc").hexdigest()}]
    buckets = [[{"ID": evil, "Offset": "0", "Size": "3"}]]
    for route in ("send", "pull"):
        yield f"/transfers/{route}", {"Resources": resources, "Peer": evil, "Compression": "none"}
        yield (
            f"/transfers/{route}",
            {"Resources": resources, "Peer": "a", "SenderTransferID": evil, "Originator": evil},
        )
        yield f"/transfers/{route}", {"Resources": resources, "Peer": "a", "Compression": evil}
        yield f"/transfers/{route}", {"Resources": [{"Level": evil, "ID": UNKNOWN_ID}], "Peer": "a"}
    yield "/transfers/lookup", resources
    yield "/transfers/push", {"Compression": "none", "Instances": instances, "Buckets": buckets}
    yield "/transfers/push", {"Compression": evil, "Instances": instances, "Buckets": buckets}
    yield "/transfers/v2/push", {"Token": evil, "Instances": instances}
    yield "/transfers/v2/push", {"Token": "0" * 32, "Instances": [{**instances[0], "MD5": evil}]}
    yield "/transfers/v2/push", {"Token": os.urandom(16).hex(), "Instances": instances}
    yield "/transfers/v2/chunks", {"Chunks": [[evil, 0, 3]], "Codecs": [evil, "none"]}
    yield "/transfers/v2/chunks", {"Chunks": [[evil, 0, 3]], "Codecs": [], "Compression": evil}


def test_no_identifier_in_a_message_reaches_the_file_system(server: OrthancServer, staging: Path) -> None:
    with watched(server, staging):
        for evil in IN_JSON:
            for path, body in bodies(evil):
                headers = {"sender-transfer-id": re.sub(r"[^!-~]", "?", evil)[:1000]}
                status, said = raw_request(server, "POST", path, json.dumps(body).encode(), headers)
                assert status in (200, 400, 404, 409, 413), (path, body, said)
                assert b"root:" not in said
                assert b"\nX-Evil" not in said
                if status == 200 and "push" in path:
                    push = json.loads(said.partition(b"\r\n\r\n")[2])["Path"]
                    range_ = "0" if "/v2/" not in push else "0/3"
                    raw_request(server, "PUT", f"{push}/{range_}", b"abc")
                    raw_request(server, "POST", f"{push}/commit")
        wait_until(lambda: not list(staging.glob("*/area")) or dropped(server), "the end of all pushes")
    assert server.instances() == []
    # Neither did any of it look like a further line of the log.
    assert not re.search(r"^X-Evil", server.log, re.MULTILINE)


def dropped(server: OrthancServer) -> bool:
    staging = Path(server.configuration["Transfers"]["StagingDirectory"])
    for path in staging.glob("*/area"):
        server.request("DELETE", f"transfers/v2/push/{path.parent.name}")
    return not list(staging.glob("*/area"))


# --- identifiers and private files


def test_the_identifier_of_a_push_cannot_be_guessed(server: OrthancServer) -> None:
    push = RawPush(server, 2, list(small_instances(1)))
    creation = push.creation()
    found = []
    for _ in range(40):
        # The same token each time: the identifier has nothing to do with it.
        answer = server.post("transfers/v2/push", creation)
        found.append(answer["ID"])
        server.delete(answer["Path"])
    for _ in range(40):
        push_1 = RawPush(server, 1, list(small_instances(1)))
        found.append(push_1.create().json()["ID"])
        push_1.drop()
    assert len(set(found)) == len(found)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in found)
    # 80 digits at each index: that fewer than 8 of 16 are among them happens once in many billions of runs.
    assert all(len(set(digits)) >= 8 for digits in zip(*found, strict=True))


def test_what_is_staged_can_be_read_by_its_owner_alone(server: OrthancServer, staging: Path) -> None:
    for version in (1, 2):
        half, whole = (RawPush(server, version, list(small_instances(2))) for _ in range(2))
        half.create()
        half.put(0)
        whole.create()
        for index in range(2):
            whole.put(index)
        whole.commit()
    wait_until(lambda: len(server.instances()) == 4, "the imports")
    wait_until(lambda: len(list((staging / "reports").iterdir())) >= 2, "the reports")
    seen = {path.relative_to(staging).parts[-1] for path in staging.rglob("*")}
    assert {"area", "manifest", "journal", "lock", "reports"} <= seen
    for path in (staging, *staging.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert dropped(server)


# --- memory


@contextmanager
def little_memory(server: OrthancServer, most: int) -> Iterator[None]:
    """Orthanc takes no more than so many further bytes meanwhile."""
    server.get("system")
    before = process.memory(server.pid)
    process.forget_peak(server.pid)
    yield
    assert process.peak_memory(server.pid) - before < most
    assert server.running


def zstd_claiming(size: int, content: bytes) -> bytes:
    """A frame whose header says another size than it has (RFC 8878, 3.1.1.1)."""
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    return frame[:4] + bytes([frame[4] | 0xC0]) + frame[5:6] + struct.pack("<Q", size) + frame[6:]


@pytest.mark.parametrize("size", [1000, 500 * MB, 2**31 - 1])
def test_a_gzip_bomb_of_version_1_needs_no_memory(server: OrthancServer, size: int) -> None:
    push = RawPush(server, 1, [])
    push.instances = [{"ID": UNKNOWN_ID, "Size": str(size), "MD5": "0" * 32}]
    answer = push.create()
    if answer.status_code == 507:
        pytest.skip(f"no disk space for this: {answer.json()['Details']}")
    bomb = gzip_of_zeros(700 * MB)
    with little_memory(server, 160 * MB):
        answer = server.request("PUT", f"{push.path}/0", data=bomb)
        assert answer.status_code in (400, 500)
    assert push.drop().status_code == 200


def test_a_bucket_of_version_1_that_is_larger_than_what_is_decoded_at_once_arrives(
    server: OrthancServer,
) -> None:
    size = 150 * MB
    push = RawPush(server, 1, [])
    push.instances = [{"ID": UNKNOWN_ID, "Size": str(size), "MD5": md5_of_zeros(size)}]
    assert push.create().status_code == 200
    with little_memory(server, 260 * MB):
        assert server.request("PUT", f"{push.path}/0", data=gzip_of_zeros(size)).status_code == 200
        # All its bytes are there, and right; only Orthanc does not take them for DICOM.
        said = push.commit()
    assert said.status_code == 500
    assert f"instance {UNKNOWN_ID} was refused, nothing was kept: Orthanc reports" in said.text


def gzip_of_zeros(size: int) -> bytes:
    return gzip.compress(bytes(size), 1)


def md5_of_zeros(size: int) -> str:
    return hashlib.md5(bytes(size)).hexdigest()


@pytest.mark.parametrize(
    ("codec", "body"),
    [
        ("gzip", gzip_of_zeros(300 * MB)),
        ("zstd", zstandard.ZstdCompressor().compress(bytes(300 * MB))),
        ("zstd", zstd_claiming(2**62, bytes(300 * MB))),
        ("zstd", zstd_claiming(1000, bytes(300 * MB))),
        ("split16+zstd", zstd_claiming(2**62, b"")),
        ("delta16+zstd", zstd_claiming(2**62, b"")),
    ],
    ids=["gzip", "zstd", "claims-more", "claims-less", "split16", "delta16"],
)
def test_a_bomb_of_version_2_needs_no_memory(server: OrthancServer, codec: str, body: bytes) -> None:
    push = RawPush(server, 2, list(small_instances(1)))
    push.create()
    with little_memory(server, 32 * MB):
        for size in (1000, push.size, 2**62, 10**18):
            answer = server.request(
                "PUT", f"{push.path}/0/{size}", data=body, headers={"transfers-codec": codec}
            )
            assert answer.status_code in (400, 413, 500)
    assert push.drop().status_code == 200


def json_bombs() -> dict[str, bytes]:
    values = 30_000_000
    return {
        "deep arrays": b"[" * values + b"]" * values,
        "deep objects": b'{"a":' * 5_000_000,
        "many arrays": b"[" + b"[]," * (values // 3) + b"[]]",
        "many numbers": b"[" + b"1.5," * (values // 4) + b"1]",
        "many objects": b'{"Instances":[' + b"{}," * (values // 3) + b"{}]}",
        "a long number": b'{"Priority":' + b"9" * values + b"}",
        "hidden depth": b'["]",' * 200_000 + b"1" + b"]" * 200_000,
        "not JSON": b"\x00" * values,
    }


JSON_ROUTES = [
    (method, path)
    for method, path in requests()
    # What a measurement sends is no JSON.
    if (method == "POST" and not path.startswith("/jobs/") and not re.search("commit|measure", path))
    or (method, path) == ("PUT", "/transfers/settings")
]


@pytest.mark.parametrize("name", json_bombs())
def test_json_of_any_size_and_depth_needs_little_memory(server: OrthancServer, name: str) -> None:
    bomb = json_bombs()[name]
    # Orthanc has the body itself, and a part of it while it grows.
    with little_memory(server, 4 * len(bomb) + 64 * MB):
        for method, path in JSON_ROUTES:
            answer = server.request(method, path, data=bomb, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 413), path


# --- numbers


HUGE = [
    "9223372036854775807",
    "9223372036854775808",
    "-1",
    "1e400",
    "0x10",
    "9" * 4000,
    "٣",
    "1_0",
    " 1",
    "+1",
]


@pytest.mark.parametrize("number", HUGE)
def test_numbers_that_are_none_or_beyond_everything_are_refused(
    server: OrthancServer, staging: Path, number: str
) -> None:
    kept = tree(staging)
    two = [{"ID": name, "Size": number, "MD5": "0" * 32} for name in ("one", "two")]
    for path, body in (
        ("transfers/push", {"Compression": "none", "Instances": two, "Buckets": []}),
        ("transfers/v2/push", {"Token": "0" * 32, "Instances": two}),
    ):
        assert server.request("POST", path, json=body).status_code == 400
    push = RawPush(server, 2, list(small_instances(1)))
    push.create()
    for path in (f"{push.path}/{number}/1", f"{push.path}/0/{number}", f"{push.path}/{number}/{number}"):
        assert raw_request(server, "PUT", path, b"x")[0] in (0, 400, 404, 413)
    for key in ("offset", "size"):
        status, _ = raw_request(server, "GET", f"/transfers/chunks/{UNKNOWN_ID}?{key}={number}")
        assert status in (0, 400, 404)
    assert raw_request(server, "GET", f"{push.path}?wait={number}")[0] in (0, 200, 400)
    assert push.drop().status_code == 200
    assert {name for name in tree(staging) if not name.endswith("/journal")} == set(kept)


@pytest.mark.parametrize(
    "chunk", [[UNKNOWN_ID, 0, 2**63], [UNKNOWN_ID, -1, 1], [UNKNOWN_ID, 0, 1e400], [UNKNOWN_ID, 2**64, 2**64]]
)
def test_chunks_beyond_everything_are_refused(server: OrthancServer, chunk: list[Any]) -> None:
    body = json.dumps({"Chunks": [chunk], "Codecs": ["none"]}).replace("Infinity", "1e400").encode()
    assert server.request("POST", "transfers/v2/chunks", data=body).status_code == 400


# --- headers


@pytest.mark.parametrize(
    "value", [b"a\nX-Evil: 1", b"a\rX-Evil: 1", b"a\0b", b"\xff\xfe", b"x" * 8000, b"a\r\n folded"]
)
def test_headers_with_anything_in_them_do_no_harm(server: OrthancServer, staging: Path, value: bytes) -> None:
    push = RawPush(server, 2, list(small_instances(1)))
    body = json.dumps(push.creation()).encode()
    for name in (
        "sender-transfer-id",
        "transfers-codec",
        "transfers-xxh3",
        "transfers-sender",
        "Cookie",
        "Content-Type",
    ):
        with watched(server, staging):
            status, said = raw_request(server, "POST", "/transfers/v2/push", body, {name: value})
            assert status in (0, 200, 400, 413, 414, 431), said
            assert b"\nX-Evil" not in said
    assert server.get("system")
    assert dropped(server)


@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r", "\u2028", "\0"])
def test_an_identifier_of_a_transfer_with_a_line_break_is_refused(server: OrthancServer, break_: str) -> None:
    body = {
        "Resources": [],
        "Peer": "a",
        "Compression": "none",
        "SenderTransferID": f"x{break_}X-Evil: 1",
    }
    for route in ("send", "pull"):
        assert server.request("POST", f"transfers/{route}", json=body).status_code == 400
