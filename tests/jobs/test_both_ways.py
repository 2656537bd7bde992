"""Push and pull alike: our jobs against our own routes, and against a peer that has those of version 1 only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core import storage_limits
from orthanc_transfers.core.errors import PeerUnreachable
from orthanc_transfers.interfaces import Job, StepOutcome, StopReason
from tests.jobs.memory_server import Server
from tests.jobs.memory_store import STUDY, file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, step_until

ASKED = {1: "gzip", 2: "zstd"}
CODECS = {1: "gzip", 2: "delta16+zstd"}
# Buckets of ten files.
BUCKETS = {1: 5, 2: 7}
REQUESTS = {
    ("push", 1): "PUT /transfers/push/[^/]+/[0-9]+",
    ("push", 2): "PUT /transfers/v2/push/.*",
    ("pull", 1): "GET /transfers/chunks/.*",
    ("pull", 2): "POST /transfers/v2/chunks",
}


@dataclass
class Transfer:
    """A study of ten files, which a job of ours carries one way or the other."""

    way: str
    version: int
    pair: PeerPair

    @property
    def sender(self) -> Server:
        return self.pair.here if self.way == "push" else self.pair.there

    @property
    def receiver(self) -> Server:
        return self.pair.there if self.way == "push" else self.pair.here

    @property
    def buckets(self) -> str:
        """The requests that carry a bucket."""
        return REQUESTS[self.way, self.version]

    def job(self, **more: Any) -> Job:
        return self.pair.push(**more) if self.way == "push" else self.pair.pull(**more)

    def held_after(self, buckets: int, **more: Any) -> Job:
        """A job of which so many buckets have arrived; the next one stays where it is until ``let_go``."""
        hold = self.pair.link.hold(self.buckets, skip=buckets)
        job = self.job(**more)
        step_until(job, hold.reached.is_set)
        step_until(job, lambda: job.content().get("CompletedHttpQueries") == buckets)
        return job

    def has_arrived(self) -> bool:
        return self.receiver.store.files == self.sender.store.files


@pytest.fixture(params=[1, 2], ids=["version1", "version2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=["push", "pull"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def transfer(tmp_path: Path, way: str, version: int) -> Iterator[Transfer]:
    made = _make(tmp_path, way, version)
    yield made
    made.pair.close()


def _make(root: Path, way: str, version: int, **options: Any) -> Transfer:
    made = Transfer(way, version, make_pair(root, version=version, **options))
    made.sender.store.put(*(file(number) for number in range(10)))
    return made


@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd"])
def test_everything_arrives_whatever_the_compression(transfer: Transfer, compression: str) -> None:
    job = transfer.job(compression=compression)
    assert finish(job) is StepOutcome.SUCCESS
    assert transfer.has_arrived()
    assert job.progress() == 1
    assert job.content()["Compression"] == compression


def test_large_instances_are_cut_and_arrive_whole(transfer: Transfer) -> None:
    transfer.sender.store.put(file(100, 50_001), file(101, 8192), file(102, 4096), file(103, 17))
    assert finish(transfer.job()) is StepOutcome.SUCCESS
    assert transfer.has_arrived()


def test_an_instance_that_no_plugin_can_import_is_refused_by_name_before_a_byte_is_sent(
    transfer: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_limits, "MAX_INSTANCE", 5000)
    (large,) = transfer.sender.store.put(file(77, 5001))
    job = transfer.job()
    assert finish(job) is StepOutcome.FAILURE
    assert f"instance {large} has 5001 bytes" in (job.failure() or "")
    assert transfer.pair.link.count(transfer.buckets) == 0


@pytest.mark.parametrize("strict", [False, True])
def test_gzip_by_habit_means_the_best_that_the_peer_knows(
    tmp_path: Path, way: str, version: int, strict: bool
) -> None:
    transfer = _make(tmp_path, way, version, StrictCompression=strict)
    job = transfer.job(compression="gzip")
    assert finish(job) is StepOutcome.SUCCESS
    content = job.content()
    assert content["Compression"] == "gzip"
    if strict or version == 1:
        assert (content["CompressionUsed"], content["Codecs"].keys()) == ("gzip", {"gzip"})
    else:
        assert content["CompressionUsed"] == "auto"
        assert "gzip" not in content["Codecs"]
    transfer.pair.close()


# --- what the job shows


def test_the_content_is_empty_until_the_first_step(transfer: Transfer) -> None:
    job = transfer.job()
    assert job.content() == {}
    assert job.progress() == 0


def test_the_content_on_the_way(transfer: Transfer) -> None:
    version = transfer.version
    job = transfer.held_after(1, compression=ASKED[version])
    content = job.content()
    assert job.progress() == pytest.approx(2 / (2 + BUCKETS[version]))
    transfer.pair.link.let_go()
    content.pop("EstimatedSecondsLeft")
    content.pop("NetworkSpeedKBs")
    assert content.pop("CompressionRatio") > 1
    assert len(content.pop("Transaction")) == 32
    assert content == {
        "Resources": [{"Level": "Study", "Type": "Study", "ID": STUDY}],
        "Peer": "there",
        "Compression": ASKED[version],
        "TotalInstances": 10,
        "TotalSizeMB": 0,
        "CompletedHttpQueries": 1,
        {"push": "UploadedSizeMB", "pull": "DownloadedSizeMB"}[transfer.way]: 0,
        "Protocol": version,
        "CompressionUsed": ASKED[version],
        "Codecs": {CODECS[version]: 1},
        "AlreadyStoredInstances": 0,
        "ResumedSizeMB": 0,
        "Phase": {"push": "Sending", "pull": "Fetching"}[transfer.way],
    }
    assert list(content)[:5] == ["Resources", "Peer", "Compression", "TotalInstances", "TotalSizeMB"]


# --- pause, cancel, restart


def test_a_pause_stops_it_and_a_resume_carries_only_the_rest(transfer: Transfer) -> None:
    job = transfer.held_after(3)
    before = job.progress()
    job.stop(StopReason.PAUSED)
    eventually(lambda: not transfer.pair.link.connected)
    transfer.pair.link.let_go()
    assert job.progress() == before
    assert finish(job) is StepOutcome.SUCCESS
    # A pull's request that was under way is made again.
    again = {"push": 0, "pull": 1}[transfer.way]
    assert transfer.pair.link.count(transfer.buckets) <= BUCKETS[transfer.version] + again
    assert transfer.has_arrived()


def test_it_goes_on_after_a_restart(transfer: Transfer) -> None:
    job = transfer.held_after(3)
    before = job.progress()
    reloaded = transfer.pair.restart(job)
    assert reloaded.progress() == pytest.approx(before, abs=1e-3)
    assert finish(reloaded) is StepOutcome.SUCCESS
    again = {"push": 0, "pull": 1}[transfer.way]
    assert transfer.pair.link.count(transfer.buckets) <= BUCKETS[transfer.version] + again
    assert transfer.has_arrived()


def test_a_cancel_deletes_what_was_received_and_it_can_be_resubmitted(transfer: Transfer) -> None:
    job = transfer.held_after(2)
    assert transfer.receiver.unfinished() == 1
    job.stop(StopReason.CANCELED)
    eventually(lambda: transfer.receiver.unfinished() == 0)
    assert transfer.receiver.store.files == {}
    transfer.pair.link.let_go()
    job.reset()
    assert job.progress() == 0
    assert job.content() == {}
    assert finish(job) is StepOutcome.SUCCESS
    assert transfer.has_arrived()


def test_a_study_that_grew_during_a_pause_is_carried_as_it_is_now(transfer: Transfer) -> None:
    job = transfer.held_after(2)
    job.stop(StopReason.PAUSED)
    transfer.pair.link.let_go()
    transfer.sender.store.put(file(77))
    assert finish(job) is StepOutcome.SUCCESS
    assert len(transfer.receiver.store.files) == 11
    assert transfer.has_arrived()
    assert transfer.receiver.unfinished() == 0


# --- failures


def test_a_refused_import_fails_the_job_and_leaves_nothing(transfer: Transfer) -> None:
    refused = sorted(transfer.sender.store.files)[4]
    transfer.receiver.store.refused.add(refused)
    job = transfer.job()
    assert finish(job) is StepOutcome.FAILURE
    assert refused in (job.failure() or "")
    assert "the storage is full" in (job.failure() or "")
    assert transfer.receiver.store.files == {}
    eventually(lambda: transfer.receiver.unfinished() == 0)
    transfer.receiver.store.refused.clear()
    job.reset()
    assert job.failure() is None
    assert finish(job) is StepOutcome.SUCCESS
    assert transfer.has_arrived()


def test_an_unreachable_peer_is_waited_for(transfer: Transfer) -> None:
    unreachable = [True]

    def cut(request: str, body: bytes) -> bytes:
        if unreachable[0]:
            raise PeerUnreachable("connection refused", "there")
        return body

    transfer.pair.link.before = cut
    job = transfer.job()
    step_until(job, lambda: "Waiting" in job.content())
    unreachable[0] = False
    assert finish(job) is StepOutcome.SUCCESS
    assert "Waiting" not in job.content()
    assert transfer.has_arrived()
