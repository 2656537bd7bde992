"""What happens while instances are listed: the peer is asked who it is, and a long line gets its connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orthanc_transfers.core.content_encoding import CONTENT_ENCODING
from orthanc_transfers.core.errors import PeerUntrusted
from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.pipeline.concurrency import max_requests
from tests.jobs.two_peers import World, eventually, file, finish, settings, step_until, world

ASKED = "GET /transfers/capabilities"
LOOKUP = "POST /transfers/lookup"


@pytest.fixture
def both(tmp_path: Path) -> Iterator[World]:
    """A study of ten files on both sides."""
    made = world(tmp_path)
    for server in (made.here, made.there):
        server.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


def test_the_instances_are_listed_while_the_peer_is_asked(both: World) -> None:
    both.here.store.put(*(file(number, 200) for number in range(100, 300)))
    listed = threading.Event()
    both.here.store.before_manifest = listed.set
    hold = both.line.hold(ASKED)
    job = both.push()
    step_until(job, lambda: hold.reached.is_set() and listed.is_set())
    both.line.let_go()
    assert finish(job) is StepOutcome.SUCCESS


@pytest.mark.parametrize("way", ["push", "pull"])
def test_a_cancel_ends_the_question(both: World, way: str) -> None:
    hold = both.line.hold(ASKED)
    job = getattr(both, way)()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.CANCELED)
    eventually(lambda: both.line.connected == 0)
    assert job.step() is StepOutcome.FAILURE


def test_a_list_that_fails_does_not_wait_for_the_question(both: World) -> None:
    both.here.store.files.clear()
    both.line.hold(ASKED)
    job = both.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "Waiting" not in str(job.content())
    # Neither does the question go on for nobody.
    eventually(lambda: all(thread.name != "transfers-handshake" for thread in threading.enumerate()))


def test_what_the_question_finds_ends_the_job(both: World) -> None:
    def away(request: str, body: bytes) -> bytes:
        if request == ASKED:
            raise PeerUntrusted("peer there cannot be reached: nobody home", "there")
        return body

    both.line.before = away
    job = both.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "nobody home" in (job.failure() or "")


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize(
    ("round_trip", "expected"), [(0.1, max_requests(settings().threads) - 1), (0.001, 0)]
)
def test_a_long_line_gets_its_connections_at_once(
    both: World, way: str, round_trip: float, expected: int
) -> None:
    both.line.round_trip = round_trip
    assert finish(getattr(both, way)()) is StepOutcome.SUCCESS
    eventually(lambda: both.line.prepared >= expected)
    assert both.line.prepared == expected


def test_a_long_list_goes_encoded_both_ways(both: World) -> None:
    for server in (both.here, both.there):
        server.store.files.clear()
    both.there.store.put(*(file(number, 200) for number in range(200)))
    answers: list[Mapping[str, str]] = []

    def listen(request: str, answer: PeerResponse) -> PeerResponse:
        if request == LOOKUP:
            answers.append(answer.headers)
        return answer

    both.line.after = listen
    assert finish(both.pull()) is StepOutcome.SUCCESS
    assert {headers[CONTENT_ENCODING] for headers in answers} == {"zstd"}
    both.there.store.files.clear()
    assert finish(both.push()) is StepOutcome.SUCCESS
    creation = both.line.log.index("POST /transfers/v2/push")
    assert both.line.headers[creation][CONTENT_ENCODING] == "zstd"
    assert both.there.store.files == both.here.store.files
