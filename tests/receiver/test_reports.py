"""Commit reports on disk."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import ImportRefused
from orthanc_transfers.receiver.reports import Reports
from tests.receiver.memory_receiver import TestClock, dicom, fill, identify, md5, running_receiver, wait_until

FILES = [dicom(f"file-{number}", 900) for number in range(4)]


def test_a_report_is_found_by_its_identifier_and_by_others(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports", 30, TestClock())
    report = {"ID": "one", "Instances": []}
    reports.write(report, ["job", "../../../etc/passwd"])
    assert reports.read("one") == report
    assert reports.read("job") == report
    assert reports.read("../../../etc/passwd") == report
    assert reports.read("two") is None
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "reports"}


def test_a_report_is_one_file_whatever_it_is_found_by(tmp_path: Path) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    reports.write({"ID": "one"}, ["token", "sender"])
    reports.alias("one", "job")
    assert len({path.stat().st_ino for path in tmp_path.iterdir()}) == 1
    assert [reports.read(name) for name in ("one", "token", "sender", "job")] == [{"ID": "one"}] * 4


def test_a_report_written_again_is_found_by_its_other_identifiers_too(tmp_path: Path) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    for state in ("failed", "committed"):
        reports.write({"ID": "one", "State": state}, ["token"])
        assert reports.read("token") == {"ID": "one", "State": state}


def test_all_reports_are_told_once_and_those_that_are_known_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    for name in ("one", "two", "three"):
        reports.write({"ID": name}, [f"alias of {name}", f"job of {name}"])
    assert sorted(found["ID"] for found in reports.all(0)) == ["one", "three", "two"]
    read: list[Path] = []
    read_bytes = Path.read_bytes

    def watched(path: Path) -> bytes:
        read.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    assert list(reports.all(0, ["one", "three", "unknown"])) == [{"ID": "two"}]
    assert len(read) == 1


def test_there_is_no_other_identifier_for_a_report_that_is_not_there(tmp_path: Path) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    reports.alias("one", "job")
    assert reports.read("job") is None
    assert list(tmp_path.iterdir()) == []


def test_references_of_earlier_releases_are_followed_and_may_be_replaced(tmp_path: Path) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    reports.write({"ID": "one"}, ["job"])
    job = next(path for path in tmp_path.iterdir() if path.stem == hashlib.sha256(b"job").hexdigest())
    job.unlink()
    job.write_text('{"See": "one"}')
    assert reports.read("job") == {"ID": "one"}
    reports.write({"ID": "two"}, ["job"])
    assert reports.read("job") == {"ID": "two"}


def test_reports_do_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    reports = Reports(tmp_path, 30, TestClock())
    reports.write({"ID": "one"}, ["job"])
    reports.write({"ID": "two"}, ["one", "job"])
    assert reports.read("one") == {"ID": "one"}
    assert reports.read("job") == {"ID": "two"}


def test_an_identifier_that_refers_to_itself_does_not_hide_the_report(tmp_path: Path) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    reports.write({"ID": "one"}, ["one"])
    assert reports.read("one") == {"ID": "one"}


def test_reports_are_private(tmp_path: Path) -> None:
    Reports(tmp_path / "reports", 30, TestClock()).write({"ID": "one"})
    assert (tmp_path / "reports").stat().st_mode & 0o777 == 0o700
    (path,) = (tmp_path / "reports").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_reports_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    clock = TestClock()
    reports = Reports(tmp_path, 30, clock)
    reports.write({"ID": "old"}, ["alias"])
    clock.seconds += 29 * 86400
    reports.write({"ID": "young"})
    assert reports.read("alias") == {"ID": "old"}
    clock.seconds += 2 * 86400
    reports.write({"ID": "new"})
    assert reports.read("old") is None
    assert reports.read("alias") is None
    assert reports.read("young") == {"ID": "young"}
    assert len(list(tmp_path.iterdir())) == 2


def test_who_waited_for_a_small_report_takes_it_without_reading(tmp_path: Path) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    for number in range(20):
        reports.write({"ID": str(number), "Instances": []})
    reports.write({"ID": "large", "Instances": [{}] * 1000})
    assert len(reports._written) == 8
    for number in range(20):
        assert reports.take(str(number)) == {"ID": str(number), "Instances": []}
    assert len(reports._written) == 0
    reports.write({"ID": "corrected", "Instances": []})
    reports.correct({"ID": "corrected", "Instances": [{}]})
    assert reports.take("corrected") == {"ID": "corrected", "Instances": [{}]}
    assert reports.take("absent") is None


def test_a_report_is_synced_at_once_or_soon_or_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthanc_transfers.receiver.reports.SOON", 0.01)
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    reports = Reports(tmp_path, 30, TestClock())
    reports.write({"ID": "now"})
    assert len(synced) == 1
    reports.write({"ID": "later"}, synced=False)
    reports.write({"ID": "soon"}, synced=False)
    assert len(synced) == 1
    reports.sync_soon("soon")
    reports.sync_soon("absent")
    wait_until(lambda: len(synced) == 2)
    reports.sync("later")
    assert len(set(synced)) == 3


def test_a_damaged_report_is_no_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    reports.write({"ID": "one"})
    (path,) = tmp_path.iterdir()
    path.write_bytes(b'{"ID')
    with caplog.at_level(logging.WARNING):
        assert reports.read("one") is None
    assert "cannot be read" in caplog.text
    path.write_bytes(b"[]")
    assert reports.read("one") is None


def test_a_report_that_cannot_be_written_leaves_nothing_half(tmp_path: Path) -> None:
    reports = Reports(tmp_path, 30, TestClock())
    with pytest.raises(TypeError):
        reports.write({"ID": "one", "Instances": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_commit_reports_every_instance(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        receiver.store.put(FILES[0])
        receiver.store.filtered.add(identify(FILES[1]))
        transfer = receiver.pull(FILES, peer="hospital", aliases=["transfer-7", ""])
        fill(transfer, FILES)
        receiver.clock.seconds += 5
        transfer.commit()
        report = receiver.reports.read("transfer-7")
        assert report is not None
        assert report["ID"] == transfer.id
        assert (report["Kind"], report["Peer"], report["State"]) == ("pull", "hospital", "committed")
        assert report["Finished"] - report["Created"] == 5
        assert (report["TotalInstances"], report["TotalSize"]) == (4, str(sum(map(len, FILES))))
        assert [row["Outcome"] for row in report["Instances"]] == [
            "already there",
            "filtered",
            "stored",
            "stored",
        ]
        assert [row["MD5"] for row in report["Instances"]] == [md5(data) for data in FILES]
        assert receiver.reports.read("") is None


def test_a_failed_commit_reports_what_was_undone_and_why(tmp_path: Path) -> None:
    with running_receiver(tmp_path, commit_threads_count=1) as receiver:
        receiver.store.refused[identify(FILES[2])] = "bad file"
        transfer = receiver.pull(FILES)
        fill(transfer, FILES)
        with pytest.raises(ImportRefused):
            transfer.commit()
        report = receiver.reports.read(transfer.id)
        assert report is not None
        assert report["State"] == "failed"
        assert identify(FILES[2]) in report["Error"]
        assert [row["Outcome"] for row in report["Instances"]] == [
            "undone",
            "undone",
            "refused",
            "not imported",
        ]
        assert report["Instances"][2]["Reason"] == "bad file"


def test_a_report_that_cannot_be_kept_does_not_fail_the_commit(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as receiver:
        (tmp_path / "reports").write_text("in the way")
        transfer = receiver.pull(FILES)
        fill(transfer, FILES)
        assert transfer.commit().stored == 4


def test_the_name_that_a_sender_gives_its_transfer_hides_no_other_report(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports", 30, TestClock())
    reports.write({"ID": "one", "State": "committed"}, ["theirs"])
    reports.write({"ID": "two"}, ["one", "theirs"])
    assert reports.read("one") == {"ID": "one", "State": "committed"}
    assert reports.read("theirs") == {"ID": "two"}
