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
from tests.jobs.two_peers import (
    Server,
    World,
    environment,
    eventually,
    file,
    finish,
    identify,
    once,
    step_until,
    world,
)

COUNT = FIRST_INSTANCES + 70
BUCKETS = {"push": "PUT /transfers/v2/push/.*", "pull": "POST /transfers/v2/chunks"}
ANNOUNCED = {"push": "POST /transfers/v2/push", "pull": "POST /transfers/lookup"}
WAYS = pytest.mark.parametrize("way", ["push", "pull"])


@pytest.fixture
def both(tmp_path: Path) -> Iterator[World]:
    """Nothing on either side."""
    made = world(tmp_path)
    yield made
    made.close()


def source(both: World, way: str) -> Server:
    return both.here if way == "push" else both.there


def target(both: World, way: str) -> Server:
    return both.there if way == "push" else both.here


def fill(both: World, way: str, count: int = COUNT) -> Server:
    """Files at the sender; which is returned."""
    sender = source(both, way)
    sender.store.put(*(file(number, 400) for number in range(count)))
    return sender


def is_whole(both: World, way: str) -> None:
    assert target(both, way).store.files == source(both, way).store.files
    assert both.here.unfinished() == both.there.unfinished() == 0


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
def test_the_first_instances_travel_while_the_others_are_listed(both: World, way: str) -> None:
    gate = Gate(fill(both, way))
    job = getattr(both, way)(compression="none")
    step_until(job, lambda: both.line.count(BUCKETS[way]) >= FIRST_INSTANCES * 400 // 6144)
    assert gate.reached.is_set()
    step_until(job, lambda: job.content().get("CompletedHttpQueries", 0) >= FIRST_INSTANCES * 400 // 6144)
    # Nobody takes the beginning for the whole.
    assert "TotalInstances" not in job.content()
    assert 0.3 < job.progress() < 0.8
    assert job.content()["Phase"] in ("Sending", "Fetching")
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["TotalInstances"] == COUNT
    is_whole(both, way)


@WAYS
@pytest.mark.parametrize("count", [FIRST_INSTANCES, FIRST_INSTANCES + 1])
def test_only_a_long_list_is_announced_twice(both: World, way: str, count: int) -> None:
    fill(both, way, count)
    assert finish(getattr(both, way)()) is StepOutcome.SUCCESS
    assert both.line.count(ANNOUNCED[way]) == (1 if count == FIRST_INSTANCES else 2)
    is_whole(both, way)


@WAYS
def test_a_list_that_changes_meanwhile_is_begun_anew(both: World, way: str) -> None:
    sender = fill(both, way)
    first = min(sender.store.files)
    added = next(data for data in map(file, range(COUNT, 10**6)) if identify(data) < first)
    gate = Gate(sender)
    job = getattr(both, way)()
    step_until(job, gate.reached.is_set)
    sender.store.put(added)
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["TotalInstances"] == COUNT + 1
    is_whole(both, way)


@WAYS
def test_an_instance_that_is_replaced_meanwhile_arrives_as_it_is_now(both: World, way: str) -> None:
    sender = fill(both, way)
    first = min(sender.store.files)
    gate = Gate(sender)
    job = getattr(both, way)()
    # A bucket of the file that is gone would be refused.
    moved = FIRST_INSTANCES * 400 // 6144
    step_until(job, lambda: gate.reached.is_set() and job.content().get("CompletedHttpQueries", 0) >= moved)
    sender.store.files[first] = sender.store.files[first][:-1]
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    is_whole(both, way)


@WAYS
def test_an_instance_that_is_deleted_meanwhile_is_not_expected(both: World, way: str) -> None:
    sender = fill(both, way)
    gate = Gate(sender)
    job = getattr(both, way)()
    step_until(job, gate.reached.is_set)
    eventually(lambda: both.line.count(BUCKETS[way]) > 0)
    sender.store.files.pop(max(sender.store.files))
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    is_whole(both, way)


@WAYS
def test_what_is_there_of_either_part_is_not_sent(both: World, way: str) -> None:
    sender = fill(both, way)
    names = sorted(sender.store.files)
    there = [*names[:7], *names[FIRST_INSTANCES - 1 : FIRST_INSTANCES + 9]]
    target(both, way).store.files.update({name: sender.store.files[name] for name in there})
    job = getattr(both, way)(compression="none")
    assert finish(job) is StepOutcome.SUCCESS
    content = job.content()
    assert content["AlreadyStoredInstances"] == len(there)
    assert content["Report"] == {"Stored": COUNT - len(there), "AlreadyStored": len(there), "FilteredOut": 0}
    is_whole(both, way)


@WAYS
def test_what_is_listed_late_counts_for_the_progress(both: World, way: str) -> None:
    sender = fill(both, way)
    first = sorted(sender.store.files)[:FIRST_INSTANCES]
    target(both, way).store.files.update({name: sender.store.files[name] for name in first})
    gate = Gate(sender)
    job = getattr(both, way)(compression="none")
    # Nothing of the first is to be carried.
    step_until(
        job, lambda: job.content().get("AlreadyStoredInstances") == FIRST_INSTANCES and gate.reached.is_set()
    )
    hold = both.line.hold(BUCKETS[way], skip=4)
    gate.open()
    step_until(job, lambda: hold.reached.is_set() and job.content()["CompletedHttpQueries"] > 4)
    assert job.progress() < 0.999
    both.line.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    is_whole(both, way)


@WAYS
def test_each_bucket_counts_once_when_the_rest_is_known_in_time(both: World, way: str) -> None:
    sender = fill(both, way)
    late = sorted(sender.store.files)[FIRST_INSTANCES:-5]
    target(both, way).store.files.update({name: sender.store.files[name] for name in late})
    hold = both.line.hold(BUCKETS[way])
    job = getattr(both, way)(compression="none")
    step_until(
        job, lambda: job.content().get("AlreadyStoredInstances") == len(late) and hold.reached.is_set()
    )
    eventually(lambda: both.line.count(ANNOUNCED[way]) == 2)
    both.line.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    progress = job._attempt.progress
    assert progress.completed == progress._scheduled()
    is_whole(both, way)


@WAYS
def test_a_second_time_nothing_travels(both: World, way: str) -> None:
    fill(both, way)
    assert finish(getattr(both, way)()) is StepOutcome.SUCCESS
    carried = both.line.count(BUCKETS[way])
    assert finish(getattr(both, way)()) is StepOutcome.SUCCESS
    assert both.line.count(BUCKETS[way]) == carried


@WAYS
def test_a_pause_while_all_are_listed_loses_nothing(both: World, way: str) -> None:
    gate = Gate(fill(both, way))
    job = getattr(both, way)(compression="none")
    step_until(job, lambda: job.content().get("CompletedHttpQueries", 0) >= 4)
    job.stop(StopReason.PAUSED)
    eventually(lambda: both.line.connected == 0)
    carried = both.line.count(BUCKETS[way])
    gate.open()
    assert finish(job) is StepOutcome.SUCCESS
    # What was under way at the pause may have to be carried again.
    assert both.line.count(BUCKETS[way]) - carried < COUNT * 400 // 4096
    is_whole(both, way)


@WAYS
def test_a_restart_of_the_job_s_server_in_the_middle_goes_on(both: World, way: str) -> None:
    gate = Gate(fill(both, way))
    job = getattr(both, way)(compression="none")
    step_until(job, lambda: job.content().get("CompletedHttpQueries", 0) >= 4)
    again = both.restart(job)
    gate.open()
    assert finish(again) is StepOutcome.SUCCESS
    assert again.content()["Protocol"] == 2
    is_whole(both, way)


@WAYS
def test_a_lost_answer_to_either_announcement_does_no_harm(both: World, way: str) -> None:
    fill(both, way)
    both.line.after = once(ANNOUNCED[way], PeerResponse(b"<html>Bad Gateway</html>"))
    assert finish(getattr(both, way)()) is StepOutcome.SUCCESS
    assert both.line.count(ANNOUNCED[way]) == 3
    is_whole(both, way)


def test_the_beginning_announced_again_after_all_were_is_understood(both: World) -> None:
    sender = fill(both, "push")
    job = both.push(compression="none")
    saved = json.loads(json.dumps(job.serialized()))
    hold = both.line.hold("POST .*/commit")
    step_until(job, hold.reached.is_set)
    carried = both.line.count(BUCKETS["push"])
    job.release()
    both.line.let_go()
    # The sender is back to the moment when its job was submitted.
    again = both._keep(type(job)(both.env, job.order, saved))
    assert finish(again) is StepOutcome.SUCCESS
    assert both.line.count(BUCKETS["push"]) == carried
    assert both.there.store.files == sender.store.files


def test_a_peer_that_does_not_grow_pushes_is_told_all_at_once(both: World) -> None:
    fill(both, "push")

    def after(request: str, answer: PeerResponse) -> PeerResponse:
        if request.endswith("capabilities"):
            value = json.loads(bytes(answer.body))
            del value["Growing"]
            return replace(answer, body=json.dumps(value).encode())
        return answer

    both.line.after = after
    assert finish(both.push()) is StepOutcome.SUCCESS
    assert both.line.count(ANNOUNCED["push"]) == 1
    is_whole(both, "push")


@WAYS
@pytest.mark.parametrize("version", [1, 2])
def test_a_cancel_while_all_are_listed_leaves_nothing(tmp_path: Path, way: str, version: int) -> None:
    made = world(tmp_path, version=version)
    gate = Gate(fill(made, way))
    job = getattr(made, way)()
    step_until(job, gate.reached.is_set)
    job.stop(StopReason.CANCELED)
    gate.open()
    assert job.step() is StepOutcome.FAILURE
    eventually(lambda: made.line.connected == 0)
    eventually(lambda: made.here.unfinished() == made.there.unfinished() == 0)
    assert not target(made, way).store.files
    made.close()


@WAYS
def test_more_than_are_allowed_are_refused_before_anything_travels(tmp_path: Path, way: str) -> None:
    made = world(tmp_path, MaxManifestInstances=COUNT - 1)
    fill(made, way)
    job = getattr(made, way)()
    assert finish(job) is StepOutcome.FAILURE
    assert str(COUNT - 1) in (job.failure() or "")
    assert made.line.count(BUCKETS[way]) == 0
    made.close()


@WAYS
def test_without_room_for_the_rest_the_beginning_goes_too(
    both: World, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(both, way)
    receiver = target(both, way)
    receiver.close()
    receiver.settings = replace(receiver.settings, max_staging_size=(FIRST_INSTANCES + 20) * 400)
    receiver.start(max_size=receiver.settings.max_staging_size)
    both.env = environment(both.here, both.env.peers)  # type: ignore[arg-type]
    job = getattr(both, way)()
    assert finish(job) is StepOutcome.FAILURE
    assert "MaxStagingSize" in (job.failure() or "")
    assert receiver.unfinished() == 0
    assert not receiver.store.files
