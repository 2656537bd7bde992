"""The report that a sender keeps of its push."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.errors import PeerUnreachable
from orthanc_transfers.interfaces import Job, PeerResponse, StepOutcome
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, finish, make_pair

FILES = [file(number) for number in range(3)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[PeerPair]:
    pair = make_pair(tmp_path)
    yield pair
    pair.close()


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {row["ID"]: row["Outcome"] for row in report["Instances"]}


def push(pair: PeerPair) -> tuple[Job, StepOutcome]:
    job = pair.push()
    job.set_identifier("job-1")
    return job, finish(job)


def test_the_sender_shows_what_the_receiver_did_with_each_instance(pair: PeerPair) -> None:
    names = pair.here.store.put(*FILES)
    pair.there.store.put(FILES[0])
    job, outcome = push(pair)
    assert outcome is StepOutcome.SUCCESS
    report = pair.here.reports.read("job-1")
    assert report is not None
    assert report["Kind"] == "push"
    assert report["Peer"] == "there"
    assert report["State"] == "committed"
    assert report["Report"] == job.content()["Report"] == {"Stored": 2, "AlreadyStored": 1, "FilteredOut": 0}
    assert report["Created"] <= report["Finished"]
    assert report["TotalSize"] == str(sum(map(len, FILES)))
    assert outcomes(report) == dict(zip(names, ["already there", "stored", "stored"], strict=True))
    assert report == pair.here.reports.read("sender-1") == pair.here.reports.read(report["ID"])


def test_the_report_of_a_refusal_names_instance_and_reason_at_the_sender(pair: PeerPair) -> None:
    names = pair.here.store.put(*FILES)
    pair.there.store.refused.add(names[1])
    job, outcome = push(pair)
    assert outcome is StepOutcome.FAILURE
    report = pair.here.reports.read("job-1")
    assert report is not None
    assert report["State"] == "failed"
    assert names[1] in report["Error"]
    assert report["Error"] in job.content()["Error"]
    (refused,) = (row for row in report["Instances"] if row["Outcome"] == "refused")
    assert refused["ID"] == names[1]
    assert refused["Reason"] == "the storage is full"


def test_of_version_1_the_sender_knows_that_all_was_accepted(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, version=1)
    names = pair.here.store.put(*FILES)
    _, outcome = push(pair)
    assert outcome is StepOutcome.SUCCESS
    report = pair.here.reports.read("job-1")
    assert report is not None
    assert outcomes(report) == dict.fromkeys(names, "accepted")
    pair.close()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"[]",
        b"nonsense",
        b'{"Instances": 7}',
        b'{"Instances": [7, {"ID": 7}, {"ID": "x", "Outcome": []}]}',
    ],
)
def test_without_the_report_of_the_receiver_the_transfer_succeeds_all_the_same(
    pair: PeerPair, answer: bytes | None
) -> None:
    names = pair.here.store.put(*FILES)

    def after(request: str, given: PeerResponse) -> PeerResponse:
        if "/reports/" not in request:
            return given
        if answer is None:
            raise PeerUnreachable("cut", "there")
        return PeerResponse(answer)

    pair.link.after = after
    _, outcome = push(pair)
    assert outcome is StepOutcome.SUCCESS
    report = pair.here.reports.read("job-1")
    assert report is not None
    assert outcomes(report) == dict.fromkeys(names, "accepted")


def test_what_a_stranger_reports_is_cut_at_some_length_and_cannot_pretend_to_be_more(pair: PeerPair) -> None:
    names = pair.here.store.put(*FILES)
    row = {"ID": names[0], "Outcome": "x" * 10_000, "Reason": "y" * 10_000, "MD5": "z", "Size": -1}
    forged = json.dumps({"ID": "other", "Peer": "other", "Instances": [row, {**row, "ID": "other"}]}).encode()
    pair.link.after = lambda request, given: PeerResponse(forged) if "/reports/" in request else given
    push(pair)
    report = pair.here.reports.read("job-1")
    assert report is not None
    assert report["ID"] != "other"
    assert report["Peer"] == "there"
    assert list(outcomes(report)) == sorted(names)
    assert {row["Size"] for row in report["Instances"]} == {len(FILES[0])}
    assert len(json.dumps(report)) < 5000


def test_a_server_that_sends_to_itself_keeps_the_report_of_its_receiving_side(pair: PeerPair) -> None:
    pair.here.store.put(*FILES)
    job = pair.push(peer="here")
    job.set_identifier("job-1")
    assert finish(job) is StepOutcome.SUCCESS
    report = pair.here.reports.read("job-1")
    assert report is not None
    assert report["Report"]["AlreadyStored"] == len(FILES)
    assert report["Peer"] == "sender-1"


def test_the_report_of_a_pull_is_found_by_its_job_also_if_the_queue_tells_its_name_last(
    pair: PeerPair,
) -> None:
    names = pair.there.store.put(*FILES)
    job = pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.here.reports.read("job-1") is None
    job.set_identifier("job-1")
    report = pair.here.reports.read("job-1")
    assert report is not None
    assert report["Kind"] == "pull"
    assert report["Peer"] == "there"
    assert outcomes(report) == dict.fromkeys(names, "stored")


def test_a_report_that_cannot_be_written_fails_no_transfer(pair: PeerPair) -> None:
    pair.here.store.put(*FILES)
    folder = pair.here.root / "reports"
    folder.parent.mkdir(exist_ok=True)
    folder.write_bytes(b"a file where a folder should be")
    _, outcome = push(pair)
    assert outcome is StepOutcome.SUCCESS
