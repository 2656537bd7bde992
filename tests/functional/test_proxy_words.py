"""Proxies that stand in the way: the job fails at once, and says what they do and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.nginx import Nginx
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together

pytestmark = pytest.mark.orthanc

VERSION_1 = "location = /transfers/capabilities { return 404; }"


@dataclass(frozen=True)
class World:
    """``a`` knows ``b`` by the names of proxies that stand before it."""

    a: OrthancServer
    b: OrthancServer
    proxies: dict[str, Nginx]
    study: dict[str, str]

    def failure(self, peer: str) -> str:
        """Why a push through a proxy fails."""
        job = self.a.wait_for_job(self.a.send([self.study], peer)["ID"])
        assert job["State"] == "Failure", job
        error: str = job["Content"]["Error"]
        return error


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("nginx")
    # The study needs several buckets.
    a = make_shared_server("a", configuration={"Transfers": {"BucketSize": 4}})
    b = make_shared_server("b")
    with ExitStack() as stack:
        proxies = {}
        for name, server, location in (
            ("redirect", "", "return 301 https://orthanc.example$request_uri;"),
            ("no-put-1", VERSION_1, "limit_except GET POST DELETE { deny all; }"),
            ("no-requests", "", 'proxy_set_header transfers-codec ""; proxy_set_header transfers-xxh3 "";'),
            ("no-responses", "", "proxy_hide_header transfers-codec; proxy_hide_header transfers-xxh3;"),
            ("no-put-2", "", "limit_except GET POST DELETE { deny all; }"),
        ):
            proxy = stack.enter_context(Nginx(folder / name, b, server=server, location=location))
            proxies[name] = proxy
            a.add_peer(name, b, Url=proxy.url)
        start_together(a, b)
        study = resource("Study", a.upload_all(small_instances(20))[0]["ParentStudy"])
        yield World(a, b, proxies, study)


def test_a_redirect_is_named(shared: World) -> None:
    assert shared.failure("redirect") == (
        "peer 'redirect' redirects POST /transfers/push to 'https://orthanc.example/transfers/push' (301),"
        " which is not followed: correct the Url of this peer"
    )


@pytest.mark.parametrize("peer", ["no-put-1", "no-put-2"])
def test_a_proxy_that_forbids_put_is_named(shared: World, peer: str) -> None:
    failure = shared.failure(peer)
    assert failure.startswith(f"peer '{peer}' answered PUT /transfers/")
    assert "with 403: Forbidden; that is not Orthanc, but 'nginx" in failure
    assert " in front of it: allow PUT below /transfers/ there, or check the user" in failure
    # It is not tried again.
    puts = [line for line in shared.proxies[peer].access_log.splitlines() if '"PUT ' in line]
    assert 0 < len(puts) <= 8
    assert shared.b.instances() == []


@pytest.mark.parametrize("peer", ["no-requests", "no-responses"])
@pytest.mark.parametrize("action", ["send", "pull"])
def test_where_our_headers_are_removed_version_1_is_spoken(shared: World, peer: str, action: str) -> None:
    sender, receiver = (shared.a, shared.b) if action == "send" else (shared.b, shared.a)
    if not sender.instances():
        sender.upload_all(small_instances(20, seed=5))
    receiver.clear()
    study = resource("Study", sender.get("studies")[0])
    job = shared.a.wait_for_job(getattr(shared.a, action)([study], peer)["ID"])
    assert job["State"] == "Success", job
    assert job["Content"]["Protocol"] == 1
    assert receiver.md5s() == sender.md5s()
    removed = "transfers-codec, transfers-xxh3"
    assert (
        f"something in front of peer {peer} removes the headers {removed}, so that version 1" in shared.a.log
    )
