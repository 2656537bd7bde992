"""Version 2 of the protocol as a peer sees it: golden requests and responses on a real Orthanc."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import requests
import xxhash
import zstandard

from tests.support.assertions import nothing_staged, refused
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_push import RawPush
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

UNKNOWN_ID = "00000000-00000000-00000000-00000000-00000000"
MB = 1024 * 1024
STATUS = {"ID", "Path", "State", "Missing", "Imported", "Total", "AlreadyStored", "AlreadyStoredSize"}


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> OrthancServer:
    return make_shared_server("a", configuration={"Transfers": {"MaxManifestInstances": 100}}).start()


@pytest.fixture
def server(shared: OrthancServer) -> OrthancServer:
    """One Orthanc for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


@pytest.fixture
def push(server: OrthancServer) -> Iterator[RawPush]:
    """Three instances, of which nothing is known yet."""
    push = RawPush(server, 2, list(small_instances(3)))
    yield push
    if push.path:
        push.drop()


def split16(data: bytes) -> bytes:
    return data[0::2] + data[1::2]


def delta16(data: bytes) -> bytes:
    words = [0, *(one for (one,) in struct.iter_unpack("<H", data[: len(data) // 2 * 2]))]
    differences = [(after - before + 0x8000) % 0x10000 - 0x8000 for before, after in pairwise(words)]
    coded = [2 * one if one >= 0 else -2 * one - 1 for one in differences]
    rest = data[-1:] if len(data) % 2 else b""
    return bytes(one & 255 for one in coded) + bytes(one >> 8 for one in coded) + rest


ENCODERS = {
    "none": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "split16+zstd": lambda data: zstandard.compress(split16(data)),
    "delta16+zstd": lambda data: zstandard.compress(delta16(data)),
}


def put(push: RawPush, ranges: str, body: bytes, codec: str = "none", **headers: str) -> requests.Response:
    checksum = {"transfers-xxh3": xxhash.xxh3_64_hexdigest(body)}
    sent = {"transfers-codec": codec, **checksum, **headers}
    return push.server.request("PUT", f"{push.path}/{ranges}", data=body, headers=sent)


def committed(push: RawPush) -> dict[str, Any]:
    assert push.commit().status_code == 200
    status: dict[str, Any] = wait_until(
        lambda: (said := push.status())["State"] in ("committed", "failed") and said, "the end of the commit"
    )
    return status


# -- Capabilities -------------------------------------------------------------------------------------


def test_capabilities_say_what_is_spoken(server: OrthancServer) -> None:
    said = server.get("transfers/capabilities")
    assert said == {
        "Protocols": [1, 2],
        "Version": server.get("plugins/transfers")["Version"],
        "Originator": server.post("transfers/lookup", [])["Originator"],
        "Codecs": ["none", "gzip", "zstd", "split16+zstd", "delta16+zstd"],
        "MaxBodySize": 64 * MB,
        "Growing": True,
        "Parts": True,
        "Whole": True,
        "WholePulls": True,
        "Measurable": True,
        "Transcodes": True,
        "Headers": [],
        "Extras": [],
        "MaxConnections": 25,
    }


def test_capabilities_say_which_headers_came_and_send_the_same(server: OrthancServer) -> None:
    headers = {
        "Transfers-Codec": "none",
        "transfers-first": "0",
        "transfers-xxh3": "0",
        "transfers-other": "0",
    }
    answer = server.request("GET", "transfers/capabilities", headers=headers)
    assert answer.json()["Headers"] == ["transfers-codec", "transfers-first", "transfers-xxh3"]
    assert answer.headers["transfers-codec"] == "none"
    assert answer.headers["transfers-first"] == "0"
    assert answer.headers["transfers-xxh3"] == "2d06800538d394c2", "of no bytes"


# -- Push ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ENCODERS)
def test_a_push_is_created_filled_and_committed(push: RawPush, codec: str) -> None:
    created = push.create().json()
    assert set(created) == STATUS
    assert re.fullmatch("[0-9a-f]+", created["ID"])
    assert created["Path"] == f"/transfers/v2/push/{created['ID']}"
    assert (created["State"], created["Missing"]) == ("receiving", [[0, push.size]])
    assert (created["Imported"], created["Total"]) == (0, 3)
    assert (created["AlreadyStored"], created["AlreadyStoredSize"]) == (0, "0")

    # Ranges come in any order, wherever they are cut, and may come again.
    area = b"".join(push.files)
    cuts = [0, 5, 10_000, 10_001, len(area)]
    for start, stop in [(0, 10_000), *pairwise(cuts)][::-1]:
        answer = put(push, f"{start}/{stop - start}", ENCODERS[codec](area[start:stop]), codec)
        assert (answer.status_code, answer.json()) == (200, {})
    assert push.status()["Missing"] == []
    assert push.server.instances() == []

    status = committed(push)
    assert set(status) == STATUS | {"Report"}
    assert (status["State"], status["Imported"], status["Total"]) == ("committed", 3, 3)
    assert status["Report"] == {"Stored": 3, "AlreadyStored": 0, "FilteredOut": 0}
    assert push.server.md5s() == {one["ID"]: one["MD5"] for one in push.instances}
    assert nothing_staged(push.server)
    # A sender that lost the response may ask again, for all of it.
    assert push.commit().json() == status
    assert push.drop().json() == {}
    assert push.status() == status


def test_a_long_manifest_may_come_encoded_and_be_answered_so(server: OrthancServer) -> None:
    files = list(small_instances(100))
    push = RawPush(server, 2, files)
    creation = zstandard.compress(json.dumps(push.creation()).encode())
    for body, headers, expected in (
        (creation, {"content-encoding": "zstd"}, 200),
        (creation[:-1], {"content-encoding": "zstd"}, 400),
        (creation, {"content-encoding": "br"}, 400),
        (zstandard.compress(bytes(64 * MB + 1)), {"content-encoding": "zstd"}, 413),
    ):
        answer = server.request("POST", "transfers/v2/push", data=body, headers=headers)
        assert answer.status_code == expected, answer.text
        if expected == 200:
            push.path = answer.json()["Path"]
    for index in range(100):
        assert push.put(index).status_code == 200
    assert committed(push)["State"] == "committed"

    patients = [{"Level": "Patient", "ID": one} for one in server.get("patients")]
    answers = {}
    for accepted in ("identity", "gzip, zstd", "zstd"):
        headers = {"accept-encoding": accepted}
        answer = server.request("POST", "transfers/lookup", json=patients, headers=headers, stream=True)
        encoding = answer.headers.get("content-encoding")
        # Orthanc itself knows gzip, and may encode with it what is not encoded yet.
        assert encoding in {"identity": {None}, "zstd": {"zstd"}, "gzip, zstd": {None, "gzip"}}[accepted]
        body = answer.raw.read(decode_content=False)
        answers[accepted] = gzip.decompress(body) if encoding == "gzip" else body
    assert answers["identity"] == answers["gzip, zstd"] == zstandard.decompress(answers["zstd"])
    assert len(answers["zstd"]) < 0.6 * len(answers["identity"])
    found = json.loads(answers["identity"])["Instances"]
    assert sorted(found, key=lambda one: one["ID"]) == push.instances


def test_what_is_not_stored_can_be_left_out_of_a_lookup(server: OrthancServer) -> None:
    stored = server.upload_all(small_instances(2))
    wanted = [{"Level": "Study", "ID": UNKNOWN_ID}, {"Level": "Study", "ID": stored[0]["ParentStudy"]}]
    assert server.request("POST", "transfers/lookup", json=wanted).status_code == 404
    answer = server.request("POST", "transfers/lookup", json=wanted, headers={"transfers-stored": "1"})
    assert {one["ID"] for one in answer.json()["Instances"]} == {one["ID"] for one in stored}
    answer = server.request("POST", "transfers/lookup", json=wanted[:1], headers={"transfers-stored": "1"})
    assert answer.json()["Instances"] == []


def test_several_ranges_travel_in_one_request(push: RawPush) -> None:
    push.create()
    area = b"".join(push.files)
    body = area[100:200] + area[:50] + area[300:]
    answer = put(push, f"100/100/0/50/300/{len(area) - 300}", zstandard.compress(body), "zstd")
    assert answer.status_code == 200
    assert push.status()["Missing"] == [[50, 100], [200, 300]]
    assert put(push, "50/50/200/100", area[50:100] + area[200:300]).status_code == 200
    assert committed(push)["State"] == "committed"


def test_what_is_there_already_is_not_missing(push: RawPush) -> None:
    push.server.upload(push.files[1])
    created = push.create().json()
    first, second = (len(data) for data in push.files[:2])
    assert created["Missing"] == [[0, first], [first + second, push.size]]
    assert (created["AlreadyStored"], created["AlreadyStoredSize"]) == (1, str(second))
    for index in (0, 2):
        assert push.put(index).status_code == 200
    assert committed(push)["Report"] == {"Stored": 2, "AlreadyStored": 1, "FilteredOut": 0}


def test_a_token_names_one_push_and_one_manifest(push: RawPush) -> None:
    creation = push.creation()
    answers = [push.server.request("POST", "transfers/v2/push", json=creation) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    push.path = answers[0].json()["Path"]
    other = {**creation, "Instances": creation["Instances"][:1]}
    refused(push.server.request("POST", "transfers/v2/push", json=other), 409, 6)
    assert push.drop().json() == {}
    assert nothing_staged(push.server)


def test_a_commit_with_ranges_missing_does_not_begin(push: RawPush) -> None:
    push.create()
    push.put(0)
    said = push.commit().json()
    assert said["State"] == "receiving"
    assert said["Missing"] == [[len(push.files[0]), push.size]]
    for index in (1, 2):
        push.put(index)
    assert committed(push)["State"] == "committed"


def test_a_range_of_an_instance_with_a_wrong_md5_is_missing_again(push: RawPush) -> None:
    push.instances[2]["MD5"] = "0" * 32
    push.create()
    for index in range(3):
        assert push.put(index).status_code == 200
    said = push.commit().json()
    assert said["State"] == "receiving"
    assert said["Missing"] == [[push.size - len(push.files[2]), push.size]]
    assert push.server.instances() == []
    assert push.drop().status_code == 200
    assert nothing_staged(push.server)


def test_what_orthanc_refuses_undoes_the_whole_push(push: RawPush) -> None:
    text = b"this is no DICOM file"
    fake = {"ID": "f" * 8 + UNKNOWN_ID[8:], "Size": str(len(text)), "MD5": hashlib.md5(text).hexdigest()}
    push.instances.append(fake)
    push.files.append(text)
    push.create()
    for index in range(4):
        push.put(index)
    status = committed(push)
    assert status["State"] == "failed"
    assert fake["ID"] in status["Error"]
    assert "Report" not in status
    assert push.server.instances() == []
    assert nothing_staged(push.server)


# -- What is refused ----------------------------------------------------------------------------------


def test_bad_ranges_are_refused_and_lose_nothing(push: RawPush) -> None:
    push.create()
    data, size = push.files[0], push.size
    refused(put(push, f"{size}/1", b"x"), 400, 3)
    refused(put(push, f"0/{size + 1}", bytes(size + 1)), 400, 3)
    refused(put(push, "9223372036854775807/1", b"x"), 400, 3)
    refused(put(push, f"0/{64 * MB + 1}", b"x"), 413, 4)
    refused(put(push, "99999999999999999999999/1", b"x"), 400, 3)
    refused(put(push, "0/5", b"123456"), 500, 9)
    refused(put(push, "0/5", b"1234"), 500, 9)
    assert put(push, "-1/5", b"12345").status_code == 404
    assert put(push, "0", b"12345").status_code == 404
    refused(put(push, "0/5", b"12345", "zstd"), 400, 15)
    refused(put(push, "0/5", b"12345", "rar"), 400, 15)
    refused(put(push, "0/5", zstandard.compress(b"12345") + b"x", "zstd"), 400, 15)
    refused(put(push, "0/5", zstandard.compress(b"12345")[:-2], "zstd"), 400, 15)
    damaged = {"transfers-xxh3": "0" * 16}
    refused(put(push, f"0/{len(data)}", data, **damaged), 500, 20)
    assert push.status()["Missing"] == [[0, size]]
    for index in range(3):
        assert push.put(index).status_code == 200
    assert committed(push)["State"] == "committed"
    refused(push.put(0), 409, 6)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"Token": None}, 400, 15),
        ({"Token": "x"}, 400, 3),
        ({"Token": "A" * 32}, 400, 3),
        ({"Instances": None}, 400, 15),
        ({"Instances": [{"ID": "a", "Size": 5, "MD5": "b"}]}, 400, 15),
        ({"Instances": [{"ID": f"{number}", "Size": "1", "MD5": "b"} for number in range(101)]}, 413, 4),
        ({"Instances": [{"ID": "a", "Size": str(2**62), "MD5": "b"}]}, 413, 4),
        (
            {"Instances": [{"ID": f"{number}", "Size": str(2**32 - 1), "MD5": "b"} for number in range(100)]},
            507,
            19,
        ),
    ],
)
def test_a_bad_creation_is_refused(push: RawPush, changes: dict[str, Any], status: int, code: int) -> None:
    body = {**push.creation(), **changes}
    refused(push.server.request("POST", "transfers/v2/push", json=body), status, code)
    assert nothing_staged(push.server)


def test_instances_are_announced_in_parts(push: RawPush) -> None:
    server, token, instances = push.server, "0123456789abcdef" * 2, push.instances

    def announce(start: int, stop: int) -> requests.Response:
        body: dict[str, Any] = {"Token": token, "Instances": instances[start:stop]}
        if start:
            body["Before"] = start
        if stop < len(instances):
            body["More"] = len(instances) - stop
        return server.request("POST", "transfers/v2/push", json=body)

    refused(announce(1, 2), 404, 17)
    first = announce(0, 1)
    assert first.json()["Missing"] == [[0, int(instances[0]["Size"])]]
    push.path = first.json()["Path"]
    refused(push.commit(), 409, 6)
    refused(announce(2, 3), 409, 6)
    assert announce(1, 2).json()["Total"] == 2
    # A part that comes twice, or begins earlier than it needs to, changes nothing.
    assert announce(1, 2).json()["Total"] == 2
    assert announce(0, 1).json()["Total"] == 2
    assert announce(1, 3).json()["Missing"] == [[0, push.size]]
    assert announce(2, 3).json()["Total"] == 3
    other = [{**instances[2], "MD5": "0" * 32}]
    refused(
        server.request("POST", "transfers/v2/push", json={"Token": token, "Instances": other, "Before": 2}),
        409,
        6,
    )
    for index in range(3):
        assert push.put(index).status_code == 200
    assert committed(push)["State"] == "committed"
    assert len(server.instances()) == 3


@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("DELETE", ""), ("PUT", "/0/1"), ("POST", "/commit")]
)
def test_an_unknown_push_is_not_found(server: OrthancServer, method: str, rest: str) -> None:
    refused(server.request(method, f"transfers/v2/push/{UNKNOWN_ID}{rest}", data=b"x"), 404, 17)


def test_a_push_of_one_version_is_not_known_in_the_other(push: RawPush) -> None:
    push.create()
    refused(push.server.request("PUT", push.path.replace("/v2", "") + "/0", data=b"x"), 404, 17)
    refused(push.server.request("POST", push.path.replace("/v2", "") + "/commit"), 404, 17)
    push.drop()


# -- Chunks -------------------------------------------------------------------------------------------


def chunks(server: OrthancServer, **body: Any) -> requests.Response:
    return server.request("POST", "transfers/v2/chunks", data=json.dumps(body))


@pytest.mark.parametrize(("compression", "codec"), [("none", "none"), ("gzip", "gzip"), ("zstd", "zstd")])
def test_chunks_are_answered_in_one_codec_with_their_checksum(
    push: RawPush, compression: str, codec: str
) -> None:
    server = push.server
    server.upload_all(push.files)
    first, second = push.instances[:2]
    wanted = [[second["ID"], 7, 1000], [first["ID"], 0, int(first["Size"])]]
    answer = chunks(server, Chunks=wanted, Codecs=["none", codec, "of tomorrow"], Compression=compression)
    assert answer.status_code == 200
    assert answer.headers["transfers-codec"] == codec
    assert answer.headers["transfers-xxh3"] == xxhash.xxh3_64_hexdigest(answer.content)
    decode = {"none": bytes, "gzip": gzip.decompress, "zstd": zstandard.decompress}[codec]
    assert decode(answer.content) == push.files[1][7:1007] + push.files[0]


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ([[UNKNOWN_ID, 0, 5]], 404, 17),
        ([["a/../b", 0, 5]], 404, 17),
        ([["$", -1, 5]], 400, 3),
        ([["$", 0, 10**7]], 400, 3),
        ([["$", 0, 64 * MB + 1]], 400, 3),
        ([["$", "0", "5"]], 400, 15),
        ([["$", 0]], 400, 15),
        ({}, 400, 15),
    ],
)
def test_bad_chunks_are_refused(push: RawPush, wanted: Any, status: int, code: int) -> None:
    identifier = push.server.upload(push.files[0])["ID"]
    text = json.dumps({"Chunks": wanted, "Codecs": ["none"]}).replace("$", identifier)
    refused(push.server.request("POST", "transfers/v2/chunks", data=text), status, code)


# -- Look-ups with bytes ------------------------------------------------------------------------------


def look_up(push: RawPush, whole: Any) -> requests.Response:
    """Of the three instances; ``whole`` is the header that asks for their bytes, or its JSON."""
    resources = [{"Level": "Instance", "ID": one["ID"]} for one in push.instances]
    text = whole if isinstance(whole, str) else json.dumps(whole)
    return push.server.request("POST", "transfers/lookup", json=resources, headers={"transfers-whole": text})


@pytest.mark.parametrize(("compression", "codec"), [("none", "none"), ("gzip", "gzip"), ("zstd", "zstd")])
def test_a_list_comes_with_the_bytes_of_its_instances(push: RawPush, compression: str, codec: str) -> None:
    push.server.upload_all(push.files)
    plain = push.server.post(
        "transfers/lookup", [{"Level": "Instance", "ID": one["ID"]} for one in push.instances]
    )
    wanted = {"MaxSize": push.size, "Codecs": ["none", codec, "of tomorrow"], "Compression": compression}
    answer = look_up(push, wanted)
    assert answer.status_code == 200
    assert answer.headers["transfers-codec"] == codec
    assert answer.headers["transfers-xxh3"] == xxhash.xxh3_64_hexdigest(answer.content)
    (size,) = struct.unpack_from(">I", answer.content)
    head, body = answer.content[4 : 4 + size], answer.content[4 + size :]
    assert json.loads(head) == plain
    decode = {"none": bytes, "gzip": gzip.decompress, "zstd": zstandard.decompress}[codec]
    assert decode(body) == b"".join(push.files)
    # Of one byte less there is room for the list alone.
    without = look_up(push, {**wanted, "MaxSize": push.size - 1})
    assert "transfers-codec" not in without.headers
    assert without.json() == plain


@pytest.mark.parametrize(
    ("whole", "status", "code"),
    [
        ("no JSON", 400, 15),
        ([], 400, 15),
        ({"Codecs": ["none"]}, 400, 15),
        ({"MaxSize": -1, "Codecs": ["none"]}, 400, 3),
        ({"MaxSize": 10**7, "Codecs": ["none"], "Level": 22}, 400, 3),
        ({"MaxSize": 10**7, "Codecs": ["none"], "Compression": "rar"}, 400, 3),
        ("[" * 4000, 400, 15),
    ],
)
def test_a_bad_wish_for_bytes_is_refused(push: RawPush, whole: Any, status: int, code: int) -> None:
    push.server.upload_all(push.files)
    refused(look_up(push, whole), status, code)
