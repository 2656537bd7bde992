"""The network breaks each kind of request in turn: the transfer succeeds, or says in one sentence what is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from tests.faults.fault_proxy import Fault, FaultProxy
from tests.faults.network_faults import FAULTS, named
from tests.faults.protocol_matrix import PUSH_VARIANTS, VARIANTS, ProtocolMatrix, Transfer, start_matrix
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer

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


def peer_of(variant: str) -> str:
    """The name of the peer that a transfer talks to."""
    return {"push": "b", "pull": "a"}[variant[:4]] + variant[-1]


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix[FaultProxy]]:
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
    with start_matrix(
        make_shared_server("a"),
        make_shared_server("b"),
        folder,
        folder / "staging",
        transfers,
        between=lambda _, server, version: FaultProxy(server, version),
        Timeout=TIMEOUT,
    ) as matrix:
        yield matrix
        # Pushes whose creation was not answered expire.
        matrix.nothing_is_left()


@pytest.fixture
def matrix(shared: ProtocolMatrix[FaultProxy]) -> ProtocolMatrix[FaultProxy]:
    """The same two Orthancs for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


def study(server: OrthancServer) -> list[dict[str, str]]:
    """Six instances of 34 KB, in as many buckets."""
    return [resource("Study", server.upload_all(ct_study(6, size=128))[0]["ParentStudy"])]


def judge(matrix: ProtocolMatrix[FaultProxy], transfer: Transfer, peer: str) -> None:
    """A transfer has succeeded and all is there; or it says why not, nothing is there, and it succeeds again."""
    job = transfer.end()
    if job["State"] == "Failure":
        said = job["Content"]["Error"]
        assert "peer" in said
        assert peer in said
        assert "\n" not in said
        assert "Traceback" not in said
        assert matrix.b.instances() == []
        transfer.again().succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in CORRUPTING], ids=str)
def test_what_happens_once_to_each_kind_of_request_is_overcome_in_all_four_ways(
    matrix: ProtocolMatrix[FaultProxy], fault: Fault
) -> None:
    for variant in VARIANTS:
        matrix.proxies[variant].spoil(fault)
    transfers = {variant: matrix.start(variant, study(matrix.a)) for variant in VARIANTS}
    ends = {variant: transfer.end() for variant, transfer in transfers.items()}
    assert {variant: job["Content"].get("Error") for variant, job in ends.items()} == dict.fromkeys(VARIANTS)
    assert matrix.b.md5s() == matrix.a.md5s()
    for variant in VARIANTS:
        # A commit that is asked for twice may be over by then, and its outcome needs no question.
        assert {kind for kind, _ in matrix.proxies[variant].suffered} >= KINDS_OF[variant] - {"status"}


@pytest.mark.parametrize("name", ["answer lost by a reset", "answer broken off", "answer swallowed", "502"])
def test_the_outcome_of_a_commit_is_asked_for_again(matrix: ProtocolMatrix[FaultProxy], name: str) -> None:
    proxy = matrix.proxies["push-2"]
    proxy.spoil(named(name), "status", times=2)
    matrix.start("push-2", study(matrix.a)).succeed()
    assert matrix.b.md5s() == matrix.a.md5s()
    assert ("status", name) in proxy.suffered


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_corrupted_bytes_are_sent_again(
    matrix: ProtocolMatrix[FaultProxy], variant: str, compression: str
) -> None:
    name, kind = ("request corrupted", "put") if variant in PUSH_VARIANTS else ("answer corrupted", "chunks")
    matrix.proxies[variant].spoil(named(name), kind)
    matrix.start(variant, study(matrix.a), Compression=compression).succeed()
    assert matrix.b.md5s() == matrix.a.md5s()
    assert matrix.proxies[variant].suffered == [(kind, name)]


@pytest.mark.parametrize(
    ("variant", "kind"), [(variant, kind) for variant, kinds in KINDS_OF.items() for kind in sorted(kinds)]
)
@pytest.mark.parametrize("fault", CORRUPTING, ids=str)
def test_a_corrupted_message_does_no_harm(
    matrix: ProtocolMatrix[FaultProxy], variant: str, kind: str, fault: Fault
) -> None:
    matrix.proxies[variant].spoil(fault, kind)
    judge(matrix, matrix.start(variant, study(matrix.a)), peer_of(variant))
    assert matrix.proxies[variant].suffered == [(kind, fault.name)]


@pytest.mark.parametrize(
    ("variant", "kind"), [(variant, kind) for variant, kinds in KINDS_OF.items() for kind in sorted(kinds)]
)
def test_a_page_instead_of_an_answer_is_never_taken_for_success(
    matrix: ProtocolMatrix[FaultProxy], variant: str, kind: str
) -> None:
    proxy = matrix.proxies[variant]
    proxy.spoil(named("HTML instead of JSON"), kind, times=math.inf)
    transfer = matrix.start(variant, study(matrix.a))
    said = transfer.failure()
    assert peer_of(variant) in said
    assert "invalid response" in said or "other bytes" in said or "checksum" in said
    # A sender that does not hear the outcome: the receiver has come to its own.
    assert matrix.b.md5s() == (matrix.a.md5s() if kind == "status" else {})
    proxy.forget()
    transfer.again().succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


def test_pages_instead_of_all_answers_are_named_as_invalid(matrix: ProtocolMatrix[FaultProxy]) -> None:
    for variant in VARIANTS:
        matrix.proxies[variant].spoil(named("HTML instead of JSON"), times=math.inf)
    transfers = {variant: matrix.start(variant, study(matrix.a)) for variant in VARIANTS}
    for variant, transfer in transfers.items():
        said = transfer.failure()
        assert f"peer {peer_of(variant)} sent an invalid response" in said


# --- what fits in one request


def small_study(server: OrthancServer) -> list[dict[str, str]]:
    """Six instances of 3 KB, in one bucket."""
    return [resource("Study", server.upload_all(ct_study(6, size=32))[0]["ParentStudy"])]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize(("variant", "kind"), [("push-2", "whole"), ("pull-2", "lookup")])
def test_what_happens_to_a_transfer_in_one_request_is_overcome(
    matrix: ProtocolMatrix[FaultProxy], variant: str, kind: str, fault: Fault
) -> None:
    proxy = matrix.proxies[variant]
    proxy.spoil(fault, kind)
    transfer = matrix.start(variant, small_study(matrix.a))
    if fault.name == "answer corrupted" or (variant == "pull-2" and fault in CORRUPTING):
        judge(matrix, transfer, peer_of(variant))
    else:
        counts = transfer.succeed()["Report"]
        assert counts == {"Stored": 6, "AlreadyStored": 0, "FilteredOut": 0}
    assert matrix.b.md5s() == matrix.a.md5s()
    assert (kind, fault.name) in proxy.suffered
