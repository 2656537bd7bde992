"""Push alone: our job against our own routes, and against a peer that has those of version 1 only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import Conflict, PeerUnreachable, UnknownTransaction
from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.jobs.push import new_push
from tests.jobs.memory_link import once
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, order, step_until

BUCKETS = {1: "PUT /transfers/push/[^/]+/[0-9]+", 2: "PUT /transfers/v2/push/.*"}
CREATION = {1: "POST /transfers/push", 2: "POST /transfers/v2/push"}
DELETION = "DELETE /transfers/(v2/)?push/[^/]+"


@pytest.fixture(params=[1, 2], ids=["version1", "version2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def pair(tmp_path: Path, version: int) -> Iterator[PeerPair]:
    """A study of ten files here, a peer of either version there."""
    made = make_pair(tmp_path, version=version)
    made.here.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


@pytest.fixture
def new(tmp_path: Path) -> Iterator[PeerPair]:
    """The same, with a peer of version 2."""
    made = make_pair(tmp_path, version=2)
    made.here.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[PeerPair]:
    """The same, with a peer of version 1."""
    made = make_pair(tmp_path, version=1, MaxHttpRetries=1)
    made.here.store.put(*(file(number) for number in range(10)))
    yield made
    made.close()


def test_what_compresses_is_compressed(pair: PeerPair) -> None:
    job = pair.push()
    finish(job)
    assert "none" not in job.content()["Codecs"]
    assert job.content()["CompressionRatio"] > 1.2


def test_what_does_not_compress_goes_as_it_is(pair: PeerPair) -> None:
    pair.here.store.files.clear()
    noise = b"".join(md5(bytes([a, b])).encode() for a in range(16) for b in range(16))
    pair.here.store.put(bytes.fromhex(noise.decode()))
    job = pair.push()
    finish(job)
    assert job.content()["Codecs"].keys() == {"none"}
    assert job.content()["CompressionRatio"] == 1


def test_the_identifier_of_the_transfer_is_on_every_request_of_the_push(pair: PeerPair) -> None:
    finish(pair.push())
    pushes = [
        headers
        for request, headers in zip(pair.link.log, pair.link.headers, strict=True)
        if "push" in request
    ]
    assert len(pushes) > 4
    assert all(headers["sender-transfer-id"] == "sender-1" for headers in pushes)


# --- what the job shows


def test_the_content_at_the_end(new: PeerPair) -> None:
    job = new.push()
    finish(job)
    content = job.content()
    assert content["Phase"] == "Done"
    assert content["ImportedInstances"] == 10
    assert content["Report"] == {"Stored": 10, "AlreadyStored": 0, "FilteredOut": 0}
    assert content["CompletedHttpQueries"] == 7
    assert "Error" not in content
    assert "EstimatedSecondsLeft" not in content


def test_the_import_is_followed(new: PeerPair) -> None:
    hold = new.link.hold("GET /transfers/v2/push/.*")
    job = new.push()
    step_until(job, hold.reached.is_set)
    assert job.content()["Phase"] == "Importing"
    new.link.let_go()
    assert finish(job) is StepOutcome.SUCCESS


# --- what need not travel


def test_an_instance_sent_to_the_server_it_came_from_counts_one_query(new: PeerPair) -> None:
    (name,) = new.here.store.put(file(1))
    job = new_push(new.services, order("here", Resources=[{"Level": "Instance", "ID": name}]))
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["CompletedHttpQueries"] == 1
    assert job.content()["AlreadyStoredInstances"] == 1
    assert new.link.count(BUCKETS[2]) == 0


def test_what_the_receiver_has_is_not_sent_again(new: PeerPair) -> None:
    new.there.store.put(*(file(number) for number in range(8)))
    job = new.push()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["AlreadyStoredInstances"] == 8
    assert new.link.count(BUCKETS[2]) <= 2
    assert new.there.store.files == new.here.store.files


def test_a_push_to_oneself_in_version_1_ends(tmp_path: Path) -> None:
    made = make_pair(tmp_path, version=1, MaxHttpRetries=1)
    made.here.version = 1
    made.here.store.put(file(1))
    assert finish(made.push("here")) is StepOutcome.SUCCESS
    made.close()


def test_nothing_to_send_is_a_success(pair: PeerPair) -> None:
    job = pair.push(Resources=[])
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["TotalInstances"] == 0
    assert pair.there.store.files == {}


# --- pause, cancel, restart


def test_a_push_goes_on_after_a_restart_of_its_receiver(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold(BUCKETS[version], skip=3)
    job = pair.push()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    eventually(lambda: not pair.link.connected)
    pair.there.restart()
    pair.link.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.link.count(BUCKETS[version]) == (5 if version == 1 else 7)


def test_a_cancel_deletes_the_push_on_the_receiver(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold(BUCKETS[version], skip=2)
    job = pair.push()
    step_until(job, hold.reached.is_set)
    assert pair.there.unfinished() == 1
    job.stop(StopReason.CANCELED)
    eventually(lambda: pair.there.unfinished() == 0)
    assert pair.link.count(DELETION) == 1
    assert pair.there.store.files == {}


def test_a_paused_push_can_be_canceled(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold(BUCKETS[version], skip=2)
    job = pair.push()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.PAUSED)
    pair.link.let_go()
    job.stop(StopReason.CANCELED)
    eventually(lambda: pair.there.unfinished() == 0)


def test_the_end_of_orthanc_deletes_nothing(pair: PeerPair, version: int) -> None:
    hold = pair.link.hold(BUCKETS[version], skip=2)
    job = pair.push()
    step_until(job, hold.reached.is_set)
    job.release()
    assert not pair.link.connected
    assert pair.there.unfinished() == 1
    assert pair.link.count(DELETION) == 0


def test_the_cookie_of_a_load_balancer_outlives_a_pause_and_a_restart(pair: PeerPair, version: int) -> None:
    def set_cookie(request: str, answer: PeerResponse) -> PeerResponse:
        if request == CREATION[version]:
            return PeerResponse(answer.body, {**answer.headers, "set-cookie": "server=b; Path=/; Secure"})
        return answer

    pair.link.after = set_cookie
    hold = pair.link.hold(BUCKETS[version], skip=2)
    job = pair.push()
    step_until(job, hold.reached.is_set)
    pair.link.after = lambda request, answer: answer
    pair.link.log.clear()
    pair.link.headers.clear()
    again = pair.restart(job)
    assert finish(again) is StepOutcome.SUCCESS
    sent = zip(pair.link.log, pair.link.headers, strict=True)
    assert all(headers.get("cookie") == "server=b" for request, headers in sent if "push" in request)


# --- failures


def test_an_instance_that_does_not_exist_fails_the_job(pair: PeerPair) -> None:
    job = pair.push(Resources=[{"Level": "Instance", "ID": "nowhere"}])
    assert finish(job) is StepOutcome.FAILURE
    assert "nowhere" in (job.failure() or "")
    assert job.content()["Error"] == job.failure()


def test_an_unknown_peer_fails_the_job(pair: PeerPair) -> None:
    job = pair.push("elsewhere")
    assert finish(job) is StepOutcome.FAILURE
    assert "elsewhere" in (job.failure() or "")


def test_a_peer_without_the_plugin_is_named(old: PeerPair) -> None:
    old.there.routes = ()
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    assert job.failure() == "peer there does not have the transfers accelerator"


def test_a_push_that_failed_on_the_way_goes_on_when_resubmitted(new: PeerPair) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if request.startswith("PUT") and new.link.count(BUCKETS[2]) > 4:
            raise Conflict("cut")
        return body

    new.link.before = cut
    job = new.push()
    assert finish(job) is StepOutcome.FAILURE
    new.link.before = lambda request, body: body
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert new.link.count(DELETION) == 0
    assert job.content()["CompletedHttpQueries"] < 10
    assert new.there.store.files == new.here.store.files


def test_a_push_of_version_1_is_deleted_after_a_failure(old: PeerPair) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if request.startswith("PUT"):
            raise Conflict("cut")
        return body

    old.link.before = cut
    assert finish(old.push()) is StepOutcome.FAILURE
    eventually(lambda: old.there.unfinished() == 0)
    assert old.link.count(DELETION) == 1


def test_a_resubmit_waits_until_the_failed_push_is_deleted(old: PeerPair) -> None:
    def cut(request: str, body: bytes) -> bytes:
        if request.startswith("PUT"):
            raise Conflict("cut")
        return body

    old.link.before = cut
    deletion = old.link.hold(DELETION)
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    eventually(deletion.reached.is_set)
    old.link.before = lambda request, body: body
    job.reset()
    assert job.step() is StepOutcome.CONTINUE
    assert old.link.count(CREATION[1]) == 1
    old.link.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    assert old.there.store.files == old.here.store.files


@pytest.mark.parametrize("compression", ["none", "gzip", "auto"])
def test_a_bucket_that_was_damaged_on_its_way_is_sent_again(
    pair: PeerPair, version: int, compression: str
) -> None:
    damaged: list[str] = []

    def damage(request: str, body: bytes) -> bytes:
        if request.startswith("PUT") and not damaged:
            damaged.append(request)
            return body[:-1] + bytes([body[-1] ^ 1])
        return body

    pair.link.before = damage
    assert finish(pair.push(compression=compression)) is StepOutcome.SUCCESS
    # Bytes of version 1 that are not encoded have no checksum of their own: all are sent again.
    sent = {1: 10 if compression == "none" else 6, 2: 8}
    assert pair.link.count(BUCKETS[version]) == sent[version]
    assert pair.there.store.files == pair.here.store.files
    eventually(lambda: pair.there.unfinished() == 0)


def test_a_file_that_is_damaged_here_is_named_and_not_sent_again(pair: PeerPair, version: int) -> None:
    wrong = sorted(pair.here.store.files)[4]
    pair.here.store.listed[wrong] = md5(b"something else")
    job = pair.push()
    assert finish(job) is StepOutcome.FAILURE
    found = md5(pair.here.store.files[wrong])
    assert job.failure() == (
        f"the file of instance {wrong} is damaged on this Orthanc: its MD5 is {found}, and"
        f" {md5(b'something else')} in Orthanc's index; restore it, or delete the instance"
    )
    assert pair.there.store.files == {}
    assert pair.link.count("POST .*/commit") == 1


@pytest.mark.parametrize("indexed", [True, False])
def test_an_instance_that_was_overwritten_meanwhile_is_named(
    pair: PeerPair, version: int, indexed: bool
) -> None:
    name = sorted(pair.here.store.files)[4]
    old = pair.here.store.files[name]
    hold = pair.link.hold(CREATION[version])
    job = pair.push()
    step_until(job, hold.reached.is_set)
    pair.here.store.files[name] = old[:-2] + b"\xff\xff"
    md5s = pair.here.store.md5s
    if not indexed:
        pair.here.store.md5s = lambda names, cancellation=None: dict.fromkeys(md5s(names))  # type: ignore[method-assign]
    pair.link.let_go()
    assert finish(job) is StepOutcome.FAILURE
    assert f"instance {name} was overwritten" in str(job.failure())
    assert ("or its file is damaged" in str(job.failure())) is not indexed
    pair.here.store.md5s = md5s  # type: ignore[method-assign]
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files


def test_a_push_waits_for_its_turn(new: PeerPair) -> None:
    new.there.settings = new.there.settings.__class__(max_push_transactions=1)
    new.there.restart()
    hold = new.link.hold(BUCKETS[2], skip=1)
    first, second = new.push(), new.push()
    step_until(first, hold.reached.is_set)
    step_until(second, lambda: "Waiting" in second.content())
    assert "busy with other transfers" in second.content()["Waiting"]
    new.link.let_go()
    assert finish(first) is StepOutcome.SUCCESS
    assert finish(second) is StepOutcome.SUCCESS
    assert "Waiting" not in second.content()


def test_a_push_that_the_receiver_lost_is_made_anew_once(pair: PeerPair, version: int) -> None:
    lost: list[str] = []

    def lose(request: str, body: bytes) -> bytes:
        if request.startswith("PUT") and not lost:
            lost.append(request)
            raise UnknownTransaction("there is no such push")
        return body

    _as_answer(pair, lose)
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.link.count(CREATION[version]) == 2
    assert pair.there.store.files == pair.here.store.files


def test_a_push_that_the_receiver_loses_with_each_restart_goes_on(pair: PeerPair, version: int) -> None:
    lost: list[str] = []

    def lose(request: str, body: bytes) -> bytes:
        if request.endswith("/commit") and len(lost) < 5:
            lost.append(request)
            path = request.removeprefix("POST ").removesuffix("/commit")
            pair.there.serve("DELETE", path, b"", {})
            raise UnknownTransaction("there is no such push")
        return body

    _as_answer(pair, lose)
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.link.count(CREATION[version]) == 6
    assert pair.there.store.files == pair.here.store.files


@pytest.mark.parametrize("version", [2])
def test_a_push_whose_bytes_the_receiver_loses_with_each_restart_goes_on(
    pair: PeerPair, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a node of a cluster takes it over from one that had them on its own disk."""
    lost: list[str] = []
    serve = pair.there.serve

    def losing(method: str, path: str, *arguments: Any) -> Any:
        if path.endswith("/commit") and len(lost) < 5:
            lost.append(path)
            (transfer,) = pair.there.registry.all()
            assert transfer._writer is not None
            transfer._writer.lose(range(len(transfer.manifest)))
        return serve(method, path, *arguments)

    monkeypatch.setattr(pair.there, "serve", losing)
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert len(lost) == 5
    assert pair.there.store.files == pair.here.store.files


def test_a_push_that_the_receiver_loses_again_and_again_fails(pair: PeerPair, version: int) -> None:
    def lose(request: str, body: bytes) -> bytes:
        if request.startswith("PUT"):
            raise UnknownTransaction("there is no such push")
        return body

    _as_answer(pair, lose)
    assert finish(pair.push()) is StepOutcome.FAILURE
    assert pair.link.count(CREATION[version]) == (2 if version == 1 else 5)


# --- invalid responses


@pytest.mark.parametrize("kind", ["push", "PUT", "/commit"])
@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"ID'])
def test_an_invalid_response_is_asked_for_again(pair: PeerPair, kind: str, body: bytes) -> None:
    pair.link.after = once(kind, PeerResponse(body))
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files


def test_a_bucket_that_something_else_than_the_receiver_takes_is_sent_again(pair: PeerPair) -> None:
    taken: list[str] = []

    def take(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> PeerResponse:
        if method == "PUT" and not taken:
            taken.append(path)
            return PeerResponse(b"<html>sign in first</html>")
        return serve(method, path, body, headers)

    serve, pair.there.serve = pair.there.serve, take  # type: ignore[method-assign]
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files
    assert pair.link.count(f"PUT {taken[0]}") == 2


def test_a_response_to_the_commit_that_is_not_the_receiver_s_is_no_success(old: PeerPair) -> None:
    def take(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> PeerResponse:
        return PeerResponse(b"<html>") if path.endswith("/commit") else serve(method, path, body, headers)

    serve, old.there.serve = old.there.serve, take  # type: ignore[method-assign]
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "invalid response to POST" in (job.failure() or "")
    assert old.there.store.files == {}


# --- a commit whose answer is lost


def _lose_first_commit_answer(old: PeerPair) -> None:
    lost: list[str] = []

    def lose(request: str, answer: PeerResponse) -> PeerResponse:
        if request.endswith("/commit") and not lost:
            lost.append(request)
            _forget_finished(old)
            raise PeerUnreachable("the connection was reset", "there")
        return answer

    old.link.after = lose


def _forget_finished(old: PeerPair) -> None:
    # A C++ peer knows nothing of a push after its commit.
    old.there.pushes._pushes.clear()


def test_a_commit_whose_response_was_lost_is_verified_by_what_the_receiver_has(old: PeerPair) -> None:
    _lose_first_commit_answer(old)
    assert finish(old.push()) is StepOutcome.SUCCESS
    assert old.link.count("POST .*/commit") == 2
    assert old.link.count("POST /transfers/lookup") == 1
    assert old.link.count(CREATION[1]) == 1


def test_a_commit_whose_outcome_cannot_be_verified_is_not_called_a_success(old: PeerPair) -> None:
    _lose_first_commit_answer(old)
    changed = sorted(old.here.store.files)[3]
    old.there.store.listed[changed] = md5(b"transcoded on import")
    job = old.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "the outcome is unknown" in (job.failure() or "")
    assert changed in (job.failure() or "")


def test_a_commit_whose_response_was_lost_is_asked_for_again_from_a_peer_of_ours(pair: PeerPair) -> None:
    lost: list[str] = []

    def lose(request: str, answer: PeerResponse) -> PeerResponse:
        if request.endswith("/commit") and not lost:
            lost.append(request)
            raise PeerUnreachable("the connection was reset", "there")
        return answer

    pair.link.after = lose
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.link.count("POST /transfers/lookup") == 0


def _as_answer(pair: PeerPair, fail: object) -> None:
    """Let the receiver itself answer with an error."""
    serve = pair.there.serve

    def failing(method, path, body, headers):  # type: ignore[no-untyped-def]
        fail(f"{method} {path}", body)  # type: ignore[operator]
        return serve(method, path, body, headers)

    pair.there.serve = failing  # type: ignore[method-assign]
