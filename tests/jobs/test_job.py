"""Jobs as Orthanc's engine sees them: states, what is saved, what is shown."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.model import Chunk, Manifest
from orthanc_transfers.interfaces import StepOutcome, StopReason
from orthanc_transfers.jobs.content import megabytes, with_types
from orthanc_transfers.jobs.job import RELEASE
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.jobs.resume import ResumeState
from orthanc_transfers.jobs.states import Event, State, after
from tests.jobs.memory_store import STUDY, file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, step_until

RESOURCES = [{"Level": "Study", "ID": STUDY}]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[PeerPair]:
    made = make_pair(tmp_path)
    made.here.store.put(*(file(number) for number in range(4)))
    yield made
    made.close()


# --- the states

LEGAL = {
    (State.READY, Event.START): State.RUNNING,
    (State.READY, Event.DONE): State.SUCCEEDED,
    (State.READY, Event.BROKE): State.FAILED,
    (State.READY, Event.PAUSE): State.READY,
    (State.READY, Event.CANCEL): State.CANCELED,
    (State.READY, Event.RESET): State.READY,
    (State.READY, Event.RELEASE): State.RELEASED,
    (State.RUNNING, Event.DONE): State.SUCCEEDED,
    (State.RUNNING, Event.BROKE): State.FAILED,
    (State.RUNNING, Event.PAUSE): State.READY,
    (State.RUNNING, Event.CANCEL): State.CANCELED,
    (State.RUNNING, Event.RESET): State.READY,
    (State.RUNNING, Event.RELEASE): State.RELEASED,
    (State.SUCCEEDED, Event.PAUSE): State.SUCCEEDED,
    (State.SUCCEEDED, Event.CANCEL): State.SUCCEEDED,
    (State.SUCCEEDED, Event.RESET): State.READY,
    (State.SUCCEEDED, Event.RELEASE): State.SUCCEEDED,
    (State.FAILED, Event.PAUSE): State.FAILED,
    (State.FAILED, Event.CANCEL): State.CANCELED,
    (State.FAILED, Event.RESET): State.READY,
    (State.FAILED, Event.RELEASE): State.FAILED,
    (State.CANCELED, Event.PAUSE): State.CANCELED,
    (State.CANCELED, Event.CANCEL): State.CANCELED,
    (State.CANCELED, Event.RESET): State.READY,
    (State.CANCELED, Event.RELEASE): State.CANCELED,
    (State.RELEASED, Event.DONE): State.RELEASED,
    (State.RELEASED, Event.BROKE): State.RELEASED,
    (State.RELEASED, Event.PAUSE): State.RELEASED,
    (State.RELEASED, Event.CANCEL): State.RELEASED,
    (State.RELEASED, Event.RESET): State.RELEASED,
    (State.RELEASED, Event.RELEASE): State.RELEASED,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_state_takes_the_events_that_may_happen_to_it_and_no_others(state: State, event: Event) -> None:
    expected = LEGAL.get((state, event))
    if expected is not None:
        assert after(state, event) is expected
    else:
        with pytest.raises(ValueError, match=f"{event.name} cannot happen"):
            after(state, event)


def test_every_step_after_the_end_says_the_same(pair: PeerPair) -> None:
    job = pair.push()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.step() is StepOutcome.SUCCESS


def lists_with(instance: str) -> list[Manifest | Chunk]:
    """What is in memory that names an instance."""
    gc.collect()
    objects = [one for one in gc.get_objects() if isinstance(one, Manifest | Chunk)]
    return [one for one in objects if (instance in one if isinstance(one, Manifest) else instance == one.id)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("way", ["push", "pull"])
def test_a_transfer_that_has_ended_keeps_no_list_of_instances(tmp_path: Path, version: int, way: str) -> None:
    pair = make_pair(tmp_path, version=version)
    sender = pair.here if way == "push" else pair.there
    # Other tests have theirs, which may still be in memory.
    (name, *_) = sender.store.put(*(file(number) for number in range(100 * version, 100 * version + 4)))
    job = pair.push() if way == "push" else pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    progress, content = job.progress(), job.content()
    receiver = pair.there if way == "push" else pair.here
    assert receiver.registry.all()
    assert not lists_with(name)
    assert (job.progress(), job.content()) == (progress, content)
    # Nor does one that an earlier process received.
    receiver.restart()
    assert receiver.registry.all()
    assert not lists_with(name)
    pair.close()


def test_a_canceled_job_does_nothing_more(pair: PeerPair) -> None:
    job = pair.push()
    job.stop(StopReason.CANCELED)
    assert job.step() is StepOutcome.FAILURE
    assert pair.link.log == []


def test_a_job_that_orthanc_gave_up_stops_working(pair: PeerPair) -> None:
    hold = pair.link.hold("PUT .*")
    job = pair.push()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.FAILURE)
    eventually(lambda: not pair.link.connected)
    assert pair.link.count("PUT .*") == 0


def test_a_released_job_goes_on_nowhere(pair: PeerPair) -> None:
    hold = pair.link.hold("PUT .*")
    job = pair.push()
    step_until(job, hold.reached.is_set)
    saved = job.serialized()
    job.release()
    assert not pair.link.connected
    assert job.step() is StepOutcome.CONTINUE
    assert job.serialized()["Token"] == saved["Token"]
    assert RELEASE <= 2


def test_two_drivers_never_work_for_one_job(pair: PeerPair) -> None:
    pair.link.hold("PUT .*")
    job = pair.push()
    for _ in range(5):
        job.step()
        job.stop(StopReason.PAUSED)
    pair.link.let_go()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.link.max_connected == 1


def test_success_in_the_moment_of_a_pause_is_not_lost(pair: PeerPair) -> None:
    job = pair.push()
    hold = pair.link.hold("GET /transfers/v2/push/.*")
    step_until(job, hold.reached.is_set)
    pair.link.let_go()
    eventually(lambda: job.content()["Phase"] == "Done")
    job.stop(StopReason.PAUSED)
    pair.link.log.clear()
    assert job.step() is StepOutcome.SUCCESS
    assert pair.link.log == []


def test_an_unexpected_error_fails_the_job_and_nothing_else(
    pair: PeerPair, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object) -> Any:
        raise ZeroDivisionError("a bug")

    pair.here.store.beginning = explode  # type: ignore[method-assign]
    job = pair.push()
    assert finish(job) is StepOutcome.FAILURE
    assert "a bug" in (job.failure() or "")
    assert "a bug" in caplog.text


# --- what is saved


def test_a_job_that_did_not_start_is_saved_like_one_of_the_cpp_plugin(pair: PeerPair) -> None:
    saved = pair.push(compression="zstd").serialized()
    assert len(saved.pop("Token")) == 32
    assert saved.pop("Progress") == 0
    assert saved.pop("Created") > 0
    assert saved == {
        "Peer": "there",
        "Resources": RESOURCES,
        "Compression": "zstd",
        "SenderTransferID": "sender-1",
        "Priority": 0,
    }
    assert pair.pull(Originator="another process").serialized()["Originator"] == "another process"


@pytest.mark.parametrize("identifier", [{}, {"SenderTransferID": "kept"}])
def test_a_job_of_the_cpp_plugin_is_reloaded(pair: PeerPair, identifier: dict[str, str]) -> None:
    saved = {"Peer": "there", "Resources": RESOURCES, "Compression": "gzip", **identifier}
    job = reload(pair.services, "PushTransfer", saved)
    assert job.type == "PushTransfer"
    assert job.content() == {}
    assert job.serialized()["SenderTransferID"] == identifier.get(
        "SenderTransferID", job.serialized()["SenderTransferID"]
    )
    assert job.serialized()["SenderTransferID"]
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.there.store.files == pair.here.store.files


def test_a_pull_of_the_cpp_plugin_is_reloaded(pair: PeerPair) -> None:
    saved = {
        "Peer": "here",
        "Resources": RESOURCES,
        "Compression": "none",
        "SenderTransferID": "x",
        "Originator": pair.here.originator,
    }
    job = reload(pair.services, "PullTransfer", saved)
    assert job.type == "PullTransfer"
    assert finish(job) is StepOutcome.SUCCESS


@pytest.mark.parametrize(
    "damage",
    [
        {"Token": 5},
        {"Token": "../../etc"},
        {"Transaction": 7},
        {"Progress": "half"},
        {"Progress": True, "Plan": [], "Completed": "all"},
        {"Transaction": "/x", "Plan": "gzip:other", "Completed": [[0]]},
        {"Transaction": "/x", "Plan": "lz4:other", "Completed": [[5, 2]]},
        {"OriginatorVerified": 1},
    ],
)
def test_damage_to_what_we_save_besides_costs_a_fresh_start_only(
    pair: PeerPair, damage: dict[str, Any]
) -> None:
    saved = {"Peer": "there", "Resources": RESOURCES, "Compression": "gzip", **damage}
    for pair.there.version in (1, 2):
        job = reload(pair.services, "PushTransfer", saved)
        assert finish(job) is StepOutcome.SUCCESS
        pair.services.capabilities.forget("there")
        pair.there.store.files.clear()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"Peer": "there"},
        {"Peer": "there", "Resources": "all", "Compression": "gzip"},
        {"Peer": "there", "Resources": RESOURCES, "Compression": "lz4"},
    ],
)
def test_what_is_no_saved_job_is_refused(pair: PeerPair, saved: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        reload(pair.services, "PushTransfer", saved)


def test_an_unknown_type_of_job_is_refused(pair: PeerPair) -> None:
    saved = {"Peer": "there", "Resources": RESOURCES, "Compression": "gzip"}
    with pytest.raises(BadRequest, match="DicomModalityStore"):
        reload(pair.services, "DicomModalityStore", saved)


def test_completed_buckets_are_saved_as_ranges() -> None:
    resume = ResumeState()
    resume.begin("/transfers/push/1", "gzip:plan")
    for index in (3, 0, 1, 7, 2):
        resume.complete(index)
    saved = json.loads(json.dumps(resume.to_json()))
    assert saved["Completed"] == [[0, 4], [7, 8]]
    assert ResumeState(saved).completed() == {0, 1, 2, 3, 7}
    resume.end()
    assert ResumeState(resume.to_json()).completed() == set()


def test_a_job_that_ended_shows_the_same_after_a_restart(pair: PeerPair) -> None:
    pair.there.store.refused.add(sorted(pair.here.store.files)[0])
    job = pair.push()
    finish(job)
    shown = job.content()
    job.release()
    again = pair.restart(pair.restart(job))
    assert again.content() == shown
    assert "Error" in shown
    pair.there.store.refused.clear()
    again.reset()
    assert again.content() == {}
    assert finish(again) is StepOutcome.SUCCESS


# --- what is shown


def test_resources_are_shown_as_they_were_written_with_a_type_besides() -> None:
    assert with_types([{"Level": "studies", "ID": "a", "More": 1}, {"ID": "b", "Level": "Image"}]) == [
        {"Level": "studies", "Type": "Study", "ID": "a", "More": 1},
        {"ID": "b", "Level": "Image", "Type": "Instance"},
    ]


@pytest.mark.parametrize(
    ("size", "shown"), [(0, 0), (524_287, 0), (524_288, 1), (1_572_863, 1), (1_572_864, 2)]
)
def test_megabytes_are_rounded_to_the_nearest(size: int, shown: int) -> None:
    assert megabytes(size) == shown
