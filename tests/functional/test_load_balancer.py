"""A load balancer in front of two Orthancs: all requests of a push must reach the same one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.postgresql import PostgreSQL, index_plugin, postgresql_is_installed
from tests.support.recording_proxy import RecordingProxy

pytestmark = pytest.mark.orthanc

# As in the README.
BY_TRANSFER = """
upstream orthancs {{
    hash $http_sender_transfer_id consistent;
    server 127.0.0.1:{0};
    server 127.0.0.1:{1};
}}
"""

# In turn, and then by cookie.
BY_COOKIE = """
upstream first {{ server 127.0.0.1:{0}; }}
upstream second {{ server 127.0.0.1:{1}; }}
upstream everyone {{ server 127.0.0.1:{0}; server 127.0.0.1:{1}; }}
map $cookie_route $target {{ default everyone; first first; second second; }}
map $upstream_addr $answered_by {{ 127.0.0.1:{0} first; 127.0.0.1:{1} second; }}
"""

# In turn, and nothing else.
NOT_STICKY = "upstream orthancs {{ server 127.0.0.1:{0}; server 127.0.0.1:{1}; }}"

SET_COOKIE = 'add_header Set-Cookie "route=$answered_by; Path=/";'


@dataclass(frozen=True)
class Balanced:
    """``a`` knows ``first`` and ``second`` behind balancers only, one for each name of a peer."""

    a: OrthancServer
    first: OrthancServer
    second: OrthancServer
    proxies: dict[str, RecordingProxy]

    def send(self, study: dict[str, str], peer: str, **options: str) -> None:
        job = self.a.wait_for_job(self.a.send([study], peer, **options)["ID"])
        assert job["State"] == "Success", job

    def servers_of_pushes(self, peer: str) -> dict[str, set[str]]:
        """The servers that each push reached, by the identifiers of the transfers."""
        proxy = self.proxies[peer]
        reached: dict[str, set[str]] = defaultdict(set)
        for seen in proxy.requests:
            if "/push" in seen.uri:
                assert seen.status == 200, seen
                reached[seen.transfer].add(seen.upstream)
        return reached


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    a = make_shared_server("a", configuration={"Transfers": {"BucketSize": 64}})
    with behind_balancers(
        a, make_shared_server("first"), make_shared_server("second"), tmp_path_factory.mktemp("nginx")
    ) as balanced:
        start_together(a, balanced.first, balanced.second)
        yield balanced


@contextmanager
def behind_balancers(
    a: OrthancServer, first: OrthancServer, second: OrthancServer, folder: Path
) -> Iterator[Balanced]:
    """Balancers of all kinds between ``a`` and the two others."""
    ports = (first.http_port, second.http_port)
    proxies = {}
    with ExitStack() as stack:
        for version in (1, 2):
            for kind, upstream, http, location in (
                ("by-transfer", "orthancs", BY_TRANSFER, ""),
                ("by-cookie", "$target", BY_COOKIE, SET_COOKIE),
                ("not-sticky", "orthancs", NOT_STICKY, ""),
            ):
                name = f"{kind}-{version}"
                proxy = RecordingProxy(
                    folder / name, upstream, version=version, http=http.format(*ports), location=location
                )
                proxies[name] = stack.enter_context(proxy)
                a.add_peer(name, first, Url=proxy.url)
        yield Balanced(a, first, second, proxies)


@pytest.fixture
def balanced(shared: Balanced) -> Balanced:
    for server in (shared.a, shared.first, shared.second):
        server.clear()
    for proxy in shared.proxies.values():
        proxy.forget()
    return shared


PEERS = ["by-transfer-1", "by-transfer-2", "by-cookie-1", "by-cookie-2"]


@pytest.mark.parametrize("peer", PEERS)
def test_each_push_stays_with_one_server_while_both_get_some(balanced: Balanced, peer: str) -> None:
    studies = []
    for number in range(4):
        uploaded = balanced.a.upload_all(small_instances(20, seed=number))
        studies.append(resource("Study", uploaded[0]["ParentStudy"]))

    pushes = 0
    servers: set[str] = set()
    # How the identifiers are spread is up to chance.
    while pushes < len(studies) or (len(servers) < 2 and pushes < 30):
        balanced.send(studies[pushes % len(studies)], peer)
        pushes += 1
        reached = balanced.servers_of_pushes(peer)
        assert all(len(of_push) == 1 for of_push in reached.values())
        servers = set().union(*reached.values())
    assert len(reached) == pushes
    assert len(servers) == 2
    arrived = {**balanced.first.md5s(), **balanced.second.md5s()}
    assert arrived == balanced.a.md5s()


@pytest.mark.parametrize("version", [1, 2])
def test_a_balancer_that_is_not_sticky_is_named(balanced: Balanced, version: int) -> None:
    uploaded = balanced.a.upload_all(ct_study(8, size=256))
    study = resource("Study", uploaded[0]["ParentStudy"])
    job = balanced.a.wait_for_job(balanced.a.send([study], f"not-sticky-{version}")["ID"])
    assert job["State"] == "Failure", job
    assert job["Content"]["Error"] == (
        f"requests to peer not-sticky-{version} reach different Orthancs, and one does not know what another was told:"
        " let its load balancer send all that have the same header sender-transfer-id to the same Orthanc"
        " (sticky sessions)"
    )
    assert balanced.first.instances() == balanced.second.instances() == []


@pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed")
def test_two_orthancs_on_one_database_are_one_peer(make_server: MakeServer, tmp_path: Path) -> None:
    a = make_server("a", configuration={"Transfers": {"BucketSize": 64}})
    with PostgreSQL() as database:
        first, second = (
            make_server(
                name,
                configuration={
                    "StorageDirectory": str(tmp_path / "storage"),
                    "PostgreSQL": database.section,
                    "SaveJobs": False,
                },
                plugins=[index_plugin()],
            )
            for name in ("first", "second")
        )
        # One makes the tables, the other finds them.
        first.start()
        with behind_balancers(a, first, second, tmp_path / "nginx") as balanced:
            start_together(a, second)
            uploaded = a.upload_all(ct_study(4, size=256))
            study = resource("Study", uploaded[0]["ParentStudy"])
            for peer in PEERS:
                balanced.send(study, peer, Compression="gzip")
                assert first.md5s() == second.md5s() == a.md5s()
                first.clear()
            balanced.send(study, "by-transfer-2")
            # A fetch asks the next server, and all have the same.
            a.clear()
            for peer in PEERS:
                job = a.wait_for_job(a.pull([study], peer)["ID"])
                assert job["State"] == "Success", job
                assert a.md5s() == second.md5s()
                a.clear()
            # Neither touches what the other one is receiving.
            assert len(list((tmp_path / "storage" / "Transfers").rglob("lock"))) == 2
            first.stop()
            second.stop()
