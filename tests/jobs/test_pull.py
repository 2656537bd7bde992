"""Pull: our job against our own routes, and against a peer that has those of version 1 only."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import Conflict, PeerUnreachable
from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.jobs.two_peers import STUDY, World, eventually, file, finish, once, step_until, world

CHUNKS = {1: "GET /transfers/chunks/.*", 2: "POST /transfers/v2/chunks"}
BUCKETS = {1: 5, 2: 7}


@pytest.fixture(params=[1, 2], ids=["version1", "version2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def both(tmp_path: Path, version: int) -> Iterator[World]:
    """A study of ten files there, on a peer of either version."""
    made = world(tmp_path, version=version, MaxHttpRetries=1)
    made.there.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd"])
def test_everything_arrives_whatever_the_compression(both: World, compression: str) -> None:
    job = both.pull(compression=compression)
    assert finish(job) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files
    assert job.progress() == 1
    assert job.content()["Compression"] == compression


def test_large_instances_are_cut_and_arrive_whole(both: World) -> None:
    both.there.store.put(file(100, 50_001), file(101, 8192), file(102, 4096), file(103, 17))
    assert finish(both.pull()) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files


def test_what_does_not_compress_comes_as_it_is(both: World) -> None:
    noise = random.Random(1)
    both.there.store.files.clear()
    both.there.store.put(*(noise.randbytes(9000) for _ in range(20)))
    job = both.pull()
    finish(job)
    codecs = job.content()["Codecs"]
    # The first answers of a peer of version 1 are what tells.
    assert codecs["none"] > codecs.get("gzip", 0)
    assert job.content()["CompressionRatio"] == pytest.approx(1, abs=0.01)


def test_the_content_is_empty_until_the_first_step(both: World) -> None:
    job = both.pull()
    assert job.content() == {}
    assert job.progress() == 0


def test_before_the_look_up_the_content_says_what_was_asked_for(both: World, version: int) -> None:
    hold = both.line.hold("POST /transfers/lookup")
    job = both.pull(Originator=both.there.originator)
    step_until(job, lambda: hold.reached.is_set() and "Protocol" in job.content())
    assert job.content() == {
        "Resources": [{"Level": "Study", "Type": "Study", "ID": STUDY}],
        "Peer": "there",
        "Compression": "auto",
        "Originator": both.there.originator,
        "Protocol": version,
        "Phase": "Listing",
    }
    assert job.progress() == 0
    both.line.let_go()


def test_the_content_while_fetching(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=1)
    job = both.pull(compression="gzip")
    step_until(job, hold.reached.is_set)
    step_until(job, lambda: job.content().get("CompletedHttpQueries") == 1)
    content = job.content()
    assert job.progress() == pytest.approx(2 / (2 + BUCKETS[version]))
    both.line.let_go()
    content.pop("EstimatedSecondsLeft")
    content.pop("NetworkSpeedKBs")
    assert content.pop("CompressionRatio") > 1
    assert len(content.pop("Transaction")) == 32
    assert content == {
        "Resources": [{"Level": "Study", "Type": "Study", "ID": STUDY}],
        "Peer": "there",
        "Compression": "gzip",
        "TotalInstances": 10,
        "TotalSizeMB": 0,
        "CompletedHttpQueries": 1,
        "DownloadedSizeMB": 0,
        "Protocol": version,
        "Codecs": {"gzip": 1},
        "AlreadyStoredInstances": 0,
        "ResumedSizeMB": 0,
        "Phase": "Fetching",
    }


def test_the_content_at_the_end(both: World, version: int) -> None:
    job = both.pull()
    finish(job)
    content = job.content()
    assert content["Phase"] == "Done"
    assert content["ImportedInstances"] == 10
    assert content["CompletedHttpQueries"] == BUCKETS[version]
    assert content["Report"] == {"Stored": 10, "AlreadyStored": 0, "FilteredOut": 0}


def test_the_import_is_followed(both: World) -> None:
    reached: list[int] = []
    job = both.pull()

    def look() -> None:
        assert job.content()["Phase"] == "Importing"
        reached.append(job.content()["ImportedInstances"])

    both.here.store.before_add = look
    finish(job)
    assert max(reached) > 0


def test_nothing_to_fetch_is_a_success_without_totals(both: World) -> None:
    job = both.pull(Resources=[])
    assert finish(job) is StepOutcome.SUCCESS
    assert job.progress() == 1
    assert not job.content().keys() & {"TotalInstances", "TotalSizeMB", "CompletedHttpQueries"}


def test_what_is_here_already_is_not_fetched(both: World, version: int) -> None:
    both.here.store.put(*(file(number) for number in range(10)))
    job = both.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert both.line.count(CHUNKS[version]) == 0
    content = job.content()
    assert content["AlreadyStoredInstances"] == 10
    assert content["CompletedHttpQueries"] > 0


def test_a_pull_from_oneself_ends(both: World) -> None:
    both.here.store.put(file(1))
    assert finish(both.pull("here")) is StepOutcome.SUCCESS


# --- pause, cancel, restart


def test_a_pause_stops_the_fetching_and_a_resume_fetches_only_the_rest(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=3)
    job = both.pull()
    step_until(job, hold.reached.is_set)
    step_until(job, lambda: job.content().get("CompletedHttpQueries") == 3)
    before = job.progress()
    job.stop(StopReason.PAUSED)
    eventually(lambda: not both.line.connected)
    both.line.let_go()
    assert job.progress() == before
    assert finish(job) is StepOutcome.SUCCESS
    assert both.line.count(CHUNKS[version]) <= BUCKETS[version] + 1
    assert both.here.store.files == both.there.store.files


@pytest.mark.parametrize("reason", [StopReason.PAUSED, StopReason.CANCELED], ids=["paused", "canceled"])
def test_a_pull_that_is_stopped_does_not_look_any_further_what_is_there(
    both: World, reason: StopReason
) -> None:
    begun = threading.Event()

    def look(cancellation: Cancellation) -> None:
        begun.set()
        cancellation.wait(60)

    both.here.store.before_md5s = look
    job = both.pull()
    step_until(job, begun.is_set)
    job.stop(reason)
    eventually(lambda: not both.line.connected)
    both.here.store.before_md5s = lambda cancellation: None
    if reason is StopReason.CANCELED:
        job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files


def test_a_pull_goes_on_after_a_restart(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=3)
    job = both.pull(Originator=both.there.originator)
    step_until(job, hold.reached.is_set)
    step_until(job, lambda: job.content().get("CompletedHttpQueries") == 3)
    before = job.progress()
    again = both.restart(job)
    assert again.progress() == pytest.approx(before, abs=1e-3)
    assert finish(again) is StepOutcome.SUCCESS
    assert both.line.count(CHUNKS[version]) <= BUCKETS[version] + 1
    assert both.here.store.files == both.there.store.files


def test_a_restart_of_the_peer_does_not_make_it_a_wrong_one(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=3)
    job = both.pull(Originator=both.there.originator)
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    both.line.let_go()
    both.there.name = "renamed"
    both.there.restart()
    assert finish(job) is StepOutcome.SUCCESS


def test_a_cancel_deletes_what_was_received(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=2)
    job = both.pull()
    step_until(job, hold.reached.is_set)
    assert both.here.unfinished() == 1
    job.stop(StopReason.CANCELED)
    eventually(lambda: both.here.unfinished() == 0)
    both.line.let_go()
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files


def test_a_pull_that_was_canceled_after_a_restart_leaves_nothing(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=2)
    job = both.pull()
    step_until(job, hold.reached.is_set)
    again = both.restart(job)
    assert both.here.unfinished() == 1
    again.stop(StopReason.CANCELED)
    eventually(lambda: both.here.unfinished() == 0)


def test_after_a_restart_nothing_belongs_to_a_pull_that_was_canceled(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=2)
    job = both.pull()
    step_until(job, hold.reached.is_set)
    token = job.serialized()["Token"]
    # The process died before it had deleted what the pull had received: only this was saved.
    job.stop(StopReason.CANCELED)
    assert reload(both.env, job.type, job.serialized()).token != token


def test_a_cancel_during_the_import_leaves_nothing(both: World) -> None:
    job = both.pull()

    def cancel() -> None:
        if len(both.here.store.files) == 3:
            job.stop(StopReason.CANCELED)

    both.here.store.before_add = cancel
    for _ in range(100):
        if job.step() is not StepOutcome.CONTINUE:
            break
    eventually(lambda: both.here.unfinished() == 0)
    assert both.here.store.files == {}


# --- failures


def test_a_missing_resource_fails_the_job(both: World) -> None:
    job = both.pull(Resources=[{"Level": "Study", "ID": "nowhere"}])
    assert finish(job) is StepOutcome.FAILURE
    assert "peer there lacks one of the resources, or the transfers accelerator" in (job.failure() or "")


def test_another_originator_than_expected_fails_the_job(both: World) -> None:
    job = both.pull(Originator="somebody else")
    assert finish(job) is StepOutcome.FAILURE
    assert "RemoteSelf" in (job.failure() or "")
    assert both.here.store.files == {}


def test_a_refused_import_fails_the_job_and_leaves_nothing(both: World) -> None:
    refused = sorted(both.there.store.files)[4]
    both.here.store.refused.add(refused)
    job = both.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert refused in (job.failure() or "")
    assert both.here.store.files == {}
    both.here.store.refused.clear()
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files


def test_a_failed_pull_goes_on_when_resubmitted(both: World, version: int) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if "chunks" in request and both.line.count(CHUNKS[version]) > 4:
            raise Conflict("cut")
        return body

    both.line.before = cut
    job = both.pull()
    assert finish(job) is StepOutcome.FAILURE
    both.line.before = lambda request, body: body
    both.line.log.clear()
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert 0 < both.line.count(CHUNKS[version]) < BUCKETS[version]


def test_bytes_that_were_damaged_on_their_way_are_fetched_again(both: World, version: int) -> None:
    damaged: list[str] = []

    def damage(request: str, answer: PeerResponse) -> PeerResponse:
        if "chunks" in request and not damaged:
            damaged.append(request)
            body = bytes(answer.body)
            return PeerResponse(body[:100] + bytes([body[100] ^ 1]) + body[101:], answer.headers)
        return answer

    both.line.after = damage
    assert finish(both.pull()) is StepOutcome.SUCCESS
    assert both.line.count(CHUNKS[version]) > BUCKETS[version]
    assert both.here.store.files == both.there.store.files


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("cut", [lambda body: body[:-3], lambda body: body + b"more", lambda body: b""])
def test_an_answer_of_another_size_is_fetched_again(both: World, compression: str, cut) -> None:  # type: ignore[no-untyped-def]
    damaged: list[str] = []

    def damage(request: str, answer: PeerResponse) -> PeerResponse:
        if "chunks" in request and not damaged:
            damaged.append(request)
            return PeerResponse(cut(bytes(answer.body)), answer.headers)
        return answer

    both.line.after = damage
    assert finish(both.pull(compression=compression)) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files


def test_answers_that_never_make_sense_fail_the_job(both: World) -> None:
    both.line.after = lambda request, answer: PeerResponse(b"<html>") if "chunks" in request else answer
    job = both.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert "there" in (job.failure() or "")


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"Instances": [{"ID'])
def test_a_look_up_that_makes_no_sense_is_made_again(both: World, body: bytes) -> None:
    both.line.after = once("lookup", PeerResponse(body))
    assert finish(both.pull()) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files


def test_a_look_up_that_never_makes_sense_fails_the_job(both: World) -> None:
    both.line.after = lambda request, answer: PeerResponse(b"<html>") if "lookup" in request else answer
    job = both.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert "peer there sent an invalid response to POST /transfers/lookup" in (job.failure() or "")


def test_an_instance_that_is_not_as_announced_is_named(both: World) -> None:
    wrong = sorted(both.there.store.files)[4]
    both.there.store.listed[wrong] = md5(b"something else")
    job = both.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert wrong in (job.failure() or "")
    assert both.here.store.files == {}


def test_a_peer_that_is_away_is_waited_for(both: World) -> None:
    away = [True]

    def cut(request: str, body: bytes) -> bytes:
        if away[0]:
            raise PeerUnreachable("connection refused", "there")
        return body

    both.line.before = cut
    job = both.pull()
    step_until(job, lambda: "Waiting" in job.content())
    away[0] = False
    assert finish(job) is StepOutcome.SUCCESS
    assert "Waiting" not in job.content()


def test_a_study_that_changed_during_a_pause_is_fetched_as_it_is_now(both: World, version: int) -> None:
    hold = both.line.hold(CHUNKS[version], skip=2)
    job = both.pull()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    both.line.let_go()
    both.there.store.put(file(77))
    assert finish(job) is StepOutcome.SUCCESS
    assert both.here.store.files == both.there.store.files
    assert both.here.unfinished() == 0
