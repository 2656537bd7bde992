"""Version 1 of the protocol as a C++ peer sees it: golden requests and responses on a real Orthanc."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import uuid
import zlib
from typing import Any

import pytest

from tests.support.assertions import nothing_staged, refused
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_http import raw_request

pytestmark = pytest.mark.orthanc

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNKNOWN_ID = "00000000-00000000-00000000-00000000-00000000"


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> OrthancServer:
    return make_shared_server("a").start()


@pytest.fixture
def server(shared: OrthancServer) -> OrthancServer:
    """One Orthanc for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


@pytest.fixture
def files() -> list[bytes]:
    return list(small_instances(3))


def call(server: OrthancServer, method: str, path: str, body: Any = None, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    return server.request(method, path, data=data, headers=headers)


def described(server: OrthancServer, files: list[bytes]) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    """The files as a C++ sender describes them, and their bytes; none of them is stored afterwards."""
    stored = {answer["ID"]: data for answer, data in zip(server.upload_all(files), files, strict=True)}
    server.clear()
    listed = [
        {"ID": one, "Size": str(len(stored[one])), "MD5": hashlib.md5(stored[one]).hexdigest()}
        for one in sorted(stored)
    ]
    return listed, stored


def one_bucket(listed: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"ID": item["ID"], "Offset": "0", "Size": item["Size"]} for item in listed]


def create(
    server: OrthancServer,
    listed: list[dict[str, str]],
    buckets: list[Any],
    compression: str = "none",
    **headers: str,
) -> str:
    body = {"Compression": compression, "Instances": listed, "Buckets": buckets}
    answer = call(server, "POST", "transfers/push", body, **headers)
    assert answer.status_code == 200
    assert set(answer.json()) == {"ID", "Path"}
    assert answer.json()["Path"] == "/transfers/push/" + answer.json()["ID"]
    return str(answer.json()["Path"])


# -- Identification -----------------------------------------------------------------------------------


def test_the_plugin_is_among_the_plugins_of_orthanc(server: OrthancServer) -> None:
    plugins = server.get("plugins")
    assert "transfers" in plugins
    assert "python" in plugins


def test_the_plugin_describes_itself_as_1_7_or_later(server: OrthancServer) -> None:
    plugin = server.get("plugins/transfers")
    assert plugin["ID"] == "transfers"
    major, minor = (int(part) for part in plugin["Version"].split(".")[:2])
    assert major == 1
    assert minor >= 7
    assert plugin["ExtendsOrthancExplorer"] is True
    assert isinstance(plugin["Description"], str)


def test_other_plugins_are_still_described_by_orthanc(server: OrthancServer) -> None:
    assert server.get("plugins/python")["ID"] == "python"


# -- Lookup -------------------------------------------------------------------------------------------


def test_a_lookup_lists_sizes_and_md5s_in_order_of_identifier(
    server: OrthancServer, files: list[bytes]
) -> None:
    stored = {answer["ID"]: data for answer, data in zip(server.upload_all(files), files, strict=True)}
    study = server.get("studies")[0]
    answer = call(server, "POST", "transfers/lookup", [{"Level": "Study", "ID": study}])
    assert answer.status_code == 200
    found = answer.json()
    assert set(found) == {"Instances", "Originator", "CountInstances", "TotalSize", "TotalSizeMB"}
    assert found["Instances"] == [
        {"ID": one, "Size": str(len(stored[one])), "MD5": hashlib.md5(stored[one]).hexdigest()}
        for one in sorted(stored)
    ]
    assert found["CountInstances"] == 3
    assert found["TotalSize"] == str(sum(map(len, files)))
    assert found["TotalSizeMB"] == 0
    assert UUID.fullmatch(found["Originator"])


def test_a_lookup_takes_all_levels_in_any_spelling_and_counts_an_instance_once(
    server: OrthancServer, files: list[bytes]
) -> None:
    uploaded = server.upload(files[0])
    resources = [
        {"Level": "patients", "ID": uploaded["ParentPatient"]},
        {"Level": "STUDY", "ID": uploaded["ParentStudy"]},
        {"Level": "Series", "ID": uploaded["ParentSeries"]},
        {"Level": "Instance", "ID": uploaded["ID"]},
        {"Level": "image", "ID": uploaded["ID"]},
        {"Level": "Images", "ID": uploaded["ID"], "Type": "whatever"},
    ]
    answer = call(server, "POST", "transfers/lookup", resources)
    assert answer.status_code == 200
    assert answer.json()["CountInstances"] == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, 15),
        (b"", 400, 15),
        (b"{}", 400, 15),
        (b"[1]", 400, 15),
        (b'[{"Level": "Study"}]', 400, 15),
        (b'[{"ID": "x"}]', 400, 15),
        (b'[{"Level": "Planet", "ID": "x"}]', 400, 3),
        (b'[{"Level": "", "ID": "x"}]', 400, 3),
        (b'[{"Level": null, "ID": "x"}]', 400, 15),
        (b'[{"Level": "Study", "ID": 5}]', 400, 15),
        (b'[{"Level": "Study", "ID": ""}]', 404, 17),
        (b'[{"Level": "Study", "ID": "nope"}]', 404, 17),
        (b'[{"Level": "Study", "ID": "../../system"}]', 404, 17),
        (b'[{"Level": "Instance", "ID": "' + UNKNOWN_ID.encode() + b'"}]', 404, 17),
        (b"[" * 100000, 400, 15),
    ],
)
def test_a_bad_lookup_is_refused(server: OrthancServer, body: bytes, status: int, code: int) -> None:
    refused(call(server, "POST", "transfers/lookup", body), status, code)


def test_a_lookup_of_nothing_finds_nothing(server: OrthancServer) -> None:
    found = call(server, "POST", "transfers/lookup", []).json()
    del found["Originator"]
    assert found == {"Instances": [], "CountInstances": 0, "TotalSize": "0", "TotalSizeMB": 0}


# -- Chunks -------------------------------------------------------------------------------------------


def test_chunks_are_the_bytes_of_the_instances_laid_end_to_end(
    server: OrthancServer, files: list[bytes]
) -> None:
    identifiers = [answer["ID"] for answer in server.upload_all(files)]
    whole = b"".join(files)
    path = "transfers/chunks/" + ".".join(identifiers)

    def chunk(query: str) -> Any:
        return server.request("GET", path + query)

    assert chunk("").content == whole
    assert chunk("").headers["Content-Type"] == "application/octet-stream"
    assert chunk("?offset=0&size=0").content == whole
    assert chunk("?offset=100").content == whole[100:]
    assert chunk("?offset=100&size=12000&other=1").content == whole[100:12100]
    assert chunk(f"?offset={len(files[0])}&size=10").content == files[1][:10]
    assert chunk("?compression=none&size=1").content == whole[:1]
    assert chunk(f"?offset={len(whole) - 1}&size=1").content == whole[-1:]


def test_gzip_chunks_are_one_member_with_nothing_after_it(server: OrthancServer, files: list[bytes]) -> None:
    identifiers = [answer["ID"] for answer in server.upload_all(files)]
    answer = server.request(
        "GET", "transfers/chunks/" + ".".join(identifiers) + "?offset=7&size=20000&compression=gzip"
    )
    assert answer.headers["Content-Type"] == "application/gzip"
    expected = b"".join(files)[7:20007]
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert decoder.decompress(answer.content) == expected
    assert decoder.eof
    assert decoder.unused_data == b""
    # The decoder of C++ peers reads the size from the last four bytes.
    assert int.from_bytes(answer.content[-4:], "little") == len(expected)


def test_identifiers_behind_the_last_byte_asked_for_are_not_looked_at(
    server: OrthancServer, files: list[bytes]
) -> None:
    identifier = server.upload(files[0])["ID"]
    answer = server.request("GET", f"transfers/chunks/{identifier}.{UNKNOWN_ID}?size=100")
    assert answer.content == files[0][:100]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?compression=lzma", 400),
        ("?offset=-1", 400),
        ("?size=-1", 400),
        ("?size=x", 400),
        ("?offset=99999999999999999999999", 400),
        ("?offset=4294967296", 400),
        ("?size=99999999", 400),
        ("?offset=10&size=99999", 400),
    ],
)
def test_bad_arguments_of_chunks_are_refused(
    server: OrthancServer, files: list[bytes], query: str, status: int
) -> None:
    identifier = server.upload(files[0])["ID"]
    assert server.request("GET", f"transfers/chunks/{identifier}{query}").status_code == status


@pytest.mark.parametrize("identifiers", [UNKNOWN_ID, "...", "..", "a", UNKNOWN_ID.upper()])
def test_chunks_of_unknown_instances_are_not_found(server: OrthancServer, identifiers: str) -> None:
    assert server.request("GET", f"transfers/chunks/{identifiers}").status_code == 404


# -- Push ---------------------------------------------------------------------------------------------


# As the versions of the C++ plugin send them; None: no such header.
CONTENT_TYPES = [None, "application/x-www-form-urlencoded", "application/json", "application/octet-stream"]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_push_is_created_filled_and_committed(
    server: OrthancServer, files: list[bytes], compression: str, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    listed, stored = described(server, files)
    # As a C++ sender cuts them: a large instance in two, the small ones together, out of order.
    first, second, third = (item["ID"] for item in listed)
    half = len(stored[second]) // 2
    buckets = [
        [{"ID": second, "Offset": "0", "Size": str(half)}],
        [{"ID": second, "Offset": str(half), "Size": str(len(stored[second]) - half)}],
        [
            {"ID": first, "Offset": "0", "Size": str(len(stored[first]))},
            {"ID": third, "Offset": "0", "Size": str(len(stored[third]))},
        ],
    ]
    bodies = [stored[second][:half], stored[second][half:], stored[first] + stored[third]]
    if compression == "gzip":
        bodies = [gzip.compress(body) for body in bodies]
    path = create(server, listed, buckets, compression, **headers)
    for index in (2, 0, 1, 0):
        answer = call(server, "PUT", f"{path}/{index}", bodies[index], **headers)
        assert answer.status_code == 200
        assert answer.json() == {}
    assert server.instances() == []
    answer = call(server, "POST", f"{path}/commit", b"", **headers)
    assert answer.status_code == 200
    assert answer.json() == {}
    assert server.md5s() == {item["ID"]: item["MD5"] for item in listed}
    # A commit whose answer was lost is asked again, and gets the same one.
    assert call(server, "POST", f"{path}/commit", b"").status_code == 200
    assert call(server, "PUT", f"{path}/0", bodies[0]).status_code == 409
    assert nothing_staged(server)


def doubled(server: OrthancServer, method: str, path: str, body: bytes = b"") -> Any:
    """A request as cores before 1.11.3 make it for their plugins, which ``requests`` would put right."""
    assert path.startswith("/transfers/")
    status, received = raw_request(server, method, "/" + path, body)
    assert status == 200, received
    head, _, text = received.partition(b"\r\n\r\n")
    return text if b"octet-stream" in head else json.loads(text)


def test_a_second_slash_in_front_of_a_path_does_not_matter(server: OrthancServer, files: list[bytes]) -> None:
    listed, stored = described(server, files[:1])
    (name,) = stored
    message = {"Compression": "none", "Instances": listed, "Buckets": [one_bucket(listed)]}
    created = [
        doubled(server, "POST", "/transfers/push", json.dumps(message).encode())["Path"] for _ in range(2)
    ]
    assert doubled(server, "PUT", f"{created[0]}/0", files[0]) == {}
    assert doubled(server, "POST", f"{created[0]}/commit") == {}
    assert doubled(server, "DELETE", created[1]) == {}
    assert nothing_staged(server)
    (known,) = doubled(
        server, "POST", "/transfers/lookup", json.dumps([{"Level": "Instance", "ID": name}]).encode()
    )["Instances"]
    assert known == listed[0]
    assert doubled(server, "GET", f"/transfers/chunks/{name}?offset=1&size=9") == files[0][1:10]


def test_an_empty_instance_is_in_no_bucket_and_keeps_the_push_from_being_committed(
    server: OrthancServer, files: list[bytes]
) -> None:
    listed, _ = described(server, files[:1])
    empty = {"ID": UNKNOWN_ID, "Size": "0", "MD5": hashlib.md5(b"").hexdigest()}
    path = create(server, [empty, *listed], [one_bucket(listed)])
    assert call(server, "PUT", f"{path}/0", files[0]).status_code == 200
    answer = call(server, "POST", f"{path}/commit", b"")
    assert answer.status_code == 500
    assert UNKNOWN_ID in answer.json()["Details"]
    assert server.instances() == []
    assert nothing_staged(server)


def test_a_push_of_nothing_succeeds(server: OrthancServer) -> None:
    path = create(server, [], [])
    assert call(server, "POST", f"{path}/commit", b"").status_code == 200
    assert server.instances() == []


def test_the_last_of_two_instances_of_the_same_name_wins(server: OrthancServer, files: list[bytes]) -> None:
    listed, stored = described(server, files[:1])
    wrong = {**listed[0], "MD5": "0" * 32, "Size": "1"}
    path = create(server, [wrong, *listed], [one_bucket(listed)])
    assert call(server, "PUT", f"{path}/0", files[0]).status_code == 200
    assert call(server, "POST", f"{path}/commit", b"").status_code == 200
    assert server.instances() == list(stored)


def test_a_dropped_push_leaves_nothing(server: OrthancServer, files: list[bytes]) -> None:
    listed, _ = described(server, files[:1])
    path = create(server, listed, [one_bucket(listed)])
    call(server, "PUT", f"{path}/0", files[0])
    answer = call(server, "DELETE", path)
    assert answer.status_code == 200
    assert answer.json() == {}
    assert call(server, "PUT", f"{path}/0", files[0]).status_code == 404
    assert call(server, "POST", f"{path}/commit", b"").status_code == 404
    assert server.instances() == []
    assert nothing_staged(server)


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        b'{"Compression": "none", "Instances": []}',
        b'{"Compression": "none", "Buckets": []}',
        b'{"Instances": [], "Buckets": []}',
        b'{"Compression": "rar", "Instances": [], "Buckets": []}',
        b'{"Compression": 1, "Instances": [], "Buckets": []}',
        b'{"Compression": "none", "Instances": {}, "Buckets": []}',
        b'{"Compression": "none", "Instances": [{"ID": "a", "Size": 5, "MD5": "b"}], "Buckets": []}',
        b'{"Compression": "none", "Instances": [{"ID": "a", "Size": "-5", "MD5": "b"}], "Buckets": []}',
        b'{"Compression": "none", "Instances": [{"ID": "a", "Size": "x", "MD5": "b"}], "Buckets": []}',
        b'{"Compression": "none", "Instances": [], "Buckets": [[{"ID": "a", "Offset": 0, "Size": "1"}]]}',
    ],
)
def test_a_bad_creation_is_refused(server: OrthancServer, body: bytes) -> None:
    answer = call(server, "POST", "transfers/push", body)
    refused(answer, 400, 3 if b"rar" in body else 15)
    assert nothing_staged(server)


def test_bad_buckets_are_refused_and_lose_nothing(server: OrthancServer, files: list[bytes]) -> None:
    listed, stored = described(server, files[:1])
    one = listed[0]
    size = len(files[0])
    buckets = [
        one_bucket(listed),
        [{"ID": UNKNOWN_ID, "Offset": "0", "Size": "5"}],
        [{"ID": one["ID"], "Offset": str(size - 1), "Size": "5"}],
        [{"ID": one["ID"], "Offset": "9223372036854775807", "Size": "5"}],
    ]
    path = create(server, listed, buckets)
    refused(call(server, "PUT", f"{path}/1", b"12345"), 404, 17)
    for index in (2, 3, 4, 99999999999999999999999999):
        refused(call(server, "PUT", f"{path}/{index}", b"12345"), 400, 3)
    for body in (files[0][:-1], files[0] + b"x", b""):
        refused(call(server, "PUT", f"{path}/0", body), 500, 9)
    assert call(server, "PUT", f"{path}/x", b"").status_code == 404
    for method, unknown in (("PUT", "/0"), ("POST", "/commit"), ("DELETE", "")):
        refused(call(server, method, f"transfers/push/{uuid.uuid4()}{unknown}", b""), 404, 17)
    # None of that did harm.
    assert call(server, "PUT", f"{path}/0", files[0]).status_code == 200
    assert call(server, "POST", f"{path}/commit", b"").status_code == 200
    assert server.instances() == list(stored)


@pytest.mark.parametrize("kind", ["garbage", "truncated", "trailing", "two members", "bomb"])
def test_bad_gzip_is_refused_and_loses_nothing(server: OrthancServer, files: list[bytes], kind: str) -> None:
    listed, stored = described(server, files[:1])
    good = gzip.compress(files[0])
    bad = {
        "garbage": b"this is no gzip at all",
        "truncated": good[:-20],
        "trailing": good + b"\0\0",
        "two members": gzip.compress(files[0][:100]) + gzip.compress(files[0][100:]),
        "bomb": gzip.compress(bytes(100_000_000)),
    }[kind]
    path = create(server, listed, [one_bucket(listed)], "gzip")
    before = _peak_memory(server)
    answer = call(server, "PUT", f"{path}/0", bad)
    assert answer.status_code in (400, 500)
    assert answer.json()["Details"]
    assert _peak_memory(server) - before < 50_000_000
    assert call(server, "PUT", f"{path}/0", good).status_code == 200
    assert call(server, "POST", f"{path}/commit", b"").status_code == 200
    assert server.instances() == list(stored)


def test_a_wrong_md5_fails_the_commit_and_imports_nothing(server: OrthancServer, files: list[bytes]) -> None:
    listed, _ = described(server, files)
    listed[1] = {**listed[1], "MD5": "0" * 32}
    bucket = one_bucket(listed)
    stored = described(server, files)[1]
    path = create(server, listed, [bucket])
    assert (
        call(server, "PUT", f"{path}/0", b"".join(stored[item["ID"]] for item in listed)).status_code == 200
    )
    for _ in range(2):  # the transaction stays
        answer = call(server, "POST", f"{path}/commit", b"")
        assert listed[1]["ID"] in refused(answer, 500, 20)
    assert server.instances() == []
    assert call(server, "DELETE", path).status_code == 200
    assert nothing_staged(server)


def test_a_commit_with_a_bucket_missing_fails_and_can_be_asked_again(
    server: OrthancServer, files: list[bytes]
) -> None:
    listed, stored = described(server, files)
    buckets = [one_bucket(listed[:2]), one_bucket(listed[2:])]
    path = create(server, listed, buckets)
    assert (
        call(server, "PUT", f"{path}/0", b"".join(stored[item["ID"]] for item in listed[:2])).status_code
        == 200
    )
    assert call(server, "POST", f"{path}/commit", b"").status_code == 500
    assert server.instances() == []
    assert call(server, "PUT", f"{path}/1", stored[listed[2]["ID"]]).status_code == 200
    assert call(server, "POST", f"{path}/commit", b"").status_code == 200
    assert server.instances() == sorted(stored)


def test_a_file_that_is_no_dicom_undoes_the_whole_push(server: OrthancServer, files: list[bytes]) -> None:
    listed, stored = described(server, files)
    there = server.upload(stored[listed[0]["ID"]])["ID"]
    text = b"this is no DICOM file" * 100
    fake = {
        "ID": "f" * 8 + "-" + UNKNOWN_ID[9:],
        "Size": str(len(text)),
        "MD5": hashlib.md5(text).hexdigest(),
    }
    listed.append(fake)
    stored[fake["ID"]] = text
    path = create(server, listed, [one_bucket(listed)])
    assert (
        call(server, "PUT", f"{path}/0", b"".join(stored[item["ID"]] for item in listed)).status_code == 200
    )
    answer = call(server, "POST", f"{path}/commit", b"")
    assert answer.status_code == 500
    assert fake["ID"] in answer.json()["Details"]
    assert server.instances() == [there]  # what was there before stays, nothing new is
    assert nothing_staged(server)


# -- Metrics ------------------------------------------------------------------------------------------


def metrics(server: OrthancServer) -> dict[str, float]:
    """The values of our metrics; Orthanc writes each with the time at which it was set."""
    lines = server.request("GET", "tools/metrics-prometheus").text.splitlines()
    return {
        line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("orthanc_transfers_")
    }


def test_the_metrics_are_those_of_the_c_plugin_and_count_pushes(
    server: OrthancServer, files: list[bytes]
) -> None:
    before = metrics(server)
    assert set(before) == {
        "orthanc_transfers_used_cache_size",
        "orthanc_transfers_cache_hit_count",
        "orthanc_transfers_cache_miss_count",
        "orthanc_transfers_available_push_count",
        "orthanc_transfers_created_push_count",
        "orthanc_transfers_committed_push_count",
        "orthanc_transfers_aborted_push_count",
        "orthanc_transfers_push_total_received_bytes_count",
        "orthanc_transfers_push_total_time_spent_in_reception_ms",
        "orthanc_transfers_push_total_time_spent_in_commit_ms",
    }

    def grown(name: str) -> float:
        return metrics(server)[f"orthanc_transfers_{name}"] - before[f"orthanc_transfers_{name}"]

    listed, stored = described(server, files)
    path, dropped = (create(server, listed, [one_bucket(listed)]) for _ in range(2))
    assert grown("created_push_count") == 2
    assert grown("available_push_count") == -2
    body = b"".join(stored[item["ID"]] for item in listed)
    assert call(server, "PUT", f"{path}/0", body).status_code == 200
    assert call(server, "POST", f"{path}/commit", b"").status_code == 200
    assert call(server, "DELETE", dropped).status_code == 200
    assert grown("available_push_count") == 0
    assert grown("committed_push_count") == 1
    assert grown("aborted_push_count") == 1
    assert grown("push_total_received_bytes_count") == len(body)
    missed = grown("cache_miss_count")
    server.request("GET", "transfers/chunks/" + ".".join(stored))
    assert grown("cache_miss_count") == missed + len(stored)


# -- Methods, paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "transfers/send", "POST"),
        ("GET", "transfers/pull", "POST"),
        ("POST", "transfers/peers", "GET"),
        ("GET", "transfers/lookup", "POST"),
        ("POST", f"transfers/chunks/{UNKNOWN_ID}", "GET"),
        ("GET", "transfers/push", "POST"),
        ("GET", f"transfers/push/{UNKNOWN_ID}", "DELETE"),
        ("POST", f"transfers/push/{UNKNOWN_ID}/0", "PUT"),
        ("GET", f"transfers/push/{UNKNOWN_ID}/commit", "POST"),
        ("DELETE", "plugins", "GET"),
    ],
)
def test_another_method_is_not_allowed(server: OrthancServer, method: str, path: str, allowed: str) -> None:
    answer = call(server, method, path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    [
        "transfers",
        "transfers/other",
        "transfers/push/UPPER/0",
        f"transfers/push/{UNKNOWN_ID}/0/1",
        "transfers/push/..%2f..%2fx/0",
        "transfers/push/a b/0",
    ],
)
def test_other_paths_are_not_found(server: OrthancServer, path: str) -> None:
    assert call(server, "PUT", path, b"").status_code == 404


def _peak_memory(server: OrthancServer) -> int:
    """Peak resident memory of the server, in bytes."""
    with open(f"/proc/{server.pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_explorer_gets_the_button_beside_the_scripts_of_other_plugins(server: OrthancServer) -> None:
    script = server.request("GET", "plugins/explorer.js")
    assert script.status_code == 200
    assert "javascript" in script.headers["Content-Type"]
    assert "Transfers accelerator" in script.text
