"""What a sender keeps on disk of its pushes of version 1."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.jobs.ack_log import OLDEST, AckLogs
from orthanc_transfers.jobs.resume import ResumeState

PATH = "/transfers/push/1"
TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def sent(tmp_path: Path) -> AckLogs:
    return AckLogs(tmp_path / "staging" / "sent")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "staging" / "sent"


def begun(sent: AckLogs, *indexes: int, token: str = TOKEN, path: str = PATH) -> ResumeState:
    """A push on its way, of which those buckets arrived."""
    resume = ResumeState({"Token": token}, sent)
    resume.begin(path, "gzip:plan", "server=b")
    for index in indexes:
        resume.complete(index)
    return resume


def test_a_killed_sender_knows_what_was_acknowledged_although_its_job_was_saved_before(
    sent: AckLogs,
) -> None:
    begun(sent, 3, 0, 1)
    again = ResumeState({"Token": TOKEN}, sent)
    assert (again.path, again.plan, again.cookie) == (PATH, "gzip:plan", "server=b")
    assert again.completed() == {0, 1, 3}


def test_what_is_acknowledged_after_a_restart_is_noted_as_well(sent: AckLogs) -> None:
    begun(sent, 3)
    ResumeState({"Token": TOKEN}, sent).complete(5)
    assert ResumeState({"Token": TOKEN}, sent).completed() == {3, 5}


def test_what_the_job_and_the_record_know_of_the_same_push_is_put_together(sent: AckLogs) -> None:
    begun(sent, 3)
    saved = {"Token": TOKEN, "Transaction": PATH, "Plan": "gzip:plan", "Completed": [[7, 9]]}
    assert ResumeState(saved, sent).completed() == {3, 7, 8}


@pytest.mark.parametrize(
    "other",
    [{"Transaction": "/transfers/push/0", "Plan": "gzip:plan"}, {"Transaction": PATH, "Plan": "none:"}],
)
def test_what_the_job_knows_of_an_earlier_push_is_forgotten(sent: AckLogs, other: dict[str, str]) -> None:
    begun(sent, 3)
    again = ResumeState({"Token": TOKEN, **other, "Completed": [[7, 9]]}, sent)
    assert (again.path, again.plan) == (PATH, "gzip:plan")
    assert again.completed() == {3}


def test_other_transfers_have_other_records(sent: AckLogs, folder: Path) -> None:
    other = TOKEN[::-1]
    begun(sent, 1)
    begun(sent, 2, token=other)
    assert ResumeState({"Token": TOKEN}, sent).completed() == {1}
    assert ResumeState({"Token": other}, sent).completed() == {2}
    assert ResumeState({}, sent).path is None
    assert {path.name for path in folder.iterdir()} == {TOKEN, other}


def test_nothing_is_left_of_a_push_that_is_over(sent: AckLogs, folder: Path) -> None:
    resume = begun(sent, 1)
    resume.end()
    # A worker that comes late.
    resume.complete(2)
    assert list(folder.iterdir()) == []
    assert ResumeState({"Token": TOKEN}, sent).path is None


def test_nothing_is_left_of_a_push_that_goes_on_in_version_2(sent: AckLogs, folder: Path) -> None:
    begun(sent, 1).begin("/transfers/v2/push/1")
    begun(sent, 1).renew_token()
    assert list(folder.iterdir()) == []


def test_a_push_that_starts_over_forgets_what_arrived(sent: AckLogs) -> None:
    resume = begun(sent, 1)
    resume.begin("/transfers/push/2", "none:plan")
    resume.complete(4)
    again = ResumeState({"Token": TOKEN}, sent)
    assert (again.path, again.plan, again.completed()) == ("/transfers/push/2", "none:plan", {4})


def test_records_are_private(sent: AckLogs, folder: Path) -> None:
    begun(sent, 1)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / TOKEN).stat().st_mode & 0o777 == 0o600


# --- damage


def test_a_record_that_vanished_is_written_anew(sent: AckLogs, folder: Path) -> None:
    resume = begun(sent, 1, 2)
    (folder / TOKEN).unlink()
    folder.rmdir()
    resume.complete(7)
    assert ResumeState({"Token": TOKEN}, sent).completed() == {1, 2, 7}


@given(st.data())
def test_a_damaged_record_never_says_that_more_arrived_than_did(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("sent")
    sent = AckLogs(folder)
    begun(sent, *range(5))
    raw = bytearray((folder / TOKEN).read_bytes())
    if data.draw(st.booleans(), "cut"):
        del raw[data.draw(st.integers(0, len(raw))) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / TOKEN).write_bytes(raw)
    again = ResumeState({"Token": TOKEN}, sent)
    assert again.path in (PATH, None)
    assert again.completed() <= set(range(5))
    # What comes behind the damage is known.
    again.begin(PATH, "gzip:plan")
    again.complete(9)
    assert ResumeState({"Token": TOKEN}, sent).completed() == {9}


@given(st.binary(max_size=60))
def test_a_note_behind_one_that_was_cut_short_is_read(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes
) -> None:
    sent = AckLogs(folder := tmp_path_factory.mktemp("sent"))
    resume = begun(sent, 1)
    with (folder / TOKEN).open("ab") as file:
        file.write(rest)
    resume.complete(2)
    assert ResumeState({"Token": TOKEN}, sent).completed() == {1, 2}


def test_a_record_that_cannot_be_read_is_passed_over(
    sent: AckLogs, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / TOKEN).mkdir(parents=True)
    assert ResumeState({"Token": TOKEN}, sent).path is None
    assert "cannot be read" in caplog.text


def test_without_a_folder_one_warning_is_all_that_happens(
    sent: AckLogs, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resume = ResumeState({"Token": TOKEN}, sent)
    folder.parent.write_text("in its place")
    resume.begin(PATH, "gzip:plan")
    for index in (1, 2, 3):
        resume.complete(index)
    assert resume.completed() == {1, 2, 3}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "acknowledged buckets of a push cannot be written to disk" in caplog.text


# --- tidying


def test_at_the_start_only_the_records_of_reloaded_jobs_are_kept(folder: Path, sent: AckLogs) -> None:
    other = TOKEN[::-1]
    begun(sent, 1)
    begun(sent, 2, token=other)
    (folder / ".unfinished").write_bytes(b"")
    started = AckLogs(folder)
    new = begun(started, 3, token="f" * 32)
    started.drop_lost({TOKEN})
    assert {path.name for path in folder.iterdir()} == {TOKEN, new.token}


def test_a_log_that_was_not_added_to_for_a_day_is_deleted_with_the_next_push(
    sent: AckLogs, folder: Path
) -> None:
    paused, other = begun(sent, 1), TOKEN[::-1]
    young = folder / "young"
    young.write_bytes(b"")
    old = (folder / TOKEN).stat().st_mtime - OLDEST - 60
    os.utime(folder / TOKEN, (old, old))
    begun(sent, token=other)
    assert {path.name for path in folder.iterdir()} == {other, young.name}
    # It may go on nevertheless.
    paused.complete(2)
    assert ResumeState({"Token": TOKEN}, sent).completed() == {1, 2}
