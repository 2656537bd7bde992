"""A proxy that takes small requests only (nginx): transfers get through, or say what to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.dicom_data import ct_study, multi_frame, small_instances
from tests.support.fixtures import MakeServer
from tests.support.nginx import Nginx
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together

pytestmark = pytest.mark.orthanc

VERSION_1 = "location = /transfers/capabilities { return 404; }"
MB = 1024 * 1024


@dataclass(frozen=True)
class World:
    """``a`` knows ``b`` by the names of proxies that stand before it."""

    a: OrthancServer
    b: OrthancServer
    proxies: dict[str, Nginx]
    resources: list[dict[str, str]]

    def refusals(self, peer: str) -> int:
        """Requests that a proxy refused so far."""
        return sum('" 413 ' in line for line in self.proxies[peer].access_log.splitlines())


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("nginx")
    a, b = make_shared_server("a"), make_shared_server("b")
    with ExitStack() as stack:
        proxies = {}
        for size in ("1m", "300k", "50k", "4k"):
            for version in (1, 2):
                # The default of nginx is 1m. What stands last counts.
                proxy = stack.enter_context(
                    Nginx(
                        folder / f"{size}-{version}",
                        b,
                        server=VERSION_1 if version == 1 else "",
                        location=f"client_max_body_size {size};",
                    )
                )
                proxies[f"{size}-{version}"] = proxy
                a.add_peer(f"{size}-{version}", b, Url=proxy.url)
        start_together(a, b)
        uploaded = a.upload_all([multi_frame(14 * MB), *ct_study(6)])
        studies = sorted({one["ParentStudy"] for one in uploaded})
        yield World(a, b, proxies, [resource("Study", study) for study in studies])


@pytest.mark.parametrize("peer", ["1m-1", "1m-2", "300k-1", "300k-2"])
def test_a_push_goes_through_in_smaller_requests(shared: World, peer: str) -> None:
    shared.b.clear()
    job = shared.a.wait_for_job(shared.a.send(shared.resources, peer, Compression="none")["ID"])
    assert job["State"] == "Success", job
    assert shared.b.md5s() == shared.a.md5s()
    refused = shared.refusals(peer)
    assert 0 < refused <= 40

    # Remembered: the next one has nothing refused.
    shared.b.clear()
    job = shared.a.wait_for_job(shared.a.send(shared.resources, peer, Compression="none")["ID"])
    assert job["State"] == "Success", job
    assert shared.b.md5s() == shared.a.md5s()
    assert shared.refusals(peer) == refused


@pytest.mark.parametrize("peer", ["50k-1", "50k-2"])
def test_what_passes_at_no_size_fails_and_says_what_to_change(shared: World, peer: str) -> None:
    shared.b.clear()
    job = shared.a.wait_for_job(shared.a.send(shared.resources, peer, Compression="none")["ID"])
    assert job["State"] == "Failure", job
    error = job["Content"]["Error"]
    assert error.startswith(f"peer '{peer}' answered PUT /transfers/"), error
    assert "with 413: Request Entity Too Large; something in front of this peer takes no request of " in error
    assert error.endswith(
        " bytes: raise its limit there (client_max_body_size of nginx), or lower BucketSize here"
    )
    assert shared.b.instances() == []


def test_a_list_of_instances_that_is_too_long_for_version_1_fails_and_says_what_to_change(
    shared: World,
) -> None:
    shared.b.clear()
    # Each takes two hundred bytes of the one request that creates a push of version 1.
    long_list = shared.a.upload_all(small_instances(400, size=8))[0]["ParentStudy"]
    job = shared.a.wait_for_job(shared.a.send([resource("Study", long_list)], "50k-1")["ID"])
    assert job["State"] == "Failure", job
    assert re.fullmatch(
        "peer '50k-1' answered POST /transfers/push with 413: Request Entity Too Large;"
        r" something in front of this peer takes no request of \d{5} bytes:"
        r" raise its limit there \(client_max_body_size of nginx\), or send fewer instances at once",
        job["Content"]["Error"],
    ), job
    assert shared.b.instances() == []


def test_a_long_list_of_instances_is_announced_in_parts(shared: World, make_server: MakeServer) -> None:
    shared.b.clear()
    proxy = shared.proxies["4k-2"]
    c = make_server("c", configuration={"Transfers": {"BucketSize": 2}})
    c.add_peer("b", shared.b, Url=proxy.url)
    c.start()
    # Their identifiers and MD5s take more than 4 KB, however they are compressed.
    study = c.upload_all(small_instances(200, size=8))[0]["ParentStudy"]
    job = c.wait_for_job(c.send([resource("Study", study)], "b")["ID"])
    assert job["State"] == "Success", job
    assert shared.b.md5s() == c.md5s()
    announced = [line for line in proxy.access_log.splitlines() if '"POST /transfers/v2/push HTTP' in line]
    # In one request, or in two where the first are sent while the others are listed, if it had not been refused.
    assert shared.refusals("4k-2") > 0
    assert sum('" 200 ' in line for line in announced) > 2
