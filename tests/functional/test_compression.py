"""``"Compression": "gzip"``, asked for by habit: what is best between two of our own, gzip with a peer of version 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.recording_proxy import RecordingProxy

pytestmark = pytest.mark.orthanc


@dataclass(frozen=True)
class World:
    """``habit`` and ``strict`` (``StrictCompression``) know each other, also as ``old`` by version 1 only, and as
    ``pulls`` in pull mode."""

    servers: dict[str, OrthancServer]


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    habit = make_shared_server("habit")
    strict = make_shared_server("strict", configuration={"Transfers": {"StrictCompression": True}})
    folder = tmp_path_factory.mktemp("nginx")
    with (
        RecordingProxy(folder / "habit", habit, version=1) as to_habit,
        RecordingProxy(folder / "strict", strict, version=1) as to_strict,
    ):
        for here, there, proxy in ((habit, strict, to_strict), (strict, habit, to_habit)):
            here.add_peer("new", there)
            here.add_peer("pulls", there, RemoteSelf="new")
            here.add_peer("old", there, Url=proxy.url)
        start_together(habit, strict)
        yield World({"habit": habit, "strict": strict})


@pytest.fixture
def world(shared: World) -> World:
    """The same servers for all tests of this file, empty at the start of each."""
    for server in shared.servers.values():
        server.clear()
    return shared


def content_of(world: World, job_of: str, peer: str, *, pulls: bool) -> dict[str, Any]:
    """Of a job that moves a new CT slice, asked for with gzip."""
    here = world.servers[job_of]
    (there,) = (server for server in world.servers.values() if server is not here)
    (stored,) = (there if pulls else here).upload_all(ct_study(1, size=256))
    wanted = [resource("Study", stored["ParentStudy"])]
    answer = (here.pull if pulls else here.send)(wanted, peer, Compression="gzip")
    remote = answer.get("RemoteJob")
    job = here.wait_for_job(answer["ID"]) if remote is None else there.wait_for_job(remote)
    assert job["State"] == "Success", job
    assert here.md5s() == there.md5s() != {}
    content: dict[str, Any] = job["Content"]
    assert content["Compression"] == "gzip"
    return content


def used(content: dict[str, Any]) -> tuple[str, bool]:
    """What was used, and whether all of it was gzip."""
    codecs = set(content["Codecs"])
    # The best for a near peer are plain bytes; on a busy machine none seems near.
    assert codecs == {"gzip"} or "gzip" not in codecs
    return content["CompressionUsed"], codecs == {"gzip"}


AUTO = ("auto", False)
GZIP = ("gzip", True)


@pytest.mark.parametrize("pulls", [False, True], ids=["push", "pull"])
@pytest.mark.parametrize(
    ("job_of", "peer", "expected"),
    [
        ("habit", "new", AUTO),
        ("strict", "new", GZIP),
        ("habit", "old", GZIP),
        ("strict", "old", GZIP),
    ],
)
def test_what_gzip_means_is_said_by_who_has_the_job_and_what_the_peer_speaks(
    world: World, job_of: str, peer: str, pulls: bool, expected: tuple[str, bool]
) -> None:
    assert used(content_of(world, job_of, peer, pulls=pulls)) == expected


@pytest.mark.parametrize(("asked_of", "expected"), [("habit", GZIP), ("strict", AUTO)])
def test_in_pull_mode_the_job_is_the_peers_and_follows_its_setting(
    world: World, asked_of: str, expected: tuple[str, bool]
) -> None:
    assert used(content_of(world, asked_of, "pulls", pulls=False)) == expected
