"""The log of transfers whose bytes are in memory only."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.receiver.memory_log import MemoryLog
from orthanc_transfers.runtime.journal import Kind

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def contents(folder: Path) -> dict[str, list[tuple[Kind, bytes]]]:
    return {
        one: [(record.kind, record.payload) for record in records]
        for one, records in MemoryLog(folder).read().items()
    }


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_records_are_found_again_by_their_transfer(tmp_path: Path) -> None:
    log = MemoryLog(tmp_path / "log")
    log.append(A, (Kind.OPENED, b"x"), (Kind.COMMITTING, b"y"))
    log.append(B, (Kind.OPENED, b""))
    log.append(A, (Kind.OUTCOME, b"z"))
    assert contents(tmp_path / "log") == {
        A: [(Kind.OPENED, b"x"), (Kind.COMMITTING, b"y"), (Kind.OUTCOME, b"z")],
        B: [(Kind.OPENED, b"")],
    }


def test_nothing_is_written_before_the_first_record(tmp_path: Path) -> None:
    MemoryLog(tmp_path / "log").forget(A)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_costs_itself_only(tmp_path: Path) -> None:
    log = MemoryLog(tmp_path)
    for one in (A, B, C):
        log.append(one, (Kind.OPENED, one.encode()))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes().replace(B.encode(), B.upper().encode()))
    assert contents(tmp_path).keys() == {A, C}


def test_the_oldest_files_go_once_none_of_their_transfers_is_remembered(tmp_path: Path) -> None:
    log = MemoryLog(tmp_path, segment_size=1)
    for one in (A, B, C):
        log.append(one, (Kind.OPENED, b""))
    assert files(tmp_path) == {"log-1", "log-2", "log-3"}
    log.forget(B)
    # Or what ended in it might seem unfinished by what is in the first.
    assert files(tmp_path) == {"log-1", "log-2", "log-3"}
    log.forget(A)
    assert files(tmp_path) == {"log-3"}
    log.append(A, (Kind.OPENED, b""))
    log.forget(C)
    assert files(tmp_path) == {"log-4"}


def test_after_a_restart_a_new_file_is_begun(tmp_path: Path) -> None:
    MemoryLog(tmp_path).append(A, (Kind.OPENED, b""))
    log = MemoryLog(tmp_path)
    log.read()
    log.append(A, (Kind.OUTCOME, b""))
    assert files(tmp_path) == {"log-1", "log-2"}
    assert [kind for kind, _ in contents(tmp_path)[A]] == [Kind.OPENED, Kind.OUTCOME]
    log.forget(A)
    assert files(tmp_path) == {"log-2"}


def test_several_threads_append_at_once(tmp_path: Path) -> None:
    log = MemoryLog(tmp_path, segment_size=1000)

    def work(number: int) -> None:
        for _ in range(50):
            log.append(f"{number:032x}", (Kind.OPENED, b"payload"))

    workers = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = contents(tmp_path)
    assert {one: len(records) for one, records in found.items()} == {f"{n:032x}": 50 for n in range(8)}


def test_a_folder_that_was_deleted_is_an_error_not_a_loss(tmp_path: Path) -> None:
    log = MemoryLog(tmp_path / "staging" / "log")
    with pytest.raises(TransferError):
        log.append(A, (Kind.OPENED, b""))
    (tmp_path / "staging").mkdir()
    log.append(A, (Kind.OPENED, b""))
    shutil.rmtree(tmp_path / "staging")
    with pytest.raises(TransferError):
        log.append(A, (Kind.OUTCOME, b""))
