"""The network breaks each kind of request in turn: the transfer ends right, or says in one sentence what is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from tests.faults.breaking import FAULTS, Breaking, Fault, named
from tests.faults.four_ways import PUSHES, WAYS, FourWays, Transfer, four_ways
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, resource

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

# Seconds.
TIMEOUT = 2
EXPIRY = 15

CORRUPTING = (named("request corrupted"), named("answer corrupted"))

KINDS_OF = {
    "push-1": {"create", "put", "commit"},
    "push-2": {"create", "put", "commit", "status"},
    "pull-1": {"lookup", "chunks"},
    "pull-2": {"lookup", "chunks"},
}
"""What is asked in each way, each time (what a peer can do is asked once in a while)."""


def peer_of(way: str) -> str:
    """The name of the peer that a transfer talks to."""
    return {"push": "b", "pull": "a"}[way[:4]] + way[-1]


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FourWays[Breaking]]:
    folder = tmp_path_factory.mktemp("broken-network")
    transfers = {
        "BucketSize": 32,
        "Threads": 2,
        "MaxOutage": 60,
        "MaxHttpRetries": 2,
        "MaxPushTransactions": 100,
        "PeerCommitTimeout": 2 * TIMEOUT,
        "PushIdleTimeout": EXPIRY,
    }
    with four_ways(
        make_shared_server("a"),
        make_shared_server("b"),
        folder,
        folder / "staging",
        transfers,
        between=lambda _, server, version: Breaking(server, version),
        Timeout=TIMEOUT,
    ) as world:
        yield world
        # Pushes whose creation nobody heard of expire.
        world.nothing_is_left()


@pytest.fixture
def world(shared: FourWays[Breaking]) -> FourWays[Breaking]:
    """The same two Orthancs for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


def study(server: OrthancServer) -> list[dict[str, str]]:
    """Six instances of 34 KB, in as many buckets."""
    return [resource("Study", server.upload_all(ct_study(6, size=128))[0]["ParentStudy"])]


def judge(world: FourWays[Breaking], transfer: Transfer, peer: str) -> None:
    """A transfer has succeeded and all is there; or it says why not, nothing is there, and it succeeds again."""
    job = transfer.end()
    if job["State"] == "Failure":
        said = job["Content"]["Error"]
        assert "peer" in said
        assert peer in said
        assert "\n" not in said
        assert "Traceback" not in said
        assert world.b.instances() == []
        transfer.again().succeed()
    assert world.b.md5s() == world.a.md5s()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in CORRUPTING], ids=str)
def test_what_happens_once_to_each_kind_of_request_is_overcome_in_all_four_ways(
    world: FourWays[Breaking], fault: Fault
) -> None:
    for way in WAYS:
        world.fronts[way].spoil(fault)
    transfers = {way: world.start(way, study(world.a)) for way in WAYS}
    ends = {way: transfer.end() for way, transfer in transfers.items()}
    assert {way: job["Content"].get("Error") for way, job in ends.items()} == dict.fromkeys(WAYS)
    assert world.b.md5s() == world.a.md5s()
    for way in WAYS:
        # A commit that is asked for twice may be over by then, and its outcome needs no question.
        assert {kind for kind, _ in world.fronts[way].suffered} >= KINDS_OF[way] - {"status"}


@pytest.mark.parametrize("name", ["answer lost by a reset", "answer broken off", "answer swallowed", "502"])
def test_the_outcome_of_a_commit_is_asked_for_again(world: FourWays[Breaking], name: str) -> None:
    front = world.fronts["push-2"]
    front.spoil(named(name), "status", times=2)
    world.start("push-2", study(world.a)).succeed()
    assert world.b.md5s() == world.a.md5s()
    assert ("status", name) in front.suffered


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("way", WAYS)
def test_corrupted_bytes_are_sent_again(world: FourWays[Breaking], way: str, compression: str) -> None:
    name, kind = ("request corrupted", "put") if way in PUSHES else ("answer corrupted", "chunks")
    world.fronts[way].spoil(named(name), kind)
    world.start(way, study(world.a), Compression=compression).succeed()
    assert world.b.md5s() == world.a.md5s()
    assert world.fronts[way].suffered == [(kind, name)]


@pytest.mark.parametrize(
    ("way", "kind"), [(way, kind) for way, kinds in KINDS_OF.items() for kind in sorted(kinds)]
)
@pytest.mark.parametrize("fault", CORRUPTING, ids=str)
def test_a_corrupted_message_does_no_harm(
    world: FourWays[Breaking], way: str, kind: str, fault: Fault
) -> None:
    world.fronts[way].spoil(fault, kind)
    judge(world, world.start(way, study(world.a)), peer_of(way))
    assert world.fronts[way].suffered == [(kind, fault.name)]


@pytest.mark.parametrize(
    ("way", "kind"), [(way, kind) for way, kinds in KINDS_OF.items() for kind in sorted(kinds)]
)
def test_a_page_instead_of_an_answer_is_never_taken_for_success(
    world: FourWays[Breaking], way: str, kind: str
) -> None:
    front = world.fronts[way]
    front.spoil(named("HTML instead of JSON"), kind, times=math.inf)
    transfer = world.start(way, study(world.a))
    said = transfer.failure()
    assert peer_of(way) in said
    assert "nonsense" in said or "other bytes" in said or "checksum" in said
    # A sender that does not hear the outcome: the receiver has come to its own.
    assert world.b.md5s() == (world.a.md5s() if kind == "status" else {})
    front.forget()
    transfer.again().succeed()
    assert world.b.md5s() == world.a.md5s()


def test_pages_instead_of_all_answers_are_named_as_nonsense(world: FourWays[Breaking]) -> None:
    for way in WAYS:
        world.fronts[way].spoil(named("HTML instead of JSON"), times=math.inf)
    transfers = {way: world.start(way, study(world.a)) for way in WAYS}
    for way, transfer in transfers.items():
        said = transfer.failure()
        assert f"peer {peer_of(way)} answers" in said
        assert "nonsense" in said
