"""Three Orthancs on one PostgreSQL, behind nginx that gives each request to the next of them: one peer."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import requests

from tests.support.cluster import OrthancCluster
from tests.support.cpp_client import CppClient
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.recording_proxy import RecordingProxy
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]


@dataclass(frozen=True)
class Site:
    """``a``, a server elsewhere, and the cluster, which it knows as ``c2``, and as ``c1`` without version 2."""

    a: OrthancServer
    cluster: OrthancCluster
    proxies: dict[int, RecordingProxy]

    def clear(self) -> None:
        self.a.clear()
        self.cluster.clear()
        for proxy in self.proxies.values():
            proxy.forget()


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "own-disks"])
def shared(
    request: pytest.FixtureRequest, make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cluster")
    with OrthancCluster(folder, shared=request.param) as cluster:
        a = make_shared_server(f"a-{request.param}", configuration={"Transfers": {"BucketSize": 64}})
        # A commit of version 1 is one request.
        with cluster.proxy_of_version_1(timeout=300) as first:
            a.add_peer("c2", a, Url=cluster.url)
            a.add_peer("c1", a, Url=first.url)
            a.start()
            yield Site(a, cluster, {1: first, 2: cluster.proxy})


@pytest.fixture
def site(shared: Site) -> Site:
    shared.clear()
    return shared


def nodes_of(proxy: RecordingProxy) -> dict[str, set[str]]:
    """The nodes that each push reached, by the identifiers of the transfers."""
    reached: dict[str, set[str]] = defaultdict(set)
    for seen in proxy.requests:
        if "/push" in seen.uri:
            assert seen.status == 200, seen
            reached[seen.transfer].add(seen.upstream)
    return reached


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "auto"])
def test_a_push_goes_through_whatever_node_each_request_reaches(
    site: Site, version: int, compression: str
) -> None:
    if version == 1 and compression not in ("none", "gzip"):
        pytest.skip("version 1 knows none and gzip")
    (study,) = {one["ParentStudy"] for one in site.a.upload_all(ct_study(12, size=192))}
    for _ in range(2):
        job = site.a.send([resource("Study", study)], f"c{version}", Compression=compression)["ID"]
        known = site.a.wait_for_job(job)
        assert known["State"] == "Success", known
        for node in site.cluster.nodes:
            assert node.md5s() == site.a.md5s()
    assert max(len(nodes) for nodes in nodes_of(site.proxies[version]).values()) > 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_thousand_small_instances_arrive_once_each(site: Site, version: int) -> None:
    site.a.upload_all(small_instances(1000))
    patients = [resource("Patient", one) for one in site.a.get("patients")]
    known = site.a.wait_for_job(site.a.send(patients, f"c{version}")["ID"])
    assert known["State"] == "Success", known
    assert site.cluster.any_node().md5s() == site.a.md5s()


def test_a_small_push_is_one_request_whatever_node_it_reaches(site: Site) -> None:
    studies = [one["ParentStudy"] for one in site.a.upload_all(small_instances(6))]
    for study in sorted(set(studies)):
        known = site.a.wait_for_job(site.a.send([resource("Study", study)], "c2")["ID"])
        assert known["State"] == "Success", known
    pushes = [seen for seen in site.proxies[2].requests if "/push" in seen.uri]
    assert {seen.uri for seen in pushes} == {"/transfers/v2/push/whole"}
    assert len(pushes) == len(set(studies))
    assert site.cluster.any_node().md5s() == site.a.md5s()


def test_a_strict_cpp_peer_sends_and_fetches_a_thousand_instances(
    site: Site, request: pytest.FixtureRequest
) -> None:
    # Both compressions, one for each kind of staging.
    compression = "none" if "shared" in request.node.name else "gzip"
    # The last two are large: cut, and in front of the others.
    data = [*small_instances(998), *ct_study(2, size=256)]
    files = {stored["ID"]: one for stored, one in zip(site.a.upload_all(data), data, strict=True)}
    peer = CppClient(site.proxies[1].url)
    node = site.cluster.any_node()
    before = node.get("changes", params={"last": ""})["Last"]
    peer.push(files, compression)
    # Not always all three: nginx leaves out for a while a node that has just closed a connection.
    assert max(len(nodes) for nodes in nodes_of(site.proxies[1]).values()) > 1
    md5s = {one: hashlib.md5(data).hexdigest() for one, data in files.items()}
    assert node.md5s() == md5s
    changes = node.get("changes", params={"since": before, "limit": 100_000})["Changes"]
    stored = Counter(one["ID"] for one in changes if one["ChangeType"] == "NewInstance")
    assert stored == Counter(files.keys())
    patients = [resource("Patient", one) for one in node.get("patients")]
    assert peer.pull(patients, compression) == files
    lookups_and_chunks = [seen for seen in site.proxies[1].requests if "/push" not in seen.uri]
    assert {seen.status for seen in lookups_and_chunks} == {200}
    assert len({seen.upstream for seen in lookups_and_chunks}) > 1


def test_a_pull_by_the_cluster_knows_its_originator_at_any_node(site: Site) -> None:
    """A node asks ``a`` to fetch, and ``a`` reaches other nodes: they are all who asked."""
    (study,) = {one["ParentStudy"] for one in site.cluster.any_node().upload_all(ct_study(3, size=64))}
    for node in site.cluster.nodes:
        node.put("peers/a", {"Url": site.a.url, "RemoteSelf": "c2"})
        answer = node.post(
            "transfers/send", {"Resources": [resource("Study", study)], "Peer": "a", "Compression": "gzip"}
        )
        known = site.a.wait_for_job(answer["RemoteJob"])
        assert known["State"] == "Success", known
        assert known["Content"]["Originator"]
        assert site.a.md5s() == node.md5s()
        site.a.clear()


@pytest.mark.parametrize("version", [1, 2])
def test_a_pull_from_the_cluster_asks_any_node(site: Site, version: int) -> None:
    (study,) = {one["ParentStudy"] for one in site.cluster.any_node().upload_all(ct_study(12, size=192))}
    known = site.a.wait_for_job(site.a.pull([resource("Study", study)], f"c{version}")["ID"])
    assert known["State"] == "Success", known
    assert site.a.md5s() == site.cluster.any_node().md5s()


def test_the_report_of_a_push_is_found_at_every_node(site: Site) -> None:
    (study,) = {one["ParentStudy"] for one in site.a.upload_all(ct_study(3, size=64))}
    job = site.a.send([resource("Study", study)], "c2")["ID"]
    known = site.a.wait_for_job(job)
    assert known["State"] == "Success", known
    transaction = known["Content"]["Transaction"]
    reports = [node.get(f"transfers/reports/{transaction}") for node in site.cluster.nodes]
    assert reports[0] == reports[1] == reports[2]
    assert {row["Outcome"] for row in reports[0]["Instances"]} == {"stored"}


def test_the_cluster_is_one_originator(site: Site) -> None:
    (study,) = {one["ParentStudy"] for one in site.a.upload_all(ct_study(2, size=64))}
    body = {"Resources": [resource("Study", study)]}
    site.a.wait_for_job(site.a.send(body["Resources"], "c2")["ID"])
    originators = {
        node.post("transfers/lookup", body["Resources"])["Originator"] for node in site.cluster.nodes
    }
    assert len(originators) == 1


def test_each_node_lists_the_transfers_of_all(site: Site) -> None:
    (study,) = {one["ParentStudy"] for one in site.a.upload_all(ct_study(3, size=64))}
    known = site.a.wait_for_job(site.a.send([resource("Study", study)], "c2")["ID"])
    transaction = known["Content"]["Transaction"]

    def rows(node: OrthancServer) -> list[dict[str, Any]]:
        status = node.get("transfers/status", params={"direction": "receive", "limit": 1000})
        # On a busy machine, a node may be too slow to be in it.
        return [] if status["Missing"] else [row for row in status["Transfers"] if row["ID"] == transaction]

    for node in site.cluster.nodes:
        (row,) = wait_until(partial(rows, node), f"{node.name} lists it")
        assert row["Node"] in {"node1", "node2", "node3"}
        assert row["State"] == "Success"
    answer = site.cluster.nodes[0].post(
        "transfers/actions", {"Action": "cancel", "IDs": [transaction, "0" * 32]}
    )
    assert [row["Ok"] for row in answer["Results"]] == [False, False]


def as_a_browser(node: OrthancServer, method: str, path: str, **more: Any) -> requests.Response:
    """The response to a page of this very server, over plain HTTP (no Sec-Fetch-Site), through a proxy with a login."""
    headers = {
        "Accept-Encoding": "gzip",
        "Origin": node.url.rstrip("/"),
        "X-Forwarded-User": "Łukasz".encode(),
    }
    answer = requests.request(method, f"{node.url}{path}", headers=headers, timeout=60, **more)
    assert answer.status_code == 200, answer.text
    return answer


def test_what_a_browser_asks_of_one_node_reaches_all(site: Site) -> None:
    asked, owner, _ = site.cluster.nodes
    empty = {"Compression": "none", "Instances": [], "Buckets": []}
    push = owner.post("transfers/push", empty)["ID"]
    assert as_a_browser(asked, "POST", f"transfers/push/{push}/commit").json() == {}
    # Several words, and so many transfers that Orthanc compresses its response.
    words, ids = f"{push[:8]} {push[8:16]}", [f"{number:032x}" for number in range(100)]

    def found() -> bool:
        status = as_a_browser(asked, "GET", "transfers/status", params={"text": words}).json()
        assert status["Total"] <= 1
        # On a busy machine, a node may be too slow to be in it.
        return not status["Missing"] and [one["ID"] for one in status["Transfers"]] == [push]

    wait_until(found, "it is listed")

    def steered() -> bool:
        body = {"Action": "cancel", "IDs": [push, *ids]}
        results = as_a_browser(asked, "POST", "transfers/actions", json=body).json()["Results"]
        (row,) = [one for one in results if one["ID"] == push]
        return "Unknown" not in row and "nothing to cancel" in row["Error"]

    wait_until(steered, "the node that has it was asked")
