"""Transfers whose first instances travel while the others are still being listed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from tests.jobs.memory_link import once
from tests.jobs.memory_server import Server
from tests.jobs.memory_store import file, identify
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, services_of, step_until

COUNT = FIRST_INSTANCES + 70
BUCKETS = {"push": "PUT /transfers/v2/push/.*", "pull": "POST /transfers/v2/chunks"}
ANNOUNCED = {"push": "POST /transfers/v2/push", "pull": "POST /transfers/lookup"}
WAYS = pytest.mark.parametrize("way", ["push", "pull"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[PeerPair]:
    """Nothing on either side."""
    made = make_pair(tmp_path)
    yield made
    made.close()


def source(pair: PeerPair, way: str) -> Server:
    return pair.here if way == "push" else pair.there


def target(pair: PeerPair, way: str) -> Server:
    return pair.there if way == "push" else pair.here


def fill(pair: PeerPair, way: str, count: int = COUNT) -> Server:
    """Files at the sender; which is returned."""
    sender = source(pair, way)
    sender.store.put(*(file(number, 400) for number in range(count)))
    return sender


def is_whole(pair: PeerPair, way: str) -> None:
    assert target(pair, way).store.files == source(pair, way).store.files
    assert pair.here.unfinished() == pair.there.unfinished() == 0


class Gate:
    """Listing all the instances of a server waits here."""

    def __init__(self, server: Server) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        server.store.before_manifest = self._pass

    def _pass(self) -> None:
        self.reached.set()
        assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()


@WAYS
def test_the_first_instances_travel_while_the_others_are_listed(pair: PeerPair, way: str) -> None:
    gate = Gate(fill(pair, way))
    job = getattr(pair, way)(compression="none")
    step_until(job, lambda: pair.link.count(BUCKETS[way]) >= FIRST_INSTANCES * 400 // 6144)
    step_until(job, gate.reached.is_set)
    step_until(job, lambda: job.content().get("CompletedHttpQueries", 0) >= FIRST_INSTANCES * 400 // 6144)
    # Nobody takes the beginning for the whole.
    assert "TotalInstances" not in job.content()
    assert 0.3 < job.progress() < 0.8
    assert job.content()["Phase"] in ("Sending", "Fetching")
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["TotalInstances"] == COUNT
    is_whole(pair, way)


@WAYS
@pytest.mark.parametrize("count", [FIRST_INSTANCES, FIRST_INSTANCES + 1])
def test_only_a_long_list_is_announced_twice(pair: PeerPair, way: str, count: int) -> None:
    fill(pair, way, count)
    assert finish(getattr(pair, way)()) is StepOutcome.SUCCESS
    assert pair.link.count(ANNOUNCED[way]) == (1 if count == FIRST_INSTANCES else 2)
    is_whole(pair, way)


@WAYS
def test_a_list_that_changes_meanwhile_is_begun_anew(pair: PeerPair, way: str) -> None:
    sender = fill(pair, way)
    first = min(sender.store.files)
    added = next(data for data in map(file, range(COUNT, 10**6)) if identify(data) < first)
    gate = Gate(sender)
    job = getattr(pair, way)()
    step_until(job, gate.reached.is_set)
    sender.store.put(added)
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["TotalInstances"] == COUNT + 1
    is_whole(pair, way)


@WAYS
def test_an_instance_that_is_replaced_meanwhile_arrives_as_it_is_now(pair: PeerPair, way: str) -> None:
    sender = fill(pair, way)
    first = min(sender.store.files)
    gate = Gate(sender)
    job = getattr(pair, way)(compression="none")
    # A bucket of the file that is gone would be refused.
    incoming = target(pair, way).registry
    step_until(job, lambda: gate.reached.is_set() and [one.missing() for one in incoming.all()] == [[]])
    sender.store.files[first] = sender.store.files[first][:-1]
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    is_whole(pair, way)


@WAYS
def test_an_instance_that_is_deleted_meanwhile_is_not_expected(pair: PeerPair, way: str) -> None:
    sender = fill(pair, way)
    gate = Gate(sender)
    job = getattr(pair, way)()
    step_until(job, gate.reached.is_set)
    eventually(lambda: pair.link.count(BUCKETS[way]) > 0)
    sender.store.files.pop(max(sender.store.files))
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    is_whole(pair, way)


@WAYS
def test_what_is_there_of_either_part_is_not_sent(pair: PeerPair, way: str) -> None:
    sender = fill(pair, way)
    names = sorted(sender.store.files)
    there = [*names[:7], *names[FIRST_INSTANCES - 1 : FIRST_INSTANCES + 9]]
    target(pair, way).store.files.update({name: sender.store.files[name] for name in there})
    job = getattr(pair, way)(compression="none")
    assert finish(job) is StepOutcome.SUCCESS
    content = job.content()
    assert content["AlreadyStoredInstances"] == len(there)
    assert content["Report"] == {"Stored": COUNT - len(there), "AlreadyStored": len(there), "FilteredOut": 0}
    is_whole(pair, way)


@WAYS
def test_what_is_listed_late_counts_for_the_progress(pair: PeerPair, way: str) -> None:
    sender = fill(pair, way)
    first = sorted(sender.store.files)[:FIRST_INSTANCES]
    target(pair, way).store.files.update({name: sender.store.files[name] for name in first})
    gate = Gate(sender)
    job = getattr(pair, way)(compression="none")
    # Nothing of the first is to be carried.
    step_until(
        job, lambda: job.content().get("AlreadyStoredInstances") == FIRST_INSTANCES and gate.reached.is_set()
    )
    hold = pair.link.hold(BUCKETS[way], skip=4)
    gate.open()
    step_until(job, lambda: hold.reached.is_set() and job.content()["CompletedHttpQueries"] > 4)
    assert job.progress() < 0.999
    pair.link.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    is_whole(pair, way)


@WAYS
def test_each_bucket_counts_once_when_the_rest_is_known_in_time(pair: PeerPair, way: str) -> None:
    sender = fill(pair, way)
    late = sorted(sender.store.files)[FIRST_INSTANCES:-5]
    target(pair, way).store.files.update({name: sender.store.files[name] for name in late})
    hold = pair.link.hold(BUCKETS[way])
    job = getattr(pair, way)(compression="none")
    step_until(
        job, lambda: job.content().get("AlreadyStoredInstances") == len(late) and hold.reached.is_set()
    )
    eventually(lambda: pair.link.count(ANNOUNCED[way]) == 2)
    pair.link.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    progress = job._attempt.progress
    assert progress.completed == progress._buckets()
    is_whole(pair, way)


@WAYS
def test_a_second_time_nothing_travels(pair: PeerPair, way: str) -> None:
    fill(pair, way)
    assert finish(getattr(pair, way)()) is StepOutcome.SUCCESS
    carried = pair.link.count(BUCKETS[way])
    assert finish(getattr(pair, way)()) is StepOutcome.SUCCESS
    assert pair.link.count(BUCKETS[way]) == carried


@WAYS
def test_a_pause_while_all_are_listed_loses_nothing(pair: PeerPair, way: str) -> None:
    gate = Gate(fill(pair, way))
    job = getattr(pair, way)(compression="none")
    step_until(job, lambda: job.content().get("CompletedHttpQueries", 0) >= 4)
    job.stop(StopReason.PAUSED)
    eventually(lambda: pair.link.connected == 0)
    carried = pair.link.count(BUCKETS[way])
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    # What was under way at the pause may have to be carried again.
    assert pair.link.count(BUCKETS[way]) - carried < COUNT * 400 // 4096
    is_whole(pair, way)


@WAYS
def test_a_restart_of_the_job_s_server_in_the_middle_goes_on(pair: PeerPair, way: str) -> None:
    gate = Gate(fill(pair, way))
    job = getattr(pair, way)(compression="none")
    step_until(job, lambda: job.content().get("CompletedHttpQueries", 0) >= 4)
    again = pair.restart(job)
    gate.open()
    assert finish(again) is StepOutcome.SUCCESS
    assert again.content()["Protocol"] == 2
    is_whole(pair, way)


@WAYS
def test_a_lost_response_to_either_announcement_does_no_harm(pair: PeerPair, way: str) -> None:
    fill(pair, way)
    pair.link.after = once(ANNOUNCED[way], PeerResponse(b"<html>Bad Gateway</html>"))
    assert finish(getattr(pair, way)()) is StepOutcome.SUCCESS
    assert pair.link.count(ANNOUNCED[way]) == 3
    is_whole(pair, way)


def test_the_beginning_announced_again_after_all_were_is_understood(pair: PeerPair) -> None:
    sender = fill(pair, "push")
    job = pair.push(compression="none")
    saved = json.loads(json.dumps(job.serialized()))
    hold = pair.link.hold("POST .*/commit")
    step_until(job, hold.reached.is_set)
    carried = pair.link.count(BUCKETS["push"])
    job.release()
    pair.link.let_go()
    # The sender is back to the moment when its job was submitted.
    again = pair._keep(type(job)(pair.services, job.order, saved))
    assert finish(again) is StepOutcome.SUCCESS
    assert pair.link.count(BUCKETS["push"]) == carried
    assert pair.there.store.files == sender.store.files


def test_a_peer_that_does_not_grow_pushes_is_told_all_at_once(pair: PeerPair) -> None:
    fill(pair, "push")

    def after(request: str, answer: PeerResponse) -> PeerResponse:
        if request.endswith("capabilities"):
            value = json.loads(bytes(answer.body))
            del value["Growing"]
            return replace(answer, body=json.dumps(value).encode())
        return answer

    pair.link.after = after
    assert finish(pair.push()) is StepOutcome.SUCCESS
    assert pair.link.count(ANNOUNCED["push"]) == 1
    is_whole(pair, "push")


@WAYS
@pytest.mark.parametrize("version", [1, 2])
def test_a_cancel_while_all_are_listed_leaves_nothing(tmp_path: Path, way: str, version: int) -> None:
    made = make_pair(tmp_path, version=version)
    gate = Gate(fill(made, way))
    job = getattr(made, way)()
    step_until(job, gate.reached.is_set)
    job.stop(StopReason.CANCELED)
    gate.open()
    assert job.step() is StepOutcome.FAILURE
    eventually(lambda: made.link.connected == 0)
    eventually(lambda: made.here.unfinished() == made.there.unfinished() == 0)
    assert not target(made, way).store.files
    made.close()


@WAYS
def test_more_than_are_allowed_are_refused_before_anything_travels(tmp_path: Path, way: str) -> None:
    made = make_pair(tmp_path, MaxManifestInstances=COUNT - 1)
    fill(made, way)
    job = getattr(made, way)()
    assert finish(job) is StepOutcome.FAILURE
    assert str(COUNT - 1) in (job.failure() or "")
    assert made.link.count(BUCKETS[way]) == 0
    made.close()


@WAYS
def test_without_room_for_the_rest_the_beginning_goes_too(
    pair: PeerPair, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pair, way)
    receiver = target(pair, way)
    receiver.close()
    receiver.settings = replace(receiver.settings, max_staging_size=(FIRST_INSTANCES + 20) * 400)
    pair.here.settings = replace(pair.here.settings, max_http_retries=0)
    receiver.start(max_size=receiver.settings.max_staging_size)
    pair.services = services_of(pair.here, pair.services.peers)  # type: ignore[arg-type]
    job = getattr(pair, way)()
    assert finish(job) is StepOutcome.FAILURE
    assert "MaxStagingSize" in (job.failure() or "")
    eventually(lambda: receiver.unfinished() == 0)
    assert not receiver.store.files
