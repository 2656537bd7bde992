"""Pull alone: our job against our own routes, and against a peer that has those of version 1 only."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import Conflict
from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.jobs.memory_link import once
from tests.jobs.memory_store import STUDY, file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, step_until

CHUNKS = {1: "GET /transfers/chunks/.*", 2: "POST /transfers/v2/chunks"}
BUCKETS = {1: 5, 2: 7}


@pytest.fixture(params=[1, 2], ids=["version1", "version2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def pair(tmp_path: Path, version: int) -> Iterator[PeerPair]:
    """A study of ten files there, on a peer of either version."""
    made = make_pair(tmp_path, version=version, MaxHttpRetries=1)
    made.there.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


def test_what_does_not_compress_comes_as_it_is(pair: PeerPair) -> None:
    noise = random.Random(1)
    pair.there.store.files.clear()
    pair.there.store.put(*(noise.randbytes(9000) for _ in range(20)))
    job = pair.pull()
    finish(job)
    codecs = job.content()["Codecs"]
    # The first answers of a peer of version 1 are what tells.
    assert codecs["none"] > codecs.get("gzip", 0)
    assert job.content()["CompressionRatio"] == pytest.approx(1, abs=0.01)


def test_before_the_look_up_the_content_says_what_was_asked_for(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold("POST /transfers/lookup")
    job = pair.pull(Originator=pair.there.originator)
    step_until(job, lambda: hold.reached.is_set() and "Protocol" in job.content())
    assert job.content() == {
        "Resources": [{"Level": "Study", "Type": "Study", "ID": STUDY}],
        "Peer": "there",
        "Compression": "auto",
        "Originator": pair.there.originator,
        "Protocol": version,
        "CompressionUsed": "auto",
        "Phase": "Listing",
    }
    assert job.progress() == 0
    pair.link.let_go()


def test_the_content_at_the_end(pair: PeerPair, version: int) -> None:
    job = pair.pull()
    finish(job)
    content = job.content()
    assert content["Phase"] == "Done"
    assert content["ImportedInstances"] == 10
    assert content["CompletedHttpQueries"] == BUCKETS[version]
    assert content["Report"] == {"Stored": 10, "AlreadyStored": 0, "FilteredOut": 0}


def test_the_import_is_followed(pair: PeerPair) -> None:
    reached: list[int] = []
    job = pair.pull()

    def look() -> None:
        assert job.content()["Phase"] == "Importing"
        reached.append(job.content()["ImportedInstances"])

    pair.here.store.before_add = look
    finish(job)
    assert max(reached) > 0


def test_nothing_to_fetch_is_a_success_without_totals(pair: PeerPair) -> None:
    job = pair.pull(Resources=[])
    assert finish(job) is StepOutcome.SUCCESS
    assert job.progress() == 1
    assert not job.content().keys() & {"TotalInstances", "TotalSizeMB", "CompletedHttpQueries"}


def test_what_is_here_already_is_not_fetched(pair: PeerPair, version: int) -> None:
    pair.here.store.put(*(file(number) for number in range(10)))
    job = pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS[version]) == 0
    content = job.content()
    assert content["AlreadyStoredInstances"] == 10
    assert content["CompletedHttpQueries"] > 0


def test_a_pull_from_oneself_ends(pair: PeerPair) -> None:
    pair.here.store.put(file(1))
    assert finish(pair.pull("here")) is StepOutcome.SUCCESS


# --- pause, cancel, restart


@pytest.mark.parametrize("reason", [StopReason.PAUSED, StopReason.CANCELED], ids=["paused", "canceled"])
def test_a_pull_that_is_stopped_does_not_look_any_further_what_is_there(
    pair: PeerPair, reason: StopReason
) -> None:
    begun = threading.Event()

    def look(cancellation: Cancellation) -> None:
        begun.set()
        cancellation.wait(60)

    pair.here.store.before_md5s = look
    job = pair.pull()
    step_until(job, begun.is_set)
    job.stop(reason)
    eventually(lambda: not pair.link.connected)
    pair.here.store.before_md5s = lambda cancellation: None
    if reason is StopReason.CANCELED:
        job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files


def test_a_restart_of_the_peer_does_not_make_it_a_wrong_one(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold(CHUNKS[version], skip=3)
    job = pair.pull(Originator=pair.there.originator)
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    pair.link.let_go()
    pair.there.name = "renamed"
    pair.there.restart()
    assert finish(job) is StepOutcome.SUCCESS


def test_a_pull_that_was_canceled_after_a_restart_leaves_nothing(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold(CHUNKS[version], skip=2)
    job = pair.pull()
    step_until(job, hold.reached.is_set)
    again = pair.restart(job)
    assert pair.here.unfinished() == 1
    again.stop(StopReason.CANCELED)
    eventually(lambda: pair.here.unfinished() == 0)


def test_after_a_restart_nothing_belongs_to_a_pull_that_was_canceled(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold(CHUNKS[version], skip=2)
    job = pair.pull()
    step_until(job, hold.reached.is_set)
    token = job.serialized()["Token"]
    # The process died before it had deleted what the pull had received: only this was saved.
    job.stop(StopReason.CANCELED)
    assert reload(pair.services, job.type, job.serialized()).token != token


def test_a_cancel_during_the_import_leaves_nothing(pair: PeerPair) -> None:
    job = pair.pull()

    def cancel() -> None:
        if len(pair.here.store.files) == 3:
            job.stop(StopReason.CANCELED)

    pair.here.store.before_add = cancel
    for _ in range(100):
        if job.step() is not StepOutcome.CONTINUE:
            break
    eventually(lambda: pair.here.unfinished() == 0)
    assert pair.here.store.files == {}


# --- failures


def test_a_missing_resource_fails_the_job(pair: PeerPair) -> None:
    job = pair.pull(Resources=[{"Level": "Study", "ID": "nowhere"}])
    assert finish(job) is StepOutcome.FAILURE
    assert "peer there lacks one of the resources, or the transfers accelerator" in (job.failure() or "")


def test_another_originator_than_expected_fails_the_job(pair: PeerPair) -> None:
    job = pair.pull(Originator="another process")
    assert finish(job) is StepOutcome.FAILURE
    assert "RemoteSelf" in (job.failure() or "")
    assert pair.here.store.files == {}


def test_a_pull_whose_import_failed_before_its_job_was_saved_fails_and_does_not_start_over(
    pair: PeerPair,
) -> None:
    # Or what Orthanc has died of twice would be fetched and imported twice more.
    refused = sorted(pair.there.store.files)[4]
    pair.here.store.refused.add(refused)
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    pair.here.store.refused.clear()
    again = pair.restart(job)
    assert finish(again) is StepOutcome.FAILURE
    assert refused in (again.failure() or "")
    assert pair.here.store.files == {}
    again.reset()
    assert finish(again) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files


def test_a_failed_pull_goes_on_when_resubmitted(pair: PeerPair, version: int) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if "chunks" in request and pair.link.count(CHUNKS[version]) > 4:
            raise Conflict("cut")
        return body

    pair.link.before = cut
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    pair.link.before = lambda request, body: body
    pair.link.log.clear()
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert 0 < pair.link.count(CHUNKS[version]) < BUCKETS[version]


def test_bytes_that_were_damaged_on_their_way_are_fetched_again(pair: PeerPair, version: int) -> None:
    damaged: list[str] = []

    def damage(request: str, answer: PeerResponse) -> PeerResponse:
        if "chunks" in request and not damaged:
            damaged.append(request)
            body = bytes(answer.body)
            return PeerResponse(body[:100] + bytes([body[100] ^ 1]) + body[101:], answer.headers)
        return answer

    pair.link.after = damage
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS[version]) > BUCKETS[version]
    assert pair.here.store.files == pair.there.store.files


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("cut", [lambda body: body[:-3], lambda body: body + b"more", lambda body: b""])
def test_a_response_of_another_size_is_fetched_again(pair: PeerPair, compression: str, cut) -> None:  # type: ignore[no-untyped-def]
    damaged: list[str] = []

    def damage(request: str, answer: PeerResponse) -> PeerResponse:
        if "chunks" in request and not damaged:
            damaged.append(request)
            return PeerResponse(cut(bytes(answer.body)), answer.headers)
        return answer

    pair.link.after = damage
    assert finish(pair.pull(compression=compression)) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files


def test_responses_that_stay_invalid_fail_the_job(pair: PeerPair) -> None:
    pair.link.after = lambda request, answer: PeerResponse(b"<html>") if "chunks" in request else answer
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert "there" in (job.failure() or "")


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"Instances": [{"ID'])
def test_a_look_up_that_makes_no_sense_is_made_again(pair: PeerPair, body: bytes) -> None:
    pair.link.after = once("lookup", PeerResponse(body))
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files


def test_a_look_up_that_never_makes_sense_fails_the_job(pair: PeerPair) -> None:
    pair.link.after = lambda request, answer: PeerResponse(b"<html>") if "lookup" in request else answer
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert "peer there sent an invalid response to POST /transfers/lookup" in (job.failure() or "")


def test_an_instance_that_is_not_as_announced_is_named(pair: PeerPair) -> None:
    wrong = sorted(pair.there.store.files)[4]
    pair.there.store.listed[wrong] = md5(b"something else")
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert wrong in (job.failure() or "")
    assert pair.here.store.files == {}
