"""Version 1 of the protocol from the other side: we send to and fetch from a peer that knows nothing else.

The peer is one of ours behind a nginx that hides what is new, and writes down each request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.recording_proxy import RecordingProxy

pytestmark = pytest.mark.orthanc

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNKNOWN_ID = "00000000-00000000-00000000-00000000-00000000"
KB = 1024
MB = 1024 * KB
BUCKET = 16 * KB

# As a load balancer does it that keeps a client on one server; a C++ peer remembers the last cookie only.
COOKIES = """
location = /transfers/push {{
    proxy_pass http://127.0.0.1:{port};
    add_header Set-Cookie "other=1; Path=/";
    add_header Set-Cookie "route=b1; Path=/";
}}
"""

# The second bucket never arrives.
BROKEN = r"location ~ ^/transfers/push/[^/]+/1$ { return 400; }"


@dataclass(frozen=True)
class World:
    """``a`` is ours, ``b`` its peer behind ``proxy`` (also as ``broken``), ``c`` is a third server."""

    a: OrthancServer
    b: OrthancServer
    c: OrthancServer
    proxy: RecordingProxy
    broken: RecordingProxy


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    a = make_shared_server("a", configuration={"Transfers": {"BucketSize": BUCKET // KB}})
    b, c = make_shared_server("b"), make_shared_server("c")
    folder = tmp_path_factory.mktemp("nginx")
    cookies = COOKIES.format(port=b.http_port)
    with (
        RecordingProxy(folder / "b", b, version=1, server=cookies) as proxy,
        RecordingProxy(folder / "broken", b, version=1, server=cookies + BROKEN) as broken,
        RecordingProxy(folder / "a", a, version=1) as proxy_of_a,
    ):
        a.add_peer("b", b, Url=proxy.url)
        a.add_peer("b-broken", b, Url=broken.url)
        a.add_peer("b-pulls", b, Url=proxy.url, RemoteSelf="a")
        a.add_peer("b-pulls-from-c", b, Url=proxy.url, RemoteSelf="c")
        a.add_peer("b-pulls-from-nobody", b, Url=proxy.url, RemoteSelf="nobody")
        a.add_peer("myself", a)
        a.add_peer("myself-as-1", a, Url=proxy_of_a.url)
        b.add_peer("a", a)
        b.add_peer("c", c)
        c.add_peer("b", b, Url=proxy.url)
        start_together(a, b, c)
        yield World(a, b, c, proxy, broken)


@pytest.fixture
def world(shared: World) -> World:
    """The same servers for all tests of this file, empty at the start of each."""
    for server in (shared.a, shared.b, shared.c):
        server.clear()
    shared.proxy.forget()
    shared.broken.forget()
    return shared


def stored(server: OrthancServer, files: Iterator[bytes]) -> list[dict[str, str]]:
    """Put files in; one resource, their study."""
    return [resource("Study", one) for one in {item["ParentStudy"] for item in server.upload_all(files)}]


def succeeded(server: OrthancServer, answer: dict[str, Any]) -> dict[str, Any]:
    assert set(answer) == {"ID", "Path"}
    assert answer["Path"] == "/jobs/" + answer["ID"]
    job = server.wait_for_job(answer["ID"])
    assert job["State"] == "Success", job
    return job


def failed(server: OrthancServer, identifier: str) -> str:
    job = server.wait_for_job(identifier)
    assert job["State"] == "Failure", job
    return str(job["Content"]["Error"])


def rounded(size: int) -> int:
    return round(size / MB)


def only_version_1(proxy: RecordingProxy) -> bool:
    """Nothing that a C++ peer does not know was asked for, but what it knows at all."""
    new = [seen.uri for seen in proxy.requests if "v2" in seen.uri or "capabilities" in seen.uri]
    return set(new) <= {"/transfers/capabilities"}


# -- Push ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"Compression": "none"}, "none"),
        ({"Compression": "gzip"}, "gzip"),
        ({"Compression": "zstd"}, "zstd"),
        ({"Compression": "auto"}, "auto"),
        ({}, "auto"),
    ],
)
def test_a_push_arrives_whole_in_what_version_1_knows(
    world: World, options: dict[str, str], shown: str
) -> None:
    resources = stored(world.a, ct_study(2, size=256))
    job = succeeded(world.a, world.a.send(resources, "b", **options))
    assert job["Content"]["Compression"] == shown
    assert world.b.md5s() == world.a.md5s()
    assert {seen.type for seen in world.proxy.of("PUT")} == {"application/octet-stream"}
    creation = world.proxy.of("POST", "/transfers/push")[0]
    assert creation.json["Compression"] == ("none" if shown == "none" else "gzip")
    assert only_version_1(world.proxy)


def test_a_push_is_described_as_the_c_plugin_does_it(world: World) -> None:
    files = [*small_instances(3), *ct_study(1, size=256)]
    stored(world.a, iter(files))
    resources = [resource("Study", study) for study in world.a.get("studies")]
    succeeded(world.a, world.a.send(resources, "b", Compression="gzip"))
    (creation,) = [seen for seen in world.proxy.of("POST") if seen.uri == "/transfers/push"]
    message = creation.json
    assert set(message) == {"Compression", "Instances", "Buckets"}
    assert message["Instances"] == [
        {"ID": name, "Size": str(world.a.get(f"instances/{name}/attachments/dicom/size")), "MD5": md5}
        for name, md5 in world.a.md5s().items()
    ]
    for bucket in message["Buckets"]:
        for chunk in bucket:
            assert set(chunk) == {"ID", "Offset", "Size"}
            assert all(isinstance(value, str) for value in chunk.values())
    # Each bucket is sent once, by its number; then the commit.
    puts = [seen.uri.rpartition("/") for seen in world.proxy.of("PUT")]
    (commit,) = world.proxy.of("POST", "/commit")
    assert {path for path, _, _ in puts} == {commit.uri.removesuffix("/commit")}
    assert sorted(int(index) for _, _, index in puts) == list(range(len(message["Buckets"])))


def test_large_instances_are_split_and_come_first_and_small_ones_are_grouped(world: World) -> None:
    # In units of the target T: three of 0.6, two of 1.2, one of 8.1.
    files = [*small_instances(3), *small_instances(2, size=96), *ct_study(1, size=256)]
    stored(world.a, iter(files))
    resources = [resource("Study", study) for study in world.a.get("studies")]
    job = succeeded(world.a, world.a.send(resources, "b", Compression="none"))
    (creation,) = [seen for seen in world.proxy.of("POST") if seen.uri == "/transfers/push"]
    sizes = {item["ID"]: int(item["Size"]) for item in creation.json["Instances"]}
    small = [name for name in sorted(sizes) if sizes[name] < BUCKET]
    medium = [name for name in sorted(sizes) if BUCKET <= sizes[name] < 2 * BUCKET]
    (large,) = (name for name in sizes if sizes[name] >= 2 * BUCKET)
    assert (len(small), len(medium)) == (3, 2)

    buckets = [
        [(chunk["ID"], int(chunk["Offset"]), int(chunk["Size"])) for chunk in bucket]
        for bucket in creation.json["Buckets"]
    ]
    pieces = [bucket[0] for bucket in buckets if bucket[0][0] == large]
    parts = -(-sizes[large] // (2 * BUCKET))
    assert len(pieces) == parts
    position = 0
    for _, offset, size in pieces:
        assert offset == position
        position += size
    assert position == sizes[large]
    # Equal, the last taking the rest; pixels of two bytes stay whole.
    step = pieces[0][2]
    assert all(size == step for _, _, size in pieces[:-1])
    assert pieces[-1][2] <= step
    assert step - -(-sizes[large] // parts) in (0, 1)

    whole = [bucket for bucket in buckets if bucket[0][0] != large]
    assert whole == [
        *([(name, 0, sizes[name])] for name in medium),
        [(name, 0, sizes[name]) for name in small[:2]],
        [(name, 0, sizes[name]) for name in small[2:]],
    ]
    # The order of large and medium ones is that of their identifiers.
    order = [bucket[0][0] for bucket in buckets[:-2]]
    assert order == sorted(order)
    assert job["Content"]["CompletedHttpQueries"] == len(buckets) == len(world.proxy.of("PUT"))


def test_the_content_of_a_push_is_that_of_the_c_plugin(world: World) -> None:
    resources = stored(world.a, ct_study(5))
    job = succeeded(world.a, world.a.send(resources, "b", Compression="gzip", Priority=-7))
    assert job["Type"] == "PushTransfer"
    assert job["Priority"] == -7
    assert job["Progress"] == 100
    puts = world.proxy.of("PUT")
    size = sum(int(world.a.get(f"instances/{one}/attachments/dicom/size")) for one in world.a.instances())
    content = job["Content"]
    golden = {
        "Peer": "b",
        "Compression": "gzip",
        "TotalInstances": 5,
        "TotalSizeMB": rounded(size),
        "CompletedHttpQueries": len(puts),
        "UploadedSizeMB": rounded(sum(seen.length for seen in puts)),
    }
    assert {key: content[key] for key in golden} == golden
    assert type(content["NetworkSpeedKBs"]) is int
    assert content["NetworkSpeedKBs"] > 0
    assert [{key: one[key] for key in ("Level", "ID")} for one in content["Resources"]] == resources
    assert "Originator" not in content
    assert "DownloadedSizeMB" not in content


def test_the_identifier_of_a_transfer_is_on_all_requests_of_a_push(world: World) -> None:
    resources = stored(world.a, small_instances(3))
    succeeded(world.a, world.a.send(resources, "b"))
    seen = [one for one in world.proxy.requests if "push" in one.uri]
    assert len(seen) == 1 + 2 + 1
    (identifier,) = {one.transfer for one in seen}
    assert UUID.fullmatch(identifier)
    world.proxy.forget()
    succeeded(world.a, world.a.send(resources, "b", SenderTransferID="Named by the user"))
    assert {one.transfer for one in world.proxy.requests if "push" in one.uri} == {"Named by the user"}


def test_the_cookie_of_a_creation_is_sent_back(world: World) -> None:
    resources = stored(world.a, small_instances(4))
    succeeded(world.a, world.a.send(resources, "b"))
    commit = world.proxy.of("POST", "/commit")
    creation = [one for one in world.proxy.of("POST") if one.uri == "/transfers/push"]
    assert [one.cookie for one in creation] == [""]
    for one in [*world.proxy.of("PUT"), *commit]:
        assert "route=b1" in one.cookie.split("; ")
    # It belongs to that push alone.
    world.proxy.forget()
    succeeded(world.a, world.a.send(resources, "b"))
    assert [one.cookie for one in world.proxy.of("POST") if one.uri == "/transfers/push"] == [""]


def test_a_push_that_fails_is_deleted_on_the_peer(world: World) -> None:
    resources = stored(world.a, small_instances(6))
    answer = world.a.send(resources, "b-broken", SenderTransferID="doomed")
    assert "400" in failed(world.a, answer["ID"])
    (deletion,) = world.broken.wait_for("DELETE", "/transfers/push/")
    assert deletion.transfer == "doomed"
    assert "route=b1" in deletion.cookie.split("; ")
    assert deletion.status == 200
    assert world.b.instances() == []
    metrics = world.b.request("GET", "tools/metrics-prometheus").text
    assert "orthanc_transfers_available_push_count 4" in metrics


# -- Pull ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"Compression": "none"}, "compression=none"),
        ({"Compression": "gzip"}, "compression=gzip"),
        ({"Compression": "zstd"}, "compression=gzip"),
        ({"Compression": "auto"}, "compression=gzip"),
        ({}, "compression=gzip"),
    ],
)
def test_a_pull_arrives_whole_in_what_version_1_knows(
    world: World, options: dict[str, str], asked: str
) -> None:
    resources = stored(world.b, ct_study(2, size=256))
    succeeded(world.a, world.a.pull(resources, "b", **options))
    assert world.a.md5s() == world.b.md5s()
    chunks = world.proxy.of("GET", "/transfers/chunks/")
    assert chunks
    assert all(asked in one.uri for one in chunks)
    assert only_version_1(world.proxy)


def test_the_content_of_a_pull_is_that_of_the_c_plugin(world: World) -> None:
    resources = stored(world.b, ct_study(5))
    job = succeeded(world.a, world.a.pull(resources, "b", Compression="none", Priority=3))
    assert job["Type"] == "PullTransfer"
    assert job["Priority"] == 3
    assert job["Progress"] == 100
    size = sum(int(world.b.get(f"instances/{one}/attachments/dicom/size")) for one in world.b.instances())
    chunks = world.proxy.of("GET", "/transfers/chunks/")
    content = job["Content"]
    golden = {
        "Peer": "b",
        "Compression": "none",
        "TotalInstances": 5,
        "TotalSizeMB": rounded(size),
        "CompletedHttpQueries": len(chunks),
        "DownloadedSizeMB": rounded(size),
    }
    assert {key: content[key] for key in golden} == golden
    assert sum(one.answered for one in chunks) == size
    assert type(content["NetworkSpeedKBs"]) is int
    assert [{key: one[key] for key in ("Level", "ID")} for one in content["Resources"]] == resources
    assert "Originator" not in content
    assert "UploadedSizeMB" not in content


def test_a_pull_looks_up_by_name_and_fetches_without(world: World) -> None:
    resources = stored(world.b, small_instances(3))
    succeeded(world.a, world.a.pull(resources, "b", SenderTransferID="Named by the user"))
    (lookup,) = world.proxy.of("POST", "/transfers/lookup")
    assert lookup.transfer == "Named by the user"
    assert lookup.json == resources
    chunks = world.proxy.of("GET", "/transfers/chunks/")
    # Web caches on the way shall find them alike.
    assert {one.transfer for one in chunks} == {""}


def test_many_small_instances_are_fetched_by_short_addresses(world: World) -> None:
    resources = stored(world.b, small_instances(100, size=16))
    job = succeeded(world.c, world.c.pull(resources, "b"))
    assert world.c.md5s() == world.b.md5s()
    chunks = world.proxy.of("GET", "/transfers/chunks/")
    # A C++ peer puts about 43 of them into the 2000 characters that it gives itself.
    assert len(chunks) == 3
    assert max(len(one.uri) for one in chunks) < 2000
    assert job["Content"]["CompletedHttpQueries"] == 3


# -- Pull mode ----------------------------------------------------------------------------------------


def test_a_peer_that_knows_us_is_asked_to_pull(world: World) -> None:
    resources = stored(world.a, ct_study(2, size=64))
    answer = world.a.send(
        resources, "b-pulls", Compression="gzip", Priority=9, SenderTransferID="Named by the user"
    )
    assert set(answer) == {"Peer", "RemoteJob", "URL"}
    assert answer["Peer"] == "b-pulls"
    assert answer["URL"] == world.proxy.url + "jobs/" + answer["RemoteJob"]
    job = world.b.wait_for_job(answer["RemoteJob"])
    assert job["State"] == "Success", job
    assert job["Type"] == "PullTransfer"
    assert job["Priority"] == 0
    assert world.b.md5s() == world.a.md5s()
    (request,) = world.proxy.of("POST", "/transfers/pull")
    assert request.transfer == "Named by the user"
    originator = job["Content"]["Originator"]
    assert request.json == {
        "Resources": resources,
        "Compression": "gzip",
        "Originator": originator,
        "Peer": "a",
    }
    lookup = world.a.post("transfers/lookup", [])
    assert lookup["Originator"] == originator


@pytest.mark.parametrize("compression", ["auto", "zstd"])
def test_in_pull_mode_a_peer_of_version_1_is_asked_for_what_it_knows(world: World, compression: str) -> None:
    resources = stored(world.a, small_instances(1))
    answer = world.a.send(resources, "b-pulls", Compression=compression)
    assert world.b.wait_for_job(answer["RemoteJob"])["State"] == "Success"
    (request,) = world.proxy.of("POST", "/transfers/pull")
    assert request.json["Compression"] == "gzip"
    assert UUID.fullmatch(request.transfer)


def test_a_wrong_remote_self_is_found_out(world: World) -> None:
    files = list(small_instances(1))
    resources = stored(world.a, iter(files))
    # Even though the other one has the very same data.
    stored(world.c, iter(files))
    answer = world.a.send(resources, "b-pulls-from-c")
    error = failed(world.b, answer["RemoteJob"])
    assert "RemoteSelf" in error
    assert "peer c" in error
    assert world.b.instances() == []


def test_a_remote_self_that_the_peer_does_not_know_is_an_error_at_once(world: World) -> None:
    resources = stored(world.a, small_instances(1))
    with pytest.raises(StatusError) as caught:
        world.a.send(resources, "b-pulls-from-nobody")
    assert caught.value.status == 500
    assert "b-pulls-from-nobody" in json.loads(caught.value.body)["Details"]


# -- What is refused ----------------------------------------------------------------------------------

GOOD = {"Resources": [{"Level": "Study", "ID": "x"}], "Peer": "b"}


@pytest.mark.parametrize("route", ["send", "pull"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"[]", 400),
        ({"Peer": "b"}, 400),
        ({"Resources": []}, 400),
        ({**GOOD, "Resources": []}, 400),
        ({**GOOD, "Resources": {}}, 400),
        ({**GOOD, "Resources": [{"Level": "Study"}]}, 400),
        ({**GOOD, "Resources": [{"Level": "Planet", "ID": "x"}]}, 400),
        ({**GOOD, "Peer": 5}, 400),
        ({**GOOD, "Compression": "rar"}, 400),
        ({**GOOD, "Compression": None}, 400),
        ({**GOOD, "Compression": "GZIP"}, 400),
        ({**GOOD, "Resources": None}, 400),
        ({**GOOD, "Resources": [{"Level": None, "ID": "x"}]}, 400),
        ({**GOOD, "Priority": None}, 400),
        ({**GOOD, "Priority": True}, 400),
        ({**GOOD, "Priority": 1.5}, 400),
        ({**GOOD, "Priority": "1"}, 400),
        ({**GOOD, "Priority": 2**31}, 400),
        ({**GOOD, "SenderTransferID": 5}, 400),
        ({**GOOD, "SenderTransferID": "a\r\nb: c"}, 400),
        ({**GOOD, "Peer": "nobody"}, 404),
        ({**GOOD, "Peer": ""}, 404),
    ],
)
def test_a_bad_request_is_refused_before_there_is_a_job(
    world: World, route: str, body: Any, status: int
) -> None:
    jobs = set(world.a.get("jobs"))
    with pytest.raises(StatusError) as caught:
        world.a.post(f"transfers/{route}", body)
    assert caught.value.status == status
    error = json.loads(caught.value.body)
    assert error["HttpStatus"] == status
    assert error["OrthancStatus"] in {400: (3, 15), 404: (17,)}[status]
    assert error["Details"]
    assert set(world.a.get("jobs")) == jobs


def test_keys_that_are_not_known_are_accepted(world: World) -> None:
    resources = stored(world.a, small_instances(1))
    # As Orthanc Explorer 2 sends it.
    answer = world.a.send(resources, "b", Compression="gzip", Priority=0, Synchronous=False)
    succeeded(world.a, answer)
    assert world.b.md5s() == world.a.md5s()


def test_a_resource_that_is_missing_here_fails_the_job_of_a_push(world: World) -> None:
    resources = stored(world.a, small_instances(1))
    answer = world.a.send([*resources, resource("Series", UNKNOWN_ID)], "b")
    assert UNKNOWN_ID in failed(world.a, answer["ID"])
    assert world.proxy.of("POST", "push") == []


def test_a_resource_that_is_missing_there_fails_the_job_of_a_pull(world: World) -> None:
    resources = stored(world.b, small_instances(1))
    answer = world.a.pull([*resources, resource("Patient", UNKNOWN_ID)], "b")
    error = failed(world.a, answer["ID"])
    assert UNKNOWN_ID in error
    assert "peer b " in error
    assert world.a.instances() == []


# -- Everything named twice, and oneself ---------------------------------------------------------------


@pytest.mark.parametrize("route", ["send", "pull"])
def test_what_is_named_twice_travels_once(world: World, route: str) -> None:
    here, there = (world.a, world.b) if route == "send" else (world.b, world.a)
    first, *others = here.upload_all(small_instances(3))
    resources = [
        resource("patients", first["ParentPatient"]),
        resource("STUDY", first["ParentStudy"]),
        resource("Series", first["ParentSeries"]),
        resource("Instance", first["ID"]),
        resource("Images", first["ID"]),
        resource("image", others[0]["ID"]),
    ]
    job = succeeded(world.a, world.a.post(f"transfers/{route}", {"Resources": resources, "Peer": "b"}))
    assert job["Content"]["TotalInstances"] == 3
    assert there.md5s() == here.md5s()


@pytest.mark.parametrize("route", ["send", "pull"])
@pytest.mark.parametrize("peer", ["myself", "myself-as-1"])
def test_an_instance_sent_to_where_it_is_counts_as_one_query(world: World, route: str, peer: str) -> None:
    (uploaded,) = world.a.upload_all(small_instances(1))
    before = world.a.md5s()
    resources = [resource("Instance", uploaded["ID"])]
    job = succeeded(world.a, world.a.post(f"transfers/{route}", {"Resources": resources, "Peer": peer}))
    assert job["Content"]["CompletedHttpQueries"] == 1
    assert job["Content"]["TotalInstances"] == 1
    assert world.a.md5s() == before


def test_two_transfers_to_oneself_at_once_do_not_wait_for_each_other(world: World) -> None:
    resources = stored(world.a, small_instances(20))
    answers = [
        world.a.send(resources, "myself-as-1"),
        world.a.pull(resources, "myself-as-1"),
        world.a.send(resources, "myself"),
        world.a.pull(resources, "myself"),
    ]
    for answer in answers:
        succeeded(world.a, answer)
    assert len(world.a.instances()) == 20
