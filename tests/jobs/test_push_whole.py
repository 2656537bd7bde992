"""A small push is one request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import BodyRefused, PeerStatus, PeerUnreachable
from orthanc_transfers.interfaces import PeerResponse, StepOutcome
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, finish, make_pair, radiographs, step_until

WHOLE = "POST /transfers/v2/push/whole"
CAPABILITIES = "GET /transfers/capabilities"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[PeerPair]:
    """A study of four files here that fits in one bucket."""
    made = make_pair(tmp_path, BucketSize=64)
    made.here.store.put(*(file(number) for number in range(4)))
    yield made
    made.close()


def test_once_the_capabilities_are_known_it_is_one_request(pair: PeerPair) -> None:
    finish(pair.push())
    assert pair.link.log == [CAPABILITIES, WHOLE]
    pair.here.store.put(file(10))
    pair.link.log.clear()
    job = pair.push()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.link.log == [WHOLE]
    assert pair.there.store.files == pair.here.store.files
    content = job.content()
    assert content["CompletedHttpQueries"] == 1
    assert content["AlreadyStoredInstances"] == 4
    assert content["Report"] == {"Stored": 1, "AlreadyStored": 4, "FilteredOut": 0}
    assert content["ImportedInstances"] == 5
    # Both keep the same report.
    kept, theirs = (one.reports.read(content["Transaction"]) for one in (pair.here, pair.there))
    assert kept is not None
    assert theirs is not None
    assert kept["Instances"] == theirs["Instances"]
    assert sorted(row["Outcome"] for row in kept["Instances"]) == [*["already there"] * 4, "stored"]


def test_a_peer_of_an_earlier_release_is_sent_to_as_before(
    pair: PeerPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(request: str, response: PeerResponse) -> PeerResponse:
        body = bytes(response.body)
        return PeerResponse(body.replace(b'"Whole": true', b'"Other": 1'), response.headers)

    pair.link.after = without
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.link.count(WHOLE) == 0
    assert pair.link.count("POST /transfers/v2/push") == 1


def test_a_peer_that_was_replaced_by_an_earlier_release_is_sent_to_as_before(pair: PeerPair) -> None:
    def lacking(request: str, body: bytes) -> bytes:
        if request == WHOLE:
            raise PeerStatus("peer there answered with 404", "there", 404)
        return body

    pair.link.before = lacking
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files
    # And its capabilities are asked for again.
    finish(pair.push())
    assert pair.link.count(CAPABILITIES) == 2


def test_what_does_not_fit_into_a_bucket_goes_in_parts(pair: PeerPair) -> None:
    pair.here.store.put(file(100, 100_000))
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.link.count(WHOLE) == 0
    assert pair.there.store.files == pair.here.store.files


def test_a_proxy_that_takes_small_requests_only_gets_parts(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, BucketSize=512)
    pair.here.store.put(*(file(number, 60_000) for number in range(4)))

    def small_only(request: str, body: bytes) -> bytes:
        if len(body) > 150_000:
            answer = PeerStatus("too large", "there", 413)
            raise BodyRefused("too large", answer, len(body))
        return body

    pair.link.before = small_only
    for _ in range(2):
        assert finish(pair.push(compression="none")) is StepOutcome.SUCCESS
        # What passes is remembered.
        assert pair.link.count(WHOLE) == 1
    assert pair.there.store.files == pair.here.store.files
    pair.close()


@pytest.mark.parametrize("times", [1, 2])
def test_a_response_that_is_lost_costs_no_second_import(pair: PeerPair, times: int) -> None:
    left = [times]

    def lose(request: str, response: PeerResponse) -> PeerResponse:
        if request == WHOLE and left[0]:
            left[0] -= 1
            raise PeerUnreachable("the connection was reset", "there")
        return response

    pair.link.after = lose
    job = pair.push()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["Report"] == {"Stored": 4, "AlreadyStored": 0, "FilteredOut": 0}
    assert pair.link.count(WHOLE) == times + 1
    assert pair.there.metrics.created == 1


def test_a_sender_that_was_restarted_meanwhile_gets_the_outcome(pair: PeerPair) -> None:
    hold = pair.link.hold(WHOLE)
    job = pair.push()
    step_until(job, hold.reached.is_set)
    again = pair.restart(job)
    assert finish(again) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files


def test_a_receiver_that_was_restarted_meanwhile_remembers_the_outcome(pair: PeerPair) -> None:
    left = [1]

    def restart(request: str, response: PeerResponse) -> PeerResponse:
        if request == WHOLE and left[0]:
            left[0] -= 1
            pair.there.restart()
            raise PeerUnreachable("the connection was reset", "there")
        return response

    pair.link.after = restart
    job = pair.push()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["Report"] == {"Stored": 4, "AlreadyStored": 0, "FilteredOut": 0}


def test_a_receiver_that_has_forgotten_the_outcome_finds_all_of_it_there(pair: PeerPair) -> None:
    left = [1]

    def forget(request: str, response: PeerResponse) -> PeerResponse:
        if request == WHOLE and left[0]:
            left[0] -= 1
            for transfer in pair.there.registry.all():
                transfer.discard()
            raise PeerUnreachable("the connection was reset", "there")
        return response

    pair.link.after = forget
    job = pair.push()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["Report"] == {"Stored": 0, "AlreadyStored": 4, "FilteredOut": 0}
    assert pair.there.store.files == pair.here.store.files


def test_damaged_bytes_are_sent_again(pair: PeerPair) -> None:
    left = [1]

    def damage(request: str, body: bytes) -> bytes:
        if request == WHOLE and left[0]:
            left[0] -= 1
            return body[:-3] + b"xyz"
        return body

    pair.link.before = damage
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files
    assert pair.link.count(WHOLE) == 2


def test_a_refused_instance_fails_the_job_and_is_named(pair: PeerPair) -> None:
    (name,) = pair.here.store.put(file(2))
    pair.there.store.refused.add(name)
    job = pair.push()
    assert finish(job) is StepOutcome.FAILURE
    assert name in (job.failure() or "")
    assert pair.there.store.files == {}
    # Another attempt is a new push.
    pair.there.store.refused.clear()
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files


def test_early_connections_are_not_opened_for_it(pair: PeerPair) -> None:
    pair.link.round_trip = 0.1
    finish(pair.push())
    assert pair.link.prepared == 0


@radiographs
def test_a_radiograph_to_a_near_peer_is_one_request(
    tmp_path: Path, round_trip: float | None, bucket_size: int, compression: str, whole: bool
) -> None:
    with closing(make_pair(tmp_path, BucketSize=bucket_size)) as pair:
        pair.here.store.put(*(file(number, 3_000_000) for number in range(2)))
        pair.link.round_trip = round_trip
        job = pair.push(compression=compression)
        assert finish(job) is StepOutcome.SUCCESS
        assert pair.link.count(WHOLE) == whole
        assert pair.there.store.files == pair.here.store.files
        if whole:
            assert job.content()["Codecs"] == {"none": 1}


def test_to_a_near_peer_that_turned_out_to_be_slow_requests_stay_small(tmp_path: Path) -> None:
    with closing(make_pair(tmp_path)) as pair:
        pair.here.store.put(*(file(number, 3_000_000) for number in range(2)))
        pair.link.round_trip = 0.001
        known = pair.services.near_compressions.of("there", "http://there:8042/", sends=True)
        known.record(False, 1_000_000, 1.0)
        assert finish(pair.push()) is StepOutcome.SUCCESS
        assert pair.link.count(WHOLE) == 0
