"""While instances are listed, the peer is asked for its capabilities, and a long link gets its connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orthanc_transfers.core.content_encoding import CONTENT_ENCODING
from orthanc_transfers.core.errors import PeerUntrusted
from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.pipeline.concurrency import max_requests
from tests.jobs.memory_server import settings
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, step_until

ASKED = "GET /transfers/capabilities"
LOOKUP = "POST /transfers/lookup"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[PeerPair]:
    """A study of ten files on both sides."""
    made = make_pair(tmp_path)
    for server in (made.here, made.there):
        server.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


def test_the_instances_are_listed_while_the_peer_is_asked(pair: PeerPair) -> None:
    pair.here.store.put(*(file(number, 200) for number in range(100, 300)))
    listed = threading.Event()
    pair.here.store.before_manifest = listed.set
    hold = pair.link.hold(ASKED)
    job = pair.push()
    step_until(job, lambda: hold.reached.is_set() and listed.is_set())
    pair.link.let_go()
    assert finish(job) is StepOutcome.SUCCESS


@pytest.mark.parametrize("way", ["push", "pull"])
def test_a_cancel_ends_the_question(pair: PeerPair, way: str) -> None:
    hold = pair.link.hold(ASKED)
    job = getattr(pair, way)()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.CANCELED)
    eventually(lambda: pair.link.connected == 0)
    assert job.step() is StepOutcome.FAILURE


def test_a_list_that_fails_does_not_wait_for_the_question(pair: PeerPair) -> None:
    pair.here.store.files.clear()
    pair.link.hold(ASKED)
    job = pair.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "Waiting" not in str(job.content())
    # Neither does the request go on without a caller.
    eventually(lambda: all(thread.name != "transfers-handshake" for thread in threading.enumerate()))


def test_what_the_question_finds_ends_the_job(pair: PeerPair) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if request == ASKED:
            raise PeerUntrusted("peer there cannot be reached: certificate expired", "there")
        return body

    pair.link.before = cut
    job = pair.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "certificate expired" in (job.failure() or "")


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize(
    ("round_trip", "expected"), [(0.1, max_requests(settings().threads) - 1), (0.001, 0)]
)
def test_a_long_link_gets_its_connections_at_once(
    pair: PeerPair, way: str, round_trip: float, expected: int
) -> None:
    pair.link.round_trip = round_trip
    assert finish(getattr(pair, way)()) is StepOutcome.SUCCESS
    eventually(lambda: pair.link.prepared >= expected)
    assert pair.link.prepared == expected


def test_a_long_list_goes_encoded_both_ways(pair: PeerPair) -> None:
    for server in (pair.here, pair.there):
        server.store.files.clear()
    pair.there.store.put(*(file(number, 200) for number in range(200)))
    answers: list[Mapping[str, str]] = []

    def listen(request: str, answer: PeerResponse) -> PeerResponse:
        if request == LOOKUP:
            answers.append(answer.headers)
        return answer

    pair.link.after = listen
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert {headers[CONTENT_ENCODING] for headers in answers} == {"zstd"}
    pair.there.store.files.clear()
    assert finish(pair.push()) is StepOutcome.SUCCESS
    creation = pair.link.log.index("POST /transfers/v2/push")
    assert pair.link.headers[creation][CONTENT_ENCODING] == "zstd"
    assert pair.there.store.files == pair.here.store.files
