"""What of the jobs can be shown without Orthanc: an SDK that only remembers."""

from __future__ import annotations

import ctypes
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orthanc_transfers.core.errors import HostError
from orthanc_transfers.host.jobs import JobEngine
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.interfaces import Job, StepOutcome
from tests.support.waiting import wait_until

CONTINUE, FAILURE = 3, 2


class FakeSdk:
    """Keeps the callbacks; the handle of a job stands for the job."""

    def __init__(self) -> None:
        self.callbacks = SimpleNamespace()
        self.unserialize: Callable[[str, bytes], int | None] = lambda type_, saved: None
        self.freed: list[int] = []
        self.refuses = False
        self.jobs: list[dict[str, str]] = []
        self.lists = threading.Event()
        self.lists.set()

    def job_callbacks(self, **callbacks: Any) -> Any:
        self.callbacks = SimpleNamespace(**callbacks)
        return self.callbacks

    def register_jobs_unserializer(self, callback: Callable[[str, bytes], int | None]) -> None:
        self.unserialize = callback

    def create_job(self, type_: str, handle: int, callbacks: Any) -> int:
        return handle

    def submit_job(self, job: int, priority: int) -> str:
        if self.refuses:
            raise HostError("no more jobs", 1)
        return f"job {job}"

    def rest_get(self, uri: str) -> bytes:
        if uri == "/jobs?expand":
            assert self.lists.wait(10), "it is waited for"
            return json.dumps(self.jobs).encode()
        raise HostError("Orthanc is still starting", 1)

    def free_job(self, job: int) -> None:
        self.freed.append(job)
        self.callbacks.finalize(job)


class FakeJob:
    type = "PushTransfer"
    waits = False

    def __init__(self) -> None:
        self.identifier: str | None = None
        self.releases = 0
        self.outcome = StepOutcome.CONTINUE
        self.shown: dict[str, Any] = {}
        self.released = threading.Event()
        self.may_release = threading.Event()
        self.may_release.set()

    def set_identifier(self, identifier: str) -> None:
        self.identifier = identifier

    def serialized(self) -> dict[str, Any]:
        return {"Peer": "there"}

    def step(self) -> StepOutcome:
        return self.outcome

    def content(self) -> dict[str, Any]:
        return self.shown

    def failure(self) -> str | None:
        return None

    def release(self) -> None:
        self.releases += 1
        self.released.set()
        self.may_release.wait(60)


@pytest.fixture
def sdk() -> FakeSdk:
    return FakeSdk()


@pytest.fixture
def engine(sdk: FakeSdk) -> Iterator[JobEngine]:
    engine = JobEngine(cast(Sdk, sdk), lambda type_, saved: cast(Job, FakeJob()))
    yield engine
    engine.release_all(timeout=0)


def submit(engine: JobEngine, job: FakeJob) -> int:
    return int(engine.submit(cast(Job, job), 0).removeprefix("job "))


def test_a_job_that_orthanc_does_not_take_is_given_back_and_released(sdk: FakeSdk, engine: JobEngine) -> None:
    job = FakeJob()
    sdk.refuses = True
    with pytest.raises(HostError):
        submit(engine, job)
    assert (sdk.freed, job.releases) == ([1], 1)


def test_a_text_lives_on_while_other_threads_are_given_theirs(sdk: FakeSdk, engine: JobEngine) -> None:
    job = FakeJob()
    handle = submit(engine, job)
    job.shown = {"Number": 0}
    address = sdk.callbacks.content(handle)

    def ask() -> None:
        for number in range(1, 300):
            job.shown = {"Number": number}
            sdk.callbacks.content(handle)
            sdk.callbacks.serialized(handle)

    others = [threading.Thread(target=ask) for _ in range(4)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert json.loads(ctypes.string_at(address)) == {"Number": 0}


def test_jobs_that_were_often_looked_at_keep_no_texts(sdk: FakeSdk, engine: JobEngine) -> None:
    text = 100_000
    handles = []
    for _ in range(20):
        job = FakeJob()
        job.shown = {"Resources": "x" * text}
        handles.append(submit(engine, job))

    def look() -> None:
        for handle in handles * 5:
            sdk.callbacks.content(handle)
            sdk.callbacks.serialized(handle)

    tracemalloc.start()
    try:
        look()
        assert tracemalloc.get_traced_memory()[0] < 3 * text
    finally:
        tracemalloc.stop()


def test_a_release_that_hangs_does_not_hold_up_the_end_of_orthanc(engine: JobEngine) -> None:
    slow, quick = FakeJob(), FakeJob()
    slow.may_release.clear()
    submit(engine, slow)
    submit(engine, quick)
    engine.release_all(timeout=0.05)
    assert not slow.may_release.is_set()
    assert slow.released.wait(60)
    assert quick.released.wait(60)
    slow.may_release.set()


def test_a_job_cut_short_by_the_end_of_orthanc_has_not_failed(sdk: FakeSdk, engine: JobEngine) -> None:
    job = FakeJob()
    handle = submit(engine, job)
    engine.release_all()
    job.outcome = StepOutcome.FAILURE
    assert sdk.callbacks.step(handle) == CONTINUE


def test_a_job_is_released_once_however_often_it_ends(sdk: FakeSdk, engine: JobEngine) -> None:
    job = FakeJob()
    handle = submit(engine, job)
    engine.release_all()
    engine.release_all()
    sdk.callbacks.finalize(handle)
    sdk.callbacks.finalize(handle)
    assert job.releases == 1


def test_a_job_knows_its_identifier_also_after_a_restart(sdk: FakeSdk) -> None:
    jobs = [FakeJob(), FakeJob()]
    known: list[dict[str, Any]] = []

    def reload(type_: str, saved: dict[str, Any]) -> Job:
        known.append(dict(saved))
        return cast(Job, jobs[1])

    engine = JobEngine(cast(Sdk, sdk), reload)
    handle = submit(engine, jobs[0])
    assert jobs[0].identifier == f"job {handle}"
    saved = json.loads(ctypes.string_at(sdk.callbacks.serialized(handle)))
    reloaded = sdk.unserialize("PushTransfer", json.dumps({**saved, "Type": "PushTransfer"}).encode())
    assert reloaded is not None
    assert known == [{"Peer": "there"}]
    assert jobs[1].identifier == jobs[0].identifier
    assert json.loads(ctypes.string_at(sdk.callbacks.serialized(reloaded))) == saved
    engine.release_all(timeout=0)


@pytest.fixture
def reloaded(sdk: FakeSdk) -> Iterator[tuple[JobEngine, list[FakeJob]]]:
    """Three jobs, reloaded in the order of their identifiers, of which only that of the second was saved."""
    jobs: list[FakeJob] = []

    def reload(type_: str, saved: dict[str, Any]) -> Job:
        jobs.append(FakeJob())
        return cast(Job, jobs[-1])

    engine = JobEngine(cast(Sdk, sdk), reload)
    for saved in (b"{}", b'{"JobID": "b"}', b"{}"):
        sdk.unserialize("PushTransfer", saved)
    yield engine, jobs
    engine.release_all(timeout=0)


def test_a_job_that_was_saved_before_it_knew_its_identifier_learns_it(
    sdk: FakeSdk, reloaded: tuple[JobEngine, list[FakeJob]]
) -> None:
    engine, jobs = reloaded
    submitted = FakeJob()
    handle = submit(engine, submitted)
    sdk.jobs = [
        {"ID": "c", "Type": "PushTransfer"},
        {"ID": f"job {handle}", "Type": "PushTransfer"},
        {"ID": "b", "Type": "PushTransfer"},
        {"ID": "aa", "Type": "Archive"},
        {"ID": "a", "Type": "PullTransfer"},
    ]
    engine.started()
    wait_until(lambda: [job.identifier for job in jobs] == ["a", "b", "c"], "the identifiers")
    assert {job.identifier for job in engine.jobs()} == {"a", "b", "c", f"job {handle}"}


def test_no_job_gets_the_identifier_of_another_one(
    sdk: FakeSdk,
    reloaded: tuple[JobEngine, list[FakeJob]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, jobs = reloaded
    monkeypatch.setattr("orthanc_transfers.host.jobs._AGAIN", 0.0)
    for found in ("abcd", "bc", "bcd"):
        caplog.clear()
        sdk.jobs = [{"ID": one, "Type": "PushTransfer"} for one in found]
        engine.started()
        wait_until(lambda: "left out of the list of transfers" in caplog.text, "the warning")
        assert [job.identifier for job in jobs] == [None, "b", None]


def test_the_start_does_not_wait_for_orthancs_list_of_jobs(
    sdk: FakeSdk, reloaded: tuple[JobEngine, list[FakeJob]]
) -> None:
    engine, jobs = reloaded
    sdk.jobs = [{"ID": one, "Type": "PushTransfer"} for one in "abc"]
    # As long as a job that has just ended waits to tell that, in a callback like the one of the start.
    sdk.lists = threading.Event()
    engine.started()
    assert not sdk.lists.is_set()
    sdk.lists.set()
    wait_until(lambda: [job.identifier for job in jobs] == ["a", "b", "c"], "the identifiers")


def test_a_job_that_is_being_submitted_at_the_start_is_none_of_the_reloaded(
    sdk: FakeSdk, reloaded: tuple[JobEngine, list[FakeJob]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = reloaded
    listed = [[{"ID": one, "Type": "PushTransfer"} for one in found] for found in ("abcd", "abc")]
    monkeypatch.setattr("orthanc_transfers.host.jobs._AGAIN", 0.0)
    monkeypatch.setattr(sdk, "rest_get", lambda uri: json.dumps(listed.pop(0)).encode())
    engine.started()
    wait_until(lambda: [job.identifier for job in jobs] == ["a", "b", "c"], "the identifiers")


def test_jobs_of_other_types_and_unreadable_ones_are_not_ours(sdk: FakeSdk, engine: JobEngine) -> None:
    assert sdk.unserialize("PullTransfer", b'{"Type": "PullTransfer"}') is not None
    assert sdk.unserialize("DicomModalityStore", b"{}") is None
    assert sdk.unserialize("PushTransfer", b"not JSON") is None
    assert sdk.unserialize("PushTransfer", b"[]") is None
