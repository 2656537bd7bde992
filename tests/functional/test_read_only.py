"""Orthanc's option ``ReadOnly`` (since 1.12.5): a receiver that has it refuses before a byte is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from orthanc_transfers.core.orthanc_version import READ_ONLY, at_least
from tests.support.assertions import refused
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.raw_push import RawPush
from tests.support.recording_proxy import RecordingProxy

pytestmark = pytest.mark.orthanc

WORDS = "this Orthanc has ReadOnly in its configuration and receives nothing: set ReadOnly to false there"


@dataclass(frozen=True)
class World:
    """``a`` has a study and sends, ``b`` has another and is read-only, where its Orthanc knows that."""

    a: OrthancServer
    b: OrthancServer
    study: dict[str, str]
    of_b: dict[str, str]
    proxies: dict[int, RecordingProxy]
    """In front of ``b``, by the version of the protocol that they show: its peers ``b1`` and ``b2``."""


@pytest.fixture(scope="module")
def both(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    a, b = make_shared_server("a"), make_shared_server("b")
    b.add_peer("a", a)
    a.add_peer("b", b)
    with ExitStack() as stack:
        proxies = {}
        for version in (1, 2):
            proxy = RecordingProxy(tmp_path_factory.mktemp("nginx"), b, version=version)
            proxies[version] = stack.enter_context(proxy)
            a.add_peer(f"b{version}", b, Url=proxy.url)
        start_together(a, b)
        study = resource("Study", a.upload_all(small_instances(10, seed=1))[0]["ParentStudy"])
        of_b = resource("Study", b.upload_all(small_instances(10, seed=2))[0]["ParentStudy"])
        b.stop()
        b.configuration["ReadOnly"] = True
        b.start()
        yield World(a, b, study, of_b, proxies)


@pytest.fixture
def world(both: World) -> World:
    if not at_least(both.b.get("system")["Version"], READ_ONLY):
        pytest.skip("this Orthanc does not know ReadOnly")
    for proxy in both.proxies.values():
        proxy.forget()
    return both


@pytest.mark.parametrize("version", [1, 2])
def test_a_push_fails_with_that_word_before_a_byte_is_sent(world: World, version: int) -> None:
    job = world.a.wait_for_job(world.a.send([world.study], f"b{version}")["ID"])
    assert job["State"] == "Failure"
    assert f"with 403: Forbidden: {WORDS}" in job["Content"]["Error"]
    assert "password" not in job["Content"]["Error"]
    assert world.proxies[version].of("PUT") == []
    assert not list((world.b.storage / "Transfers").rglob("area"))


@pytest.mark.parametrize("version", [1, 2])
def test_the_refusal_is_an_error_as_orthanc_says_it(world: World, version: int) -> None:
    answer = RawPush(world.b, version, list(small_instances(1))).create()
    assert WORDS in refused(answer, 403, 1)


def test_a_pull_is_refused_before_there_is_a_job(world: World) -> None:
    before = world.b.get("jobs")
    body = {"Resources": [world.study], "Peer": "a", "Compression": "gzip"}
    assert WORDS in refused(world.b.request("POST", "transfers/pull", json=body), 403, 1)
    assert world.b.get("jobs") == before


def test_what_it_has_can_be_sent_and_fetched(world: World) -> None:
    for server, action, peer in ((world.b, "send", "a"), (world.a, "pull", "b")):
        job = server.wait_for_job(getattr(server, action)([world.of_b], peer)["ID"])
        assert job["State"] == "Success", job
        identifier = world.of_b["ID"]
        assert world.a.md5s(f"studies/{identifier}") == world.b.md5s(f"studies/{identifier}")
        world.a.delete(f"studies/{identifier}")


def test_an_orthanc_that_does_not_know_the_option_receives(both: World) -> None:
    if at_least(both.b.get("system")["Version"], READ_ONLY):
        pytest.skip("this Orthanc knows ReadOnly")
    job = both.a.wait_for_job(both.a.send([both.study], "b2")["ID"])
    assert job["State"] == "Success", job
