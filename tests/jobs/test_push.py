"""Push: our job against our own routes, and against a peer that has those of version 1 only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import Conflict, PeerUnreachable, UnknownTransaction
from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.jobs.push import new_push
from tests.jobs.two_peers import STUDY, World, eventually, file, finish, once, order, step_until, world

BUCKETS = {1: "PUT /transfers/push/[^/]+/[0-9]+", 2: "PUT /transfers/v2/push/.*"}
CREATION = {1: "POST /transfers/push", 2: "POST /transfers/v2/push"}
DELETION = "DELETE /transfers/(v2/)?push/[^/]+"


@pytest.fixture(params=[1, 2], ids=["version1", "version2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def both(tmp_path: Path, version: int) -> Iterator[World]:
    """A study of ten files here, a peer of either version there."""
    made = world(tmp_path, version=version)
    made.here.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


@pytest.fixture
def new(tmp_path: Path) -> Iterator[World]:
    """The same, with a peer of version 2."""
    made = world(tmp_path, version=2)
    made.here.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[World]:
    """The same, with a peer of version 1."""
    made = world(tmp_path, version=1, MaxHttpRetries=1)
    made.here.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd"])
def test_everything_arrives_whatever_the_compression(both: World, compression: str) -> None:
    job = both.push(compression=compression)
    assert finish(job) is StepOutcome.SUCCESS
    assert both.there.store.files == both.here.store.files
    assert job.progress() == 1
    assert job.content()["Compression"] == compression


def test_large_instances_are_cut_and_arrive_whole(both: World) -> None:
    both.here.store.put(file(100, 50_001), file(101, 8192), file(102, 4096), file(103, 17))
    assert finish(both.push()) is StepOutcome.SUCCESS
    assert both.there.store.files == both.here.store.files


def test_what_compresses_is_compressed(both: World) -> None:
    job = both.push()
    finish(job)
    assert "none" not in job.content()["Codecs"]
    assert job.content()["CompressionRatio"] > 1.2


def test_what_does_not_compress_goes_as_it_is(both: World) -> None:
    both.here.store.files.clear()
    noise = b"".join(md5(bytes([a, b])).encode() for a in range(16) for b in range(16))
    both.here.store.put(bytes.fromhex(noise.decode()))
    job = both.push()
    finish(job)
    assert job.content()["Codecs"].keys() == {"none"}
    assert job.content()["CompressionRatio"] == 1


def test_the_identifier_of_the_transfer_is_on_every_request_of_the_push(both: World) -> None:
    finish(both.push())
    pushes = [
        headers
        for request, headers in zip(both.line.log, both.line.headers, strict=True)
        if "push" in request
    ]
    assert len(pushes) > 4
    assert all(headers["sender-transfer-id"] == "sender-1" for headers in pushes)


# --- what the job shows


def test_the_content_is_empty_until_the_first_step(both: World) -> None:
    job = both.push()
    assert job.content() == {}
    assert job.progress() == 0


def test_the_content_while_sending(both: World, version: int) -> None:
    buckets = 5 if version == 1 else 7
    hold = both.line.hold(BUCKETS[version], skip=1)
    job = both.push(compression="gzip")
    step_until(job, hold.reached.is_set)
    step_until(job, lambda: job.content().get("CompletedHttpQueries") == 1)
    content = job.content()
    assert job.progress() == pytest.approx(2 / (2 + buckets))
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
        "UploadedSizeMB": 0,
        "Protocol": version,
        "Codecs": {"gzip": 1},
        "AlreadyStoredInstances": 0,
        "ResumedSizeMB": 0,
        "Phase": "Sending",
    }
    assert list(content)[:5] == ["Resources", "Peer", "Compression", "TotalInstances", "TotalSizeMB"]


def test_the_content_at_the_end(new: World) -> None:
    job = new.push()
    finish(job)
    content = job.content()
    assert content["Phase"] == "Done"
    assert content["ImportedInstances"] == 10
    assert content["Report"] == {"Stored": 10, "AlreadyStored": 0, "FilteredOut": 0}
    assert content["CompletedHttpQueries"] == 7
    assert "Error" not in content
    assert "EstimatedSecondsLeft" not in content


def test_the_import_is_followed(new: World) -> None:
    hold = new.line.hold("GET /transfers/v2/push/.*")
    job = new.push()
    step_until(job, hold.reached.is_set)
    assert job.content()["Phase"] == "Importing"
    new.line.let_go()
    assert finish(job) is StepOutcome.SUCCESS


# --- what need not travel


def test_an_instance_sent_to_the_server_it_came_from_counts_one_query(new: World) -> None:
    (name,) = new.here.store.put(file(1))
    job = new_push(new.env, order("here", Resources=[{"Level": "Instance", "ID": name}]))
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["CompletedHttpQueries"] == 1
    assert job.content()["AlreadyStoredInstances"] == 1
    assert new.line.count(BUCKETS[2]) == 0


def test_what_the_receiver_has_is_not_sent_again(new: World) -> None:
    new.there.store.put(*(file(number) for number in range(8)))
    job = new.push()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["AlreadyStoredInstances"] == 8
    assert new.line.count(BUCKETS[2]) <= 2
    assert new.there.store.files == new.here.store.files


def test_a_push_to_oneself_in_version_1_ends(tmp_path: Path) -> None:
    made = world(tmp_path, version=1, MaxHttpRetries=1)
    made.here.version = 1
    made.here.store.put(file(1))
    assert finish(made.push("here")) is StepOutcome.SUCCESS
    made.close()


def test_nothing_to_send_is_a_success(both: World) -> None:
    job = both.push(Resources=[])
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["TotalInstances"] == 0
    assert both.there.store.files == {}


# --- pause, cancel, restart


def test_a_pause_stops_the_sending_and_a_resume_sends_only_the_rest(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=3)
    job = both.push()
    step_until(job, hold.reached.is_set)
    step_until(job, lambda: job.content().get("CompletedHttpQueries") == 3)
    before = job.progress()
    job.stop(StopReason.PAUSED)
    eventually(lambda: not both.line.connected)
    assert both.line.count(BUCKETS[version]) == 3
    both.line.let_go()
    assert job.progress() == before
    assert finish(job) is StepOutcome.SUCCESS
    assert both.line.count(BUCKETS[version]) == (5 if version == 1 else 7)
    assert both.there.store.files == both.here.store.files


def test_a_push_goes_on_after_a_restart_of_its_sender(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=3)
    job = both.push()
    step_until(job, hold.reached.is_set)
    step_until(job, lambda: job.content().get("CompletedHttpQueries") == 3)
    before = job.progress()
    again = both.restart(job)
    assert again.content() == {}
    assert again.progress() == pytest.approx(before, abs=1e-3)
    assert finish(again) is StepOutcome.SUCCESS
    assert both.line.count(BUCKETS[version]) == (5 if version == 1 else 7)
    assert both.there.store.files == both.here.store.files


def test_a_push_goes_on_after_a_restart_of_its_receiver(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=3)
    job = both.push()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    eventually(lambda: not both.line.connected)
    both.there.restart()
    both.line.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    assert both.line.count(BUCKETS[version]) == (5 if version == 1 else 7)


def test_a_cancel_deletes_the_push_on_the_receiver(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=2)
    job = both.push()
    step_until(job, hold.reached.is_set)
    assert both.there.unfinished() == 1
    job.stop(StopReason.CANCELED)
    eventually(lambda: both.there.unfinished() == 0)
    assert both.line.count(DELETION) == 1
    assert both.there.store.files == {}


def test_a_paused_push_can_be_canceled(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=2)
    job = both.push()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    both.line.let_go()
    job.stop(StopReason.CANCELED)
    eventually(lambda: both.there.unfinished() == 0)


def test_a_canceled_push_can_be_resubmitted(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=2)
    job = both.push()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.CANCELED)
    both.line.let_go()
    job.reset()
    assert job.progress() == 0
    assert job.content() == {}
    assert finish(job) is StepOutcome.SUCCESS
    assert both.there.store.files == both.here.store.files


def test_the_end_of_orthanc_deletes_nothing(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=2)
    job = both.push()
    step_until(job, hold.reached.is_set)
    job.release()
    assert not both.line.connected
    assert both.there.unfinished() == 1
    assert both.line.count(DELETION) == 0


def test_the_cookie_of_a_load_balancer_outlives_a_pause_and_a_restart(both: World, version: int) -> None:
    def set_cookie(request: str, answer: PeerResponse) -> PeerResponse:
        if request == CREATION[version]:
            return PeerResponse(answer.body, {**answer.headers, "set-cookie": "server=b; Path=/; Secure"})
        return answer

    both.line.after = set_cookie
    hold = both.line.hold(BUCKETS[version], skip=2)
    job = both.push()
    step_until(job, hold.reached.is_set)
    both.line.after = lambda request, answer: answer
    both.line.log.clear()
    both.line.headers.clear()
    again = both.restart(job)
    assert finish(again) is StepOutcome.SUCCESS
    sent = zip(both.line.log, both.line.headers, strict=True)
    assert all(headers.get("cookie") == "server=b" for request, headers in sent if "push" in request)


# --- failures


def test_an_instance_that_does_not_exist_fails_the_job(both: World) -> None:
    job = both.push(Resources=[{"Level": "Instance", "ID": "nowhere"}])
    assert finish(job) is StepOutcome.FAILURE
    assert "nowhere" in (job.failure() or "")
    assert job.content()["Error"] == job.failure()


def test_an_unknown_peer_fails_the_job(both: World) -> None:
    job = both.push("elsewhere")
    assert finish(job) is StepOutcome.FAILURE
    assert "elsewhere" in (job.failure() or "")


def test_a_peer_without_the_plugin_is_named(old: World) -> None:
    old.there.routes = ()
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    assert job.failure() == "peer there does not have the transfers accelerator"


def test_a_refused_import_fails_the_job_in_the_receivers_words(both: World, version: int) -> None:
    refused = sorted(both.here.store.files)[4]
    both.there.store.refused.add(refused)
    job = both.push()
    assert finish(job) is StepOutcome.FAILURE
    assert refused in (job.failure() or "")
    assert "the storage is full" in (job.failure() or "")
    assert both.there.store.files == {}
    eventually(lambda: both.there.unfinished() == 0)


def test_a_push_whose_import_failed_can_be_resubmitted(both: World) -> None:
    both.there.store.refused.add(sorted(both.here.store.files)[4])
    job = both.push()
    finish(job)
    both.there.store.refused.clear()
    job.reset()
    assert job.failure() is None
    assert finish(job) is StepOutcome.SUCCESS
    assert both.there.store.files == both.here.store.files


def test_a_push_that_failed_on_the_way_goes_on_when_resubmitted(new: World) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if request.startswith("PUT") and new.line.count(BUCKETS[2]) > 4:
            raise Conflict("cut")
        return body

    new.line.before = cut
    job = new.push()
    assert finish(job) is StepOutcome.FAILURE
    new.line.before = lambda request, body: body
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert new.line.count(DELETION) == 0
    assert job.content()["CompletedHttpQueries"] < 10
    assert new.there.store.files == new.here.store.files


def test_a_push_of_version_1_is_deleted_after_a_failure(old: World) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if request.startswith("PUT"):
            raise Conflict("cut")
        return body

    old.line.before = cut
    assert finish(old.push()) is StepOutcome.FAILURE
    eventually(lambda: old.there.unfinished() == 0)
    assert old.line.count(DELETION) == 1


def test_a_resubmit_waits_until_the_failed_push_is_deleted(old: World) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if request.startswith("PUT"):
            raise Conflict("cut")
        return body

    old.line.before = cut
    deletion = old.line.hold(DELETION)
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    eventually(deletion.reached.is_set)
    old.line.before = lambda request, body: body
    job.reset()
    assert job.step() is StepOutcome.CONTINUE
    assert old.line.count(CREATION[1]) == 1
    old.line.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    assert old.there.store.files == old.here.store.files


@pytest.mark.parametrize("compression", ["none", "gzip", "auto"])
def test_a_bucket_that_was_damaged_on_its_way_is_sent_again(
    both: World, version: int, compression: str
) -> None:
    damaged: list[str] = []

    def damage(request: str, body: bytes) -> bytes:
        if request.startswith("PUT") and not damaged:
            damaged.append(request)
            return body[:-1] + bytes([body[-1] ^ 1])
        return body

    both.line.before = damage
    assert finish(both.push(compression=compression)) is StepOutcome.SUCCESS
    # Bytes of version 1 that are not encoded have no checksum of their own: all are sent again.
    sent = {1: 10 if compression == "none" else 6, 2: 8}
    assert both.line.count(BUCKETS[version]) == sent[version]
    assert both.there.store.files == both.here.store.files
    eventually(lambda: both.there.unfinished() == 0)


def test_an_instance_that_is_not_as_listed_is_named(both: World, version: int) -> None:
    wrong = sorted(both.here.store.files)[4]
    both.here.store.listed[wrong] = md5(b"something else")
    job = both.push()
    assert finish(job) is StepOutcome.FAILURE
    assert wrong in (job.failure() or "")
    assert both.there.store.files == {}
    if version == 2:
        assert both.line.count("POST .*/commit") == 4


def test_a_push_waits_for_its_turn(new: World) -> None:
    new.there.settings = new.there.settings.__class__(max_push_transactions=1)
    new.there.restart()
    hold = new.line.hold(BUCKETS[2], skip=1)
    first, second = new.push(), new.push()
    step_until(first, hold.reached.is_set)
    step_until(second, lambda: "Waiting" in second.content())
    assert "busy with other transfers" in second.content()["Waiting"]
    new.line.let_go()
    assert finish(first) is StepOutcome.SUCCESS
    assert finish(second) is StepOutcome.SUCCESS
    assert "Waiting" not in second.content()


def test_a_peer_that_is_away_is_waited_for(both: World) -> None:
    away = [True]

    def cut(request: str, body: bytes) -> bytes:
        if away[0]:
            raise PeerUnreachable("connection refused", "there")
        return body

    both.line.before = cut
    job = both.push()
    step_until(job, lambda: "Waiting" in job.content())
    away[0] = False
    assert finish(job) is StepOutcome.SUCCESS
    assert "Waiting" not in job.content()
    assert both.there.store.files == both.here.store.files


def test_a_study_that_grew_during_a_pause_is_sent_whole(both: World, version: int) -> None:
    hold = both.line.hold(BUCKETS[version], skip=2)
    job = both.push()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    both.line.let_go()
    both.here.store.put(file(77))
    assert finish(job) is StepOutcome.SUCCESS
    assert len(both.there.store.files) == 11
    assert both.there.unfinished() == 0


def test_a_push_that_the_receiver_lost_is_made_anew_once(both: World, version: int) -> None:
    lost: list[str] = []

    def lose(request: str, body: bytes) -> bytes:
        if request.startswith("PUT") and not lost:
            lost.append(request)
            raise UnknownTransaction("there is no such push")
        return body

    _as_answer(both, lose)
    assert finish(both.push()) is StepOutcome.SUCCESS
    assert both.line.count(CREATION[version]) == 2
    assert both.there.store.files == both.here.store.files


def test_a_push_that_the_receiver_loses_again_and_again_fails(both: World, version: int) -> None:
    def lose(request: str, body: bytes) -> bytes:
        if request.startswith("PUT"):
            raise UnknownTransaction("there is no such push")
        return body

    _as_answer(both, lose)
    assert finish(both.push()) is StepOutcome.FAILURE
    assert both.line.count(CREATION[version]) == (2 if version == 1 else 5)


# --- answers that make no sense


@pytest.mark.parametrize("kind", ["push", "PUT", "/commit"])
@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"ID'])
def test_an_answer_that_makes_no_sense_is_asked_for_again(both: World, kind: str, body: bytes) -> None:
    both.line.after = once(kind, PeerResponse(body))
    assert finish(both.push()) is StepOutcome.SUCCESS
    assert both.there.store.files == both.here.store.files


def test_a_bucket_that_something_else_than_the_receiver_takes_is_sent_again(both: World) -> None:
    taken: list[str] = []

    def take(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> PeerResponse:
        if method == "PUT" and not taken:
            taken.append(path)
            return PeerResponse(b"<html>sign in first</html>")
        return serve(method, path, body, headers)

    serve, both.there.serve = both.there.serve, take  # type: ignore[method-assign]
    assert finish(both.push()) is StepOutcome.SUCCESS
    assert both.there.store.files == both.here.store.files
    assert both.line.count(f"PUT {taken[0]}") == 2


def test_a_commit_that_something_else_than_the_receiver_answers_is_no_success(old: World) -> None:
    def take(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> PeerResponse:
        return PeerResponse(b"<html>") if path.endswith("/commit") else serve(method, path, body, headers)

    serve, old.there.serve = old.there.serve, take  # type: ignore[method-assign]
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "invalid response to POST" in (job.failure() or "")
    assert old.there.store.files == {}


# --- a commit whose answer is lost


def _lose_first_commit_answer(old: World) -> None:
    lost: list[str] = []

    def lose(request: str, answer: PeerResponse) -> PeerResponse:
        if request.endswith("/commit") and not lost:
            lost.append(request)
            _forget_finished(old)
            raise PeerUnreachable("the connection was reset", "there")
        return answer

    old.line.after = lose


def _forget_finished(old: World) -> None:
    # A C++ peer knows nothing of a push after its commit.
    old.there.transactions._pushes.clear()


def test_a_commit_whose_answer_was_lost_is_verified_by_what_the_receiver_has(old: World) -> None:
    _lose_first_commit_answer(old)
    assert finish(old.push()) is StepOutcome.SUCCESS
    assert old.line.count("POST .*/commit") == 2
    assert old.line.count("POST /transfers/lookup") == 1
    assert old.line.count(CREATION[1]) == 1


def test_a_commit_whose_outcome_cannot_be_verified_is_not_called_a_success(old: World) -> None:
    _lose_first_commit_answer(old)
    changed = sorted(old.here.store.files)[3]
    old.there.store.listed[changed] = md5(b"transcoded on import")
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "the outcome is unknown" in (job.failure() or "")
    assert changed in (job.failure() or "")


def test_a_commit_whose_answer_was_lost_is_asked_for_again_from_a_peer_of_ours(both: World) -> None:
    lost: list[str] = []

    def lose(request: str, answer: PeerResponse) -> PeerResponse:
        if request.endswith("/commit") and not lost:
            lost.append(request)
            raise PeerUnreachable("the connection was reset", "there")
        return answer

    both.line.after = lose
    assert finish(both.push()) is StepOutcome.SUCCESS
    assert both.line.count("POST /transfers/lookup") == 0


def _as_answer(both: World, fail: object) -> None:
    """Let the receiver itself answer with an error."""
    serve = both.there.serve

    def failing(method, path, body, headers):  # type: ignore[no-untyped-def]
        fail(f"{method} {path}", body)  # type: ignore[operator]
        return serve(method, path, body, headers)

    both.there.serve = failing  # type: ignore[method-assign]
